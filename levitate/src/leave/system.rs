//! The old system, for real.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ramdisk::init::interlock::{self, Gate};

use super::EXEC;
use super::patience::Leaving;
use crate::arm::ENTRY;
use crate::manifest::{HandoverLimits, MANIFEST, Manifest};

/// Whether a staged root can be entered.
pub(super) fn is_staged() -> bool {
    fs::metadata(ENTRY).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

/// For how long the old init's own shutdown is waited for, in milliseconds.
pub(super) fn shutdown_ms() -> u64 {
    let manifest = fs::read(Path::new("/run/maintenance").join(MANIFEST)).ok();
    let manifest = manifest.and_then(|text| serde_json::from_slice::<Manifest>(&text).ok());
    manifest.map_or_else(HandoverLimits::default, |manifest| manifest.handover).shutdown_ms
}

/// As long as the answer lives, `umount -a -r` neither takes /run or /proc away nor makes them read-only: the staged root
/// is in the one, and what is asked about PID 1 and about who changes flash is in the other.
pub(super) fn hold() -> Vec<File> {
    let mut unnamed = OpenOptions::new();
    unnamed.read(true).write(true).custom_flags(libc::O_TMPFILE);
    let held =
        [("/run", unnamed.open("/run")), ("/proc", OpenOptions::new().write(true).open("/proc/self/comm"))];
    let keep = |(what, file): (&str, io::Result<File>)| match file {
        Ok(file) => Some(file),
        Err(e) => {
            say(&format!("keep {what}: {e}"));
            None
        }
    };
    held.into_iter().filter_map(keep).collect()
}

pub(super) fn say(text: &str) {
    // nobody is left to be told that telling failed
    let _ = writeln!(io::stderr(), "levitate: {text}");
}

/// For a process that has no other place to say it. A console that nobody reads must not stop it.
pub(super) fn say_on_console(text: &str) {
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
    if let Ok(mut console) = options.open("/dev/console") {
        let _ = writeln!(console, "levitate: {text}");
    }
}

pub(super) struct OldSystem {
    /// Where lines are said.
    say: fn(&str),
    /// What was started last.
    child: Option<Child>,
}

impl OldSystem {
    pub(super) fn new(say: fn(&str)) -> Self {
        Self { say, child: None }
    }

    /// Starts a program without waiting until it is loaded.
    pub(super) fn start(&mut self, words: &[&OsStr]) -> io::Result<()> {
        self.child = Some(itself(words).spawn()?);
        Ok(())
    }
}

/// This program, which lies in RAM, and as it the one of `words`.
fn itself(words: &[&OsStr]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("leave").arg(EXEC).args(words);
    command
}

impl Leaving for OldSystem {
    fn now_ms(&mut self) -> u64 {
        crate::sys::handover::now_ms()
    }

    fn pause(&mut self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn say(&mut self, line: &str) {
        (self.say)(line);
    }

    fn gate(&mut self) -> Gate {
        interlock::look(Path::new("/run"), Path::new("/proc"))
    }

    fn begin(&mut self, command: &OsStr) -> io::Result<()> {
        let mut shell = itself(&["/bin/sh".as_ref(), "-c".as_ref(), command]);
        crate::sys::privilege::without_reboot(&mut shell);
        self.child = Some(shell.spawn()?);
        Ok(())
    }

    fn ended(&mut self) -> Option<io::Result<()>> {
        let Some(child) = &mut self.child else { return Some(Ok(())) };
        match child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) if status.success() => Some(Ok(())),
            Ok(Some(status)) => Some(Err(io::Error::other(status.to_string()))),
            Err(e) => Some(Err(e)),
        }
    }

    fn handed_over(&mut self) -> bool {
        is_this_program(Path::new("/proc/1/exe"))
    }

    fn ask_again(&mut self) {
        // what cannot be told does not shut down, and is reset in the end
        let _ = kill(Pid::from_raw(1), Signal::SIGTERM);
    }

    fn sync(&mut self, limit_ms: u64) -> io::Result<()> {
        crate::sys::handover::sync_within(limit_ms)
    }

    fn reset(&mut self) -> io::Error {
        let Err(e) = reboot(RebootMode::RB_AUTOBOOT);
        e.into()
    }
}

/// Whether the link `exe` of /proc leads to the file that runs here: the hand-over is the same file of the staged root.
fn is_this_program(exe: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((identity(exe), identity(Path::new("/proc/self/exe"))), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_1_is_the_hand_over_when_it_runs_the_same_file_by_whatever_name() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("exe");
        assert!(!is_this_program(&exe), "nothing is known");
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &exe).unwrap();
        assert!(is_this_program(&exe));
        fs::remove_file(&exe).unwrap();
        std::os::unix::fs::symlink("/bin/sh", &exe).unwrap();
        assert!(!is_this_program(&exe));
    }
}
