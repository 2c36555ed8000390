//! Flash that is being changed, or was left half changed, keeps the system up.
//!
//! The record is `flashcp`'s, `/run/levitate/flash.json`; the contract is in `ARCHITECTURE.md`. It is there before the
//! first change of flash and is replaced by one rename, so a reader never sees half of it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Deserialize;

use crate::process_stat::Stat;

/// Where the flash record lies, below the run directory.
pub const FLASH_RECORD: &str = "levitate/flash.json";

/// What the flash record says, as far as an end of the system is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FlashRecord {
    /// What became of the flash.
    pub state: FlashState,
    /// The process that writes.
    pub pid: i32,
    /// Its command line.
    pub command: Vec<String>,
    /// The device, as `/dev/mtd5`.
    pub device: String,
    /// The partition's name.
    #[serde(default)]
    pub name: Option<String>,
}

/// The states of the flash record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlashState {
    /// Between the first and the last change.
    Changing,
    /// Written and read back.
    Verified,
    /// Changed, and not known to be right.
    Unverified,
}

/// Whether the system may end now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Not before this writer has ended.
    Wait {
        /// Its name, number and target.
        writer: String,
    },
    /// Not at all, unless forced.
    Refuse {
        /// Why, and what to do: lines for the user.
        reason: Vec<String>,
    },
}

/// Decides from the record (none: no flash was changed) and whether its process lives.
#[must_use]
pub fn interlock(record: Option<&FlashRecord>, writer_is_alive: bool) -> Gate {
    let Some(record) = record else { return Gate::Open };
    match record.state {
        FlashState::Verified => Gate::Open,
        FlashState::Changing if writer_is_alive => {
            Gate::Wait { writer: format!("{} (pid {}), on {}", program(record), record.pid, target(record)) }
        }
        FlashState::Changing | FlashState::Unverified => Gate::Refuse {
            reason: vec![
                format!(
                    "{} was changed and not verified: the device may not boot from it; run again:",
                    target(record)
                ),
                format!("    {}", command_line(&record.command)),
                "(-f overrides)".to_owned(),
            ],
        },
    }
}

fn program(record: &FlashRecord) -> &str {
    record.command.first().map_or("flashcp", |word| base_name(word))
}

fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn target(record: &FlashRecord) -> String {
    match &record.name {
        Some(name) if !name.is_empty() => format!("{} ({name})", record.device),
        _ => record.device.clone(),
    }
}

/// The words as one would type them.
fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%^".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// What a look at the record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// There is none: no flash was changed.
    Absent,
    /// It is there.
    Known(FlashRecord),
    /// It is there, and cannot be read or understood: why, as a sentence.
    Unknown(String),
}

impl Reading {
    /// Of what reading the file at `path` gave.
    #[must_use]
    pub fn of(path: &Path, read: io::Result<impl AsRef<[u8]>>) -> Self {
        let unknown = |why: String| {
            Self::Unknown(format!(
                "cannot understand the flash record {}: {why}; flash may be half changed",
                path.display()
            ))
        };
        match read {
            Ok(text) => match serde_json::from_slice(text.as_ref()) {
                Ok(record) => Self::Known(record),
                Err(error) => unknown(error.to_string()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Absent,
            Err(error) => unknown(error.to_string()),
        }
    }
}

/// Reads the record in the run directory `run` and looks into `proc` for its writer.
///
/// A record that cannot be read or understood refuses: something changed flash, and nobody knows how far it got. A
/// process that cannot be looked at is taken for the writer.
#[must_use]
pub fn look(run: &Path, proc: &Path) -> Gate {
    let path = run.join(FLASH_RECORD);
    match Reading::of(&path, fs::read(&path)) {
        Reading::Absent => Gate::Open,
        Reading::Known(record) => interlock(Some(&record), lives(proc, &record)),
        Reading::Unknown(why) => Gate::Refuse { reason: vec![why, "(-f overrides)".to_owned()] },
    }
}

/// Which file the record in the run directory `run` is; none if there is none, or if it cannot be told. `flashcp` never
/// changes one, it puts another in its place.
#[must_use]
pub fn identity(run: &Path) -> Option<Identity> {
    let meta = fs::symlink_metadata(run.join(FLASH_RECORD)).ok()?;
    Some(Identity { file: (meta.dev(), meta.ino()), changed: (meta.ctime(), meta.ctime_nsec()) })
}

/// A file as it was at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device and inode.
    file: (u64, u64),
    /// Its last change of any kind, in seconds and nanoseconds.
    changed: (i64, i64),
}

/// Whether the record's process lives.
fn lives(proc: &Path, record: &FlashRecord) -> bool {
    match fs::read(proc.join(record.pid.to_string()).join("stat")) {
        Ok(stat) => is_written_by(record, &String::from_utf8_lossy(&stat)),
        // without a /proc no process is there to be seen, whether it lives or not
        Err(error) => !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) || !is_mounted(proc),
    }
}

/// Whether /proc is what it should be: this link is in every one, whoever looks.
fn is_mounted(proc: &Path) -> bool {
    fs::symlink_metadata(proc.join("self")).is_ok()
}

fn is_written_by(record: &FlashRecord, stat: &str) -> bool {
    Stat::parse(stat).is_some_and(|stat| is_writer(record, stat.name, stat.state))
}

/// Whether the process of the record's number can be its writer, by its name and state as the kernel has them: process
/// numbers are used again.
#[must_use]
pub fn is_writer(record: &FlashRecord, name: &str, state: char) -> bool {
    // The kernel keeps 15 bytes of a name.
    let own: String = program(record).chars().take(15).collect();
    !matches!(state, 'Z' | 'X' | 'x') && [own.as_str(), "flashcp", "levitate"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: FlashState) -> FlashRecord {
        FlashRecord {
            state,
            pid: 123,
            command: ["flashcp", "-v", "my image.bin", "mtd:firmware"].map(str::to_owned).to_vec(),
            device: "/dev/mtd5".into(),
            name: Some("firmware".into()),
        }
    }

    #[test]
    fn flash_that_was_never_changed_or_was_verified_lets_the_system_end() {
        assert_eq!(interlock(None, false), Gate::Open);
        assert_eq!(interlock(Some(&record(FlashState::Verified)), false), Gate::Open);
        assert_eq!(interlock(Some(&record(FlashState::Verified)), true), Gate::Open);
    }

    #[test]
    fn while_flash_is_being_changed_the_system_waits_and_names_the_writer() {
        let writer = "flashcp (pid 123), on /dev/mtd5 (firmware)".to_owned();
        assert_eq!(interlock(Some(&record(FlashState::Changing)), true), Gate::Wait { writer });
    }

    #[test]
    fn a_writer_that_died_counts_as_unverified() {
        let changing = interlock(Some(&record(FlashState::Changing)), false);
        assert_eq!(changing, interlock(Some(&record(FlashState::Unverified)), true));
        let Gate::Refuse { reason } = changing else { panic!("{changing:?}") };
        assert_eq!(
            reason,
            [
                "/dev/mtd5 (firmware) was changed and not verified: the device may not boot from it; run again:",
                "    flashcp -v 'my image.bin' mtd:firmware",
                "(-f overrides)",
            ]
        );
    }

    fn scene(json: &str, stat: Option<&str>) -> Gate {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("levitate")).unwrap();
        fs::write(dir.path().join(FLASH_RECORD), json).unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        if let Some(stat) = stat {
            fs::create_dir_all(dir.path().join("proc/123")).unwrap();
            fs::write(dir.path().join("proc/123/stat"), stat).unwrap();
        }
        look(dir.path(), &dir.path().join("proc"))
    }

    /// The record as `ARCHITECTURE.md` shows it.
    const CHANGING: &str = r#"{ "version": 1, "state": "changing", "pid": 123,
        "command": ["/sbin/flashcp", "-v", "firmware.bin", "mtd:firmware"], "device": "/dev/mtd5", "name": "firmware",
        "chip": null, "start": 67371008, "end": 109314048, "image": "firmware.bin", "image_bytes": 14417920,
        "bytes_done": 0, "bytes_total": 14417920, "started": 1700000000, "finished": null,
        "operations": {"erases": 0, "programmed": 0, "read": 0}, "retries": 0, "image_sha256": null,
        "range_sha256": null, "exit_code": null, "error": null }"#;

    #[test]
    fn a_living_writer_is_found_by_number_and_name() {
        assert!(matches!(scene(CHANGING, Some("123 (flashcp) D 1 1")), Gate::Wait { .. }));
        assert!(matches!(scene(CHANGING, Some("123 (levitate) S 1 1")), Gate::Wait { .. }));
    }

    #[test]
    fn another_process_of_that_number_or_a_zombie_is_no_writer() {
        for stat in
            [None, Some("123 (sh) S 1"), Some("123 (flashcp) Z 1"), Some("123 (x) (flashcp) S"), Some("")]
        {
            assert!(matches!(scene(CHANGING, stat), Gate::Refuse { .. }), "{stat:?}");
        }
    }

    #[test]
    fn a_process_that_cannot_be_looked_at_may_be_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        // a directory cannot be read as a file, which is no sign that the process has ended
        fs::create_dir_all(dir.path().join("123/stat")).unwrap();
        assert!(lives(dir.path(), &record(FlashState::Changing)));
        fs::remove_dir(dir.path().join("123/stat")).unwrap();
        assert!(lives(dir.path(), &record(FlashState::Changing)), "nothing is mounted there");
        std::os::unix::fs::symlink("77", dir.path().join("self")).unwrap();
        assert!(!lives(dir.path(), &record(FlashState::Changing)));
    }

    #[test]
    fn a_record_is_the_same_until_another_is_put_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FLASH_RECORD);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(identity(dir.path()), None);
        fs::write(&path, CHANGING).unwrap();
        let found = identity(dir.path());
        assert!(found.is_some() && found == identity(dir.path()));
        fs::write(path.with_extension("new"), CHANGING).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        assert_ne!(identity(dir.path()), found, "it says the same, and is another run's");
    }

    #[test]
    fn a_record_that_cannot_be_understood_refuses() {
        assert!(matches!(scene("{", None), Gate::Refuse { .. }));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path(), dir.path()), Gate::Open);
    }
}
