//! Small files: the verb, the panic timeout, the state file, the report.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::devices::errno;
use crate::handover::report::Report;
use crate::handover::seam::FileFacts;
use crate::state::{self, StateError, StateRecord};

const VERB: &str = "/run/levitate/verb";
const PANIC: &str = "/proc/sys/kernel/panic";

/// The verb file's text, at most 64 bytes of it.
pub(super) fn read_verb() -> io::Result<Option<String>> {
    match File::open(VERB) {
        Ok(file) => {
            let mut text = Vec::new();
            file.take(64).read_to_end(&mut text)?;
            Ok(Some(String::from_utf8_lossy(&text).into_owned()))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The first 256 bytes: what the kernel itself looks at (`BINPRM_BUF_SIZE`).
pub(super) fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(256).read_to_end(&mut head)?;
    Ok(head)
}

/// Kind and mode, links followed.
pub(super) fn look_at(path: &Path) -> io::Result<FileFacts> {
    let found = fs::metadata(path)?;
    Ok(FileFacts { regular: found.is_file(), mode: found.permissions().mode() })
}

/// Sets the panic timeout unless one is set.
pub(super) fn panic_timeout(seconds: u32) -> io::Result<()> {
    if fs::read_to_string(PANIC)?.trim() == "0" {
        fs::write(PANIC, seconds.to_string())?;
    }
    Ok(())
}

/// For a child, whose answer is an error number.
pub(super) fn write_state(path: &Path, record: &StateRecord) -> nix::Result<()> {
    state::write_durably(path, record).map_err(|e| match e {
        StateError::Io { source, .. } => errno(&source),
        StateError::Malformed { .. } | StateError::Version { .. } => nix::errno::Errno::EINVAL,
    })
}

/// Writes the report.
pub(super) fn write_report(path: &Path, report: &Report) -> io::Result<()> {
    let mut text = serde_json::to_vec(report)?;
    text.push(b'\n');
    write_text(path, &text)
}

/// Writes a file whole or not at all; it lies in RAM, so nothing is synced.
pub(super) fn write_text(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
