//! One set-up at a time per cache, and what interrupted ones left behind.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::{Result, SetupError};
use super::keep;

/// A cold set-up takes less than 20 minutes; whoever waits longer waits for something else.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Held while the cache is changed; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "held, never read")] Flock<File>);

impl Lock {
    /// Takes the lock; another holder is waited for, and named once.
    pub(crate) fn take(cache: &Path, waiting: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::take_within(cache, LIMIT, waiting)
    }

    fn take_within(cache: &Path, limit: Duration, waiting: &mut dyn FnMut(&str)) -> Result<Self> {
        fs::create_dir_all(cache).map_err(SetupError::io("create", cache))?;
        let path = cache.join("setup.lock");
        let open = || File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open().map_err(SetupError::io("open", &path))?;
        let end = Instant::now() + limit;
        let mut told = false;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut held) => {
                    // for those who wait; the lock holds without it
                    let _ = held.rewind().and_then(|()| held.set_len(0));
                    let _ = write!(held, "{}", std::process::id());
                    return Ok(Self(held));
                }
                Err((_, error)) if error != Errno::EWOULDBLOCK => {
                    return Err(SetupError::io("lock", &path)(error.into()));
                }
                Err((mut back, _)) => {
                    let mut holder = String::new();
                    let _ = back.rewind().and_then(|()| back.read_to_string(&mut holder));
                    if Instant::now() >= end {
                        return Err(SetupError::Missing(format!(
                            "another set-up (process {holder}) has held {} for {} s",
                            path.display(),
                            limit.as_secs()
                        )));
                    }
                    // between taking it and signing it a moment passes
                    if !told && !holder.is_empty() {
                        waiting(&format!(
                            "another set-up (process {holder}) is at work on this cache; waiting for it"
                        ));
                        told = true;
                    }
                    thread::sleep(Duration::from_millis(100));
                    file = back;
                }
            }
        }
    }
}

/// Removes what interrupted set-ups left half made, and the folders of runs that have ended. Only under the lock.
pub(crate) fn sweep(cache: &Path) -> Result<()> {
    for folder in ["packages", "kernel", "device"].map(|name| cache.join(name)) {
        keep::sweep_unfinished(&folder).map_err(SetupError::io("tidy", &folder))?;
    }
    let runs = cache.join("run");
    keep::sweep_unheld(&runs).map_err(SetupError::io("tidy", &runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_set_up_says_that_it_waits_and_does_not_wait_for_ever() {
        let cache = tempfile::tempdir().unwrap();
        let first = Lock::take(cache.path(), &mut |_| {}).unwrap();
        let mut told = Vec::new();
        let error = Lock::take_within(cache.path(), Duration::from_millis(300), &mut |text| {
            told.push(text.to_owned());
        });
        assert!(error.unwrap_err().to_string().contains(&std::process::id().to_string()));
        assert_eq!(told.len(), 1);
        drop(first);
        Lock::take(cache.path(), &mut |_| panic!("nobody holds it")).unwrap();
    }

    #[test]
    fn leftovers_of_the_dead_go_and_runs_of_the_living_stay() {
        let cache = tempfile::tempdir().unwrap();
        let path = |name: &str| cache.path().join(name);
        for folder in ["kernel/abc.tmp-1", "kernel/abc", "run/dead", "run/alive"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        assert!(keep::hold(&path("run/alive")).unwrap());
        sweep(cache.path()).unwrap();
        assert!(!path("kernel/abc.tmp-1").exists() && !path("run/dead").exists());
        assert!(path("kernel/abc").exists() && path("run/alive").exists());
    }
}
