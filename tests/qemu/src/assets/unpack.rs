//! Packages into a folder of the cache: made beside its place, put there by one rename.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::child::Job;
use super::error::{Result, SetupError};
use super::keep::unfinished;
use super::packages::{self, Deb};
use crate::progress::Step;

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SetupError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes the folder `place` by `fill`, all or nothing; one that is there already is left alone.
pub(crate) fn whole(place: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if place.exists() {
        return Ok(());
    }
    let new = unfinished(place);
    remove(&new)?;
    fs::create_dir_all(&new).map_err(SetupError::io("create", &new))?;
    fill(&new)?;
    // a crash of the machine must not leave empty files under a name that says they are whole
    settle(&new).map_err(SetupError::io("write to disk", &new))?;
    fs::rename(&new, place).map_err(SetupError::io("rename into place", place))
}

/// Brings all that was written to the file system of `folder` onto its disk.
pub(crate) fn settle(folder: &Path) -> std::io::Result<()> {
    Ok(nix::unistd::syncfs(fs::File::open(folder)?)?)
}

/// Unpacks the packages of `from` into `into`, two at a time.
pub(crate) fn unpack(debs: &[&Deb], from: &Path, into: &Path, log: &Path, step: &mut Step<'_>) -> Result<()> {
    let next = AtomicUsize::new(0);
    let finished = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let work = || {
        while let Some(deb) = debs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let command = extract(deb, from, into);
            let job = Job {
                what: format!("unpacking {}", deb.file),
                command,
                log: log.to_path_buf(),
                limit: Duration::from_secs(300),
            };
            if let Err(error) = job.run_quietly() {
                next.store(debs.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
            }
            finished.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        while workers.iter().any(|worker| !worker.is_finished()) {
            step.at(finished.load(Ordering::Relaxed) as u64, debs.len() as u64, "unpacking");
            thread::sleep(Duration::from_millis(50));
        }
    });
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The standard library's part of Rust's source: the rest is ten times as many files, read by nobody here.
const STD_ONLY: &str =
    r#"dpkg-deb --fsys-tarfile "$0" | tar -x -C "$1" --wildcards './usr/lib/*' './usr/src/*/library/*'"#;

fn extract(deb: &Deb, from: &Path, into: &Path) -> Command {
    let mut command = if deb.name == packages::RUST_SOURCE {
        let mut shell = Command::new("sh");
        shell.args(["-c", STD_ONLY]);
        shell
    } else {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("-x");
        dpkg
    };
    command.arg(from.join(&deb.file)).arg(into).env("LC_ALL", "C");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_never_at_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("tools");
        let failed = whole(&place, |new| {
            fs::write(new.join("half"), "").unwrap();
            Err(SetupError::Missing("disk full".into()))
        });
        assert!(failed.is_err() && !place.exists());
        whole(&place, |new| {
            assert!(!new.join("half").exists());
            fs::write(new.join("all"), "").map_err(SetupError::io("write", new))
        })
        .unwrap();
        assert!(place.join("all").exists());
        whole(&place, |_| panic!("it is there already")).unwrap();
    }
}
