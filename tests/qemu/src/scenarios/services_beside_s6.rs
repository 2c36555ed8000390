//! The same services and the same input under Debian's s6 and under ours: what people know stays true.

use super::minutes;
use super::services::with_services;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::{Device, Machine};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "services_and_their_logs_behave_as_under_debians_s6",
    board: Board::Virt,
    limit: minutes(10),
    run,
}];

/// When leap seconds were inserted: the UTC second after each.
const LEAPS: [i64; 4] = [78_796_800, 362_793_600, 915_148_800, 1_483_228_800];

/// Dies at once, with one code and then by one signal in turn; `finish` writes down what it is told.
const MORTAL: &str =
    "[ -e /run/x ] && { rm /run/x; kill -9 $$; }; : > /run/x; echo life >> /run/lives; exit 3";
const FINISH: &str = "echo $1 $2 $3 >> /run/finishes";
/// Ready after a second, then there for good.
const READY: &str = "sleep 1; echo >&3; exec sleep 100000";
/// More than fits into all files of a log, and lines longer than its buffer.
const LOUD: &str = "i=0; while [ $i -lt 12000 ]; do echo $i 123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890; \
                    i=$((i+1)); done; head -c 20000 /dev/zero | tr '\\\\0' x; echo; echo the end; exec sleep 100000";

fn config() -> String {
    format!(
        r#"
[services.mortal]
run = "{MORTAL}"
finish = "{FINISH}"
[services.ready]
run = "{READY}"
notification-fd = 3
[services.loud]
run = "{LOUD}"
"#
    )
}

fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    stamps(&machine)?;
    under_s6(&machine)?;
    let theirs = findings(&machine, "/run/theirs", 0)?;
    drop(machine);

    let (_device, machine) = with_services(assets, &config())?;
    let ours = findings(&machine, "/run/log", "loud ".len())?;
    println!("under s6: {theirs}\nunder ours: {ours}");
    check!(ours == theirs, "under s6:\n{theirs}\nunder ours:\n{ours}");
    Ok(())
}

/// Both `s6-tai64nlocal` on stamps around leap seconds, on old and new ones, and on lines that have none.
fn stamps(machine: &Machine) -> Result<(), Failure> {
    let mut lines =
        vec!["no stamp".to_owned(), "@40000000".to_owned(), String::new(), "@xyz not one".to_owned()];
    for (index, leap) in LEAPS.into_iter().enumerate() {
        // So many leap seconds had been inserted before each.
        let before = [0, 9, 21, 26][index];
        for second in -2..=2 {
            let tai = (1_i64 << 62) + 10 + before + leap + second;
            lines.push(format!("@{tai:016x}075bcd15 at {leap} {second}"));
        }
    }
    lines.push("@400000000000000a00000000 1970".to_owned());
    lines.push("@40000000f000000a3b9ac9ff far away".to_owned());
    let text = lines.join("\\n");
    machine.ssh.succeed(&format!("printf '{text}\\n' > /tmp/stamps"))?;
    machine.ssh.succeed(
        "s6-tai64nlocal < /tmp/stamps > /tmp/theirs; levitate s6-tai64nlocal < /tmp/stamps > /tmp/ours",
    )?;
    machine.ssh.succeed("diff /tmp/theirs /tmp/ours").map(drop)
}

/// The services as s6's own directories, each under a supervisor of its own, the loud one before a logger.
fn under_s6(machine: &Machine) -> Result<(), Failure> {
    let write = |path: &str, text: &str| {
        let escaped = text.replace('\\', r"\\").replace('\'', r"'\''");
        let command = format!(
            "mkdir -p $(dirname /run/sv/{path}); printf '%b\\n' '{escaped}' > /run/sv/{path}; chmod +x /run/sv/{path}"
        );
        machine.ssh.succeed(&command)
    };
    // As the configuration file's own escapes leave it.
    let loud = LOUD.replace("\\\\", "\\");
    for (path, script) in [("mortal/run", MORTAL), ("mortal/finish", FINISH), ("ready/run", READY)] {
        write(path, &format!("#!/bin/sh\n{script}"))?;
    }
    write("loud/run", &format!("#!/bin/sh\n{{ {loud}; }} | s6-log t /run/theirs"))?;
    write("ready/notification-fd", "3")?;
    for name in ["mortal", "ready", "loud"] {
        machine
            .ssh
            .succeed(&format!("cd /run/sv && setsid s6-supervise {name} </dev/null >/dev/null 2>&1 &"))?;
    }
    Ok(())
}

/// What can be seen from outside, as text.
fn findings(machine: &Machine, log: &str, name: usize) -> Result<String, Failure> {
    line::wait_until(
        machine,
        &format!("cat {log}/@*.s {log}/current | grep -q ' the end$'"),
        line::HAND_OVER,
    )?;
    line::wait_until(machine, "test $(wc -l < /run/finishes) -ge 4", line::BOOT)?;
    let place = if log == "/run/log" { "" } else { "/run/sv/" };
    line::wait_until(
        machine,
        &format!("s6-svstat -o up,ready {place}ready | grep -q 'true true'"),
        line::BOOT,
    )?;
    let command = format!(
        "cd {log}; \
         echo finishes: $(sort -u /run/finishes); \
         echo archived: $(ls -d @*.s | wc -l) names: $(ls -d @*.s | grep -cE '^@[0-9a-f]{{24}}\\.s$'); \
         echo modes: $(stat -c %a @*.s | sort -u) current: $(stat -c %a current); \
         echo lock and state: $(ls lock state); \
         echo sizes: $(for f in @*.s; do s=$(stat -c %s $f); test $s -ge 97999 && test $s -le 120000 && echo right || echo $s; done | sort -u); \
         echo lines without a stamp: $(cat @*.s current | grep -vcE '^@[0-9a-f]{{24}} '); \
         echo long: $(cat @*.s current | grep xxx | awk '{{ print length($0) - 26 - {name} }}')"
    );
    let text = machine.ssh.succeed(&command)?;
    // A dead process is started again a second after its last start, not sooner.
    let count = |machine: &Machine| machine.ssh.succeed("wc -l < /run/lives; cut -d' ' -f1 /proc/uptime");
    let numbers = |text: String| -> Result<(f64, f64), Failure> {
        let mut numbers = text.split_whitespace().map(str::parse::<f64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(lives)), Some(Ok(at))) => Ok((lives, at)),
            _ => Err(Failure::test(format!("no two numbers: {text}"))),
        }
    };
    let (lives, from) = numbers(count(machine)?)?;
    line::wait_until(machine, &format!("test $(wc -l < /run/lives) -ge {}", lives + 6.0), line::BOOT)?;
    let (more, to) = numbers(count(machine)?)?;
    // Every second life is written down.
    let rate = (more - lives) * 2.0 / (to - from);
    check!((0.5..=1.2).contains(&rate), "{rate} starts a second");
    Ok(text)
}
