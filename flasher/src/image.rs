//! An image in a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use crate::source::{ImageError, Source};

/// A regular file, opened once, so that a file renamed over it does not become another image half-way.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    name: String,
    size: u64,
}

impl ImageFile {
    /// Opens the file and takes its size. Its bytes are not read yet: a file that ends before its size is found by
    /// [`Source::read_at`].
    ///
    /// # Errors
    /// [`ImageError::Open`], [`ImageError::Directory`], [`ImageError::NotAFile`] and [`ImageError::Empty`].
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let open = |source| ImageError::Open { path: path.to_owned(), source };
        // Looked at before it is opened: opening a pipe would wait for its writer.
        let kind = std::fs::metadata(path).map_err(open)?.file_type();
        if kind.is_dir() {
            return Err(ImageError::Directory { path: path.to_owned() });
        }
        if !kind.is_file() {
            let kind = match () {
                () if kind.is_fifo() => "a pipe",
                () if kind.is_socket() => "a socket",
                () => "a device",
            };
            return Err(ImageError::NotAFile { path: path.to_owned(), kind });
        }
        let file = File::open(path).map_err(open)?;
        let size = file.metadata().map_err(open)?.len();
        if size == 0 {
            return Err(ImageError::Empty { path: path.to_owned() });
        }
        Ok(Self { file, name: path.display().to_string(), size })
    }

    /// The file, its name and its size.
    pub(crate) fn into_parts(self) -> (File, String, u64) {
        (self.file, self.name, self.size)
    }
}

impl Source for ImageFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ImageError> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            match self.file.read_at(rest, at) {
                Ok(0) => {
                    return Err(ImageError::Shrank {
                        name: self.name.clone(),
                        expected: self.size,
                        found: at,
                    });
                }
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ImageError::Read { name: self.name.clone(), offset: at, source }),
            }
        }
        Ok(())
    }

    fn end_of_pass(&mut self) -> Result<(), ImageError> {
        let failed = |source| ImageError::Read { name: self.name.clone(), offset: self.size, source };
        let found = self.file.metadata().map_err(failed)?.len();
        if found > self.size {
            return Err(ImageError::Grew { name: self.name.clone(), expected: self.size, found });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        ImageFile::open(path).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn each_kind_of_unusable_image_has_its_own_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing.bin");
        assert_eq!(
            refused(&path),
            format!("cannot open the image {}: No such file or directory (os error 2)", path.display())
        );
        assert_eq!(refused(dir.path()), format!("the image {} is a directory", dir.path().display()));
        let empty = dir.path().join("empty.bin");
        std::fs::write(&empty, b"").unwrap();
        assert_eq!(refused(&empty), format!("the image {} is empty", empty.display()));
        assert_eq!(
            refused(Path::new("/dev/null")),
            "the image /dev/null is a device, not a file: its end cannot be proven"
        );
    }

    #[test]
    fn a_file_that_shrinks_or_grows_is_told_with_its_sizes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.bin");
        std::fs::write(&path, [7; 1000]).unwrap();
        let mut image = ImageFile::open(&path).unwrap();
        let mut buf = [0; 600];
        image.read_at(0, &mut buf).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(700).unwrap();
        assert_eq!(
            image.read_at(400, &mut buf).unwrap_err().to_string(),
            format!("the image {} ended at byte 700 of 1000 while it was read", path.display())
        );
        File::options().write(true).open(&path).unwrap().set_len(1001).unwrap();
        assert_eq!(
            image.end_of_pass().unwrap_err().to_string(),
            format!("the image {} grew from 1000 to 1001 bytes while it was read", path.display())
        );
    }
}
