//! The manual's first chapter in the maintenance root: services and their commands.

use super::minutes;
use super::services_console::{CONSOLE, who_is_let_in};
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::{Device, Machine};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "services_of_the_manuals_quick_reference_work_word_for_word",
        board: Board::Virt,
        limit: minutes(10),
        run: quick_reference,
    },
    Scenario {
        name: "services_with_controllers_follow_devices_deaths_and_failing_checks",
        board: Board::Virt,
        limit: minutes(10),
        run: controllers,
    },
];

/// Beside the login: a wombat with what it needs and what needs it, and a controlled service below it.
const WOMBAT: &str = r#"
[services.ground]
type = "oneshot"
up = "echo firm ground"
[services.burrow]
run = "echo dug; exec sleep 100000"
dependencies = ["ground"]
[services.wombat]
run = "echo awake; sleep 1; echo >&3; exec sleep 100000"
notification-fd = 3
dependencies = ["burrow"]
[services.joey]
run = "exec sleep 100000"
dependencies = ["wombat"]
[services.pouch]
run = "exec sleep 100000"
dependencies = ["joey"]
[services.keeper]
run = "exec sleep 100000"
[services.feed]
run = "exec sleep 100000"
controlled-by = "keeper"
[services.fat-wombat]
run = "exec sleep 100000"
dependencies = ["wombat", "feed"]
"#;

/// A device in a maintenance root with these services beside the login of its own configuration.
pub(super) fn with_services(assets: &Assets, services: &str) -> Result<(Device, Machine), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    let file = device.file("services.toml");
    std::fs::write(&file, services).map_err(|e| Failure::file("write", &file, e))?;
    machine.ssh.put(&file, "/tmp/more.toml")?;
    machine.ssh.succeed("cat /etc/levitate.toml /tmp/more.toml > /tmp/services.toml")?;
    machine.ssh.succeed_for("levitate --config /tmp/services.toml", line::STAGE)?;
    line::enter_maintenance(&machine)?;
    Ok((device, machine))
}

/// The lines of a command, in one line.
fn words(machine: &Machine, command: &str) -> Result<String, Failure> {
    Ok(machine.ssh.succeed(command)?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Holds a command to what it prints, lines joined.
fn says(machine: &Machine, command: &str, expected: &str) -> Result<(), Failure> {
    let said = words(machine, command)?;
    check!(said == expected, "`{command}` should say\n{expected}\nbut says\n{said}");
    Ok(())
}

/// Holds a command to its exit code.
fn exits(machine: &Machine, command: &str, expected: i32) -> Result<(), Failure> {
    let done = machine.ssh.run(command)?;
    check!(done.code == Some(expected), "`{command}` should exit with {expected}: {done}");
    Ok(())
}

fn quick_reference(assets: &Assets) -> Result<(), Failure> {
    let (_device, machine) = with_services(assets, WOMBAT)?;
    line::wait_until(&machine, "s6-svstat -o up pouch | grep -q true", line::BOOT)?;
    the_table(&machine)?;
    one_process(&machine)?;
    exit_codes(&machine)?;
    the_log(&machine)?;
    a_clock_that_is_set(&machine)?;
    for_people(&machine)
}

/// The manual's table, line by line.
fn the_table(machine: &Machine) -> Result<(), Failure> {
    // list all running services, and all that are not running
    says(machine, "s6-rc -a list", "burrow ground joey keeper pouch sshd wombat")?;
    says(machine, "s6-rc -da list", "fat-wombat feed")?;
    // what wombat depends on, also transitively
    says(machine, "s6-rc-db dependencies wombat", "burrow")?;
    says(machine, "s6-rc-db all-dependencies wombat", "burrow ground wombat")?;
    // what depends on wombat, also transitively
    says(machine, "s6-rc-db -d dependencies wombat", "fat-wombat joey")?;
    says(machine, "s6-rc-db -d all-dependencies wombat", "fat-wombat joey pouch wombat")?;
    // stop wombat and everything that depends on it
    machine.ssh.succeed("s6-rc -d change wombat")?;
    says(machine, "s6-rc -da list", "fat-wombat feed joey pouch wombat")?;
    // start wombat, but not what depends on it; it answers when wombat is ready, a second later
    machine.ssh.succeed("s6-rc -u change wombat && s6-svstat -o up,ready wombat | grep -q 'true true'")?;
    says(machine, "s6-rc -da list", "fat-wombat feed joey pouch")?;
    // start wombat and all that depends on it, but not what is below a controlled service that is down
    machine.ssh.succeed("s6-rc -d change wombat && s6-rc-up-tree wombat")?;
    says(machine, "s6-rc -da list", "fat-wombat feed")?;
    // once that is up, what is below it is started too
    machine.ssh.succeed("s6-rc -u change feed && s6-rc-up-tree wombat")?;
    says(machine, "s6-rc -da list", "")?;
    machine.ssh.succeed("s6-rc -d change feed")?;
    says(machine, "s6-rc -da list", "fat-wombat feed")
}

/// `s6-svc` on a process: restarted, it is another one, and who depends on it stays.
fn one_process(machine: &Machine) -> Result<(), Failure> {
    let pid = |name: &str| words(machine, &format!("s6-svstat -o pid {name}"));
    let (wombat, joey) = (pid("wombat")?, pid("joey")?);
    machine.ssh.succeed("s6-svc -wr -T 20000 -r /run/service/wombat")?;
    check!(pid("wombat")? != wombat, "s6-svc -r left wombat's process {wombat}");
    check!(pid("joey")? == joey, "s6-svc -r of wombat restarted joey");
    machine.ssh.succeed("s6-svc -wd -d pouch && s6-svstat pouch | grep -q '^down (signal SIGTERM)'")?;
    machine.ssh.succeed("s6-svc -wu -u pouch && s6-svstat pouch | grep -q '^up (pid '").map(drop)
}

fn exit_codes(machine: &Machine) -> Result<(), Failure> {
    for (command, code) in [
        ("s6-rc -a list", 0),
        ("s6-rc change wombat kangaroo", 3),
        ("s6-rc reload wombat", 100),
        ("s6-rc -l /nowhere list", 111),
        ("s6-rc-db type kangaroo", 3),
        ("s6-rc-db contents wombat", 5),
        ("s6-rc-db flag", 100),
        ("s6-rc-db check", 0),
        ("mkdir -p /tmp/bad/x && s6-rc-db -c /tmp/bad check", 4),
        // ready only after a second
        ("s6-rc -d change wombat && s6-rc -t 100 -u change wombat", 2),
        ("s6-rc -u change joey pouch", 0),
        ("s6-svstat kangaroo", 1),
    ] {
        exits(machine, command, code)?;
    }
    Ok(())
}

/// The manual's two ways to look at the log.
fn the_log(machine: &Machine) -> Result<(), Failure> {
    let log = machine.ssh.succeed("ls -l /run/log/ && tail -n 2 /run/log/current | s6-tai64nlocal")?;
    for name in ["lock", "state", "current"] {
        check!(log.contains(&format!(" {name}\n")), "/run/log has no {name}:\n{log}");
    }
    let now = machine.ssh.succeed("date '+%Y-%m-%d %H:'")?;
    let now = now.trim_end_matches(':');
    let last = log.lines().last().unwrap_or_default();
    check!(
        last.starts_with(now) && last.as_bytes().get(29) == Some(&b' '),
        "at {now} the log's last line is {last}"
    );
    // a oneshot's line too
    machine.ssh.succeed("grep -q ' ground firm ground$' /run/log/current && grep -q ' wombat awake$' /run/uncaught-logs/current").map(drop)
}

/// Stamps rise all the same, and so do the names of what is archived by them.
fn a_clock_that_is_set(machine: &Machine) -> Result<(), Failure> {
    for (year, pid) in [(2040, "pouch"), (2001, "joey")] {
        let set = format!("date -s {year}-01-01 > /dev/null && s6-svc -wr -T 20000 -r {pid}");
        machine.ssh.succeed(&set)?;
    }
    let stamps = machine.ssh.succeed("cut -c1-25 /run/log/current")?;
    let stamps: Vec<&str> = stamps.lines().collect();
    check!(stamps.is_sorted_by(|before, after| before < after), "stamps go backwards:\n{stamps:#?}");
    let last = machine.ssh.succeed("tail -n 1 /run/log/current | s6-tai64nlocal")?;
    check!(last.starts_with("2040-01-01 "), "after the clock was set back the log says {last}");
    Ok(())
}

fn for_people(machine: &Machine) -> Result<(), Failure> {
    let tree = machine.ssh.succeed("levitate services")?;
    for part in ["pouch", "└─ joey", "   └─ wombat", "controlled by keeper", "bundle default: "] {
        check!(tree.contains(part), "the tree has no {part:?}:\n{tree}");
    }
    let memory = machine.ssh.succeed("grep -E '^(VmRSS|RssAnon)' /proc/1/status")?;
    let resident = memory.split_whitespace().nth(1).and_then(|kb| kb.parse::<u32>().ok()).unwrap_or(u32::MAX);
    println!("PID 1 after all that: {}", memory.replace('\n', ", "));
    check!(resident < 2_048, "PID 1 is larger than 2 MiB: {memory}");
    Ok(())
}

/// What is controlled, and a pipeline beside it.
const CONTROLLED: &str = r#"
[services.plug]
run = ["uevent-rule", "--service", "stick", "--symlink", "/dev/stick", "subsystem=block", "devtype=disk", "attr.serial=wombat"]
[services.stick]
run = "test -b /dev/stick && exec sleep 100000"
controlled-by = "plug"
[services.on-stick]
type = "oneshot"
up = "echo on the stick"
dependencies = ["stick"]
[services.turns]
run = ["round-robin", "first", "second"]
[services.first]
run = "exec sleep 100000"
controlled-by = "turns"
[services.second]
run = "exec sleep 100000"
controlled-by = "turns"
[services.watch-web]
run = ["health-check", "--service", "web", "--interval", "1", "--threshold", "1", "--", "test", "-e", "/run/healthy"]
[services.web]
run = "exec sleep 100000"
controlled-by = "watch-web"
[services.watch-line]
run = ["health-check", "--service", "line", "--interval", "1", "--threshold", "1", "--", "test", "-e", "/run/connected"]
[services.line]
type = "oneshot"
up = "echo dialled"
down = "echo hung up"
controlled-by = "watch-line"
[services.on-line]
run = "exec sleep 100000"
dependencies = ["line"]
[services.talker]
run = "n=0; while n=$((n+1)); do echo word $n; sleep 1; done"
producer-for = "scribe"
[services.scribe]
run = "while read -r line; do echo \"$line\" >> /run/scribe; done"
consumer-for = ["talker"]
pipeline-name = "talk"
"#;

fn controllers(assets: &Assets) -> Result<(), Failure> {
    let (_device, mut machine) = with_services(assets, &[CONTROLLED, CONSOLE].concat())?;
    machine.ssh.succeed("touch /run/healthy /run/connected")?;
    a_device(&mut machine)?;
    in_turn(&machine)?;
    by_health(&machine)?;
    a_pipeline(&machine)?;
    who_is_let_in(&machine)?;
    // Controllers that hear of their services' ends do not hold up the end of the system.
    let before = line::boot_id(&machine)?;
    line::reboot(&machine)?;
    line::wait_for_other_boot(&machine, &before)?;
    the_boot_before(&machine)
}

/// U-Boot leaves alone what its device tree reserves: the end of one maintenance root is told in the next.
fn the_boot_before(machine: &Machine) -> Result<(), Failure> {
    line::levitate(machine, &mut line::Nobody)?;
    line::enter_maintenance(machine)?;
    let kept = machine.ssh.succeed("cat /run/log/previous-boot/pmsg*")?;
    for line in [" on-stick on the stick", " init reboot: stopping services", " init on-line: down"] {
        check!(kept.lines().any(|kept| kept.ends_with(line)), "the boot before left no {line:?}:\n{kept}");
    }
    Ok(())
}

fn is_up(machine: &Machine, service: &str) -> Result<(), Failure> {
    line::wait_until(machine, &format!("s6-svstat -o up {service} | grep -q true"), line::BOOT)
}

fn is_down(machine: &Machine, service: &str) -> Result<(), Failure> {
    line::wait_until(machine, &format!("s6-svstat -o up {service} | grep -q false"), line::BOOT)
}

fn a_device(machine: &mut Machine) -> Result<(), Failure> {
    is_down(machine, "stick")?;
    // Without the device its service and what is below it are left alone.
    machine.ssh.succeed("s6-rc-up-tree plug")?;
    is_down(machine, "on-stick")?;
    machine.plug("wombat")?;
    is_up(machine, "stick")?;
    machine.ssh.succeed("readlink /dev/stick | grep -q '^/dev/vd[a-z]$'")?;
    machine.ssh.succeed("s6-rc-up-tree plug && s6-svstat -o up on-stick | grep -q true")?;
    // A controller that is started again finds what is there already.
    machine.ssh.succeed("s6-rc -d change plug && s6-svstat -o up stick | grep -q false")?;
    machine.ssh.succeed("s6-rc -u change plug")?;
    is_up(machine, "stick")?;
    machine.ssh.succeed("s6-rc -u change on-stick")?;
    machine.unplug("wombat")?;
    is_down(machine, "on-stick")?;
    is_down(machine, "stick")?;
    machine.ssh.succeed("test ! -L /dev/stick").map(drop)
}

/// By the state of the processes: these services leave no files.
fn in_turn(machine: &Machine) -> Result<(), Failure> {
    is_up(machine, "first")?;
    is_down(machine, "second")?;
    machine.ssh.succeed("s6-svc -k first")?;
    is_up(machine, "second")?;
    is_down(machine, "first")?;
    machine.ssh.succeed("kill $(s6-svstat -o pid second)")?;
    is_up(machine, "first")?;
    is_down(machine, "second")
}

fn by_health(machine: &Machine) -> Result<(), Failure> {
    is_up(machine, "web")?;
    let pid = words(machine, "s6-svstat -o pid web")?;
    machine.ssh.succeed("rm /run/healthy")?;
    line::wait_until(
        machine,
        &format!("pid=$(s6-svstat -o pid web) && test $pid != -1 && test $pid != {pid}"),
        line::BOOT,
    )?;
    machine.ssh.succeed("touch /run/healthy")?;

    is_up(machine, "line")?;
    machine.ssh.succeed("s6-rc -u change on-line && rm /run/connected")?;
    line::wait_until(
        machine,
        "cat /run/log/@* /run/log/current 2>/dev/null | grep -q ' line hung up$'",
        line::BOOT,
    )?;
    machine.ssh.succeed("touch /run/connected")?;
    // Up again, and with it what needs it.
    is_up(machine, "on-line")
}

/// What is said while the reader is away waits in the pipe.
fn a_pipeline(machine: &Machine) -> Result<(), Failure> {
    says(machine, "s6-rc-db contents talk", "scribe talker")?;
    says(machine, "s6-rc-db pipeline scribe", "talker scribe")?;
    line::wait_until(machine, "grep -qx 'word 2' /run/scribe", line::BOOT)?;
    machine.ssh.succeed("s6-svc -k scribe")?;
    let last: u32 =
        words(machine, "tail -n 1 /run/scribe | cut -d' ' -f2")?.parse().map_err(Failure::test)?;
    line::wait_until(machine, &format!("grep -qx 'word {}' /run/scribe", last + 3), line::BOOT)?;
    machine
        .ssh
        .succeed("s6-rc -d change scribe && s6-svstat -o up talker | grep -q false && s6-rc -u change talk")
        .map(drop)
}
