//! `/run/levitate/armed.json`: what arming changed outside the staged root, written before each change is made, so that
//! `levitate abort` and a failure in the middle know what to undo. It lies in RAM, as do the changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ramdisk::path::Root;
use serde::{Deserialize, Serialize};

use crate::arm::Step;
use crate::handover::journey::StateHome;
use crate::run_mount::Before;

/// Where it lies, below the root directory.
pub const ARMED: &str = "run/levitate/armed.json";

/// The version that this program writes. It reads 1 as well, which knew the mount of /run alone.
const VERSION: u32 = 2;

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armed {
    /// 2.
    pub version: u32,
    /// The mount of /run as it was before the first change of it.
    pub run: Option<Before>,
    /// What was done for the init, in this order; the last may not have happened.
    pub steps: Vec<Step>,
    /// Where the state file is. The staged root's manifest says it as well; this is for when that is damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateAt>,
}

/// A state file and the way to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateAt {
    /// Its path, as the old system names it.
    pub file: PathBuf,
    /// Where its file system was when the root was staged.
    #[serde(default)]
    pub home: Option<StateHome>,
}

/// What a record says of the state file, whatever else there is in it; none if it says nothing that can be understood.
#[must_use]
pub fn state_at(text: &str) -> Option<StateAt> {
    #[derive(Deserialize)]
    struct Alone {
        state: StateAt,
    }
    serde_json::from_str::<Alone>(text).ok().map(|alone| alone.state)
}

impl Default for Armed {
    fn default() -> Self {
        Self { version: VERSION, run: None, steps: Vec::new(), state: None }
    }
}

/// The record cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}")]
pub struct RecordError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Reads the record; none if nothing is armed.
///
/// # Errors
///
/// It cannot be read, or is none that this program knows.
pub fn read(root: &Root) -> Result<Option<Armed>, RecordError> {
    let path = root.dir().join(ARMED);
    let failed = |source| RecordError { what: "read", path: path.clone(), source };
    match fs::read(&path) {
        Ok(bytes) => parse(&bytes).map(Some).map_err(failed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

fn parse(bytes: &[u8]) -> io::Result<Armed> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_slice::<Version>(bytes)?.version {
        1 => Ok(Armed { run: Some(serde_json::from_slice(bytes)?), ..Armed::default() }),
        VERSION => Ok(serde_json::from_slice(bytes)?),
        other => {
            let text = format!("it has version {other}, expected {VERSION}: use the levitate that wrote it");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

/// Writes the record whole, or removes it if there is nothing in it; its directory goes if nobody else has anything there.
///
/// # Errors
///
/// What the kernel said.
pub fn write(root: &Root, armed: &Armed) -> Result<(), RecordError> {
    let path = root.dir().join(ARMED);
    let directory = path.parent().unwrap_or(Path::new("/run"));
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        if (&armed.run, &armed.state) == (&None, &None) && armed.steps.is_empty() {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let _ = fs::remove_dir(directory);
            return Ok(());
        }
        fs::create_dir_all(directory)?;
        fs::write(&new, serde_json::to_vec(armed)?)?;
        fs::rename(&new, &path)
    };
    write().map_err(|source| RecordError { what: "write", path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_first_version_is_read_as_a_changed_run_without_steps() {
        let text = r#"{"version":1,"point":"/run","options":["rw","noexec"],"size":1048576,"inodes":null}"#;
        let armed = parse(text.as_bytes()).unwrap();
        let before = Before {
            point: "/run".into(),
            options: vec!["rw".into(), "noexec".into()],
            size: Some(1 << 20),
            inodes: None,
        };
        assert_eq!(armed, Armed { run: Some(before), ..Armed::default() });
    }

    #[test]
    fn a_record_of_a_later_version_is_refused() {
        let error = parse(br#"{"version":3}"#).unwrap_err().to_string();
        assert!(error.starts_with("it has version 3, expected 2"), "{error}");
        assert!(parse(b"{").is_err());
    }

    #[test]
    fn the_state_file_is_found_in_a_record_that_says_it_and_in_no_other() {
        let at = StateAt {
            file: "/persist/state.json".into(),
            home: Some(StateHome {
                source: "/dev/m".into(),
                fstype: "jffs2".into(),
                file: "state.json".into(),
            }),
        };
        let armed = Armed { state: Some(at.clone()), ..Armed::default() };
        let text = serde_json::to_string(&armed).unwrap();
        assert_eq!(parse(text.as_bytes()).unwrap(), armed);
        assert_eq!(state_at(&text), Some(at));
        assert_eq!(state_at(&text[1..]), None);
        // one that was written before there was such a key
        let earlier = br#"{"version":2,"run":null,"steps":[]}"#;
        assert_eq!(parse(earlier).unwrap(), Armed::default());
    }

    #[test]
    fn an_empty_record_is_no_file_and_leaves_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir(dir.path().join("run")).unwrap();
        let armed = Armed { steps: vec![Step::Start { name: "x".into() }], ..Armed::default() };
        write(&root, &armed).unwrap();
        assert_eq!(read(&root).unwrap(), Some(armed));
        write(&root, &Armed::default()).unwrap();
        assert_eq!(read(&root).unwrap(), None);
        assert!(!dir.path().join("run/levitate").exists());
        write(&root, &Armed::default()).unwrap();
    }
}
