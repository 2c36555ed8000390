//! The tests of `cargo test`: run, shown as they come, counted.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Failure;
use super::tally::Tally;
use crate::assets::child::kill_tree;
use crate::assets::cross;

/// Building included; the simulations take a minute or two.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// Runs `cargo test` for the whole workspace and adds its counts.
///
/// # Errors
/// It could not be started, did not end, or failed without a test having failed: a test that does not compile, a test
/// program that crashed.
pub(crate) fn run(filter: Option<&str>, tally: &mut Tally) -> Result<(), Failure> {
    let mut command = cargo_test();
    command.arg("--no-fail-fast").arg("--").args(filter);
    let (mut counted, mut not_run) = (Tally::default(), 0);
    let code = read(command, |line| {
        // nobody to read it is no reason to stop
        let _ = writeln!(std::io::stdout(), "{line}");
        counted.add(Tally::parse(line).unwrap_or_default());
        not_run += u64::from(Tally::could_not_run(line));
    })?;
    counted.not_run(not_run);
    tally.add(counted);
    if code != Some(0) && counted.failed == 0 {
        return Err(Failure::harness(format!(
            "`cargo test --workspace` ended with {code:?} though no test failed: a test does not compile, or a test \
             program crashed; see above"
        )));
    }
    Ok(())
}

/// The names of the tests that `cargo test` would run.
///
/// # Errors
/// The tests do not compile.
pub(crate) fn list(filter: Option<&str>) -> Result<Vec<String>, Failure> {
    // Without a word it would look stuck: the tests have to be built before they can be asked for their names.
    eprintln!("building the tests ...");
    let mut command = cargo_test();
    command.arg("--quiet").arg("--").arg("--list").args(filter);
    let mut names = Vec::new();
    match read(command, |line| names.extend(line.strip_suffix(": test").map(str::to_owned)))? {
        Some(0) => Ok(names),
        code => Err(Failure::harness(format!("`cargo test --workspace -- --list` ended with {code:?}"))),
    }
}

fn cargo_test() -> Command {
    let mut command = cross::cargo();
    command.args(["test", "--workspace"]);
    command
}

/// Runs a command to its end and returns its exit code; `each` sees every line of its standard output.
fn read(mut command: Command, mut each: impl FnMut(&str) + Send) -> Result<Option<i32>, Failure> {
    let start = |error| Failure::harness(format!("could not start cargo: {error}"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start)?;
    let stdout = child.stdout.take();
    thread::scope(|scope| {
        scope.spawn(move || {
            let lines =
                stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok));
            lines.for_each(|line| each(&line));
        });
        let end = Instant::now() + LIMIT;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status.code()),
                Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(50)),
                Ok(None) | Err(_) => {
                    kill_tree(&mut child);
                    let limit = LIMIT.as_secs();
                    return Err(Failure::harness(format!("`cargo test` did not end within {limit} s")));
                }
            }
        }
    })
}
