//! The rules: what an input changes, and what then follows by itself.

use nix::sys::signal::Signal;

use super::{
    Action, FINISH_LIMIT_MS, FINISH_PERMANENT, Failure, Input, News, ONESHOT_TRIES, Outcome, Phase, Pid,
    Process, RESTART_INTERVAL_MS, Spec, StartProblem, Supervisor, Target, Unit, Want, What,
};
use crate::service::Timeout;

impl Unit {
    fn enter(&mut self, phase: Phase, now: u64) {
        self.phase = phase;
        self.since = now;
    }

    /// The earliest next start of a longrun's process; a oneshot has no such limit.
    fn may_start_at(&self) -> u64 {
        match (&self.spec, self.last_start) {
            (Spec::Longrun { .. }, Some(last)) => last.saturating_add(RESTART_INTERVAL_MS),
            _ => 0,
        }
    }

    fn retry_is_due(&self, now: u64) -> bool {
        self.process == Process::None && self.retry_at.is_some_and(|at| at <= now)
    }

    fn report(&self, news: News) -> Action {
        Action::Report { service: self.name.clone(), news }
    }

    fn spawn(&mut self, now: u64, what: What) -> Action {
        match what {
            What::Run => self.last_start = Some(now),
            What::Up => self.tries = self.tries.saturating_add(1),
            What::Finish(_) | What::Down => {}
        }
        self.retry_at = None;
        self.process = Process::Asked(what);
        Action::Spawn { service: self.name.clone(), what }
    }

    fn target(&self, pid: Pid) -> Target {
        match self.spec {
            Spec::Longrun { .. } => Target::Process(pid),
            Spec::Oneshot { .. } => Target::Group(pid),
        }
    }

    /// What asks the living process to end, and when it gets KILL.
    fn terminate(&mut self, now: u64, actions: &mut Vec<Action>) {
        let Process::Alive { pid, what } = self.process else { return };
        let (signal, timeout_kill) = match (&self.spec, what) {
            // A finish program is on its way out already and has a limit of its own.
            (_, What::Finish(_)) => return,
            (Spec::Longrun { down_signal, timeout_kill, .. }, _) => (*down_signal, *timeout_kill),
            (Spec::Oneshot { .. }, _) => (Signal::SIGTERM, Timeout::Never),
        };
        let to = self.target(pid);
        actions.push(Action::Signal { to, signal });
        // A stopped process cannot act on the signal.
        actions.push(Action::Signal { to, signal: Signal::SIGCONT });
        let limits = [timeout_kill, self.timeout_down];
        // Asked before: the first time counts, or one who asks again and again would keep it alive.
        self.kill_at = limits.iter().filter_map(|limit| limit.ends(now)).chain(self.kill_at).min();
    }
}

impl Supervisor {
    fn unit_of(&mut self, pid: Pid) -> Option<(usize, &mut Unit)> {
        self.units
            .iter_mut()
            .enumerate()
            .find(|(_, unit)| matches!(unit.process, Process::Alive { pid: own, .. } if own == pid))
    }

    pub(super) fn take(&mut self, now: u64, input: &Input, actions: &mut Vec<Action>) {
        match input {
            Input::Start(names) | Input::Once(names) => {
                for id in self.with_needs(names) {
                    if let Some(unit) = self.units.get_mut(id).filter(|unit| unit.want == Want::Down) {
                        unit.want = Want::Up;
                        unit.failure = None;
                        unit.finished = false;
                        unit.once = false;
                    }
                }
                for id in self.named(names) {
                    if let Some(unit) = self.units.get_mut(id) {
                        unit.once = matches!(input, Input::Once(_));
                    }
                }
            }
            Input::Restart(names) => {
                for id in self.named(names) {
                    if let Some(unit) = self.units.get_mut(id).filter(|unit| {
                        matches!(unit.spec, Spec::Longrun { .. }) && unit.phase != Phase::Stopping
                    }) {
                        unit.terminate(now, actions);
                    }
                }
            }
            Input::Stop(names) => {
                let ids = self.with_needing(names);
                for id in ids {
                    if let Some(unit) = self.units.get_mut(id) {
                        unit.want = Want::Down;
                        // It shall be down now, which it perhaps is already: that is no failure any more.
                        unit.failure = None;
                    }
                }
            }
            Input::StopAll => self.units.iter_mut().for_each(|unit| unit.want = Want::Down),
            Input::Started { service, pid } => self.started(now, service, *pid, actions),
            Input::StartFailed { service, problem } => self.start_failed(now, service, *problem, actions),
            Input::Ready { pid } => {
                if let Some((_, unit)) = self.unit_of(*pid)
                    && unit.phase == Phase::Starting
                    && matches!(unit.process, Process::Alive { what: What::Run, .. })
                {
                    unit.enter(Phase::Up, now);
                    unit.up_by = None;
                    actions.push(unit.report(News::Up));
                }
            }
            Input::Exited { pid, outcome } => self.exited(now, *pid, *outcome, actions),
            Input::Tick => {}
        }
    }

    fn asked(&mut self, service: &str) -> Option<(usize, What)> {
        self.units.iter().enumerate().find_map(|(id, unit)| match unit.process {
            Process::Asked(what) if unit.name == service => Some((id, what)),
            _ => None,
        })
    }

    fn started(&mut self, now: u64, service: &str, pid: Pid, actions: &mut Vec<Action>) {
        let Some((id, what)) = self.asked(service) else { return };
        let Some(unit) = self.units.get_mut(id) else { return };
        unit.process = Process::Alive { pid, what };
        match (unit.phase, what) {
            (_, What::Finish(_)) => unit.kill_at = Some(now.saturating_add(FINISH_LIMIT_MS)),
            (Phase::Stopping, What::Down) => unit.kill_at = unit.timeout_down.ends(now),
            (Phase::Stopping, _) => unit.terminate(now, actions),
            (Phase::Starting, What::Run) if matches!(unit.spec, Spec::Longrun { notifies: false, .. }) => {
                unit.enter(Phase::Up, now);
                unit.up_by = None;
                actions.push(unit.report(News::Up));
            }
            _ => {}
        }
    }

    fn start_failed(&mut self, now: u64, service: &str, problem: StartProblem, actions: &mut Vec<Action>) {
        let Some((id, what)) = self.asked(service) else { return };
        let Some(unit) = self.units.get_mut(id) else { return };
        unit.process = Process::None;
        match (unit.phase, what, problem) {
            (Phase::Starting, What::Up, StartProblem::Passing) if unit.tries < ONESHOT_TRIES => {
                unit.retry_at = Some(now.saturating_add(RESTART_INTERVAL_MS));
            }
            (Phase::Starting, What::Run, StartProblem::Permanent) | (Phase::Starting, What::Up, _) => {
                self.fail(now, id, Failure::CannotStart, actions);
            }
            // A longrun is tried again by the rules below; a finish or down that cannot run has nothing to do.
            _ => {}
        }
    }

    fn exited(&mut self, now: u64, pid: Pid, outcome: Outcome, actions: &mut Vec<Action>) {
        let Some((id, unit)) = self.unit_of(pid) else { return };
        let Process::Alive { what, .. } = unit.process else { return };
        unit.process = Process::None;
        unit.kill_at = None;
        match what {
            What::Run => {
                unit.last = Some(outcome);
                if matches!(unit.spec, Spec::Longrun { has_finish: true, .. }) {
                    actions.push(unit.spawn(now, What::Finish(outcome)));
                }
                if unit.phase != Phase::Stopping {
                    if unit.once {
                        unit.finished = true;
                        self.fail(now, id, Failure::Ended(outcome), actions);
                    } else {
                        actions.push(unit.report(News::Died(outcome)));
                    }
                }
            }
            What::Finish(_) => {
                if outcome == Outcome::Code(FINISH_PERMANENT)
                    && unit.phase != Phase::Stopping
                    && !unit.finished
                {
                    unit.finished = true;
                    self.fail(now, id, Failure::Finished, actions);
                }
            }
            What::Up => match unit.phase {
                Phase::Starting if outcome == Outcome::Code(0) => {
                    unit.enter(Phase::Up, now);
                    unit.up_by = None;
                    actions.push(unit.report(News::Up));
                }
                Phase::Starting => self.fail(now, id, Failure::Exit(outcome), actions),
                _ => {}
            },
            // Whatever `down` says, the service is down: a stop that could fail would never end.
            What::Down => {}
        }
    }

    /// Marks a unit down, and all that waits for it.
    fn fail(&mut self, now: u64, id: usize, failure: Failure, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(id) else { return };
        let name = unit.name.clone();
        unit.want = Want::Down;
        unit.up_by = None;
        unit.failure = Some(failure.clone());
        actions.push(unit.report(News::Failed(failure)));
        for other in self.with_needing(std::slice::from_ref(&name)) {
            if other == id {
                continue;
            }
            if let Some(unit) = self.units.get_mut(other).filter(|unit| unit.want == Want::Up) {
                unit.want = Want::Down;
                unit.failure = Some(Failure::Needs(name.clone()));
                actions.push(unit.report(News::Failed(Failure::Needs(name.clone()))));
            }
        }
        if let Some(unit) = self.units.get_mut(id).filter(|unit| unit.phase == Phase::Starting) {
            unit.enter(Phase::Stopping, now);
            unit.terminate(now, actions);
        }
    }

    /// Applies the rules until nothing changes any more.
    pub(super) fn settle(&mut self, now: u64, actions: &mut Vec<Action>) {
        loop {
            let mut changed = false;
            for id in 0..self.units.len() {
                changed |= self.apply(id, now, actions);
            }
            if !changed {
                return;
            }
        }
    }

    /// Applies the first rule that fits the unit; true if one did.
    fn apply(&mut self, id: usize, now: u64, actions: &mut Vec<Action>) -> bool {
        let Some(unit) = self.units.get(id) else { return false };
        let needs_are_up = self.needs_are_up(unit);
        let needing_are_down = self.needing_are_down(unit);
        let Some(unit) = self.units.get_mut(id) else { return false };
        if let (Some(at), Process::Alive { pid, .. }) = (unit.kill_at, unit.process)
            && at <= now
        {
            unit.kill_at = None;
            let to = unit.target(pid);
            actions.push(unit.report(News::Killed));
            actions.push(Action::Signal { to, signal: Signal::SIGKILL });
            return true;
        }
        let restart_is_due = unit.process == Process::None && !unit.finished && now >= unit.may_start_at();
        let is_longrun = matches!(unit.spec, Spec::Longrun { .. });
        match (unit.phase, unit.want) {
            (Phase::Down, Want::Up) if needs_are_up && now >= unit.may_start_at() => {
                unit.up_by = unit.timeout_up.ends(now);
                unit.tries = 0;
                unit.enter(Phase::Starting, now);
                match unit.spec {
                    Spec::Longrun { .. } => actions.push(unit.spawn(now, What::Run)),
                    Spec::Oneshot { has_up: true, .. } => actions.push(unit.spawn(now, What::Up)),
                    Spec::Oneshot { has_up: false, .. } => {
                        unit.up_by = None;
                        unit.enter(Phase::Up, now);
                        actions.push(unit.report(News::Up));
                    }
                }
            }
            (Phase::Starting, Want::Down) => {
                unit.up_by = None;
                unit.enter(Phase::Stopping, now);
                unit.terminate(now, actions);
            }
            (Phase::Starting, Want::Up) if unit.up_by.is_some_and(|at| at <= now) => {
                self.fail(now, id, Failure::TimedOut, actions);
            }
            (Phase::Starting, _) if unit.retry_is_due(now) => actions.push(unit.spawn(now, What::Up)),
            (Phase::Up, Want::Down) if needing_are_down => {
                unit.enter(Phase::Stopping, now);
                match unit.spec {
                    Spec::Oneshot { has_down: true, .. } => actions.push(unit.spawn(now, What::Down)),
                    _ => unit.terminate(now, actions),
                }
            }
            // A process that is still needed is started again even if it shall go down later.
            (Phase::Starting | Phase::Up, _) if is_longrun && restart_is_due => {
                unit.restarts = unit.restarts.saturating_add(1);
                actions.push(unit.spawn(now, What::Run));
            }
            (Phase::Stopping, _) if unit.process == Process::None => {
                unit.kill_at = None;
                unit.enter(Phase::Down, now);
                if unit.failure.is_none() {
                    actions.push(unit.report(News::Down));
                }
            }
            _ => return false,
        }
        true
    }

    /// When the next rule of this unit becomes due by time alone.
    pub(super) fn unit_deadline(&self, unit: &Unit) -> Option<u64> {
        let kill = unit.kill_at.filter(|_| matches!(unit.process, Process::Alive { .. }));
        let up = unit.up_by.filter(|_| unit.phase == Phase::Starting);
        let is_longrun = matches!(unit.spec, Spec::Longrun { .. });
        let start = match (unit.phase, unit.want) {
            (Phase::Down, Want::Up) if self.needs_are_up(unit) => Some(unit.may_start_at()),
            (Phase::Starting, _) if !is_longrun => unit.retry_at,
            (Phase::Starting | Phase::Up, _)
                if is_longrun && unit.process == Process::None && !unit.finished =>
            {
                Some(unit.may_start_at())
            }
            _ => None,
        };
        [kill, up, start].into_iter().flatten().min()
    }
}
