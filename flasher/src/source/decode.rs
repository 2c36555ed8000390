//! The bytes inside a compressed stream, to the end of its last member or frame, every check sum looked at.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::feed::Feed;
use super::format::{Format, HEADER, Window, skippable};
use super::{ImageError, Limits};

/// A reader that can be looked into without taking anything.
pub(super) struct Input {
    // One kind of reader: each decoder is compiled once.
    reader: Box<dyn Read>,
    buffer: Vec<u8>,
    start: usize,
    /// More was wanted than there was.
    ended: bool,
    /// What the reader itself reported.
    broken: bool,
}

/// How much is read at once; not less than [`HEADER`].
const BUFFER: usize = 4096;

impl Input {
    fn new(reader: impl Read + 'static) -> Self {
        Self {
            reader: Box::new(reader),
            buffer: Vec::with_capacity(BUFFER),
            start: 0,
            ended: false,
            broken: false,
        }
    }

    /// The next `count` bytes (at most [`BUFFER`]), or what there is of them.
    fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.buffer.len() - self.start < count {
            self.buffer.drain(..self.start);
            self.start = 0;
            let before = self.buffer.len();
            self.buffer.resize(BUFFER.max(count), 0);
            let read = self.reader.read(&mut self.buffer[before..]);
            self.buffer.truncate(before + read.as_ref().map_or(0, |read| *read));
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.broken = true;
                    return Err(error);
                }
            }
        }
        Ok(&self.buffer[self.start..])
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.ended |= self.peek(1)?.is_empty();
        Ok(&self.buffer[self.start..])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.buffer.len());
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buf)?;
        self.consume(read);
        Ok(read)
    }
}

enum State {
    /// Between two members.
    Between(Input),
    Gzip(Box<GzDecoder<Input>>),
    Xz(Box<XzReader<Input>>),
    Zstd(Box<StreamingDecoder<Input, FrameDecoder>>),
    /// At the end.
    Over,
    /// After an error.
    Broken,
}

/// A decoder over a reader.
pub struct Decoded {
    name: String,
    format: Format,
    limits: Limits,
    state: State,
    /// Members begun.
    members: u64,
    /// Bytes given.
    offset: u64,
    window: Option<Window>,
}

impl Decoded {
    /// Looks at the first bytes of `reader`: what `format` says, or what they are. `Ok(Err(_))` gives the
    /// bytes back as they are if they are of no known format.
    ///
    /// # Errors
    /// [`ImageError::Read`].
    pub(super) fn detect(
        name: &str,
        reader: impl Read + 'static,
        limits: Limits,
    ) -> Result<Result<Self, Input>, ImageError> {
        let mut input = Input::new(reader);
        let head = input.peek(8);
        let head = head.map_err(|source| ImageError::Read { name: name.to_owned(), offset: 0, source })?;
        Ok(match Format::by_magic(head) {
            Some(format) => Ok(Self::over(name, format, input, limits)),
            None => Err(input),
        })
    }

    /// Decodes `reader`. Nothing is read yet.
    pub fn new(name: &str, format: Format, reader: impl Read + 'static, limits: Limits) -> Self {
        Self::over(name, format, Input::new(reader), limits)
    }

    fn over(name: &str, format: Format, input: Input, limits: Limits) -> Self {
        let state = State::Between(input);
        Self { name: name.to_owned(), format, limits, state, members: 0, offset: 0, window: None }
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Reads the first header: how large the decoder's window is.
    ///
    /// # Errors
    /// The same as [`Feed::read`]'s.
    pub fn window(&mut self) -> Result<Window, ImageError> {
        if self.members == 0 {
            self.begin()?;
        }
        Ok(self.window.unwrap_or(Window { size: 0, memory: 0 }))
    }

    fn broken(&self, what: impl ToString) -> ImageError {
        let (name, format) = (self.name.clone(), self.format.name());
        ImageError::Corrupt { name, format, offset: self.offset, what: what.to_string() }
    }

    fn failed(&self, input: Option<(bool, bool)>, error: io::Error) -> ImageError {
        match input {
            Some((_, true)) => {
                ImageError::Read { name: self.name.clone(), offset: self.offset, source: error }
            }
            Some((true, false)) => ImageError::Truncated {
                name: self.name.clone(),
                format: self.format.name(),
                offset: self.offset,
            },
            _ => self.broken(error),
        }
    }

    /// Begins the next member, if there is one.
    fn begin(&mut self) -> Result<(), ImageError> {
        let State::Between(mut input) = std::mem::replace(&mut self.state, State::Broken) else {
            return Ok(());
        };
        let head = loop {
            let head = match input.peek(HEADER) {
                Ok(head) => head,
                Err(error) => return Err(self.failed(Some((false, true)), error)),
            };
            match skippable(head).filter(|_| self.format == Format::Zstd) {
                None => break head,
                Some(length) => {
                    let skipped = io::copy(&mut (&mut input).take(length), &mut io::sink());
                    let state = Some((input.ended, input.broken));
                    match skipped {
                        Ok(skipped) if skipped == length => {}
                        Ok(_) => return Err(self.failed(state, io::ErrorKind::UnexpectedEof.into())),
                        Err(error) => return Err(self.failed(state, error)),
                    }
                }
            }
        };
        if head.is_empty() && self.members > 0 {
            self.state = State::Over;
            return Ok(());
        }
        if !self.format.starts(head) {
            let (name, format) = (self.name.clone(), self.format.name());
            return Err(match self.members {
                0 => ImageError::NotCompressed { name, format },
                _ => self.broken("something else follows its end"),
            });
        }
        let Some(window) = self.format.window(head) else {
            return Err(self.failed(Some((true, false)), io::ErrorKind::UnexpectedEof.into()));
        };
        if window.memory > self.limits.memory {
            return Err(ImageError::Window {
                name: self.name.clone(),
                format: self.format.name(),
                window: window.size,
                needed: window.memory,
                room: self.limits.memory,
            });
        }
        self.window = self.window.filter(|before| before.memory > window.memory).or(Some(window));
        self.members += 1;
        self.state = match self.format {
            Format::Gzip => State::Gzip(Box::new(GzDecoder::new(input))),
            Format::Xz => {
                let kilobytes = u32::try_from(self.limits.memory >> 10).unwrap_or(u32::MAX);
                State::Xz(Box::new(XzReader::new_mem_limit(input, true, kilobytes)))
            }
            Format::Zstd => match StreamingDecoder::new_with_max_window_size(input, self.limits.memory) {
                Ok(decoder) => State::Zstd(Box::new(decoder)),
                Err(error) => return Err(self.broken(error)),
            },
        };
        Ok(())
    }

    /// A member has ended without a complaint of its decoder.
    fn end(&mut self) -> Result<(), ImageError> {
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Gzip(decoder) => State::Between(decoder.into_inner()),
            State::Xz(decoder) => State::Between(decoder.into_inner()),
            State::Zstd(decoder) => {
                let (input, decoder) = decoder.into_parts();
                let expected = decoder.get_checksum_from_data();
                if expected.is_some() && expected != decoder.get_calculated_checksum() {
                    return Err(self.broken("its check sum is wrong"));
                }
                State::Between(input)
            }
            state => state,
        };
        Ok(())
    }
}

impl Feed for Decoded {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ImageError> {
        loop {
            let read = match &mut self.state {
                State::Over => return Ok(0),
                State::Broken => return Err(self.broken("nothing follows an error")),
                State::Between(_) => {
                    self.begin()?;
                    continue;
                }
                State::Gzip(decoder) => decoder.read(buf),
                State::Xz(decoder) => decoder.read(buf),
                State::Zstd(decoder) => decoder.read(buf),
            };
            match read {
                Ok(0) => self.end()?,
                Ok(read) => {
                    self.offset += read as u64;
                    return Ok(read);
                }
                Err(error) => {
                    let input = match &self.state {
                        State::Gzip(decoder) => Some(decoder.get_ref()),
                        State::Xz(decoder) => Some(decoder.inner()),
                        State::Zstd(decoder) => Some(decoder.get_ref()),
                        State::Between(_) | State::Over | State::Broken => None,
                    };
                    let input = input.map(|input| (input.ended, input.broken));
                    self.state = State::Broken;
                    return Err(self.failed(input, error));
                }
            }
        }
    }

    fn proves_its_end(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod memory;
