//! The reset that comes whatever else happens: by alarm, by panic, by decision.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};

use crate::handover::seam::Ending;

/// Where the alarm's handler can leave its last words: the kernel log and the persistent message log; -1 is none.
pub(super) static LAST_WORDS: [AtomicI32; 2] = [AtomicI32::new(-1), AtomicI32::new(-1)];

const TIME_IS_UP: &[u8] =
    b"<3>levitate: hand-over failed: its deadline has passed; resetting into the old system\n";

const TIME_IS_UP_AT_THE_END: &[u8] =
    b"<3>levitate: the file systems were not left clean in time; ending without that\n";

/// What the alarm's handler asks reboot(2) for.
static WANTED: AtomicI32 = AtomicI32::new(libc::RB_AUTOBOOT);

/// After `ms` milliseconds, rounded up to whole seconds, the system ends as wanted whatever this process is doing, unless it
/// sits in the kernel uninterruptibly: which is why everything that could is done in a child.
#[allow(unsafe_code)]
pub(super) fn arm(ms: u64, ending: Ending) {
    WANTED.store(mode(ending), Ordering::Relaxed);
    // SAFETY: the handler calls write and reboot, which are async-signal-safe, and touches atomics alone.
    let installed = unsafe { signal(Signal::SIGALRM, SigHandler::Handler(time_is_up)) };
    if installed.is_ok() {
        let seconds = u32::try_from(ms.div_ceil(1_000)).unwrap_or(u32::MAX).max(1);
        nix::unistd::alarm::set(seconds);
    }
}

/// No alarm any more: an alarm goes on over an execve, its handler does not.
pub(super) fn disarm() {
    nix::unistd::alarm::cancel();
}

#[allow(unsafe_code)]
extern "C" fn time_is_up(_signal: i32) {
    let wanted = WANTED.load(Ordering::Relaxed);
    let words = if wanted == libc::RB_AUTOBOOT { TIME_IS_UP } else { TIME_IS_UP_AT_THE_END };
    for fd in &LAST_WORDS {
        let fd = fd.load(Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: write(2) with a static buffer and its length; a descriptor closed meanwhile is EBADF.
            unsafe { libc::write(fd, words.as_ptr().cast(), words.len()) };
        }
    }
    commands(wanted).into_iter().for_each(ask);
}

/// reboot(2). Comes back only where the kernel refuses.
#[allow(unsafe_code)]
fn ask(command: i32) {
    // SAFETY: reboot(2) with a command that takes no argument has no effect on this process's memory.
    unsafe { libc::reboot(command) };
}

/// What is asked for, in this order: the kernel refuses to execute another one if none is loaded, and the alarm comes
/// only once.
fn commands(wanted: i32) -> [i32; 2] {
    [wanted, libc::RB_AUTOBOOT]
}

/// A panic of PID 1 is a reset; a panic in one of its children ends that child and nothing else.
pub(super) fn reset_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        if !super::is_pid_1() {
            exit_now();
        }
        super::voice::Voice::open(std::path::Path::new("/dev"))
            .say(crate::handover::seam::Weight::Failure, &format!("hand-over failed: {info}"));
        end(Ending::Reset);
    }));
}

#[allow(unsafe_code)]
fn exit_now() -> ! {
    // SAFETY: _exit ends this process without unwinding into what belongs to its parent.
    unsafe { libc::_exit(5) }
}

fn mode(ending: Ending) -> i32 {
    match ending {
        Ending::Reset => libc::RB_AUTOBOOT,
        Ending::Poweroff => libc::RB_POWER_OFF,
        Ending::Halt => libc::RB_HALT_SYSTEM,
        Ending::Kexec => libc::RB_KEXEC,
    }
}

/// reboot(2). Where even a reset fails, PID 1 exits: a kernel panic, which the panic timeout turns into a reset.
pub(super) fn end(ending: Ending) -> ! {
    commands(mode(ending)).into_iter().for_each(ask);
    for trigger in ["/proc/sysrq-trigger", "/run/maintenance/proc/sysrq-trigger"] {
        // One of the two exists, depending on how far the hand-over went.
        let _ = std::fs::write(trigger, "b");
    }
    std::process::exit(1)
}

/// Every signal to its default and none blocked; the guard's own handler stays.
pub(super) fn reset_signals() -> io::Result<()> {
    default_dispositions(Some(libc::SIGALRM));
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// The same for the program to be executed, which gets nothing of ours.
pub(super) fn reset_all_signals() -> io::Result<()> {
    default_dispositions(None);
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// By the bare system call: the C library's own refuses the two real-time signals that it keeps for itself, and a
/// signal that the old PID 1 ignored stays ignored over an execve.
#[allow(unsafe_code)]
fn default_dispositions(but: Option<i32>) {
    // The kernel's sigset_t in bytes, which the call insists on (_NSIG / 8): MIPS alone has 128 signals.
    const SET: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 16 } else { 8 };
    // Whatever the order of its fields on this processor, all zeros is SIG_DFL without flags; and it is large enough.
    let default = [0_u64; 8];
    for which in (1..=i32::try_from(SET * 8).unwrap_or(64)).filter(|which| Some(*which) != but) {
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: the kernel reads at most 64 bytes behind the pointer, writes nothing, and installs no function.
        // SIGKILL and SIGSTOP are refused, which changes nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, which, default.as_ptr(), none, SET) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarms_handler_ends_the_system_as_it_was_asked_to() {
        // An hour from now, and taken back at once.
        for (ending, command) in [
            (Ending::Poweroff, libc::RB_POWER_OFF),
            (Ending::Halt, libc::RB_HALT_SYSTEM),
            (Ending::Kexec, libc::RB_KEXEC),
            (Ending::Reset, libc::RB_AUTOBOOT),
        ] {
            arm(3_600_000, ending);
            disarm();
            let wanted = WANTED.load(Ordering::Relaxed);
            assert_eq!(wanted, command, "{ending:?}");
            // the alarm comes once, and a kexec without a kernel is refused
            assert_eq!(commands(wanted), [command, libc::RB_AUTOBOOT], "{ending:?}");
        }
    }
}
