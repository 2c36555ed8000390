//! The next program in this process, and the clock that goes on over it.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};

use super::guard;
use super::watchdog::{self, Held};
use crate::handover::RESUME;
use crate::handover::journey::Journey;

const PATH: &str = "PATH=/sbin:/bin:/usr/sbin:/usr/bin";

/// Milliseconds of the monotonic clock, which an execve does not reset.
pub(super) fn now_ms() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

/// Executes the staged copy; answers why that failed.
pub(super) fn exec_self(program: &Path, journey: &Journey, watchdogs: &[Held]) -> io::Error {
    let text = match serde_json::to_string(journey) {
        Ok(text) => text,
        Err(e) => return e.into(),
    };
    exec(program, &["levitate", "handover", RESUME, &text], watchdogs)
}

/// Executes the new init with a clean environment; answers why that failed.
pub(super) fn exec_init(init: &Path, watchdogs: &[Held]) -> io::Error {
    guard::disarm();
    if let Err(e) = guard::reset_all_signals() {
        return e;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    exec(init, &["init"], watchdogs)
}

fn exec(program: &Path, args: &[&str], watchdogs: &[Held]) -> io::Error {
    match try_exec(program, args, watchdogs) {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

fn try_exec(program: &Path, args: &[&str], watchdogs: &[Held]) -> io::Result<Infallible> {
    let program = text(program.as_os_str())?;
    let args = args.iter().map(|arg| text(OsStr::new(arg))).collect::<io::Result<Vec<_>>>()?;
    let mut environment = vec![text(OsStr::new(PATH))?, text(OsStr::new("TERM=linux"))?];
    if let Some(variable) = watchdog::variable(watchdogs)? {
        environment.push(text(OsStr::new(&variable))?);
    }
    Ok(nix::unistd::execve(&program, &args, &environment)?)
}

fn text(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}
