//! `levitate` itself: every check, then everything that is done, in this order. Whatever fails, the system is left as
//! it was.

mod told;

pub mod preflight;

pub mod record;

mod doing;
mod kernel;

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use ramdisk::dir_sink::Owners;
use ramdisk::path::{PathError, Root};

pub use self::doing::{Doing, DoingError, undo};
pub use self::kernel::KernelMounts;
use self::preflight::{Finding, Measured, Ready};
use self::record::StateAt;
use self::told::failed;
pub use self::told::{Event, LevitateError};
use crate::arm::Step;
use crate::budget::Grow;
use crate::config::Config;
use crate::facts::SystemFacts;
use crate::manifest::Manifest;
use crate::plan::{self, Plan};
use crate::run_mount::Mounts;
use crate::select::{self, Selection};
use crate::stage::{self, Unarmed};
use crate::state::{self, StateRecord};
use crate::status::with_sources;

/// A root that is ready to be written.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What it holds.
    pub plan: Plan,
    /// What that was made of.
    pub selected: Selection,
}

impl Prepared {
    fn event(&self) -> Event {
        Event::Selected {
            services: self.plan.manifest.services.clone(),
            users: self.selected.can_log_in.clone(),
            host_keys: self.selected.host_keys.len(),
        }
    }
}

/// Where the maintenance root comes from.
pub trait Origin {
    /// Decides what is to be staged. Nothing is written.
    ///
    /// # Errors
    ///
    /// Something is missing.
    fn prepare(&mut self, config: &Config, facts: &SystemFacts) -> Result<Prepared, LevitateError>;

    /// Looks at the root once it is written below `staged`, before it can be entered; what is found out of the plan goes
    /// into `prepared`.
    ///
    /// # Errors
    ///
    /// It must not be entered; it is removed again.
    fn check(&mut self, config: &Config, prepared: &mut Prepared, staged: &Root)
    -> Result<(), LevitateError>;
}

/// The system that runs.
#[derive(Clone, Copy, Debug)]
pub struct Running;

impl Origin for Running {
    fn prepare(&mut self, config: &Config, facts: &SystemFacts) -> Result<Prepared, LevitateError> {
        // nothing changes while it is decided what to stage
        let facts = SystemFacts { root: facts.root.remembering(), ..facts.clone() };
        let selected = select::select(config, &facts)?;
        Ok(Prepared { plan: plan::plan(config, &facts, &selected)?, selected })
    }

    /// All was looked at before.
    fn check(&mut self, _: &Config, _: &mut Prepared, _: &Root) -> Result<(), LevitateError> {
        Ok(())
    }
}

/// Checks everything, stages, and arms.
///
/// # Errors
///
/// Nothing is staged that was not staged before, and /run is mounted as it was.
pub fn levitate(
    config: &Config,
    facts: &SystemFacts,
    mounts: &mut dyn Mounts,
    owners: Owners,
    tell: &mut dyn FnMut(Event),
) -> Result<Manifest, LevitateError> {
    levitate_from(&mut Running, config, facts, mounts, owners, tell)
}

/// As [`levitate`], with a root from `origin`.
///
/// # Errors
///
/// As [`levitate`].
pub fn levitate_from(
    origin: &mut dyn Origin,
    config: &Config,
    facts: &SystemFacts,
    mounts: &mut dyn Mounts,
    owners: Owners,
    tell: &mut dyn FnMut(Event),
) -> Result<Manifest, LevitateError> {
    let root = &facts.root;
    let system = preflight::system(root, &facts.init, &facts.run, mounts);
    for finding in system.findings {
        match finding {
            Finding::Event(event) => tell(event),
            Finding::Refusal(why) => return Err(why),
        }
    }
    let staging = preflight::staging(origin, config, facts);
    staging.events.into_iter().for_each(&mut *tell);
    let Ready { measured: Measured { mut prepared, .. }, fits } =
        staging.verdict.map_err(|short| short.why)?;

    let run = run_directory(root)?;
    let lock = lock(&run)?;
    let mut doing = Doing::begin(root)?;
    // Nobody is told anything before the last change: a full pipe, and a terminal that somebody stopped, must not keep
    // the system half changed.
    let mut events = Vec::new();
    let done = change_and_stage(
        origin,
        config,
        facts,
        &mut prepared,
        fits.grow,
        &system.steps,
        &mut doing,
        mounts,
        owners,
        &mut |event| events.push(event),
    );
    match &done {
        Ok(()) => drop(doing),
        Err(_) => doing.back_out(mounts),
    }
    drop(lock);
    events.into_iter().for_each(tell);
    done.map(|()| prepared.plan.manifest)
}

#[allow(clippy::too_many_arguments)] // one after the other, and nobody else calls it
fn change_and_stage(
    origin: &mut dyn Origin,
    config: &Config,
    facts: &SystemFacts,
    prepared: &mut Prepared,
    grow: Option<Grow>,
    steps: &[Step],
    doing: &mut Doing<'_>,
    mounts: &mut dyn Mounts,
    owners: Owners,
    tell: &mut dyn FnMut(Event),
) -> Result<(), LevitateError> {
    if let Some(change) = facts.run.change(grow) {
        tell(Event::Remounting(change.clone()));
        doing.remount(mounts, &facts.run, facts.supply.run, &change)?;
    }
    let unarmed = stage::write(&prepared.plan.tree, &run_directory(&facts.root)?, owners)?;
    let known = !prepared.selected.can_log_in.is_empty();
    origin.check(config, prepared, &unarmed.root())?;
    if !known {
        tell(prepared.event());
    }
    not_interrupted(doing)?;
    steps.iter().for_each(|step| tell(Event::Arming(step.clone())));
    doing.carry_out(mounts, steps)?;
    let Manifest { state_file, state_home, .. } = &prepared.plan.manifest;
    let at = |file: &PathBuf| StateAt { file: file.clone(), home: state_home.clone() };
    if let Err(e) = doing.remember(state_file.as_ref().map(at)) {
        // the manifest says it too
        tell(Event::Warning(with_sources(&e)));
    }
    not_interrupted(doing)?;
    record_and_arm(config, facts, unarmed, tell)
}

/// Whoever interrupts is heard where taking everything back is still all that there is to do.
fn not_interrupted(doing: &Doing<'_>) -> Result<(), LevitateError> {
    doing.asked_to_stop().map_or(Ok(()), |signal| Err(LevitateError::Interrupted { signal }))
}

fn record_and_arm(
    config: &Config,
    facts: &SystemFacts,
    unarmed: Unarmed,
    tell: &mut dyn FnMut(Event),
) -> Result<(), LevitateError> {
    let state_file = config.state_file.as_ref().map(|path| facts.root.host(path));
    let mut before = None;
    if let Some(path) = &state_file {
        // a record that is broken is no reason to stay on the ground
        before = state::read(path).unwrap_or_default();
        let record = StateRecord::armed(&facts.boot_id, before.clone());
        // the record is a convenience, and a data file system that is full a reason to flash
        if let Err(e) = state::write_durably(path, &record) {
            tell(Event::Warning(format!("that a root is staged is not recorded: {}", with_sources(&e))));
        }
    }
    let armed = unarmed.arm();
    if let (Err(_), Some(path)) = (&armed, &state_file) {
        // what the record said before is as true as it was
        let _ = match before {
            Some(record) => state::write_durably(path, &record),
            None => state::remove(path),
        };
    }
    Ok(armed?)
}

/// The directory /run as this process reaches it.
///
/// # Errors
///
/// It does not exist.
pub(crate) fn run_directory(root: &Root) -> Result<PathBuf, PathError> {
    Ok(root.host(&root.resolve(Path::new("/run"))?.real))
}

/// Held by whoever stages or aborts; let go when the process ends, however it ends. The directory itself is locked, so
/// that no lock file is left behind.
pub(crate) fn lock(run: &Path) -> Result<Flock<File>, LevitateError> {
    let directory = File::open(run).map_err(failed("open", run))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|_| LevitateError::Busy(run.to_owned()))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod init_tests;
