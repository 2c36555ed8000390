//! The serial console of a machine: all that U-Boot, the kernel and PID 1 said, kept in a file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::suite::Failure;

/// Between two looks at a file or a port that something is awaited on.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A console that QEMU writes to a file.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    path: PathBuf,
}

impl Console {
    /// The console whose text QEMU writes to `path`.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
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
