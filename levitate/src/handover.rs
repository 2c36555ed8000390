//! The hand-over: what PID 1 does from the old root's last moment to the staged root's init.
//!
//! The old system's PID 1 executes this program as `/run/maintenance/exec`. The stages are those of [`stage::Stage`], gone
//! through by [`sequence`] over the calls of [`seam::HandoverSys`]. On any failure, and past the deadline, the board is
//! reset into the old system, which nothing here has changed; the reason goes to the console, the kernel log,
//! `/dev/pmsg0` and the state file, as far as each can still be reached. A power cut at any moment is the same as that
//! reset.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod stage;

pub mod entry;

pub mod seam;

#[cfg(feature = "fault-injection")]
pub mod fault;
pub mod journey;
pub mod sequence;

pub mod check;
pub mod watchdog;

pub mod processes;

pub mod ending;

pub mod mounts;
pub mod pivot;
pub mod unmount;

pub mod prove;
pub mod report;

use std::ffi::OsString;
use std::path::Path;

use self::entry::Entry;
use crate::manifest::STAGED_ROOT;
use crate::sys::handover::{self as real, Kernel};

/// The word that introduces the journey so far in the arguments of the second image.
pub const RESUME: &str = "--resume";

/// Runs the hand-over. It ends in the new init, in a reset, or, if the verb says so, in a poweroff or halt.
///
/// `args` are the program's arguments, its name first: they tell how PID 1 got here. As any other process than PID 1
/// it touches nothing and exits with 1.
pub fn run(args: impl Iterator<Item = OsString>) -> ! {
    let args: Vec<OsString> = args.collect();
    let entry = entry::of(&args);
    if !real::is_pid_1() {
        real::refuse(
            "levitate: the hand-over is for PID 1, which executes it at the end of `reboot`; nothing was done",
        );
    }
    if entry == Entry::Chrooted {
        real::leave_chroot();
    }
    let mut kernel = Kernel::new(Path::new(STAGED_ROOT));
    match resumed(args.into_iter()) {
        None => match entry {
            Entry::Pivoted { verb } => sequence::first_half_pivoted(&mut kernel, &verb),
            Entry::OldRoot | Entry::Chrooted => sequence::first_half(&mut kernel, Path::new(STAGED_ROOT)),
        },
        Some(text) => match serde_json::from_str(&text) {
            Ok(journey) => sequence::second_half(&mut kernel, journey),
            Err(e) => kernel.give_up(&format!("hand-over failed: the journey so far cannot be read: {e}")),
        },
    }
    kernel.give_up("hand-over failed: it came to an end that it does not have")
}

fn resumed(args: impl Iterator<Item = OsString>) -> Option<String> {
    let mut args = args.skip_while(|arg| arg != RESUME);
    args.next()?;
    Some(args.next().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default())
}
