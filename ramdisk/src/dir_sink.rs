//! A tree that is written below a directory.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{linkat, symlinkat};

use crate::copy;
use crate::sink::{Content, Meta, Sink};

/// Whether the entries' owners are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As the tree says; this needs root.
    Set,
    /// All belong to whoever writes them.
    Mine,
}

/// Writes below a directory that exists. Nothing is synced: it is for file systems in RAM. What is there already is an
/// error, nothing is overwritten; each directory on the way is opened by itself and no symlink is followed, so that no
/// name leads out of the directory, whoever made it.
#[derive(Debug)]
pub struct DirSink {
    base: PathBuf,
    owners: Owners,
    /// The directory of the last entry: the next is likely to be in it, too.
    last: Option<(PathBuf, OwnedFd)>,
    by_hand: u64,
}

/// An entry that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}")]
pub struct DirSinkError {
    /// What was attempted.
    pub what: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl DirSink {
    /// Writes below `base`.
    pub fn new(base: impl Into<PathBuf>, owners: Owners) -> Self {
        Self { base: base.into(), owners, last: None, by_hand: 0 }
    }

    /// Bytes of copied files that had to pass through this process, because the kernel could not copy them.
    #[must_use]
    pub fn by_hand(&self) -> u64 {
        self.by_hand
    }

    /// The directory that `path` lies in, and its name there.
    fn parent<'a>(&mut self, path: &'a Path) -> Result<(&OwnedFd, &'a OsStr), Errno> {
        let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Err(Errno::EINVAL) };
        if !plain {
            return Err(Errno::EINVAL);
        }
        let opened = match self.last.take() {
            Some((of, opened)) if of == parent => opened,
            _ => self.open(parent)?,
        };
        let (_, opened) = self.last.insert((parent.to_owned(), opened));
        Ok((opened, name))
    }

    fn open(&self, directory: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let mut at = open(&self.base, flags, Mode::empty())?;
        for name in directory {
            at = openat(&at, name, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
        }
        Ok(at)
    }

    fn finish(&self, file: &File, meta: Meta, at: &Path) -> Result<(), DirSinkError> {
        if self.owners == Owners::Set {
            fchown(file, Some(meta.uid), Some(meta.gid)).map_err(failed("set the owner of", at))?;
        }
        // after the owner: a change of owner clears the set-user-id bit
        file.set_permissions(Permissions::from_mode(meta.mode)).map_err(failed("set the mode of", at))
    }
}

fn failed<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> DirSinkError {
    let path = path.to_owned();
    move |source| DirSinkError { what, path, source: source.into() }
}

impl Sink for DirSink {
    type Error = DirSinkError;

    fn directory(&mut self, path: &Path, meta: Meta) -> Result<(), DirSinkError> {
        let at = self.base.join(path);
        if !path.as_os_str().is_empty() {
            let made = self.parent(path).and_then(|(parent, name)| mkdirat(parent, name, Mode::S_IRWXU));
            made.map_err(failed("make directory", &at))?;
        }
        let opened = self.open(path).map_err(failed("open directory", &at))?;
        self.finish(&File::from(opened), meta, &at)
    }

    fn file(&mut self, path: &Path, meta: Meta, content: &Content) -> Result<(), DirSinkError> {
        let at = self.base.join(path);
        let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mine = Mode::S_IRUSR | Mode::S_IWUSR;
        let made = self.parent(path).and_then(|(parent, name)| openat(parent, name, new, mine));
        let mut file = File::from(made.map_err(failed("create", &at))?);
        match content {
            Content::Bytes(bytes) => file.write_all(bytes).map_err(failed("write", &at))?,
            Content::CopyOf(source) => {
                let from = source.open().map_err(failed("open", source.path()))?;
                let copied = copy::whole(&from, &file).map_err(failed("copy to", &at))?;
                self.by_hand = self.by_hand.saturating_add(copied.by_hand);
            }
            Content::Part(part) => {
                let copied = copy::part(part, &file).map_err(failed("copy from the archive to", &at))?;
                self.by_hand = self.by_hand.saturating_add(copied.by_hand);
            }
        }
        self.finish(&file, meta, &at)
    }

    fn symlink(&mut self, path: &Path, target: &Path) -> Result<(), DirSinkError> {
        let made = self.parent(path).and_then(|(parent, name)| symlinkat(target, parent, name));
        made.map_err(failed("make symlink", &self.base.join(path)))
    }

    fn hard_link(&mut self, path: &Path, existing: &Path) -> Result<(), DirSinkError> {
        let linked = (|| {
            let (from, to) = match (existing.parent(), existing.file_name()) {
                (Some(directory), Some(name)) => (self.open(directory)?, name),
                _ => return Err(Errno::EINVAL),
            };
            let (parent, name) = self.parent(path)?;
            linkat(&from, to, parent, name, AtFlags::empty())
        })();
        linked.map_err(failed("link", &self.base.join(path)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_name_leads_out_of_the_directory_not_even_through_a_planted_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        fs::create_dir_all(inside.join("real")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, inside.join("planted")).unwrap();
        symlink(outside.join("file"), inside.join("leaf")).unwrap();
        let mut sink = DirSink::new(&inside, Owners::Mine);
        let bytes = Content::Bytes(b"x".to_vec());
        sink.file(Path::new("real/file"), Meta::root(0o644), &bytes).unwrap();
        for name in ["planted/file", "leaf", "../outside/file", "real/../../outside/file", "/file"] {
            let name = Path::new(name);
            assert!(sink.file(name, Meta::root(0o644), &bytes).is_err(), "{name:?}");
            assert!(sink.directory(name, Meta::root(0o755)).is_err(), "{name:?}");
            assert!(sink.symlink(name, Path::new("x")).is_err(), "{name:?}");
            assert!(sink.hard_link(name, Path::new("real/file")).is_err(), "{name:?}");
        }
        fs::write(outside.join("secret"), "secret").unwrap();
        assert!(sink.hard_link(Path::new("stolen"), Path::new("planted/secret")).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }
}
