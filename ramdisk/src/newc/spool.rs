//! An archive that comes as a stream, kept in RAM until it is staged: it has to be read twice, and must not be larger
//! than what there is room for.

use std::fs::File;
use std::io::{self, Read};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::copy;

/// What is read at once.
const BUFFER: usize = 64 << 10;

/// A stream that could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It cannot be read.
    #[error("read the archive at offset {offset}")]
    Read {
        /// Bytes read until then.
        offset: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// The kernel gives no RAM (`memfd_create`, Linux 3.17).
    #[error("keep the archive in RAM")]
    Keep(#[source] io::Error),
    /// It goes on behind the limit.
    #[error("the archive has more than {most} bytes, and that is all that there is room for")]
    TooLarge {
        /// The limit.
        most: u64,
    },
}

/// Reads `from` to its end into a file in RAM that has no name and that no other process sees. Pages of zeros take
/// nothing.
///
/// # Errors
///
/// `from` fails, or has more than `most` bytes; nothing is kept then.
pub fn spool(from: &mut dyn Read, most: u64) -> Result<File, SpoolError> {
    let keep = |e: nix::Error| SpoolError::Keep(e.into());
    let file = File::from(memfd_create(c"levitate-archive", MFdFlags::MFD_CLOEXEC).map_err(keep)?);
    let mut buffer = vec![0; BUFFER];
    let mut offset = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(SpoolError::Read { offset, source }),
        };
        if offset + count as u64 > most {
            return Err(SpoolError::TooLarge { most });
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        copy::write_without_zeros(&file, offset, bytes).map_err(SpoolError::Keep)?;
        offset += count as u64;
    }
    file.set_len(offset).map_err(SpoolError::Keep)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Seek;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_stream_is_kept_without_its_zeros_up_to_the_limit() {
        let mut stream = vec![0; 1 << 20];
        stream[700_000] = 1;
        let mut file = spool(&mut stream.as_slice(), 1 << 20).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 <= 8192);
        let mut found = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut found).unwrap();
        assert_eq!(found, stream);
        let e = spool(&mut io::repeat(1), 100_000).unwrap_err();
        assert_eq!(
            e.to_string(),
            "the archive has more than 100000 bytes, and that is all that there is room for"
        );
    }
}
