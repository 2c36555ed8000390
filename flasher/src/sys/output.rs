//! Writing to a terminal, a pipe or a socket without ever waiting for it.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// One of the standard descriptors, written so that a link which takes nothing more costs text and never time.
///
/// A terminal or pipe is opened anew through /proc: `O_NONBLOCK` on the inherited descriptor would be seen by every
/// process that shares it (the shell, for one). Where that fails (a socket, no /proc), each write is short and asks
/// first; a terminal promises no room for any number of bytes, so it gets the words that matter and no progress.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    /// Whether the descriptor itself refuses to block.
    non_blocking: bool,
    /// Whether it is a plain file, which takes everything.
    plain: bool,
    /// Whether it is a terminal that may block: asking it first does not help.
    stubborn: bool,
}

impl Output {
    /// The output behind `standard` (1 or 2).
    pub(crate) fn new(standard: BorrowedFd<'_>) -> io::Result<Self> {
        let shared = File::from(standard.try_clone_to_owned()?);
        let kind = shared.metadata()?.file_type();
        if kind.is_fifo() || kind.is_char_device() {
            let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            let path = format!("/proc/self/fd/{}", standard.as_raw_fd());
            if let Ok(file) = OpenOptions::new().write(true).custom_flags(flags.bits()).open(path) {
                return Ok(Self { file, non_blocking: true, plain: false, stubborn: false });
            }
        }
        Ok(Self::shared(shared, kind))
    }

    /// The descriptor as it is.
    fn shared(file: File, kind: FileType) -> Self {
        Self { file, non_blocking: false, plain: kind.is_file(), stubborn: kind.is_char_device() }
    }

    /// Writes what is taken at once and drops the rest. True if everything was taken.
    pub(crate) fn offer(&mut self, text: &str) -> bool {
        !self.stubborn && self.put(text.as_bytes(), Duration::ZERO)
    }

    /// The same, but waits until `patience` has passed. Only for what is said before the first and after the last
    /// change of flash.
    pub(crate) fn say(&mut self, text: &str, patience: Duration) -> bool {
        self.put(text.as_bytes(), patience)
    }

    fn put(&mut self, mut bytes: &[u8], patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while !bytes.is_empty() {
            let blocks = !self.plain && (!self.non_blocking || !patience.is_zero());
            if blocks && !self.ready(end) {
                return false;
            }
            // A poll promises room for some bytes only; a small piece is what a pipe takes whole.
            let piece = if self.plain || self.non_blocking { bytes.len() } else { bytes.len().min(512) };
            match self.file.write(&bytes[..piece]) {
                Ok(0) => return false,
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn ready(&self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now()).as_millis();
        let timeout =
            PollTimeout::try_from(i32::try_from(left).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(_) => false,
            Ok(_) => fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)),
        }
    }
}

/// The number of columns of the terminal behind the descriptor; `None` if it is no terminal or does not say.
#[allow(unsafe_code)]
pub(crate) fn columns(fd: BorrowedFd<'_>) -> Option<usize> {
    nix::ioctl_read_bad!(get_window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and `size` is a live structure of the kernel's layout that it fills.
    unsafe { get_window_size(fd.as_raw_fd(), &raw mut size) }.ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pipe_costs_text_and_never_time() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut output = Output::new(writer.as_fd()).unwrap();
        let line = "Writing data: 64k/640k (10%)\n".repeat(100);
        let taken = (0..1000).take_while(|_| output.offer(&line)).count();
        assert!(taken > 0 && taken < 1000, "{taken} lines were taken");
        // Nobody else who has the pipe is changed by it.
        let flags = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK));
        drop(reader);
    }

    #[test]
    fn a_socket_that_takes_nothing_more_costs_text_too() {
        let (_peer, socket) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut output = Output::new(socket.as_fd()).unwrap();
        let line = "x".repeat(500);
        let taken = (0..100_000).take_while(|_| output.offer(&line)).count();
        assert!(taken > 0 && taken < 100_000, "{taken} lines were taken");
    }

    #[test]
    fn a_terminal_that_cannot_be_opened_anew_gets_the_last_words_alone() {
        let pair = nix::pty::openpty(None, None).unwrap();
        let file = File::from(pair.slave);
        let kind = file.metadata().unwrap().file_type();
        let mut output = Output::shared(file, kind);
        assert!(!output.offer("Writing data: 64k/640k (10%)\n"));
        assert!(output.say("verified\n", Duration::from_secs(1)));
        let mut said = [0; 64];
        let length = nix::unistd::read(&pair.master, &mut said).unwrap();
        assert_eq!(&said[..length], b"verified\r\n");
    }
}
