//! Whether a watchdog has to be taken over, and when: decided from facts that are read before anybody is killed.
//!
//! Opening a watchdog starts it. One that nobody had running is therefore left alone; one that somebody fed is opened as
//! soon as that process is gone, because its death leaves the watchdog running.

/// The timeout that is asked for at least, in seconds: one erase of a large block on a slow chip must fit several times.
pub const LONG_ENOUGH_S: u32 = 60;

/// What /proc and sysfs say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchdogFacts {
    /// A descriptor of this process that is a watchdog: PID 1 fed it itself.
    pub own: Option<(i32, String)>,
    /// Processes that hold one: process id and device.
    pub holders: Vec<(i32, String)>,
    /// Devices whose sysfs state is `active`.
    pub active: Vec<String>,
    /// Devices of which nobody knows whether they run: the kernel has no such file in sysfs.
    pub unknown: Vec<String>,
    /// Devices whose sysfs state is anything else.
    pub stopped: Vec<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// None runs: touch none.
    LeaveAlone,
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
    TakeWhenFree {
        /// Its device.
        device: String,
        /// Who has to be gone.
        holders: Vec<i32>,
    },
}

/// Decides it. Of several watchdogs the one that a process feeds is taken: it is the one that will bite. `left` is
/// the one that the old system left running, as far as is known otherwise; sysfs may know better.
#[must_use]
pub fn plan(facts: &WatchdogFacts, left: Option<&str>) -> Plan {
    if let Some((fd, device)) = &facts.own {
        return Plan::Adopt { fd: *fd, device: device.clone() };
    }
    if let Some((_, device)) = facts.holders.first() {
        let holders = facts.holders.iter().filter(|(_, held)| held == device).map(|(pid, _)| *pid).collect();
        return Plan::TakeWhenFree { device: device.clone(), holders };
    }
    let left = left.filter(|device| !facts.stopped.iter().any(|stopped| stopped == device));
    match facts.active.first().map(String::as_str).or(left) {
        Some(device) => Plan::TakeNow { device: device.to_owned() },
        None => Plan::LeaveAlone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_that_nobody_had_running_is_left_alone() {
        assert_eq!(plan(&WatchdogFacts::default(), None), Plan::LeaveAlone);
    }

    #[test]
    fn one_that_runs_with_nobody_feeding_it_is_taken_at_once() {
        let facts = WatchdogFacts { active: vec!["/dev/watchdog0".into()], ..WatchdogFacts::default() };
        assert_eq!(plan(&facts, None), Plan::TakeNow { device: "/dev/watchdog0".into() });
    }

    #[test]
    fn one_that_was_left_running_is_taken_unless_the_kernel_says_that_it_stands() {
        let (left, mut facts) = (Some("/dev/watchdog0"), WatchdogFacts::default());
        assert_eq!(plan(&facts, left), Plan::TakeNow { device: "/dev/watchdog0".into() });
        facts.stopped = vec!["/dev/watchdog0".into()];
        assert_eq!(plan(&facts, left), Plan::LeaveAlone);
    }

    #[test]
    fn one_that_a_process_feeds_is_taken_when_all_its_holders_are_gone() {
        let facts = WatchdogFacts {
            own: None,
            holders: vec![
                (7, "/dev/watchdog".into()),
                (8, "/dev/watchdog1".into()),
                (9, "/dev/watchdog".into()),
            ],
            active: vec!["/dev/watchdog0".into()],
            ..WatchdogFacts::default()
        };
        assert_eq!(
            plan(&facts, None),
            Plan::TakeWhenFree { device: "/dev/watchdog".into(), holders: vec![7, 9] }
        );
    }

    #[test]
    fn a_descriptor_of_pid_1_itself_is_kept() {
        let facts = WatchdogFacts { own: Some((5, "/dev/watchdog0".into())), ..WatchdogFacts::default() };
        assert_eq!(plan(&facts, None), Plan::Adopt { fd: 5, device: "/dev/watchdog0".into() });
    }
}
