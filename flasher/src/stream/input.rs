//! The stream, and the proof of its end.

use crate::digest::Sha;
use crate::error::Error;
use crate::options::Options;
use crate::source::feed::fill;
use crate::source::{Feed, ImageError};

/// A stream that is being taken.
pub(crate) struct Input<'a> {
    feed: &'a mut dyn Feed,
    options: &'a Options,
    target: String,
    /// The most bytes that it may have.
    room: u64,
    taken: u64,
    sha: Sha,
}

impl<'a> Input<'a> {
    /// # Errors
    /// [`ImageError::Unproven`].
    pub(crate) fn new(
        feed: &'a mut dyn Feed,
        options: &'a Options,
        target: String,
        room: u64,
    ) -> Result<Self, ImageError> {
        if !feed.proves_its_end() && options.size.is_none() && options.sha256.is_none() {
            return Err(ImageError::Unproven { name: feed.name().to_owned() });
        }
        Ok(Self { feed, options, target, room, taken: 0, sha: Sha::default() })
    }

    /// Fills `want` with the next bytes, and with 0xff behind the last. Returns how many are the image's; less than
    /// there is room for only at the end.
    pub(crate) fn take(&mut self, want: &mut [u8]) -> Result<usize, ImageError> {
        let left = usize::try_from(self.room - self.taken).unwrap_or(usize::MAX).min(want.len());
        let (bytes, padding) = want.split_at_mut(left);
        let taken = fill(self.feed, bytes)?;
        bytes[taken..].fill(0xff);
        padding.fill(0xff);
        self.sha.update(&bytes[..taken]);
        self.taken += taken as u64;
        Ok(taken)
    }

    /// How many bytes were taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Called when [`Input::take`] has given the last bytes: whether this is the image's end. Returns its SHA-256.
    pub(crate) fn prove_end(&mut self) -> Result<String, Error> {
        let name = || self.feed.name().to_owned();
        if let Some(expected) = self.options.size.filter(|expected| *expected != self.taken) {
            return Err(ImageError::Shrank { name: name(), expected, found: self.taken }.into());
        }
        // A sender that says more than was asked for, a check sum behind the last byte, a decoder's trailer.
        if self.feed.read(&mut [0])? > 0 {
            let name = self.feed.name().to_owned();
            return Err(match self.options.size {
                Some(expected) => ImageError::Surplus { name, expected }.into(),
                None => Error::StreamTooLarge { image: name, target: self.target.clone(), room: self.room },
            });
        }
        let found = std::mem::take(&mut self.sha).hex();
        match &self.options.sha256 {
            Some(expected) if *expected != found => {
                let (image, expected) = (self.feed.name().to_owned(), expected.clone());
                Err(Error::Digest { image, expected, found })
            }
            _ => Ok(found),
        }
    }
}
