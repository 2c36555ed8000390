//! The lease: a maintenance root that nobody can reach comes back by itself, and no other does.

use std::time::Duration;

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::{Device, Machine};
use crate::nor_image::{ENV, FIRMWARE, Snapshot};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a_maintenance_root_that_nobody_logs_into_returns_to_v1_untouched",
        board: Board::Virt,
        limit: minutes(5),
        run: expires,
    },
    Scenario {
        name: "a_login_a_hold_and_flashing_stop_the_lease_and_verified_flash_boots_v2_by_itself",
        board: Board::Virt,
        limit: minutes(10),
        run: is_stopped,
    },
];

/// Seconds: long enough to log in on a busy machine.
const LEASE: u64 = 12;
/// Bytes per second of a chip on which flashing takes about twice as long as the lease.
const VERY_SLOW_CHIP: u64 = 600_000;
/// For the lease to be over, and the shutdown that follows.
const EXPIRY: Duration = Duration::from_secs(90);

/// What a `flashcp` that failed on another partition left behind in v1.
const UNVERIFIED: &str = r#"{"version":1,"state":"unverified","pid":9999,"command":["flashcp","x","mtd:spare"],"device":"/dev/mtd99","name":"spare"}"#;

/// A connection that never authenticates is no login, so it does not keep the device. Nor does flash that v1 itself left
/// changed and not verified.
fn expires(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    machine
        .ssh
        .succeed(&format!("mkdir -p /run/levitate && echo '{UNVERIFIED}' > /run/levitate/flash.json"))?;
    let said = levitate(&machine)?;
    check!(said.contains("(spare) was changed and not verified"), "levitate does not warn of flash: {said}");
    check!(said.contains("the lease is 12 s"), "levitate does not warn of so short a lease: {said}");
    let before = Snapshot::take(&device.nor())?;
    let boot = line::boot_id(&machine)?;
    let from = machine.console.text().len();
    line::reboot(&machine)?;
    machine.console.wait_for("init: maintenance init started", from, line::HAND_OVER)?;
    let stranger = machine.ssh.connect(line::HAND_OVER)?;

    machine.console.wait_for(
        "nobody is logged in: rebooting into the system on flash in 6 s",
        from,
        EXPIRY,
    )?;
    machine.console.wait_for("the lease is over", from, EXPIRY)?;
    machine.console.wait_for(
        "it left flash changed and not verified, and did run with that",
        from,
        EXPIRY,
    )?;
    line::wait_for_other_boot(&machine, &boot)?;
    drop(stranger);
    line::runs_firmware(&machine, 1)?;
    before.same(&Snapshot::take(&device.nor())?, &[ENV, FIRMWARE], "while nobody was logged in")?;
    let hold = machine.ssh.run("levitate hold")?;
    check!(
        hold.code == Some(1) && hold.stderr.contains("this is no maintenance root"),
        "levitate hold in v1: {hold}"
    );
    Ok(())
}

/// One visit to the maintenance root, in which nearly everything lasts longer than the lease.
fn is_stopped(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let mut device = Device::new(assets, &firmware)?;
    device.chip_speed = Some(VERY_SLOW_CHIP);
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    levitate(&machine)?;
    line::enter_maintenance(&machine)?;
    let boot = line::boot_id(&machine)?;

    // A session of its own length.
    let said = machine.ssh.succeed(&format!("sleep {}; levitate lease", LEASE + 4))?;
    check!(
        said.starts_with("lease: 12 s from the end of the last session;")
            && said.contains("logged in: root ("),
        "the lease in a session: {said}"
    );
    let login = machine.ssh.succeed("sh -lc true")?;
    check!(login.contains("FLOATING IN SPACE") && login.contains("\nlease: "), "a login is told: {login}");
    only_roots(&machine)?;
    machine.ssh.put(&firmware.firmware_v2, line::IMAGE)?;

    let hold = machine.ssh.succeed("levitate hold")?;
    check!(hold.contains("held until `levitate release`"), "levitate hold: {hold}");
    // Nobody is logged in while this runs.
    let from = machine.console.text().len();
    let later = format!("(sleep {}; echo still here > /dev/console)", LEASE + 4);
    machine.ssh.succeed(&format!("setsid sh -c '{later}' > /dev/null 2>&1 < /dev/null &"))?;
    machine.console.wait_for("still here", from, EXPIRY)?;
    check!(line::boot_id(&machine)? == boot, "the lease was over although it was held");
    let status = machine.ssh.succeed("levitate status --json")?;
    check!(
        status.contains(r#""lease":{"state":"held","left_ms":null,"lease_ms":12000}"#),
        "status: {status}"
    );
    let release = machine.ssh.succeed("levitate release; levitate hold 1s; levitate status")?;
    check!(release.contains("lease: held for 1 s more, then 12 s"), "release and hold: {release}");

    // And nobody is while this does.
    let from = machine.console.text().len();
    let flash = format!("{} > /run/flashcp.out 2>&1; echo flashcp $? > /dev/console", line::FLASHCP);
    machine.ssh.succeed(&format!("setsid sh -c '{flash}' > /dev/null 2>&1 < /dev/null &"))?;
    machine.console.wait_for("flashcp 0", from, line::FLASH)?;
    let log = machine.ssh.succeed("cat /run/log/current; cat /proc/uptime")?;
    check!(log.contains("lease: stopped: flash is being changed"), "the log does not tell of flash:\n{log}");
    check!(line::boot_id(&machine)? == boot, "the lease was over although flash was being changed");

    machine.console.wait_for("the lease is over", from, EXPIRY)?;
    line::wait_for_other_boot(&machine, &boot)?;
    line::runs_firmware(&machine, 2)
}

/// Stages with a lease of [`LEASE`] seconds.
fn levitate(machine: &Machine) -> Result<String, Failure> {
    let config = format!(
        "sed 's/^state_file/lease = \"{LEASE}s\"\\nlease_unverified = \"{LEASE}s\"\\n&/' /etc/levitate.toml > /tmp/lease.toml"
    );
    machine.ssh.succeed(&config)?;
    machine.ssh.succeed_for("levitate --config /tmp/lease.toml 2>&1", line::STAGE)
}

/// Another user can neither hold the lease nor reboot.
fn only_roots(machine: &Machine) -> Result<(), Failure> {
    let socket = machine.ssh.succeed("stat -c '%a %u %F' /run/levitate/init.sock")?;
    check!(socket == "600 0 socket", "the control socket is {socket}");
    machine.ssh.succeed("echo 'guest:x:65534:65534::/:/bin/sh' >> /etc/passwd")?;
    for command in ["levitate hold", "levitate release", "/sbin/reboot -f"] {
        let done = machine.ssh.run(&format!("busybox su guest -s /bin/sh -c '{command}'"))?;
        check!(
            done.code == Some(1) && done.stderr.contains("only root may"),
            "`{command}` of another user: {done}"
        );
    }
    Ok(())
}
