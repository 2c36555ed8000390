//! The log: every service's output, line by line, in s6-log's format.
//!
//! `DIR/current` is written; when it is full it becomes `DIR/@<TAI64N>.s` (mode 0744, s6-log's sign for "whole"), of
//! which a bounded number is kept. The log lies in RAM, so nothing is written back to a disk, and it is gone with the
//! power; where the kernel has a `/dev/pmsg0` the lines go there too and survive a reset.
//!
//! A log that cannot be written never stops anybody: the oldest archived file is given up for room (where there is none
//! because the file system is smaller than one file, files become smaller from then on), and if that does not help
//! lines are dropped and counted; the count is told when writing works again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::stamp::Stamper;

/// The name PID 1's own lines carry.
pub const OWN_NAME: &str = "init";
/// The longest piece of a line that is kept in one; longer ones are split here (s6-log's buffer is as large).
pub const MAX_LINE: usize = 8_192;

/// Files are never made smaller than this for lack of room.
const SMALLEST_FILE: u64 = 8_192;

/// The log's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// `current` is rotated by the line that makes it this large, in bytes: s6-log's 99,999 less its tolerance.
    pub file_bytes: u64,
    /// How many archived files are kept (s6-log's default).
    pub archived: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { file_bytes: 97_999, archived: 10 }
    }
}

/// The log in a directory.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    limits: LogLimits,
    current: Option<File>,
    size: u64,
    stamper: Stamper,
    /// What came after the last newline, per service.
    begun: BTreeMap<String, Vec<u8>>,
    dropped: u64,
    pstore: Option<File>,
}

impl Log {
    /// Opens the log in `dir` and goes on with the `current` that is there. Never fails: what does not work now is
    /// tried again with every line.
    #[must_use]
    pub fn open(dir: &Path, pstore: Option<&Path>, limits: LogLimits) -> Self {
        let pstore = pstore.and_then(|path| OpenOptions::new().write(true).open(path).ok());
        let mut log = Self {
            dir: dir.to_owned(),
            limits,
            current: None,
            size: 0,
            stamper: Stamper::default(),
            begun: BTreeMap::new(),
            dropped: 0,
            pstore,
        };
        // Told by the first line that cannot be written.
        let _ = log.open_current();
        log
    }

    /// Puts the link `path` to the log, the place where the manual's older edition has it. A file that is there already
    /// stays.
    ///
    /// # Errors
    /// Those of symlink(2).
    pub fn link_at(&self, path: &Path) -> io::Result<()> {
        match symlink(&self.dir, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes a piece of a service's output, of any length and content, at the wall clock's time `now`.
    pub fn output(&mut self, service: &str, bytes: &[u8], now: Duration) {
        let mut line = self.begun.remove(service).unwrap_or_default();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            for byte in text {
                if line.len() >= MAX_LINE {
                    self.line(service, &line, now);
                    line.clear();
                }
                line.push(*byte);
            }
            if is_whole {
                self.line(service, &line, now);
                line.clear();
            }
        }
        if !line.is_empty() {
            self.begun.insert(service.to_owned(), line);
        }
    }

    /// Writes what a service left without a newline: its process has ended.
    pub fn flush(&mut self, service: &str, now: Duration) {
        if let Some(line) = self.begun.remove(service) {
            self.line(service, &line, now);
        }
    }

    /// Writes a line of PID 1's own.
    pub fn note(&mut self, text: &str, now: Duration) {
        for line in text.lines() {
            self.line(OWN_NAME, line.as_bytes(), now);
        }
    }

    /// How many lines were lost since the last one that was written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn line(&mut self, service: &str, text: &[u8], now: Duration) {
        if self.dropped > 0 {
            let lost = self.format(OWN_NAME, format!("{} log lines lost", self.dropped).as_bytes(), now);
            if self.append(&lost, now).is_ok() {
                self.dropped = 0;
            }
        }
        let line = self.format(service, text, now);
        if let Some(pstore) = &mut self.pstore {
            // A second copy; the first one is what is counted.
            let _ = pstore.write_all(&line);
        }
        if self.append(&line, now).is_err() {
            self.dropped = self.dropped.saturating_add(1);
        }
        if self.size >= self.limits.file_bytes {
            self.rotate(now);
        }
    }

    fn format(&mut self, service: &str, text: &[u8], now: Duration) -> Vec<u8> {
        let mut line = self.stamper.stamp(now).into_bytes();
        line.push(b' ');
        line.extend_from_slice(service.as_bytes());
        line.push(b' ');
        line.extend_from_slice(text);
        line.push(b'\n');
        line
    }

    fn append(&mut self, line: &[u8], now: Duration) -> io::Result<()> {
        let first = self.try_append(line);
        if first.is_err() && self.make_room(now) {
            return self.try_append(line);
        }
        first
    }

    fn make_room(&mut self, now: Duration) -> bool {
        if self.give_up_oldest() {
            return true;
        }
        if self.size < SMALLEST_FILE {
            return false;
        }
        // All the room there is went into this one file: smaller ones, of which the oldest can be given up.
        self.limits.file_bytes = (self.size / 4).max(SMALLEST_FILE);
        self.rotate(now);
        self.give_up_oldest()
    }

    fn try_append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.current.is_none() {
            self.open_current()?;
        }
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = current.write_all(line) {
            // A line that was written in part would run into the next one.
            let _ = current.set_len(self.size);
            return Err(error);
        }
        self.size = self.size.saturating_add(line.len() as u64);
        Ok(())
    }

    fn open_current(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let open =
            |name: &str| OpenOptions::new().append(true).create(true).mode(0o644).open(self.dir.join(name));
        // s6-log's other two files: readers expect them, nothing is kept in them.
        open("lock")?;
        open("state")?;
        let current = open("current")?;
        self.size = current.metadata()?.len();
        self.current = Some(current);
        Ok(())
    }

    fn rotate(&mut self, now: Duration) {
        let Some(current) = self.current.take() else { return };
        let archive = self.dir.join(format!("{}.s", self.stamper.stamp(now)));
        // If either fails the lines go on into the same file: too large a log is better than none.
        let _ = current.set_permissions(fs::Permissions::from_mode(0o744));
        let _ = fs::rename(self.dir.join("current"), archive);
        let _ = self.open_current();
        while self.archived().len() > self.limits.archived && self.give_up_oldest() {}
    }

    /// The archived files, oldest first: their names sort by time.
    fn archived(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| name.starts_with('@') && name.ends_with(".s"))
            })
            .collect();
        files.sort();
        files
    }

    fn give_up_oldest(&mut self) -> bool {
        self.archived().first().is_some_and(|oldest| fs::remove_file(oldest).is_ok())
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
