//! `levitate` itself: every check, then everything that is done, in this order. Whatever fails, the system is left as
//! it was.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use ramdisk::dir_sink::Owners;
use ramdisk::init::interlock::{self, Gate};
use ramdisk::path::{PathError, Root};
use ramdisk::tree::{Size, TreeError};

use crate::arm::{self, Hook, Init};
use crate::budget::{self, Demand, Refusal, Reserve};
use crate::config::Config;
use crate::facts::SystemFacts;
use crate::image::ImageError;
use crate::manifest::Manifest;
use crate::plan::{self, Plan, PlanError};
use crate::run_mount::{ARMED, Armed, Mounts, Remount};
use crate::select::{self, SelectError, Selection};
use crate::stage::{self, StageError};
use crate::state::{self, StateRecord};
use crate::status::with_sources;

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
    /// Something that stops nothing.
    Warning(String),
}

/// Why nothing was staged.
#[derive(Debug, thiserror::Error)]
pub enum LevitateError {
    /// `reboot` would not get to the hand-over.
    #[error("reboot would not enter the maintenance root: {reason}")]
    NotWired {
        /// Why, and what helps.
        reason: String,
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
    /// Another `levitate` or `levitate abort` is at work.
    #[error("another levitate is at work (it holds {0})")]
    Busy(PathBuf),
    /// /run/levitate, or the mount of /run, cannot be changed.
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

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LevitateError {
    let path = path.to_owned();
    move |source| LevitateError::Io { what, path, source }
}

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
        let selected = select::select(config, facts)?;
        Ok(Prepared { plan: plan::plan(config, facts, &selected)?, selected })
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
    match arm::hook(root, &facts.init) {
        Hook::Wired { by } => tell(Event::Wired { init: facts.init.clone(), by }),
        Hook::NotWired { reason } => return Err(LevitateError::NotWired { reason }),
    }
    if !facts.run.is_in_ram() {
        let (fstype, point) = (facts.run.fstype.clone(), facts.run.point.clone());
        return Err(LevitateError::NotInRam { fstype, point });
    }
    let run = run_directory(root)?;
    match interlock::look(&run, &root.dir().join("proc")) {
        Gate::Open => {}
        Gate::Wait { writer } => return Err(LevitateError::FlashIsChanging { writer }),
        Gate::Refuse { reason } => {
            // in parentheses it tells of an option of reboot's
            let lines: Vec<&str> = reason.iter().map(|l| l.trim()).filter(|l| !l.starts_with('(')).collect();
            tell(Event::Warning(lines.join(" ")));
        }
    }
    let mut prepared = origin.prepare(config, facts)?;
    let Prepared { plan, selected } = &prepared;
    // of an archive it is known once it lies there
    if !selected.can_log_in.is_empty() {
        tell(prepared.event());
    }
    selected.warnings.iter().chain(&plan.warnings).for_each(|w| tell(Event::Warning(w.clone())));
    arm::verb_warnings(root).into_iter().for_each(|w| tell(Event::Warning(w)));
    let size = plan.tree.size(facts.page)?;
    let demand = Demand { staged: size, reserve: selected.reserve.clone() };
    let fits = budget::decide(&facts.supply, &demand)?;
    tell(Event::Fits { size, reserve: selected.reserve.clone(), available: facts.supply.mem_available });

    let _lock = lock(&run)?;
    let mut changed = None;
    if let Some(change) = facts.run.change(fits.grow) {
        tell(Event::Remounting(change.clone()));
        changed = Some(Changed::make(root, facts, mounts, &change)?);
    }
    let done = stage_and_arm(origin, config, facts, &mut prepared, &run, owners, tell);
    if let (Err(_), Some(changed)) = (&done, changed) {
        changed.undo(mounts);
    }
    done.map(|()| prepared.plan.manifest)
}

fn stage_and_arm(
    origin: &mut dyn Origin,
    config: &Config,
    facts: &SystemFacts,
    prepared: &mut Prepared,
    run: &Path,
    owners: Owners,
    tell: &mut dyn FnMut(Event),
) -> Result<(), LevitateError> {
    let unarmed = stage::write(&prepared.plan.tree, run, owners)?;
    let known = !prepared.selected.can_log_in.is_empty();
    origin.check(config, prepared, &unarmed.root())?;
    if !known {
        tell(prepared.event());
    }
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

/// A change of the mount of /run that was made and recorded.
struct Changed {
    record: PathBuf,
    before: Armed,
    /// What the record said before, if an earlier run had changed the mount already.
    earlier: Option<Armed>,
}

impl Changed {
    fn make(
        root: &Root,
        facts: &SystemFacts,
        mounts: &mut dyn Mounts,
        change: &Remount,
    ) -> Result<Self, LevitateError> {
        let record = root.dir().join(ARMED);
        let before = facts.run.before(change, facts.supply.run);
        let earlier = read_armed(root);
        // what was before the first change is what abort goes back to
        let merged = match earlier.clone() {
            Some(first) => {
                Armed { size: first.size.or(before.size), inodes: first.inodes.or(before.inodes), ..first }
            }
            None => before.clone(),
        };
        let changed = Self { record, before, earlier };
        changed.write(Some(&merged))?;
        if let Err(e) = mounts.remount(change) {
            let _ = changed.write(changed.earlier.as_ref());
            return Err(failed("remount", &change.point)(e));
        }
        Ok(changed)
    }

    fn write(&self, armed: Option<&Armed>) -> Result<(), LevitateError> {
        let directory = self.record.parent().unwrap_or(Path::new("/run"));
        let written = match armed {
            Some(armed) => serde_json::to_vec(armed).map_err(io::Error::from).and_then(|bytes| {
                fs::create_dir_all(directory).and_then(|()| fs::write(&self.record, bytes))
            }),
            None => fs::remove_file(&self.record),
        };
        if armed.is_none() {
            // It goes if nobody else has anything in it.
            let _ = fs::remove_dir(directory);
        }
        written.map_err(failed("write", &self.record))
    }

    /// The error that led here is the one to tell; the record stays if the mount could not be put back.
    fn undo(&self, mounts: &mut dyn Mounts) {
        if mounts.remount(&self.before.undo()).is_ok() {
            let _ = self.write(self.earlier.as_ref());
        }
    }
}

/// What `levitate` changed in the mount of /run, if it did.
pub(crate) fn read_armed(root: &Root) -> Option<Armed> {
    let bytes = fs::read(root.dir().join(ARMED)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests;
