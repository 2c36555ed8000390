//! What is kept of the cache's folders: what living processes use, and what was used last.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};

/// Stands in the name of what is not whole.
pub(crate) const UNFINISHED: &str = ".tmp-";

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
            // cut off in the middle, half of it must not pass for the whole
            let doomed = unfinished(&path);
            fs::rename(&path, &doomed)?;
            fs::remove_dir_all(&doomed)?;
            drop(lock);
        }
    }
    Ok(())
}

/// A name beside `place` for something that is not whole: not yet, or not any more.
pub(crate) fn unfinished(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(format!("{UNFINISHED}{}", std::process::id()));
    PathBuf::from(name)
}

/// Removes what in `parent` is not whole. Only under the lock of its makers: nothing unfinished belongs to anybody then.
pub(crate) fn sweep_unfinished(parent: &Path) -> io::Result<()> {
    sweep(parent, |name, _| name.contains(UNFINISHED))
}

/// Removes the folders in `parent` that no living process holds. Only under the lock of those who make them.
pub(crate) fn sweep_unheld(parent: &Path) -> io::Result<()> {
    sweep(parent, |name, path| {
        // earlier harnesses named them by the process and locked nothing
        !Path::new("/proc").join(name).exists()
            && File::open(path)
                .is_ok_and(|folder| Flock::lock(folder, FlockArg::LockExclusiveNonblock).is_ok())
    })
}

fn sweep(parent: &Path, doomed: impl Fn(&str, &Path) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        if !doomed(&entry.file_name().to_string_lossy(), &path) {
            continue;
        }
        let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
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

    #[test]
    fn what_is_not_whole_and_what_nobody_holds_is_swept_away() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let half = unfinished(&path("half"));
        for folder in [&path("whole"), &path("mine"), &half] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(unfinished(&path("pin")), "{").unwrap();
        sweep_unfinished(parent.path()).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["mine", "whole"]);

        assert!(hold(&path("mine")).unwrap());
        sweep_unheld(parent.path()).unwrap();
        assert!(path("mine").exists() && !path("whole").exists());
    }

    #[test]
    fn a_pruning_that_is_cut_off_leaves_no_half_folder_under_a_whole_ones_name() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("t-1");
        fs::create_dir_all(folder.join("part")).unwrap();
        // the name that it is removed under is taken: as if it were stopped before the first file went
        let doomed = unfinished(&folder);
        fs::create_dir_all(doomed.join("in the way")).unwrap();
        prune(parent.path(), "t-1", 1).unwrap_err();
        assert!(folder.join("part").exists());
    }
}
