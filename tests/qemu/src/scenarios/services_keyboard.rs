//! Ctrl-alt-del at a real keyboard: the kernel asks PID 1, and PID 1 asks flash.

use super::minutes;
use super::services_alone::RootOf;
use crate::assets::Assets;
use crate::boards::ast2600::{CHIP, KERNEL};
use crate::check::check;
use crate::firmware::ast2600::{self, Rescue};
use crate::line;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "services_ctrl_alt_del_waits_for_flashcp_as_reboot_does_and_then_restarts_the_board",
    board: Board::Ast2600,
    limit: minutes(8),
    run,
}];

/// Bytes that are flashed, all zero.
const IMAGE: usize = 131_072;
/// flashcp holds the flash half written for as long as its sender is silent: until PID 1 has said that it waits.
const FLASH: &str = "#!/bin/sh
sender() {
	head -c 65536 /dev/zero
	until grep -q changing /run/levitate/flash.json 2>/dev/null; do sleep 1; done
	until grep -q -i keyboard /proc/bus/input/devices; do sleep 1; done
	echo half written > /dev/console
	until grep -q 'reboot: waiting' /run/log/current; do sleep 1; done
	s6-svc -t other
	until grep -q 'other: process ended' /run/log/current; do sleep 1; done
	echo the other half > /dev/console
	head -c 65536 /dev/zero
}
sender | flashcp --size 131072 - mtd:kernel
";

const FILES: &[(&str, &str)] = &[
    ("etc/shadow", "root:*:20000::::::\n"),
    ("etc/levitate/services/default/type", "bundle\n"),
    ("etc/levitate/services/default/contents", "flash\nother\n"),
    ("etc/levitate/services/modules/type", "oneshot\n"),
    (
        "etc/levitate/services/modules/up",
        "#!/bin/sh\nwhile read -r module; do insmod $module || exit 1; done < /etc/modules\n",
    ),
    ("etc/levitate/services/flash/type", "oneshot\n"),
    ("etc/levitate/services/flash/dependencies", "modules\n"),
    ("etc/levitate/services/flash/up", FLASH),
    ("etc/levitate/services/other/type", "longrun\n"),
    ("etc/levitate/services/other/run", "#!/bin/sh\nexec sleep 100000\n"),
];

fn run(assets: &Assets) -> Result<(), Failure> {
    let (rescue, armhf) = (Rescue::build(assets)?, ast2600::parts(assets)?);
    let mut device = rescue.device(assets, &vec![0xff; usize::try_from(CHIP).map_err(Failure::harness)?])?;
    device.log_chip = false;
    let root = device.file("root");
    let own = RootOf {
        binary: &armhf.device_binary,
        busybox: &armhf.guest_root.join("bin/busybox"),
        commands: &["flashcp", "s6-svc"],
        programs: &["sh", "insmod", "sleep", "grep", "head"],
        files: FILES,
    };
    own.lay_out(&root)?;
    let boot = rescue.boot_with_keyboard(assets, &root)?;
    let mut machine = device.power_on(&boot)?;
    machine.console.wait_for("maintenance init started", 0, line::BOOT)?;
    machine.plug_keyboard()?;
    machine.console.wait_for("half written", 0, line::BOOT)?;

    machine.press(&["ctrl", "alt", "delete"])?;
    machine.console.wait_for("reboot: waiting, because flash is being changed by flashcp", 0, line::BOOT)?;
    machine.console.wait_for("reboot: stopping services", 0, line::BOOT)?;
    let text = machine.console.text();
    let at = |wanted: &str| text.find(wanted).unwrap_or(usize::MAX);
    check!(at("the other half") < at("reboot: stopping services"), "it did not wait:\n{text}");
    // Another boot of the same machine: the reset was a real one.
    machine.console.wait_for("maintenance init started", at("reboot: stopping services"), line::BOOT)?;
    let chip = std::fs::read(device.nor()).map_err(Failure::harness)?;
    let start = usize::try_from(KERNEL.offset).map_err(Failure::harness)?;
    let written = chip.iter().skip(start).take_while(|byte| **byte == 0).count();
    check!(written == IMAGE, "{written} of {IMAGE} bytes are on the chip");
    Ok(())
}
