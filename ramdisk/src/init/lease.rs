//! The lease: a dead man's switch. A maintenance root in which nobody is logged in, and which nobody holds, reboots into
//! the system on flash after a while, so that a device whose owner cannot get in any more comes back by itself.
//!
//! It ends with the first change of flash and runs again, from its full length, when the flash record says `verified`:
//! that reboot goes to the new firmware. Flash that the old system left changed and not verified ends it only once
//! somebody has logged in or asked for a hold: until then nobody is known to get in, and the old system did run with
//! that flash. Until then that lease is a longer one, for an owner who is late must not meet a kernel that is half written.
//! A pure state machine: the clock, who is logged in and what flash says are
//! values. The clock is one that never goes backwards; setting the wall clock moves nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::sessions::Session;

/// The lease's length unless configured, in milliseconds: a quarter of an hour.
pub const DEFAULT_MS: u64 = 15 * 60_000;
/// Its length, in milliseconds, while flash is changed and not verified since before the hand-over, unless configured: a day.
pub const DEFAULT_UNVERIFIED_MS: u64 = 24 * 60 * 60_000;
/// So long before the end everybody is warned; half of a lease that is shorter than twice this.
pub const WARNING_MS: u64 = 60_000;

/// What the staged root's manifest says about the lease.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Terms {
    /// The length in milliseconds; none: it is off.
    #[serde(default = "default_length")]
    pub lease_ms: Option<u64>,
    /// The length, never below the other, while flash is as the old system left it, changed and not verified; none: such
    /// flash ends the lease.
    #[serde(default = "default_unverified")]
    pub lease_unverified_ms: Option<u64>,
    /// The services through which people log in; none named: any service counts.
    #[serde(default)]
    pub ways_in: Vec<String>,
}

/// What a manifest means that says nothing of a lease: [`DEFAULT_MS`].
#[must_use]
pub fn default_length() -> Option<u64> {
    Some(DEFAULT_MS)
}

/// What a manifest means that says nothing of the longer lease: [`DEFAULT_UNVERIFIED_MS`].
#[must_use]
pub fn default_unverified() -> Option<u64> {
    Some(DEFAULT_UNVERIFIED_MS)
}

impl Default for Terms {
    fn default() -> Self {
        Self { lease_ms: default_length(), lease_unverified_ms: default_unverified(), ways_in: Vec::new() }
    }
}

/// The terms could not be read: they are the default ones then.
#[derive(Debug, Error)]
#[error("cannot read the lease's terms in {path}", path = path.display())]
pub struct TermsError {
    path: PathBuf,
    source: io::Error,
}

impl Terms {
    /// Reads them from the manifest at `path`; none if there is none: then this is no maintenance root, and no lease runs.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn read(path: &Path) -> Result<Option<Self>, TermsError> {
        let failed = |source| TermsError { path: path.to_owned(), source };
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

/// What the decision is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Who is logged in.
    pub sessions: Vec<Session>,
    /// What becomes of flash.
    pub flash: Flash,
}

/// Flash, as far as going back to the system on it is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flash {
    /// Not changed, or verified.
    #[default]
    Safe,
    /// Changed and not verified, before the hand-over: going back is no worse than it was to stay there.
    AsFound,
    /// Being changed, or changed since and not verified.
    AtRisk,
}

/// What keeps the lease from running.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stop {
    Flash,
    /// Until this time; none: until it is released.
    Hold(Option<u64>),
    Sessions(Vec<Session>),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A line for the log.
    Note(String),
    /// Everybody is told.
    Warn(String),
    /// Everybody is told, and the system reboots.
    Expire(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    due: u64,
    warned: bool,
}

/// The lease, as `levitate status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// What it does.
    #[serde(flatten)]
    pub state: LeaseState,
    /// Its length in milliseconds; none if it is off.
    pub lease_ms: Option<u64>,
}

/// What the lease does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LeaseState {
    /// There is none.
    Off,
    /// It runs.
    Runs {
        /// Milliseconds until the reboot.
        left_ms: u64,
    },
    /// `levitate hold` stops it.
    Held {
        /// Milliseconds until it runs again; none: until `levitate release`.
        left_ms: Option<u64>,
    },
    /// Somebody is logged in.
    LoggedIn {
        /// Who.
        sessions: Vec<Session>,
    },
    /// Flash is being changed, or is changed and not verified.
    Flash,
}

/// The lease of a maintenance root.
#[derive(Clone, Debug)]
pub struct Lease {
    length: Option<u64>,
    /// While flash is as the old system left it; none: that ends it.
    unverified: Option<u64>,
    hold: Option<Option<u64>>,
    /// Somebody was here: logged in, or asked for a hold.
    visited: bool,
    stop: Option<Stop>,
    run: Option<Run>,
    /// When the facts are to be looked at again.
    look_at: u64,
    /// Until then they are looked at more often: somebody is perhaps logging in.
    eager_until: u64,
}

/// Between two looks while somebody is perhaps logging in, in milliseconds: a session that lasts as long as a short
/// command is to be seen.
const EAGER_MS: u64 = 100;
/// So long after a sign of a login.
const EAGER_FOR_MS: u64 = 1_000;

impl Lease {
    /// A lease of those terms that runs from the first step on.
    #[must_use]
    pub fn new(terms: &Terms) -> Self {
        let (length, unverified) = (terms.lease_ms, terms.lease_unverified_ms);
        Self {
            length,
            unverified,
            hold: None,
            visited: false,
            stop: None,
            run: None,
            look_at: 0,
            eager_until: 0,
        }
    }

    /// The length that counts with such flash.
    fn length_with(&self, length: u64, flash: Flash) -> u64 {
        match (flash, self.unverified) {
            (Flash::AsFound, Some(unverified)) => unverified.max(length),
            _ => length,
        }
    }

    /// Stops it for `time` milliseconds, or until [`Lease::release`]; in place of an earlier hold.
    pub fn hold(&mut self, now: u64, time: Option<u64>) {
        self.hold = Some(time.map(|time| now.saturating_add(time)));
        self.visited = true;
        self.look_at = now;
    }

    /// Ends a hold. True if there was one.
    pub fn release(&mut self, now: u64) -> bool {
        self.look_at = now;
        self.hold.take().is_some()
    }

    /// A login service said something: somebody may be logging in for a moment only.
    pub fn look_closely(&mut self, now: u64) {
        self.eager_until = now.saturating_add(EAGER_FOR_MS);
        self.look_at = self.look_at.min(now.saturating_add(EAGER_MS));
    }

    /// When [`Lease::step`] wants to be asked again; none: not before something is asked of it.
    #[must_use]
    pub fn next_look(&self) -> Option<u64> {
        self.length.map(|_| self.look_at)
    }

    /// True if who is logged in makes a difference: finding out costs a look at every process.
    #[must_use]
    pub fn asks_for_sessions(&self, now: u64, flash: Flash) -> bool {
        self.length.is_some() && self.held_at(now).is_none() && !self.is_ended_by(flash)
    }

    fn is_ended_by(&self, flash: Flash) -> bool {
        match flash {
            Flash::Safe => false,
            Flash::AsFound => self.visited || self.unverified.is_none(),
            Flash::AtRisk => true,
        }
    }

    fn held_at(&self, now: u64) -> Option<Option<u64>> {
        self.hold.filter(|until| until.is_none_or(|until| until > now))
    }

    fn stopped_by(&self, now: u64, facts: &Facts) -> Option<Stop> {
        if self.is_ended_by(facts.flash) {
            return Some(Stop::Flash);
        }
        if let Some(until) = self.held_at(now) {
            return Some(Stop::Hold(until));
        }
        if facts.sessions.is_empty() { None } else { Some(Stop::Sessions(facts.sessions.clone())) }
    }

    /// Decides what to do at `now`. It never expires without a warning before.
    pub fn step(&mut self, now: u64, facts: &Facts) -> Vec<Step> {
        let Some(length) = self.length.map(|length| self.length_with(length, facts.flash)) else {
            return Vec::new();
        };
        self.visited |= !facts.sessions.is_empty();
        let stop = self.stopped_by(now, facts);
        self.hold = self.held_at(now);
        let mut steps = Vec::new();
        if stop.is_some() {
            self.run = None;
        }
        let changed = stop != self.stop;
        self.stop = stop;
        let warning = WARNING_MS.min(length / 2);
        match (&self.stop, &mut self.run) {
            (Some(stop), _) => {
                if changed {
                    steps.push(Step::Note(format!("lease: stopped: {}", reason(stop, now))));
                }
            }
            (None, None) => {
                self.run = Some(Run { due: now.saturating_add(length), warned: false });
                steps.push(Step::Note(format!(
                    "lease: runs; reboot in {} unless somebody logs in{}",
                    lasting(length),
                    if facts.flash == Flash::AsFound { AS_FOUND } else { "" }
                )));
            }
            (None, Some(run)) if !run.warned && now.saturating_add(warning) >= run.due => {
                // One who was kept waiting past the end still gets the whole warning.
                run.due = run.due.max(now.saturating_add(warning));
                run.warned = true;
                steps.push(Step::Warn(format!(
                    "nobody is logged in: rebooting into the system on flash in {} (log in, or `levitate hold`, to stay)",
                    lasting(run.due.saturating_sub(now))
                )));
            }
            (None, Some(run)) if run.warned && now >= run.due => {
                // Asked again only if the reboot was not possible.
                *run = Run { due: now.saturating_add(length), warned: false };
                steps.push(Step::Expire(format!(
                    "the lease is over: nobody was logged in for {}; rebooting into the system on flash{}",
                    lasting(length),
                    if facts.flash == Flash::AsFound { AS_FOUND } else { "" }
                )));
            }
            (None, Some(_)) => {}
        }
        self.look_at = self.following_look(now, length, warning);
        steps
    }

    fn following_look(&self, now: u64, length: u64, warning: u64) -> u64 {
        let often = if now < self.eager_until { EAGER_MS } else { (length / 10).clamp(EAGER_MS, 2_000) };
        let next = now.saturating_add(often);
        match (&self.stop, &self.run) {
            (None, Some(run)) if run.warned => next.min(run.due),
            (None, Some(run)) => next.min(run.due.saturating_sub(warning)).max(now.saturating_add(1)),
            (Some(Stop::Hold(Some(until))), _) => next.min(*until),
            _ => next,
        }
    }

    /// How it stands at `now`, as of the last step.
    #[must_use]
    pub fn status(&self, now: u64) -> LeaseStatus {
        let state = match (self.length, &self.stop, &self.run) {
            (None, _, _) => LeaseState::Off,
            (_, Some(Stop::Flash), _) => LeaseState::Flash,
            (_, Some(Stop::Hold(until)), _) => {
                LeaseState::Held { left_ms: until.map(|until| until.saturating_sub(now)) }
            }
            (_, Some(Stop::Sessions(sessions)), _) => LeaseState::LoggedIn { sessions: sessions.clone() },
            (Some(length), None, run) => {
                LeaseState::Runs { left_ms: run.map_or(length, |run| run.due.saturating_sub(now)) }
            }
        };
        LeaseStatus { state, lease_ms: self.length }
    }
}

/// Why the lease runs although `reboot` would refuse.
const AS_FOUND: &str = " (it left flash changed and not verified, and did run with that)";

fn reason(stop: &Stop, now: u64) -> String {
    match stop {
        Stop::Flash => "flash is being changed, or is not verified".to_owned(),
        Stop::Hold(None) => "held until it is released".to_owned(),
        Stop::Hold(Some(until)) => format!("held for {}", lasting(until.saturating_sub(now))),
        Stop::Sessions(sessions) => {
            let who: Vec<String> = sessions.iter().map(Session::to_string).collect();
            format!("logged in: {}", who.join(", "))
        }
    }
}

/// A time as people say it: `15 min`, `90 s`, `2 h 5 min`; rounded to seconds.
#[must_use]
pub fn lasting(ms: u64) -> String {
    let seconds = ms.saturating_add(500) / 1_000;
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, rest) {
        (0, minutes, rest) if minutes < 2 => format!("{} s", minutes * 60 + rest),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, rest) => format!("{minutes} min {rest} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
