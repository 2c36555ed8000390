//! `levitate` refuses what would leave a device that nobody can reach, and then nothing has changed.

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::{Device, Machine};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "levitate_refuses_what_would_lose_the_device_and_stages_nothing",
    board: Board::Virt,
    limit: minutes(5),
    run,
}];

/// How the cause is made, the configuration that is used, and words of the refusal.
const CASES: &[(&str, &str, &[&str])] = &[
    (
        "cp /etc/levitate.toml /tmp/no-login.toml && sed -i '/^\\[services.sshd\\]/,/^$/d' /tmp/no-login.toml",
        "/tmp/no-login.toml",
        &["log in"],
    ),
    (
        "sed 's/^keep = true/keep = true\\nauthorized_keys = []/' /etc/levitate.toml > /tmp/no-key.toml",
        "/tmp/no-key.toml",
        &["log in", "root"],
    ),
    (
        "sed 's/libtomcrypt.so.1/libnosuchly.so.1/' /usr/sbin/dropbear > /tmp/dropbear && chmod +x /tmp/dropbear && \
         sed 's|\"/usr/sbin/dropbear\",$|\"/tmp/dropbear\",|' /etc/levitate.toml > /tmp/no-library.toml && grep -q /tmp/dropbear /tmp/no-library.toml",
        "/tmp/no-library.toml",
        &["libnosuchly.so.1", "/tmp/dropbear"],
    ),
    (
        "sed 's|\"/usr/sbin/dropbear\",$|\"/usr/sbin/nosuch\",|' /etc/levitate.toml > /tmp/no-program.toml",
        "/tmp/no-program.toml",
        &["/usr/sbin/nosuch"],
    ),
    // RAM is really taken, so that the default reserve (the largest partition) does not fit any more.
    (
        "free=$(sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo); mount -o remount,size=90% /tmp; \
         dd if=/dev/zero of=/tmp/fill bs=1024 count=$((free - 14000)) 2>/dev/null",
        "/etc/levitate.toml",
        &["memory", "KiB"],
    ),
];

/// Exit code 1, the right words, nothing staged, and `reboot` stays a reboot.
fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    for (make, config, words) in CASES {
        machine.ssh.succeed(make)?;
        let done = machine.ssh.run_for(&format!("levitate --config {config}"), line::STAGE)?;
        check!(done.code == Some(1), "levitate --config {config}: {done}");
        for word in *words {
            check!(done.stderr.contains(word), "levitate --config {config} does not say {word:?}: {done}");
        }
        nothing_staged(&machine)?;
    }
    machine.ssh.succeed("rm /tmp/fill")?;
    let boot = line::boot_id(&machine)?;
    line::reboot(&machine)?;
    line::wait_for_other_boot(&machine, &boot)?;
    line::runs_firmware(&machine, 1)
}

fn nothing_staged(machine: &Machine) -> Result<(), Failure> {
    let left = machine.ssh.succeed("ls -d /run/maintenance* 2>/dev/null || true")?;
    check!(left.is_empty(), "a refusal left {left}");
    Ok(())
}
