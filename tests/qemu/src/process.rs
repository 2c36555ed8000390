//! Child processes of the harness: each has a limit, and what it said is kept.

use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
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
    let text = |reader: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
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

fn gather(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}
