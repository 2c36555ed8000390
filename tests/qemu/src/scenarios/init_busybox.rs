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
        disarmed: without_linuxrc,
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

/// What a busybox built without `LINUXRC` has instead of its name.
const OTHER_NAME: &str = "linuxrX";

/// A busybox that is built without `LINUXRC` gets a `reboot` in front, and a folder of links over the one that has it: all
/// of them do what they did.
fn without_linuxrc(machine: &Machine) -> Result<(), Failure> {
    // one name is another one, so the program is as good as built without it
    let patch = format!(
        "sed s/linuxrc/{OTHER_NAME}/g /usr/bin/busybox > /tmp/busybox && chmod 755 /tmp/busybox && \
         mount -o bind /tmp/busybox /usr/bin/busybox && cmp -l /proc/1/exe /tmp/busybox | wc -l"
    );
    let changed = machine.ssh.succeed(&patch)?;
    check!(changed.parse().is_ok_and(|bytes: u32| (1..9).contains(&bytes)), "{changed} bytes were changed");
    let look = "cut -d' ' -f4- /proc/self/mountinfo; ls -l /usr/sbin /run/levitate/arm 2>&1; true";
    let run = "for name in /usr/sbin/*; do \
               echo \"$name: $(timeout 20 \"$name\" --help 2>&1 < /dev/null | head -n 4)\"; done";
    let (before, ran) = (machine.ssh.succeed(look)?, machine.ssh.succeed_for(run, line::BOOT)?);
    check!(ran.contains("/usr/sbin/reboot: BusyBox v"), "these are no applets:\n{ran}");

    let said = machine.ssh.succeed_for("levitate", line::STAGE)?;
    check!(said.contains("arming: cover /usr/sbin with "), "levitate says\n{said}");
    let reboot = machine.ssh.succeed("readlink /usr/sbin/reboot")?;
    check!(reboot == "/run/levitate/arm/reboot-0", "reboot leads to {reboot}");
    let runs = machine.ssh.succeed_for(run, line::BOOT)?;
    check!(runs == ran, "the names in /usr/sbin did:\n{ran}\nand do:\n{runs}");

    machine.ssh.succeed("levitate abort")?;
    let after = machine.ssh.succeed(look)?;
    check!(before == after, "abort left traces; before:\n{before}\nafter:\n{after}");
    // lazily: the shell that says so runs from it
    machine.ssh.succeed("umount -l /usr/bin/busybox && rm /tmp/busybox")?;
    Ok(())
}
