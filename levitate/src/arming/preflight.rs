//! Every check before anything is changed, in their order: what `levitate` is refused by, and what `levitate check`
//! tells. Both go through these functions, so that they cannot disagree. Everything is looked at, nothing is changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ramdisk::init::interlock::{self, Gate};
use ramdisk::path::Root;
use ramdisk::tree::{Node, Size};

use super::doing::in_the_way;
use super::told::{Event, LevitateError};
use super::{Origin, Prepared, record, run_directory};
use crate::arm::{self, Hook, Init, Step};
use crate::budget::{self, Demand, Fits};
use crate::config::Config;
use crate::facts::SystemFacts;
use crate::run_mount::{Mounts, RunMount};

/// One thing that was found.
#[derive(Debug)]
pub enum Finding {
    /// Something to tell.
    Event(Event),
    /// A reason not to begin.
    Refusal(LevitateError),
}

/// What was found of the running system, whatever is to be staged.
#[derive(Debug)]
pub struct System {
    /// In the order in which it was looked at. `levitate` is refused by the first refusal.
    pub findings: Vec<Finding>,
    /// What has to be done for the init; empty if nothing has to, or if nothing helps.
    pub steps: Vec<Step>,
}

/// What was found of the root to be staged.
#[derive(Debug)]
pub struct Staging {
    /// What there is to tell of it.
    pub events: Vec<Event>,
    /// Whether it can be staged.
    pub verdict: Result<Ready, Short>,
}

/// A root with its size.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The root.
    pub prepared: Prepared,
    /// What it takes.
    pub size: Size,
}

/// It can be staged.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The root.
    pub measured: Measured,
    /// What it needs of /run.
    pub fits: Fits,
}

/// It cannot.
#[derive(Debug)]
pub struct Short {
    /// The root, if there is one and it does not fit.
    pub measured: Option<Box<Measured>>,
    /// Why.
    pub why: LevitateError,
}

impl From<LevitateError> for Short {
    fn from(why: LevitateError) -> Self {
        Self { measured: None, why }
    }
}

/// Looks at the running system below `root`, with PID 1 `init` and /run mounted as `run` says. It goes on after a
/// refusal, for those who want to know all of them.
pub fn system(root: &Root, init: &Init, run: &RunMount, mounts: &dyn Mounts) -> System {
    let mut found = System { findings: Vec::new(), steps: Vec::new() };
    match arm::hook(root, init) {
        Hook::Wired { by, steps } => {
            found.tell(Event::Wired { init: init.clone(), by });
            found.steps = steps;
        }
        Hook::NotWired { reason, remedy } => found.refuse(LevitateError::NotWired { reason, remedy }),
    }
    if !run.is_in_ram() {
        let (fstype, point) = (run.fstype.clone(), run.point.clone());
        found.refuse(LevitateError::NotInRam { fstype, point });
    }
    match run_directory(root) {
        Ok(run) => {
            found.look_at_flash_record(root, &run);
            if is_locked(root, &run) {
                found.refuse(LevitateError::Busy(run));
            }
        }
        Err(e) => found.refuse(e.into()),
    }
    if let Err(e) = record::read(root) {
        found.refuse(e.into());
    }
    if let Some(e) = in_the_way(root, mounts, &found.steps) {
        found.refuse(e.into());
    }
    for warning in arm::warnings(root, init) {
        found.tell(Event::Warning(warning));
    }
    found
}

impl System {
    fn tell(&mut self, event: Event) {
        self.findings.push(Finding::Event(event));
    }

    fn refuse(&mut self, why: LevitateError) {
        self.findings.push(Finding::Refusal(why));
    }

    fn look_at_flash_record(&mut self, root: &Root, run: &Path) {
        match interlock::look(run, &root.dir().join("proc")) {
            Gate::Open => {}
            Gate::Wait { writer } => self.refuse(LevitateError::FlashIsChanging { writer }),
            Gate::Refuse { reason } => {
                // in parentheses it tells of an option of reboot's
                let lines: Vec<&str> =
                    reason.iter().map(|l| l.trim()).filter(|l| !l.starts_with('(')).collect();
                self.tell(Event::Warning(lines.join(" ")));
            }
        }
    }
}

/// Decides what would be staged and whether it fits.
pub fn staging(origin: &mut dyn Origin, config: &Config, facts: &SystemFacts) -> Staging {
    let mut events = Vec::new();
    let verdict = decide(origin, config, facts, &mut events);
    Staging { events, verdict }
}

fn decide(
    origin: &mut dyn Origin,
    config: &Config,
    facts: &SystemFacts,
    events: &mut Vec<Event>,
) -> Result<Ready, Short> {
    let prepared = origin.prepare(config, facts)?;
    let Prepared { plan, selected } = &prepared;
    // of an archive it is known once it lies there
    if !selected.can_log_in.is_empty() {
        events.push(prepared.event());
    }
    events.extend(selected.warnings.iter().chain(&plan.warnings).cloned().map(Event::Warning));
    if let Some((shell, reason)) = arm::needs_shell(&facts.root, &facts.init)
        && !matches!(plan.tree.get(Path::new(shell)), Some(Node::File(meta, _)) if meta.mode & 0o111 != 0)
    {
        let remedy = Some(format!("name {shell} in packages"));
        return Err(LevitateError::NotWired { reason, remedy }.into());
    }
    let size = plan.tree.size(facts.page).map_err(LevitateError::from)?;
    let reserve = selected.reserve.clone();
    let measured = Measured { prepared, size };
    match budget::decide(&facts.supply, &Demand { staged: size, reserve: reserve.clone() }) {
        Ok(fits) => {
            events.push(Event::Fits { size, reserve, available: facts.supply.mem_available });
            Ok(Ready { measured, fits })
        }
        Err(refusal) => Err(Short { measured: Some(Box::new(measured)), why: refusal.into() }),
    }
}

/// Whether another `levitate` holds the directory, by /proc/locks: asking for the lock would get in its way. `levitate`
/// itself takes the lock as well.
fn is_locked(root: &Root, run: &Path) -> bool {
    let text = fs::read_to_string(root.dir().join("proc/locks")).unwrap_or_default();
    fs::metadata(run).is_ok_and(|meta| holds_a_lock(&text, meta.dev(), meta.ino()))
}

/// A line is `1: FLOCK  ADVISORY  WRITE 1187 00:17:2 0 EOF`: numbers of the device hexadecimal, of the inode decimal.
fn holds_a_lock(locks: &str, device: u64, inode: u64) -> bool {
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("FLOCK") && words.any(|word| word == file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_known_by_the_device_and_the_inode_and_waiting_for_it_is_none() {
        let device = nix::sys::stat::makedev(0, 0x17);
        let locks = "1: POSIX  ADVISORY  WRITE 1200 00:17:2 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 1187 00:17:2 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 1188 00:17:3 0 EOF\n";
        assert!(holds_a_lock(locks, device, 2));
        assert!(!holds_a_lock(locks, device, 3), "nobody holds that one");
        assert!(!holds_a_lock(locks, nix::sys::stat::makedev(8, 0x17), 2));
        assert!(!holds_a_lock("1: POSIX  ADVISORY  WRITE 1200 00:17:2 0 EOF\n", device, 2));
    }
}
