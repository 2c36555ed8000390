//! The new init: reports what it finds, then ends the namespace.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::reboot::{RebootMode, reboot};
use serde::{Deserialize, Serialize};

/// What it finds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) pid: u32,
    pub(crate) cwd: String,
    pub(crate) mountinfo: String,
    pub(crate) descriptors: BTreeMap<String, String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) blocked: String,
    pub(crate) ignored: String,
    pub(crate) processes: Vec<String>,
    pub(crate) old_root: Vec<String>,
    pub(crate) root: Vec<String>,
    pub(crate) handover: String,
    pub(crate) alarm_left: Option<u32>,
    /// Bytes in use in the root's file system, and in the files that can be seen there.
    pub(crate) bytes: (u64, u64),
}

pub(crate) fn run() -> ! {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let numeric = |name: &String| name.parse::<u32>().is_ok();
    let report = Report {
        pid: std::process::id(),
        cwd: std::env::current_dir().unwrap_or_default().display().to_string(),
        mountinfo: fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        descriptors: descriptors(),
        environment: std::env::vars().collect(),
        blocked: field("SigBlk:"),
        ignored: field("SigIgn:"),
        processes: names("/proc").into_iter().filter(numeric).collect(),
        old_root: names("/oldroot"),
        root: names("/"),
        handover: fs::read_to_string("/run/levitate/handover.json").unwrap_or_default(),
        alarm_left: nix::unistd::alarm::cancel(),
        bytes: (used(), visible(Path::new("/"))),
    };
    if let Ok(text) = serde_json::to_vec(&report) {
        let _ = fs::write("/dev/report.json", text);
    }
    let Err(e) = reboot(RebootMode::RB_POWER_OFF);
    panic!("power off: {e}");
}

fn descriptors() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in names("/proc/self/fd") {
        if let Ok(link) = fs::read_link(Path::new("/proc/self/fd").join(&name)) {
            found.insert(name, link.display().to_string());
        }
    }
    found
}

#[allow(clippy::useless_conversion, reason = "the fields have 32 bits on a 32-bit processor")]
fn used() -> u64 {
    let facts = nix::sys::statvfs::statvfs("/").unwrap();
    u64::from(facts.fragment_size()) * u64::from(facts.blocks() - facts.blocks_free())
}

fn visible(directory: &Path) -> u64 {
    let device = fs::symlink_metadata("/").unwrap().dev();
    let mut bytes = 0;
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let found = entry.metadata().unwrap();
        if found.dev() != device {
            continue;
        }
        bytes += found.blocks() * 512;
        if found.is_dir() {
            bytes += visible(&entry.path());
        }
    }
    bytes
}

fn names(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return vec!["not to be read".into()] };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
