//! Who uses flash, and who feeds watchdogs.

use std::path::Path;

use flasher::guard::{Facts, Use};
use serde::Serialize;

use crate::handover::watchdog::{self, Pending, Plan, WatchdogFacts};
use crate::status::with_sources;

/// Who uses flash now: what the hand-over has to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlashReport {
    /// Each partition that is in use.
    pub in_use: Vec<FlashUse>,
    /// Processes that could not be looked into, for want of privilege.
    pub hidden: usize,
    /// Who changes flash now: `levitate` waits for that.
    pub changing: Option<String>,
    /// Why it is not known, if it is not.
    pub not_known: Option<String>,
}

/// A partition in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlashUse {
    /// `mtd5 "rootfs"`.
    pub partition: String,
    /// Mounts, swap, loop and UBI devices, kernel threads.
    pub by: Vec<String>,
    /// How many processes run from it or have something of it open.
    pub processes: usize,
}

/// A watchdog that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchdogReport {
    /// Its device.
    pub device: String,
    /// The processes that hold it.
    pub holders: Vec<i32>,
    /// What the hand-over will do, for people.
    pub handover: &'static str,
}

/// The guard's facts, by partition.
pub(super) fn flash(root: &Path) -> FlashReport {
    let facts = match Facts::read(root) {
        Ok(facts) => facts,
        Err(e) => return FlashReport { not_known: Some(with_sources(&e)), ..FlashReport::default() },
    };
    let mut report = FlashReport { hidden: facts.hidden(), ..FlashReport::default() };
    for user in facts.users() {
        let partition = user.partition();
        let at = report.in_use.iter().position(|known| known.partition == partition).unwrap_or_else(|| {
            report.in_use.push(FlashUse { partition, by: Vec::new(), processes: 0 });
            report.in_use.len() - 1
        });
        let Some(known) = report.in_use.get_mut(at) else { continue };
        match user.how {
            Use::Process { .. } | Use::Open { .. } => known.processes += 1,
            // the same mount, once more for each namespace of other processes
            Use::Mount { elsewhere: Some(_), .. } if !known.by.is_empty() => {}
            how => known.by.push(how.to_string()),
        }
    }
    report
}

/// What the hand-over will do about each watchdog that runs.
pub(super) fn watchdogs(facts: &WatchdogFacts) -> Vec<WatchdogReport> {
    let report = |plan: Plan| {
        let (device, holders, handover) = match plan {
            Plan::Adopt { device, .. } => (device, vec![1], "keeps PID 1's own descriptor and feeds it"),
            Plan::TakeNow { device } => (device, Vec::new(), "takes it over first: nobody feeds it"),
            Plan::TakeWhenFree(Pending { device, holders }) => {
                (device, holders, "takes it over when its holders have ended, and feeds it")
            }
        };
        WatchdogReport { device, holders, handover }
    };
    watchdog::plan(facts, &[]).into_iter().map(report).collect()
}
