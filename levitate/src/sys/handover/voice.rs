//! The console, the kernel log and the persistent message log. None of them may ever block or fail PID 1.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::guard::LAST_WORDS;
use crate::handover::seam::Weight;

/// What can be written to, as opened from one directory of devices.
#[derive(Debug)]
pub(super) struct Voice {
    dev: PathBuf,
    console: Option<File>,
    kernel_log: Option<File>,
    messages: Option<File>,
}

impl Voice {
    /// Opens what there is. The descriptors outlive the move of /dev, because its mount moves along.
    pub(super) fn open(dev: &Path) -> Self {
        let open = |name: &str| {
            // A device that is not there must not become a file.
            let mut options = OpenOptions::new();
            options.append(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC);
            options.open(dev.join(name)).ok()
        };
        let voice = Self {
            dev: dev.to_owned(),
            console: open("console"),
            kernel_log: open("kmsg"),
            messages: open("pmsg0"),
        };
        for (slot, file) in LAST_WORDS.iter().zip([&voice.kernel_log, &voice.messages]) {
            slot.store(file.as_ref().map_or(-1, AsRawFd::as_raw_fd), Ordering::Relaxed);
        }
        voice
    }

    /// Closes everything; answers where it was opened from.
    pub(super) fn close(&mut self) -> PathBuf {
        for slot in &LAST_WORDS {
            slot.store(-1, Ordering::Relaxed);
        }
        (self.console, self.kernel_log, self.messages) = (None, None, None);
        self.dev.clone()
    }

    /// One line. What the console shows already goes to the kernel log at a level that is not shown again; each line
    /// is one write, so that lines of others do not get into it.
    pub(super) fn say(&mut self, weight: Weight, line: &str) {
        let line = line.replace('\n', " ");
        let shown = self
            .console
            .as_mut()
            .is_some_and(|file| file.write_all(format!("levitate: {line}\n").as_bytes()).is_ok());
        let level = match (weight, shown) {
            (Weight::Failure, _) => 3,
            (_, true) => 7,
            (_, false) => 5,
        };
        let text = format!("<{level}>levitate: {line}\n");
        for file in [&mut self.kernel_log, &mut self.messages].into_iter().flatten() {
            // Nobody is left to be told that telling failed.
            let _ = file.write(text.as_bytes());
        }
    }
}
