//! The archive as a file: compressed as its name says, and there as a whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::GzBuilder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::BuildError;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, as small as it gets; the smaller of the two.
    Gzip,
    /// RFC 8878. What is there in Rust alone compresses as zstd's lowest level does.
    Zstd,
}

impl Compression {
    /// By the suffix of the name: `.gz`, `.zst`, anything else is left as it is.
    #[must_use]
    pub fn by_name(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The same archive gives the same bytes: no time and no name is in them.
    fn compress(self, archive: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(archive.to_vec()),
            Self::Gzip => {
                let mut encoder = GzBuilder::new().write(Vec::new(), flate2::Compression::best());
                encoder.write_all(archive)?;
                encoder.finish()
            }
            Self::Zstd => Ok(compress_to_vec(archive, CompressionLevel::Fastest)),
        }
    }
}

/// Writes `archive` to `path` and returns its size there in bytes. Only its owner may read it: it may hold passwords'
/// hashes and keys. A file of that name is replaced when the new one is whole.
///
/// # Errors
///
/// The file cannot be made; an old one is then still there.
pub fn write(path: &Path, archive: &[u8]) -> Result<u64, BuildError> {
    let failed = |what| move |source| BuildError::Output { what, path: path.to_owned(), source };
    let bytes = Compression::by_name(path).compress(archive).map_err(failed("compress"))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map_err(failed("write"))?;
    Ok(bytes.len() as u64)
}
