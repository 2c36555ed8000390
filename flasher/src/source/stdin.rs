//! An image from standard input, as it is or compressed.

use std::io::Read;

use super::feed::{Feed, Plain};
use super::{Decoded, Decompress, Format, ImageError, Limits, Window};

/// What to call it.
pub(crate) const NAME: &str = "standard input";

/// A stream, and how it is compressed.
pub type Opened = (Box<dyn Feed>, Option<(Format, Window)>);

/// Opens a stream. Its first bytes are read where they are to tell how it is compressed.
///
/// # Errors
/// [`ImageError::Read`], [`ImageError::NotCompressed`], [`ImageError::Truncated`] and [`ImageError::Window`].
pub fn open(
    reader: impl Read + 'static,
    decompress: Decompress,
    limits: Limits,
) -> Result<Opened, ImageError> {
    let mut decoded = match decompress {
        Decompress::ByName | Decompress::Never => return Ok((Box::new(Plain::new(NAME, reader)), None)),
        Decompress::As(format) => Decoded::new(NAME, format, reader, limits),
        Decompress::ByMagic => match Decoded::detect(NAME, reader, limits)? {
            Ok(decoded) => decoded,
            Err(plain) => return Ok((Box::new(Plain::new(NAME, plain)), None)),
        },
    };
    let found = (decoded.format(), decoded.window()?);
    Ok((Box::new(decoded), Some(found)))
}
