//! An image that arrives once, from its first byte to its last: a pipe, or the output of a decoder.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ImageError;

/// Bytes that can be read once, in order.
pub trait Feed {
    /// The name for messages and for the record.
    fn name(&self) -> &str;

    /// Reads some bytes; 0 is the end. `buf` is not empty.
    ///
    /// # Errors
    /// What reading or decoding says; nothing more can be read then.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ImageError>;

    /// Whether 0 bytes mean that the image is whole, and not only that nothing more comes.
    fn proves_its_end(&self) -> bool;
}

/// Reads until `buf` is full; less only at the end.
pub(crate) fn fill(feed: &mut dyn Feed, buf: &mut [u8]) -> Result<usize, ImageError> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match feed.read(rest)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

/// A reader as it is.
#[derive(Debug)]
pub struct Plain<R> {
    name: String,
    reader: R,
    offset: u64,
}

impl<R: Read> Plain<R> {
    /// The bytes of `reader`.
    pub fn new(name: impl Into<String>, reader: R) -> Self {
        Self { name: name.into(), reader, offset: 0 }
    }
}

impl<R: Read> Feed for Plain<R> {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ImageError> {
        loop {
            match self.reader.read(buf) {
                Ok(read) => {
                    self.offset += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ImageError::Read { name: self.name.clone(), offset: self.offset, source });
                }
            }
        }
    }

    fn proves_its_end(&self) -> bool {
        false
    }
}

/// A standard descriptor, waited for where somebody has made it non-blocking.
#[derive(Debug)]
pub struct Descriptor(File);

impl Descriptor {
    /// A descriptor of one's own to the same file, pipe or terminal.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(shared: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(File::from(shared.try_clone_to_owned()?)))
    }
}

impl Read for Descriptor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
                }
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, and an interruption before each.
    struct Drips(&'static [u8], bool);

    impl Read for Drips {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            (buf[0], self.0) = (*first, rest);
            Ok(1)
        }
    }

    #[test]
    fn a_feed_that_drips_fills_a_block_all_the_same() {
        let mut feed = Plain::new("stdin", Drips(b"abcdef", false));
        let mut buf = [0; 4];
        assert_eq!((fill(&mut feed, &mut buf).unwrap(), &buf), (4, b"abcd"));
        assert_eq!((fill(&mut feed, &mut buf).unwrap(), &buf[..2]), (2, &b"ef"[..]));
        assert_eq!(fill(&mut feed, &mut buf).unwrap(), 0);
    }

    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        let thread = std::thread::spawn(move || {
            let mut buf = [0; 3];
            Descriptor::new(reader.as_fd()).unwrap().read(&mut buf).map(|read| buf[..read].to_vec())
        });
        nix::unistd::write(&writer, b"abc").unwrap();
        assert_eq!(thread.join().unwrap().unwrap(), b"abc");
    }
}
