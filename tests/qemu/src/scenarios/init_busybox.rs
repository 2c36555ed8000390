//! busybox's init as the system's PID 1, with /run small and without programs.

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
    name: "a_device_with_busybox_init_levitates_reflashes_itself_and_stays_what_it_is",
    board: Board::Virt,
    limit: minutes(10),
    run,
}];

fn run(assets: &Assets) -> Result<(), Failure> {
    let promise = Promise {
        system: System::Busybox,
        program: "/usr/bin/busybox",
        halt: "halt",
        small_run: true,
        lets_flash_be: true,
        stuck: Some(Stuck {
            // its first act would be a sync that never ends
            reboot: "reboot -n",
            says: "PID 1 did not execute the hand-over; resetting into the old system",
        }),
        armed,
        entered: inits::nothing_more,
        leave: line::reboot,
    };
    inits::keep(assets, &promise)
}

/// Every name of busybox's still leads to busybox, and PID 1 has its one more line.
fn armed(machine: &Machine) -> Result<(), Failure> {
    let broken = "for name in /usr/bin/* /usr/sbin/*; do [ -x \"$name\" ] || echo \"$name\"; done";
    let broken = machine.ssh.succeed(broken)?;
    check!(broken.is_empty(), "these cannot be run any more: {broken}");
    for (command, says) in [
        ("/usr/bin/ip addr show lo", "127.0.0.1"),
        ("/usr/bin/awk 'BEGIN { print 6 * 7 }'", "42"),
        ("readlink /usr/sbin/reboot", "../bin/busybox"),
        ("cat /etc/inittab", "::restart:/run/levitate/arm/restart"),
    ] {
        let said = machine.ssh.succeed(command)?;
        check!(said.contains(says), "{command} says {said}");
    }
    let kept = machine.ssh.succeed("pidof linuxrc | wc -w")?;
    check!(kept == "1", "{kept} processes keep /run, expected one");
    Ok(())
}
