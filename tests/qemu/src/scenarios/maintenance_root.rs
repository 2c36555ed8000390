//! What the maintenance root is, and what it has nothing of any more.

use super::minutes;
use crate::assets::Assets;
use crate::boards::ADDRESS;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::{Device, Machine};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "in_the_maintenance_root_nothing_is_left_of_flash",
    board: Board::Virt,
    limit: minutes(10),
    run,
}];

/// Everything that was on flash is gone; what the owner needs is here. The ssh client of a device knows the host key
/// that v1 made and refuses any other, so every login in this test holds it to that.
fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let machine = line::to_maintenance(&device, &firmware)?;

    nothing_of_flash(&machine)?;
    let banner = machine.ssh.succeed("cat /etc/banner")?;
    check!(banner.contains("LADIES AND GENTLEMEN WE ARE FLOATING IN SPACE"), "the banner says: {banner}");
    the_address_was_kept(&machine)?;
    only_configured_services(&machine)?;
    the_report(&machine)?;

    // The old root is gone for good: its partition can be erased, and nobody misses a page.
    machine.ssh.succeed_for("flash_erase -q /dev/mtd4 0 0", line::FLASH)?;
    let first = machine.ssh.succeed("head -c 4 /dev/mtd4 | hexdump -e '4/1 \"%02x\"'")?;
    check!(first == "ffffffff", "the erased partition starts with {first}");
    every_program_runs(&machine)
}

/// Neither a mount nor a thread nor a mapping of any process lies on flash.
pub(super) fn nothing_of_flash(machine: &Machine) -> Result<(), Failure> {
    let root = machine.ssh.succeed("stat -f -c %T /")?;
    check!(root == "tmpfs", "/ is not in RAM but on {root}");
    let mounts = machine.ssh.succeed("cat /proc/[0-9]*/mountinfo | sort -u")?;
    for line in mounts.lines() {
        let device = line.split(' ').nth(2).unwrap_or_default();
        let of_flash =
            device.starts_with("31:") || ["squashfs", "jffs2", "mtdblock"].iter().any(|w| line.contains(w));
        check!(!of_flash, "a file system on flash is still mounted: {line}");
    }
    // one that was listed may have ended when it is looked at
    let threads = machine.ssh.succeed("cat /proc/[0-9]*/comm 2>/dev/null || true")?;
    check!(!threads.contains("jffs2_gcd_mtd"), "jffs2's garbage collector is still there:\n{threads}");
    let maps = machine.ssh.succeed("cat /proc/[0-9]*/maps 2>/dev/null || true")?;
    for line in maps.lines() {
        let mut fields = line.split_whitespace().skip(3);
        let device = fields.next().unwrap_or_default();
        check!(!device.starts_with("1f:"), "a process maps a file from flash: {line}");
        check!(!line.contains("oldroot"), "a process maps a file from the old root: {line}");
    }
    Ok(())
}

fn the_address_was_kept(machine: &Machine) -> Result<(), Failure> {
    let addresses = machine.ssh.succeed("ip -4 addr show dev eth0")?;
    check!(addresses.contains(&format!("inet {ADDRESS}/24")), "eth0 has another address:\n{addresses}");
    let routes = machine.ssh.succeed("ip route")?;
    check!(routes.contains("default via 10.0.2.2"), "the default route is gone:\n{routes}");
    let resolver = machine.ssh.succeed("cat /etc/resolv.conf")?;
    check!(resolver.contains("nameserver 10.0.2.3"), "resolv.conf says: {resolver}");
    let name = machine.ssh.succeed("hostname")?;
    check!(name == "roof-device", "the host name is {name}");
    Ok(())
}

/// Processes with a program, apart from this login's own: PID 1 and sshd.
fn only_configured_services(machine: &Machine) -> Result<(), Failure> {
    let command = "for p in /proc/[0-9]*; do e=$(readlink $p/exe) && echo \"$(cut -d' ' -f4 $p/stat) ${p#/proc/} $e\"; done; true";
    let listed = machine.ssh.succeed(command)?;
    let children: Vec<&str> = listed.lines().filter(|line| line.starts_with("1 ")).collect();
    check!(
        children.len() == 1 && children.iter().all(|line| line.ends_with("/dropbear")),
        "PID 1 should have one child, dropbear:\n{listed}"
    );
    check!(listed.lines().any(|line| line.starts_with("0 1 ")), "PID 1 has no program:\n{listed}");
    Ok(())
}

fn the_report(machine: &Machine) -> Result<(), Failure> {
    let report = machine.ssh.succeed("cat /run/levitate/handover.json")?;
    let report: serde_json::Value = serde_json::from_str(&report)
        .map_err(|e| Failure::test(format!("the hand-over's report is no JSON: {e}\n{report}")))?;
    for empty in ["survivors", "still_mounted"] {
        check!(report[empty].as_array().is_some_and(Vec::is_empty), "{empty} is not empty: {report}");
    }
    let unmounted = report["unmounted"].to_string();
    check!(unmounted.contains("/persist"), "/persist is not among what was unmounted: {report}");
    check!(report["watchdogs"][0].is_object(), "the watchdog was not taken over: {report}");
    let status = machine.ssh.succeed("levitate status")?;
    check!(status.contains("maintenance"), "levitate status does not say where we are:\n{status}");
    let log = machine.ssh.succeed("cat /run/log/current")?;
    check!(
        log.lines().all(|line| line.starts_with("@4000")),
        "the log has lines without a time stamp:\n{log}"
    );
    check!(log.contains(" sshd "), "the log has no line of sshd:\n{log}");
    Ok(())
}

/// Reads every file of the root and runs what can be run without doing anything.
fn every_program_runs(machine: &Machine) -> Result<(), Failure> {
    machine.ssh.succeed("echo 3 > /proc/sys/vm/drop_caches; find / -xdev -type f | xargs cat > /dev/null")?;
    for program in [
        "busybox --list",
        "flashcp --version",
        "levitate --version",
        "levitate status",
        "dropbear -V",
        "ps",
        "awk 'BEGIN { print 1 }'",
        "vi --help 2>&1 | head -n 1",
    ] {
        machine.ssh.succeed(program)?;
    }
    Ok(())
}
