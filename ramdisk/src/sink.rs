//! Where a tree goes: a directory, memory, and from there an archive.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::original::Original;

/// Permission bits and owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    CopyOf(Original),
    /// What lies in this part of an archive.
    Part(Part),
}

/// A part of an open file, as an archive holds its files. Two of the same offset are one file with two names.
#[derive(Clone, Debug)]
pub struct Part {
    /// The archive.
    pub file: Arc<File>,
    /// Where the part begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// What becomes of it.
    pub after: After,
}

/// What becomes of a part of an archive once it is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It stays: the archive is somebody's file.
    Keep,
    /// Its RAM is given back: the archive is a file in RAM that nobody else reads.
    LetGo,
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
            && (self.offset, self.length, self.after) == (other.offset, other.length, other.after)
    }
}

impl Eq for Part {}

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
