//! A tree that is written below a directory.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::sink::{Content, Meta, Sink};

/// Whether the entries' owners are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As the tree says; this needs root.
    Set,
    /// All belong to whoever writes them.
    Mine,
}

/// Writes below a directory that exists and that nobody else writes to. Nothing is synced: it is for file systems in
/// RAM. What is there already is an error, so nothing is followed or overwritten.
#[derive(Debug)]
pub struct DirSink {
    base: PathBuf,
    owners: Owners,
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
        Self { base: base.into(), owners }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirSinkError {
    let path = path.to_owned();
    move |source| DirSinkError { what, path, source }
}

impl Sink for DirSink {
    type Error = DirSinkError;

    fn directory(&mut self, path: &Path, meta: Meta) -> Result<(), DirSinkError> {
        let at = self.at(path);
        if !path.as_os_str().is_empty() {
            DirBuilder::new().mode(0o700).create(&at).map_err(failed("make directory", &at))?;
        }
        if self.owners == Owners::Set {
            lchown(&at, Some(meta.uid), Some(meta.gid)).map_err(failed("set the owner of", &at))?;
        }
        fs::set_permissions(&at, Permissions::from_mode(meta.mode)).map_err(failed("set the mode of", &at))
    }

    fn file(&mut self, path: &Path, meta: Meta, content: &Content) -> Result<(), DirSinkError> {
        let at = self.at(path);
        let create = |at: &Path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(at);
        let mut file = create(&at).map_err(failed("create", &at))?;
        match content {
            Content::Bytes(bytes) => file.write_all(bytes).map_err(failed("write", &at))?,
            Content::CopyOf(source) => {
                let mut from = File::open(source).map_err(failed("open", source))?;
                // the kernel copies (copy_file_range, sendfile) where it can
                io::copy(&mut from, &mut file).map_err(failed("copy to", &at))?;
            }
        }
        if self.owners == Owners::Set {
            fchown(&file, Some(meta.uid), Some(meta.gid)).map_err(failed("set the owner of", &at))?;
        }
        // after the owner: a change of owner clears the set-user-id bit
        file.set_permissions(Permissions::from_mode(meta.mode)).map_err(failed("set the mode of", &at))
    }

    fn symlink(&mut self, path: &Path, target: &Path) -> Result<(), DirSinkError> {
        let at = self.at(path);
        symlink(target, &at).map_err(failed("make symlink", &at))
    }

    fn hard_link(&mut self, path: &Path, existing: &Path) -> Result<(), DirSinkError> {
        let at = self.at(path);
        fs::hard_link(self.at(existing), &at).map_err(failed("link", &at))
    }
}
