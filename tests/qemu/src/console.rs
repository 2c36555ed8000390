//! The serial console of a machine: all that U-Boot, the kernel and PID 1 said, kept in a file, and a person's hands on
//! its keys.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::suite::Failure;

/// Between two looks at a file or a port that something is awaited on.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A console that QEMU writes to a file.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    path: PathBuf,
    line: PathBuf,
}

impl Console {
    /// The console whose text QEMU writes to `path`, and whose other end is the socket `line`.
    pub(crate) fn at(path: &Path, line: &Path) -> Self {
        Self { path: path.to_owned(), line: line.to_owned() }
    }

    /// Sits down at the console. Only one at a time can.
    pub(crate) fn sit_down(&self) -> Result<Terminal, Failure> {
        let stream = UnixStream::connect(&self.line)
            .map_err(|e| Failure::file("connect to the serial line at", &self.line, e))?;
        let mut said = stream.try_clone().map_err(Failure::harness)?;
        // What is said is in the file; here it only must not hold QEMU up. It ends with the line.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Ok(Terminal { console: self.clone(), stream, seen: self.text().len() })
    }

    /// Everything said so far; bytes that are not UTF-8 are replaced.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// Waits until the console has said `wanted` after the first `from` bytes.
    pub(crate) fn wait_for(&self, wanted: &str, from: usize, limit: Duration) -> Result<(), Failure> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if self.text().get(from..).is_some_and(|text| text.contains(wanted)) {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        Err(Failure::test(format!("the console did not say {wanted:?} within {} s", limit.as_secs())))
    }
}

/// Somebody at the console, who types and reads in turn.
pub(crate) struct Terminal {
    console: Console,
    stream: UnixStream,
    seen: usize,
}

impl Terminal {
    /// Types a line and the enter key.
    pub(crate) fn enter(&mut self, text: &str) -> Result<(), Failure> {
        self.stream.write_all(format!("{text}\r").as_bytes()).map_err(Failure::harness)
    }

    /// Reads on until the console says `wanted`.
    pub(crate) fn expect(&mut self, wanted: &str, limit: Duration) -> Result<(), Failure> {
        self.console.wait_for(wanted, self.seen, limit)?;
        let text = self.console.text();
        let at = text.get(self.seen..).and_then(|text| text.find(wanted)).unwrap_or(0);
        self.seen += at + wanted.len();
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ends the thread that reads along, too.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
