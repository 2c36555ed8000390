//! The main job, whole: v1 runs from flash, and at the end v2 does.

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line::{self, Nobody};
use crate::machine::Device;
use crate::nor_image::{DATA, ENV, FIRMWARE, Snapshot};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_device_levitates_reflashes_itself_over_ssh_and_boots_v2",
    board: Board::Virt,
    limit: minutes(10),
    run,
}];

/// `levitate`, `reboot`, `flashcp`, `reboot`. That `data` stays the same to the last byte while the device is in the
/// maintenance root proves that jffs2 is really gone: v1 writes there all the time, and its garbage collector too.
fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;

    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    line::levitate(&machine, &mut Nobody)?;
    let boot = line::boot_id(&machine)?;
    line::enter_maintenance(&machine)?;
    check!(line::boot_id(&machine)? == boot, "the board was reset on the way into the maintenance root");

    let at_login = Snapshot::take(&device.nor())?;
    line::flash(&machine, &firmware.firmware_v2, &mut Nobody)?;
    let flashed = Snapshot::take(&device.nor())?;
    at_login.same(&flashed, &[ENV, DATA], "in the maintenance root")?;
    let image =
        std::fs::read(&firmware.firmware_v2).map_err(|e| Failure::file("read", &firmware.firmware_v2, e))?;
    check!(flashed.partition(&FIRMWARE).starts_with(&image), "the firmware partition is not the image");

    line::reboot(&machine)?;
    line::wait_for_other_boot(&machine, &boot)?;
    line::runs_firmware(&machine, 2)?;
    machine.cut_power();

    let (machine, _) = line::power_on(&device, &firmware, 2)?;
    let kept = machine.ssh.succeed("cat /persist/activity /persist/activity.1 2>/dev/null | head -n 1")?;
    check!(kept.starts_with("line "), "what v1 wrote to /persist is gone: {kept}");
    Ok(())
}
