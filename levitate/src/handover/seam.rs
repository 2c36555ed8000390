//! Everything that the hand-over asks of the kernel, one method per call, so that the order of the calls and the failure
//! of each can be tested without being PID 1.
//!
//! Limits are in milliseconds. A call that can block in the kernel takes one, is made in a child process, and answers
//! [`std::io::ErrorKind::TimedOut`] past it; the child may then still be stuck, this process is not.

use std::io;
use std::path::{Path, PathBuf};

use super::journey::Journey;
use super::mounts::Mount;
use super::processes::Process;
use super::report::{Report, Watchdog};
use super::watchdog::WatchdogFacts;
use crate::state::StateRecord;

/// How the hand-over can end when it does not end in the new init. Each is reboot(2), none of them syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Reset the board: the old system starts again.
    Reset,
    /// Power off.
    Poweroff,
    /// Stop, with the power on.
    Halt,
    /// Execute the kernel that was loaded; reset if there is none.
    Kexec,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// A step begun.
    Progress,
    /// Something went wrong that stops nothing.
    Note,
    /// The reason why the old system is started again.
    Failure,
}

/// The signals that are sent to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Everybody {
    /// SIGTERM, then SIGCONT, so that a stopped process can act on it.
    Term,
    /// SIGHUP, then SIGCONT: interactive shells ignore SIGTERM, and end when their terminal does.
    Hangup,
    /// SIGKILL.
    Kill,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Whether it is a regular file, symbolic links followed.
    pub regular: bool,
    /// Its permission bits.
    pub mode: u32,
}

/// A file's identity: device and inode number.
pub type Identity = (u64, u64);

/// The calls.
pub trait HandoverSys {
    /// Milliseconds on a clock that only goes forward and goes on over an execve.
    fn now_ms(&mut self) -> u64;
    /// Seconds since 1970.
    fn unix_seconds(&mut self) -> u64;
    /// Waits, reaps whoever died, feeds the watchdogs.
    fn pause(&mut self, ms: u64);
    /// From now on, after so many milliseconds, this ending whatever this process does; replaces what was set before.
    fn guard(&mut self, ms: u64, ending: Ending);
    /// One line to the console, the kernel log and `/dev/pmsg0`, whichever there are; never blocks, never fails.
    fn say(&mut self, weight: Weight, line: &str);
    /// Writes the state file durably.
    fn write_state(&mut self, path: &Path, record: &StateRecord, limit: u64) -> io::Result<()>;

    /// No signal blocked, ignored or caught but what [`HandoverSys::guard`] needs.
    fn reset_signals(&mut self) -> io::Result<()>;
    /// Ctrl-alt-del is no longer a reset.
    fn forbid_ctrl_alt_del(&mut self) -> io::Result<()>;
    /// A kernel panic becomes a reset after so many seconds, unless a time is set already.
    fn panic_timeout(&mut self, seconds: u32) -> io::Result<()>;
    /// Mounts /proc if the old system has unmounted it already.
    fn need_proc(&mut self) -> io::Result<()>;
    /// The word in the verb file, if there is such a file.
    fn read_verb(&mut self) -> io::Result<Option<String>>;
    /// The text of the file.
    fn read_text(&mut self, path: &Path) -> io::Result<String>;
    /// The first 256 bytes of the file.
    fn read_head(&mut self, path: &Path) -> io::Result<Vec<u8>>;
    /// What kind of file this is.
    fn look_at(&mut self, path: &Path) -> io::Result<FileFacts>;
    /// This process's mount table.
    fn mounts(&mut self) -> io::Result<Vec<Mount>>;
    /// Who holds watchdogs, which watchdogs run.
    fn watchdog_facts(&mut self) -> WatchdogFacts;
    /// Keeps a descriptor that this process got from the one before.
    fn adopt_watchdog(&mut self, fd: i32, device: &str) -> io::Result<Watchdog>;
    /// Opens a watchdog that runs already and raises its timeout to at least 60 s if the driver can.
    fn open_watchdog(&mut self, device: &str) -> io::Result<Watchdog>;

    /// kill(-1).
    fn signal_everybody(&mut self, signal: Everybody) -> io::Result<()>;
    /// SIGHUP, then SIGCONT, for one process.
    fn hang_up(&mut self, pid: i32) -> io::Result<()>;
    /// All processes and kernel threads.
    fn processes(&mut self) -> io::Result<Vec<Process>>;

    /// The devices and files in use as swap.
    fn swaps(&mut self) -> io::Result<Vec<PathBuf>>;
    /// swapoff(2).
    fn swapoff(&mut self, path: &Path, limit: u64) -> io::Result<()>;
    /// The loop and UBI devices that have something attached.
    fn attached(&mut self) -> Vec<Attached>;
    /// Detaches it.
    fn detach(&mut self, device: &Attached, limit: u64) -> io::Result<()>;

    /// Makes a mount, or a mount and all below it, private.
    fn make_private(&mut self, path: &Path, reach: Reach) -> io::Result<()>;
    /// Binds a directory on itself.
    fn bind_on_itself(&mut self, path: &Path) -> io::Result<()>;
    /// Makes the mount at `point`, which holds the directory `path`, writable if it is not.
    fn need_writable(&mut self, path: &Path, point: &Path) -> io::Result<()>;
    /// Takes nosuid, nodev and noexec, which a bind inherits, off a mount.
    fn plain_flags(&mut self, path: &Path) -> io::Result<()>;
    /// Executes the staged copy of this program with the journey so far. Returns in a test double only.
    fn exec_self(&mut self, program: &Path, journey: &Journey) -> io::Result<()>;
    /// Makes a directory and those above it; one that is there is success.
    fn make_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Moves a mount and all that is mounted on it. The way there can block: a network file system asks its server
    /// whether its root is still the same.
    fn move_mount(&mut self, from: &Path, to: &Path, limit: u64) -> io::Result<()>;
    /// chdir(2).
    fn chdir(&mut self, path: &Path) -> io::Result<()>;
    /// pivot_root(2).
    fn pivot_root(&mut self, new: &Path, old: &Path) -> io::Result<()>;
    /// chroot(2).
    fn chroot(&mut self, path: &Path) -> io::Result<()>;

    /// Descriptors 0, 1 and 2 on the console that is in this directory of devices, or on its `null`.
    fn take_console(&mut self, dev: &Path, limit: u64) -> io::Result<()>;
    /// Closes every other descriptor but the watchdogs'. What cannot be closed within the limit is given up, and closed
    /// by the kernel whenever it can.
    fn close_others(&mut self, limit: u64) -> io::Result<()>;
    /// Which file this is.
    fn identity(&mut self, path: &Path) -> io::Result<Identity>;
    /// Removes everything that lies on the file system of `mount` and can be reached at its mount point, but the
    /// directory `keep`, what is above it, and the mount points `skip`, which are not even looked at. Where something
    /// else shows at that path, nothing is done.
    fn sweep(&mut self, mount: &Mount, keep: Identity, skip: &[PathBuf], limit: u64) -> io::Result<()>;

    /// Mounts a file system for writing.
    fn mount(&mut self, source: &str, fstype: &str, at: &Path, limit: u64) -> io::Result<()>;
    /// umount(2), not lazily.
    fn unmount(&mut self, path: &Path, limit: u64) -> io::Result<()>;
    /// Makes the file system read-only.
    fn remount_read_only(&mut self, path: &Path, limit: u64) -> io::Result<()>;
    /// The mount tables of all other processes, joined: what another mount namespace still shows.
    fn mounts_of_others(&mut self) -> io::Result<Vec<Mount>>;
    /// Opens the block device exclusively and closes it again: EBUSY says that a file system lives on it; ENXIO, ENODEV
    /// and ENOENT that there is nothing that could be in use; anything else that it could not be asked. It says nothing
    /// about jffs2, which does not hold its block device.
    fn open_exclusively(&mut self, major: u32, minor: u32, limit: u64) -> io::Result<()>;
    /// Writes a file in RAM, whole or not at all, and makes its directory.
    fn write_text(&mut self, path: &Path, text: &str) -> io::Result<()>;
    /// Writes handover.json.
    fn write_report(&mut self, path: &Path, report: &Report) -> io::Result<()>;
    /// Executes /sbin/init with a clean environment. Returns in a test double only.
    fn exec_init(&mut self, init: &Path) -> io::Result<()>;

    /// sync(2).
    fn sync(&mut self, limit: u64) -> io::Result<()>;
    /// reboot(2). Returns in a test double only.
    fn end(&mut self, ending: Ending);
}

/// How far a change of propagation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This mount alone.
    One,
    /// This mount and all below it.
    All,
}

/// A device that can be detached from what it lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// `/dev/loopN` with that backing file.
    Loop {
        /// Its number.
        number: u32,
        /// The file it shows.
        backing: String,
    },
    /// `/dev/ubiN` with that MTD device.
    Ubi {
        /// Its number.
        number: u32,
        /// The MTD device's number, if sysfs tells.
        mtd: Option<u32>,
    },
}

impl Attached {
    /// Whether a file system with this source, as the mount table tells it, is a volume of this UBI device: `ubi0:data`,
    /// `ubi0_1`, and `ubi:data`, which is one of the first device. Of a loop device it is never said: what it lies on
    /// could not be unmounted if it stayed.
    #[must_use]
    pub fn holds(&self, source: &str) -> bool {
        let Self::Ubi { number, .. } = self else { return false };
        let name = source.strip_prefix("/dev/").unwrap_or(source);
        let Some(rest) = name.strip_prefix("ubi") else { return false };
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let volume = rest.strip_prefix(digits.as_str()).unwrap_or_default();
        let device = if digits.is_empty() { Ok(0) } else { digits.parse() };
        device.as_ref() == Ok(number) && volume.starts_with([':', '!', '_'])
    }
}

impl std::fmt::Display for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loop { number, backing } => write!(f, "/dev/loop{number} ({backing})"),
            Self::Ubi { number, .. } => write!(f, "/dev/ubi{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_known_by_the_number_of_its_ubi_device() {
        let device = |number| Attached::Ubi { number, mtd: None };
        for source in ["ubi1:data", "ubi1!data", "ubi1_0", "/dev/ubi1_3"] {
            assert!(
                device(1).holds(source) && !device(0).holds(source) && !device(11).holds(source),
                "{source}"
            );
        }
        assert!(device(0).holds("ubi:data") && !device(1).holds("ubi:data"));
        for source in ["ubi1", "/dev/ubiblock1_0", "/dev/mtdblock1", "1:data", "ubi99999999999:x"] {
            assert!(!device(1).holds(source) && !device(0).holds(source), "{source}");
        }
        assert!(!Attached::Loop { number: 1, backing: String::new() }.holds("/dev/loop1"));
    }
}
