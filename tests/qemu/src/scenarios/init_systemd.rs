//! systemd as the system's PID 1, with /run small and without programs; and OpenSSH as Debian has it as the way in, before
//! the hand-over and after it.

use std::sync::Once;

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
        disarmed: inits::nothing_more,
        entered,
        leave: hang,
    };
    inits::keep(assets, &promise)
}

/// Asking takes seconds, and `armed` is called more than once.
static ASKED: Once = Once::new();

/// Part of the image: what is carried over and back.
const CARRIED: usize = 1 << 20;

/// What the initramfs left is not in the way, and is there again after an abort.
fn armed(machine: &Machine) -> Result<(), Failure> {
    if !ASKED.is_completed() {
        ASKED.call_once(|| {});
        let said = machine.ssh.succeed_for("levitate check", line::STAGE)?;
        for line in ["services: sshd\n", "users who could log in: root (1 key", "`levitate` would work"] {
            check!(said.contains(line), "levitate check does not say {line:?}:\n{said}");
        }
        // nothing of OpenSSH or PAM is left for its owner to name
        check!(!said.contains("ssh server") && !said.contains("not staged"), "levitate check warns:\n{said}");
        check!(!said.contains("not tried:"), "something was not tried:\n{said}");
    }
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
    openssh(machine)?;
    let outlived = format!(
        "read now _ < /proc/uptime; test ${{now%.*}} -gt {until} -o \"$(cat /proc/sys/kernel/random/boot_id)\" != {boot}"
    );
    line::wait_until(machine, &outlived, RESET)?;
    check!(line::boot_id(machine)? == boot, "systemd's watchdog has reset the board");
    Ok(())
}

/// The server of the old system is that of this one: the client knows its host key already and refuses any other. PAM lets
/// root in, the lease sees who has logged in and nobody else, and files come over as they are.
fn openssh(machine: &Machine) -> Result<(), Failure> {
    let greeting = machine.ssh.greeting()?;
    check!(greeting.starts_with("SSH-2.0-OpenSSH"), "the server is {greeting:?}");
    let settings = machine.ssh.succeed("/usr/sbin/sshd -T")?;
    check!(settings.contains("usepam yes"), "sshd does not ask PAM:\n{settings}");
    let stranger = machine.ssh.connect(line::HAND_OVER)?;
    let lease = machine.ssh.succeed("levitate lease")?;
    drop(stranger);
    let (_, sessions) = lease.split_once("logged in: ").unwrap_or_default();
    check!(
        sessions.starts_with("root (") && sessions.matches("pid").count() == 1,
        "the lease knows of other sessions than this one: {lease}"
    );
    // what PAM sets for a session: Debian's environment for it, and limits
    let log = machine.ssh.succeed("cat /run/log/current")?;
    for trouble in ["PAM unable", "error parsing", "Missing privilege", "fatal:"] {
        check!(!log.contains(trouble), "sshd is not at ease:\n{log}");
    }
    machine.ssh.there_and_back_by_sftp(CARRIED)
}

/// With the chip rewritten, process 1 hangs: the same watchdog ends that, and the new firmware boots.
fn hang(machine: &Machine) -> Result<(), Failure> {
    let boot = line::boot_id(machine)?;
    let frozen = machine.ssh.succeed(FREEZE)?;
    check!(frozen.contains("frozen 1"), "PID 1 is not frozen: {frozen}");
    let other = format!("test \"$(cat /proc/sys/kernel/random/boot_id)\" != {boot}");
    line::wait_until(machine, &other, RESET)
}
