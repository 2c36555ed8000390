//! What is promised of every init that the device can have: `levitate`, then that system's own `reboot`, leads into the
//! maintenance root, and nothing else about the system changes.

use std::time::Duration;

use super::maintenance_root::nothing_of_flash;
use super::robust_stuck::{self, WRITE};
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::{Firmware, System};
use crate::line::{self, Nobody};
use crate::machine::{Device, Machine};
use crate::suite::Failure;

/// One init, and what is particular to it.
pub(super) struct Promise {
    /// What runs as PID 1.
    pub(super) system: System,
    /// The program that PID 1 really runs, as `/proc/1/exe` says.
    pub(super) program: &'static str,
    /// The command that stops the device and leaves its power on.
    pub(super) halt: &'static str,
    /// Whether /run comes small and without programs: arming has to change that.
    pub(super) small_run: bool,
    /// Whether a process that changes flash is waited for before the system's own shutdown ends everybody.
    pub(super) lets_flash_be: bool,
    /// What is to be seen of it where a disk keeps its own shutdown from ending; none where the hand-over unmounts.
    pub(super) stuck: Option<Stuck>,
    /// Checked while a root is staged.
    pub(super) armed: fn(&Machine) -> Result<(), Failure>,
    /// Checked in the old system, once nothing is armed any more.
    pub(super) disarmed: fn(&Machine) -> Result<(), Failure>,
    /// Checked in the maintenance root.
    pub(super) entered: fn(&Machine) -> Result<(), Failure>,
    /// The end of the maintenance root, when the new firmware is written.
    pub(super) leave: fn(&Machine) -> Result<(), Failure>,
}

/// An init that unmounts by itself, with a disk that does not answer.
pub(super) struct Stuck {
    /// The system's `reboot`, by which it gets that far.
    pub(super) reboot: &'static str,
    /// What the console says at the end of patience.
    pub(super) says: &'static str,
}

/// Mounts with their options, files with modes and links, what the init reads, and processes: whatever arming could
/// change. What the system's own services write meanwhile is left out.
const LOOK: &str = "\
cut -d' ' -f3- /proc/self/mountinfo
find /run /tmp /persist ! -path '/persist/activity*' ! -path '/run/systemd/*' ! -path '/run/log/*' | sort | xargs stat -c '%N %a %u %g'
cat /etc/inittab 2>/dev/null
ls /usr/sbin /usr/bin
pidof linuxrc
true";

/// The file system of /run.
#[derive(Debug)]
struct Run {
    noexec: bool,
    /// Its size in KiB.
    kib: u64,
}

impl Run {
    fn of(machine: &Machine) -> Result<Self, Failure> {
        let options =
            machine.ssh.succeed("sed -n 's,^[^ ]* /run tmpfs \\([^ ]*\\) .*,\\1,p' /proc/mounts")?;
        let size = machine.ssh.succeed("df -k /run | awk 'END { print $2 }'")?;
        let noexec = options.split(',').any(|option| option == "noexec");
        Ok(Self { noexec, kib: size.parse().map_err(Failure::harness)? })
    }
}

/// What looks like a `flashcp` of the old system until some seconds after the reboot, and says so if it comes to its end.
/// The seconds are more than sysvinit takes from there to the wait.
const WRITER: &str = r#"
    printf flashcp > /proc/self/comm
    echo '{"version":1,"state":"changing","pid":'$$',"command":["flashcp","x","mtd9"],"device":"/dev/mtd9"}' > /run/levitate/flash.json
    until [ -e /run/levitate/rebooting ]; do sleep 1; done
    sleep 10
    echo "the writer of flash came to its end" > /dev/console
    sed -i s/changing/verified/ /run/levitate/flash.json
"#;

/// Four boots of one device: abort and poweroff, halt, `kill -HUP` and the like of `armed`, and at last the whole way.
pub(super) fn keep(assets: &Assets, promise: &Promise) -> Result<(), Failure> {
    let firmware = Firmware::of(assets, promise.system)?;
    let mut device = Device::new(assets, &firmware)?;
    if promise.stuck.is_some() {
        robust_stuck::plug_disk(&mut device)?;
    }
    no_trace_and_poweroff(&device, &firmware, promise)?;
    halt(&device, &firmware, promise.halt)?;
    the_whole_way(&device, &firmware, promise)
}

fn no_trace_and_poweroff(device: &Device, firmware: &Firmware, promise: &Promise) -> Result<(), Failure> {
    let (machine, _) = line::power_on(device, firmware, 1)?;
    let runs = machine.ssh.succeed("readlink /proc/1/exe")?;
    check!(runs == promise.program, "PID 1 is {runs}, expected {}", promise.program);
    let before = machine.ssh.succeed(LOOK)?;
    let run = Run::of(&machine)?;
    check!(run.noexec == promise.small_run, "before arming /run is {run:?}");
    line::levitate(&machine, &mut Nobody)?;
    if promise.small_run {
        let now = Run::of(&machine)?;
        check!(
            !now.noexec && now.kib > run.kib,
            "/run was {run:?} and is {now:?}: small and without programs"
        );
    }
    (promise.armed)(&machine)?;
    // once more: nothing may be armed twice
    line::levitate(&machine, &mut Nobody)?;
    (promise.armed)(&machine)?;
    let status = machine.ssh.succeed("levitate status")?;
    check!(status.contains("reboot: enters maintenance mode"), "status while armed:\n{status}");
    let said = machine.ssh.succeed("levitate abort")?;
    let after = machine.ssh.succeed(LOOK)?;
    check!(before == after, "abort left traces ({said}); before:\n{before}\nafter:\n{after}");
    (promise.disarmed)(&machine)?;

    line::levitate(&machine, &mut Nobody)?;
    machine.ssh.run("poweroff")?;
    machine.wait_for_power_off(Duration::from_secs(60))
}

/// The kernel's last words, whoever asked for it; and no login after them.
fn halt(device: &Device, firmware: &Firmware, command: &str) -> Result<(), Failure> {
    let (machine, _) = line::power_on(device, firmware, 1)?;
    line::levitate(&machine, &mut Nobody)?;
    machine.ssh.run(command)?;
    machine.console.wait_for("System halted", 0, Duration::from_secs(60))?;
    machine.cut_power();
    Ok(())
}

fn the_whole_way(device: &Device, firmware: &Firmware, promise: &Promise) -> Result<(), Failure> {
    let (mut machine, _) = line::power_on(device, firmware, 1)?;
    if let Some(stuck) = &promise.stuck {
        comes_back(&mut machine, stuck)?;
    }
    machine.ssh.succeed("setsid /etc/boot/stray </dev/null >/dev/null 2>&1 &")?;
    line::wait_until(&machine, "grep -q alive /persist/stray", line::BOOT)?;
    line::levitate(&machine, &mut Nobody)?;
    let boot = line::boot_id(&machine)?;
    if promise.lets_flash_be {
        machine.ssh.succeed(&format!(
            "setsid sh -c '{}' </dev/null >/dev/null 2>&1 &",
            WRITER.replace('\'', r"'\''")
        ))?;
        line::wait_until(&machine, "grep -q changing /run/levitate/flash.json", line::BOOT)?;
        machine.ssh.run("touch /run/levitate/rebooting; reboot")?;
        line::wait_until(&machine, "test -e /etc/levitate/manifest.json", line::HAND_OVER)?;
    } else {
        line::enter_maintenance(&machine)?;
    }
    check!(line::boot_id(&machine)? == boot, "the board was reset on the way into the maintenance root");
    if promise.lets_flash_be {
        for line in ["which is changing flash", "the writer of flash came to its end"] {
            machine.console.wait_for(line, 0, Duration::from_secs(1))?;
        }
    }

    nothing_of_flash(&machine)?;
    let report = machine.ssh.succeed("cat /run/levitate/handover.json")?;
    let report: serde_json::Value = serde_json::from_str(&report)
        .map_err(|e| Failure::test(format!("the hand-over's report is no JSON: {e}\n{report}")))?;
    for empty in ["survivors", "still_mounted", "notes"] {
        check!(report[empty].as_array().is_some_and(Vec::is_empty), "{empty} is not empty: {report}");
    }
    check!(report["unmounted"].to_string().contains("\"/\""), "the old root was not unmounted: {report}");
    let left = machine.ssh.succeed("ls -A /run; ls -A /oldroot")?;
    check!(!left.contains("maintenance"), "the old /run is still there:\n{left}");
    (promise.entered)(&machine)?;

    line::flash(&machine, &firmware.firmware_v2, &mut Nobody)?;
    (promise.leave)(&machine)?;
    line::wait_for_other_boot(&machine, &boot)?;
    line::runs_firmware(&machine, 2)?;
    // v2 is the main job's own system; its levitate reads what v1's hand-over wrote
    let status = machine.ssh.succeed("levitate status")?;
    check!(!status.contains("never entered") && !status.contains("failed"), "status in v2:\n{status}");
    Ok(())
}

/// With a disk that does not answer any more the old init's own unmounting never ends. The device is back by itself.
fn comes_back(machine: &mut Machine, stuck: &Stuck) -> Result<(), Failure> {
    let disk =
        format!("busybox mke2fs -F /dev/vda >/dev/null && mount -t ext4 /dev/vda /mnt && {WRITE} && sync");
    machine.ssh.succeed(&disk)?;
    let config = "{ cat /etc/levitate.toml; printf '\\n[handover]\\nshutdown = \"5s\"\\ncall = \"2s\"\\n'; } >/tmp/short.toml";
    machine.ssh.succeed(config)?;
    machine.ssh.succeed_for("levitate --config /tmp/short.toml", line::STAGE)?;
    let boot = line::boot_id(machine)?;
    machine.freeze_disk()?;
    machine.ssh.succeed(WRITE)?;
    let said = machine.console.text().len();
    machine.ssh.run(stuck.reboot)?;
    machine.console.wait_for(stuck.says, said, line::BOOT)?;
    machine.console.wait_for("Restarting system", said, line::BOOT)?;
    // the next kernel could not even look for its partitions
    machine.thaw_disk()?;
    line::wait_for_other_boot(machine, &boot)?;
    line::runs_firmware(machine, 1)
}

/// For inits of which nothing more is to be checked.
pub(super) fn nothing_more(_: &Machine) -> Result<(), Failure> {
    Ok(())
}
