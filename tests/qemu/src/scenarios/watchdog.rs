//! The watchdogs, of which this board has two: neither a hand-over nor a flash that lasts longer than their timeouts is cut
//! short, and an init that hangs is.

use std::time::Duration;

use serde_json::Value;

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::{Device, Machine};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_slow_hand_over_and_flashing_outlast_two_watchdogs_and_an_init_that_hangs_is_reset_by_them",
    board: Board::Virt,
    limit: minutes(10),
    run,
}];

/// Bytes per second at which flashing takes longer than the timeout of a minute.
const CRAWLING_CHIP: u32 = 130_000;
/// Ten times the timeout would be too long for everybody; twice it tells a reset from none.
pub(super) const RESET: Duration = Duration::from_secs(180);

/// The board's own, on its bus, and the kernel's: whichever is not fed resets the board.
const DEVICES: [&str; 2] = ["/dev/watchdog0", "/dev/watchdog1"];

/// Seconds of the old system's watchdogs here, and those that the hand-over waits for a process which ignores TERM.
const OLD_TIMEOUT: u64 = 15;
const GRACE: u64 = 22;

/// PID 1 alone feeds the watchdog. It cannot be stopped by a signal, but frozen by its control group it hangs as
/// truly as in a deadlock: the kernel goes on, sessions too, and nobody feeds. It freezes when it is next scheduled.
pub(super) const FREEZE: &str = "\
    mkdir /tmp/groups && busybox mount -t cgroup2 none /tmp/groups && mkdir /tmp/groups/hung &&
    echo 1 > /tmp/groups/hung/cgroup.procs && echo 1 > /tmp/groups/hung/cgroup.freeze
    tries=0
    until grep -q 'frozen 1' /tmp/groups/hung/cgroup.events || [ $tries -ge 100 ]; do
        busybox usleep 100000
        tries=$((tries+1))
    done
    cat /tmp/groups/hung/cgroup.events
";

fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (mut machine, _) = line::power_on(&device, &firmware, 1)?;
    slow_hand_over(&machine)?;
    let boot = line::boot_id(&machine)?;
    let timeout = timeout(&machine)?;
    check!(timeout == 60, "the shorter timeout of the watchdogs is {timeout} s");
    let holders = machine.ssh.succeed("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c '/dev/watchdog'")?;
    check!(holders == "2", "{holders} descriptors of the watchdogs are open");

    machine.monitor(&format!("block_set_io_throttle pflash1 0 0 {CRAWLING_CHIP} 0 0 0"))?;
    line::flash(&machine, &firmware.firmware_v2, &mut line::Nobody)?;
    let record = json(&machine, "/run/levitate/flash.json")?;
    let took = record["finished"].as_u64().zip(record["started"].as_u64()).map(|(end, start)| end - start);
    check!(took.is_some_and(|took| took > timeout), "flashing was to take longer than {timeout} s: {record}");
    check!(line::boot_id(&machine)? == boot, "the board was reset while flash was being written");

    let frozen = machine.ssh.succeed(FREEZE)?;
    check!(frozen.contains("frozen 1"), "PID 1 is not frozen: {frozen}");
    machine.monitor("block_set_io_throttle pflash1 0 0 0 0 0 0")?;
    let command = format!("test \"$(cat /proc/sys/kernel/random/boot_id)\" != {boot}");
    line::wait_until(&machine, &command, RESET)?;
    line::runs_firmware(&machine, 2)
}

/// The hand-over takes longer than the watchdogs allow, and nobody else feeds them.
fn slow_hand_over(machine: &Machine) -> Result<(), Failure> {
    let boot = line::boot_id(machine)?;
    machine.ssh.succeed("s6-svc -d /run/service/watchdog")?;
    line::wait_until(machine, "! pidof watchdog", line::BOOT)?;
    for device in DEVICES {
        machine.ssh.succeed(&format!("watchdog -T {OLD_TIMEOUT} -t 3 {device}"))?;
    }
    machine.ssh.succeed("setsid /etc/boot/stray </dev/null >/dev/null 2>&1 &")?;
    let patient = format!(
        "{{ cat /etc/levitate.toml; printf '\\n[handover]\\nterm-grace = \"{GRACE}s\"\\n'; }} > /tmp/patient.toml &&
         levitate --config /tmp/patient.toml"
    );
    machine.ssh.succeed_for(&patient, line::STAGE)?;
    line::enter_maintenance(machine)?;
    check!(line::boot_id(machine)? == boot, "the board was reset on the way into the maintenance root");
    let report = json(machine, "/run/levitate/handover.json")?;
    let took =
        report["stages"].as_array().and_then(|stages| stages.iter().filter_map(|s| s["ms"].as_u64()).max());
    check!(took.is_some_and(|ms| ms > 1000 * OLD_TIMEOUT), "no stage outlasted the watchdog: {report:#}");
    Ok(())
}

/// The shorter one of those that were taken over, which are all.
fn timeout(machine: &Machine) -> Result<u64, Failure> {
    let report = json(machine, "/run/levitate/handover.json")?;
    let watchdogs = report["watchdogs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut devices: Vec<_> = watchdogs.iter().filter_map(|one| one["device"].as_str()).collect();
    devices.sort_unstable();
    check!(devices == DEVICES, "not all watchdogs were taken over: {report}");
    watchdogs
        .iter()
        .filter_map(|one| one["timeout_s"].as_u64())
        .min()
        .ok_or_else(|| Failure::test(format!("no watchdog tells its timeout: {report}")))
}

fn json(machine: &Machine, path: &str) -> Result<Value, Failure> {
    let text = machine.ssh.succeed(&format!("cat {path}"))?;
    serde_json::from_str(&text).map_err(|e| Failure::test(format!("{path} is no JSON: {e}\n{text}")))
}
