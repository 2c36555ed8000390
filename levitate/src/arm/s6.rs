//! s6-svscan as PID 1: on `s6-svscanctl -b` (and -t, -q) it executes `.s6-svscan/finish` of its scan directory, as
//! PID 1. That script hands over if there is somebody to hand over to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ramdisk::path::{PathError, Root};

use super::{ENTRY, Hook};

/// What the script has to say before anything else that ends the system.
const LINES: &str = "if [ -x /run/maintenance/exec ]; then exec /run/maintenance/exec; fi";

pub(super) fn hook(root: &Root, scandir: &Path) -> Hook {
    let finish = scandir.join(".s6-svscan/finish");
    let lines = |reason: String| Hook::NotWired {
        reason,
        remedy: Some(format!("it must say, before the reset: {LINES}")),
    };
    let not = Hook::not;
    let shown = finish.display();
    let resolved = match root.resolve(&finish) {
        Ok(resolved) => resolved,
        Err(PathError::NotFound { .. }) => {
            return lines(format!("{shown} does not exist"));
        }
        Err(e) => return not(e.to_string()),
    };
    let host = root.host(&resolved.real);
    let (text, mode) = match (fs::read(&host), fs::metadata(&host)) {
        (Ok(text), Ok(meta)) => (text, meta.permissions().mode()),
        (Err(e), _) | (_, Err(e)) => return not(format!("{shown} cannot be read: {e}")),
    };
    if mode & 0o111 == 0 {
        return not(format!("{shown} is not executable"));
    }
    if !text.windows(ENTRY.len()).any(|w| w == ENTRY.as_bytes()) {
        return lines(format!("{shown} does not execute {ENTRY}"));
    }
    Hook::Wired { by: finish, steps: vec![] }
}

/// busybox's own `reboot`, which its shell prefers to any other, sends SIGTERM; by itself s6-svscan then stops every
/// service and waits for it, and one that ignores TERM makes the device hang. A file of that name answers instead.
pub(super) fn signal_warning(root: &Root, scandir: &Path) -> Option<String> {
    let handler = scandir.join(".s6-svscan/SIGTERM");
    // before the shell is read: it is a large file
    if root.resolve(&handler).is_ok() {
        return None;
    }
    let shell = root.resolve(Path::new("/bin/sh")).ok()?;
    let shell = fs::read(root.host(&shell.real)).ok()?;
    let has = |word: &[u8]| shell.windows(word.len()).any(|w| w == word);
    if !has(b"BusyBox v") || !has(b"\0reboot\0") {
        return None;
    }
    Some(format!(
        "{} does not exist: busybox's shell may prefer its own reboot, which sends SIGTERM, and s6-svscan then waits \
         for every service, without a limit; let it run: s6-svscanctl -b {}",
        handler.display(),
        scandir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(root: &Root) -> String {
        match hook(root, Path::new("/run/service")) {
            Hook::NotWired { reason, remedy } => {
                remedy.into_iter().fold(reason, |reason, remedy| format!("{reason}; {remedy}"))
            }
            Hook::Wired { by, .. } => panic!("wired by {by:?}"),
        }
    }

    #[test]
    fn a_reboot_of_busybox_that_would_hang_is_warned_about() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let scandir = Path::new("/run/service");
        fs::create_dir_all(dir.path().join("run/service/.s6-svscan")).unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        let sh = dir.path().join("bin/sh");
        for (shell, warned) in
            [("BusyBox v1.35.0 \0reboot\0", true), ("BusyBox v1.35.0 \0ash\0", false), ("dash", false)]
        {
            fs::write(&sh, shell).unwrap();
            assert_eq!(signal_warning(&root, scandir).is_some(), warned, "{shell}");
        }
        fs::write(&sh, "BusyBox v1.35.0 \0reboot\0").unwrap();
        fs::write(dir.path().join("run/service/.s6-svscan/SIGTERM"), "").unwrap();
        assert_eq!(signal_warning(&root, scandir), None);
    }

    #[test]
    fn only_an_executable_finish_that_names_the_entry_is_wired() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert!(reason(&root).starts_with("/run/service/.s6-svscan/finish does not exist; it must say"));
        fs::create_dir_all(dir.path().join("run/service/.s6-svscan")).unwrap();
        let finish = dir.path().join("run/service/.s6-svscan/finish");
        fs::write(&finish, "#!/bin/sh\nreboot -f\n").unwrap();
        assert_eq!(reason(&root), "/run/service/.s6-svscan/finish is not executable");
        fs::set_permissions(&finish, fs::Permissions::from_mode(0o755)).unwrap();
        let text = reason(&root);
        assert!(text.contains("does not execute /run/maintenance/exec; it must say"), "{text}");
        fs::write(&finish, format!("#!/bin/sh\n{LINES}\nreboot -f\n")).unwrap();
        let by = "/run/service/.s6-svscan/finish".into();
        assert_eq!(hook(&root, Path::new("/run/service")), Hook::Wired { by, steps: vec![] });
    }
}
