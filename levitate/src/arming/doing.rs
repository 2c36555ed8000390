//! Carries out the steps of arming and undoes them. What is about to be done is recorded first.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use ramdisk::path::Root;

use super::record::{self, Armed, RecordError, StateAt};
use crate::arm::{Step, processes};
use crate::budget::Space;
use crate::run_mount::{Before, Mounts, Remount, RunMount};
use crate::sys::signals::Unbroken;

/// A change could not be made or undone.
#[derive(Debug, thiserror::Error)]
pub enum DoingError {
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Signals cannot be made to wait.
    #[error("block signals while the system is changed")]
    Signals(#[source] io::Error),
    /// The mount of /run.
    #[error("remount {point}")]
    Remount {
        /// Its mount point.
        point: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step.
    #[error("{step}")]
    Do {
        /// What was attempted.
        step: Step,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step that stays done.
    #[error("undo: {step}")]
    Undo {
        /// What was to be undone.
        step: Step,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Changes under way: what this run did, on top of what earlier runs did. Nothing but a kill ends the process meanwhile.
#[derive(Debug)]
pub struct Doing<'a> {
    root: &'a Root,
    earlier: Armed,
    armed: Armed,
    /// /run as it was before this run.
    run: Option<Before>,
    unbroken: Unbroken,
}

impl<'a> Doing<'a> {
    /// Reads what earlier runs did. From here on signals that would end the process wait.
    ///
    /// # Errors
    ///
    /// The record cannot be read.
    pub fn begin(root: &'a Root) -> Result<Self, DoingError> {
        let earlier = record::read(root)?.unwrap_or_default();
        let unbroken = Unbroken::begin().map_err(|errno| DoingError::Signals(errno.into()))?;
        Ok(Self { root, armed: earlier.clone(), earlier, run: None, unbroken })
    }

    /// The name of a signal that has come since; whoever is asked to stop takes back what was done.
    #[must_use]
    pub fn asked_to_stop(&self) -> Option<&'static str> {
        self.unbroken.asked_to_stop().map(Signal::as_str)
    }

    /// Changes the mount of /run, `now`.
    ///
    /// # Errors
    ///
    /// It was not changed.
    pub fn remount(
        &mut self,
        mounts: &mut dyn Mounts,
        now: &RunMount,
        space: Option<Space>,
        change: &Remount,
    ) -> Result<(), DoingError> {
        let before = now.before(change, space);
        // what was before the first change is what abort goes back to
        let first = match self.armed.run.take() {
            Some(first) => {
                Before { size: first.size.or(before.size), inodes: first.inodes.or(before.inodes), ..first }
            }
            None => before.clone(),
        };
        self.armed.run = Some(first);
        record::write(self.root, &self.armed)?;
        if let Err(source) = mounts.remount(change) {
            self.armed.run.clone_from(&self.earlier.run);
            record::write(self.root, &self.armed)?;
            return Err(DoingError::Remount { point: change.point.clone(), source });
        }
        self.run = Some(before);
        Ok(())
    }

    /// Carries out the steps, each recorded before it is done.
    ///
    /// # Errors
    ///
    /// The first that failed; those before it stay done until [`Doing::back_out`].
    pub fn carry_out(&mut self, mounts: &mut dyn Mounts, steps: &[Step]) -> Result<(), DoingError> {
        for step in steps {
            let failed = |source| DoingError::Do { step: step.clone(), source };
            if let Some(e) = in_the_way(self.root, mounts, std::slice::from_ref(step)) {
                return Err(e);
            }
            // One that was there before is none of ours to remove.
            if let Step::Directory { path } = step
                && self.root.host(path).is_dir()
            {
                continue;
            }
            self.armed.steps.push(step.clone());
            record::write(self.root, &self.armed)?;
            perform(self.root, mounts, step).map_err(failed)?;
        }
        Ok(())
    }

    /// Records where the state file is, in place of what an earlier run recorded.
    ///
    /// # Errors
    ///
    /// The record was not changed.
    pub fn remember(&mut self, state: Option<StateAt>) -> Result<(), RecordError> {
        self.armed.state = state;
        record::write(self.root, &self.armed)
            .inspect_err(|_| self.armed.state.clone_from(&self.earlier.state))
    }

    /// Undoes what this run did, as far as that goes: the error that led here is the one to tell. What could not be
    /// undone stays in the record.
    pub fn back_out(mut self, mounts: &mut dyn Mounts) {
        let ours = self.armed.steps.split_off(self.earlier.steps.len());
        let (left, _) = undo_all(self.root, mounts, ours);
        self.armed.steps.extend(left);
        if let Some(before) = &self.run
            && mounts.remount(&before.undo()).is_ok()
        {
            self.armed.run.clone_from(&self.earlier.run);
        }
        self.armed.state.clone_from(&self.earlier.state);
        let _ = record::write(self.root, &self.armed);
    }
}

/// Undoes everything that is recorded. Answers whether /run was changed back.
///
/// # Errors
///
/// The first thing that could not be undone; the others are, and what is left stays recorded, for another try.
pub fn undo(root: &Root, mounts: &mut dyn Mounts) -> Result<Option<Armed>, DoingError> {
    let Some(armed) = record::read(root)? else { return Ok(None) };
    let mut rest = armed.clone();
    let (left, error) = undo_all(root, mounts, std::mem::take(&mut rest.steps));
    rest.steps = left;
    rest.state = None;
    let mut error = error;
    if let Some(before) = &armed.run {
        match mounts.remount(&before.undo()) {
            Ok(()) => rest.run = None,
            Err(source) => {
                error = error.or(Some(DoingError::Remount { point: before.point.clone(), source }));
            }
        }
    }
    record::write(root, &rest)?;
    error.map_or(Ok(Some(armed)), Err)
}

/// In reverse order. Answers what is still done, in its own order, and the first error.
fn undo_all(root: &Root, mounts: &mut dyn Mounts, steps: Vec<Step>) -> (Vec<Step>, Option<DoingError>) {
    let mut left = Vec::new();
    let mut first = None;
    for step in steps.into_iter().rev() {
        if let Err(source) = take_back(root, mounts, &step) {
            left.push(step.clone());
            first = first.or(Some(DoingError::Undo { step, source }));
        }
    }
    left.reverse();
    (left, first)
}

/// The first of the steps that would hide or replace something that is there already and not ours, and what it is told
/// by.
pub(super) fn in_the_way(root: &Root, mounts: &dyn Mounts, steps: &[Step]) -> Option<DoingError> {
    let mut moved: Vec<&Path> = Vec::new();
    for step in steps {
        let source = match is_there(root, mounts, step) {
            Ok(true) if !step.makes().is_some_and(|path| moved.contains(&path)) => {
                let what = "it would hide or replace something that is there already";
                io::Error::new(io::ErrorKind::AlreadyExists, what)
            }
            Ok(_) => {
                if let Step::MoveAway { from, .. } = step {
                    moved.push(from);
                }
                continue;
            }
            Err(e) => e,
        };
        return Some(DoingError::Do { step: step.clone(), source });
    }
    None
}

/// Whether the step would meet something that is there already and not ours.
fn is_there(root: &Root, mounts: &dyn Mounts, step: &Step) -> io::Result<bool> {
    let taken = |path: &Path| fs::symlink_metadata(root.host(path)).is_ok();
    match step {
        Step::Directory { path } => Ok(taken(path) && !root.host(path).is_dir()),
        Step::File { path, .. } | Step::Symlink { path, .. } => Ok(taken(path)),
        Step::Copy { to, .. } | Step::MoveAway { to, .. } => Ok(taken(to)),
        Step::Bind { over, .. } => mounts.is_mounted(&root.host(over)),
        Step::Cover { folder, apart, .. } => Ok(taken(apart) || mounts.is_mounted(&root.host(folder))?),
        Step::Start { .. } => Ok(false),
    }
}

fn perform(root: &Root, mounts: &mut dyn Mounts, step: &Step) -> io::Result<()> {
    let host = |path: &Path| root.host(path);
    match step {
        Step::Directory { path } => fs::create_dir_all(host(path)),
        Step::File { path, mode, text } => {
            fs::write(host(path), text)?;
            fs::set_permissions(host(path), fs::Permissions::from_mode(*mode))
        }
        Step::Copy { from, to } => {
            fs::copy(host(from), host(to))?;
            fs::set_permissions(host(to), fs::Permissions::from_mode(0o755))
        }
        Step::Symlink { path, target } => std::os::unix::fs::symlink(target, host(path)),
        Step::MoveAway { from, to } => fs::rename(host(from), host(to)),
        Step::Bind { what, over, reread } => {
            mounts.bind(&host(what), &host(over))?;
            if *reread { mounts.hang_up() } else { Ok(()) }
        }
        Step::Cover { folder, apart, links } => {
            let apart = host(apart);
            fs::create_dir(&apart)?;
            mounts.fill(&apart)?;
            for (name, target) in links {
                std::os::unix::fs::symlink(target, apart.join(name))?;
            }
            // who ends here by whatever signal leaves the directory as it was, or covered whole
            mounts.bind(&apart, &host(folder))?;
            mounts.unmount(&apart)?;
            fs::remove_dir(apart)
        }
        Step::Start { name } => mounts.start(name),
    }
}

/// Undoes one step; one that was not done, or is undone already, is success.
fn take_back(root: &Root, mounts: &mut dyn Mounts, step: &Step) -> io::Result<()> {
    let host = |path: &Path| root.host(path);
    let gone_is_fine = |done: io::Result<()>| match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    match step {
        Step::Directory { path } => gone_is_fine(fs::remove_dir(host(path))),
        Step::File { path, .. } | Step::Copy { to: path, .. } => gone_is_fine(fs::remove_file(host(path))),
        Step::Symlink { path, target } => match fs::read_link(host(path)) {
            Ok(now) if now == *target => gone_is_fine(fs::remove_file(host(path))),
            // not ours any more
            _ => Ok(()),
        },
        Step::MoveAway { from, to } => gone_is_fine(fs::rename(host(to), host(from))),
        Step::Bind { over, reread, .. } => {
            unmount(mounts, &host(over))?;
            if *reread { mounts.hang_up() } else { Ok(()) }
        }
        Step::Cover { folder, apart, .. } => {
            unmount(mounts, &host(folder))?;
            unmount(mounts, &host(apart))?;
            gone_is_fine(fs::remove_dir(host(apart)))
        }
        Step::Start { name } => processes::named(root, name).into_iter().try_for_each(|pid| mounts.end(pid)),
    }
}

fn unmount(mounts: &mut dyn Mounts, point: &Path) -> io::Result<()> {
    if mounts.is_mounted(point)? { mounts.unmount(point) } else { Ok(()) }
}
