//! The old system's last steps, where its init cannot be given a program to execute but has to be told at the right
//! moment: what runs between `reboot` and the hand-over. As processes of their own, not as PID 1.

mod patience;

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use ramdisk::init::interlock::{self, Gate};

use self::patience::Leaving;
use crate::arm::ENTRY;
use crate::run_mount::Mounts;

/// The name of the process that takes signals in busybox init's place, and keeps /run mounted and writable.
pub const KEEPER: &str = "linuxrc";
/// A copy of sysvinit's program: `telinit` is a link to it, which shows the hand-over once that is bound over it.
pub const TELINIT: &str = "/run/levitate/arm/telinit";
/// What is bound over sysvinit's program.
pub const NEXT_INIT: &str = "/run/levitate/arm/init";

/// PID 1 does what it is told within seconds, if it does it at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a staged root can be entered.
fn is_staged() -> bool {
    fs::metadata(ENTRY).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

fn say(text: &str) {
    // nobody is left to be told that telling failed
    let _ = writeln!(io::stderr(), "levitate: {text}");
}

/// For a process that has no other place to say it. A console that nobody reads must not stop it.
fn say_on_console(text: &str) {
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
    if let Ok(mut console) = options.open("/dev/console") {
        let _ = writeln!(console, "levitate: {text}");
    }
}

/// `levitate leave flash`: waits for who changes flash, if there is somebody. `levitate leave sysvinit PROGRAM COMMAND`:
/// runlevel 6. Waits for the same. Runs COMMAND, which ends everything and would reset the board
/// last, but may not: reset is a capability that it does not get. Then makes PID 1 execute the hand-over. Whatever
/// fails, the board is reset, but never while somebody changes flash. Answers with 0 once PID 1 is the hand-over, and
/// with another exit code if nothing was done: the caller then goes on without it.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.collect();
    if args.as_slice() == ["flash"] {
        patience::let_flash_be(&mut OldSystem { say });
        return 0;
    }
    let [init, program, command] = args.as_slice() else {
        say("leave: expected flash, or sysvinit, a program and a command; nothing was done");
        return 2;
    };
    if init != "sysvinit" || !is_staged() {
        return 1;
    }
    // the command ends everybody
    patience::let_flash_be(&mut OldSystem { say });
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command);
    crate::sys::privilege::without_reboot(&mut shell);
    match shell.status() {
        Ok(status) => say(&format!("everything is stopped ({status}); handing over")),
        Err(e) => {
            say(&format!("run {}: {e}", command.display()));
            return 1;
        }
    }
    let told = tell_sysvinit(Path::new(program));
    patience::see_to_the_end(&mut OldSystem { say }, told)
}

/// The old system, for real.
struct OldSystem {
    /// Where lines are said.
    say: fn(&str),
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

    fn handed_over(&mut self) -> bool {
        is_this_program(Path::new("/proc/1/exe"))
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

fn tell_sysvinit(program: &Path) -> io::Result<()> {
    let failed = |what: String| move |e: io::Error| io::Error::other(format!("{what}: {e}"));
    let bound = crate::arming::KernelMounts.bind(Path::new(NEXT_INIT), program);
    bound.map_err(failed(format!("bind {NEXT_INIT} over {}", program.display())))?;
    let status = Command::new(TELINIT).arg("u").status().map_err(failed(format!("run {TELINIT}")))?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("telinit u: {status}"))) }
}

/// The process named [`KEEPER`], for as long as a maintenance root is armed under busybox init. Its working directory
/// and an open file keep `umount -a -r` from taking /run or making it read-only. busybox's `reboot`, `poweroff` and `halt`
/// send it the signal that they would send PID 1: SIGTERM becomes SIGQUIT, the others are passed on; each of them only
/// when nobody changes flash, because PID 1 then ends everybody before it executes the hand-over.
pub fn keep() -> u8 {
    match keep_on() {
        Ok(()) => 0,
        Err(e) => {
            say(&format!("keep /run: {e}"));
            1
        }
    }
}

fn keep_on() -> io::Result<()> {
    let mut wanted = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGINT] {
        wanted.add(signal);
    }
    wanted.thread_block()?;
    let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC)?;
    // a session leader already, if it was started by hand
    let _ = nix::unistd::setsid();
    fs::write("/proc/self/comm", KEEPER)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE);
    let _open = options.open("/run")?;
    loop {
        let Some(signal) = signals.read_signal()? else { continue };
        let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
        // PID 1 ends everybody at the end; that is no wish of a user's
        if let Some(passed) = pass_on(number, signal.ssi_pid, is_staged()) {
            patience::let_flash_be(&mut OldSystem { say: say_on_console });
            kill(Pid::from_raw(1), passed)?;
            if passed == Signal::SIGQUIT {
                std::thread::sleep(PATIENCE);
                // still here: it has no restart action any more
                kill(Pid::from_raw(1), Signal::SIGTERM)?;
            }
        }
    }
}

/// What PID 1 is to get for a signal of number `number` from process `from`.
fn pass_on(number: i32, from: u32, staged: bool) -> Option<Signal> {
    match Signal::try_from(number).ok()? {
        _ if from <= 1 => None,
        Signal::SIGTERM if staged => Some(Signal::SIGQUIT),
        signal @ (Signal::SIGTERM | Signal::SIGUSR1 | Signal::SIGUSR2) => Some(signal),
        _ => None,
    }
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

    #[test]
    fn reboot_becomes_the_restart_action_and_poweroff_and_halt_stay_what_they_are() {
        for (signal, staged, passed) in [
            (libc::SIGTERM, true, Some(Signal::SIGQUIT)),
            (libc::SIGTERM, false, Some(Signal::SIGTERM)),
            (libc::SIGUSR1, true, Some(Signal::SIGUSR1)),
            (libc::SIGUSR2, true, Some(Signal::SIGUSR2)),
            (libc::SIGHUP, true, None),
        ] {
            assert_eq!(pass_on(signal, 77, staged), passed, "{signal}");
            assert_eq!(pass_on(signal, 1, staged), None, "PID 1 ends everybody");
        }
    }
}
