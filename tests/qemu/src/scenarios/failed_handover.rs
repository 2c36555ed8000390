//! A hand-over that fails ends in the old system, and the old system can say why.

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line::{self, Nobody};
use crate::machine::Device;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_failed_hand_over_ends_in_v1_and_levitate_status_says_why",
    board: Board::Virt,
    limit: minutes(5),
    run,
}];

/// The staged init loses its executable bit after arming: nobody can be at the console 300 km away.
fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    line::levitate(&machine, &mut Nobody)?;
    machine.ssh.succeed("chmod a-x /run/maintenance/sbin/init")?;
    let boot = line::boot_id(&machine)?;

    line::reboot(&machine)?;
    line::wait_for_other_boot(&machine, &boot)?;
    line::runs_firmware(&machine, 1)?;
    let status = machine.ssh.succeed("levitate status")?;
    check!(status.contains("hand-over failed"), "status does not tell of the failure:\n{status}");
    check!(status.contains("/run/maintenance/sbin/init"), "status does not name what failed:\n{status}");
    check!(status.contains("not executable"), "status does not say why:\n{status}");
    Ok(())
}
