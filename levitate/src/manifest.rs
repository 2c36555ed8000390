//! What was staged: `/run/maintenance/etc/levitate/manifest.json`, written by staging, read by the hand-over and `status`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::handover::journey::StateHome;

/// Where the root is staged.
pub const STAGED_ROOT: &str = "/run/maintenance";
/// Where the manifest lies, below the staged root.
pub const MANIFEST: &str = "etc/levitate/manifest.json";

/// The staged root's description of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout's version; this program writes and reads 1.
    pub version: u32,
    /// Seconds since 1970, by the clock of the system that staged it.
    pub staged_at: u64,
    /// `/proc/sys/kernel/random/boot_id` of the boot that staged it: a root from another boot is never entered.
    pub boot_id: String,
    /// The names of the services that the maintenance init starts.
    pub services: Vec<String>,
    /// The users who can log in.
    pub users: Vec<String>,
    /// Regular files staged, hard links counted once.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// The state file, on a persistent file system of the old root, by its path without symbolic links; none if not
    /// configured.
    pub state_file: Option<PathBuf>,
    /// Where the state file's file system was when the root was staged, for inits that unmount it before the hand-over.
    #[serde(default)]
    pub state_home: Option<StateHome>,
    /// The watchdogs that ran when the root was staged: some inits end their feeders before the hand-over can see it.
    #[serde(default)]
    pub watchdogs: Vec<String>,
    /// How long the maintenance root stays with nobody logged in, in milliseconds; none: for ever.
    #[serde(default = "ramdisk::init::lease::default_length")]
    pub lease_ms: Option<u64>,
    /// The lease with flash that the old system left changed and not verified, in milliseconds; none: such flash ends it.
    #[serde(default = "ramdisk::init::lease::default_unverified")]
    pub lease_unverified_ms: Option<u64>,
    /// The services through which people log in; the init reads these three (`ramdisk::init::lease::Terms`).
    #[serde(default)]
    pub ways_in: Vec<String>,
    /// The deadlines of the hand-over.
    pub handover: HandoverLimits,
}

/// Deadlines of the hand-over, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverLimits {
    /// Past this the board is reset into the old system. 90,000 unless configured.
    pub whole_ms: u64,
    /// From TERM to KILL; ends early when everybody is gone. 2,000 unless configured.
    pub term_grace_ms: u64,
    /// For one call that can block (umount, swapoff, sync). 10,000 unless configured.
    pub call_ms: u64,
    /// For what the old init runs at its own end, where that is waited for (sysvinit, busybox). 300,000 unless
    /// configured.
    #[serde(default = "shutdown_ms")]
    pub shutdown_ms: u64,
}

/// Five minutes: databases take long to stop, and a device that is stuck must come back.
fn shutdown_ms() -> u64 {
    300_000
}

impl Default for HandoverLimits {
    fn default() -> Self {
        Self { whole_ms: 90_000, term_grace_ms: 2_000, call_ms: 10_000, shutdown_ms: shutdown_ms() }
    }
}
