//! Where a tree goes: a directory, memory, later an archive.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

/// Permission bits and owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The lower twelve bits: permissions, set-user-id, set-group-id, sticky.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Meta {
    /// Owned by root.
    pub const fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0 }
    }
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What this file of the running system holds.
    CopyOf(PathBuf),
}

/// Takes a tree's entries. Names are relative, without `.` and `..`; a directory comes before what is in it, and a
/// hard link after the file that it links to.
pub trait Sink {
    /// Why it could not take an entry.
    type Error;

    /// A directory.
    ///
    /// # Errors
    ///
    /// The sink cannot take it.
    fn directory(&mut self, path: &Path, meta: Meta) -> Result<(), Self::Error>;

    /// A regular file.
    ///
    /// # Errors
    ///
    /// The sink cannot take it, or the file to copy cannot be read.
    fn file(&mut self, path: &Path, meta: Meta, content: &Content) -> Result<(), Self::Error>;

    /// A symlink.
    ///
    /// # Errors
    ///
    /// The sink cannot take it.
    fn symlink(&mut self, path: &Path, target: &Path) -> Result<(), Self::Error>;

    /// Another name for the file at `existing`.
    ///
    /// # Errors
    ///
    /// The sink cannot take it.
    fn hard_link(&mut self, path: &Path, existing: &Path) -> Result<(), Self::Error>;
}

/// An entry in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A directory.
    Directory(Meta),
    /// A file.
    File(Meta, Content),
    /// A symlink with its target.
    Symlink(PathBuf),
    /// Another name for that file.
    HardLink(PathBuf),
}

/// Keeps the entries in memory; files to copy are not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// By name.
    pub entries: BTreeMap<PathBuf, Stored>,
    /// The names in the order in which they came.
    pub order: Vec<PathBuf>,
}

impl Memory {
    fn put(&mut self, path: &Path, stored: Stored) -> Result<(), Infallible> {
        self.entries.insert(path.to_owned(), stored);
        self.order.push(path.to_owned());
        Ok(())
    }
}

impl Sink for Memory {
    type Error = Infallible;

    fn directory(&mut self, path: &Path, meta: Meta) -> Result<(), Infallible> {
        self.put(path, Stored::Directory(meta))
    }

    fn file(&mut self, path: &Path, meta: Meta, content: &Content) -> Result<(), Infallible> {
        self.put(path, Stored::File(meta, content.clone()))
    }

    fn symlink(&mut self, path: &Path, target: &Path) -> Result<(), Infallible> {
        self.put(path, Stored::Symlink(target.to_owned()))
    }

    fn hard_link(&mut self, path: &Path, existing: &Path) -> Result<(), Infallible> {
        self.put(path, Stored::HardLink(existing.to_owned()))
    }
}
