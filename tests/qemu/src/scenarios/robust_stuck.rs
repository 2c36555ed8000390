//! What sits in the kernel and cannot be killed: the device still ends in one of two good places, and can say why.

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
    name: "what_is_stuck_in_the_kernel_ends_in_v1_with_the_reason_or_is_left_behind_and_told",
    board: Board::Virt,
    limit: minutes(8),
    run,
}];

/// Bytes of the disk besides.
const DISK: u64 = 8 << 20;

/// Into pages that are there already, the second time: nothing has to be read for it.
pub(super) const WRITE: &str = "dd if=/dev/zero of=/mnt/file bs=1k count=64 conv=notrunc 2>/dev/null";

fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let mut device = Device::new(assets, &firmware)?;
    plug_disk(&mut device)?;
    let (mut machine, _) = line::power_on(&device, &firmware, 1)?;
    stuck_process(&machine)?;
    stuck_mount(&mut machine)
}

/// An empty disk, from the next power-on.
pub(super) fn plug_disk(device: &mut Device) -> Result<(), Failure> {
    let disk = device.file("disk.img");
    std::fs::File::create(&disk)
        .and_then(|file| file.set_len(DISK))
        .map_err(|e| Failure::file("create", &disk, e))?;
    device.disk = Some(disk);
    Ok(())
}

/// A process waits for a frozen file system, in a sleep that no signal ends. Its program is mapped from the old root,
/// which therefore cannot be let go.
fn stuck_process(machine: &Machine) -> Result<(), Failure> {
    machine.ssh.succeed("busybox mke2fs -F /dev/vda >/dev/null && mount -t ext4 /dev/vda /mnt")?;
    machine.ssh.succeed("busybox fsfreeze --freeze /mnt")?;
    machine.ssh.succeed("setsid dd if=/dev/zero of=/mnt/file bs=1k count=1 >/dev/null 2>&1 </dev/null &")?;
    line::wait_until(machine, "ps -o stat,comm | grep -q '^D.* dd$'", line::BOOT)?;
    levitate(machine)?;
    let boot = line::boot_id(machine)?;
    line::reboot(machine)?;
    line::wait_for_other_boot(machine, &boot)?;
    line::runs_firmware(machine, 1)?;
    let status = machine.ssh.succeed("levitate status")?;
    for words in ["hand-over failed", "unmount the old root", "(dd, state D)"] {
        check!(status.contains(words), "status does not say {words:?}:\n{status}");
    }
    Ok(())
}

/// A disk that does not answer any more, with data to be written to it. The unmounting itself waits for it, and one
/// process, which holds what it can.
fn stuck_mount(machine: &mut Machine) -> Result<(), Failure> {
    // The device's own writer would wait in its next sync.
    machine.ssh.succeed(&format!(
        "busybox mke2fs -F /dev/vda >/dev/null && mount -t ext4 /dev/vda /mnt && s6-svc -d /run/service/writer && \
         {WRITE} && sync"
    ))?;
    line::wait_until(machine, "! pgrep -f etc/boot/writer", line::BOOT)?;
    machine.freeze_disk()?;
    machine.ssh.succeed(WRITE)?;
    machine.ssh.succeed(HOLDER)?;
    let stuck = "ps -o stat,args | grep -q '^D.*/run/busybox dd ' || { ps -o stat,args; false; }";
    line::wait_until(machine, stuck, line::BOOT)?;
    machine.ssh.succeed("grep -q '^dead /run/media/dead fuse ' /proc/mounts")?;
    levitate(machine)?;
    let boot = line::boot_id(machine)?;
    reboot(machine)?;
    line::wait_until(machine, "test -e /etc/levitate/manifest.json", line::HAND_OVER)?;
    check!(line::boot_id(machine)? == boot, "the board was reset on the way into the maintenance root");
    let report = machine.ssh.succeed("cat /run/levitate/handover.json")?;
    let report: Value = serde_json::from_str(&report).map_err(|e| Failure::test(format!("{report}: {e}")))?;
    set_aside(machine, &report)?;
    let status = machine.ssh.succeed("levitate status")?;
    check!(status.contains("/mnt"), "status does not tell of /mnt:\n{status}");
    // And back, past the disk that still does not answer. The next kernel could not even look for its partitions.
    let said = machine.console.text().len();
    reboot(machine)?;
    machine.console.wait_for("Restarting system", said, line::BOOT)?;
    machine.thaw_disk()?;
    line::wait_for_other_boot(machine, &boot)?;
    line::runs_firmware(machine, 1)
}

/// By its path: busybox's shell would run its own applet, whose first act is a sync that never ends.
fn reboot(machine: &Machine) -> Result<(), Failure> {
    machine.ssh.run("/sbin/reboot").map(drop)
}

/// A process that waits for the disk and that KILL does not end. Its program lies in the old /run and it has a file of
/// the data partition open, so that neither can be unmounted; and it is the daemon of a file system below /run, which
/// therefore never answers, whoever is killed. A frozen disk may still answer its first request.
const HOLDER: &str = "cp /bin/busybox /run/busybox && mkdir -p /run/media/dead && echo x >/persist/held && cd / && \
    { setsid sh -c 'exec 3<>/dev/fuse 4</persist/held && \
      mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 dead /run/media/dead && \
      for block in 100 200 300; do \
      /run/busybox dd if=/dev/zero of=/dev/vda bs=1k count=1 seek=$block conv=notrunc,fsync; done' \
      </dev/null >/dev/null 2>&1 & }";

/// What stays is out of the old root's way, read-only where it keeps data, and its flash alone cannot be written.
fn set_aside(machine: &Machine, report: &Value) -> Result<(), Failure> {
    let lists = |list: &str, is: &dyn Fn(&Value) -> bool| {
        report[list].as_array().is_some_and(|all| all.iter().any(is))
    };
    for path in ["/mnt", "/persist", "/run"] {
        check!(lists("still_mounted", &|one| one["path"] == path), "{path} did not stay: {report:#}");
    }
    check!(lists("survivors", &|one| one["state"] == "D"), "nobody is stuck: {report:#}");
    check!(lists("unmounted", &|path| path == "/run/media/dead"), "the dead mount stayed: {report:#}");
    let looked = |note: &Value| note.as_str().is_some_and(|note| note.starts_with("empty "));
    check!(!lists("notes", &looked), "the dead mount was looked at: {report:#}");
    let mounts = machine.ssh.succeed("cat /proc/mounts")?;
    for (kind, mode) in [("jffs2", "ro"), ("tmpfs", "rw")] {
        let held =
            |line: &str| line.contains(" /run/levitate/held/") && line.contains(&format!(" {kind} {mode}"));
        check!(mounts.lines().any(held), "no {kind} is held aside, {mode}:\n{mounts}");
    }
    let flashcp = |target: &str| {
        let command = format!(
            "head -c 9000 /dev/urandom >/tmp/image; flashcp --any-content --dry-run /tmp/image {target}"
        );
        machine.ssh.run(&command)
    };
    let refused = flashcp("mtd:data")?;
    let why = "/persist (jffs2) of the old system could not be let go of (";
    check!(refused.code == Some(1) && refused.stderr.contains(why), "mtd:data is not refused: {refused}");
    let free = flashcp("mtd:firmware")?;
    check!(free.code == Some(0), "mtd:firmware could be written: {free}");
    Ok(())
}

/// With patience enough for a test.
fn levitate(machine: &Machine) -> Result<(), Failure> {
    let make = "{ cat /etc/levitate.toml; printf '\\n[handover]\\nterm-grace = \"500ms\"\\ncall = \"2s\"\\n'; } >/tmp/short.toml";
    machine.ssh.succeed(make)?;
    machine.ssh.succeed_for("levitate --config /tmp/short.toml", line::STAGE).map(drop)
}
