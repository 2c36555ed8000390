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
pub(super) fn mounts_of_others(staged: &Path) -> io::Result<Vec<Mount>> {
    tables_in(&needed(staged)?)
}

fn tables_in(proc: &Path) -> io::Result<Vec<Mount>> {
    let mut all = Vec::new();
    for pid in pids(proc)?.into_iter().filter(|pid| *pid != 1) {
        let file = proc.join(pid.to_string()).join("mountinfo");
        match fs::read(&file) {
            Ok(table) => all.extend(mounts::parse(&table)),
            // One that has ended and is not reaped yet has no table any more.
            Err(e) if is_gone(&e) || e.raw_os_error() == Some(libc::EINVAL) => {}
            Err(e) => return Err(naming(&file, &e)),
        }
    }
    Ok(all)
}

/// The numbers in /proc.
pub(super) fn pids(proc: &Path) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc).map_err(|e| naming(proc, &e))? {
        let name = entry.map_err(|e| naming(proc, &e))?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(found)
}

/// All processes and kernel threads. One that dies while being read is not listed; one that cannot be read is an error,
/// because nobody can say that it is not there.
pub(super) fn processes(staged: &Path) -> io::Result<Vec<Process>> {
    processes_in(&needed(staged)?)
}

fn processes_in(proc: &Path) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for pid in pids(proc)? {
        let file = proc.join(pid.to_string()).join("stat");
        let stat = match fs::read(&file) {
            Ok(stat) => stat,
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(naming(&file, &e)),
        };
        let process = Process::parse(&String::from_utf8_lossy(&stat));
        found.push(process.ok_or_else(|| naming(&file, &io::Error::other("it tells of no process")))?);
    }
    Ok(found)
}

/// Whether the error says that the process has ended: before its file was opened, or before it was read.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

fn naming(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DD: &str = "42 (dd) R 1 42 42 0 -1 4194560 103 0 0 0 0 0 0 0 20 0 1 0 9 0 0";

    fn proc_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_process_that_is_gone_by_now_is_not_listed() {
        let proc = proc_with(&[("42/stat", DD), ("43/comm", "gone"), ("self/stat", DD)]);
        let names: Vec<String> =
            processes_in(proc.path()).unwrap().into_iter().map(|process| process.name).collect();
        assert_eq!(names, ["dd"]);
        assert_eq!(tables_in(proc.path()).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_looked_at_is_never_taken_for_nobody() {
        let nowhere = Path::new("/nowhere/proc");
        for error in [processes_in(nowhere).unwrap_err(), tables_in(nowhere).unwrap_err()] {
            assert_eq!(error.to_string(), "/nowhere/proc: No such file or directory (os error 2)");
        }
        // a directory cannot be read as a file, which is neither of the two errors of a process that is gone
        let proc = proc_with(&[("42/stat", DD), ("43/stat/x", ""), ("43/mountinfo/x", "")]);
        let file = proc.path().join("43");
        let told = |name: &str| format!("{}: Is a directory (os error 21)", file.join(name).display());
        assert_eq!(processes_in(proc.path()).unwrap_err().to_string(), told("stat"));
        assert_eq!(tables_in(proc.path()).unwrap_err().to_string(), told("mountinfo"));
        let proc = proc_with(&[("42/stat", "")]);
        let error = processes_in(proc.path()).unwrap_err().to_string();
        assert!(error.ends_with("42/stat: it tells of no process"), "{error}");
    }

    #[test]
    fn the_real_proc_can_be_read() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(processes_in(Path::new("/proc")).unwrap().iter().any(|process| process.pid == own));
    }
}
