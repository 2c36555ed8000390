//! Signals that would end the process wait while it changes the living system.

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use nix::sys::signal::{SigSet, Signal};

/// What a lost session, a user's keys and whoever ends processes politely send. SIGPIPE is ignored from the start, by
/// Rust's own start-up code; SIGTSTP stops the process, and whoever does that can continue it.
const WAIT: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// While it lives, this thread is not ended by signals that can wait. What came meanwhile is dropped with it: by then the
/// change is whole or taken back, and that is told.
/// A program that is started meanwhile is to be [`unblocked`].
#[derive(Debug)]
pub(crate) struct Unbroken {
    waiting: SigSet,
    before: SigSet,
}

impl Unbroken {
    /// From here on. Signals that the process ignores already (`nohup`) are left alone.
    pub(crate) fn begin() -> nix::Result<Self> {
        let waiting: SigSet = WAIT.into_iter().filter(|signal| would_end(*signal)).collect();
        let before = SigSet::thread_get_mask()?;
        waiting.thread_block()?;
        Ok(Self { waiting, before })
    }

    /// The signal that somebody has sent since, if somebody has; each is told once.
    pub(crate) fn asked_to_stop(&self) -> Option<Signal> {
        take_pending(&self.waiting)
    }
}

impl Drop for Unbroken {
    fn drop(&mut self) {
        while self.asked_to_stop().is_some() {}
        // it was the mask a moment ago
        let _ = self.before.thread_set_mask();
    }
}

/// The program blocks no signal when it starts, whatever this process does.
#[allow(unsafe_code)]
pub(crate) fn unblocked(command: &mut Command) {
    let empty = || SigSet::empty().thread_set_mask().map_err(Into::into);
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(empty) };
}

/// Whether the signal has its default effect.
#[allow(unsafe_code)]
fn would_end(signal: Signal) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action sigaction(2) only fills the structure that it is given, and any bytes are one.
    let now = unsafe {
        libc::sigaction(signal as i32, ptr::null(), now.as_mut_ptr());
        now.assume_init()
    };
    now.sa_sigaction == libc::SIG_DFL
}

/// Takes one of these signals if it waits; they must be blocked.
#[allow(unsafe_code)]
fn take_pending(signals: &SigSet) -> Option<Signal> {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both structures live through the call, which writes to neither; what it would tell of the sender is not
    // asked for.
    let number = unsafe { libc::sigtimedwait(signals.as_ref(), ptr::null_mut(), &raw const at_once) };
    Signal::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_signal_waits_is_told_once_and_ends_nobody_afterwards() {
        let unbroken = Unbroken::begin().unwrap();
        assert_eq!(unbroken.asked_to_stop(), None);
        for signal in WAIT {
            raise(signal).unwrap();
            assert_eq!(unbroken.asked_to_stop(), Some(signal));
        }
        assert_eq!(unbroken.asked_to_stop(), None);
        raise(Signal::SIGTERM).unwrap();
        drop(unbroken);
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
    }

    #[test]
    fn a_program_that_is_started_meanwhile_can_be_ended_as_ever() {
        let _unbroken = Unbroken::begin().unwrap();
        let mut command = Command::new("/bin/grep");
        command.args(["^SigBlk", "/proc/self/status"]);
        unblocked(&mut command);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(said.split_whitespace().last(), Some("0000000000000000"), "{said}");
    }

    #[test]
    #[allow(unsafe_code)]
    fn a_signal_that_is_ignored_already_is_nobodys_wish() {
        // no other test sends this one
        let ignored = Signal::SIGUSR2;
        assert!(would_end(ignored));
        // SAFETY: ignoring a signal installs no handler.
        unsafe { nix::sys::signal::signal(ignored, nix::sys::signal::SigHandler::SigIgn) }.unwrap();
        assert!(!would_end(ignored));
    }
}
