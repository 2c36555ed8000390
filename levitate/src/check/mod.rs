//! `levitate check`: would `levitate` work, what would it stage, and what would `reboot` do. Everything is looked at and
//! nothing is changed; all reasons against it are told, not the first alone.

pub mod trial;

mod render;

mod surroundings;

use std::path::{Path, PathBuf};

use ramdisk::path::Root;
use ramdisk::service::Service;
use ramdisk::tree::Size;
use serde::Serialize;

pub use self::surroundings::{FlashReport, FlashUse, WatchdogReport};
use self::trial::{Outcome, Trial, Trials};
use crate::arm;
use crate::arming::preflight::{self, Finding, Measured};
use crate::arming::{Event, KernelMounts, LevitateError, Prepared, Running};
use crate::budget::{Fits, WORKING_SET};
use crate::config::{Config, ConfigError};
use crate::facts::SystemFacts;
use crate::handover::watchdog::WatchdogFacts;
use crate::run_mount::{self, Mounts};
use crate::select::Selection;
use crate::status::{self, Reboot, Status, with_sources};

/// The version of [`Report`] as JSON.
pub const VERSION: u32 = 1;

/// All that was found. As JSON it is one object; `docs/check.md` describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// Whether `levitate` would stage a root that `reboot` enters.
    pub works: bool,
    /// Why not: every reason that was found.
    pub reasons: Vec<String>,
    /// PID 1 and its way into the hand-over.
    pub init: InitReport,
    /// What would be staged; none if that cannot be decided.
    pub staging: Option<Staging>,
    /// What was tried of it; empty if nothing was.
    pub programs: Vec<Trial>,
    /// Why none of them was tried, if none was.
    pub not_tried: Option<String>,
    /// RAM; none if what would be staged is not known.
    pub memory: Option<Memory>,
    /// Who uses flash now.
    pub flash: FlashReport,
    /// What `reboot` does.
    pub reboot: RebootReport,
    /// Milliseconds without a login after which the maintenance root would go back; none: never, or no configuration.
    pub lease_ms: Option<u64>,
    /// Who feeds which watchdog, and what the hand-over does about it; empty if none is known to run.
    pub watchdogs: Vec<WatchdogReport>,
    /// What stops nothing and should be known.
    pub warnings: Vec<String>,
}

/// PID 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InitReport {
    /// Its name for people.
    pub name: String,
    /// Whether its `reboot` gets to the hand-over.
    pub wired: bool,
    /// The file that makes it so.
    pub by: Option<PathBuf>,
    /// Why it does not, and what helps.
    pub reason: Option<String>,
    /// What arming would do for it, a sentence each; empty if nothing has to be done.
    pub steps: Vec<String>,
}

/// What would be staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Staging {
    /// The services that the maintenance init would know.
    pub services: Vec<String>,
    /// Those of them that are started by another one, or connected with one by a pipe. Each name was found.
    pub connections: Vec<Connection>,
    /// Who could log in.
    pub logins: Vec<Login>,
    /// ssh host keys that come along.
    pub host_keys: usize,
    /// Regular files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A service and those that it says it belongs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// The service.
    pub service: String,
    /// The longrun that starts and stops it.
    pub controlled_by: Option<String>,
    /// The longrun that reads its output.
    pub producer_for: Option<String>,
    /// The longruns whose output it reads.
    pub consumer_for: Vec<String>,
}

/// Somebody who could log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Login {
    /// The name.
    pub user: String,
    /// How many authorized keys are carried over.
    pub keys: usize,
    /// Whether a password is.
    pub password: bool,
}

/// RAM in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What the staged root takes.
    pub staged: u64,
    /// What is kept for the image.
    pub reserve: u64,
    /// Where that number comes from.
    pub reserve_from: String,
    /// What the maintenance root works in.
    pub working_set: u64,
    /// MemAvailable.
    pub available: u64,
    /// Whether it fits.
    pub fits: bool,
    /// What `levitate` would enlarge /run to; none if it need not.
    pub run_grows_to: Option<u64>,
}

/// What `reboot` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RebootReport {
    /// Now; in the maintenance root, none.
    pub now: Option<Reboot>,
    /// After `levitate`.
    pub after_levitate: Reboot,
}

/// What is looked at beyond files, and with which hands.
pub struct Hands<'a> {
    /// Tries programs.
    pub trials: &'a mut dyn Trials,
    /// Says what is mounted; nothing else is asked of it.
    pub mounts: &'a dyn Mounts,
    /// Who holds watchdogs.
    pub watchdog: WatchdogFacts,
}

/// Checks the system below `root` (`/`, or a captured tree).
pub fn check(root: &Root, config: &Result<Config, ConfigError>, hands: Hands<'_>) -> Report {
    let mut report = Report {
        version: VERSION,
        works: false,
        reasons: Vec::new(),
        init: InitReport {
            name: "not known".to_owned(),
            wired: false,
            by: None,
            reason: None,
            steps: Vec::new(),
        },
        staging: None,
        programs: Vec::new(),
        not_tried: None,
        memory: None,
        flash: surroundings::flash(root.dir()),
        reboot: RebootReport { now: None, after_levitate: Reboot::Normal },
        lease_ms: config.as_ref().ok().and_then(|c| c.lease),
        watchdogs: surroundings::watchdogs(&hands.watchdog),
        warnings: Vec::new(),
    };
    let facts = match config {
        Ok(config) => {
            SystemFacts::read(root, config).map(|facts| (config, facts)).map_err(|e| with_sources(&e))
        }
        Err(e) => Err(with_sources(e)),
    };
    report.look_at_system(root, hands.mounts);
    if arm::in_maintenance(root) {
        report.not_tried = Some("this is the maintenance root".to_owned());
        return report;
    }
    if let Ok(Status::Old(old)) =
        status::read(root, config.as_ref().ok().and_then(|c| c.state_file.as_deref()))
    {
        report.reboot.now = Some(old.reboot);
    }
    match facts {
        Ok((config, facts)) => report.look_at_staging(config, &facts, hands.trials),
        Err(reason) => report.refuse(reason),
    }
    if report.programs.is_empty() && report.not_tried.is_none() {
        report.not_tried = Some("what would be staged is not known".to_owned());
    }
    report.works = report.reasons.is_empty();
    if report.works {
        report.reboot.after_levitate = Reboot::Maintenance;
    }
    report
}

impl Report {
    /// One sentence may be said by two checks that meet the same file.
    fn refuse(&mut self, reason: String) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// What needs no configuration.
    fn look_at_system(&mut self, root: &Root, mounts: &dyn Mounts) {
        let init = match arm::detect(root) {
            Ok(init) => init,
            Err(e) => {
                let reason = with_sources(&e);
                self.init.reason = Some(reason.clone());
                return self.refuse(reason);
            }
        };
        self.init.name = init.to_string();
        // why it is not known is told by whoever reads all the facts
        let Ok(run) = run_mount::read(root) else { return };
        let found = preflight::system(root, &init, &run, mounts);
        self.init.steps = found.steps.iter().map(ToString::to_string).collect();
        for finding in found.findings {
            match finding {
                Finding::Event(event) => self.hear(event),
                Finding::Refusal(why) => {
                    match &why {
                        LevitateError::NotWired { .. } => self.init.reason = Some(why.to_string()),
                        LevitateError::FlashIsChanging { writer } => {
                            self.flash.changing = Some(writer.clone());
                        }
                        _ => {}
                    }
                    self.refuse(with_sources(&why));
                }
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Wired { by, .. } => (self.init.wired, self.init.by) = (true, Some(by)),
            Event::Warning(warning) => self.warnings.push(warning),
            // these are told in more detail
            Event::Selected { .. } | Event::Fits { .. } | Event::Remounting(_) | Event::Arming(_) => {}
        }
    }

    fn look_at_staging(&mut self, config: &Config, facts: &SystemFacts, trials: &mut dyn Trials) {
        let found = preflight::staging(&mut Running, config, facts);
        found.events.into_iter().for_each(|event| self.hear(event));
        let (measured, fits) = match found.verdict {
            Ok(ready) => (Some(ready.measured), Some(ready.fits)),
            Err(short) => {
                self.refuse(with_sources(&short.why));
                (short.measured.map(|measured| *measured), None)
            }
        };
        let Some(Measured { prepared: Prepared { plan, selected }, size }) = measured else { return };
        self.staging = Some(staging(&selected, &plan.manifest.services, size));
        self.memory = Some(memory(facts, &selected, size, fits));
        if let Some(change) = facts.run.change(None) {
            let point = change.point.display();
            self.warnings
                .push(format!("levitate would remount {point} so that programs and devices work there"));
        }
        if fits.is_none() {
            self.not_tried = Some("there is not enough memory for a copy".to_owned());
            return;
        }
        let candidates = trial::candidates(&facts.root, &selected);
        match trials.attempt(&plan.tree, size.page_bytes, &candidates) {
            Err(e) => self.not_tried = Some(format!("a copy of the root cannot be made: {e}")),
            Ok(outcomes) => {
                for (candidate, outcome) in candidates.into_iter().zip(outcomes) {
                    if let Outcome::Fails { reason } = &outcome {
                        self.refuse(format!("{} cannot run: {reason}", candidate.program.display()));
                    }
                    self.programs.push(Trial { program: candidate.program, outcome });
                }
            }
        }
    }
}

/// `fits`, or none if it does not.
fn memory(facts: &SystemFacts, selected: &Selection, size: Size, fits: Option<Fits>) -> Memory {
    Memory {
        staged: size.page_bytes,
        reserve: selected.reserve.bytes,
        reserve_from: selected.reserve.from.clone(),
        working_set: WORKING_SET,
        available: facts.supply.mem_available,
        fits: fits.is_some(),
        run_grows_to: fits.and_then(|fits| fits.grow).map(|grow| grow.bytes),
    }
}

fn staging(selected: &Selection, services: &[String], size: Size) -> Staging {
    let login = |user: &String| Login {
        user: user.clone(),
        keys: selected.authorized_keys.get(user).map_or(0, Vec::len),
        password: selected.accounts.has_password(user),
    };
    Staging {
        services: services.to_vec(),
        connections: selected.services.iter().filter_map(connection).collect(),
        logins: selected.can_log_in.iter().map(login).collect(),
        host_keys: selected.host_keys.len(),
        files: size.files,
        bytes: size.bytes,
    }
}

/// What the service's definition says of others, if it does.
fn connection(service: &Service) -> Option<Connection> {
    let found = Connection {
        service: service.name.clone(),
        controlled_by: service.controlled_by.clone(),
        producer_for: service.pipeline.producer_for.clone(),
        consumer_for: service.pipeline.consumer_for.iter().cloned().collect(),
    };
    let alone =
        found.controlled_by.is_none() && found.producer_for.is_none() && found.consumer_for.is_empty();
    (!alone).then_some(found)
}

/// Checks the running system with the configuration in the file `config`.
pub fn here(config: &Path) -> Report {
    let hands = Hands {
        trials: &mut crate::sys::trial::KernelTrials,
        mounts: &KernelMounts,
        watchdog: crate::sys::handover::watchdog_facts(Path::new("/")),
    };
    check(&Root::new("/"), &Config::read(config), hands)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod agreement_tests;
