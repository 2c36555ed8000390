//! PID 1's loop: events in, decisions asked for, actions done. It knows no system call; see [`super::kernel`].

use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::control::{Request, parse_request, status_line};
use super::kernel::{Connection, Event, Kernel, Launch};
use super::log::Log;
use super::orders::Waiter;
use super::shutdown::{Facts, Force, Limits, Shutdown, Step, Verb};
use super::supervisor::{Action, Input, News, Outcome, Supervisor, What};
pub use crate::service::DEFAULT_BUNDLE;
use crate::service::{Kind, Program, Service, ServiceSet};

mod boot;
mod leasing;

use self::boot::Boot;
pub use self::boot::FAILED_BOOT_MS;
use self::leasing::Leasing;

/// The most that are told what holds an end up; the oldest is let go for one more.
pub(super) const MAX_ASKERS: usize = 16;

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another turn.
    Again,
    /// The system was asked to end, and the kernel refused.
    NotEnded,
}

/// The init over a kernel.
#[derive(Debug)]
pub struct Init<K: Kernel> {
    pub(super) kernel: K,
    pub(super) set: ServiceSet,
    pub(super) supervisor: Supervisor,
    log: Log,
    limits: Limits,
    pub(super) shutdown: Option<Shutdown>,
    /// Who wants to know about the shutdown.
    askers: Vec<Connection>,
    /// Who waits for services to get where they were told to go.
    pub(super) waiters: Vec<Waiter>,
    /// True once a shutdown has told the services to stop.
    stopped: bool,
    boot: Boot,
    leasing: Option<Leasing>,
}

impl<K: Kernel> Init<K> {
    /// Everything down, and no lease.
    pub fn new(kernel: K, set: ServiceSet, log: Log, limits: Limits) -> Self {
        let supervisor = Supervisor::new(&set);
        Self {
            kernel,
            set,
            supervisor,
            log,
            limits,
            shutdown: None,
            askers: Vec::new(),
            waiters: Vec::new(),
            stopped: false,
            boot: Boot::Starting,
            leasing: None,
        }
    }

    /// The machine, for what is done before the first turn.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Writes a line of PID 1's own into the log.
    pub fn note(&mut self, text: &str) {
        let now = self.kernel.wall();
        self.log.note(text, now);
    }

    /// Writes it into the log, the kernel's log and on the console.
    pub fn announce(&mut self, text: &str) {
        self.note(text);
        self.kernel.report(text);
    }

    /// Waits for one event and does what follows from it.
    pub fn turn(&mut self) -> Turn {
        let deadline = self.deadline();
        match self.kernel.next(deadline) {
            Event::Exited { pid, outcome } => {
                if let Some(status) = self.supervisor.status().iter().find(|status| status.pid == Some(pid)) {
                    let now = self.kernel.wall();
                    self.log.flush(&status.name, now);
                }
                self.supervise(&Input::Exited { pid, outcome });
            }
            Event::Ready { pid } => self.supervise(&Input::Ready { pid }),
            Event::Output { service, bytes } => {
                let (now, wall) = (self.kernel.now(), self.kernel.wall());
                self.log.output(&service, &bytes, wall);
                if let Some(leasing) = &mut self.leasing {
                    leasing.heard(&service, now);
                }
            }
            Event::Asked(verb) => {
                self.note(&format!("{}: asked for by a signal", verb.word()));
                self.want_end(verb, Force::No);
            }
            Event::Request { from, line } => self.answer(from, &line),
            Event::Gone { from } => {
                self.forget(from);
                self.askers.retain(|asker| *asker != from);
            }
            Event::Tick => {}
        }
        // Deadlines are kept even when events never end.
        let now = self.kernel.now();
        if self.supervisor.next_deadline().is_some_and(|at| at <= now) {
            self.supervise(&Input::Tick);
        }
        self.look_at_boot();
        self.look_at_waiters();
        self.look_at_lease();
        self.go_on_ending()
    }

    fn deadline(&mut self) -> Option<u64> {
        let now = self.kernel.now();
        let boot = self.boot.deadline();
        let shutdown = self.shutdown.as_ref().map(|shutdown| shutdown.deadline(now));
        let watchdog = self.kernel.feed_watchdog();
        let waiter = self.waiters.iter().filter_map(|waiter| waiter.by).min();
        // A system that is ending does not look at its lease, and must not be woken for it.
        let lease = self.leasing.as_ref().filter(|_| self.shutdown.is_none()).and_then(Leasing::next_look);
        [self.supervisor.next_deadline(), boot, shutdown, watchdog, waiter, lease].into_iter().flatten().min()
    }

    /// Steps the supervisor, does what it asks, and tells it what became of that, until there is nothing more to do.
    pub(super) fn supervise(&mut self, input: &Input) {
        let now = self.kernel.now();
        let mut inputs = std::collections::VecDeque::from([input.clone()]);
        while let Some(input) = inputs.pop_front() {
            for action in self.supervisor.step(now, &input) {
                match action {
                    Action::Spawn { service, what } => inputs.push_back(self.spawn(service, what)),
                    Action::Signal { to, signal } => self.kernel.signal(to, signal),
                    Action::Report { service, news } => self.tell(&service, &news),
                }
            }
        }
    }

    fn tell(&mut self, service: &str, news: &News) {
        self.tell_waiters(service, news);
        let text = format!("{service}: {news}");
        if matches!(news, News::Failed(_)) { self.announce(&text) } else { self.note(&text) }
    }

    fn spawn(&mut self, service: String, what: What) -> Input {
        let Some(launch) = self.set.get(&service).and_then(|service| launch(service, what)) else {
            return Input::StartFailed { service, problem: super::supervisor::StartProblem::Permanent };
        };
        let spawned = self.kernel.spawn(&launch);
        // A start takes a while on a busy board, and there may be hundreds in one turn.
        self.kernel.feed_watchdog();
        match spawned {
            Ok(pid) => Input::Started { service, pid },
            Err(error) => {
                self.note(&format!("{service}: {}", error.text));
                Input::StartFailed { service, problem: error.problem }
            }
        }
    }

    fn answer(&mut self, from: Connection, line: &str) {
        match parse_request(line) {
            Ok(Request::Status) => {
                let now = self.kernel.now();
                for status in self.supervisor.status() {
                    self.kernel.answer(from, &status_line(&status, now));
                }
                self.close(from, 0);
            }
            Ok(Request::Services) => {
                let lines = self.snapshot_lines();
                self.kernel.answer(from, &lines);
                self.close(from, 0);
            }
            Ok(Request::Order(order)) => self.order(from, order),
            Ok(Request::Lease) => self.tell_lease(from),
            Ok(Request::Hold(time)) => {
                self.note(&format!("{line}: asked for by a command"));
                self.hold(from, time);
            }
            Ok(Request::Release) => {
                self.note("release: asked for by a command");
                self.release(from);
            }
            Ok(Request::End(verb, force)) => {
                self.note(&format!("{line}: asked for by a command"));
                self.add_asker(from);
                self.want_end(verb, force);
            }
            Err(error) => {
                self.kernel.answer(from, &error.to_string());
                self.close(from, 2);
            }
        }
    }

    pub(super) fn close(&mut self, connection: Connection, code: u8) {
        self.kernel.answer(connection, &format!("exit {code}"));
        self.kernel.hang_up(connection);
    }

    fn want_end(&mut self, verb: Verb, force: Force) {
        match &mut self.shutdown {
            Some(shutdown) => {
                shutdown.again(verb, force);
                if shutdown.has_begun() {
                    self.release_askers(0);
                }
            }
            None => self.shutdown = Some(Shutdown::new(verb, force, self.limits)),
        }
    }

    fn add_asker(&mut self, from: Connection) {
        if self.askers.len() >= MAX_ASKERS {
            let oldest = self.askers.remove(0);
            self.refuse(oldest, "too many ask for the end: this one is let go, what it asked for stays", 1);
        }
        self.askers.push(from);
    }

    fn release_askers(&mut self, code: u8) {
        for asker in std::mem::take(&mut self.askers) {
            self.close(asker, code);
        }
    }

    fn tell_askers(&mut self, line: &str) {
        for asker in self.askers.clone() {
            self.kernel.answer(asker, line);
        }
    }

    fn go_on_ending(&mut self) -> Turn {
        loop {
            let Some(mut shutdown) = self.shutdown.take() else { return Turn::Again };
            let facts = Facts {
                gate: self.kernel.flash_gate(),
                // after it: a record that is put there in between is none that was found
                flash_is_as_found: self.kernel.flash_record_was_found(),
                services_are_down: self.supervisor.is_all_down(),
                is_alone: self.kernel.is_alone(),
            };
            let steps = shutdown.step(self.kernel.now(), &facts);
            self.shutdown = Some(shutdown);
            if steps.is_empty() {
                return Turn::Again;
            }
            for step in steps {
                if self.end_step(step) == Turn::NotEnded {
                    return Turn::NotEnded;
                }
            }
        }
    }

    fn end_step(&mut self, step: Step) -> Turn {
        match step {
            Step::Tell(line) => {
                self.announce(&line);
                self.tell_askers(&line);
            }
            Step::Refuse(lines) => {
                for line in lines {
                    self.announce(&line);
                    self.tell_askers(&line);
                }
                self.release_askers(1);
                self.shutdown = None;
                if std::mem::take(&mut self.stopped) {
                    self.start_again();
                }
                self.stay_if_given_up();
            }
            Step::StopServices => {
                let verb = self.shutdown.as_ref().map_or(Verb::Reboot, Shutdown::verb);
                self.announce(&format!("{}: stopping services", verb.word()));
                self.release_askers(0);
                self.stopped = true;
                self.supervise(&Input::StopAll);
            }
            Step::TermAll => self.kernel.signal_all(Signal::SIGTERM),
            Step::KillAll => {
                self.note("some processes did not end in time and are killed");
                self.kernel.signal_all(Signal::SIGKILL);
            }
            Step::Finish(verb) => {
                self.announce(verb.word());
                if verb == Verb::Reboot
                    && let Some(why) = self.kernel.hand_over()
                {
                    self.announce(&why);
                }
                self.kernel.settle_disks();
                let why = self.kernel.end(verb);
                self.announce(&why);
                return Turn::NotEnded;
            }
        }
        Turn::Again
    }
}

/// What to execute for a program of a service. A longrun runs in its source directory, as under s6; a oneshot in `/`.
fn launch(service: &Service, what: What) -> Option<Launch> {
    let (program, notification_fd) = match (&service.kind, what) {
        (Kind::Longrun { run, notification_fd, .. }, What::Run) => (run, *notification_fd),
        (Kind::Longrun { finish: Some(finish), .. }, What::Finish(_)) => (finish, None),
        (Kind::Oneshot { up: Some(up), .. }, What::Up) => (up, None),
        (Kind::Oneshot { down: Some(down), .. }, What::Down) => (down, None),
        _ => return None,
    };
    let mut argv = match program {
        Program::File(path) => vec![path.clone().into_os_string()],
        Program::Words(words) => words.clone(),
        Program::Script(text) => vec!["/bin/sh".into(), "-c".into(), text.clone().into()],
    };
    if let What::Finish(outcome) = what {
        // s6-supervise's arguments: the exit code, or 256 and the signal; then the name.
        let (code, signal) = match outcome {
            Outcome::Code(code) => (code, 0),
            Outcome::Signal(signal) => (256, signal),
        };
        argv.extend([code.to_string().into(), signal.to_string().into(), service.name.clone().into()]);
    }
    let dir = match (&service.kind, program) {
        (Kind::Longrun { .. }, Program::File(path)) => path.parent().map(PathBuf::from),
        _ => None,
    };
    let pipeline = &service.pipeline;
    Some(Launch {
        service: service.name.clone(),
        argv,
        dir: dir.unwrap_or_else(|| "/".into()),
        notification_fd,
        reads_pipe: what == What::Run && !pipeline.consumer_for.is_empty(),
        writes_pipe_of: pipeline.producer_for.clone().filter(|_| what == What::Run),
    })
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
