//! QEMU's machine protocol: the cable that can be pulled, the power that can be watched.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::console::POLL;
use crate::suite::Failure;

/// How long QEMU may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// A connection to one QEMU.
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket that QEMU makes at its start, and ends the negotiation.
    pub(crate) fn connect(path: &Path) -> Result<Self, Failure> {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(e) if start.elapsed() > LIMIT => {
                    return Err(Failure::file("connect to QEMU at", path, e));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        };
        stream.set_read_timeout(Some(LIMIT)).map_err(Failure::harness)?;
        stream.set_write_timeout(Some(LIMIT)).map_err(Failure::harness)?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.line()?;
        qmp.run("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and gives what it returned; events that come between are passed over.
    pub(crate) fn run(&mut self, command: &str, arguments: Value) -> Result<Value, Failure> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.stream.get_mut().write_all(line.as_bytes()).map_err(Failure::harness)?;
        loop {
            let answer = self.line()?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                return Err(Failure::harness(format!("QEMU refused {command}: {error}")));
            }
        }
    }

    fn line(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(|e| Failure::harness(format!("QEMU's QMP: {e}")))?;
        serde_json::from_str(&line).map_err(|e| Failure::harness(format!("QEMU's QMP said {line:?}: {e}")))
    }
}
