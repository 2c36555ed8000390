//! Stage 1's decisions: who changes flash, what the verb asks for, and whether the staged root can be entered. Pure functions.

use std::path::{Path, PathBuf};

use ramdisk::init::interlock::{FlashRecord, FlashState};

use super::processes::Process;
use super::seam::FileFacts;
use crate::manifest::Manifest;

/// The manifest's version that this program enters.
pub const MANIFEST_VERSION: u32 = 1;

/// Where the flash record lies, in the old system as in the maintenance root.
pub const FLASH: &str = "/run/levitate/flash.json";

/// What the old system was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Reboot, which an armed root turns into the hand-over. No word means this one.
    Reboot,
    /// Power off: nothing is handed over.
    Poweroff,
    /// Halt: nothing is handed over.
    Halt,
    /// Execute the kernel that was loaded: nothing is handed over.
    Kexec,
    /// Some other word. It is not guessed at: the board is reset into the old system, and says why.
    Unknown(String),
}

impl Verb {
    /// Reads the verb file's text; `None` if there is no such file.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Self {
        match text.map(str::trim) {
            None | Some("" | "reboot") => Self::Reboot,
            Some("poweroff") => Self::Poweroff,
            Some("halt") => Self::Halt,
            Some("kexec") => Self::Kexec,
            Some(other) => Self::Unknown(other.chars().take(40).collect()),
        }
    }
}

/// Reads the manifest and decides whether it is one to enter.
///
/// # Errors
///
/// A sentence: no manifest, another version, another boot's.
pub fn manifest(text: &str, boot_id: &str, path: &Path) -> Result<Manifest, String> {
    let manifest: Manifest =
        serde_json::from_str(text).map_err(|e| format!("read {}: {e}", path.display()))?;
    if manifest.version != MANIFEST_VERSION {
        return Err(format!(
            "{} has version {}, expected {MANIFEST_VERSION}",
            path.display(),
            manifest.version
        ));
    }
    if manifest.boot_id != boot_id {
        return Err(format!(
            "{} was staged in boot {}, this is boot {boot_id}",
            path.display(),
            manifest.boot_id
        ));
    }
    Ok(manifest)
}

/// Whether a file can be executed: `what` is the sentence's subject.
///
/// # Errors
///
/// A sentence with the mode that was found.
pub fn executable(what: &str, path: &Path, facts: FileFacts) -> Result<(), String> {
    if !facts.regular {
        return Err(format!("{what} {} is not a regular file", path.display()));
    }
    if facts.mode & 0o111 == 0 {
        return Err(format!(
            "{what} {} is not executable (mode {:04o})",
            path.display(),
            facts.mode & 0o7777
        ));
    }
    Ok(())
}

/// The interpreter that the first bytes of a script name, seen from below the staged root; `None` for a program that
/// needs none.
///
/// # Errors
///
/// A sentence if the file is neither a script nor an ELF program: execve would refuse it.
pub fn interpreter(head: &[u8], init: &Path, staged: &Path) -> Result<Option<PathBuf>, String> {
    let not_a_program = || format!("staged init {} is neither a script nor a program", init.display());
    if head.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let line = head.strip_prefix(b"#!").ok_or_else(not_a_program)?;
    let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
    let word = String::from_utf8_lossy(line);
    let word = word.split_ascii_whitespace().next().ok_or_else(not_a_program)?;
    Ok(Some(super::mounts::below(staged, Path::new(word))))
}

/// The process that is changing flash by this record: it is alive, and its name can be the writer's, because process
/// numbers are used again.
#[must_use]
pub fn flash_writer<'a>(record: &FlashRecord, alive: &'a [Process]) -> Option<&'a Process> {
    if record.state != FlashState::Changing {
        return None;
    }
    let word = record.command.first().map_or("flashcp", |word| word.rsplit('/').next().unwrap_or(word));
    // The kernel keeps 15 bytes of a name.
    let own: String = word.chars().take(15).collect();
    let mut alive = alive.iter().filter(|process| process.pid == record.pid && process.must_end());
    alive.find(|process| [own.as_str(), "flashcp", "levitate"].contains(&process.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::HandoverLimits;

    #[test]
    fn a_writer_of_flash_is_alive_has_its_number_and_its_name_and_is_not_done() {
        let process = |name: &str, state| Process { pid: 7, name: name.into(), state, kernel: false };
        let mut record = FlashRecord {
            state: FlashState::Changing,
            pid: 7,
            command: vec!["/opt/a-copy-of-flashcp".into()],
            device: "/dev/mtd5".into(),
            name: None,
        };
        for name in ["flashcp", "levitate", "a-copy-of-flash"] {
            assert!(flash_writer(&record, &[process(name, 'D')]).is_some(), "{name}");
        }
        assert_eq!(flash_writer(&record, &[process("flashcp", 'Z')]), None);
        assert_eq!(flash_writer(&record, &[process("sh", 'S')]), None);
        record.pid = 8;
        assert_eq!(flash_writer(&record, &[process("flashcp", 'R')]), None);
        (record.pid, record.state) = (7, FlashState::Unverified);
        assert_eq!(flash_writer(&record, &[process("flashcp", 'R')]), None);
    }

    #[test]
    fn no_word_means_reboot_and_an_unknown_word_is_not_guessed_at() {
        assert_eq!(Verb::parse(None), Verb::Reboot);
        assert_eq!(Verb::parse(Some("\n")), Verb::Reboot);
        assert_eq!(Verb::parse(Some("reboot\n")), Verb::Reboot);
        assert_eq!(Verb::parse(Some("poweroff\n")), Verb::Poweroff);
        assert_eq!(Verb::parse(Some(" halt ")), Verb::Halt);
        assert_eq!(Verb::parse(Some("kexec")), Verb::Kexec);
        assert_eq!(Verb::parse(Some("exit")), Verb::Unknown("exit".into()));
    }

    #[test]
    fn an_init_that_lost_its_execute_bits_is_refused_with_its_mode() {
        let path = Path::new("/run/maintenance/sbin/init");
        assert_eq!(
            executable("staged init", path, FileFacts { regular: true, mode: 0o100_644 }).unwrap_err(),
            "staged init /run/maintenance/sbin/init is not executable (mode 0644)"
        );
        assert_eq!(
            executable("staged init", path, FileFacts { regular: false, mode: 0o755 }).unwrap_err(),
            "staged init /run/maintenance/sbin/init is not a regular file"
        );
        assert_eq!(executable("staged init", path, FileFacts { regular: true, mode: 0o755 }), Ok(()));
    }

    #[test]
    fn a_scripts_interpreter_is_looked_for_inside_the_staged_root() {
        let (init, staged) = (Path::new("/s/sbin/init"), Path::new("/s"));
        assert_eq!(
            interpreter(b"#! /sbin/levitate init\n", init, staged),
            Ok(Some(PathBuf::from("/s/sbin/levitate")))
        );
        assert_eq!(interpreter(b"\x7fELF\x02", init, staged), Ok(None));
        for broken in [&b""[..], b"#!", b"#!\n/bin/sh", b"echo\n"] {
            assert_eq!(
                interpreter(broken, init, staged),
                Err("staged init /s/sbin/init is neither a script nor a program".into())
            );
        }
    }

    #[test]
    fn a_root_of_another_boot_or_another_version_is_not_entered() {
        let mut good = Manifest {
            version: 1,
            staged_at: 0,
            boot_id: "b1".into(),
            services: vec![],
            users: vec![],
            files: 1,
            bytes: 1,
            state_file: None,
            state_home: None,
            watchdog: None,
            lease_ms: None,
            ways_in: vec![],
            handover: HandoverLimits::default(),
        };
        let text = |m: &Manifest| serde_json::to_string(m).unwrap();
        let path = Path::new("m.json");
        assert_eq!(manifest(&text(&good), "b1", path), Ok(good.clone()));
        assert_eq!(
            manifest(&text(&good), "b2", path).unwrap_err(),
            "m.json was staged in boot b1, this is boot b2"
        );
        good.version = 2;
        assert_eq!(manifest(&text(&good), "b1", path).unwrap_err(), "m.json has version 2, expected 1");
        assert!(manifest("{", "b1", path).unwrap_err().starts_with("read m.json: "));
    }
}
