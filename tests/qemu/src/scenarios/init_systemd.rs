//! systemd as the system's PID 1, with /run small and without programs.

use super::inits::{self, Promise};
use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::System;
use crate::machine::Machine;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_device_with_systemd_levitates_reflashes_itself_and_stays_what_it_is",
    board: Board::Virt,
    limit: minutes(10),
    run,
}];

fn run(assets: &Assets) -> Result<(), Failure> {
    let promise = Promise {
        system: System::Systemd,
        program: "/usr/lib/systemd/systemd",
        halt: "halt",
        lets_flash_be: false,
        armed,
        entered,
    };
    inits::keep(assets, &promise)
}

/// What the initramfs left is not in the way, and is there again after an abort.
fn armed(machine: &Machine) -> Result<(), Failure> {
    let link = machine.ssh.succeed("readlink /run/initramfs")?;
    check!(link == "maintenance", "/run/initramfs leads to {link}");
    let options = machine.ssh.succeed("grep ' /run ' /proc/mounts")?;
    check!(!options.contains("noexec"), "/run still runs no programs: {options}");
    Ok(())
}

/// systemd starts the watchdog for its reboot and leaves it running: somebody must feed it now.
fn entered(machine: &Machine) -> Result<(), Failure> {
    let report = machine.ssh.succeed("cat /run/levitate/handover.json")?;
    check!(report.contains("/dev/watchdog"), "nobody feeds the watchdog: {report}");
    Ok(())
}
