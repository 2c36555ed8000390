//! An old system in disorder: whatever its processes and mounts are up to, the hand-over leaves it cleanly.

use std::time::Duration;

use serde_json::Value;

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line::{self, Nobody};
use crate::machine::{Device, Machine};
use crate::nor_image::{DATA, ENV, Snapshot};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "strays_respawners_swap_loops_namespaces_and_dead_mounts_do_not_hold_up_the_hand_over",
    board: Board::Virt,
    limit: minutes(8),
    run,
}];

/// What is wrong with the old system, each a command that makes it so.
const DISORDER: &[(&str, &str)] = &[
    ("strays that ignore TERM", "/etc/boot/stray >/dev/null 2>&1 & /etc/boot/stray >/dev/null 2>&1 &"),
    ("one of them stopped", "/etc/boot/stray >/dev/null 2>&1 & kill -STOP $!"),
    (
        "two that start each other again",
        r#"cat >/tmp/pair <<'END'
#!/bin/sh
trap '' TERM HUP
other=$1
while :; do
	kill -0 "$other" 2>/dev/null || { /tmp/pair $$ & other=$!; }
	usleep 5000
done
END
chmod +x /tmp/pair; /tmp/pair 999999 >/dev/null 2>&1 &"#,
    ),
    (
        "a program that runs from the data partition",
        "cp /bin/busybox /persist/busybox; /persist/busybox sleep 9999 >/dev/null 2>&1 &",
    ),
    ("a process whose directory is there", "(cd /persist && exec sleep 9999 >/dev/null 2>&1) &"),
    (
        "mounts inside mounts",
        "mkdir /persist/in && mount -t tmpfs in /persist/in && mkdir /persist/in/a /persist/in/b /persist/in/c",
    ),
    (
        "a bind mount, and one inside itself",
        "mount --bind /persist /mnt && mount --bind /persist /persist/in/a",
    ),
    (
        "a file system in a file in the data partition, busy",
        "dd if=/dev/zero of=/persist/disk bs=1k count=1024 2>/dev/null && busybox mke2fs -F /persist/disk >/dev/null && \
         mount -t ext4 -o loop /persist/disk /persist/in/b && (cd /persist/in/b && exec sleep 9999 >/dev/null 2>&1) &",
    ),
    (
        "swap in a file in the data partition",
        "dd if=/dev/zero of=/persist/swap bs=1k count=1024 2>/dev/null && busybox losetup /dev/loop7 /persist/swap && \
         busybox mkswap /dev/loop7 >/dev/null && busybox swapon /dev/loop7",
    ),
    ("another mount namespace", "busybox unshare -m sleep 9999 >/dev/null 2>&1 &"),
    ("other pid and mount namespaces", "busybox unshare -m -p -f sleep 9999 >/dev/null 2>&1 &"),
    (
        "a namespace that no process holds",
        "touch /run/namespace && busybox unshare --mount=/run/namespace true",
    ),
    (
        "a mount that never answers, and who asked it",
        "(exec 3<>/dev/fuse; mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none /persist/in/c && \
         exec sleep 9999 >/dev/null 2>&1) & sleep 1; ls /persist/in/c >/dev/null 2>&1 &",
    ),
    (
        "a mount that was unmounted lazily and lives on",
        "mkdir /tmp/lazy && mount --bind /persist /tmp/lazy && (exec 3>>/tmp/lazy/held; exec sleep 9999 >/dev/null 2>&1) & \
         sleep 1; umount -l /tmp/lazy",
    ),
];

fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    for (what, make) in DISORDER {
        let done = machine.ssh.run_for(make, Duration::from_secs(30))?;
        check!(done.code == Some(0), "{what} could not be made: {done}");
    }
    disorder_is_there(&machine)?;

    line::levitate(&machine, &mut Nobody)?;
    let boot = line::boot_id(&machine)?;
    line::enter_maintenance(&machine)?;
    check!(line::boot_id(&machine)? == boot, "the board was reset on the way into the maintenance root");

    let report = machine.ssh.succeed("cat /run/levitate/handover.json")?;
    let report: Value = serde_json::from_str(&report).map_err(|e| Failure::test(format!("{report}: {e}")))?;
    for nobody in ["survivors", "still_mounted"] {
        check!(report[nobody].as_array().is_some_and(Vec::is_empty), "{nobody} in the report: {report:#}");
    }
    for gone in ["/", "/persist", "/persist/in", "/persist/in/a", "/persist/in/b", "/persist/in/c", "/mnt"] {
        let listed = report["unmounted"].as_array().is_some_and(|all| all.iter().any(|path| path == gone));
        check!(listed, "{gone} is not among the unmounted: {report:#}");
    }
    let left =
        machine.ssh.succeed("cat /proc/swaps /sys/block/loop*/loop/backing_file 2>/dev/null || true")?;
    check!(left.lines().count() == 1, "swap or loop devices are left: {left}");
    let at_login = Snapshot::take(&device.nor())?;
    line::flash(&machine, &firmware.firmware_v2, &mut Nobody)?;
    at_login.same(&Snapshot::take(&device.nor())?, &[ENV, DATA], "in the maintenance root")
}

/// Otherwise nothing would be proven.
fn disorder_is_there(machine: &Machine) -> Result<(), Failure> {
    for (look, least) in [
        ("ps | grep -c '[e]tc/boot/stray'", 3),
        ("ps | grep -c '[/]tmp/pair'", 2),
        ("ps | grep -c '[/]persist/busybox'", 1),
        ("grep -c /persist /proc/mounts", 5),
        ("grep -c fuse /proc/mounts", 1),
        ("grep -c loop /proc/swaps", 1),
        ("grep -c nsfs /proc/mounts", 1),
        ("ls -d /sys/block/loop*/loop | wc -l", 2),
    ] {
        let said = machine.ssh.run(look)?;
        let count = said.stdout.trim().parse::<u32>().unwrap_or(0);
        check!(count >= least, "`{look}` says {count}, expected {least} or more: {said}");
    }
    Ok(())
}
