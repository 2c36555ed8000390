//! `levitate` itself: every check, then everything that is done, in this order. Whatever fails, the system is left as
//! it was.

mod doing;
mod kernel;
pub mod record;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use ramdisk::dir_sink::Owners;
use ramdisk::init::interlock::{self, Gate};
use ramdisk::path::{PathError, Root};
use ramdisk::tree::{Size, TreeError};

pub use self::doing::{Doing, DoingError, undo};
pub use self::kernel::KernelMounts;
use self::record::RecordError;
use crate::arm::{self, Hook, Init, Step};
use crate::budget::{self, Demand, Grow, Refusal, Reserve};
use crate::config::Config;
use crate::facts::SystemFacts;
use crate::image::ImageError;
use crate::manifest::Manifest;
use crate::plan::{self, Plan, PlanError};
use crate::run_mount::{Mounts, Remount};
use crate::select::{self, SelectError, Selection};
use crate::stage::{self, StageError, Unarmed};
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
    let steps = match arm::hook(root, &facts.init) {
        Hook::Wired { by, steps } => {
            tell(Event::Wired { init: facts.init.clone(), by });
            steps
        }
        Hook::NotWired { reason, remedy } => return Err(LevitateError::NotWired { reason, remedy }),
    };
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
    arm::warnings(root, &facts.init).into_iter().for_each(|w| tell(Event::Warning(w)));
    let size = plan.tree.size(facts.page)?;
    let demand = Demand { staged: size, reserve: selected.reserve.clone() };
    let fits = budget::decide(&facts.supply, &demand)?;
    tell(Event::Fits { size, reserve: selected.reserve.clone(), available: facts.supply.mem_available });

    let _lock = lock(&run)?;
    let mut doing = Doing::begin(root)?;
    let done = change_and_stage(
        origin,
        config,
        facts,
        &mut prepared,
        fits.grow,
        &steps,
        &mut doing,
        mounts,
        owners,
        tell,
    );
    if done.is_err() {
        doing.back_out(mounts);
    }
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
    steps.iter().for_each(|step| tell(Event::Arming(step.clone())));
    doing.carry_out(mounts, steps)?;
    record_and_arm(config, facts, unarmed, tell)
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
