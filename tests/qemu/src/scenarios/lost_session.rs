//! The session in which flashcp was started is lost in the middle: the write completes all the same.

use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::console::POLL;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::{Device, Machine, SLOW_CHIP};
use crate::nor_image::{self, FIRMWARE};
use crate::process;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "flashing_completes_when_the_ssh_client_is_killed",
        board: Board::Virt,
        limit: minutes(10),
        run: client_killed,
    },
    Scenario {
        name: "flashing_completes_when_the_link_is_cut_without_a_word",
        board: Board::Virt,
        limit: minutes(10),
        run: link_cut,
    },
    Scenario {
        name: "reboot_and_poweroff_wait_while_flash_is_being_changed",
        board: Board::Virt,
        limit: minutes(10),
        run: reboot_waits,
    },
];

/// The ssh client is killed.
fn client_killed(assets: &Assets) -> Result<(), Failure> {
    let (firmware, device, machine) = ready(assets)?;
    let mut client = flashing(&device, &machine)?;
    process::end(&mut client);
    completes(&machine, &device, &firmware)
}

/// The cable is pulled: no FIN, no RST; the client's pipe and the server's buffers fill up.
fn link_cut(assets: &Assets) -> Result<(), Failure> {
    let (firmware, device, mut machine) = ready(assets)?;
    let mut client = flashing(&device, &machine)?;
    machine.set_link(false)?;
    // Nobody can ask the device now. Its chip tells when the work is done: the head comes last.
    let image = image(&firmware)?;
    wait_for_flash(&device, "the head of the new image", |flash| flash.starts_with(&image[..4096]))?;
    process::end(&mut client);
    machine.set_link(true)?;
    completes(&machine, &device, &firmware)
}

/// `reboot` and `poweroff`, typed while flash is being changed, name the writer and wait for its end.
fn reboot_waits(assets: &Assets) -> Result<(), Failure> {
    let (firmware, device, machine) = ready(assets)?;
    let boot = line::boot_id(&machine)?;
    typed_while_flashing("reboot", &firmware, &device, &machine)?;
    line::wait_for_other_boot(&machine, &boot)?;
    line::runs_firmware(&machine, 2)?;
    drop(machine);

    let (firmware, device, machine) = ready(assets)?;
    typed_while_flashing("poweroff", &firmware, &device, &machine)?;
    machine.wait_for_power_off(line::FLASH)?;
    line::power_on(&device, &firmware, 2).map(drop)
}

/// The chip holds the whole image when this comes back: the verb, typed in the middle, did not cut it short.
fn typed_while_flashing(
    verb: &str,
    firmware: &Firmware,
    device: &Device,
    machine: &Machine,
) -> Result<(), Failure> {
    let mut client = flashing(device, machine)?;
    let output = device.file("verb.out");
    // By its path: busybox's shell would run its own applet, which signals PID 1 and says nothing.
    let mut asking = machine.ssh.start(&format!("/sbin/{verb}"), &output)?;
    let image = image(firmware)?;
    let written = wait_for_flash(device, "the whole new image", |flash| flash.starts_with(&image));
    process::end(&mut asking);
    process::end(&mut client);
    written?;
    let said = std::fs::read_to_string(&output).map_err(|e| Failure::file("read", &output, e))?;
    check!(said.contains("flashcp"), "{verb} did not name who is writing: {said:?}");
    Ok(())
}

fn ready(assets: &Assets) -> Result<(Firmware, Device, Machine), Failure> {
    let firmware = Firmware::build(assets)?;
    let mut device = Device::new(assets, &firmware)?;
    device.chip_speed = Some(SLOW_CHIP);
    let machine = line::to_maintenance(&device, &firmware)?;
    machine.ssh.put(&firmware.firmware_v2, line::IMAGE)?;
    Ok((firmware, device, machine))
}

/// Starts flashcp over ssh and comes back when it is in the middle: the old head is gone.
fn flashing(device: &Device, machine: &Machine) -> Result<Child, Failure> {
    let client = machine.ssh.start(line::FLASHCP, &device.file("flashcp.out"))?;
    wait_for_flash(device, "the old head to go", |flash| !flash.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]))?;
    Ok(client)
}

fn wait_for_flash(device: &Device, what: &str, done: impl Fn(&[u8]) -> bool) -> Result<(), Failure> {
    let start = Instant::now();
    while start.elapsed() < line::FLASH {
        if done(&nor_image::read(&device.nor(), FIRMWARE.range())?) {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
    Err(Failure::test(format!("waited {} s for {what}", line::FLASH.as_secs())))
}

/// A new login sees the report, and the chip holds the image.
fn completes(machine: &Machine, device: &Device, firmware: &Firmware) -> Result<(), Failure> {
    let path = "/run/levitate/flash.json";
    line::wait_until(machine, &format!("grep -q '\"state\": *\"verified\"' {path}"), line::FLASH)?;
    let record = machine.ssh.succeed(&format!("cat {path}"))?;
    let record: Value = serde_json::from_str(&record)
        .map_err(|e| Failure::test(format!("{path} is no JSON: {e}\n{record}")))?;
    check!(record["exit_code"] == 0, "the report says: {record}");
    let image = image(firmware)?;
    let flash = nor_image::read(&device.nor(), FIRMWARE.range())?;
    check!(
        flash.starts_with(&image),
        "the chip does not hold the image although the report says so: {record}"
    );
    let status = machine.ssh.succeed_for("levitate status", Duration::from_secs(30))?;
    check!(status.contains("verified"), "levitate status does not tell of flashcp's report:\n{status}");
    Ok(())
}

fn image(firmware: &Firmware) -> Result<Vec<u8>, Failure> {
    std::fs::read(&firmware.firmware_v2).map_err(|e| Failure::file("read", &firmware.firmware_v2, e))
}
