//! A device that was not prepared when its firmware was built: the maintenance root comes as an archive.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::minutes;
use crate::assets::{Assets, cross};
use crate::boards::virt::Boot;
use crate::check::check;
use crate::firmware::{self, Firmware};
use crate::line;
use crate::machine::{Device, Machine};
use crate::process::{self, Finished};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "an_archive_built_elsewhere_is_staged_on_an_unprepared_device_and_boots_by_itself",
    board: Board::Virt,
    limit: minutes(10),
    run,
}];

/// What the archive holds.
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/device/image/levitate.toml");
/// The only thing that is brought onto the device.
const PROGRAM: &str = "/tmp/copied/levitate";

fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let archive = build(assets, &device, &firmware)?;
    staged(&device, &firmware, &archive)?;
    booted(&device, &firmware, &archive)
}

/// Builds the archive on this machine, whose processor is another, from two copies of the device's root.
fn build(assets: &Assets, device: &Device, firmware: &Firmware) -> Result<PathBuf, Failure> {
    let program = host_levitate()?;
    let mut archives = Vec::new();
    for name in ["one", "two"] {
        let sysroot = device.file(&format!("sysroot-{name}"));
        firmware::sysroot(assets, &firmware.ssh_key, &sysroot)?;
        let archive = device.file(&format!("{name}.cpio.gz"));
        let mut command = Command::new(&program);
        command.args(["build", "--sysroot"]).arg(&sysroot).arg("-o").arg(&archive);
        command.args(["--config", CONFIG]).env("SOURCE_DATE_EPOCH", "1767225600");
        let done = process::run(command, None, Duration::from_secs(60))?;
        check!(done.code == Some(0), "levitate build: {done}");
        archives.push(archive);
    }
    let read = |path: &Path| std::fs::read(path).map_err(|e| Failure::file("read", path, e));
    check!(read(&archives[0])? == read(&archives[1])?, "two builds of the same root differ");
    Ok(archives.remove(0))
}

/// `levitate` for this machine, as `cargo test` builds it.
fn host_levitate() -> Result<PathBuf, Failure> {
    let mut cargo = cross::cargo();
    cargo.args(["build", "--quiet", "--workspace", "--bin", "levitate"]);
    let done = process::run(cargo, None, Duration::from_secs(300))?;
    if done.code != Some(0) {
        return Err(Failure::harness(format!("building levitate for this machine: {done}")));
    }
    let own = std::env::current_exe().map_err(Failure::harness)?;
    let target = own.parent().and_then(Path::parent).unwrap_or(Path::new("target"));
    Ok(target.join("debug/levitate"))
}

/// On v1 without a configuration, with nothing but a copy of the program in /tmp.
fn staged(device: &Device, firmware: &Firmware, archive: &Path) -> Result<(), Failure> {
    let (machine, _) = line::power_on(device, firmware, 1)?;
    machine.ssh.succeed(&format!(
        "mount -o bind /dev/null /etc/levitate.toml && mkdir /tmp/copied && cp /usr/sbin/levitate {PROGRAM}"
    ))?;
    let done = machine.ssh.run_for(PROGRAM, line::STAGE)?;
    check!(done.code == Some(1), "levitate without a configuration: {done}");

    let half = device.file("half.cpio.gz");
    let bytes = std::fs::read(archive).map_err(|e| Failure::file("read", archive, e))?;
    std::fs::write(&half, &bytes[..bytes.len() / 2]).map_err(|e| Failure::file("write", &half, e))?;
    let done = pipe(&machine, &half)?;
    check!(done.code == Some(1) && done.stderr.contains("nothing was staged"), "half an archive: {done}");
    let left = machine.ssh.succeed("ls -d /run/maintenance* 2>/dev/null || true")?;
    check!(left.is_empty(), "half an archive left {left}");

    let done = pipe(&machine, archive)?;
    check!(done.code == Some(0) && done.stdout.contains("users who can log in: root"), "{done}");
    machine.ssh.succeed(&format!("{PROGRAM} abort"))?;
    // and once more, from a file
    machine.ssh.put(archive, "/tmp/root.cpio.gz")?;
    machine.ssh.succeed_for(&format!("{PROGRAM} --image /tmp/root.cpio.gz"), line::STAGE)?;
    line::enter_maintenance(&machine)?;
    is_maintenance_root(&machine)?;
    // the address came from the old system, the key is the one that this client knows already
    let status = machine.ssh.succeed("levitate status")?;
    check!(status.contains("maintenance mode since"), "levitate status says:\n{status}");
    let flash = machine.ssh.succeed("grep -c mtdblock /proc/mounts || true")?;
    check!(flash == "0", "{flash} file systems on flash are still mounted");
    machine.cut_power();
    Ok(())
}

fn pipe(machine: &Machine, archive: &Path) -> Result<Finished, Failure> {
    let mut client = machine.ssh.client();
    client.arg(format!("{PROGRAM} --image -"));
    process::run(client, Some(archive), line::STAGE)
}

/// The same file as the only root of a board that has nothing else.
fn booted(device: &Device, firmware: &Firmware, archive: &Path) -> Result<(), Failure> {
    let boot = Boot::Rescue {
        kernel: firmware.rescue_kernel.clone(),
        initrd: archive.to_owned(),
        append: String::new(),
    };
    let machine = device.power_on(&boot)?;
    machine.ssh.wait_for_login(line::BOOT)?;
    is_maintenance_root(&machine)?;
    let status = machine.ssh.succeed("levitate status")?;
    check!(status.contains("booted as an initramfs, without a hand-over"), "levitate status says:\n{status}");
    check!(status.contains("reboot: leaves maintenance mode"), "levitate status says:\n{status}");
    // there is a lease here, too, and it answers
    let lease = machine.ssh.succeed("levitate lease")?;
    check!(lease.starts_with("lease: ") && !lease.contains("not known"), "levitate lease says:\n{lease}");
    Ok(())
}

fn is_maintenance_root(machine: &Machine) -> Result<(), Failure> {
    let first = machine.ssh.succeed("readlink /proc/1/exe")?;
    check!(first == "/sbin/levitate", "PID 1 is {first}");
    let banner = machine.ssh.succeed("cat /etc/banner")?;
    check!(banner.contains("FLOATING IN SPACE"), "the banner says: {banner}");
    let kind = machine.ssh.succeed("stat -f -c %T /")?;
    check!(["tmpfs", "ramfs"].contains(&kind.as_str()), "/ is on {kind}");
    machine.ssh.succeed("flashcp --version && test ! -e /usr/sbin/flash_erase").map(drop)
}
