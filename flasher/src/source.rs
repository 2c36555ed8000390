//! Where an image's bytes come from.

use std::io;
use std::path::{Path, PathBuf};

pub mod decode;

pub mod feed;

pub mod file;

pub mod format;

pub mod stdin;

pub use decode::Decoded;
pub use feed::Feed;
pub use format::{Decompress, Format, Window};

/// What a decoder may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: u64,
}

/// Left to everything else when a decoder's memory is counted: two large erase blocks, and what the process itself
/// takes.
const RESERVE: u64 = 4 << 20;

impl Limits {
    /// What the system has available now, by `proc/meminfo` below `root`; no limit where it does not say.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        let text = std::fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.strip_suffix("kB"));
        let memory = available
            .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok())
            .map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1024).saturating_sub(RESERVE));
        Self { memory }
    }
}

/// Why an image cannot be used. Every variant means that the image, not the flash, is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be opened.
    #[error("cannot open the image {}: {source}", path.display())]
    Open {
        /// The image as it was named.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The name is a directory's.
    #[error("the image {} is a directory", path.display())]
    Directory {
        /// The image as it was named.
        path: PathBuf,
    },
    /// The name is that of a device, a pipe or a socket.
    #[error("the image {} is {kind}, not a file: its end cannot be proven", path.display())]
    NotAFile {
        /// The image as it was named.
        path: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// The file has no bytes.
    #[error("the image {} is empty", path.display())]
    Empty {
        /// The image as it was named.
        path: PathBuf,
    },
    /// The system reported an error while the file was read.
    #[error("cannot read the image {name} at byte {offset}: {source}")]
    Read {
        /// The image's name.
        name: String,
        /// Where in the image, in bytes.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The file ended before its size.
    #[error("the image {name} ended at byte {found} of {expected} while it was read")]
    Shrank {
        /// The image's name.
        name: String,
        /// The size it had when it was opened, in bytes.
        expected: u64,
        /// Where it ended.
        found: u64,
    },
    /// The file's size grew: somebody still writes it.
    #[error("the image {name} grew from {expected} to {found} bytes while it was read")]
    Grew {
        /// The image's name.
        name: String,
        /// The size it had when it was opened, in bytes.
        expected: u64,
        /// The size it has now.
        found: u64,
    },
    /// The image has another size than the user said.
    #[error("the image {name} has another size: {expected} bytes expected, {found} found")]
    Size {
        /// The image's name.
        name: String,
        /// What the user said, in bytes.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// The stream goes on behind the size that the user said.
    #[error("the image {name} goes on behind the {expected} bytes it was said to have")]
    Surplus {
        /// The image's name.
        name: String,
        /// What the user said, in bytes.
        expected: u64,
    },
    /// Nothing tells where a stream ends.
    #[error(
        "the end of the image {name} cannot be proven: it is not compressed, and neither size nor SHA-256 is known"
    )]
    Unproven {
        /// The image's name.
        name: String,
    },
    /// It does not start as the format does.
    #[error("the image {name} is not {format} data")]
    NotCompressed {
        /// The image's name.
        name: String,
        /// The format that was asked for.
        format: &'static str,
    },
    /// The compressed data ends before its end.
    #[error("the image {name} is cut short: its {format} data ends behind byte {offset} of the image")]
    Truncated {
        /// The image's name.
        name: String,
        /// The format.
        format: &'static str,
        /// How many bytes were decompressed.
        offset: u64,
    },
    /// The compressed data is wrong.
    #[error("cannot decompress the image {name} behind byte {offset}: {what} ({format})")]
    Corrupt {
        /// The image's name.
        name: String,
        /// The format.
        format: &'static str,
        /// How many bytes were decompressed.
        offset: u64,
        /// What the decoder said.
        what: String,
    },
    /// The decoder would need more memory than there is.
    #[error(
        "the image {name} needs {} KiB of memory to be decompressed ({format}, a window of {} KiB), {} KiB are available",
        needed.div_ceil(1024), window.div_ceil(1024), room / 1024
    )]
    Window {
        /// The image's name.
        name: String,
        /// The format.
        format: &'static str,
        /// The window's size by the stream's header, in bytes.
        window: u64,
        /// What the decoder needs, in bytes.
        needed: u64,
        /// What there is, in bytes.
        room: u64,
    },
    /// Two passes over the image gave different bytes.
    #[error("the image {name} changed while it was written: SHA-256 {first} at first, {second} now")]
    Changed {
        /// The image's name.
        name: String,
        /// The digest of the first pass, in hexadecimal.
        first: String,
        /// The digest of the later pass, in hexadecimal.
        second: String,
    },
}

/// Bytes of a known number that can be read at any offset, and read again.
pub trait Source {
    /// The name for messages and for the record.
    fn name(&self) -> &str;

    /// The size in bytes; never 0, and the same for the life of the source.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// [`ImageError::Read`] and [`ImageError::Shrank`]; `buf` is then undefined.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ImageError>;

    /// Called when a pass over all bytes is complete: the source's chance to notice that it has grown.
    ///
    /// # Errors
    /// [`ImageError::Grew`].
    fn end_of_pass(&mut self) -> Result<(), ImageError> {
        Ok(())
    }
}

/// An image in memory, for callers that have made one.
#[derive(Debug, Clone)]
pub struct Bytes {
    name: String,
    bytes: Vec<u8>,
}

impl Bytes {
    /// An image of the given bytes.
    ///
    /// # Errors
    /// [`ImageError::Empty`].
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, ImageError> {
        let name = name.into();
        if bytes.is_empty() {
            return Err(ImageError::Empty { path: name.into() });
        }
        Ok(Self { name, bytes })
    }
}

impl Source for Bytes {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ImageError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buf.len());
        let Some(bytes) = self.bytes.get(start..end) else {
            return Err(ImageError::Shrank {
                name: self.name.clone(),
                expected: end as u64,
                found: self.size(),
            });
        };
        buf.copy_from_slice(bytes);
        Ok(())
    }
}
