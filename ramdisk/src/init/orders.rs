//! Orders from the control socket: services up, down, once, restarted, signalled; and who waits for what becomes of it.

use super::control::{Change, Order, Wait};
use super::kernel::{Connection, Kernel};
use super::machine::Init;
use super::snapshot;
use super::supervisor::{Failure, Input, News, Phase, Status, Target};
use crate::service::{DEFAULT_BUNDLE, Kind};

/// s6-rc's exit codes.
pub(super) const DONE: u8 = 0;
pub(super) const FAILED: u8 = 1;
pub(super) const TIMED_OUT: u8 = 2;
pub(super) const UNKNOWN: u8 = 3;

/// The most that wait: with [`MAX_ASKERS`](super::machine::MAX_ASKERS) fewer than the connections, so that others can ask.
pub(super) const MAX_WAITERS: usize = 32;

/// One who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    from: Connection,
    change: Change,
    /// Longruns and oneshots it is about, with what has to go before them.
    names: Vec<String>,
    /// When it gives up, in milliseconds.
    pub(super) by: Option<u64>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    OnItsWay,
    Done,
    Failed,
}

/// Whether everybody is where the change wants him; a service that is settled elsewhere will not come any more.
fn progress<'a>(
    change: Change,
    statuses: impl Iterator<Item = &'a Status>,
    is_oneshot: impl Fn(&str) -> bool,
) -> Progress {
    let mut all = Progress::Done;
    for status in statuses {
        let one = match (change, status.phase) {
            (Change::Up, Phase::Up) if status.wanted => Progress::Done,
            (Change::Up, Phase::Down) if !status.wanted => Progress::Failed,
            (Change::Down, Phase::Down) if !status.wanted => Progress::Done,
            // Somebody wants it up again.
            (Change::Down, _) if status.wanted => Progress::Failed,
            // Up, it has run.
            (Change::Once, Phase::Up) if is_oneshot(&status.name) => Progress::Done,
            (Change::Once, Phase::Down) if !status.wanted => match status.failure {
                None | Some(Failure::Ended(_) | Failure::Finished) => Progress::Done,
                Some(_) => Progress::Failed,
            },
            (Change::Restart | Change::Signal(_), _) => Progress::Done,
            _ => Progress::OnItsWay,
        };
        all = match (all, one) {
            (Progress::OnItsWay, _) | (_, Progress::OnItsWay) => Progress::OnItsWay,
            (Progress::Failed, _) | (_, Progress::Failed) => Progress::Failed,
            _ => Progress::Done,
        };
    }
    all
}

impl<K: Kernel> Init<K> {
    /// Does what is ordered, or says why not.
    pub(super) fn order(&mut self, from: Connection, order: Order) {
        if let Err(unknown) = self.supervisor.check_names(&order.names) {
            return self.refuse(from, &unknown.to_string(), UNKNOWN);
        }
        let starts = matches!(order.change, Change::Up | Change::Once);
        if starts && self.shutdown.is_some() {
            return self.refuse(from, "the system is about to end: nothing is started", FAILED);
        }
        if starts
            && order.by_controller
            && let Some(why) = self.without_controller(&order.names)
        {
            return self.refuse(from, &why, FAILED);
        }
        let waits_for = match order.change {
            Change::Up => self.supervisor.names_with_needs(&order.names),
            Change::Down => self.supervisor.names_with_needing(&order.names),
            _ => self.members(&order.names),
        };
        if order.wait != Wait::No && self.waiters.len() >= MAX_WAITERS {
            let why = format!("{MAX_WAITERS} orders are waited for already: nothing was done");
            return self.refuse(from, &why, FAILED);
        }
        // There before it begins: what begins is told.
        if order.wait != Wait::No {
            let by = match order.wait {
                Wait::For(ms) => Some(self.kernel.now().saturating_add(ms)),
                Wait::No | Wait::Forever => None,
            };
            self.waiters.push(Waiter { from, change: order.change, names: waits_for, by });
        }
        match order.change {
            Change::Up => self.supervise(&Input::Start(order.names)),
            Change::Down => self.supervise(&Input::Stop(order.names)),
            Change::Once => self.supervise(&Input::Once(order.names)),
            Change::Restart => self.supervise(&Input::Restart(order.names)),
            Change::Signal(signal) => {
                for status in self.statuses(&self.members(&order.names)) {
                    if let Some(pid) = status.pid {
                        self.kernel.signal(Target::Process(pid), signal);
                    }
                }
            }
        }
        if order.wait == Wait::No {
            self.close(from, DONE);
        }
    }

    /// Nobody waits there any more.
    pub(super) fn forget(&mut self, gone: Connection) {
        self.waiters.retain(|waiter| waiter.from != gone);
    }

    pub(super) fn refuse(&mut self, from: Connection, why: &str, code: u8) {
        self.kernel.answer(from, why);
        self.close(from, code);
    }

    fn members(&self, names: &[String]) -> Vec<String> {
        names.iter().flat_map(|name| self.set.members(name)).collect()
    }

    fn statuses(&self, names: &[String]) -> Vec<Status> {
        let all = self.supervisor.status();
        all.into_iter().filter(|status| names.contains(&status.name)).collect()
    }

    /// Why a controller may not start the first of them that it may not: nobody's service, or a controller that shall be
    /// down itself.
    fn without_controller(&self, names: &[String]) -> Option<String> {
        self.members(names).into_iter().find_map(|name| {
            match self.set.get(&name).and_then(|service| service.controlled_by.as_ref()) {
                None => Some(format!("{name} has no controlled-by: only people start it")),
                Some(controller) if !self.supervisor.is_wanted(controller) => {
                    Some(format!("the controller of {name} is going down"))
                }
                Some(_) => None,
            }
        })
    }

    /// Tells those who wait for it what became of a service.
    pub(super) fn tell_waiters(&mut self, service: &str, news: &News) {
        let concerned = self.waiters.iter().filter(|waiter| waiter.names.iter().any(|name| name == service));
        let concerned: Vec<Connection> = concerned.map(|waiter| waiter.from).collect();
        let level = if matches!(news, News::Failed(_) | News::Killed) { "warning" } else { "info" };
        for from in concerned {
            self.kernel.answer(from, &format!("{level} {service}: {news}"));
        }
    }

    /// Lets those go whose services have arrived, or whose time is over.
    pub(super) fn look_at_waiters(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let (now, all) = (self.kernel.now(), self.supervisor.status());
        for waiter in std::mem::take(&mut self.waiters) {
            let its = all.iter().filter(|status| waiter.names.contains(&status.name));
            let is_oneshot = |name: &str| {
                self.set.get(name).is_some_and(|service| matches!(service.kind, Kind::Oneshot { .. }))
            };
            let code = match progress(waiter.change, its, is_oneshot) {
                Progress::Done => DONE,
                Progress::Failed => FAILED,
                Progress::OnItsWay if waiter.by.is_some_and(|by| by <= now) => TIMED_OUT,
                Progress::OnItsWay => {
                    self.waiters.push(waiter);
                    continue;
                }
            };
            self.close(waiter.from, code);
        }
    }

    /// A JSON object per service and bundle, one a line.
    pub(super) fn snapshot_lines(&self) -> String {
        let (now, all) = (self.kernel.now(), self.supervisor.status());
        let at_boot = self.supervisor.names_with_needs(&[DEFAULT_BUNDLE.to_owned()]);
        let line = |service| {
            let status = all.iter().find(|status| status.name == service_name(service));
            // Strings, numbers and lists of strings: this cannot fail.
            serde_json::to_string(&snapshot::entry(&self.set, service, status, &at_boot, now)).ok()
        };
        self.set.iter().filter_map(line).collect::<Vec<_>>().join("\n")
    }
}

fn service_name(service: &crate::service::Service) -> &str {
    &service.name
}

#[cfg(test)]
mod tests {
    use super::super::connections::MAX_CONNECTIONS;
    use super::super::machine::MAX_ASKERS;
    use super::*;

    #[test]
    fn those_who_wait_leave_room_for_others_to_ask() {
        const { assert!(MAX_WAITERS + MAX_ASKERS <= MAX_CONNECTIONS - 16) }
    }
}
