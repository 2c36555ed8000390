//! What is wrong with an archive, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An archive that is refused.
#[derive(Debug, thiserror::Error)]
#[error("archive, offset {offset}{}", Named(.entry))]
pub struct NewcError {
    /// Where the entry's header begins, in bytes of the archive (decompressed).
    pub offset: u64,
    /// The entry, if its name could be read.
    pub entry: Option<PathBuf>,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

/// What is wrong with an entry.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The archive cannot be read.
    #[error("read the archive")]
    Io(#[from] io::Error),
    /// The archive ends in the middle of the entry.
    #[error("expected {wanted} more bytes for {what}, found the end after {found}")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Bytes that it has by its own account.
        wanted: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// There is something else than a header.
    #[error("expected a newc header (070701), found {found:?}")]
    Magic {
        /// What is there.
        found: String,
    },
    /// A number of the header is none.
    #[error("expected eight hexadecimal digits for {field}")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// The name is no plain relative name.
    #[error("the name {why}")]
    Name {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The name was there already.
    #[error("the name is in the archive twice")]
    Twice,
    /// What it lies in is not there, or no directory.
    #[error("expected a directory before it at {parent:?}, found {found}")]
    Parent {
        /// What it lies in.
        parent: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// A device, a pipe or a socket: the maintenance root's init makes those that it needs.
    #[error("expected a file, a directory or a symlink, found {found}")]
    Kind {
        /// What it is.
        found: &'static str,
    },
    /// A number that the entry may not have.
    #[error("{what} is {found}, expected {expected}")]
    Number {
        /// Which.
        what: &'static str,
        /// What it is.
        found: u32,
        /// What it may be.
        expected: &'static str,
    },
    /// A symlink that leads out of the root.
    #[error("the symlink's target {target:?} {why}")]
    Target {
        /// What it says.
        target: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Names of one file that do not agree.
    #[error("it is another name of {first:?}, and has {what} of its own")]
    Link {
        /// The first name.
        first: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// More than the reader was told to take.
    #[error("more than {most} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: u64,
    },
    /// Something follows the archive's last entry.
    #[error("something follows the archive's end")]
    Trailing,
}

struct Named<'a>(&'a Option<PathBuf>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // quoted: whoever made the archive chose the name
        self.0.as_deref().map_or(Ok(()), |name: &Path| write!(f, ", entry {name:?}"))
    }
}
