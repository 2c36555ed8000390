//! `/run/levitate/handover.json`: what the hand-over did, for `levitate status` and for `flashcp` in the new root.

use serde::{Deserialize, Serialize};

use super::stage::Stage;

/// Where the report lies in the maintenance root.
pub const REPORT: &str = "/run/levitate/handover.json";

/// What the hand-over did. It is written once, just before the new init is executed, so its presence means success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The layout's version; this program writes and reads 1.
    pub version: u32,
    /// Seconds since 1970 when the new init was about to be executed.
    pub handed_over_at: u64,
    /// From the first instruction of the hand-over to then, in milliseconds.
    pub total_ms: u64,
    /// The stages gone through, in order. `execute` is not among them: the report is written before it.
    pub stages: Vec<StageTime>,
    /// The mount points that were unmounted, as the old system named them, in that order.
    pub unmounted: Vec<String>,
    /// The processes that SIGKILL did not end.
    pub survivors: Vec<Survivor>,
    /// What could not be let go of: `flashcp` refuses the flash below it.
    pub still_mounted: Vec<StillMounted>,
    /// What went wrong without stopping the hand-over, as sentences.
    pub notes: Vec<String>,
    /// The watchdogs that were taken over and are kept running; empty if nobody had one running.
    pub watchdogs: Vec<Watchdog>,
}

impl Report {
    /// The version that this program writes.
    pub const VERSION: u32 = 1;
}

/// How long a stage took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTime {
    /// The stage.
    pub stage: Stage,
    /// Its duration in milliseconds.
    pub ms: u64,
}

/// A process that SIGKILL did not end before the deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// Its process id.
    pub pid: i32,
    /// Its name as the kernel has it (at most 15 bytes).
    pub name: String,
    /// Its state, as the letter in `/proc/PID/stat`: `D` is a process stuck in the kernel.
    pub state: char,
}

/// A file system or a device of the old system that is still alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StillMounted {
    /// The mount point as the old system named it, or the device where there is no mount point.
    pub path: String,
    /// What it lies on, as in `/proc/self/mountinfo`.
    pub source: String,
    /// The file system's type.
    pub fstype: String,
    /// What holds it, as far as that is known: the error of the last attempt.
    pub reason: String,
    /// Whether it could at least be made read-only.
    pub read_only: bool,
    /// `MAJOR:MINOR` of its superblock, as in `/proc/self/mountinfo`; none where it is not a file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// A watchdog that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    /// Its device, such as `/dev/watchdog0`.
    pub device: String,
    /// After how many seconds without a sign of life it resets the board, if its driver tells.
    pub timeout_s: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_reads_as_the_contract_says() {
        let report = Report {
            version: 1,
            handed_over_at: 1_700_000_000,
            total_ms: 480,
            stages: vec![StageTime { stage: Stage::Check, ms: 1 }],
            unmounted: vec!["/persist".into(), "/".into()],
            survivors: vec![Survivor { pid: 7, name: "dd".into(), state: 'D' }],
            still_mounted: vec![StillMounted {
                path: "/persist".into(),
                source: "/dev/mtdblock4".into(),
                fstype: "jffs2".into(),
                reason: "not done within 10000 ms".into(),
                read_only: false,
                device: Some("31:4".into()),
            }],
            watchdogs: vec![Watchdog { device: "/dev/watchdog0".into(), timeout_s: Some(60) }],
            ..Report::default()
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"handed_over_at":1700000000,"total_ms":480,"stages":[{"stage":"check","ms":1}],"unmounted":["/persist","/"],"survivors":[{"pid":7,"name":"dd","state":"D"}],"still_mounted":[{"path":"/persist","source":"/dev/mtdblock4","fstype":"jffs2","reason":"not done within 10000 ms","read_only":false,"device":"31:4"}],"notes":[],"watchdogs":[{"device":"/dev/watchdog0","timeout_s":60}]}"#
        );
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
