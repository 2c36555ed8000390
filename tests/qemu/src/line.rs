//! The straight line through the main job, leg by leg: `cargo demo` shows it, the tests hold each leg to its promise.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::check::check;
use crate::firmware::Firmware;
use crate::machine::{Device, Machine};
use crate::ssh;
use crate::suite::Failure;

/// Limits: ten times and more of what was seen on two idle cores, because boards run side by side.
pub(crate) const BOOT: Duration = Duration::from_secs(90);
/// For `levitate`.
pub(crate) const STAGE: Duration = Duration::from_secs(90);
/// For the hand-over, up to a login in the maintenance root.
pub(crate) const HAND_OVER: Duration = Duration::from_secs(120);
/// For a whole run of flashcp.
pub(crate) const FLASH: Duration = Duration::from_secs(300);

/// Where the image lies on the device.
pub(crate) const IMAGE: &str = "/tmp/firmware.bin";
/// The command that the manual gives.
pub(crate) const FLASHCP: &str = "flashcp -v /tmp/firmware.bin mtd:firmware";

/// Who watches the line: nobody in a test, a person in the demo.
pub(crate) trait Audience {
    /// A command is about to be run on the device; what it prints follows.
    fn command(&mut self, machine: &Machine, command: &str, limit: Duration) -> Result<String, Failure>;
}

/// Nobody watches.
pub(crate) struct Nobody;

impl Audience for Nobody {
    fn command(&mut self, machine: &Machine, command: &str, limit: Duration) -> Result<String, Failure> {
        machine.ssh.succeed_for(command, limit)
    }
}

/// Power-on through U-Boot to an ssh login in firmware `version`; kernel and root are held to it.
pub(crate) fn power_on(
    device: &Device,
    firmware: &Firmware,
    version: u32,
) -> Result<(Machine, Duration), Failure> {
    let start = Instant::now();
    let machine = device.power_on(&firmware.flash_boot())?;
    machine.ssh.wait_for_login(BOOT)?;
    let took = start.elapsed();
    runs_firmware(&machine, version)?;
    Ok((machine, took))
}

/// Holds the running system to a firmware version: the kernel's build number and the root file system's own file.
pub(crate) fn runs_firmware(machine: &Machine, version: u32) -> Result<(), Failure> {
    let kernel = machine.ssh.succeed("uname -v")?;
    check!(kernel.starts_with(&format!("#{version} ")), "the kernel is not that of v{version}: {kernel}");
    let root = machine.ssh.succeed("cat /etc/os-release")?;
    check!(root.contains(&format!("VERSION_ID={version}\n")), "the root is not that of v{version}: {root}");
    Ok(())
}

/// `levitate`.
pub(crate) fn levitate(machine: &Machine, audience: &mut dyn Audience) -> Result<Duration, Failure> {
    let start = Instant::now();
    audience.command(machine, "levitate", STAGE)?;
    Ok(start.elapsed())
}

/// `reboot`, until the maintenance root lets its owner in.
pub(crate) fn enter_maintenance(machine: &Machine) -> Result<Duration, Failure> {
    let start = Instant::now();
    reboot(machine)?;
    wait_until(machine, "test -e /etc/levitate/manifest.json", HAND_OVER)?;
    Ok(start.elapsed())
}

/// Copies the image and runs the manual's flashcp; the time is flashcp's alone.
pub(crate) fn flash(
    machine: &Machine,
    image: &Path,
    audience: &mut dyn Audience,
) -> Result<Duration, Failure> {
    machine.ssh.put(image, IMAGE)?;
    let start = Instant::now();
    audience.command(machine, FLASHCP, FLASH)?;
    Ok(start.elapsed())
}

/// From v1 to a login in the maintenance root, watched by nobody.
pub(crate) fn to_maintenance(device: &Device, firmware: &Firmware) -> Result<Machine, Failure> {
    let (machine, _) = power_on(device, firmware, 1)?;
    levitate(&machine, &mut Nobody)?;
    enter_maintenance(&machine)?;
    Ok(machine)
}

/// Types `reboot`. The session usually ends before the command does, so what ssh exits with says nothing; only if it never
/// got in, the command is typed again. A server that has too many callers at once turns the next one away.
pub(crate) fn reboot(machine: &Machine) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        let done = machine.ssh.run("reboot")?;
        if done.code != Some(255) || !ssh::never_got_in(&done.stderr) {
            return Ok(());
        }
        if start.elapsed() > BOOT {
            return Err(Failure::test(format!("`reboot` never got in: {done}")));
        }
        std::thread::sleep(crate::console::POLL);
    }
}

/// Logs in again and again until `command` succeeds there.
pub(crate) fn wait_until(machine: &Machine, command: &str, limit: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    let mut last = String::from("no login");
    while start.elapsed() < limit {
        machine.ssh.wait_for_server(limit.saturating_sub(start.elapsed()))?;
        match machine.ssh.run_for(command, Duration::from_secs(20)) {
            Ok(done) if done.code == Some(0) => return Ok(()),
            Ok(done) if done.stderr.contains("HOST IDENTIFICATION") => {
                return Err(Failure::test(format!("the host key changed: {}", done.stderr.trim())));
            }
            Ok(done) => last = done.to_string(),
            Err(failure) => last = failure.to_string(),
        }
        std::thread::sleep(crate::console::POLL);
    }
    Err(Failure::test(format!("`{command}` did not succeed within {} s; last: {last}", limit.as_secs())))
}

/// The kernel's id of this boot: it stays over a hand-over and changes with every real reboot.
pub(crate) fn boot_id(machine: &Machine) -> Result<String, Failure> {
    machine.ssh.succeed("cat /proc/sys/kernel/random/boot_id")
}

/// Waits for a login in another boot than `before`.
pub(crate) fn wait_for_other_boot(machine: &Machine, before: &str) -> Result<(), Failure> {
    let command = format!("test \"$(cat /proc/sys/kernel/random/boot_id)\" != {before}");
    wait_until(machine, &command, BOOT)
}
