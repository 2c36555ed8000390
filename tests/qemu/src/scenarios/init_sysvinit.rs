//! Debian's sysvinit as the system's PID 1.

use super::inits::{self, Promise};
use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::System;
use crate::line;
use crate::machine::Machine;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_device_with_sysvinit_levitates_reflashes_itself_and_stays_what_it_is",
    board: Board::Virt,
    limit: minutes(10),
    run,
}];

fn run(assets: &Assets) -> Result<(), Failure> {
    let promise = Promise {
        system: System::Sysvinit,
        program: "/usr/sbin/init",
        halt: "shutdown -h -H now",
        lets_flash_be: true,
        armed,
        disarmed: inits::nothing_more,
        entered: inits::nothing_more,
        leave: line::reboot,
    };
    inits::keep(assets, &promise)
}

/// The living system's commands are the real ones until the end: telinit speaks to PID 1.
fn armed(machine: &Machine) -> Result<(), Failure> {
    machine.ssh.succeed("telinit q")?;
    let table = machine.ssh.succeed("cat /etc/inittab")?;
    check!(table.contains("l6:6:wait:/run/levitate/arm/runlevel6"), "/etc/inittab says:\n{table}");
    check!(table.contains("l0:0:wait:/etc/init.d/rc 0"), "runlevel 0 was changed:\n{table}");
    let runs = machine.ssh.succeed("readlink /proc/1/exe; readlink -f /sbin/telinit")?;
    check!(runs == "/usr/sbin/init\n/usr/sbin/init", "PID 1 and telinit are {runs}");
    Ok(())
}
