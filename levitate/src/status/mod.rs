//! `levitate status`: what is staged, what `reboot` will do, what became of the last hand-over; and, in the maintenance
//! root, how it was entered. Everything is read, nothing is changed.

pub mod lease;

mod leaving;

mod render;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ramdisk::init::interlock::FLASH_RECORD;
use ramdisk::path::Root;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::lease::Lease;
pub use self::leaving::Leaving;
use crate::arm::{self, Hook};
use crate::arming::{self, record};
use crate::handover::report::{REPORT, Report};
use crate::manifest::{MANIFEST, Manifest};
use crate::stage::STAGED;
use crate::state::{self, State, StateRecord};

/// Everything that is known.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "system", rename_all = "snake_case")]
pub enum Status {
    /// In the system that runs from flash.
    Old(Box<Old>),
    /// In the maintenance root.
    Maintenance(Box<Maintenance>),
}

/// The system that runs from flash.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Old {
    /// PID 1, or why it is not known.
    pub init: String,
    /// Why `reboot` would not get to the hand-over; none if it would.
    pub not_wired: Option<String>,
    /// What is staged.
    pub staged: Staged,
    /// What `reboot` does now.
    pub reboot: Reboot,
    /// What became of the last hand-over.
    pub last: Last,
    /// What else should be known.
    pub warnings: Vec<String>,
}

/// Whether a root is staged.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Staged {
    /// None is.
    Nothing,
    /// One is, and whole as far as can be seen.
    Whole {
        /// What it says of itself.
        manifest: Box<Manifest>,
    },
    /// One is, and the hand-over would refuse it.
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
}

/// What `reboot` does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reboot {
    /// It enters maintenance mode.
    Maintenance,
    /// It reboots.
    Normal,
    /// It tries to enter maintenance mode, fails, and reboots.
    FailsAndReboots,
}

/// What became of the last hand-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Last {
    /// No state file is configured.
    NotRecorded,
    /// The state file cannot be read.
    Unreadable {
        /// Why.
        reason: String,
    },
    /// There was none since the state file was written first, or it was aborted.
    None,
    /// A root was staged in this boot, and is still to be entered.
    ToCome,
    /// A root was staged in an earlier boot and never entered.
    NeverEntered {
        /// When it was staged, in seconds since 1970.
        staged_at: u64,
    },
    /// It ended in the middle of a stage, without a word.
    CutOff {
        /// The stage.
        stage: String,
        /// When the stage began.
        at: u64,
    },
    /// It left the old system; from there on nothing can be recorded.
    Left {
        /// When.
        at: u64,
    },
    /// It failed.
    Failed {
        /// The stage.
        stage: String,
        /// Why.
        reason: String,
        /// When.
        at: u64,
    },
}

/// The maintenance root.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Maintenance {
    /// What was staged.
    pub manifest: Manifest,
    /// How it was entered; none if it was booted as an initramfs.
    pub handover: Option<Report>,
    /// When it was booted, in seconds since 1970 by its own clock; none if it was entered from another system.
    pub booted_at: Option<u64>,
    /// The last report of `flashcp`, as it stands in the record, but `unverified` if it was changing flash and is no
    /// longer there; none if it never ran, or if the record cannot be read (then `reboot` refuses and says so).
    pub flash: Option<serde_json::Value>,
    /// Whether the record says `changing`, and nobody does it.
    pub writer_is_gone: bool,
    /// When the root reboots by itself.
    pub lease: Lease,
    /// What `reboot` does now.
    pub reboot: Leaving,
}

/// The status could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// A file of the maintenance root cannot be read.
    #[error("read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
}

/// Reads the status of the system below `root`. `state_file` is the one that the configuration names, or the user; without
/// it, the one that a root staged in this boot names.
///
/// # Errors
///
/// In the maintenance root: its manifest or the hand-over's report cannot be read.
pub fn read(root: &Root, state_file: Option<&Path>) -> Result<Status, StatusError> {
    if arm::in_maintenance(root) {
        return maintenance(root);
    }
    let staged = staged(root);
    let detected = arm::detect(root);
    let (init, not_wired) = match &detected {
        Err(e) => ("not known".to_owned(), Some(format!("{e}: {}", e.source))),
        Ok(init) => {
            let reason = match arm::hook(root, init) {
                Hook::Wired { steps, .. } if steps.is_empty() => None,
                Hook::Wired { steps, .. } => not_armed(&staged, &steps),
                Hook::NotWired { reason, remedy } => {
                    Some(remedy.into_iter().fold(reason, |reason, remedy| format!("{reason}; {remedy}")))
                }
            };
            (init.to_string(), reason)
        }
    };
    let reboot = match (&staged, &not_wired) {
        (Staged::Nothing, _) | (_, Some(_)) => Reboot::Normal,
        (Staged::Whole { .. }, None) => Reboot::Maintenance,
        (Staged::Damaged { .. }, None) => Reboot::FailsAndReboots,
    };
    let boot_id = state::boot_id(root.dir()).unwrap_or_default();
    let of_staged = match &staged {
        Staged::Whole { manifest } => manifest.state_file.clone(),
        Staged::Nothing => None,
        Staged::Damaged { .. } => {
            record::read(root).ok().flatten().and_then(|armed| armed.state).map(|state| state.file)
        }
    };
    let last = match state_file.or(of_staged.as_deref()) {
        None => Last::NotRecorded,
        Some(path) => match state::read(&root.host(path)) {
            Ok(record) => last(record.as_ref(), &boot_id),
            Err(e) => Last::Unreadable { reason: with_sources(&e) },
        },
    };
    let detected = detected.ok().filter(|_| reboot == Reboot::Maintenance);
    let warnings = detected.map(|init| arm::warnings(root, &init)).unwrap_or_default();
    Ok(Status::Old(Box::new(Old { init, not_wired, staged, reboot, last, warnings })))
}

/// A root is staged, and what `levitate` did for the init is not there any more.
fn not_armed(staged: &Staged, steps: &[arm::Step]) -> Option<String> {
    let step = steps.first().filter(|_| *staged != Staged::Nothing)?;
    Some(format!("it has to be armed again, by levitate: {step}"))
}

/// What the state file's record means in the boot `boot_id`.
pub fn last(record: Option<&StateRecord>, boot_id: &str) -> Last {
    let Some(record) = record else { return Last::None };
    let stage = record.stage.clone().unwrap_or_default();
    let this_boot = record.boot_id == boot_id;
    match record.state {
        State::Armed if this_boot => Last::ToCome,
        State::Armed => Last::NeverEntered { staged_at: record.at },
        State::Entering => Last::CutOff { stage, at: record.at },
        State::Left => Last::Left { at: record.at },
        State::Failed => {
            Last::Failed { stage, reason: record.reason.clone().unwrap_or_default(), at: record.at }
        }
    }
}

/// An error with all that led to it, in one line.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        let more = e.to_string();
        // transparent wrappers say the same twice
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = e.source();
    }
    text
}

fn staged(root: &Root) -> Staged {
    let Ok(run) = arming::run_directory(root) else { return Staged::Nothing };
    let directory = run.join(STAGED);
    if fs::symlink_metadata(&directory).is_err() {
        return Staged::Nothing;
    }
    let manifest: Manifest = match json(&directory.join(MANIFEST)) {
        Ok(manifest) => manifest,
        Err(e) => return Staged::Damaged { reason: with_sources(&e) },
    };
    let boot_id = state::boot_id(root.dir()).unwrap_or_default();
    if manifest.boot_id != boot_id {
        return Staged::Damaged { reason: "it was staged in another boot".to_owned() };
    }
    let inside = Root::new(&directory);
    for program in ["/exec", "/sbin/init"] {
        if let Err(reason) = is_executable(&inside, Path::new(program)) {
            return Staged::Damaged { reason };
        }
    }
    Staged::Whole { manifest: Box::new(manifest) }
}

fn is_executable(root: &Root, program: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let real = root.resolve(program).map_err(|e| e.to_string())?.real;
    let meta = fs::metadata(root.host(&real)).map_err(|e| format!("{}: {e}", program.display()))?;
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(format!("{} is not executable", program.display()));
    }
    Ok(())
}

fn maintenance(root: &Root) -> Result<Status, StatusError> {
    let at = |name: &str| root.dir().join(name.trim_start_matches('/'));
    // The record first: a flash that ends in between, unverified, is rightly told as one whose writer is gone.
    let flash: Option<serde_json::Value> = json(&at("run").join(FLASH_RECORD)).ok();
    let reboot = Leaving::look(&at("run"), &at("proc"));
    let (flash, writer_is_gone) = match flash.map(|flash| leaving::truth(flash, &reboot)) {
        Some((flash, writer_is_gone)) => (Some(flash), writer_is_gone),
        None => (None, false),
    };
    let report = at(REPORT);
    let handover: Option<Report> = if report.exists() { Some(json(&report)?) } else { None };
    Ok(Status::Maintenance(Box::new(Maintenance {
        manifest: json(&at(MANIFEST))?,
        booted_at: handover.is_none().then(|| booted_at(&at("proc/uptime"))),
        handover,
        flash,
        writer_is_gone,
        lease: Lease::ask(&at("run")),
        reboot,
    })))
}

/// When the kernel started, by /proc/uptime (`12.34 56.78`, seconds).
fn booted_at(uptime: &Path) -> u64 {
    let text = fs::read_to_string(uptime).unwrap_or_default();
    let seconds = text.split('.').next().and_then(|seconds| seconds.trim().parse().ok());
    state::seconds_since_1970().saturating_sub(seconds.unwrap_or(0))
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, StatusError> {
    let failed = |source| StatusError::Io { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    serde_json::from_slice(&bytes).map_err(|e| failed(e.into()))
}

#[cfg(test)]
mod tests;
