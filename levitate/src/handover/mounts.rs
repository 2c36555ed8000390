//! The mount table as the hand-over needs it: searched, and ordered for unmounting.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use ramdisk::mount_table::{MTD_BLOCK_MAJOR, Mount, parse, parse_with_options, unescape};

/// A mount of the old system as it was before anything was ended: what the proof has to look for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldMount {
    /// The mount point, as the old system named it.
    pub path: String,
    /// What it lies on.
    pub source: String,
    /// The file system's type.
    pub fstype: String,
    /// The major number of the superblock's device.
    pub major: u32,
    /// The minor number of the superblock's device.
    pub minor: u32,
}

impl OldMount {
    /// The facts about `mount`, which the old system has at `path`, as text for files.
    #[must_use]
    pub fn of(mount: &Mount, path: &Path) -> Self {
        Self {
            path: path.to_string_lossy().into_owned(),
            source: mount.source.clone(),
            fstype: mount.fstype.clone(),
            major: mount.major,
            minor: mount.minor,
        }
    }
}

/// The mount that shows at exactly this path: where several are stacked, the topmost.
#[must_use]
pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    let mut here = mounts.iter().filter(|mount| mount.point == point);
    let first = here.next()?;
    Some(here.fold(first, |top, mount| if depth(mounts, mount) >= depth(mounts, top) { mount } else { top }))
}

/// The mount that the file at `path` lies in, by the longest mount point above it. Symbolic links are not followed.
#[must_use]
pub fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    path.ancestors().find_map(|above| at(mounts, above))
}

/// The mounts at or below `root`, in the order in which they can be unmounted: what is mounted on another comes before
/// it, and of two that do not depend on each other the later one.
#[must_use]
pub fn unmount_order(mounts: &[Mount], root: &Path) -> Vec<Mount> {
    let mut below: Vec<(usize, usize, &Mount)> = mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| mount.point.starts_with(root))
        .map(|(place, mount)| (depth(mounts, mount), place, mount))
        .collect();
    below.sort_by_key(|(depth, place, _)| std::cmp::Reverse((*depth, *place)));
    below.into_iter().map(|(_, _, mount)| mount.clone()).collect()
}

/// How many mounts lie below this one. Bounded by the table's length, so that a table read in mid-change cannot loop.
fn depth(mounts: &[Mount], mount: &Mount) -> usize {
    let mut parent = mount.parent;
    for depth in 0..mounts.len() {
        match mounts.iter().find(|other| other.id == parent && other.id != other.parent) {
            Some(below) => parent = below.parent,
            None => return depth,
        }
    }
    mounts.len()
}

/// The path as the old system named it: `/oldroot/persist` is `/persist`, `/oldroot` is `/`.
#[must_use]
pub fn old_name(point: &Path, old_root: &Path) -> PathBuf {
    match point.strip_prefix(old_root) {
        Ok(rest) => Path::new("/").join(rest),
        Err(_) => point.to_owned(),
    }
}

/// `path` of the old system, seen from below `prefix`: `/persist/x` is `/oldroot/persist/x`.
#[must_use]
pub fn below(prefix: &Path, path: &Path) -> PathBuf {
    let relative = path.as_os_str().as_bytes();
    let start = relative.iter().take_while(|b| **b == b'/').count();
    match relative.get(start..).unwrap_or_default() {
        [] => prefix.to_owned(),
        rest => prefix.join(std::ffi::OsStr::from_bytes(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
20 1 31:3 / / ro,relatime - squashfs /dev/mtdblock3 ro
21 20 0:5 / /dev rw - devtmpfs dev rw
22 21 0:6 / /dev/pts rw - devpts pts rw
23 20 0:7 / /run rw shared:4 master:1 - tmpfs tmpfs rw
24 20 31:4 / /persist rw - jffs2 /dev/mtdblock4 rw
25 24 0:8 / /persist/with\\040space\\134 rw - tmpfs none rw
26 24 0:9 / /persist rw - tmpfs above rw
not a line
27 20 0:10 / /ubi rw - ubifs ubi0:data rw
";

    fn points(mounts: &[Mount]) -> Vec<&str> {
        mounts.iter().filter_map(|m| m.point.to_str()).collect()
    }

    #[test]
    fn what_is_mounted_on_another_is_unmounted_before_it() {
        let order = unmount_order(&parse(TABLE), Path::new("/"));
        assert_eq!(
            points(&order),
            ["/persist", "/persist/with space\\", "/dev/pts", "/ubi", "/persist", "/run", "/dev", "/"]
        );
        assert_eq!(order[0].source, "above");
    }

    #[test]
    fn a_neighbour_whose_name_begins_alike_is_not_below() {
        let mounts = parse(b"1 0 0:1 / /oldroot rw - tmpfs a rw\n2 0 0:2 / /oldroot2 rw - tmpfs b rw\n");
        assert_eq!(points(&unmount_order(&mounts, Path::new("/oldroot"))), ["/oldroot"]);
    }

    #[test]
    fn a_table_in_which_parents_form_a_circle_still_has_an_order() {
        let mounts = parse(b"1 2 0:1 / /a rw - tmpfs a rw\n2 1 0:2 / /b rw - tmpfs b rw\n");
        assert_eq!(unmount_order(&mounts, Path::new("/")).len(), 2);
    }

    #[test]
    fn the_topmost_of_stacked_mounts_is_the_one_that_shows() {
        let mounts = parse(TABLE);
        assert_eq!(at(&mounts, Path::new("/persist")).unwrap().source, "above");
        assert_eq!(holding(&mounts, Path::new("/run/maintenance/x")).unwrap().id, 23);
        assert_eq!(holding(&mounts, Path::new("/etc/x")).unwrap().id, 20);
    }

    #[test]
    fn names_change_between_the_old_view_and_the_new_one() {
        let old = Path::new("/oldroot");
        assert_eq!(old_name(Path::new("/oldroot/persist"), old), Path::new("/persist"));
        assert_eq!(old_name(Path::new("/oldroot"), old), Path::new("/"));
        assert_eq!(below(old, Path::new("/persist/s.json")), Path::new("/oldroot/persist/s.json"));
        assert_eq!(below(Path::new("/"), Path::new("/persist/s.json")), Path::new("/persist/s.json"));
    }
}
