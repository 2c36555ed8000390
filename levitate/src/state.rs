//! The state file: what became of the last `levitate` and its hand-over, on a file system that survives the reboot.
//!
//! Written by `levitate` when it arms and by the hand-over for as long as that file system is mounted; read by
//! `levitate status` in the next boot of the old system. The boot's id in each record tells one boot from another.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The version of [`StateRecord`] that this program writes and reads.
pub const VERSION: u32 = 1;

/// How far the journey into the maintenance root is known to have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A root is staged; `reboot` enters it.
    Armed,
    /// The hand-over runs as PID 1 and is about to begin the stage named in the record.
    Entering,
    /// The last record before the state file's own file system is unmounted: every stage until then went well, and
    /// what comes after cannot be recorded here.
    Left,
    /// The hand-over failed at the stage named in the record, for the reason given.
    Failed,
}

/// The one object in the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRecord {
    /// [`VERSION`].
    pub version: u32,
    /// What is known.
    pub state: State,
    /// `/proc/sys/kernel/random/boot_id` of the boot in which the record was written.
    pub boot_id: String,
    /// The hand-over's stage; none while armed.
    #[serde(default)]
    pub stage: Option<String>,
    /// Why it failed; none unless failed.
    #[serde(default)]
    pub reason: Option<String>,
    /// Seconds since 1970, by the clock of the system that wrote it.
    pub at: u64,
    /// What the file said before; only while armed, for an abort to put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<StateRecord>>,
}

impl StateRecord {
    /// A record of this moment.
    pub fn now(state: State, boot_id: &str, stage: Option<&str>, reason: Option<&str>) -> Self {
        Self {
            version: VERSION,
            state,
            boot_id: boot_id.to_owned(),
            stage: stage.map(str::to_owned),
            reason: reason.map(str::to_owned),
            at: seconds_since_1970(),
            before: None,
        }
    }

    /// The record that a root is staged, in place of `before`. Of several armed in a row the last keeps what was there
    /// before the first.
    pub fn armed(boot_id: &str, before: Option<Self>) -> Self {
        let before = match before {
            Some(record) if record.state == State::Armed => record.before,
            other => other.map(Box::new),
        };
        Self { before, ..Self::now(State::Armed, boot_id, None, None) }
    }
}

/// Why the state file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A call on the file or its directory failed.
    #[error("{what} {path}")]
    Io {
        /// What was attempted: `"write"`, `"read"`, ...
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is there and is no record.
    #[error("read {path}: not a state record")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The record is of another version.
    #[error("read {path}: version {found}, expected {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found there.
        found: u32,
    },
}

/// Writes `record` so that it is there after a power cut once this has returned: a new file beside it, fsync, rename,
/// fsync of the directory. A power cut before that leaves the previous record whole.
///
/// # Errors
///
/// Any call that fails; the previous record is then still there, and the new file is not.
pub fn write_durably(path: &Path, record: &StateRecord) -> Result<(), StateError> {
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| StateError::Io { what, path, source }
    };
    let mut text = serde_json::to_vec(record).map_err(|e| StateError::Io {
        what: "encode",
        path: path.to_owned(),
        source: e.into(),
    })?;
    text.push(b'\n');
    let new = beside(path);
    let in_place = || {
        // what an interrupted run left there; whatever else it is, it is not followed
        let _ = fs::remove_file(&new);
        let mut file = File::create_new(&new).map_err(io("create", &new))?;
        file.write_all(&text).map_err(io("write", &new))?;
        file.sync_all().map_err(io("fsync", &new))?;
        drop(file);
        fs::rename(&new, path).map_err(io("rename into place", path))
    };
    in_place().inspect_err(|_| {
        // where there was no room for it, half of it takes room that others need
        let _ = fs::remove_file(&new);
    })?;
    sync_directory_of(path).map_err(io("fsync the directory of", path))
}

/// Reads the record; `None` if there is no such file.
///
/// # Errors
///
/// An unreadable file, no record, or a record of another version.
pub fn read(path: &Path) -> Result<Option<StateRecord>, StateError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Io { what: "read", path: path.to_owned(), source }),
    };
    let record: StateRecord = serde_json::from_slice(&text)
        .map_err(|source| StateError::Malformed { path: path.to_owned(), source })?;
    if record.version != VERSION {
        return Err(StateError::Version { path: path.to_owned(), found: record.version });
    }
    Ok(Some(record))
}

/// Removes the record durably; a missing file is success.
///
/// # Errors
///
/// The file or its directory cannot be changed.
pub fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory_of(path).map_err(|source| StateError::Io {
            what: "fsync the directory of",
            path: path.to_owned(),
            source,
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StateError::Io { what: "remove", path: path.to_owned(), source }),
    }
}

/// This boot's id, below `root` (`/` but in tests).
///
/// # Errors
///
/// `/proc` is not mounted there.
pub fn boot_id(root: &Path) -> Result<String, StateError> {
    let path = root.join("proc/sys/kernel/random/boot_id");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(StateError::Io { what: "read", path, source }),
    }
}

/// Seconds since 1970 by the system's clock; 0 if the clock is before that.
pub fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_as_written_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let record = StateRecord::now(State::Failed, "abc", Some("check"), Some("init is not executable"));
        write_durably(&path, &record).unwrap();
        assert_eq!(read(&path).unwrap(), Some(record));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""state":"failed","boot_id":"abc","stage":"check""#), "{text}");
    }

    #[test]
    fn no_file_is_no_record_and_removing_it_twice_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(read(&path).unwrap(), None);
        write_durably(&path, &StateRecord::now(State::Armed, "abc", None, None)).unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn a_record_that_cannot_be_put_in_place_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        // a file cannot replace a directory
        fs::create_dir(&path).unwrap();
        let error = write_durably(&path, &StateRecord::now(State::Armed, "abc", None, None)).unwrap_err();
        assert!(matches!(error, StateError::Io { what: "rename into place", .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_torn_record_and_one_of_another_version_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, "{\"version\":1,\"sta").unwrap();
        assert!(matches!(read(&path), Err(StateError::Malformed { .. })));
        fs::write(&path, r#"{"version":2,"state":"armed","boot_id":"a","at":1}"#).unwrap();
        assert!(matches!(read(&path), Err(StateError::Version { found: 2, .. })));
    }
}
