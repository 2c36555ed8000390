//! `levitate abort`: everything that `levitate` did is undone. It may be repeated.

use std::fs;
use std::path::Path;

use ramdisk::path::Root;

use crate::arm;
use crate::arming::{self, DoingError, LevitateError};
use crate::manifest::{MANIFEST, Manifest};
use crate::run_mount::Mounts;
use crate::stage::{self, STAGED, StageError};
use crate::state::{self, State, StateError};
use crate::sys::signals::Unbroken;

/// What there was to undo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// A staged root was removed.
    pub staged: bool,
    /// /run is mounted as it was before.
    pub remounted: bool,
    /// What was changed for the init is as it was before.
    pub disarmed: bool,
    /// The state file says again what it said before, or is removed if there was none.
    pub recorded: bool,
}

/// What could not be undone.
#[derive(Debug, thiserror::Error)]
pub enum AbortError {
    /// There is no way back but `reboot`.
    #[error("this is the maintenance root: reboot leaves it")]
    InMaintenance,
    /// The staged root could not be removed.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The lock, or /run.
    #[error(transparent)]
    Levitate(#[from] LevitateError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// Something of the running system could not be changed back. Nothing is staged any more.
    #[error(transparent)]
    Undo(#[from] DoingError),
}

/// Undoes. `state_file` is the configured one, for when the staged root says nothing about it.
///
/// # Errors
///
/// The first thing that cannot be undone. The staged root is dealt with first: if it could be moved away, `reboot` is
/// a normal reboot whatever failed afterwards.
pub fn abort(root: &Root, state_file: Option<&Path>, mounts: &mut dyn Mounts) -> Result<Undone, AbortError> {
    if arm::in_maintenance(root) {
        return Err(AbortError::InMaintenance);
    }
    let run = arming::run_directory(root).map_err(LevitateError::from)?;
    let _lock = arming::lock(&run)?;
    let _unbroken = Unbroken::begin().map_err(|errno| DoingError::Signals(errno.into()))?;
    let manifest = fs::read(run.join(STAGED).join(MANIFEST)).ok();
    let manifest: Option<Manifest> = manifest.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut undone = Undone { staged: stage::disarm(&run)?, ..Undone::default() };
    let mut recorded_for = None;
    if let Some(armed) = arming::undo(root, mounts)? {
        recorded_for = armed.state.map(|state| state.file);
        undone.remounted = armed.run.is_some();
        undone.disarmed = !armed.steps.is_empty();
    }
    // Ours alone if it is empty now; otherwise it holds what others have to say (the verb, a flash record).
    let _ = fs::remove_dir(run.join("levitate"));
    let staged_for = manifest.and_then(|m| m.state_file).or(recorded_for);
    if let Some(path) = staged_for.as_deref().or(state_file) {
        let path = root.host(path);
        // the record of an earlier hand-over is still true, and stays
        if let Some(armed) = state::read(&path)?.filter(|record| record.state == State::Armed) {
            match armed.before {
                Some(before) => state::write_durably(&path, &before)?,
                None => state::remove(&path)?,
            }
            undone.recorded = true;
        }
    }
    Ok(undone)
}
