//! The watchdog device: found, opened, fed, passed on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::devices::ioctl_int;
use crate::handover::report::Watchdog;
use crate::handover::watchdog::{LONG_ENOUGH_S, WatchdogFacts};

/// The environment variable that names the descriptors, with commas between them.
const FD_VARIABLE: &str = "LEVITATE_WATCHDOG_FD";

// The kernel's include/uapi/linux/watchdog.h.
const MAGIC: u8 = b'W';
const KEEPALIVE: libc::Ioctl = nix::request_code_read!(MAGIC, 5, size_of::<i32>()) as libc::Ioctl;
const SET_TIMEOUT: libc::Ioctl = nix::request_code_readwrite!(MAGIC, 6, size_of::<i32>()) as libc::Ioctl;
const GET_TIMEOUT: libc::Ioctl = nix::request_code_read!(MAGIC, 7, size_of::<i32>()) as libc::Ioctl;

/// Often enough for the shortest timeouts, which are a few seconds.
const FEED_EVERY: Duration = Duration::from_millis(500);

/// A watchdog that runs and is ours to feed.
#[derive(Debug)]
pub(super) struct Held {
    file: File,
    device: String,
    fed: Option<Instant>,
}

impl Held {
    /// Opens it, which starts it if it did not run, and gives it time.
    pub(super) fn open(device: &str) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(device)?;
        Ok(Self::fed_from_now(file, device))
    }

    /// Takes the descriptor over from the image before this one.
    pub(super) fn adopt(fd: i32, device: &str) -> io::Result<Self> {
        if !is_watchdog(Path::new(&link(fd)?)) {
            return Err(io::Error::other(format!("descriptor {fd} is not {device}")));
        }
        Ok(Self::fed_from_now(from_number(fd), device))
    }

    /// Those that the environment names, as far as they are some.
    pub(super) fn inherited() -> Vec<Self> {
        numbers(&std::env::var(FD_VARIABLE).unwrap_or_default())
            .into_iter()
            .filter_map(Self::inherit)
            .collect()
    }

    fn inherit(fd: i32) -> Option<Self> {
        let device = link(fd).ok()?;
        is_watchdog(Path::new(&device)).then(|| Self { file: from_number(fd), device, fed: None })
    }

    fn fed_from_now(file: File, device: &str) -> Self {
        let mut held = Self { file, device: device.to_owned(), fed: None };
        held.feed();
        if held.timeout().is_some_and(|s| s < LONG_ENOUGH_S) {
            let mut seconds = i32::try_from(LONG_ENOUGH_S).unwrap_or(i32::MAX);
            // A driver that cannot keeps its own timeout, which is then what the report says.
            let _ = ioctl_int(held.file.as_raw_fd(), SET_TIMEOUT, &mut seconds);
        }
        held
    }

    /// A sign of life, not more often than needed.
    pub(super) fn feed(&mut self) {
        if self.fed.is_some_and(|last| last.elapsed() < FEED_EVERY) {
            return;
        }
        self.fed = Some(Instant::now());
        let mut ignored = 0;
        if ioctl_int(self.file.as_raw_fd(), KEEPALIVE, &mut ignored).is_err() {
            // Every driver takes a byte for a sign of life, but for V, which would announce a close.
            let _ = self.file.write(b"\0");
        }
    }

    fn timeout(&self) -> Option<u32> {
        let mut seconds = 0;
        ioctl_int(self.file.as_raw_fd(), GET_TIMEOUT, &mut seconds).ok()?;
        u32::try_from(seconds).ok()
    }

    /// For the report.
    pub(super) fn describe(&self) -> Watchdog {
        Watchdog { device: self.device.clone(), timeout_s: self.timeout() }
    }

    /// Its descriptor's number.
    pub(super) fn number(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// The next program gets it too. Closing it instead would stop nothing and leave nobody to feed it.
    fn outlive_exec(&self) -> io::Result<()> {
        fcntl(&self.file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    }
}

/// Each number of the list once: two objects must not own one descriptor.
fn numbers(list: &str) -> Vec<i32> {
    let mut numbers = Vec::new();
    for number in list.split(',').filter_map(|word| word.trim().parse::<i32>().ok()) {
        if number > 2 && !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}

/// The list that the environment of the next program names them by; none if there are none.
pub(super) fn variable(held: &[Held]) -> io::Result<Option<String>> {
    let mut numbers = Vec::new();
    for one in held {
        one.outlive_exec()?;
        numbers.push(one.number().to_string());
    }
    Ok((!numbers.is_empty()).then(|| format!("{FD_VARIABLE}={}", numbers.join(","))))
}

#[allow(unsafe_code)]
fn from_number(fd: i32) -> File {
    // SAFETY: the descriptor was found open, came over an execve, and no other object of this program owns it.
    unsafe { File::from_raw_fd(fd) }
}

fn link(fd: i32) -> io::Result<String> {
    Ok(fs::read_link(format!("/proc/self/fd/{fd}"))?.to_string_lossy().into_owned())
}

fn is_watchdog(link: &Path) -> bool {
    link.to_str().is_some_and(|link| link.starts_with("/dev/watchdog"))
}

/// Looks through all processes' descriptors and through sysfs, below `root` (`/` but in tests). What cannot be read is
/// left out.
pub(super) fn facts(root: &Path) -> WatchdogFacts {
    let mut facts = WatchdogFacts::default();
    let proc = root.join("proc");
    for pid in super::proc::pids(&proc).unwrap_or_default() {
        let Ok(descriptors) = fs::read_dir(proc.join(format!("{pid}/fd"))) else { continue };
        for entry in descriptors.flatten() {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            if !is_watchdog(&link) {
                continue;
            }
            let device = link.to_string_lossy().into_owned();
            match entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                Some(fd) if pid == 1 => facts.own.push((fd, device)),
                _ => facts.holders.push((pid, device)),
            }
        }
    }
    if let Ok(watchdogs) = fs::read_dir(root.join("sys/class/watchdog")) {
        for entry in watchdogs.flatten() {
            let device = format!("/dev/{}", entry.file_name().to_string_lossy());
            match fs::read_to_string(entry.path().join("state")).as_deref().map(str::trim) {
                Ok("active") => facts.active.push(device),
                Ok(_) => facts.stopped.push(device),
                Err(_) => facts.unknown.push(device),
            }
        }
    }
    // the order of a directory means nothing, and the first one comes first
    facts.own.sort();
    facts.active.sort();
    facts.unknown.sort();
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_descriptors_is_read_and_no_number_counts_twice() {
        assert_eq!(numbers("5,7"), [5, 7]);
        assert_eq!(numbers("5"), [5]);
        assert_eq!(numbers("5,x,,5,2,-1, 9"), [5, 9]);
        assert_eq!(numbers(""), Vec::<i32>::new());
    }

    #[test]
    fn every_descriptor_and_every_device_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let opens = |pid: i32, fd: i32, device: &str| {
            let at = dir.path().join(format!("proc/{pid}/fd"));
            fs::create_dir_all(&at).unwrap();
            std::os::unix::fs::symlink(device, at.join(fd.to_string())).unwrap();
        };
        opens(1, 5, "/dev/watchdog0");
        opens(1, 6, "/dev/watchdog1");
        opens(90, 3, "/dev/watchdog2");
        opens(90, 4, "/dev/null");
        for (name, state) in
            [("watchdog0", Some("active\n")), ("watchdog3", Some("inactive\n")), ("watchdog4", None)]
        {
            let at = dir.path().join("sys/class/watchdog").join(name);
            fs::create_dir_all(&at).unwrap();
            state.into_iter().for_each(|state| fs::write(at.join("state"), state).unwrap());
        }
        let expected = WatchdogFacts {
            own: vec![(5, "/dev/watchdog0".into()), (6, "/dev/watchdog1".into())],
            holders: vec![(90, "/dev/watchdog2".into())],
            active: vec!["/dev/watchdog0".into()],
            unknown: vec!["/dev/watchdog4".into()],
            stopped: vec!["/dev/watchdog3".into()],
        };
        assert_eq!(facts(dir.path()), expected);
    }
}
