//! The board tests side by side, each in a process of its own.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use super::tally::Tally;
use super::{Board, Failure, Scenario, report};
use crate::assets::Assets;
use crate::assets::child::kill_tree;
use crate::firmware::{Firmware, ast2600};

/// Boards side by side, unless `LEVITATE_JOBS` says otherwise: each takes about one processor while it boots.
const JOBS: usize = 2;

/// Runs them all, adds their counts, and tells for which the harness is to blame.
pub(crate) fn run(assets: &Assets, scenarios: &[Scenario], tally: &mut Tally, problems: &mut Vec<String>) {
    // once, before several need it at the same time
    if let Err(failure) = roots(assets, scenarios) {
        problems.push(format!("{} board tests could not run: {failure}", scenarios.len()));
        tally.skipped += scenarios.len() as u64;
        return;
    }
    let blamed = Arc::new(Mutex::new(Vec::new()));
    let trials = scenarios.iter().enumerate().map(|(index, scenario)| {
        let (scenario, blamed) = (*scenario, Arc::clone(&blamed));
        let mut assets = assets.clone();
        // short: the path of a Unix socket has 107 bytes at most
        assets.scratch.push(index.to_string());
        Trial::test(scenario.name, move || {
            run_one(&assets, &scenario).map_err(|(kind, text)| {
                if kind == Kind::Harness {
                    let reason = text.lines().next().unwrap_or_default();
                    blamed
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(format!("{}: {reason}", scenario.name));
                }
                Failed::from(text)
            })
        })
    });
    let arguments =
        Arguments { test_threads: Some(jobs(std::env::var("LEVITATE_JOBS").ok())), ..Arguments::default() };
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let mut blamed = blamed.lock().unwrap_or_else(PoisonError::into_inner);
    tally.add(Tally {
        passed: conclusion.num_passed,
        failed: conclusion.num_failed,
        blamed: blamed.len() as u64,
        skipped: conclusion.num_ignored,
    });
    problems.append(&mut blamed);
}

/// Builds what the boards of these tests start from.
fn roots(assets: &Assets, scenarios: &[Scenario]) -> Result<(), Failure> {
    let needed = |board| scenarios.iter().any(|scenario| scenario.board == board);
    if needed(Board::Virt) || needed(Board::VirtWithFaults) {
        Firmware::build(assets)?;
    }
    if needed(Board::Ast2600) {
        ast2600::Rescue::build(assets)?;
    }
    Ok(())
}

fn jobs(variable: Option<String>) -> usize {
    variable.and_then(|text| text.parse().ok()).filter(|jobs| *jobs > 0).unwrap_or(JOBS)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Harness,
    Test,
}

/// The report's first line says what went wrong.
fn run_one(assets: &Assets, scenario: &Scenario) -> Result<(), (Kind, String)> {
    let harness = |text: String| (Kind::Harness, text);
    let said = assets.scratch.join("said");
    let mut child =
        start(assets, scenario.name, &said).map_err(|error| harness(format!("could not start: {error}")))?;
    let end = Instant::now() + scenario.limit;
    let (kind, reason) = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => {
                // a NOR chip and two banks each: many tests fill a small disk
                let _ = fs::remove_dir_all(&assets.scratch);
                return Ok(());
            }
            Ok(Some(status)) => break blame(status.code()),
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(100)),
            Ok(None) | Err(_) => {
                kill_tree(&mut child);
                break (Kind::Harness, format!("no end within {} s", scenario.limit.as_secs()));
            }
        }
    };
    Err((kind, compose(&reason, &said, &assets.scratch)))
}

fn start(assets: &Assets, name: &str, said: &Path) -> std::io::Result<std::process::Child> {
    fs::create_dir_all(&assets.scratch)?;
    let parts = assets.scratch.join("assets.json");
    fs::write(&parts, serde_json::to_vec(assets)?)?;
    let file = File::create(said)?;
    Command::new(std::env::current_exe()?)
        .args(["scenario".as_ref(), parts.as_os_str(), name.as_ref()])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
}

fn blame(code: Option<i32>) -> (Kind, String) {
    match code {
        Some(1) => (Kind::Test, String::new()),
        Some(3) => (Kind::Harness, String::new()),
        // a panic (101) is a fault of the test program, not of the device
        Some(code) => (Kind::Harness, format!("the test's process ended with exit code {code}")),
        None => (Kind::Harness, "the test's process was ended by a signal".to_owned()),
    }
}

fn compose(reason: &str, said: &Path, scratch: &Path) -> String {
    let said = fs::read(said).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let text = format!("{reason}\n{}\n{}", said.trim_end(), report::consoles(scratch));
    format!("{}\nits files: {}", text.trim(), scratch.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_promise_is_blamed_on_the_device() {
        assert_eq!(blame(Some(1)).0, Kind::Test);
        for code in [Some(3), Some(101), None] {
            assert_eq!(blame(code).0, Kind::Harness, "{code:?}");
        }
    }

    #[test]
    fn the_report_of_a_failure_holds_its_reason_and_the_whole_console() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        fs::write(&said, "the banner is missing\n").unwrap();
        fs::write(folder.path().join("device-1.console"), "Linux\n").unwrap();
        let text = compose("", &said, folder.path());
        assert!(text.starts_with("the banner is missing\n"), "{text}");
        assert!(text.contains("--- console device-1\nLinux\n--- end"), "{text}");
    }

    #[test]
    fn boards_side_by_side_are_two_unless_somebody_says_otherwise() {
        assert_eq!(jobs(None), 2);
        assert_eq!(jobs(Some("5".into())), 5);
        assert_eq!(jobs(Some("0".into())), 2);
    }
}
