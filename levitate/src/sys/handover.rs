//! The hand-over's calls, made for real.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod child;
mod descriptors;
mod devices;
mod files;
mod guard;
mod image;
mod kernel;
mod proc;
mod sweep;
mod voice;
mod watchdog;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::voice::Voice;
use self::watchdog::Held;
use crate::handover::seam::{Ending, Weight};

/// This process as PID 1.
#[derive(Debug)]
pub(crate) struct Kernel {
    staged: PathBuf,
    voice: Voice,
    watchdogs: Vec<Held>,
}

impl Kernel {
    /// Takes over: the panic hook resets the board from here on, and the watchdogs that the image before this one left
    /// open are fed.
    pub(crate) fn new(staged: &Path) -> Self {
        guard::reset_on_panic();
        let mut kernel = Self {
            staged: staged.to_owned(),
            voice: Voice::open(Path::new("/dev")),
            watchdogs: Held::inherited(),
        };
        kernel.feed();
        kernel
    }

    /// The end where there is no journey to end: says why, and resets.
    pub(crate) fn give_up(&mut self, why: &str) -> ! {
        self.voice.say(Weight::Failure, why);
        guard::end(Ending::Reset)
    }

    /// Feeds this one too from now on; answers what it is.
    fn hold(&mut self, held: Held) -> crate::handover::report::Watchdog {
        let described = held.describe();
        self.watchdogs.push(held);
        described
    }

    fn feed(&mut self) {
        self.watchdogs.iter_mut().for_each(Held::feed);
    }

    /// Runs what can block and changes this process's own descriptors.
    fn on_our_descriptors(
        &mut self,
        limit: u64,
        job: &dyn Fn() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let watchdogs = &mut self.watchdogs;
        let mut feed = || watchdogs.iter_mut().for_each(Held::feed);
        let job = || job().map_err(|e| devices::errno(&e));
        child::run_on_our_descriptors(Duration::from_millis(limit), &mut feed, &job)
    }

    /// Runs what can block, in a child.
    fn in_child(&mut self, limit: u64, job: impl FnOnce() -> nix::Result<()>) -> std::io::Result<()> {
        let watchdogs = &mut self.watchdogs;
        let mut feed = || watchdogs.iter_mut().for_each(Held::feed);
        child::run(Duration::from_millis(limit), &mut feed, job)
    }
}

/// Who holds watchdogs, which watchdogs run, below `root` (`/` but in tests).
pub(crate) fn watchdog_facts(root: &Path) -> crate::handover::watchdog::WatchdogFacts {
    watchdog::facts(root)
}

/// Milliseconds of the monotonic clock.
pub(crate) fn now_ms() -> u64 {
    image::now_ms()
}

/// sync(2), given up after so many milliseconds. For a process with one thread.
pub(crate) fn sync_within(limit_ms: u64) -> std::io::Result<()> {
    child::run(Duration::from_millis(limit_ms), &mut || (), || {
        nix::unistd::sync();
        Ok(())
    })
}

/// Whether this process is PID 1.
pub(crate) fn is_pid_1() -> bool {
    std::process::id() == 1
}

/// procd changed the root directory and not the working directory, which therefore still leads to the old root. Where it
/// does not, the staged root is not found, and the hand-over says so.
pub(crate) fn leave_chroot() {
    let _ = nix::unistd::chroot(".");
    let _ = nix::unistd::chdir("/");
}

/// Says why nothing is done, and exits with 1.
pub(crate) fn refuse(why: &str) -> ! {
    // There is nobody else to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{why}");
    std::process::exit(1)
}
