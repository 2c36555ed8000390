//! Which watchdogs have to be taken over, and when: decided from facts that are read before anybody is killed.
//!
//! Opening a watchdog starts it. One that nobody had running is therefore left alone; one that somebody fed is opened as
//! soon as that process is gone, because its death leaves the watchdog running. Every one that runs is taken: whichever
//! is not fed bites.

/// The timeout that is asked for at least, in seconds: one erase of a large block on a slow chip must fit several times.
pub const LONG_ENOUGH_S: u32 = 60;

/// What /proc and sysfs say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchdogFacts {
    /// Descriptors of this process that are watchdogs: PID 1 fed them itself.
    pub own: Vec<(i32, String)>,
    /// Processes that hold one: process id and device.
    pub holders: Vec<(i32, String)>,
    /// Devices whose sysfs state is `active`.
    pub active: Vec<String>,
    /// Devices of which nobody knows whether they run: the kernel has no such file in sysfs.
    pub unknown: Vec<String>,
    /// Devices whose sysfs state is anything else.
    pub stopped: Vec<String>,
}

/// What to do about one watchdog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// PID 1 holds it: keep the descriptor.
    Adopt {
        /// The descriptor.
        fd: i32,
        /// Its device.
        device: String,
    },
    /// It runs and nobody feeds it: every moment counts.
    TakeNow {
        /// Its device.
        device: String,
    },
    /// Somebody feeds it: take it as soon as they are gone.
    TakeWhenFree(Pending),
}

/// A watchdog that is still held by somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its device.
    pub device: String,
    /// Who has to be gone.
    pub holders: Vec<i32>,
}

impl Plan {
    /// The device.
    #[must_use]
    pub fn device(&self) -> &str {
        match self {
            Self::Adopt { device, .. } | Self::TakeNow { device } => device,
            Self::TakeWhenFree(pending) => &pending.device,
        }
    }
}

/// Whether both names are of one watchdog: the first has a second name without a number, which dates from the time when
/// there was only one.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    let full = |name: &str| match name.strip_suffix("/watchdog") {
        Some(directory) => format!("{directory}/watchdog0"),
        None => name.to_owned(),
    };
    full(one) == full(other)
}

/// Decides it, for each that runs; none: touch none. `left` are those that the old system left running, as far as is
/// known otherwise; sysfs may know better.
#[must_use]
pub fn plan(facts: &WatchdogFacts, left: &[String]) -> Vec<Plan> {
    let mut plans: Vec<Plan> = Vec::new();
    let is_new = |plans: &[Plan], device: &str| !plans.iter().any(|plan| same(plan.device(), device));
    for (fd, device) in &facts.own {
        if is_new(&plans, device) {
            plans.push(Plan::Adopt { fd: *fd, device: device.clone() });
        }
    }
    for (_, device) in &facts.holders {
        if is_new(&plans, device) {
            let held = facts.holders.iter().filter(|(_, held)| same(held, device));
            let holders = held.map(|(pid, _)| *pid).collect();
            plans.push(Plan::TakeWhenFree(Pending { device: device.clone(), holders }));
        }
    }
    let stands = |device: &&String| facts.stopped.iter().any(|stopped| same(stopped, device));
    for device in facts.active.iter().chain(left.iter().filter(|device| !stands(device))) {
        if is_new(&plans, device) {
            plans.push(Plan::TakeNow { device: device.clone() });
        }
    }
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(device: &str) -> Plan {
        Plan::TakeNow { device: device.into() }
    }

    #[test]
    fn a_watchdog_that_nobody_had_running_is_left_alone() {
        assert_eq!(plan(&WatchdogFacts::default(), &[]), []);
    }

    #[test]
    fn one_that_runs_with_nobody_feeding_it_is_taken_at_once() {
        let facts = WatchdogFacts { active: vec!["/dev/watchdog0".into()], ..WatchdogFacts::default() };
        assert_eq!(plan(&facts, &[]), [now("/dev/watchdog0")]);
    }

    #[test]
    fn one_that_was_left_running_is_taken_unless_the_kernel_says_that_it_stands() {
        let (left, mut facts) = (["/dev/watchdog".to_owned()], WatchdogFacts::default());
        assert_eq!(plan(&facts, &left), [now("/dev/watchdog")]);
        facts.stopped = vec!["/dev/watchdog0".into()];
        assert_eq!(plan(&facts, &left), []);
    }

    #[test]
    fn one_that_a_process_feeds_is_taken_when_all_its_holders_are_gone() {
        let facts = WatchdogFacts {
            holders: vec![(7, "/dev/watchdog".into()), (9, "/dev/watchdog0".into())],
            active: vec!["/dev/watchdog0".into()],
            ..WatchdogFacts::default()
        };
        let pending = Pending { device: "/dev/watchdog".into(), holders: vec![7, 9] };
        assert_eq!(plan(&facts, &[]), [Plan::TakeWhenFree(pending)]);
    }

    #[test]
    fn each_watchdog_that_runs_is_taken_over_whoever_feeds_it() {
        let facts = WatchdogFacts {
            own: vec![
                (5, "/dev/watchdog0".into()),
                (6, "/dev/watchdog3".into()),
                (7, "/dev/watchdog".into()),
            ],
            holders: vec![(8, "/dev/watchdog1".into())],
            active: ["/dev/watchdog0", "/dev/watchdog1", "/dev/watchdog2"].map(str::to_owned).to_vec(),
            ..WatchdogFacts::default()
        };
        let left = ["/dev/watchdog".to_owned(), "/dev/watchdog4".to_owned()];
        assert_eq!(
            plan(&facts, &left),
            [
                Plan::Adopt { fd: 5, device: "/dev/watchdog0".into() },
                Plan::Adopt { fd: 6, device: "/dev/watchdog3".into() },
                Plan::TakeWhenFree(Pending { device: "/dev/watchdog1".into(), holders: vec![8] }),
                now("/dev/watchdog2"),
                now("/dev/watchdog4"),
            ]
        );
    }
}
