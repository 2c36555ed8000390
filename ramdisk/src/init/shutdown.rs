//! The end of the system as a state machine: wait for flash, stop services, ask all to end, make all end, finish.
//!
//! It decides; the loop does. Every stage has a limit and so has the whole, with one exception on purpose: while flash
//! is being changed nothing is killed and nothing ends, however long it takes, unless the user forces it.

use thiserror::Error;

use super::interlock::Gate;

/// How the system ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Start again.
    Reboot,
    /// Switch the power off.
    Poweroff,
    /// Stop the processor, power on.
    Halt,
}

impl Verb {
    /// The verb's word, the command's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Poweroff => "poweroff",
            Self::Halt => "halt",
        }
    }
}

/// A word that is no verb.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected reboot, poweroff or halt, found {0:?}")]
pub struct NoVerb(pub String);

impl std::str::FromStr for Verb {
    type Err = NoVerb;

    fn from_str(text: &str) -> Result<Self, NoVerb> {
        [Self::Reboot, Self::Poweroff, Self::Halt]
            .into_iter()
            .find(|verb| verb.word() == text)
            .ok_or_else(|| NoVerb(text.to_owned()))
    }
}

/// Whether the user insists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Flash is respected.
    No,
    /// Flash that is being changed, or was left half changed, is no obstacle (`-f`).
    Yes,
    /// Nobody insists, and nobody can: flash that the old system left half changed is no obstacle, because that system
    /// did run with it. Flash that is being changed is one, and so is what was changed since.
    AsFound,
}

/// Limits in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the services to go down in order.
    pub services_ms: u64,
    /// From TERM to KILL for everybody else; ends early when all are gone.
    pub term_ms: u64,
    /// From KILL until those that do not die are left alone.
    pub kill_ms: u64,
    /// For all of the above.
    pub whole_ms: u64,
    /// How often flash is looked at again while it is being changed.
    pub look_again_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { services_ms: 20_000, term_ms: 3_000, kill_ms: 3_000, whole_ms: 25_000, look_again_ms: 250 }
    }
}

/// What the decisions are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What flash says.
    pub gate: Gate,
    /// True if it says what it said when the old system was left.
    pub flash_is_as_found: bool,
    /// True if every service is down.
    pub services_are_down: bool,
    /// True if no other process is left.
    pub is_alone: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tell the user, the log and the console.
    Tell(String),
    /// Tell why it does not happen, and forget the wish; services that were stopped are started again.
    Refuse(Vec<String>),
    /// Stop all services, in reverse order; from here on it does happen.
    StopServices,
    /// TERM to everybody.
    TermAll,
    /// KILL to everybody.
    KillAll,
    /// Write back, unmount, end.
    Finish(Verb),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Gate,
    Services,
    Term,
    Kill,
    Over,
}

/// A wish to end, on its way.
#[derive(Clone, Debug)]
pub struct Shutdown {
    verb: Verb,
    force: Force,
    limits: Limits,
    stage: Stage,
    /// When the stage is over at the latest.
    stage_by: u64,
    /// When all of it is.
    whole_by: u64,
    /// The writer that was named last: each is named once.
    named: Option<String>,
    /// Since when flash holds it up; that time counts towards no limit.
    held_since: Option<u64>,
}

impl Shutdown {
    /// A new wish.
    #[must_use]
    pub fn new(verb: Verb, force: Force, limits: Limits) -> Self {
        Self {
            verb,
            force,
            limits,
            stage: Stage::Gate,
            stage_by: 0,
            whole_by: u64::MAX,
            named: None,
            held_since: None,
        }
    }

    /// Another wish came while this one is on its way: the later verb counts, and force once given stays.
    pub fn again(&mut self, verb: Verb, force: Force) {
        self.verb = verb;
        if force == Force::Yes {
            self.force = Force::Yes;
        }
        // Who asks now has not been told yet.
        self.named = None;
    }

    /// The verb.
    #[must_use]
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// True once services are being stopped.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.stage != Stage::Gate
    }

    /// When [`Shutdown::step`] wants to be asked again at the latest. While flash holds it up: soon, because nobody
    /// tells when the writer ends.
    #[must_use]
    pub fn deadline(&self, now: u64) -> u64 {
        let soon = now.saturating_add(self.limits.look_again_ms);
        if self.stage == Stage::Gate || self.held_since.is_some() {
            return soon;
        }
        let by = self.stage_by.min(self.whole_by);
        if by <= now { soon } else { by }
    }

    /// Decides what to do at `now`; stages without anything to wait for pass in one call.
    pub fn step(&mut self, now: u64, facts: &Facts) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.stage == Stage::Over || !self.flash_allows(now, facts, &mut steps) {
            return steps;
        }
        if let Some(since) = self.held_since.take() {
            let held = now.saturating_sub(since);
            self.stage_by = self.stage_by.saturating_add(held);
            self.whole_by = self.whole_by.saturating_add(held);
        }
        if self.stage == Stage::Gate {
            steps.push(Step::StopServices);
            self.whole_by = now.saturating_add(self.limits.whole_ms);
            self.enter(Stage::Services, now, self.limits.services_ms);
            // What the services do is known when this is asked again.
            return steps;
        }
        if self.stage == Stage::Services && (facts.services_are_down || self.is_late(now)) {
            if !facts.is_alone {
                steps.push(Step::TermAll);
            }
            self.enter(Stage::Term, now, self.limits.term_ms);
        }
        if self.stage == Stage::Term && (facts.is_alone || self.is_late(now)) {
            if !facts.is_alone {
                steps.push(Step::KillAll);
            }
            self.enter(Stage::Kill, now, self.limits.kill_ms);
        }
        if self.stage == Stage::Kill && (facts.is_alone || self.is_late(now)) {
            // Asked again only if the kernel refuses to end.
            self.enter(Stage::Kill, now, self.limits.kill_ms);
            steps.push(Step::Finish(self.verb));
        }
        steps
    }

    fn enter(&mut self, stage: Stage, now: u64, limit: u64) {
        self.stage = stage;
        self.stage_by = now.saturating_add(limit);
    }

    /// The whole limit ends the wait for services and for TERM early, never the last chance between KILL and the end.
    fn is_late(&self, now: u64) -> bool {
        now >= self.stage_by || (now >= self.whole_by && self.stage != Stage::Kill)
    }

    /// Looked at before every stage, not only before the first: a flash may have begun in the meantime.
    fn flash_allows(&mut self, now: u64, facts: &Facts, steps: &mut Vec<Step>) -> bool {
        let Facts { gate, flash_is_as_found, .. } = facts;
        if self.force == Force::Yes {
            self.named = None;
            return true;
        }
        match gate {
            Gate::Open => {
                self.named = None;
                true
            }
            Gate::Wait { writer } => {
                self.held_since.get_or_insert(now);
                if self.named.as_ref() != Some(writer) {
                    self.named = Some(writer.clone());
                    let verb = self.verb.word();
                    steps.push(Step::Tell(format!(
                        "{verb}: waiting, because flash is being changed by {writer}; it follows when that has ended (-f overrides)"
                    )));
                }
                false
            }
            Gate::Refuse { .. } if self.force == Force::AsFound && *flash_is_as_found => true,
            Gate::Refuse { reason } => {
                let mut lines = vec![format!("{}: refused", self.verb.word())];
                lines.extend(reason.iter().cloned());
                self.stage = Stage::Over;
                steps.push(Step::Refuse(lines));
                false
            }
        }
    }
}

#[cfg(test)]
#[path = "shutdown_tests.rs"]
mod tests;
