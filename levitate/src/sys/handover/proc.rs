//! What /proc tells, wherever it is mounted at the moment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::handover::mounts::{self, Mount};
use crate::handover::processes::Process;

/// /proc, or where it was moved to before the staged root became /.
pub(super) fn directory(staged: &Path) -> Option<PathBuf> {
    [PathBuf::from("/proc"), staged.join("proc")].into_iter().find(|at| at.join("self/mountinfo").exists())
}

fn needed(staged: &Path) -> io::Result<PathBuf> {
    directory(staged).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "/proc is not mounted"))
}

/// This process's mount table.
pub(super) fn mounts(staged: &Path) -> io::Result<Vec<Mount>> {
    Ok(mounts::parse(&fs::read(needed(staged)?.join("self/mountinfo"))?))
}

/// The tables of all others that have one.
pub(super) fn mounts_of_others(staged: &Path) -> Vec<Mount> {
    let Some(proc) = directory(staged) else { return Vec::new() };
    let mut all = Vec::new();
    for pid in pids(&proc).into_iter().filter(|pid| *pid != 1) {
        let table = fs::read(proc.join(pid.to_string()).join("mountinfo")).unwrap_or_default();
        all.extend(mounts::parse(&table));
    }
    all
}

/// The numbers in /proc.
pub(super) fn pids(proc: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// All processes and kernel threads. One that dies while being read is not listed.
pub(super) fn processes(staged: &Path) -> io::Result<Vec<Process>> {
    let proc = needed(staged)?;
    let read = |pid: i32| {
        let stat = fs::read(proc.join(pid.to_string()).join("stat")).ok()?;
        Process::parse(&String::from_utf8_lossy(&stat))
    };
    Ok(pids(&proc).into_iter().filter_map(read).collect())
}
