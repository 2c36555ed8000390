//! What is kept of the cache's folders: what living processes use, and what was used last.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};

/// Locks of this process, held until it ends, however it ends.
static HELD: Mutex<Vec<Flock<File>>> = Mutex::new(Vec::new());

/// Marks a folder as used now, and by this process for as long as it lives. `false` if it is not there, or not any more.
pub(crate) fn hold(folder: &Path) -> io::Result<bool> {
    let file = match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let id = |data: &fs::Metadata| (data.dev(), data.ino());
    let opened = id(&file.metadata()?);
    // who cannot write the time of use keeps the order of making
    let _ = file.set_modified(SystemTime::now());
    let lock = Flock::lock(file, FlockArg::LockShared).map_err(|(_, error)| io::Error::from(error))?;
    // who removed it held the lock until it was gone
    let there = fs::metadata(folder).is_ok_and(|data| id(&data) == opened);
    if there {
        HELD.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(lock);
    }
    Ok(there)
}

/// Removes the folders in `parent` whose names begin with `prefix`, but the `keep` used last and those in use.
pub(crate) fn prune(parent: &Path, prefix: &str, keep: usize) -> io::Result<()> {
    for path in oldest(parent, prefix, keep) {
        let Ok(folder) = File::open(&path) else { continue };
        if let Ok(lock) = Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            fs::remove_dir_all(&path)?;
            drop(lock);
        }
    }
    Ok(())
}

fn oldest(parent: &Path, prefix: &str, keep: usize) -> Vec<PathBuf> {
    let mut found: Vec<(SystemTime, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    found.truncate(found.len().saturating_sub(keep));
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_used_last_and_what_is_in_use_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        for (name, age) in [("t-held", 9), ("t-old", 8), ("t-older", 7), ("t-new", 1), ("other", 99)] {
            fs::create_dir(path(name)).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            File::open(path(name)).unwrap().set_modified(time).unwrap();
        }
        let of_another = File::open(path("t-held")).unwrap();
        let _of_another = Flock::lock(of_another, FlockArg::LockShared).unwrap();
        prune(parent.path(), "t-", 1).unwrap();
        let left = |name: &str| path(name).exists();
        assert!(left("t-held") && left("t-new") && left("other"));
        assert!(!left("t-old") && !left("t-older"));

        assert!(!hold(&path("t-old")).unwrap());
        assert!(hold(&path("t-held")).unwrap());
        prune(parent.path(), "t-", 0).unwrap();
        assert!(left("t-held") && !left("t-new"), "held by this process");
    }
}
