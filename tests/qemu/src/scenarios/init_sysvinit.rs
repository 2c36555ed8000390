//! Debian's sysvinit as the system's PID 1, with a table as Buildroot has it, where each reboot unmounts whatever is idle.

use super::inits::{self, Promise, Stuck};
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
        small_run: false,
        lets_flash_be: true,
        stuck: Some(Stuck {
            // the first act of `shutdown` would be a sync that never ends
            reboot: "telinit 6",
            says: "/bin/umount -a -r: not done within 5000 ms; handing over without it",
        }),
        armed,
        disarmed: inits::nothing_more,
        entered: inits::nothing_more,
        leave: line::reboot,
    };
    inits::keep(assets, &promise)
}

/// The device's own table, in which runlevel 6 has one line, ours, and runlevel 0 all that it had.
const ARMED: [&str; 10] = [
    "id:2:initdefault:",
    "si::sysinit:/etc/init.d/rcS",
    "lv00:6:wait:/run/levitate/arm/runlevel6",
    "shd0:0:wait:/etc/init.d/rcK",
    "shd1:0:wait:/sbin/swapoff -a",
    "shd2:0:wait:/bin/umount -a -r",
    "hlt0:0:wait:/etc/init.d/halt",
    "ca::ctrlaltdel:/sbin/shutdown -r now",
    "ss:2:respawn:/etc/boot/sshd",
    "wr:2:respawn:/etc/boot/writer",
];

/// The living system's commands are the real ones until the end: telinit speaks to PID 1.
fn armed(machine: &Machine) -> Result<(), Failure> {
    machine.ssh.succeed("telinit q")?;
    let table = machine.ssh.succeed("cat /etc/inittab")?;
    let lines: Vec<&str> = table.lines().skip(1).collect();
    check!(lines == ARMED, "/etc/inittab says:\n{table}");
    let runs = machine.ssh.succeed("readlink /proc/1/exe; readlink -f /sbin/telinit")?;
    check!(runs == "/usr/sbin/init\n/usr/sbin/init", "PID 1 and telinit are {runs}");
    Ok(())
}
