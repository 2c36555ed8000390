//! The old system's last steps, where its init cannot be given a program to execute but has to be told at the right
//! moment: what runs between `reboot` and the hand-over. As processes of their own, not as PID 1.

mod patience;

mod lines;
mod system;

mod keeper;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ramdisk::path::Root;

pub use self::keeper::keep;
use self::lines::Line;
use self::system::{OldSystem, is_staged, say, shutdown_ms};
use crate::arm::processes;
use crate::run_mount::Mounts;

/// The name of the process that takes signals in busybox init's place, and keeps /run mounted and writable.
pub const KEEPER: &str = "linuxrc";
/// A copy of sysvinit's program: `telinit` is a link to it, which shows the hand-over once that is bound over it.
pub const TELINIT: &str = "/run/levitate/arm/telinit";
/// What is bound over sysvinit's program.
pub const NEXT_INIT: &str = "/run/levitate/arm/init";

/// What one of our own processes executes, so that loading a program from a disk which is silent stops only that one.
const EXEC: &str = "exec";

/// `levitate leave busybox`: waits for who changes flash, if there is somebody, then has PID 1 run its shutdown and
/// execute the hand-over. `levitate leave sysvinit PROGRAM (wait|once COMMAND)...`: runlevel 6. Waits for the same. Runs
/// the COMMANDs in their order, which end everything and would reset the board last, but may not: reset is a capability
/// that they do not get. All together have as long as the staged root's manifest says. Then makes PID 1 execute the
/// hand-over. Whatever fails or hangs, the board is reset, but never while somebody changes flash. Answers with 0 once
/// PID 1 is the hand-over, and with another exit code if nothing was done: the caller then goes on without it.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.collect();
    let (how, rest) =
        args.split_first().map_or(("", &[][..]), |(how, rest)| (how.to_str().unwrap_or(""), rest));
    match (how, rest) {
        (EXEC, [program, words @ ..]) => {
            let e = Command::new(program).args(words).exec();
            say(&format!("run {}: {e}", program.display()));
            127
        }
        ("busybox", []) => busybox(),
        ("sysvinit", [program, words @ ..]) => match lines::parse(words) {
            Some(lines) => sysvinit(Path::new(program), &lines),
            None => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> u8 {
    say("leave: expected busybox, or sysvinit, a program and lines; nothing was done");
    2
}

fn sysvinit(program: &Path, lines: &[Line]) -> u8 {
    if !is_staged() {
        return 1;
    }
    // One of the lines may unmount whatever is idle.
    let _held = system::hold();
    let mut sys = OldSystem::new(say);
    if let Err(e) = lines::run(&mut sys, lines, shutdown_ms()) {
        say(&format!("run the lines of runlevel 6: {e}"));
        return 1;
    }
    let told = tell_sysvinit(&mut sys, program);
    patience::see_to_the_end(&mut sys, told, patience::PATIENCE_MS)
}

fn tell_sysvinit(sys: &mut OldSystem, program: &Path) -> io::Result<()> {
    let failed = |what: String| move |e: io::Error| io::Error::other(format!("{what}: {e}"));
    let bound = crate::arming::KernelMounts.bind(Path::new(NEXT_INIT), program);
    bound.map_err(failed(format!("bind {NEXT_INIT} over {}", program.display())))?;
    sys.start(&[TELINIT.as_ref(), "u".as_ref()]).map_err(failed(format!("run {TELINIT}")))?;
    patience::wait_for_the_end(sys, patience::PATIENCE_MS).map_err(failed("telinit u".to_owned()))
}

/// The keeper tells PID 1, and sees to it that the device comes back.
fn busybox() -> u8 {
    if !is_staged() {
        return 1;
    }
    patience::let_flash_be(&mut OldSystem::new(say));
    let told = match processes::named(&Root::new("/"), KEEPER).first() {
        Some(keeper) => kill(Pid::from_raw(*keeper), Signal::SIGTERM),
        None => kill(Pid::from_raw(1), Signal::SIGQUIT),
    };
    match told {
        Ok(()) => 0,
        Err(e) => {
            say(&format!("tell PID 1: {e}"));
            1
        }
    }
}
