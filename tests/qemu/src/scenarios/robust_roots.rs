//! Roots that are not a squashfs alone: a root of two layers, and the kernel's own first root.

use serde_json::Value;

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::{Firmware, System};
use crate::line::{self, Nobody};
use crate::machine::{Device, Machine};
use crate::nor_image::{DATA, ENV, FIRMWARE, Snapshot};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "an_overlay_root_is_let_go_although_run_is_full",
        board: Board::Virt,
        limit: minutes(8),
        run: overlay,
    },
    Scenario {
        name: "a_system_that_is_an_initramfs_is_left_and_its_ram_given_back",
        board: Board::Virt,
        limit: minutes(8),
        run: initramfs,
    },
];

/// Squashfs below, jffs2 above. Not a byte can be written to /run any more when `reboot` is typed.
fn overlay(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::of(assets, System::Overlay)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    let mounts = machine.ssh.succeed("cat /proc/mounts")?;
    for line in [" / overlay rw", "/dev/mtdblock5 /overlay jffs2 rw"] {
        check!(mounts.contains(line), "the mount table has no {line}:\n{mounts}");
    }
    line::levitate(&machine, &mut Nobody)?;
    machine
        .ssh
        .succeed("! dd if=/dev/zero of=/run/fill bs=64k 2>/dev/null && ! echo more >/run/more 2>/dev/null")?;
    let report = enter(&machine)?;
    for gone in ["/", "/overlay", "/rom"] {
        let listed = report["unmounted"].as_array().is_some_and(|all| all.iter().any(|path| path == gone));
        check!(listed, "{gone} is not among the unmounted: {report:#}");
    }
    flashes(&device, &machine, &firmware)
}

/// Nothing to pivot from: everything is unmounted first, the staged root is moved onto the old one, whose files go.
fn initramfs(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::of(assets, System::Initramfs)?;
    let device = Device::new(assets, &firmware)?;
    let machine = device.power_on(&firmware.rescue_boot())?;
    machine.ssh.wait_for_login(line::BOOT)?;
    let mounts = machine.ssh.succeed("cat /proc/mounts")?;
    check!(mounts.contains("rootfs / rootfs"), "the root is not the kernel's first one:\n{mounts}");
    machine.ssh.succeed(&format!("dd if=/dev/zero of=/ballast bs=1k count={BALLAST} 2>/dev/null"))?;
    line::levitate(&machine, &mut Nobody)?;
    let before = number(&machine, AVAILABLE)?;
    enter(&machine)?;
    let after = number(&machine, AVAILABLE)?;
    check!(
        after > before + BALLAST / 2,
        "{BALLAST} KiB of the initramfs were ballast; {before} KiB were free before the hand-over, {after} KiB are now"
    );
    flashes(&device, &machine, &firmware)?;
    let boot = line::boot_id(&machine)?;
    line::reboot(&machine)?;
    line::wait_for_other_boot(&machine, &boot)?;
    line::runs_firmware(&machine, 1)
}

/// KiB of a file that lies in the initramfs besides the system.
const BALLAST: u64 = 32 << 10;

/// KiB of RAM that could be had.
const AVAILABLE: &str = "sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo";

fn number(machine: &Machine, command: &str) -> Result<u64, Failure> {
    let said = machine.ssh.succeed(command)?;
    said.trim().parse().map_err(|e| Failure::test(format!("`{command}` says {said}: {e}")))
}

/// Into the maintenance root without a reset; the report says that nobody and nothing was left behind.
fn enter(machine: &Machine) -> Result<Value, Failure> {
    let boot = line::boot_id(machine)?;
    line::enter_maintenance(machine)?;
    check!(line::boot_id(machine)? == boot, "the board was reset on the way into the maintenance root");
    let report = machine.ssh.succeed("cat /run/levitate/handover.json")?;
    let report: Value = serde_json::from_str(&report).map_err(|e| Failure::test(format!("{report}: {e}")))?;
    for nobody in ["survivors", "still_mounted"] {
        check!(report[nobody].as_array().is_some_and(Vec::is_empty), "{nobody} in the report: {report:#}");
    }
    Ok(report)
}

/// The guard lets `flashcp` through, and only the firmware's range changes.
fn flashes(device: &Device, machine: &Machine, firmware: &Firmware) -> Result<(), Failure> {
    let at_login = Snapshot::take(&device.nor())?;
    line::flash(machine, &firmware.firmware_v2, &mut Nobody)?;
    let flashed = Snapshot::take(&device.nor())?;
    at_login.same(&flashed, &[ENV, DATA], "in the maintenance root")?;
    let image =
        std::fs::read(&firmware.firmware_v2).map_err(|e| Failure::file("read", &firmware.firmware_v2, e))?;
    check!(flashed.partition(&FIRMWARE).starts_with(&image), "the firmware partition is not the image");
    Ok(())
}
