//! A scripted world for the tests: processes that exist as numbers, a clock that moves when it is told to.

use super::*;
use crate::service::{Kind, Program, Service};

/// The supervisor with its world.
pub(crate) struct World {
    pub(crate) supervisor: Supervisor,
    pub(crate) now: u64,
    next_pid: Pid,
    /// Asked for and not answered.
    pub(crate) asked: Vec<(String, What)>,
    /// Alive: number, service, program.
    pub(crate) alive: Vec<(Pid, String, What)>,
    /// Got KILL.
    pub(crate) killed: Vec<Pid>,
    /// What happened since it was last asked, one line each.
    told: Vec<String>,
}

impl World {
    pub(crate) fn new(services: impl IntoIterator<Item = Service>) -> Self {
        let set = ServiceSet::new(services).unwrap();
        set.check().unwrap();
        Self {
            supervisor: Supervisor::new(&set),
            now: 0,
            next_pid: 100,
            asked: Vec::new(),
            alive: Vec::new(),
            killed: Vec::new(),
            told: Vec::new(),
        }
    }

    /// One input, without answering what it asks for.
    pub(crate) fn input(&mut self, input: &Input) {
        if let Input::Exited { pid, .. } = input {
            self.alive.retain(|(own, ..)| own != pid);
        }
        for action in self.supervisor.step(self.now, input) {
            match action {
                Action::Spawn { service, what } => {
                    self.told.push(format!("{} {service}", word(what)));
                    self.asked.push((service, what));
                }
                Action::Signal { signal: Signal::SIGCONT, .. } => {}
                Action::Signal { to, signal } => {
                    let (pid, whom) = match to {
                        Target::Process(pid) => (pid, ""),
                        Target::Group(pid) => (pid, "group of "),
                    };
                    let (_, service, _) =
                        self.alive.iter().find(|(own, ..)| *own == pid).expect("a signal to nobody");
                    if signal == Signal::SIGKILL {
                        self.killed.push(pid);
                    }
                    self.told.push(format!("{} to {whom}{service}", signal.as_str()));
                }
                Action::Report { service, news } => self.told.push(format!("{service}: {news}")),
            }
        }
    }

    /// One input, then every process that is asked for starts.
    fn act(&mut self, input: &Input) {
        self.input(input);
        while !self.asked.is_empty() {
            let (service, what) = self.asked.remove(0);
            self.next_pid += 1;
            self.alive.push((self.next_pid, service.clone(), what));
            self.input(&Input::Started { service, pid: self.next_pid });
        }
    }

    pub(crate) fn fail_start(&mut self, service: &str, problem: StartProblem) {
        self.asked.retain(|(asked, _)| asked != service);
        self.input(&Input::StartFailed { service: service.to_owned(), problem });
    }

    pub(crate) fn start(&mut self, name: &str) {
        self.act(&Input::Start(vec![name.to_owned()]));
    }

    pub(crate) fn once(&mut self, name: &str) {
        self.act(&Input::Once(vec![name.to_owned()]));
    }

    pub(crate) fn restart(&mut self, name: &str) {
        self.act(&Input::Restart(vec![name.to_owned()]));
    }

    pub(crate) fn stop(&mut self, name: &str) {
        self.act(&Input::Stop(vec![name.to_owned()]));
    }

    pub(crate) fn stop_all(&mut self) {
        self.act(&Input::StopAll);
    }

    pub(crate) fn pid(&self, service: &str) -> Pid {
        self.alive.iter().find(|(_, own, _)| own == service).expect("it does not run").0
    }

    pub(crate) fn ready(&mut self, service: &str) {
        let pid = self.pid(service);
        self.act(&Input::Ready { pid });
    }

    pub(crate) fn exit(&mut self, service: &str, outcome: Outcome) {
        let pid = self.pid(service);
        self.act(&Input::Exited { pid, outcome });
    }

    /// Lets the clock run to `now`, stopping at each deadline on the way.
    pub(crate) fn wait_until(&mut self, now: u64) {
        while let Some(deadline) = self.supervisor.next_deadline().filter(|deadline| *deadline <= now) {
            assert!(deadline >= self.now, "a deadline in the past");
            self.now = deadline;
            self.act(&Input::Tick);
        }
        self.now = now;
    }

    /// What happened since this was last asked.
    pub(crate) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    pub(crate) fn phase(&self, service: &str) -> Phase {
        self.supervisor.status().iter().find(|status| status.name == service).unwrap().phase
    }

    pub(crate) fn failure(&self, service: &str) -> Option<Failure> {
        self.supervisor.status().into_iter().find(|status| status.name == service).unwrap().failure
    }

    /// Every story ends with nothing forgotten: no process, no timer.
    pub(crate) fn assert_over(&mut self) {
        assert_eq!(self.alive, [], "processes are left");
        assert_eq!(self.supervisor.next_deadline(), None, "a timer is left");
        assert!(self.supervisor.is_settled());
    }
}

fn word(what: What) -> String {
    match what {
        What::Run => "run".into(),
        What::Up => "up".into(),
        What::Down => "down".into(),
        What::Finish(outcome) => format!("finish ({outcome})"),
    }
}

pub(crate) fn longrun(name: &str) -> Service {
    Service::longrun(name, "/s", Program::Script(String::new()))
}

pub(crate) fn oneshot(name: &str) -> Service {
    let script = Some(Program::Script(String::new()));
    Service::oneshot(name, "/s", script.clone(), script)
}

pub(crate) fn bundle<const N: usize>(name: &str, contents: [&str; N]) -> Service {
    Service::bundle(name, "/s", contents)
}

pub(crate) fn with_finish(mut service: Service) -> Service {
    if let Kind::Longrun { finish, .. } = &mut service.kind {
        *finish = Some(Program::Script(String::new()));
    }
    service
}
