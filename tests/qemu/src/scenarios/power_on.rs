//! From power-on to a login, and the way back in when nothing on flash can be trusted.

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line::{self, Nobody};
use crate::machine::Device;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_rescue_boot_and_flashcp_take_the_device_from_v1_to_v2",
        board: Board::Virt,
        limit: minutes(10),
        run: rescue,
    },
    Scenario {
        name: "v1_boots_from_flash_through_u_boot_to_an_ssh_login",
        board: Board::Virt,
        limit: minutes(5),
        run: from_flash,
    },
];

/// The boot loader, the kernel, the mounts and the address are the ones that the flash holds.
fn from_flash(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;

    let console = machine.console.text();
    check!(console.contains("U-Boot 2"), "U-Boot did not start the device");
    check!(
        console.contains("Loading Environment from Flash... OK"),
        "U-Boot did not take its environment from flash"
    );
    let mtd = machine.ssh.succeed("cat /proc/mtd")?;
    for line in
        ["01000000 00040000 \"firmware\"", "00400000 00040000 \"kernel\"", "00c00000 00040000 \"rootfs\""]
    {
        check!(mtd.contains(line), "/proc/mtd has no {line}:\n{mtd}");
    }
    let mounts = machine.ssh.succeed("cat /proc/mounts")?;
    check!(mounts.contains(" / squashfs ro"), "the root is not a squashfs:\n{mounts}");
    check!(mounts.contains("/dev/mtdblock5 /persist jffs2 rw"), "/persist is no jffs2:\n{mounts}");
    let first = machine.ssh.succeed("readlink /proc/1/exe")?;
    check!(first.ends_with("/s6-svscan"), "PID 1 is {first}");
    line::wait_until(&machine, "test $(wc -l < /persist/activity) -gt 3", line::BOOT)
}

/// Step 2 of the way: kernel and root from outside, flashcp, then a normal power-on.
fn rescue(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let machine = device.power_on(&firmware.rescue_boot())?;
    machine.ssh.wait_for_login(line::BOOT)?;
    line::flash(&machine, &firmware.firmware_v2, &mut Nobody)?;
    machine.cut_power();
    line::power_on(&device, &firmware, 2).map(drop)
}
