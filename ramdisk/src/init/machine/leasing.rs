//! PID 1's part in the lease: it looks, asks [`Lease`] for a decision, and does what follows.

use super::{Connection, Force, Init, Kernel, Verb};
use crate::init::interlock::Gate;
use crate::init::lease::{Facts, Flash, Lease, Step, Terms, lasting};
use crate::init::supervisor::Pid;

/// The lease, and who can end it by logging in.
#[derive(Debug)]
pub(super) struct Leasing {
    lease: Lease,
    /// Names of the login services; none named: all are.
    ways_in: Vec<String>,
}

impl Leasing {
    pub(super) fn new(terms: Terms) -> Self {
        Self { lease: Lease::new(&terms), ways_in: terms.ways_in }
    }

    /// When it wants to look again.
    pub(super) fn next_look(&self) -> Option<u64> {
        self.lease.next_look()
    }

    /// A service wrote something: a login perhaps.
    pub(super) fn heard(&mut self, service: &str, now: u64) {
        if self.is_way_in(service) {
            self.lease.look_closely(now);
        }
    }

    fn is_way_in(&self, service: &str) -> bool {
        self.ways_in.is_empty() || self.ways_in.iter().any(|name| name == service)
    }
}

impl<K: Kernel> Init<K> {
    /// Lets a lease run from now on.
    #[must_use]
    pub fn with_lease(mut self, terms: Terms) -> Self {
        self.leasing = Some(Leasing::new(terms));
        self
    }

    /// True in a maintenance root: it alone has terms of a lease, be it that none runs.
    pub(super) fn is_maintenance(&self) -> bool {
        self.leasing.is_some()
    }

    /// Looks if it is time to; a system that is ending already needs no lease.
    pub(super) fn look_at_lease(&mut self) {
        let now = self.kernel.now();
        let is_time = self.leasing.as_ref().and_then(Leasing::next_look).is_some_and(|at| at <= now);
        if is_time && self.shutdown.is_none() {
            self.step_lease();
        }
    }

    fn step_lease(&mut self) {
        let Some(mut leasing) = self.leasing.take() else { return };
        let now = self.kernel.now();
        let flash = match self.kernel.flash_gate() {
            Gate::Open => Flash::Safe,
            Gate::Refuse { .. } if self.kernel.flash_record_was_found() => Flash::AsFound,
            Gate::Refuse { .. } | Gate::Wait { .. } => Flash::AtRisk,
        };
        let mut facts = Facts { flash, ..Facts::default() };
        if leasing.lease.asks_for_sessions(now, flash) {
            let (servers, others) = self.processes(&leasing);
            facts.sessions = self.kernel.sessions(&servers, &others);
        }
        for step in leasing.lease.step(now, &facts) {
            match step {
                Step::Note(text) => self.note(&text),
                Step::Warn(text) => self.announce(&text),
                Step::Expire(text) => {
                    self.announce(&text);
                    self.want_end(Verb::Reboot, Force::AsFound);
                }
            }
        }
        self.leasing = Some(leasing);
    }

    /// Those of the services through which people log in, and those of the others.
    fn processes(&self, leasing: &Leasing) -> (Vec<Pid>, Vec<Pid>) {
        let (mut servers, mut others) = (Vec::new(), Vec::new());
        for status in self.supervisor.status() {
            let kind = if leasing.is_way_in(&status.name) { &mut servers } else { &mut others };
            kind.extend(status.pid);
        }
        (servers, others)
    }

    /// Answers a request about the lease: `change` is made to it, and what it answers is told.
    fn about_lease(&mut self, from: Connection, change: impl FnOnce(&mut Lease, u64) -> String) {
        let now = self.kernel.now();
        let Some(leasing) = &mut self.leasing else {
            self.kernel.answer(from, "there is no lease here: this is no maintenance root");
            self.close(from, 1);
            return;
        };
        let text = change(&mut leasing.lease, now);
        self.kernel.answer(from, &text);
        self.close(from, 0);
    }

    /// `hold`, perhaps with milliseconds.
    pub(super) fn hold(&mut self, from: Connection, time: Option<u64>) {
        self.about_lease(from, |lease, now| {
            lease.hold(now, time);
            match (lease.next_look(), time) {
                (None, _) => "the lease is off: there is nothing to hold".to_owned(),
                (_, Some(time)) => format!("the lease is held for {}, then it runs again", lasting(time)),
                (_, None) => "the lease is held until `levitate release` or the reboot".to_owned(),
            }
        });
        self.step_lease();
    }

    /// `release`.
    pub(super) fn release(&mut self, from: Connection) {
        self.about_lease(from, |lease, now| {
            let said =
                if lease.release(now) { "the lease is no longer held" } else { "the lease was not held" };
            said.to_owned()
        });
        self.step_lease();
    }

    /// `lease`: how it stands, as one line of JSON.
    pub(super) fn tell_lease(&mut self, from: Connection) {
        // Who asks is logged in, most likely.
        if self.shutdown.is_none() {
            self.step_lease();
        }
        self.about_lease(from, |lease, now| {
            serde_json::to_string(&lease.status(now)).unwrap_or_else(|error| error.to_string())
        });
    }
}
