//! Child processes of the harness: each has a limit, and what it said is kept.

use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::console::POLL;
use crate::suite::Failure;

/// A child that ended.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    /// The exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

impl Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "exit {code}")?,
            None => write!(f, "ended by a signal")?,
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Runs `command` to its end, with `input` as its standard input; past `limit` it is killed and that is a harness failure.
pub(crate) fn run(mut command: Command, input: Option<&Path>, limit: Duration) -> Result<Finished, Failure> {
    let stdin = match input {
        None => Stdio::null(),
        Some(path) => File::open(path).map_err(|e| Failure::file("open", path, e))?.into(),
    };
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Failure::harness(format!("cannot start {name}: {e}")))?;
    let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let status = wait(&mut child, limit);
    if status.is_err() {
        end(&mut child);
    }
    let (stdout, stderr) = (stdout.text(), stderr.text());
    match status {
        Ok(code) => Ok(Finished { code, stdout, stderr }),
        Err(failure) => {
            let done = Finished { code: None, stdout, stderr };
            Err(failure.context(format!("{name} ({done})")))
        }
    }
}

/// Starts `command`, gives it the bytes of a file, and then nothing more, as long as it is not ended: neither another byte
/// nor an end.
pub(crate) fn with_silent_input(mut command: Command, input: &Path) -> Result<Child, Failure> {
    let bytes = std::fs::read(input).map_err(|e| Failure::file("read", input, e))?;
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| Failure::harness(format!("cannot start a child: {e}")))?;
    let Some(mut stdin) = child.stdin.take() else { return Ok(child) };
    let written = stdin.write_all(&bytes).and_then(|()| stdin.flush());
    // kept open by the child's own handle
    child.stdin = Some(stdin);
    match written {
        Ok(()) => Ok(child),
        Err(e) => {
            end(&mut child);
            Err(Failure::harness(format!("a child took no input: {e}")))
        }
    }
}

/// Waits for the end of `child`: its exit code, or none if a signal ended it.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<Option<i32>, Failure> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.code()),
            Ok(None) if start.elapsed() < limit => std::thread::sleep(POLL),
            Ok(None) => return Err(Failure::harness(format!("no end within {} s", limit.as_secs()))),
            Err(e) => return Err(Failure::harness(format!("cannot wait for a child: {e}"))),
        }
    }
}

/// Kills `child` (KILL: for QEMU this is a power cut) and reaps it.
pub(crate) fn end(child: &mut Child) {
    // It may have ended by itself in between; then there is nothing to kill.
    let _ = child.kill();
    let _ = child.wait();
}

/// So long what a child said last is read after its end: what it started may hold the stream open for ever.
const AFTER: Duration = Duration::from_secs(5);

/// What a child says.
struct Said {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Closed at the stream's end.
    end: Receiver<()>,
}

impl Said {
    fn text(self) -> String {
        let _ = self.end.recv_timeout(AFTER);
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn gather(stream: Option<impl Read + Send + 'static>) -> Said {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let (sender, end) = mpsc::channel();
    let kept = Arc::clone(&bytes);
    std::thread::spawn(move || {
        let _until_the_end = sender;
        let Some(mut stream) = stream else { return };
        let mut part = [0; 8192];
        loop {
            match stream.read(&mut part) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // what was read before an error is still worth showing
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).extend(part.iter().take(count));
                }
            }
        }
    });
    Said { bytes, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_said_is_kept_and_a_grandchild_that_holds_the_stream_is_not_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $!; echo two >&2; exit 3"]);
        let done = run(command, None, Duration::from_secs(30)).unwrap();
        assert_eq!((done.code, done.stderr.as_str()), (Some(3), "two\n"));
        // it was left alive: not even its end was waited for
        let pid = nix::unistd::Pid::from_raw(done.stdout.trim().parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}
