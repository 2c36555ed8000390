//! Stage 1's decisions: who changes flash, what the verb asks for, and whether the staged root can be entered. Pure functions.

use std::path::{Path, PathBuf};

use ramdisk::init::interlock::{self, FlashState, Gate, Reading};

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

/// Who is changing flash, for a sentence: the decision is the maintenance init's. `alive` is none if the processes could
/// not be listed: that the writer has ended is not known then, so it has not. Of a record that cannot be understood the
/// writer is not known; whoever is named as flashcp is taken for it.
#[must_use]
pub fn flash_writer(reading: &Reading, alive: Option<&[Process]>) -> Option<String> {
    let record = match reading {
        Reading::Absent => return None,
        Reading::Known(record) => record,
        Reading::Unknown(_) => {
            let process = alive?.iter().find(|process| process.must_end() && process.name == "flashcp")?;
            return Some(format!("flashcp (pid {})", process.pid));
        }
    };
    let writes = |process: &Process| {
        process.pid == record.pid
            && process.must_end()
            && interlock::is_writer(record, &process.name, process.state)
    };
    match interlock::interlock(Some(record), alive.is_none_or(|alive| alive.iter().any(writes))) {
        Gate::Wait { writer } => Some(writer),
        Gate::Open | Gate::Refuse { .. } => None,
    }
}

/// The flash record that goes along into the maintenance root, if any: that of flash which is not known to be right.
/// `text` is the record's own. One that cannot be read, or that is longer than `longest` bytes, is replaced by one that
/// says so: `reboot` must refuse there, and name what is known.
#[must_use]
pub fn record_to_keep(reading: &Reading, text: Option<&str>, longest: usize) -> Option<String> {
    let (device, name, command) = match reading {
        Reading::Absent => return None,
        Reading::Known(record) if record.state == FlashState::Verified => return None,
        Reading::Known(record) => (record.device.as_str(), record.name.as_deref(), record.command.as_slice()),
        Reading::Unknown(_) => ("flash", Some("its record in the old system cannot be read"), &[][..]),
    };
    if let Some(text) = text.filter(|text| text.len() <= longest) {
        return Some(text.to_owned());
    }
    let clip = |word: &str| word.chars().take(200).collect::<String>();
    let command: Vec<String> = match command {
        [] => vec!["flashcp".to_owned()],
        words => words.iter().take(20).map(|word| clip(word)).collect(),
    };
    let record = serde_json::json!({
        "version": 1, "state": "unverified", "pid": 0,
        "command": command, "device": clip(device), "name": name.map(clip),
    });
    Some(record.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::HandoverLimits;

    use ramdisk::init::interlock::FlashRecord;

    fn record(state: FlashState) -> FlashRecord {
        FlashRecord {
            state,
            pid: 7,
            command: vec!["/opt/a-copy-of-flashcp".into()],
            device: "/dev/mtd5".into(),
            name: None,
        }
    }

    fn process(name: &str, state: char) -> Process {
        Process { pid: 7, name: name.into(), state, kernel: false, wants_hangup: false }
    }

    #[test]
    fn a_writer_of_flash_is_alive_has_its_number_and_its_name_and_is_not_done() {
        let changing = Reading::Known(record(FlashState::Changing));
        let writer = Some("a-copy-of-flashcp (pid 7), on /dev/mtd5".to_owned());
        for name in ["flashcp", "levitate", "a-copy-of-flash"] {
            assert_eq!(flash_writer(&changing, Some(&[process(name, 'D')])), writer, "{name}");
        }
        assert_eq!(flash_writer(&changing, None), writer, "nobody could be looked at");
        assert_eq!(flash_writer(&changing, Some(&[process("flashcp", 'Z')])), None);
        assert_eq!(flash_writer(&changing, Some(&[process("sh", 'S')])), None);
        let other = FlashRecord { pid: 8, ..record(FlashState::Changing) };
        assert_eq!(flash_writer(&Reading::Known(other), Some(&[process("flashcp", 'R')])), None);
        let done = Reading::Known(record(FlashState::Unverified));
        assert_eq!(flash_writer(&done, Some(&[process("flashcp", 'R')])), None);
    }

    #[test]
    fn whoever_is_named_flashcp_may_be_the_writer_of_a_record_that_cannot_be_understood() {
        let unknown = Reading::of(Path::new("r"), Ok("{"));
        let alive = [process("sh", 'S'), process("flashcp", 'D')];
        assert_eq!(flash_writer(&unknown, Some(&alive)), Some("flashcp (pid 7)".into()));
        assert_eq!(flash_writer(&unknown, Some(&[process("sh", 'S')])), None);
        assert_eq!(flash_writer(&Reading::Absent, Some(&alive)), None);
    }

    #[test]
    fn of_a_record_that_cannot_be_taken_along_the_maintenance_init_still_learns_that_flash_is_not_right() {
        let path = Path::new("r");
        let refuses = |text: Option<String>| match Reading::of(path, Ok(text.unwrap())) {
            Reading::Known(record) => interlock::interlock(Some(&record), false),
            other => panic!("{other:?}"),
        };
        let unreadable = Reading::of(path, Err::<&str, _>(std::io::Error::other("x")));
        let Gate::Refuse { reason } = refuses(record_to_keep(&unreadable, None, 9)) else { panic!() };
        assert_eq!(
            reason[0],
            "flash (its record in the old system cannot be read) was changed and not verified: \
             the device may not boot from it; run again:"
        );
        let known = Reading::Known(record(FlashState::Changing));
        let Gate::Refuse { reason } = refuses(record_to_keep(&known, Some("longer than it may be"), 9))
        else {
            panic!()
        };
        assert!(reason[0].starts_with("/dev/mtd5 was changed"), "{reason:?}");
        assert_eq!(reason[1].trim(), "/opt/a-copy-of-flashcp");
        assert_eq!(record_to_keep(&known, Some("short"), 9), Some("short".into()));
        let odd = Reading::of(path, Ok("{"));
        assert_eq!(record_to_keep(&odd, Some("{"), 9), Some("{".into()), "the init refuses that, too");
        for right in [Reading::Absent, Reading::Known(record(FlashState::Verified))] {
            assert_eq!(record_to_keep(&right, Some("x"), 9), None);
        }
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
            watchdogs: vec![],
            lease_ms: None,
            lease_unverified_ms: None,
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
