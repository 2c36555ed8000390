//! What keeps the process alive while flash is changed.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::signal::{SigHandler, Signal, signal};

/// The signals of a lost session, of a user's keys, and of a closed pipe.
const IGNORED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGPIPE,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// From here on these signals no longer end or stop the process. Until here they did, as everywhere.
#[allow(unsafe_code)]
pub(crate) fn ignore_session_signals() -> nix::Result<()> {
    for number in IGNORED {
        // SAFETY: ignoring a signal installs no handler, so no code can run in a signal's context.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// SIGPIPE's default: ends the process, as it does any filter's. Rust's start-up code ignores it instead.
#[allow(unsafe_code)]
pub(crate) fn default_pipe_signal() -> nix::Result<()> {
    // SAFETY: the default disposition installs no handler.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map(drop)
}

/// Keeps every page, present and future, in memory. An error (no privilege, a limit) leaves things as they were.
pub(crate) fn lock_pages() -> nix::Result<()> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
}

/// Takes the process off the list of those that are killed when memory runs out. Needs privilege.
pub(crate) fn spare_from_oom() -> std::io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "-1000")
}
