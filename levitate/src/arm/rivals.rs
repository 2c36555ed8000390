//! Who else uses systemd's place for a last root. Three packages fill `/run/initramfs` while the system goes down, each
//! by a unit of its own; what they do where something is there already:
//!
//! - dracut (`dracut-shutdown.service`, its `dracut-initramfs-restore`) unpacks the initramfs only if it finds
//!   `.need_shutdown` there and no `bin/sh`. Arming moves the directory with that file aside.
//! - mkinitcpio (`mkinitcpio-generate-shutdown-ramfs.service`) wants `mkinitcpio-shutdown.conf` there and no executable
//!   `shutdown`: the same.
//! - finalrd (`finalrd.service`, Ubuntu's) fills it, with a `shutdown` of its own, unless it finds an executable `bin/sh`.
//!
//! So none of them touches a staged root that has a shell; and what the first asks for, somebody wanted.

use std::fs;
use std::path::{Path, PathBuf};

use ramdisk::path::Root;

use super::ARM;

/// Where systemd looks for units, the first that has one winning.
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Fills the place unless a shell is there.
const FINALRD: &str = "finalrd.service";
const DRACUT: &str = "dracut-shutdown.service";
/// dracut's word that something has to be taken apart at the end.
const NEED_SHUTDOWN: &str = ".need_shutdown";

/// What is left out when the staged root takes the place.
pub(super) fn warnings(root: &Root, place: &str) -> Vec<String> {
    let aside = Path::new(ARM).join("initramfs");
    let asked = [Path::new(place), &aside].iter().any(|d| root.host(&d.join(NEED_SHUTDOWN)).exists());
    if !asked || !is_started(root, DRACUT) {
        return Vec::new();
    }
    vec![format!(
        "{DRACUT} was asked to take apart what / lies on (RAID, LVM, encryption) from {place}: the staged root takes \
         that place, so these devices stay set up until the board is reset"
    )]
}

/// The unit that would write over a staged root without a shell.
pub(super) fn writes_over(root: &Root) -> Option<&'static str> {
    is_started(root, FINALRD).then_some(FINALRD)
}

/// Whether the unit is there, is not masked, and something wants it.
fn is_started(root: &Root, unit: &str) -> bool {
    let host = |path: PathBuf| root.host(&path);
    let found = UNITS.iter().map(|dir| host(Path::new(dir).join(unit)));
    let Some(file) = found.into_iter().find(|file| fs::symlink_metadata(file).is_ok()) else { return false };
    let masked = fs::read_link(&file).is_ok_and(|target| target == Path::new("/dev/null"));
    !masked && UNITS.iter().any(|dir| is_wanted(&host(dir.into()), unit))
}

fn is_wanted(units: &Path, unit: &str) -> bool {
    let Ok(entries) = fs::read_dir(units) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        (name.ends_with(".wants") || name.ends_with(".requires"))
            && fs::symlink_metadata(entry.path().join(unit)).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PLACE: &str = "/run/initramfs";

    fn file(root: &Root, path: &str) {
        let at = root.host(Path::new(path));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, "").unwrap();
    }

    #[test]
    fn a_unit_counts_if_it_is_there_wanted_and_not_masked() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(writes_over(&root), None);
        file(&root, "/usr/lib/systemd/system/finalrd.service");
        assert_eq!(writes_over(&root), None, "nobody wants it");
        file(&root, "/etc/systemd/system/sysinit.target.wants/finalrd.service");
        assert_eq!(writes_over(&root), Some(FINALRD));
        symlink("/dev/null", dir.path().join("etc/systemd/system/finalrd.service")).unwrap();
        assert_eq!(writes_over(&root), None, "masked");
    }

    #[test]
    fn what_dracut_would_have_taken_apart_is_told_before_arming_and_after() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        file(&root, "/usr/lib/systemd/system/dracut-shutdown.service");
        file(&root, "/usr/lib/systemd/system/sysinit.target.wants/dracut-shutdown.service");
        assert_eq!(warnings(&root, PLACE), Vec::<String>::new(), "it has nothing to do");
        file(&root, "/run/initramfs/.need_shutdown");
        assert!(warnings(&root, PLACE)[0].starts_with("dracut-shutdown.service was asked to take apart"));
        fs::create_dir_all(dir.path().join("run/levitate/arm")).unwrap();
        fs::rename(dir.path().join("run/initramfs"), dir.path().join("run/levitate/arm/initramfs")).unwrap();
        assert_eq!(warnings(&root, PLACE).len(), 1);
        fs::remove_file(dir.path().join("usr/lib/systemd/system/dracut-shutdown.service")).unwrap();
        assert_eq!(warnings(&root, PLACE), Vec::<String>::new(), "another initramfs asked for it");
    }
}
