//! Where this init is the system's own PID 1: a root that was staged is entered at the end of `reboot`, when every
//! service is down, by executing its entry. In the maintenance root itself none is staged, and nothing happens.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::watchdog::{FD_VARIABLE, Watchdog};

/// Executes the entry. Answers why that failed; none if there is no entry.
pub(super) fn execute(run: &Path, watchdogs: &[Watchdog]) -> Option<String> {
    let entry = entry(run)?;
    match try_execute(&entry, watchdogs) {
        Ok(never) => match never {},
        Err(error) => Some(format!("cannot execute {}: {error}", entry.display())),
    }
}

/// The entry, if it is there and can be executed: a staged root is put in its place whole, or not at all.
fn entry(run: &Path) -> Option<PathBuf> {
    let entry = run.join("maintenance/exec");
    let found = entry.metadata().ok()?;
    (found.is_file() && found.permissions().mode() & 0o111 != 0).then_some(entry)
}

fn try_execute(entry: &Path, watchdogs: &[Watchdog]) -> io::Result<Infallible> {
    let mut environment =
        vec![CString::new("PATH=/sbin:/bin:/usr/sbin:/usr/bin")?, CString::new("TERM=linux")?];
    let numbers =
        watchdogs.iter().map(|w| Ok(w.outlive_exec()?.to_string())).collect::<io::Result<Vec<_>>>()?;
    if !numbers.is_empty() {
        environment.push(CString::new(format!("{FD_VARIABLE}={}", numbers.join(",")))?);
    }
    let path = CString::new(entry.as_os_str().as_bytes())?;
    Ok(nix::unistd::execve(&path, &[CString::new("exec")?], &environment)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_an_entry_that_can_be_executed_is_one() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(execute(run.path(), &[]), None);
        let sbin = run.path().join("maintenance/sbin");
        fs::create_dir_all(&sbin).unwrap();
        fs::write(sbin.join("levitate"), "no program").unwrap();
        std::os::unix::fs::symlink("sbin/levitate", run.path().join("maintenance/exec")).unwrap();
        assert_eq!(execute(run.path(), &[]), None);
        fs::set_permissions(sbin.join("levitate"), fs::Permissions::from_mode(0o755)).unwrap();
        let why = execute(run.path(), &[]).unwrap();
        assert!(
            why.starts_with("cannot execute ") && why.contains("maintenance/exec: Exec format error"),
            "{why}"
        );
    }
}
