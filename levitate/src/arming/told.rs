//! What is told while arming goes on, and why it was refused.

use std::io;
use std::path::{Path, PathBuf};

use ramdisk::path::PathError;
use ramdisk::tree::{Size, TreeError};

use super::doing::DoingError;
use super::record::RecordError;
use crate::arm::{Init, Step};
use crate::budget::{Refusal, Reserve};
use crate::image::ImageError;
use crate::plan::PlanError;
use crate::run_mount::Remount;
use crate::select::SelectError;
use crate::stage::StageError;

/// What happens, as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// PID 1 is known, and will hand over.
    Wired {
        /// PID 1.
        init: Init,
        /// The file that makes it so.
        by: PathBuf,
    },
    /// Everything that will be staged is known, and is there.
    Selected {
        /// The services.
        services: Vec<String>,
        /// Those who can log in.
        users: Vec<String>,
        /// Host keys that come along.
        host_keys: usize,
    },
    /// It fits.
    Fits {
        /// The staged root.
        size: Size,
        /// What is kept free for the image.
        reserve: Reserve,
        /// MemAvailable, in bytes.
        available: u64,
    },
    /// /run is changed.
    Remounting(Remount),
    /// This is done so that `reboot` gets to the hand-over.
    Arming(Step),
    /// Something that stops nothing.
    Warning(String),
}

/// Why nothing was staged.
#[derive(Debug, thiserror::Error)]
pub enum LevitateError {
    /// `reboot` would not get to the hand-over.
    #[error("reboot would not enter the maintenance root: {reason}{}", .remedy.iter().map(|r| format!("; {r}")).collect::<String>())]
    NotWired {
        /// Why.
        reason: String,
        /// What helps.
        remedy: Option<String>,
    },
    /// /run is on flash, or on a disk.
    #[error("stage into /run: expected a file system in RAM, found {fstype} (mounted at {point})")]
    NotInRam {
        /// The file system's type.
        fstype: String,
        /// Its mount point.
        point: PathBuf,
    },
    /// A `flashcp` is at work; the hand-over would wait for it.
    #[error("stage a maintenance root: {writer} is changing flash; wait until it has ended")]
    FlashIsChanging {
        /// Its name, number and target.
        writer: String,
    },
    /// The archive cannot be staged.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Something is missing, or nobody could log in.
    #[error(transparent)]
    Select(Box<SelectError>),
    /// It cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file is gone by now.
    #[error("measure the maintenance root")]
    Measure(#[from] TreeError),
    /// Too little memory.
    #[error(transparent)]
    Budget(#[from] Refusal),
    /// It could not be written.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// /run leads nowhere.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Somebody sent a signal that ends processes, before the last change was made.
    #[error("stage a maintenance root: interrupted by {signal}")]
    Interrupted {
        /// Its name.
        signal: &'static str,
    },
    /// Another `levitate` or `levitate abort` is at work.
    #[error("another levitate is at work (it holds {0})")]
    Busy(PathBuf),
    /// The init could not be armed, or /run not be changed.
    #[error(transparent)]
    Arm(#[from] DoingError),
    /// What an earlier levitate did cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// /run cannot be opened.
    #[error("{what} {path}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl From<SelectError> for LevitateError {
    fn from(e: SelectError) -> Self {
        Self::Select(Box::new(e))
    }
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LevitateError {
    let path = path.to_owned();
    move |source| LevitateError::Io { what, path, source }
}
