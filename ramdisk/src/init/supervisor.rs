//! What to do next with the services: a state machine without clock, processes or files.
//!
//! It is told what happened ([`Input`]) and when (milliseconds of a clock that never goes backwards), and answers what
//! to do ([`Action`]). Invariants, kept for every valid sequence of inputs:
//! - no service has two processes at a time;
//! - nothing goes up while something it depends on is not up, and nothing is stopped before all that depends on it is
//!   down;
//! - every stop ends, if the kernel ends what gets KILL and no limit was switched off with 0.
//!
//! Rules (the manual's, see `service::definition` for the limits): independent services start at the same time; a
//! longrun with a notification descriptor is up when it is ready, one without when it runs; not ready in time means
//! terminated and marked down, with all that waited for it; a process that dies is started again, at most once a
//! second, and its service stays up; a failed oneshot is marked down; one that lacked memory to start is tried again.

mod graph;
mod rules;

#[cfg(test)]
mod double;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod stories;

pub use graph::UnknownService;

use crate::service::{ServiceSet, Timeout};
use nix::sys::signal::Signal;

/// A restarted process starts at the earliest this many milliseconds after its last start (s6-supervise's rule).
pub const RESTART_INTERVAL_MS: u64 = 1_000;
/// A oneshot that cannot be started for lack of memory or of process numbers is tried so often, once a second, if its
/// `timeout-up` is not over before.
pub const ONESHOT_TRIES: u32 = 30;
/// A `finish` program that runs longer gets KILL (s6-supervise's default).
pub const FINISH_LIMIT_MS: u64 = 5_000;
/// A `finish` program that ends with this code says: do not start the process again (s6-supervise's rule).
pub const FINISH_PERMANENT: i32 = 125;

/// A process's number.
pub type Pid = i32;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
}

/// Which of a service's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A longrun's process.
    Run,
    /// What runs after the process has ended so.
    Finish(Outcome),
    /// A oneshot's way up.
    Up,
    /// A oneshot's way down.
    Down,
}

/// Why a process could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartProblem {
    /// The program is not there or cannot be executed: trying again will not help.
    Permanent,
    /// No memory, no process numbers: trying again may help.
    Passing,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// These services, bundles among them, shall be up, with all they need.
    Start(Vec<String>),
    /// As [`Input::Start`], but what is named itself is not started again when its process ends: it is down then.
    Once(Vec<String>),
    /// The processes of these services are asked to end; what is up stays up and is started again as after any death.
    Restart(Vec<String>),
    /// These services shall be down, and before them all that depend on them.
    Stop(Vec<String>),
    /// Everything shall be down.
    StopAll,
    /// The process asked for by [`Action::Spawn`] runs.
    Started {
        /// The service.
        service: String,
        /// Its process.
        pid: Pid,
    },
    /// The process asked for by [`Action::Spawn`] could not be started.
    StartFailed {
        /// The service.
        service: String,
        /// Whether it can be hoped for.
        problem: StartProblem,
    },
    /// The process wrote a newline on its notification descriptor.
    Ready {
        /// The process: one from before a restart says nothing about the new one.
        pid: Pid,
    },
    /// A process ended and was waited for. Unknown ones (orphans) are no concern of this machine.
    Exited {
        /// The process.
        pid: Pid,
        /// How.
        outcome: Outcome,
    },
    /// Time went by.
    Tick,
}

/// Whom a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The process alone: what a service started (a login, say) is not ended with it.
    Process(Pid),
    /// The process and all of its process group: a oneshot's helpers.
    Group(Pid),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a program; the answer is [`Input::Started`] or [`Input::StartFailed`].
    Spawn {
        /// Of which service.
        service: String,
        /// Which.
        what: What,
    },
    /// Send a signal.
    Signal {
        /// To whom.
        to: Target,
        /// Which.
        signal: Signal,
    },
    /// Something a person wants to know.
    Report {
        /// About which service.
        service: String,
        /// What.
        news: News,
    },
}

/// What became of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It is up.
    Up,
    /// It is down, as asked.
    Down,
    /// It is marked down.
    Failed(Failure),
    /// Its process died and is started again.
    Died(Outcome),
    /// It did not end in time and gets KILL.
    Killed,
}

/// Why a service is marked down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not ready within `timeout-up`.
    TimedOut,
    /// Its program cannot be executed.
    CannotStart,
    /// The oneshot's `up` ended so.
    Exit(Outcome),
    /// Its `finish` said not to start it again.
    Finished,
    /// This service, which it needs, is marked down.
    Needs(String),
    /// Its process ended so, and it was to run once.
    Ended(Outcome),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {signal}"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut => f.write_str("not ready in time"),
            Self::CannotStart => f.write_str("its program cannot be executed"),
            Self::Exit(outcome) => write!(f, "up ended with {outcome}"),
            Self::Finished => f.write_str("its finish program asked not to start it again"),
            Self::Needs(other) => write!(f, "it needs {other}, which is marked down"),
            Self::Ended(outcome) => write!(f, "its process ended with {outcome}, it was to run once"),
        }
    }
}

impl std::fmt::Display for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Down => f.write_str("down"),
            Self::Failed(failure) => write!(f, "marked down: {failure}"),
            Self::Died(outcome) => write!(f, "process ended with {outcome}, starting it again"),
            Self::Killed => f.write_str("did not end in time, killed"),
        }
    }
}

/// Where a service is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of it runs; it may be waiting for what it needs.
    Down,
    /// Started, not yet up.
    Starting,
    /// Up.
    Up,
    /// On its way down.
    Stopping,
}

/// A service as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub phase: Phase,
    /// True if it shall be up.
    pub wanted: bool,
    /// Its process, if one runs.
    pub pid: Option<Pid>,
    /// Since when it is in that phase, milliseconds.
    pub since: u64,
    /// How often its process was started again.
    pub restarts: u32,
    /// How its process ended the last time.
    pub last: Option<Outcome>,
    /// Why it is marked down, if it is.
    pub failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    None,
    /// Asked for, not answered yet.
    Asked(What),
    Alive {
        pid: Pid,
        what: What,
    },
}

/// The part of a definition that the rules look at.
#[derive(Clone, Debug)]
enum Spec {
    Longrun { notifies: bool, has_finish: bool, down_signal: Signal, timeout_kill: Timeout },
    Oneshot { has_up: bool, has_down: bool },
}

#[derive(Clone, Debug)]
struct Unit {
    name: String,
    spec: Spec,
    timeout_up: Timeout,
    timeout_down: Timeout,
    needs: Vec<usize>,
    needed_by: Vec<usize>,
    want: Want,
    phase: Phase,
    process: Process,
    /// When it has to be up.
    up_by: Option<u64>,
    /// When its process gets KILL.
    kill_at: Option<u64>,
    /// When a oneshot that could not be started is tried again.
    retry_at: Option<u64>,
    /// How often a oneshot was tried on its way up.
    tries: u32,
    /// The last start of a longrun's process.
    last_start: Option<u64>,
    since: u64,
    restarts: u32,
    last: Option<Outcome>,
    failure: Option<Failure>,
    /// Its `finish` asked not to start it again.
    finished: bool,
    /// Its process is not to be started again.
    once: bool,
}

/// The state of all services.
#[derive(Clone, Debug)]
pub struct Supervisor {
    units: Vec<Unit>,
    /// What a name stands for: itself, or a bundle's members.
    names: std::collections::BTreeMap<String, Vec<usize>>,
}

impl Supervisor {
    /// The machine for a set that [`ServiceSet::check`] accepted, everything down. In a set that it did not accept,
    /// unknown names are left out and services in a cycle never start.
    #[must_use]
    pub fn new(set: &ServiceSet) -> Self {
        graph::build(set)
    }

    /// Takes one input at the time `now` and answers what to do, in order.
    pub fn step(&mut self, now: u64, input: &Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take(now, input, &mut actions);
        self.settle(now, &mut actions);
        actions
    }

    /// When [`Input::Tick`] is due at the latest; none: nothing waits for time to go by.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.units.iter().filter_map(|unit| self.unit_deadline(unit)).min()
    }

    /// All services that are not bundles, by name.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let pid = |process| match process {
            Process::Alive { pid, .. } => Some(pid),
            Process::None | Process::Asked(_) => None,
        };
        self.units
            .iter()
            .map(|unit| Status {
                name: unit.name.clone(),
                phase: unit.phase,
                wanted: unit.want == Want::Up,
                pid: pid(unit.process),
                since: unit.since,
                restarts: unit.restarts,
                last: unit.last,
                failure: unit.failure.clone(),
            })
            .collect()
    }

    /// True if every service is where it shall be.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.units.iter().all(|unit| match unit.want {
            Want::Up => unit.phase == Phase::Up,
            Want::Down => unit.phase == Phase::Down,
        })
    }

    /// True if nothing is up or on its way.
    #[must_use]
    pub fn is_all_down(&self) -> bool {
        self.units.iter().all(|unit| unit.phase == Phase::Down)
    }

    /// True if at least one service is up.
    #[must_use]
    pub fn is_anything_up(&self) -> bool {
        self.units.iter().any(|unit| unit.phase == Phase::Up)
    }

    /// True if all that the name stands for shall be up.
    #[must_use]
    pub fn is_wanted(&self, name: &str) -> bool {
        let members = self.names.get(name).map(Vec::as_slice).unwrap_or_default();
        members.iter().all(|id| self.units.get(*id).is_some_and(|unit| unit.want == Want::Up))
    }

    /// True if `name` is a service or a bundle.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }
}
