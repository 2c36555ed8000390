//! `levitate check` tells what would happen, and nothing is another than before.

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line::{self, Nobody};
use crate::machine::{Device, Machine};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "levitate_check_changes_nothing_and_says_what_reboot_would_do",
    board: Board::Virt,
    limit: minutes(5),
    run,
}];

/// Mounts, and every file that can change, but for what the running services write themselves.
const LOOK: &str = "cat /proc/self/mountinfo; find /run /tmp /persist /dev ! -path '/persist/activity*' \
    ! -path '/run/service/*/supervise*' ! -path '/dev/pts/*' -type f -o -type d -o -type l | sort; \
    stat -c '%n %a %u %g' /run /tmp /persist /run/*";

/// The header of an ELF program for 32-bit big-endian MIPS.
const ALIEN: &str = "{ printf '\\177ELF\\001\\002\\001\\000\\000\\000\\000\\000\\000\\000\\000\\000'; \
    printf '\\000\\002\\000\\010\\000\\000\\000\\001'; head -c 28 /dev/zero; } > /tmp/alien && chmod +x /tmp/alien && \
    { echo 'libraries = []'; sed 's|^packages = \\[|&\"/tmp/alien\",|' /etc/levitate.toml; } > /tmp/alien.toml && \
    grep -q /tmp/alien /tmp/alien.toml";

fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    machine.ssh.succeed(ALIEN)?;
    let before = machine.ssh.succeed(LOOK)?;

    let said = machine.ssh.succeed_for("levitate check", line::STAGE)?;
    for line in [
        "hook: wired by ",
        "services: sshd\n",
        "users who could log in: root (1 key",
        ": mounted at / (squashfs)",
        "reboot: now a normal reboot\n",
        "reboot: after `levitate` enters maintenance mode\n",
        "`levitate` would work",
    ] {
        check!(said.contains(line), "levitate check does not say {line:?}:\n{said}");
    }
    check!(!said.contains("not tried:"), "something was not tried:\n{said}");
    json_says_the_same(&machine)?;

    let refused = machine.ssh.run_for("levitate --config /tmp/alien.toml check", line::STAGE)?;
    check!(refused.code == Some(1), "a program for another processor: {refused}");
    let reason = "  - /tmp/alien cannot run: the kernel does not know its format";
    check!(refused.stdout.contains(reason), "it is not told why: {refused}");

    let after = machine.ssh.succeed(LOOK)?;
    check!(before == after, "levitate check left traces; before:\n{before}\nafter:\n{after}");
    let usage = machine.ssh.run("levitate check --fly")?;
    check!(usage.code == Some(2), "an unknown option: {usage}");

    line::levitate(&machine, &mut Nobody)?;
    let said = machine.ssh.succeed_for("levitate check", line::STAGE)?;
    let now = "reboot: now enters the maintenance root that is staged\n";
    check!(said.contains(now), "what is staged is not told:\n{said}");
    Ok(())
}

fn json_says_the_same(machine: &Machine) -> Result<(), Failure> {
    let text = machine.ssh.succeed_for("levitate check --json", line::STAGE)?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| Failure::test(format!("no JSON ({e}): {text}")))?;
    check!(json["version"] == 1 && json["works"] == true, "{text}");
    let programs = json["programs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let results = |result: &str| programs.iter().filter(|p| p["result"] == result).count();
    check!(programs.len() >= 4 && results("loads") + results("links") == programs.len(), "{text}");
    check!(results("links") > 0, "no program with libraries is among them: {text}");
    check!(json["memory"]["fits"] == true && json["reboot"]["after_levitate"] == "maintenance", "{text}");
    Ok(())
}
