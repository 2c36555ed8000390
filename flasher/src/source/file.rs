//! A compressed image in a file: decoded once to its end before anything else, and again for each pass over it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use super::feed::{Feed, fill};
use super::{Decoded, Decompress, Format, ImageError, Limits, Source, Window};
use crate::image::ImageFile;

/// A file from its start, read past the descriptor's own position.
#[derive(Debug, Clone)]
struct FromStart {
    file: Rc<File>,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buf, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// The decompressed bytes of a file. Reading backwards decodes from the start again, so memory is the decoder's
/// alone; a run reads an image in order, a few times.
pub struct DecodedFile {
    file: Rc<File>,
    /// The compressed file's size.
    file_size: u64,
    name: String,
    format: Format,
    limits: Limits,
    window: Window,
    size: u64,
    decoder: Decoded,
    position: u64,
}

impl DecodedFile {
    fn new(image: ImageFile, format: Format, limits: Limits) -> Result<Self, ImageError> {
        let (file, name, file_size) = image.into_parts();
        let file = Rc::new(file);
        let decoder = begin(&file, &name, format, limits);
        let window = Window { size: 0, memory: 0 };
        let mut image = Self { file, file_size, name, format, limits, window, size: 0, decoder, position: 0 };
        image.window = image.decoder.window()?;
        let mut scratch = [0; 4096];
        loop {
            match fill(&mut image.decoder, &mut scratch)? {
                0 => break,
                read => image.position += read as u64,
            }
        }
        image.size = image.position;
        if image.size == 0 {
            return Err(ImageError::Empty { path: image.name.into() });
        }
        Ok(image)
    }

    /// How it is compressed, and the decoder's window.
    #[must_use]
    pub fn format(&self) -> (Format, Window) {
        (self.format, self.window)
    }

    fn ended(&self) -> ImageError {
        ImageError::Shrank { name: self.name.clone(), expected: self.size, found: self.position }
    }

    /// Decodes up to `offset`.
    fn seek(&mut self, offset: u64) -> Result<(), ImageError> {
        if offset < self.position {
            self.decoder = begin(&self.file, &self.name, self.format, self.limits);
            self.position = 0;
        }
        let mut scratch = [0; 4096];
        while self.position < offset {
            let length = usize::try_from(offset - self.position).unwrap_or(usize::MAX).min(scratch.len());
            match self.decoder.read(&mut scratch[..length])? {
                0 => return Err(self.ended()),
                read => self.position += read as u64,
            }
        }
        Ok(())
    }
}

fn begin(file: &Rc<File>, name: &str, format: Format, limits: Limits) -> Decoded {
    Decoded::new(name, format, FromStart { file: Rc::clone(file), offset: 0 }, limits)
}

impl Source for DecodedFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ImageError> {
        self.seek(offset)?;
        let read = fill(&mut self.decoder, buf)?;
        self.position += read as u64;
        if read < buf.len() { Err(self.ended()) } else { Ok(()) }
    }

    fn end_of_pass(&mut self) -> Result<(), ImageError> {
        let grew = |found| ImageError::Grew { name: self.name.clone(), expected: self.file_size, found };
        let found = self.file.metadata().map_err(|source| ImageError::Read {
            name: self.name.clone(),
            offset: self.size,
            source,
        })?;
        if found.len() > self.file_size {
            return Err(grew(found.len()));
        }
        // The end's check sums are those of this pass too.
        if self.position == self.size && self.decoder.read(&mut [0])? > 0 {
            return Err(grew(self.size + 1));
        }
        Ok(())
    }
}

/// An image in a file, as it is or compressed.
pub enum AnyFile {
    /// As it is.
    Plain(ImageFile),
    /// Compressed.
    Decoded(Box<DecodedFile>),
}

impl AnyFile {
    /// Opens a file. A compressed one is decoded to its end, so that whatever is wrong with it is found now.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn open(path: &Path, decompress: Decompress, limits: Limits) -> Result<Self, ImageError> {
        let mut file = ImageFile::open(path)?;
        let format = match decompress {
            Decompress::Never => None,
            Decompress::As(format) => Some(format),
            Decompress::ByName => Format::by_name(path),
            Decompress::ByMagic => {
                let mut head = [0; 8];
                let length = usize::try_from(file.size()).unwrap_or(usize::MAX).min(head.len());
                file.read_at(0, &mut head[..length])?;
                Format::by_magic(&head[..length])
            }
        };
        Ok(match format {
            None => Self::Plain(file),
            Some(format) => Self::Decoded(Box::new(DecodedFile::new(file, format, limits)?)),
        })
    }

    /// How it is compressed, and the decoder's window; `None` for a file that is taken as it is.
    #[must_use]
    pub fn format(&self) -> Option<(Format, Window)> {
        match self {
            Self::Plain(_) => None,
            Self::Decoded(file) => Some(file.format()),
        }
    }

    /// The same, to be read.
    pub fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Plain(file) => file,
            Self::Decoded(file) => file.as_mut(),
        }
    }
}
