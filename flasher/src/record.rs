//! The record of a run, for whoever did not see its end: `/run/levitate/flash.json`.
//!
//! `changing` is there before the first change of flash, the truth after the last; each by a temporary file and a
//! rename. A reader that finds `changing` and no living process of that pid takes it as `unverified`.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::event::Operations;

/// What is known of the flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is being changed.
    Changing,
    /// It holds the image: every byte was compared with it, those of changed blocks after the last change.
    Verified,
    /// It was changed and not verified: do not reboot, run it again.
    Unverified,
}

/// One run. Sizes and offsets are in bytes, times in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The format's version: 1.
    pub version: u32,
    /// What is known of the flash.
    pub state: State,
    /// The process that writes.
    pub pid: u32,
    /// Its command line.
    pub command: Vec<String>,
    /// The device node.
    pub device: String,
    /// The partition's name.
    pub name: String,
    /// The chip, where the kernel tells it.
    pub chip: Option<String>,
    /// Where the written range starts on the chip (on the partition, where its place on the chip is unknown).
    pub start: u64,
    /// The first byte behind it.
    pub end: u64,
    /// The image's name.
    pub image: String,
    /// Its size.
    pub image_bytes: u64,
    /// How much of it is on the flash; what is read back is not counted here.
    pub bytes_done: u64,
    /// The same as `image_bytes`.
    pub bytes_total: u64,
    /// When the first change was about to happen.
    pub started: u64,
    /// When the last had happened.
    pub finished: Option<u64>,
    /// Everything done to the chip so far.
    pub operations: Operations,
    /// Wrong readings, and blocks written again.
    pub retries: u64,
    /// The image's SHA-256.
    pub image_sha256: Option<String>,
    /// The SHA-256 of the bytes that the flash was found to hold: each was compared with the image, those of changed blocks
    /// after the last change, those of kept ones by the survey at least (see [`crate::readback`]).
    pub range_sha256: Option<String>,
    /// How the process ended, if it did.
    pub exit_code: Option<u8>,
    /// Why it did not succeed.
    pub error: Option<String>,
    /// Earlier runs on other ranges that were never verified. They are not forgotten because another range is written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Record>,
}

/// The words as one would type them: what a shell would take apart is quoted.
fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%^".contains(c);
    let quoted = words.iter().map(|word| match word.as_str() {
        word if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', "'\\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

impl Record {
    /// The command, as one would type it.
    #[must_use]
    pub fn command_line(&self) -> String {
        command_line(&self.command)
    }

    /// A run that is about to change flash, of an image of `bytes` whose digest may not be known yet (empty); where it
    /// writes is to be filled in.
    pub(crate) fn begun(image: &str, bytes: u64, sha256: &str, command: &[String]) -> Self {
        Self {
            version: 1,
            state: State::Changing,
            pid: std::process::id(),
            command: command.to_vec(),
            device: String::new(),
            name: String::new(),
            chip: None,
            start: 0,
            end: 0,
            image: image.to_owned(),
            image_bytes: bytes,
            bytes_done: 0,
            bytes_total: bytes,
            started: now(),
            finished: None,
            operations: Operations::default(),
            retries: 0,
            image_sha256: (!sha256.is_empty()).then(|| sha256.to_owned()),
            range_sha256: None,
            exit_code: None,
            error: None,
            earlier: Vec::new(),
        }
    }

    /// Whether both are about the same bytes, in part at least.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let same_chip = match (&self.chip, &other.chip) {
            // The bytes of a UBI volume are counted from its own start: they compare with no partition's.
            _ if self.is_volume() != other.is_volume() => false,
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        same_chip && self.start < other.end && other.start < self.end
    }

    fn is_volume(&self) -> bool {
        self.device.starts_with("/dev/ubi")
    }

    /// Whether this range lies wholly within the other's.
    fn is_within(&self, other: &Self) -> bool {
        self.overlaps(other) && other.start <= self.start && self.end <= other.end
    }
}

/// Seconds since 1970; 0 where the clock stands before.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Where the record and its lock lie.
#[derive(Debug, Clone)]
pub struct RecordDir {
    dir: PathBuf,
    /// Runs of the same plan that come behind the next one.
    planned: Vec<Record>,
}

/// One flashcp at a time, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct RecordLock {
    _file: Flock<File>,
}

impl RecordDir {
    /// `/run/levitate`.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Path::new("/run/levitate"))
    }

    /// Another directory.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), planned: Vec::new() }
    }

    /// The same directory. From the next run's first change on its record says that these ranges are still to be written:
    /// whatever ends a run over several ranges half-way, those that are missing are named.
    pub(crate) fn with_planned(&self, planned: Vec<Record>) -> Self {
        Self { dir: self.dir.clone(), planned }
    }

    /// The record's path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.join("flash.json")
    }

    fn failed(path: &Path, source: io::Error) -> Error {
        Error::Record { path: path.display().to_string(), source }
    }

    /// The record of the latest run; `None` if there is none that can be read.
    #[must_use]
    pub fn read(&self) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(self.path()).ok()?).ok()
    }

    /// Takes the lock: there is one record, so there is one writer of flash at a time.
    ///
    /// # Errors
    /// [`Error::Busy`] with the other process, [`Error::Record`] if the lock cannot be made.
    pub fn lock(&self, command: &[String]) -> Result<RecordLock, Error> {
        let path = self.dir.join("flash.lock");
        let failed = |source| Self::failed(&path, source);
        std::fs::create_dir_all(&self.dir).map_err(failed)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = match Flock::lock(file.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                let (pid, command) = text.split_once(' ').unwrap_or(("0", "unknown"));
                return Err(Error::Busy {
                    pid: pid.parse().unwrap_or(0),
                    command: command.trim().to_owned(),
                });
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        let text = format!("{} {}\n", std::process::id(), command_line(command));
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(text.as_bytes())
        };
        write(&mut file).map_err(failed)?;
        Ok(RecordLock { _file: file })
    }

    fn write(&self, record: &Record) -> Result<(), Error> {
        let path = self.path();
        let temporary = self.dir.join(".flash.json.new");
        let write = || {
            let text = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
            std::fs::create_dir_all(&self.dir)?;
            std::fs::write(&temporary, text)?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|source| Self::failed(&path, source))
    }
}

/// How often a running record is brought up to date.
const INTERVAL: Duration = Duration::from_millis(250);

/// Keeps the record of one run.
#[derive(Debug)]
pub(crate) struct Recorder {
    dir: RecordDir,
    record: Record,
    /// What is to be written behind it.
    planned: Vec<Record>,
    /// What was there before this run.
    before: Option<Record>,
    written: Instant,
}

impl Recorder {
    /// Writes the record with the state `changing`. Runs on other ranges that never ended well are carried along.
    pub(crate) fn changing(dir: &RecordDir, record: Record) -> Result<Self, Error> {
        let mut recorder = Self::prepared(dir, record);
        recorder.planned.clone_from(&dir.planned);
        recorder.carry();
        dir.write(&recorder.record)?;
        Ok(recorder)
    }

    /// The same, but nothing is written yet: for a run that changes nothing.
    pub(crate) fn prepared(dir: &RecordDir, record: Record) -> Self {
        let (before, planned) = (dir.read(), Vec::new());
        let mut recorder = Self { dir: dir.clone(), record, planned, before, written: Instant::now() };
        recorder.carry();
        recorder
    }

    /// Carries along what is to be written behind this range, and the runs that never ended well.
    fn carry(&mut self) {
        let mut older = unsettled(self.before.as_ref(), &self.record);
        older.retain(|other| !self.planned.iter().any(|planned| other.is_within(planned)));
        let earlier = self.planned.iter().cloned().chain(older).collect();
        self.record.earlier = earlier;
    }

    /// Says that the run has touched nothing behind `end`, which is counted as the record's own is. What an earlier run
    /// has left behind it is not settled then. Bytes that were announced are not taken back on file before the end: a
    /// writer that is killed may have touched any of them.
    pub(crate) fn narrow(&mut self, end: u64) {
        self.record.end = end.clamp(self.record.start, self.record.end);
        self.carry();
    }

    /// Brings the record up to date if it is due. A failure changes nothing: the state on file stays right.
    pub(crate) fn update(&mut self, bytes_done: u64, operations: Operations) {
        self.record.bytes_done = bytes_done.min(self.record.bytes_total);
        self.record.operations = operations;
        if self.written.elapsed() >= INTERVAL {
            let _ = self.dir.write(&self.record);
            self.written = Instant::now();
        }
    }

    /// Puts back what was there before, if nothing was changed after all.
    pub(crate) fn take_back(self) {
        // If it cannot be taken back, the record asks for a run that is not needed: that harms nobody.
        let _ = match self.before {
            Some(record) => self.dir.write(&record).is_ok(),
            None => std::fs::remove_file(self.dir.path()).is_ok(),
        };
    }

    pub(crate) fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    /// Writes the truth. After a success the latest of the runs that never ended well becomes the record again: the
    /// flash as a whole is not proven as long as there is one.
    pub(crate) fn finish(mut self) -> Result<Option<Record>, Error> {
        self.record.finished = Some(now());
        let mut earlier = std::mem::take(&mut self.record.earlier);
        if self.record.state != State::Verified || earlier.is_empty() {
            self.record.earlier = earlier;
            self.dir.write(&self.record)?;
            return Ok(None);
        }
        let mut latest = earlier.remove(0);
        latest.earlier = earlier;
        self.dir.write(&latest)?;
        Ok(Some(latest))
    }
}

/// The runs that never ended well, but for those whose range lies within the record's.
fn unsettled(before: Option<&Record>, record: &Record) -> Vec<Record> {
    let mut earlier: Vec<Record> = before.cloned().into_iter().collect();
    if let Some(latest) = earlier.first_mut() {
        let older = std::mem::take(&mut latest.earlier);
        earlier.extend(older);
    }
    earlier.retain(|other| other.state != State::Verified && !other.is_within(record));
    for other in &mut earlier {
        // Its writer holds no lock any more, so it ended without a word.
        other.state = State::Unverified;
    }
    earlier
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(start: u64, end: u64, state: State) -> Record {
        let command = ["flashcp", "a b"].map(str::to_owned);
        Record {
            state,
            pid: 7,
            device: "/dev/mtd5".to_owned(),
            name: "firmware".to_owned(),
            start,
            end,
            started: 1,
            ..Record::begun("a b", 10, "", &command)
        }
    }

    #[test]
    fn the_record_has_the_keys_that_others_read() {
        let json = serde_json::to_value(record(0, 16, State::Changing)).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "version",
            "state",
            "pid",
            "command",
            "device",
            "name",
            "chip",
            "start",
            "end",
            "image",
            "image_bytes",
            "bytes_done",
            "bytes_total",
            "started",
            "finished",
            "operations",
            "retries",
            "image_sha256",
            "range_sha256",
            "exit_code",
            "error",
        ];
        expected.sort_unstable();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(json["state"], "changing");
        assert_eq!(json["operations"], serde_json::json!({"erases": 0, "programmed": 0, "read": 0}));
    }

    #[test]
    fn a_run_that_never_ended_well_is_not_forgotten_because_another_range_is_verified() {
        let dir = tempfile::tempdir().unwrap();
        let dir = RecordDir::new(dir.path());
        // Killed in the middle.
        drop(Recorder::changing(&dir, record(0, 16, State::Changing)).unwrap());
        let mut other = Recorder::changing(&dir, record(16, 32, State::Changing)).unwrap();
        assert_eq!(dir.read().unwrap().earlier.len(), 1);
        other.record().state = State::Verified;
        assert!(other.finish().unwrap().is_some());
        let found = dir.read().unwrap();
        assert_eq!((found.state, found.start), (State::Unverified, 0));
        // Running it again settles it.
        let mut again = Recorder::changing(&dir, record(0, 16, State::Changing)).unwrap();
        assert!(again.record().earlier.is_empty());
        again.record().state = State::Verified;
        assert_eq!(again.finish().unwrap(), None);
        assert_eq!(dir.read().unwrap().state, State::Verified);
    }

    #[test]
    fn a_volume_never_settles_what_a_partition_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let dir = RecordDir::new(dir.path());
        // Killed in the middle; the kernel does not tell the chip.
        drop(Recorder::changing(&dir, record(0, 16, State::Changing)).unwrap());
        let volume = Record {
            device: "/dev/ubi0_1".to_owned(),
            chip: Some("ubi0:rootfs".to_owned()),
            ..record(0, 1 << 20, State::Changing)
        };
        let mut recorder = Recorder::changing(&dir, volume.clone()).unwrap();
        recorder.record().state = State::Verified;
        assert!(recorder.finish().unwrap().is_some());
        assert_eq!(dir.read().unwrap().device, "/dev/mtd5");
        assert!(!volume.overlaps(&record(0, 16, State::Changing)));
        assert!(volume.overlaps(&volume));
    }

    #[test]
    fn a_command_can_be_pasted_whatever_its_image_is_called() {
        let mut left = record(0, 16, State::Unverified);
        let text = |words: &[&str]| {
            Record {
                command: words.iter().map(|word| (*word).to_owned()).collect(),
                ..record(0, 1, State::Unverified)
            }
            .command_line()
        };
        assert_eq!(
            text(&["flashcp", "-v", "/tmp/a b/it's.bin", "mtd:firmware"]),
            "flashcp -v '/tmp/a b/it'\\''s.bin' mtd:firmware"
        );
        assert_eq!(text(&["flashcp", "", "$x;*", "--size=3k"]), "flashcp '' '$x;*' --size=3k");
        left.end = 8;
        assert_eq!(crate::report::Unfinished::of(left, "/dev/mtd5").command, "flashcp 'a b'");
    }

    #[test]
    fn two_writers_at_a_time_are_one_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let dir = RecordDir::new(dir.path());
        let command = ["flashcp".to_owned(), "-v".to_owned(), "fw.bin".to_owned(), "mtd5".to_owned()];
        let lock = dir.lock(&command).unwrap();
        let error = dir.lock(&["flashcp".to_owned()]).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(
            error,
            format!(
                "flash is being written by process {pid} (flashcp -v fw.bin mtd5); wait for it to finish"
            )
        );
        drop(lock);
        dir.lock(&command).unwrap();
    }

    #[test]
    fn a_record_that_cannot_be_written_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let dir = RecordDir::new(&file.join("levitate"));
        let error = dir.lock(&[]).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot write the record {}/levitate/flash.lock: ", file.display()))
        );
    }
}
