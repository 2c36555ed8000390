//! The process that takes signals in busybox init's place.

use std::fs;
use std::io;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::KEEPER;
use super::patience;
use super::system::{self, OldSystem, is_staged, say, say_on_console, shutdown_ms};

/// The process named [`KEEPER`], for as long as a maintenance root is armed under busybox init. Its working directory
/// and open files keep `umount -a -r` from taking /run and /proc or making them read-only. busybox's `reboot`, `poweroff`
/// and `halt` send it the signal that they would send PID 1: SIGTERM becomes SIGQUIT, the others are passed on; each of
/// them only when nobody changes flash, because PID 1 then ends everybody before it executes the hand-over. PID 1 runs its
/// shutdown actions without a deadline: where it does not get through them in time, this process resets the board.
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
    let _held = system::hold();
    loop {
        let Some(signal) = signals.read_signal()? else { continue };
        let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
        // PID 1 ends everybody at the end; that is no wish of a user's
        if let Some(passed) = pass_on(number, signal.ssi_pid, is_staged()) {
            let mut sys = OldSystem::new(say_on_console);
            patience::let_flash_be(&mut sys);
            kill(Pid::from_raw(1), passed)?;
            if passed == Signal::SIGQUIT {
                patience::see_to_the_end(&mut sys, Ok(()), shutdown_ms());
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
