//! An archive that anybody may have made, read to its end before anything of it is used. What comes out has plain
//! relative names, each below directories that the archive itself holds, and no symlink that leads out of the root.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::error::{NewcError, Problem};
use super::header::{ALIGN, DIRECTORY, Header, LENGTH, MAGIC, REGULAR, SYMLINK, TRAILER, TYPE};
use super::links;
use crate::sink::{After, Content, Meta, Part};
use crate::tree::{Tree, TreeError};

/// The longest name or target that the kernel takes, without the zero byte (`PATH_MAX`).
const PATH: u32 = 4095;

/// How much a reader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes in all files and symlinks together.
    pub bytes: u64,
}

/// An entry that is safe to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its header begins.
    pub offset: u64,
    /// Its name, relative and without `.` and `..`.
    pub path: PathBuf,
    /// Mode and owner; a symlink's mode means nothing.
    pub meta: Meta,
    /// What it is.
    pub held: Held,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A directory.
    Directory,
    /// A symlink with its target.
    Symlink(PathBuf),
    /// A file. Several names of one file have the same `offset`.
    File {
        /// Where its contents begin in the archive.
        offset: u64,
        /// Its length in bytes.
        length: u64,
    },
}

/// Reads every header of the archive; of the contents only symlinks' targets.
///
/// Refused, besides what is no archive at all: absolute names, `..`, names that are there twice; an entry whose parent
/// is not there before it, or is no directory (a symlink is none); devices, pipes and sockets (the maintenance root's init
/// makes those that it needs); symlinks that lead out of the root; hard links to anything but files, or that differ in
/// mode or owner, or that each bring contents; sizes that go beyond the archive's end; owners that the kernel takes for
/// "leave it"; anything but zeros behind the end.
///
/// # Errors
///
/// The first entry that is refused, with its offset; or more than `limits` allow.
pub fn scan(archive: &mut (impl Read + Seek), limits: &Limits) -> Result<Vec<Entry>, NewcError> {
    let at = |offset| move |e: io::Error| NewcError { offset, entry: None, problem: e.into() };
    let end = archive.seek(SeekFrom::End(0)).map_err(at(0))?;
    let mut scan = Scan {
        archive,
        end,
        limits: *limits,
        bytes: 0,
        entries: Vec::new(),
        kinds: BTreeMap::new(),
        files: HashMap::new(),
    };
    let mut offset = 0;
    loop {
        let mut named = None;
        let next = scan.entry(offset, &mut named);
        match next.map_err(|problem| NewcError { offset, entry: named, problem })? {
            Some(next) => offset = next,
            None => break,
        }
    }
    scan.finish()
}

/// The entries as a tree whose files are parts of `file`, the archive they were read from.
///
/// # Errors
///
/// None for what [`scan`] returned.
pub fn tree(entries: &[Entry], file: &Arc<File>, after: After) -> Result<Tree, TreeError> {
    let mut tree = Tree::new();
    for entry in entries {
        match &entry.held {
            Held::Directory => tree.directory(&entry.path, entry.meta)?,
            Held::Symlink(target) => tree.symlink(&entry.path, target)?,
            Held::File { offset, length } => {
                let part = Part { file: file.clone(), offset: *offset, length: *length, after };
                tree.file(&entry.path, entry.meta, Content::Part(part))?;
            }
        }
    }
    Ok(tree)
}

/// What files with several names are known by: device and inode number.
type Identity = (u32, u32, u32);

struct Scan<'a, R> {
    archive: &'a mut R,
    end: u64,
    limits: Limits,
    bytes: u64,
    entries: Vec<Entry>,
    /// What is where.
    kinds: BTreeMap<PathBuf, &'static str>,
    /// The entries of files that say they have several names.
    files: HashMap<Identity, Vec<usize>>,
}

impl<R: Read + Seek> Scan<'_, R> {
    /// Reads the entry at `offset`; the offset of the next, or none behind the last.
    fn entry(&mut self, offset: u64, named: &mut Option<PathBuf>) -> Result<Option<u64>, Problem> {
        let mut bytes = [0; LENGTH];
        let found = self.read(offset, &mut bytes)?;
        if !bytes.starts_with(MAGIC) {
            let there = bytes.get(..found.min(MAGIC.len())).unwrap_or_default();
            return Err(Problem::Magic { found: there.escape_ascii().to_string() });
        }
        enough("a header", LENGTH, found)?;
        let header = Header::parse(&bytes).map_err(|field| Problem::Field { field })?;
        let name_at = offset + LENGTH as u64;
        let name = self.name(name_at, header.name_size)?;
        if name == TRAILER.as_bytes() {
            *named = Some(PathBuf::from(TRAILER));
            only_zero("filesize", header.size)?;
            self.nothing_follows(name_at + u64::from(header.name_size))?;
            return Ok(None);
        }
        let given = Path::new(std::ffi::OsStr::from_bytes(&name));
        *named = Some(given.to_owned());
        let path = plain(given)?;
        let contents = (name_at + u64::from(header.name_size)).next_multiple_of(ALIGN);
        let size = u64::from(header.size);
        let room = self.end.saturating_sub(contents);
        if size > room {
            return Err(Problem::Truncated { what: "the contents", wanted: size, found: room });
        }
        // what the archive is aligned to may be missing behind its last byte
        let next = contents.saturating_add(size).next_multiple_of(ALIGN);
        if path.as_os_str().is_empty() {
            // the root itself: its mode is not the archive's to choose
            return if header.mode & TYPE == DIRECTORY && size == 0 {
                Ok(Some(next))
            } else {
                Err(Problem::Name { why: "is the root's, which is a directory" })
            };
        }
        self.place(&path)?;
        let meta = meta(&header)?;
        let held = self.held(&header, contents)?;
        if self.entries.len() as u64 >= self.limits.entries {
            return Err(Problem::TooMuch { what: "entries", most: self.limits.entries });
        }
        let (kind, size) = match &held {
            Held::Directory => ("a directory", 0),
            Held::Symlink(target) => ("a symlink", target.as_os_str().len() as u64),
            Held::File { length, .. } => ("a file", *length),
        };
        self.bytes += size;
        if self.bytes > self.limits.bytes {
            return Err(Problem::TooMuch { what: "bytes in files", most: self.limits.bytes });
        }
        if header.nlink > 1 && kind == "a file" {
            let (major, minor) = header.device;
            self.link((major, minor, header.ino), meta, size)?;
        }
        self.kinds.insert(path.clone(), kind);
        self.entries.push(Entry { offset, path, meta, held });
        Ok(Some(next))
    }

    fn held(&mut self, header: &Header, contents: u64) -> Result<Held, Problem> {
        Ok(match header.mode & TYPE {
            DIRECTORY => {
                only_zero("a directory's filesize", header.size)?;
                Held::Directory
            }
            SYMLINK => {
                if !(1..=PATH).contains(&header.size) {
                    let expected = "1 to 4095 bytes";
                    return Err(Problem::Number { what: "the target's size", found: header.size, expected });
                }
                let mut target = vec![0; usize::try_from(header.size).unwrap_or(0)];
                let found = self.read(contents, &mut target)?;
                enough("the target", target.len(), found)?;
                let target = PathBuf::from(std::ffi::OsStr::from_bytes(&target));
                if target.as_os_str().as_bytes().contains(&0) {
                    return Err(Problem::Target { target, why: "holds a zero byte" });
                }
                Held::Symlink(target)
            }
            REGULAR => Held::File { offset: contents, length: u64::from(header.size) },
            other => {
                let found = match other {
                    0o020_000 => "a character device",
                    0o060_000 => "a block device",
                    0o010_000 => "a pipe",
                    0o140_000 => "a socket",
                    _ => "something without a type",
                };
                return Err(Problem::Kind { found });
            }
        })
    }

    /// Whether an entry of this name can be here: it is new, and all above it are directories.
    fn place(&self, path: &Path) -> Result<(), Problem> {
        if self.kinds.contains_key(path) {
            return Err(Problem::Twice);
        }
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
            return Ok(());
        };
        // what is above the parent was looked at when it came
        match self.kinds.get(parent) {
            Some(&"a directory") => Ok(()),
            found => {
                Err(Problem::Parent { parent: parent.to_owned(), found: found.copied().unwrap_or("nothing") })
            }
        }
    }

    /// Another name of a file that was there before, or the first of several.
    fn link(&mut self, identity: Identity, meta: Meta, size: u64) -> Result<(), Problem> {
        let names = self.files.entry(identity).or_default();
        let all = names.iter().filter_map(|index| self.entries.get(*index));
        for other in all {
            let refused = |what| Err(Problem::Link { first: other.path.clone(), what });
            if other.meta != meta {
                return refused("a mode or an owner");
            }
            if size > 0 && matches!(other.held, Held::File { length, .. } if length > 0) {
                return refused("contents");
            }
        }
        names.push(self.entries.len());
        Ok(())
    }

    /// Gives all names of a file its contents, and looks where symlinks lead.
    fn finish(mut self) -> Result<Vec<Entry>, NewcError> {
        for names in self.files.values().filter(|names| names.len() > 1) {
            let held: Vec<Held> =
                names.iter().filter_map(|index| Some(self.entries.get(*index)?.held.clone())).collect();
            let whole = held.iter().find(|held| matches!(held, Held::File { length, .. } if *length > 0));
            let Some(whole) = whole.or(held.first()) else { continue };
            for index in names {
                if let Some(entry) = self.entries.get_mut(*index) {
                    entry.held.clone_from(whole);
                }
            }
        }
        let by_name: BTreeMap<&Path, &Entry> = self.entries.iter().map(|e| (e.path.as_path(), e)).collect();
        for entry in &self.entries {
            if let Held::Symlink(target) = &entry.held
                && links::leaves(&by_name, &entry.path, target)
            {
                let problem = Problem::Target { target: target.clone(), why: "leads out of the root" };
                return Err(NewcError { offset: entry.offset, entry: Some(entry.path.clone()), problem });
            }
        }
        Ok(self.entries)
    }

    fn name(&mut self, at: u64, size: u32) -> Result<Vec<u8>, Problem> {
        if !(2..=PATH + 1).contains(&size) {
            let expected = "2 to 4096 bytes, the zero byte included";
            return Err(Problem::Number { what: "namesize", found: size, expected });
        }
        let mut name = vec![0; usize::try_from(size).unwrap_or(0)];
        let found = self.read(at, &mut name)?;
        enough("the name", name.len(), found)?;
        match name.iter().position(|byte| *byte == 0) {
            Some(zero) if zero + 1 == name.len() => {
                name.pop();
                Ok(name)
            }
            Some(_) => Err(Problem::Name { why: "ends before namesize says" }),
            None => Err(Problem::Name { why: "does not end where namesize says" }),
        }
    }

    fn nothing_follows(&mut self, at: u64) -> Result<(), Problem> {
        self.archive.seek(SeekFrom::Start(at.min(self.end)))?;
        let mut buffer = [0; 4096];
        loop {
            let count = match self.archive.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            if buffer.iter().take(count).any(|byte| *byte != 0) {
                return Err(Problem::Trailing);
            }
        }
    }

    /// Fills `bytes` from `at` on, as far as the archive goes.
    fn read(&mut self, at: u64, bytes: &mut [u8]) -> Result<usize, Problem> {
        self.archive.seek(SeekFrom::Start(at))?;
        let mut found = 0;
        while let Some(rest) = bytes.get_mut(found..).filter(|rest| !rest.is_empty()) {
            match self.archive.read(rest) {
                Ok(0) => break,
                Ok(count) => found += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(found)
    }
}

fn enough(what: &'static str, wanted: usize, found: usize) -> Result<(), Problem> {
    if found == wanted {
        return Ok(());
    }
    Err(Problem::Truncated { what, wanted: wanted as u64, found: found as u64 })
}

fn only_zero(what: &'static str, found: u32) -> Result<(), Problem> {
    if found == 0 { Ok(()) } else { Err(Problem::Number { what, found, expected: "0" }) }
}

/// The name without `.`: relative, and never upwards. Empty for the root itself.
fn plain(name: &Path) -> Result<PathBuf, Problem> {
    let mut plain = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(Problem::Name { why: "holds .." }),
            Component::RootDir | Component::Prefix(_) => return Err(Problem::Name { why: "is absolute" }),
        }
    }
    Ok(plain)
}

fn meta(header: &Header) -> Result<Meta, Problem> {
    let extra = header.mode & !(TYPE | 0o7777);
    if extra != 0 {
        return Err(Problem::Number { what: "mode", found: header.mode, expected: "at most 16 bits" });
    }
    // chown(2) takes this number for "leave it as it is"
    for (what, number) in [("uid", header.uid), ("gid", header.gid)] {
        if number == u32::MAX {
            return Err(Problem::Number { what, found: number, expected: "less than 4294967295" });
        }
    }
    Ok(Meta { mode: header.mode & 0o7777, uid: header.uid, gid: header.gid })
}
