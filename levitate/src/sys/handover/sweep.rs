//! Removing what is left of the old /run without touching the staged root, which lies in the same file system.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::makedev;

use crate::handover::mounts::Mount;
use crate::handover::seam::Identity;

/// Device and inode number.
pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// The device number of its files, as they tell it.
pub(super) fn device(mount: &Mount) -> u64 {
    makedev(mount.major.into(), mount.minor.into())
}

/// Removes everything in `dir` as far as that is on `device`, but no mount point of `skip` and nothing in it, and not the
/// directory `keep`, by whatever name it is found. What cannot be removed stays; the answer counts what went.
///
/// `dir` itself can be covered by another file system, and a mount point can be one that never answers: the one is not
/// emptied, the other not looked at.
pub(super) fn sweep(dir: &Path, device: u64, keep: Identity, skip: &[PathBuf]) -> io::Result<u64> {
    let found = fs::symlink_metadata(dir)?;
    // a file that is bound over another one is a mount point too
    if found.dev() != device || (found.dev(), found.ino()) == keep || !found.is_dir() {
        return Ok(0);
    }
    let mut removed = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if skip.contains(&path) {
            continue;
        }
        // It may be gone already: a second sweep of the same tree by another name.
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.dev() != device || (found.dev(), found.ino()) == keep {
            continue;
        }
        let gone = if found.is_dir() {
            removed += sweep(&path, device, keep, skip).unwrap_or(0);
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
        removed += u64::from(gone.is_ok());
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(root: &Path) {
        for dir in ["maintenance/sbin", "service/a", "other/mounted/inside", "deep/er/maintenance"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for file in ["maintenance/sbin/init", "service/a/run", "other/mounted/inside/x", "plain", "deep/er/y"]
        {
            fs::write(root.join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink(root.join("maintenance"), root.join("service/link")).unwrap();
    }

    #[test]
    fn everything_goes_but_the_staged_root_and_mount_points() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fill(root);
        let keep = identity(&root.join("maintenance")).unwrap();
        let device = keep.0;
        // service, a, run, link; deep, er, maintenance, y; plain.
        assert_eq!(sweep(root, device, keep, &[root.join("other/mounted")]).unwrap(), 9);
        let mut left: Vec<_> = fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["maintenance", "other"]);
        assert!(root.join("maintenance/sbin/init").exists());
        assert!(root.join("other/mounted/inside/x").exists());
        assert_eq!(sweep(root, device, keep, &[root.join("other/mounted")]).unwrap(), 0);
    }

    #[test]
    fn what_covers_the_directory_is_not_emptied_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let keep = identity(&dir.path().join("maintenance")).unwrap();
        assert_eq!(sweep(dir.path(), keep.0 + 1, keep, &[]).unwrap(), 0);
        assert!(dir.path().join("plain").exists());
    }

    #[test]
    fn the_staged_root_is_known_by_its_inode_even_where_it_has_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fill(root);
        let keep = identity(&root.join("maintenance")).unwrap();
        let device = keep.0;
        fs::rename(root.join("maintenance"), root.join("deep/er/renamed")).unwrap();
        sweep(root, device, keep, &[]).unwrap();
        assert!(root.join("deep/er/renamed/sbin/init").exists());
        assert!(!root.join("deep/er/y").exists());
        // Asked to empty the staged root itself, nothing happens.
        assert_eq!(sweep(&root.join("deep/er/renamed"), device, keep, &[]).unwrap(), 0);
        assert_eq!(sweep(&root.join("deep/er/renamed/sbin/init"), device, keep, &[]).unwrap(), 0);
        assert!(root.join("deep/er/renamed/sbin/init").exists());
    }
}
