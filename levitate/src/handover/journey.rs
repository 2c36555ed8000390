//! What the hand-over knows while it is under way, and what it does at the border of two stages.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mounts::{self, Mount, OldMount};
use super::report::{Report, StageTime, StillMounted, Survivor, Watchdog};
use super::seam::{Ending, HandoverSys, Weight};
use super::stage::Stage;
use crate::manifest::HandoverLimits;
use crate::state::{State, StateRecord};

/// Where the old root is to be found after the pivot.
pub const OLD_ROOT: &str = "/oldroot";

/// Where the state file's file system is mounted once more.
const AGAIN: &str = "/run/levitate/state";

/// What one process image hands to the next: it goes through an execve as an argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journey {
    /// Where the root is staged; `/` after the pivot.
    pub staged: PathBuf,
    /// Where the old root is: `/`, and [`OLD_ROOT`] after the pivot.
    pub old_root: PathBuf,
    /// When the hand-over began, on the clock of [`HandoverSys::now_ms`].
    pub started_ms: u64,
    /// When the stage began.
    pub stage_started_ms: u64,
    /// The stage.
    pub stage: Stage,
    /// The stages that are done.
    pub stages: Vec<StageTime>,
    /// The deadlines.
    pub limits: HandoverLimits,
    /// The verb, where PID 1 was told it and it is in no file.
    #[serde(default)]
    pub verb: Option<String>,
    /// This boot.
    pub boot_id: String,
    /// The state file, as the old system names it, for as long as it can be written.
    pub state_file: Option<PathBuf>,
    /// Whether a record could not be written: only a failure's is tried after that.
    pub state_fails: bool,
    /// How to get at the state file again, once its file system is unmounted.
    pub state_home: Option<StateHome>,
    /// The file system that was /.
    pub root_mount: Option<OldMount>,
    /// The file systems that lay on flash.
    pub flash: Vec<OldMount>,
    /// The old system's flash record, if it tells of flash that is not known to be right.
    pub flash_record: Option<String>,
    /// For the report.
    pub unmounted: Vec<String>,
    /// For the report.
    pub survivors: Vec<Survivor>,
    /// For the report.
    pub still_mounted: Vec<StillMounted>,
    /// For the report.
    pub notes: Vec<String>,
    /// The watchdogs that this process feeds.
    pub watchdogs: Vec<Watchdog>,
}

impl Journey {
    /// A journey that begins at `now_ms` to the root staged at `staged`.
    #[must_use]
    pub fn begin(now_ms: u64, staged: &Path) -> Self {
        Self {
            staged: staged.to_owned(),
            old_root: PathBuf::from("/"),
            started_ms: now_ms,
            stage_started_ms: now_ms,
            stage: Stage::Check,
            stages: Vec::new(),
            limits: HandoverLimits::default(),
            verb: None,
            boot_id: String::new(),
            state_file: None,
            state_fails: false,
            state_home: None,
            root_mount: None,
            flash: Vec::new(),
            flash_record: None,
            unmounted: Vec::new(),
            survivors: Vec::new(),
            still_mounted: Vec::new(),
            notes: Vec::new(),
            watchdogs: Vec::new(),
        }
    }

    /// A journey that begins at `now_ms` in the staged root, which is / already.
    #[must_use]
    pub fn begin_pivoted(now_ms: u64, verb: &str) -> Self {
        let begin = Self::begin(now_ms, Path::new("/"));
        Self { old_root: PathBuf::from(OLD_ROOT), verb: Some(verb.to_owned()), ..begin }
    }

    /// Whether the staged root is / already.
    #[must_use]
    pub fn is_pivoted(&self) -> bool {
        self.old_root == Path::new(OLD_ROOT)
    }

    /// The report, at the end.
    #[must_use]
    pub fn report(&self, now_ms: u64, unix_seconds: u64) -> Report {
        Report {
            version: Report::VERSION,
            handed_over_at: unix_seconds,
            total_ms: now_ms.saturating_sub(self.started_ms),
            stages: self.stages.clone(),
            unmounted: self.unmounted.clone(),
            survivors: self.survivors.clone(),
            still_mounted: self.still_mounted.clone(),
            notes: self.notes.clone(),
            watchdogs: self.watchdogs.clone(),
        }
    }
}

/// The file system that held the state file, and its path in there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHome {
    /// What it lies on.
    pub source: String,
    /// Its type.
    pub fstype: String,
    /// The state file's path below its root.
    pub file: PathBuf,
}

/// Why the hand-over stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It failed, at the stage it was in: reset into the old system.
    Failed(String),
    /// The verb is not reboot: no hand-over was asked for.
    NotAsked(Ending),
}

impl Stop {
    /// A failure: what was attempted, and what the kernel said.
    pub(crate) fn because(what: impl std::fmt::Display, error: &io::Error) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }
}

/// What a step answers.
pub type Step = Result<(), Stop>;

/// A journey under way.
#[derive(Debug)]
pub struct Run<'a, S: HandoverSys> {
    /// The kernel.
    pub sys: &'a mut S,
    /// What is known.
    pub journey: Journey,
}

impl<S: HandoverSys> Run<'_, S> {
    /// Begins a stage: console, state file, time.
    pub(crate) fn enter(&mut self, stage: Stage) -> Step {
        let now = self.sys.now_ms();
        if stage != Stage::Check {
            self.close_stage(now);
        }
        self.journey.stage = stage;
        self.journey.stage_started_ms = now;
        let line = format!("stage {}/{}: {}", stage.number(), Stage::ALL.len(), stage.text());
        self.sys.say(Weight::Progress, &line);
        if self.remaining(now) == 0 {
            return Err(Stop::Failed(format!("not done within {} ms", self.journey.limits.whole_ms)));
        }
        // The record before the first unmount is the last one that is sure to be possible.
        let state = if stage == Stage::Unmount { State::Left } else { State::Entering };
        self.record_progress(state);
        #[cfg(feature = "fault-injection")]
        self.inject(stage)?;
        Ok(())
    }

    /// Adds the stage that ends at `now` to the list.
    pub(crate) fn close_stage(&mut self, now: u64) {
        let ms = now.saturating_sub(self.journey.stage_started_ms);
        self.journey.stages.push(StageTime { stage: self.journey.stage, ms });
    }

    /// Writes the state file. One that could not be written once is not tried before every stage: each try can take
    /// its full limit.
    pub(crate) fn record_progress(&mut self, state: State) {
        if self.journey.state_fails {
            return;
        }
        if let Err(e) = self.record(state, None) {
            self.note(format!("write the state file: {e}"));
            self.journey.state_fails = true;
        }
    }

    /// Writes the state file, if one can be written still.
    fn record(&mut self, state: State, reason: Option<&str>) -> io::Result<()> {
        let Some(file) = &self.journey.state_file else {
            // The old system has unmounted it before us: what is worth a mount of its own is that it was left.
            return if state == State::Left { self.record_again(state, reason) } else { Ok(()) };
        };
        let path = mounts::below(&self.journey.old_root, file);
        let stage = Some(self.journey.stage.name());
        let record = StateRecord::now(state, &self.journey.boot_id, stage, reason);
        let limit = self.journey.limits.call_ms;
        self.sys.write_state(&path, &record, limit)
    }

    /// Writes the state file's last record, `failed`. Where its file system is unmounted already, that is mounted once
    /// more for it: the board is reset next anyway, and a user far away has no other way to learn the reason.
    pub(crate) fn record_failure(&mut self, reason: &str) -> io::Result<()> {
        if self.journey.state_home.is_none() {
            return self.record(State::Failed, Some(reason));
        }
        self.record_again(State::Failed, Some(reason))
    }

    /// Mounts the state file's file system for one record; without a state file nothing is done.
    fn record_again(&mut self, state: State, reason: Option<&str>) -> io::Result<()> {
        let Some(home) = self.journey.state_home.clone() else { return Ok(()) };
        let at = Path::new(AGAIN);
        let limit = self.journey.limits.call_ms;
        self.sys.make_dir(at)?;
        self.sys.mount(&home.source, &home.fstype, at, limit)?;
        let stage = Some(self.journey.stage.name());
        let record = StateRecord::now(state, &self.journey.boot_id, stage, reason);
        let written = self.sys.write_state(&at.join(&home.file), &record, limit);
        // The record is durable without it.
        let _ = self.sys.unmount(at, limit);
        written
    }

    /// What goes wrong without stopping anything: said, and kept for the report.
    pub(crate) fn note(&mut self, text: String) {
        self.sys.say(Weight::Note, &text);
        self.journey.notes.push(text);
    }

    /// Makes a note of an error that does not matter enough to stop for.
    pub(crate) fn tolerate(&mut self, what: impl std::fmt::Display, result: io::Result<()>) {
        if let Err(e) = result {
            self.note(format!("{what}: {e}"));
        }
    }

    /// Milliseconds left of the whole.
    pub(crate) fn remaining(&self, now: u64) -> u64 {
        let end = self.journey.started_ms.saturating_add(self.journey.limits.whole_ms);
        end.saturating_sub(now)
    }

    /// The limit for one call: its own, or what is left of the whole.
    pub(crate) fn limit(&mut self) -> u64 {
        let now = self.sys.now_ms();
        self.journey.limits.call_ms.min(self.remaining(now)).max(1)
    }

    /// The mount table.
    pub(crate) fn mounts(&mut self) -> Result<Vec<Mount>, Stop> {
        let mounts = self.sys.mounts().map_err(|e| Stop::because("read the mount table", &e))?;
        if mounts.is_empty() {
            return Err(Stop::Failed("the mount table is empty".to_owned()));
        }
        Ok(mounts)
    }
}
