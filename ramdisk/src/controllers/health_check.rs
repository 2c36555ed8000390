//! `health-check`: keeps a service up and asks a command at an interval whether it is healthy; after more failures in a
//! row than the threshold the service is restarted, longrun or oneshot.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::orders::{Done, entries, order};
use super::{Failure, say};
use crate::init::control::{Change, Wait};
use crate::init::snapshot::Entry;

const HELP: &str = "usage: health-check --service NAME [--interval SECONDS] [--threshold N] [--timeout SECONDS] -- COMMAND...";
/// Between two looks at a running check.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The command line.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    service: String,
    interval: Duration,
    /// So many failures in a row are borne.
    threshold: u32,
    /// A check that takes longer has failed.
    timeout: Duration,
    command: Vec<String>,
}

impl Settings {
    fn parse(words: Vec<String>) -> Result<Self, Failure> {
        let usage = |why: &str| Failure::Usage(format!("{why}; {HELP}"));
        let (mut service, mut interval, mut threshold, mut timeout) = (None, 60_u32, 3, 10_u32);
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "--" {
                break;
            }
            let value = words.next().ok_or_else(|| usage(&format!("{word} needs a value")))?;
            let number =
                || value.parse().map_err(|_| usage(&format!("{word}: expected a number, found {value:?}")));
            match word.as_str() {
                "--service" => service = Some(value),
                "--interval" => interval = number()?,
                "--threshold" => threshold = number()?,
                "--timeout" => timeout = number()?,
                _ => return Err(usage(&format!("unknown option {word}"))),
            }
        }
        let command: Vec<String> = words.collect();
        if command.is_empty() {
            return Err(usage("expected a command after --"));
        }
        let seconds = |n: u32| Duration::from_secs(u64::from(n.max(1)));
        Ok(Self {
            service: service.ok_or_else(|| usage("--service is missing"))?,
            interval: seconds(interval),
            threshold,
            timeout: seconds(timeout),
            command,
        })
    }
}

/// Runs until it is ended.
///
/// # Errors
/// A command line that is not understood, an unknown service, or a PID 1 that does not answer.
pub(super) fn run(socket: &Path, words: Vec<String>) -> Result<(), Failure> {
    let settings = Settings::parse(words)?;
    let name = std::slice::from_ref(&settings.service);
    order(socket, Change::Up, Wait::Forever, name)?;
    let mut failures = 0;
    loop {
        std::thread::sleep(settings.interval);
        let all = entries(socket)?;
        match all.iter().find(|entry| entry.name == settings.service) {
            Some(entry) if entry.state == "up" => {}
            Some(entry) if entry.state == "failed" => {
                say(&format!("{}: marked down, starting it again", settings.service));
                order(socket, Change::Up, Wait::Forever, name)?;
                failures = 0;
                continue;
            }
            // On its way, or put down by somebody who knows why.
            _ => {
                failures = 0;
                continue;
            }
        }
        let found = check(&settings.command, settings.timeout);
        (failures, _) = match after(failures, found.is_ok(), settings.threshold) {
            (failures, Verdict::Restart) => {
                say(&format!(
                    "{}: more than {} checks failed in a row, restarting it",
                    settings.service, settings.threshold
                ));
                restart(socket, &settings.service, &all)?;
                (failures, Verdict::Restart)
            }
            other => other,
        };
        if let Err(why) = found {
            say(&format!("{}: {why} ({failures} in a row)", settings.service));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Leave,
    Restart,
}

/// The new count of failures in a row, and what follows.
fn after(failures: u32, healthy: bool, threshold: u32) -> (u32, Verdict) {
    match failures.saturating_add(1) {
        _ if healthy => (0, Verdict::Leave),
        failures if failures > threshold => (0, Verdict::Restart),
        failures => (failures, Verdict::Leave),
    }
}

/// A longrun's process is ended and started again, its dependents stay. A oneshot goes down with all that needs it, and
/// all of that which was to be up comes up again.
fn restart(socket: &Path, service: &str, entries: &[Entry]) -> Result<Done, Failure> {
    let is_longrun = entries.iter().any(|entry| entry.name == service && entry.kind == "longrun");
    let name = [service.to_owned()];
    if is_longrun {
        return order(socket, Change::Restart, Wait::No, &name);
    }
    order(socket, Change::Down, Wait::Forever, &name)?;
    let again = wanted_above(service, entries);
    order(socket, Change::Up, Wait::Forever, &name)?;
    for other in again {
        // Not a controller's order: these are not its own.
        order_any(socket, other)?;
    }
    Ok(Done::Yes)
}

fn order_any(socket: &Path, name: String) -> Result<(), Failure> {
    use crate::init::client::{ask_lines, explain};
    use crate::init::control::{Order, Request};
    let order = Order { change: Change::Up, wait: Wait::No, by_controller: false, names: vec![name] };
    let asked = ask_lines(socket, &Request::Order(order), None, &mut |_| Ok(()));
    asked.map(drop).map_err(|error| Failure::System(explain(socket, &error)))
}

/// What shall be up and needs the service, directly or not.
fn wanted_above(service: &str, entries: &[Entry]) -> BTreeSet<String> {
    let mut above = BTreeSet::from([service.to_owned()]);
    loop {
        let needing =
            |entry: &&Entry| entry.kind != "bundle" && entry.needs.iter().any(|need| above.contains(need));
        let more: Vec<String> = entries.iter().filter(needing).map(|entry| entry.name.clone()).collect();
        let before = above.len();
        above.extend(more);
        if above.len() == before {
            break;
        }
    }
    let is_wanted = |name: &String| entries.iter().any(|entry| entry.name == *name && entry.wanted);
    above.into_iter().filter(|name| name != service && is_wanted(name)).collect()
}

/// Runs a check; what it prints goes to the log. It has a process group of its own, which is ended with it when it takes
/// too long.
fn check(command: &[String], timeout: Duration) -> Result<(), String> {
    let Some((program, args)) = command.split_first() else { return Ok(()) };
    let started = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .process_group(0)
        .spawn();
    let mut child = started.map_err(|error| format!("cannot execute {program}: {error}"))?;
    let end = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("the check ended with {status}")),
            Ok(None) if Instant::now() < end => std::thread::sleep(LOOK_AGAIN),
            Ok(None) => {
                if let Ok(group) = i32::try_from(child.id()) {
                    // Gone already is as good.
                    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                }
                let _ = child.wait();
                return Err(format!("the check took longer than {} s", timeout.as_secs()));
            }
            Err(error) => return Err(format!("cannot wait for the check: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_command_line_is_read_with_its_defaults() {
        let settings = Settings::parse(words("--service web --interval 5 -- ping -c 1 host")).unwrap();
        let expected = Settings {
            service: "web".into(),
            interval: Duration::from_secs(5),
            threshold: 3,
            timeout: Duration::from_secs(10),
            command: words("ping -c 1 host"),
        };
        assert_eq!(settings, expected);
        for line in ["", "--service web", "-- true", "--service web --interval x -- true", "--nap 1 -- true"]
        {
            assert!(matches!(Settings::parse(words(line)), Err(Failure::Usage(_))), "{line}");
        }
    }

    #[test]
    fn only_more_failures_in_a_row_than_the_threshold_lead_to_a_restart() {
        let mut failures = 0;
        let mut verdicts = Vec::new();
        for healthy in [false, false, true, false, false, false, false] {
            let (count, verdict) = after(failures, healthy, 2);
            failures = count;
            verdicts.push(verdict == Verdict::Restart);
        }
        assert_eq!(verdicts, [false, false, false, false, false, true, false]);
        assert_eq!(after(0, false, 0), (0, Verdict::Restart));
    }

    #[test]
    fn a_check_passes_fails_or_takes_too_long() {
        let long = Duration::from_secs(60);
        assert_eq!(check(&words("true"), long), Ok(()));
        assert_eq!(check(&words("false"), long), Err("the check ended with exit status: 1".into()));
        assert!(check(&words("/nonexistent/check"), long).unwrap_err().starts_with("cannot execute"));
        let hung = check(&["sh".into(), "-c".into(), "sleep 1000 & wait".into()], Duration::ZERO);
        assert_eq!(hung, Err("the check took longer than 0 s".into()));
    }

    #[test]
    fn what_needs_a_oneshot_comes_up_again_if_it_was_to_be_up() {
        let entry = |name: &str, needs: &str, wanted| Entry {
            name: name.into(),
            needs: vec![needs.to_owned()],
            wanted,
            ..Entry::default()
        };
        let all = [
            entry("net", "", true),
            entry("sshd", "net", true),
            entry("web", "sshd", true),
            entry("off", "net", false),
        ];
        assert_eq!(wanted_above("net", &all), ["sshd".to_owned(), "web".to_owned()].into());
    }
}
