//! `cargo demo`: the main job, live, as its user sees it.

use std::io::{IsTerminal, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::assets::Assets;
use crate::firmware::{Firmware, System};
use crate::line::{self, Audience};
use crate::machine::{Device, Machine, SLOW_CHIP};
use crate::nor_image::{DATA, ENV, FIRMWARE, Snapshot};
use crate::process;
use crate::suite::Failure;

/// What the demo proved and how long each leg took; `--json` prints exactly this.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// One sentence.
    pub(crate) proved: &'static str,
    /// Bytes of `firmware.bin`.
    pub(crate) image_bytes: u64,
    /// The legs, in seconds.
    pub(crate) seconds: Legs,
}

/// Seconds of each leg.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Legs {
    /// Power-on to an ssh login in v1.
    pub(crate) power_on_to_login: f64,
    /// `levitate`.
    pub(crate) levitate: f64,
    /// `reboot` to an ssh login in the maintenance root.
    pub(crate) reboot_to_maintenance_login: f64,
    /// `flashcp -v firmware.bin mtd:firmware`.
    pub(crate) flashing: f64,
    /// Power-on (a new QEMU process on the same NOR file) to an ssh login in v2.
    pub(crate) power_on_to_v2_login: f64,
}

impl Outcome {
    /// The line that the demo ends with.
    pub(crate) fn line(&self) -> String {
        let s = &self.seconds;
        format!(
            "proved: {}; power-on to login {:.1} s, levitate {:.1} s, reboot to maintenance login {:.1} s, \
             flashing {:.1} MiB {:.1} s, power-on to login in v2 {:.1} s",
            self.proved,
            s.power_on_to_login,
            s.levitate,
            s.reboot_to_maintenance_login,
            mebibytes(self.image_bytes),
            s.flashing,
            s.power_on_to_v2_login
        )
    }
}

/// Runs the main job and shows it on standard error, live.
pub(crate) fn run(assets: &Assets) -> Result<Outcome, Failure> {
    let firmware = Firmware::build(assets)?;
    let mut device = Device::new(assets, &firmware)?;
    device.chip_speed = Some(SLOW_CHIP);
    let image_bytes = std::fs::metadata(&firmware.firmware_v2)
        .map_err(|e| Failure::file("look at", &firmware.firmware_v2, e))?
        .len();
    let mut seconds = Legs::default();
    let mut show = Show;

    title("the device is switched on: U-Boot, kernel and root come from its NOR flash");
    let (machine, took) = line::power_on(&device, &firmware, 1)?;
    seconds.power_on_to_login = leg("power-on to an ssh login", took);
    show.command(&machine, "uname -v; grep PRETTY /etc/os-release; cat /proc/mtd", line::BOOT)?;
    show.command(&machine, "grep -E ' (/|/persist) ' /proc/mounts", line::BOOT)?;

    title("the running system stages a maintenance root into RAM");
    seconds.levitate = leg("levitate", line::levitate(&machine, &mut show)?);

    title("PID 1 moves into it; the flash is let go");
    prompt("reboot");
    seconds.reboot_to_maintenance_login =
        leg("reboot to an ssh login: same address, same host key", line::enter_maintenance(&machine)?);
    show.command(&machine, "cat /etc/banner; cat /proc/mounts; ps | grep -v '\\[k\\|\\[.*\\]$'", line::BOOT)?;
    let at_login = Snapshot::take(&device.nor())?;

    title("the new firmware is copied over ssh and flashed");
    say(&format!(
        "$ ssh root@device 'cat > {}' < firmware.bin    ({:.1} MiB)",
        line::IMAGE,
        mebibytes(image_bytes)
    ));
    seconds.flashing = leg("flashcp", line::flash(&machine, &firmware.firmware_v2, &mut show)?);
    let flashed = Snapshot::take(&device.nor())?;
    at_login.same(&flashed, &[ENV, DATA], "in the maintenance root")?;
    let image =
        std::fs::read(&firmware.firmware_v2).map_err(|e| Failure::file("read", &firmware.firmware_v2, e))?;
    if !flashed.partition(&FIRMWARE).starts_with(&image) {
        return Err(Failure::test("the firmware partition does not hold the image"));
    }

    title("the new firmware boots");
    let boot = line::boot_id(&machine)?;
    prompt("reboot");
    line::reboot(&machine)?;
    line::wait_for_other_boot(&machine, &boot)?;
    line::runs_firmware(&machine, 2)?;
    machine.cut_power();
    say("(and once more from power-on, in a new QEMU process on the same NOR file)");
    let (machine, took) = line::power_on(&device, &firmware, 2)?;
    seconds.power_on_to_v2_login = leg("power-on to an ssh login in v2", took);
    show.command(&machine, "uname -v; grep PRETTY /etc/os-release; levitate status", line::BOOT)?;

    Ok(Outcome {
        proved: "a device that ran v1 from NOR flash went into RAM, was reflashed over ssh and boots v2; \
                 its U-Boot environment stayed the same to the last byte, and so did its data while it was flashed",
        image_bytes,
        seconds,
    })
}

/// What ssh exits with when the connection was lost, and not the remote shell ended.
const CONNECTION_LOST: i32 = 255;

/// Where `--shell` leaves the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Place {
    /// Firmware v1, running from flash.
    V1,
    /// The maintenance root, running from RAM.
    Maintenance,
}

/// Boots a device and hands the terminal to an ssh session on it. A session that the device ended (by `reboot`) is
/// followed by another as soon as the device answers again; when its user ends one, the device is switched off.
pub(crate) fn shell(assets: &Assets, place: Place, init: System) -> Result<(), Failure> {
    let firmware = Firmware::of(assets, init)?;
    let device = Device::new(assets, &firmware)?;
    let mut machine = match place {
        Place::V1 => line::power_on(&device, &firmware, 1)?.0,
        Place::Maintenance => line::to_maintenance(&device, &firmware)?,
    };
    if place == Place::Maintenance {
        machine.ssh.put(&firmware.firmware_v2, line::IMAGE)?;
        say(&format!("firmware v2 lies at {}; flash it by: {}", line::IMAGE, line::FLASHCP));
    } else {
        say("this is v1; `levitate` and then `reboot` lead into the maintenance root");
    }
    say(&format!("from another terminal: {}", machine.ssh.by_hand()));
    say("`exit` ends the session and switches the device off");
    loop {
        let mut client = machine.ssh.client();
        if std::io::stdin().is_terminal() {
            client.arg("-t");
        }
        // The session lasts as long as its user wants.
        let ended = client.status().map_err(|e| Failure::harness(format!("cannot start ssh: {e}")))?;
        if ended.code() != Some(CONNECTION_LOST) || machine.is_off() {
            return Ok(());
        }
        say("the device ended the session; waiting until it answers again (ctrl-C switches it off)");
        if !answers_again(&mut machine)? {
            return Ok(());
        }
    }
}

/// Waits for a login; `false` if the device powers off instead.
fn answers_again(machine: &mut Machine) -> Result<bool, Failure> {
    let start = Instant::now();
    loop {
        match machine.ssh.wait_for_login(Duration::from_secs(2)) {
            Ok(()) => return Ok(true),
            Err(_) if machine.is_off() => return Ok(false),
            Err(failure) if start.elapsed() >= line::HAND_OVER => return Err(failure),
            Err(_) => {}
        }
    }
}

/// Shows each command and, as it comes, what it prints.
struct Show;

impl Audience for Show {
    fn command(&mut self, machine: &Machine, command: &str, limit: Duration) -> Result<String, Failure> {
        prompt(command);
        let mut client = machine.ssh.client();
        // A terminal on the device, so that programs show what they show to a person.
        client.args(["-t", "-t"]).arg(command).stdin(Stdio::null());
        client.stdout(std::io::stderr()).stderr(Stdio::inherit());
        let mut child = client.spawn().map_err(|e| Failure::harness(format!("cannot start ssh: {e}")))?;
        let code = process::wait(&mut child, limit);
        if code.is_err() {
            process::end(&mut child);
        }
        match code? {
            Some(0) => Ok(String::new()),
            code => Err(Failure::test(format!("`{command}` on the device: exit {code:?}"))),
        }
    }
}

fn title(text: &str) {
    say(&format!("\n== {text}"));
}

fn prompt(command: &str) {
    say(&format!("root@device:~# {command}"));
}

fn leg(what: &str, took: Duration) -> f64 {
    say(&format!("   [{what}: {:.1} s]", took.as_secs_f64()));
    (took.as_secs_f64() * 100.0).round() / 100.0
}

fn say(text: &str) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn mebibytes(bytes: u64) -> f64 {
    // Exact up to 2^53 bytes.
    #[allow(clippy::cast_precision_loss)]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}
