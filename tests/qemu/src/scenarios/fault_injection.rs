//! A hand-over that fails, hangs or panics at a stage ends in v1, and the old system can say where. Made to happen by a
//! binary of its own, which is no part of what is shipped.

use std::time::Duration;

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::{Device, Machine};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_hand_over_that_fails_hangs_or_panics_at_a_stage_ends_in_v1_and_status_names_the_stage",
        board: Board::VirtWithFaults,
        limit: minutes(12),
        run,
    },
    Scenario {
        name: "the_shipped_binary_has_no_fault_injection_in_it",
        board: Board::VirtWithFaults,
        limit: minutes(1),
        run: is_not_shipped,
    },
];

/// `levitate::handover::fault::MARK`.
const MARK: &[u8] = b"levitate fault injection";

/// Each stage and a fault, and what `levitate status` says of it afterwards. The last two come after the unmounting of the file
/// system that the record lies on.
const FAULTS: &[(&str, &str)] = &[
    ("check hang", "was cut off at stage \"check\""),
    ("end_processes fail", "failed at stage \"end_processes\": injected"),
    ("swap_and_loops panic", "was cut off at stage \"swap_and_loops\""),
    ("bind fail", "failed at stage \"bind\": injected"),
    ("move_mounts fail", "failed at stage \"move_mounts\": injected"),
    ("pivot panic", "was cut off at stage \"pivot\""),
    // in the second image and behind the pivot: the alarm of the first is not enough
    ("let_go hang", "was cut off at stage \"let_go\""),
    ("unmount fail", "failed at stage \"unmount\": injected"),
    ("prove fail", "failed at stage \"prove\": injected"),
    ("execute fail", "failed at stage \"execute\": injected"),
];

/// The configuration with deadlines that a test can wait for.
const CONFIG: &str =
    "{ cat /etc/levitate.toml; printf '\\n[handover]\\nwhole = \"15s\"\\n'; } > /tmp/levitate.toml";

fn run(assets: &Assets) -> Result<(), Failure> {
    let binary = faulty(assets)?;
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    for (fault, told) in FAULTS {
        machine.ssh.succeed(&format!("mkdir /tmp/faulty && {CONFIG}"))?;
        machine.ssh.put(binary, "/tmp/faulty/levitate")?;
        let stage = "chmod +x /tmp/faulty/levitate && /tmp/faulty/levitate --config /tmp/levitate.toml";
        machine.ssh.succeed_for(stage, line::STAGE)?;
        machine.ssh.succeed(&format!("echo {fault} > /run/maintenance/etc/levitate/fault"))?;
        fails(&machine, fault, told)?;
    }
    Ok(())
}

/// `reboot` ends in a fresh boot of v1, which says what happened.
fn fails(machine: &Machine, fault: &str, told: &str) -> Result<(), Failure> {
    let boot = line::boot_id(machine)?;
    line::reboot(machine)?;
    line::wait_for_other_boot(machine, &boot).map_err(|failure| failure.context(fault))?;
    line::runs_firmware(machine, 1)?;
    let status = machine.ssh.succeed_for("levitate status", Duration::from_secs(30))?;
    check!(status.contains(told), "after {fault}, status does not say {told:?}:\n{status}");
    check!(status.contains("staged: nothing"), "after {fault}, something is staged:\n{status}");
    Ok(())
}

/// The mark is in the one, so that looking for it means something, and not in the other.
fn is_not_shipped(assets: &Assets) -> Result<(), Failure> {
    let has = |path: &std::path::Path| -> Result<bool, Failure> {
        let bytes = std::fs::read(path).map_err(|e| Failure::file("read", path, e))?;
        Ok(bytes.windows(MARK.len()).any(|window| window == MARK))
    };
    check!(has(faulty(assets)?)?, "the binary with fault injection has no mark to be known by");
    for shipped in [&assets.device_binary, &assets.flashcp_binary] {
        check!(!has(shipped)?, "{} has fault injection in it", shipped.display());
    }
    Ok(())
}

fn faulty(assets: &Assets) -> Result<&std::path::Path, Failure> {
    assets.faulty_binary.as_deref().ok_or_else(|| Failure::harness("there is no binary with fault injection"))
}
