//! What was staged is spoilt before `reboot`: the old system comes back and can say why.

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line::{self, Nobody};
use crate::machine::Device;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_staged_root_that_was_spoilt_ends_in_v1_and_levitate_status_says_how",
    board: Board::Virt,
    limit: minutes(8),
    run,
}];

/// How it is spoilt, and words of what `levitate status` says after the reset.
const CASES: &[(&str, &[&str])] = &[
    ("rm /run/maintenance/sbin/init", &["hand-over failed", "/run/maintenance/sbin/init", "No such file"]),
    (
        "printf '#!/sbin/nosuch init\\n' >/run/maintenance/sbin/init",
        &["hand-over failed", "/run/maintenance/sbin/nosuch", "No such file"],
    ),
    // It names the place where the reason is to be written; the record of arming does so, too.
    (
        "echo '{' >/run/maintenance/etc/levitate/manifest.json",
        &["hand-over failed", "/run/maintenance/etc/levitate/manifest.json", "EOF"],
    ),
];

fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    for (spoil, words) in CASES {
        line::levitate(&machine, &mut Nobody)?;
        machine.ssh.succeed(spoil)?;
        let boot = line::boot_id(&machine)?;
        line::reboot(&machine)?;
        line::wait_for_other_boot(&machine, &boot)?;
        line::runs_firmware(&machine, 1)?;
        let status = machine.ssh.succeed("levitate status")?;
        for word in *words {
            check!(status.contains(word), "after `{spoil}` status does not say {word:?}:\n{status}");
        }
    }
    Ok(())
}
