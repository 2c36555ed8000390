//! systemd as the system's PID 1, with /run small and without programs.

use super::inits::{self, Promise};
use super::minutes;
use super::watchdog::{FREEZE, RESET};
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::System;
use crate::line;
use crate::machine::Machine;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_device_with_systemd_levitates_reflashes_itself_and_stays_what_it_is",
    board: Board::Virt,
    limit: minutes(10),
    run,
}];

/// What systemctl says of the setting.
const SETTING: &str = "RebootWatchdogUSec=15s";
/// What the kernel says when systemd leaves a watchdog running.
const LEFT_RUNNING: &str = "watchdog did not stop!";
/// Seconds in the maintenance root: more than systemd's 15, with which nobody fed would be reset.
const OUTLIVED: u64 = 25;

fn run(assets: &Assets) -> Result<(), Failure> {
    let promise = Promise {
        system: System::Systemd,
        program: "/usr/lib/systemd/systemd",
        halt: "halt",
        small_run: true,
        lets_flash_be: false,
        stuck: None,
        armed,
        entered,
        leave: hang,
    };
    inits::keep(assets, &promise)
}

/// What the initramfs left is not in the way, and is there again after an abort.
fn armed(machine: &Machine) -> Result<(), Failure> {
    let link = machine.ssh.succeed("readlink /run/initramfs")?;
    check!(link == "maintenance", "/run/initramfs leads to {link}");
    let options = machine.ssh.succeed("grep ' /run ' /proc/mounts")?;
    check!(!options.contains("noexec"), "/run still runs no programs: {options}");
    let setting = machine.ssh.succeed("systemctl show --property=RebootWatchdogUSec")?;
    check!(setting == SETTING, "systemd's watchdog for a reboot: expected {SETTING}, found {setting}");
    Ok(())
}

/// systemd starts the watchdog for its reboot (`RebootWatchdogSec` of this system's system.conf) and leaves it running:
/// the maintenance root outlives it, however long nothing happens there.
fn entered(machine: &Machine) -> Result<(), Failure> {
    let report = machine.ssh.succeed("cat /run/levitate/handover.json")?;
    check!(report.contains("/dev/watchdog"), "nobody feeds the watchdog: {report}");
    let console = machine.console.text();
    check!(console.contains(LEFT_RUNNING), "systemd did not leave its watchdog running:\n{console}");
    let boot = line::boot_id(machine)?;
    let uptime = machine.ssh.succeed("cut -d. -f1 /proc/uptime")?;
    let until = uptime.parse::<u64>().map_err(Failure::harness)? + OUTLIVED;
    let outlived = format!(
        "read now _ < /proc/uptime; test ${{now%.*}} -gt {until} -o \"$(cat /proc/sys/kernel/random/boot_id)\" != {boot}"
    );
    line::wait_until(machine, &outlived, RESET)?;
    check!(line::boot_id(machine)? == boot, "systemd's watchdog has reset the board");
    Ok(())
}

/// With the chip rewritten, process 1 hangs: the same watchdog ends that, and the new firmware boots.
fn hang(machine: &Machine) -> Result<(), Failure> {
    let boot = line::boot_id(machine)?;
    let frozen = machine.ssh.succeed(FREEZE)?;
    check!(frozen.contains("frozen 1"), "PID 1 is not frozen: {frozen}");
    let other = format!("test \"$(cat /proc/sys/kernel/random/boot_id)\" != {boot}");
    line::wait_until(machine, &other, RESET)
}
