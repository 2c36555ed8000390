//! Random, but valid, sequences of inputs keep the invariants.

use proptest::prelude::*;

use super::double::{World, longrun, oneshot, with_finish};
use super::*;
use crate::service::Service;

const COUNT: usize = 6;

fn name(n: usize) -> String {
    format!("s{n}")
}

/// Services whose dependencies have smaller numbers, so that there is no cycle.
fn services() -> impl Strategy<Value = Vec<Service>> {
    let one = (0..4u8, any::<[bool; COUNT]>(), 0..3u64, 0..3u64);
    prop::collection::vec(one, COUNT).prop_map(|all| {
        let build = |(n, (kind, needs, up, down)): (usize, (u8, [bool; COUNT], u64, u64))| {
            let mut service = match kind {
                0 => longrun(&name(n)),
                1 => longrun(&name(n)).notifying(3),
                2 => with_finish(longrun(&name(n))),
                _ => oneshot(&name(n)),
            };
            for need in (0..n).filter(|need| needs[*need]) {
                service = service.after(name(need));
            }
            service.timeout_up = Timeout::from_ms(up * 700);
            service.timeout_down = Timeout::After(down * 700 + 100);
            service
        };
        all.into_iter().enumerate().map(build).collect()
    })
}

#[derive(Clone, Debug)]
enum Random {
    Start(usize),
    Once(usize),
    Restart(usize),
    Stop(usize),
    StopAll,
    /// Answers the n-th process that is asked for.
    Started(usize),
    StartFailed(usize, bool),
    /// Of the n-th process.
    Ready(usize),
    Exit(usize, i32),
    Wait(u64),
}

fn random() -> impl Strategy<Value = Random> {
    prop_oneof![
        2 => (0..COUNT).prop_map(Random::Start),
        1 => (0..COUNT).prop_map(Random::Once),
        1 => (0..COUNT).prop_map(Random::Restart),
        1 => (0..COUNT).prop_map(Random::Stop),
        1 => Just(Random::StopAll),
        6 => (0..COUNT).prop_map(Random::Started),
        1 => (0..COUNT, any::<bool>()).prop_map(|(n, permanent)| Random::StartFailed(n, permanent)),
        3 => (0..COUNT).prop_map(Random::Ready),
        3 => (0..COUNT, prop_oneof![Just(0), Just(1), Just(125)]).prop_map(|(n, code)| Random::Exit(n, code)),
        4 => (0..1_500u64).prop_map(Random::Wait),
    ]
}

/// How everything is brought to its end.
#[derive(Clone, Debug)]
enum Drain {
    All,
    /// One after the other, beginning with this one.
    Each(usize),
    /// Before the end each longrun is told to restart again and again, so often.
    Restarts(usize),
}

fn drain() -> impl Strategy<Value = Drain> {
    prop_oneof![Just(Drain::All), (0..COUNT).prop_map(Drain::Each), (1..40usize).prop_map(Drain::Restarts),]
}

struct Run {
    w: World,
    needs: Vec<(String, Vec<String>)>,
    next_pid: Pid,
    restarted: Vec<Pid>,
}

impl Run {
    fn new(services: Vec<Service>) -> Self {
        let needs = services
            .iter()
            .map(|service| (service.name.clone(), service.dependencies.iter().cloned().collect()))
            .collect();
        Self { w: World::new(services), needs, next_pid: 1_000, restarted: Vec::new() }
    }

    fn started(&mut self, n: usize) {
        if n < self.w.asked.len() {
            let (service, what) = self.w.asked.remove(n);
            self.next_pid += 1;
            self.w.alive.push((self.next_pid, service.clone(), what));
            self.w.input(&Input::Started { service, pid: self.next_pid });
        }
    }

    fn exit(&mut self, n: usize, outcome: Outcome) {
        if let Some((pid, ..)) = self.w.alive.get(n) {
            let pid = *pid;
            self.w.input(&Input::Exited { pid, outcome });
        }
    }

    fn take(&mut self, random: &Random) {
        match random {
            Random::Start(n) => self.w.input(&Input::Start(vec![name(*n)])),
            Random::Once(n) => self.w.input(&Input::Once(vec![name(*n)])),
            Random::Restart(n) => self.w.input(&Input::Restart(vec![name(*n)])),
            Random::Stop(n) => self.w.input(&Input::Stop(vec![name(*n)])),
            Random::StopAll => self.w.input(&Input::StopAll),
            Random::Started(n) => self.started(*n),
            Random::StartFailed(n, permanent) => {
                if let Some((service, _)) = self.w.asked.get(*n).cloned() {
                    let problem = if *permanent { StartProblem::Permanent } else { StartProblem::Passing };
                    self.w.fail_start(&service, problem);
                }
            }
            Random::Ready(n) => {
                if let Some((pid, ..)) = self.w.alive.get(*n) {
                    let pid = *pid;
                    self.w.input(&Input::Ready { pid });
                }
            }
            Random::Exit(n, code) => self.exit(*n, Outcome::Code(*code)),
            Random::Wait(ms) => {
                self.w.now += ms;
                self.w.input(&Input::Tick);
            }
        }
        self.check();
    }

    /// The kernel ends what got KILL.
    fn bury(&mut self) {
        for pid in std::mem::take(&mut self.w.killed) {
            if let Some(at) = self.w.alive.iter().position(|(own, ..)| *own == pid) {
                self.exit(at, Outcome::Signal(9));
            }
        }
        self.check();
    }

    /// Everybody is told to restart, again and again: the first time counts.
    fn restart_all(&mut self, times: usize) {
        for n in 0..=3 * times {
            if n % 3 == 0 {
                let all: Vec<String> = self.needs.iter().map(|(name, _)| name.clone()).collect();
                self.w.input(&Input::Restart(all));
                self.w.input(&Input::Tick);
            }
            self.bury();
            let first = self.w.alive.iter().filter(|(_, _, what)| *what == What::Run).map(|(pid, ..)| *pid);
            let first: Vec<Pid> = first.filter(|_| n == 0).collect();
            self.restarted.extend(first);
            self.w.now += 50;
            self.w.input(&Input::Tick);
        }
        // The longest limit of a stop is 1.5 s.
        if 3 * times * 50 > 1_500 {
            self.bury();
            let left: Vec<&Pid> = self
                .restarted
                .iter()
                .filter(|pid| self.w.alive.iter().any(|(own, ..)| own == *pid))
                .collect();
            assert_eq!(left, [&0; 0], "told to restart, and still alive");
        }
    }

    fn check(&self) {
        for (service, needs) in &self.needs {
            let processes = self.w.alive.iter().filter(|(_, own, _)| own == service).count()
                + self.w.asked.iter().filter(|(own, _)| own == service).count();
            assert!(processes <= 1, "{service} has {processes} processes");
            if self.w.phase(service) != Phase::Down {
                for need in needs {
                    assert_eq!(self.w.phase(need), Phase::Up, "{service} needs {need}");
                }
            }
        }
        // A deadline is never in the past: the loop would spin.
        assert!(self.w.supervisor.next_deadline().is_none_or(|at| at > self.w.now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_runs_twice_nothing_is_up_without_its_needs_and_every_stop_ends(
        services in services(),
        story in prop::collection::vec(random(), 0..60),
        drain in drain(),
    ) {
        let mut run = Run::new(services);
        for random in &story {
            run.take(random);
        }
        // The kernel starts what it was asked to and ends what gets KILL; nobody ends by himself.
        match drain {
            Drain::All => run.w.input(&Input::StopAll),
            Drain::Each(first) => {
                for n in 0..COUNT {
                    run.w.input(&Input::Stop(vec![name((first + n) % COUNT)]));
                    run.check();
                }
            }
            Drain::Restarts(times) => {
                run.restart_all(times);
                run.w.input(&Input::StopAll);
            }
        }
        for _ in 0..100 {
            while !run.w.asked.is_empty() {
                run.started(0);
                run.check();
            }
            if run.w.supervisor.is_all_down() {
                break;
            }
            if let Some(at) = run.w.supervisor.next_deadline() {
                run.w.now = at;
                run.w.input(&Input::Tick);
            }
            run.bury();
        }
        prop_assert!(run.w.supervisor.is_all_down());
        run.w.assert_over();
    }
}
