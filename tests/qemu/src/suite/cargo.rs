//! The tests of `cargo test`: run, shown as they come, counted.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::Failure;
use super::tally::Tally;
use crate::assets::child::kill_tree;
use crate::assets::cross;

/// Building included; the simulations take a minute or two.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// So long the last lines are read after its end.
const AFTER: Duration = Duration::from_secs(5);

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
fn read(mut command: Command, mut each: impl FnMut(&str)) -> Result<Option<i32>, Failure> {
    let start = |error| Failure::harness(format!("could not start cargo: {error}"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start)?;
    let (sender, lines) = mpsc::channel();
    let stdout = child.stdout.take();
    thread::spawn(move || {
        let mut read =
            stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok));
        let _ = read.try_for_each(|line| sender.send(line));
    });
    let end = Instant::now() + LIMIT;
    let mut ended = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => each(&line),
            Err(RecvTimeoutError::Timeout) => {}
            // all was read: it ends now, or has ended
            Err(RecvTimeoutError::Disconnected) if ended.is_some() => break,
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(5)),
        }
        match (&ended, child.try_wait()) {
            // what a test left behind may hold the stream open for ever
            (Some((_, last)), _) if Instant::now() > *last => break,
            (Some(_), _) => {}
            (None, Ok(Some(status))) => ended = Some((status.code(), Instant::now() + AFTER)),
            (None, Ok(None)) if Instant::now() < end => {}
            (None, Ok(None) | Err(_)) => {
                kill_tree(&mut child);
                let limit = LIMIT.as_secs();
                return Err(Failure::harness(format!("`cargo test` did not end within {limit} s")));
            }
        }
    }
    Ok(ended.and_then(|(code, _)| code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_seen_and_a_grandchild_that_holds_the_stream_is_not_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; sleep 60 & echo $!; exit 3"]);
        let mut lines = Vec::new();
        assert_eq!(read(command, |line| lines.push(line.to_owned())).unwrap(), Some(3));
        assert_eq!(lines[0], "one");
        // it was left alive: not even its end was waited for
        let pid = nix::unistd::Pid::from_raw(lines[1].parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}
