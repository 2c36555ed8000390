//! A hand-over that fails ends in the old system, and the old system can say why.

use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line::{self, Nobody};
use crate::machine::Device;
use crate::suite::Failure;

/// The staged init loses its executable bit after arming: nobody can be at the console 300 km away.
pub(super) fn run(assets: &Assets) -> Result<(), Failure> {
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
