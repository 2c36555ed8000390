//! Until the hand-over everything can be undone, and only `reboot` means the maintenance root.

use std::time::Duration;

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
        name: "after_levitate_abort_reboot_is_a_normal_reboot",
        board: Board::Virt,
        limit: minutes(5),
        run: abort,
    },
    Scenario {
        name: "poweroff_after_levitate_powers_off",
        board: Board::Virt,
        limit: minutes(5),
        run: poweroff,
    },
];

/// `levitate abort` leaves no trace in mounts and files, and the next `reboot` resets the board into v1.
fn abort(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    let boot = line::boot_id(&machine)?;

    // The writer's own files come and go; everything else must be as it was.
    let look = "cat /proc/self/mountinfo; find /run /tmp /persist ! -path '/persist/activity*' \
        ! -path '/run/service/*/supervise/*' | sort | while read -r name; do stat -c '%n %F %a %u %g' \"$name\"; done";
    let before = machine.ssh.succeed(look)?;
    line::levitate(&machine, &mut Nobody)?;
    let staged = machine.ssh.succeed("levitate status")?;
    check!(
        staged.contains("reboot: enters maintenance mode"),
        "status does not say what is staged:\n{staged}"
    );
    let said = machine.ssh.succeed("levitate abort")?;
    let after = machine.ssh.succeed(look)?;
    check!(before == after, "abort left traces ({said}); before:\n{before}\nafter:\n{after}");
    let status = machine.ssh.succeed("levitate status")?;
    check!(status.contains("staged: nothing"), "status after abort:\n{status}");

    // killed while it writes the root, or when it has just done so: either is a moment
    let said = machine.ssh.succeed_for(KILLED, line::STAGE)?;
    let after = machine.ssh.succeed(look)?;
    check!(before == after, "abort after a kill left traces ({said}); before:\n{before}\nafter:\n{after}");

    line::reboot(&machine)?;
    line::wait_for_other_boot(&machine, &boot)?;
    line::runs_firmware(&machine, 1)
}

/// `levitate`, killed as soon as it has begun to write, and aborted.
const KILLED: &str = "levitate >/dev/null 2>&1 & pid=$!; \
    while kill -0 $pid 2>/dev/null && ! [ -e /run/maintenance.new ]; do :; done; kill -9 $pid; wait $pid; levitate abort";

/// `poweroff` stays what it is, even though the system's last script hands over without asking for the verb.
fn poweroff(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    line::levitate(&machine, &mut Nobody)?;
    machine.ssh.run("poweroff")?;
    machine.wait_for_power_off(Duration::from_secs(60))?;
    line::power_on(&device, &firmware, 1).map(drop)
}
