//! Flash that is in use is not written.

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::Device;
use crate::nor_image::{ENV, FIRMWARE, Snapshot};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "flashcp_is_refused_while_the_firmware_is_in_use",
    board: Board::Virt,
    limit: minutes(5),
    run,
}];

/// On v1, without levitating: the refusal names the mount, the partition that overlaps, and a process.
fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    machine.ssh.put(&firmware.firmware_v2, line::IMAGE)?;

    let before = Snapshot::take(&device.nor())?;
    let done = machine.ssh.run_for(line::FLASHCP, line::FLASH)?;
    check!(done.code == Some(1), "flashcp on a mounted root: {done}");
    let said = &done.stderr;
    check!(said.contains("rootfs"), "the overlapping partition is not named: {said}");
    check!(
        said.contains("mounted on /\n")
            || said.contains("mounted at /\n")
            || said.contains("mounted on / ")
            || said.contains("mounted at / "),
        "the mount is not named: {said}"
    );
    check!(said.contains("s6-svscan"), "no process is named: {said}");
    check!(said.contains("--allow-in-use"), "how to override is not said: {said}");

    before.same(&Snapshot::take(&device.nor())?, &[ENV, FIRMWARE], "after the refusal")?;
    line::runs_firmware(&machine, 1)
}
