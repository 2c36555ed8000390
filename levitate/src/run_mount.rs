//! The file system of /run: in RAM or not, executable or not, how large; and changing that, so that it can be undone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use ramdisk::path::Root;
use serde::{Deserialize, Serialize};

use crate::budget::{Grow, Space};
use crate::handover::mounts::{self, Mount};

/// The mount that /run lies on, as /proc/self/mountinfo tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMount {
    /// Its mount point.
    pub point: PathBuf,
    /// The file system's type.
    pub fstype: String,
    /// The mount's own options: `rw`, `nosuid`, `nodev`, `noexec`, ...
    pub options: Vec<String>,
}

/// What /run was before it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The mount point that was changed.
    pub point: PathBuf,
    /// Its options before.
    pub options: Vec<String>,
    /// Its size before, in bytes; none if it was not changed.
    pub size: Option<u64>,
    /// Its limit of inodes before (0: none); none if it was not changed.
    pub inodes: Option<u64>,
}

/// A change of a mount of a file system in RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remount {
    /// The mount point.
    pub point: PathBuf,
    /// The options that it has afterwards, of `ro`, `nosuid`, `nodev`, `noexec`.
    pub options: Vec<String>,
    /// Its new size in bytes.
    pub size: Option<u64>,
    /// Its new limit of inodes.
    pub inodes: Option<u64>,
}

/// Changing the living system in ways that are more than files; a double stands in for it in tests. Errors are what the
/// kernel says.
#[allow(clippy::missing_errors_doc)]
pub trait Mounts {
    /// Carries out the change.
    fn remount(&mut self, change: &Remount) -> io::Result<()>;
    /// Whether something is mounted exactly there.
    fn is_mounted(&self, point: &Path) -> io::Result<bool>;
    /// Binds `what` over `over`, both without links in them.
    fn bind(&mut self, what: &Path, over: &Path) -> io::Result<()>;
    /// Mounts an empty file system in RAM on the directory, to be filled and then bound to where it shall show.
    fn fill(&mut self, apart: &Path) -> io::Result<()>;
    /// Takes the topmost mount there away, also if processes still use it: they keep what they have open.
    fn unmount(&mut self, point: &Path) -> io::Result<()>;
    /// SIGHUP to PID 1.
    fn hang_up(&mut self) -> io::Result<()>;
    /// Starts this program once more, in the background, as `name`.
    fn start(&mut self, name: &str) -> io::Result<()>;
    /// Ends a process, and waits until it is gone.
    fn end(&mut self, pid: i32) -> io::Result<()>;
}

impl RunMount {
    /// Whether what is written there lies in RAM alone.
    pub fn is_in_ram(&self) -> bool {
        matches!(self.fstype.as_str(), "tmpfs" | "ramfs" | "rootfs")
    }

    /// What has to be changed so that a root of the wanted size can be staged and executed there; none if nothing.
    pub fn change(&self, grow: Option<Grow>) -> Option<Remount> {
        let keeps = |o: &&String| !matches!(o.as_str(), "noexec" | "nodev");
        let options: Vec<String> = self.options.iter().filter(keeps).cloned().collect();
        let grow = grow.filter(|_| self.fstype == "tmpfs");
        (options != self.options || grow.is_some()).then(|| Remount {
            point: self.point.clone(),
            options,
            size: grow.map(|g| g.bytes),
            inodes: grow.map(|g| g.inodes),
        })
    }

    /// What undoes `change`.
    pub fn before(&self, change: &Remount, space: Option<Space>) -> Before {
        let grown = space.filter(|_| change.size.is_some());
        Before {
            point: self.point.clone(),
            options: self.options.clone(),
            size: grown.map(|s| s.total),
            inodes: grown.map(|s| s.total_inodes),
        }
    }
}

impl Before {
    /// The change back.
    pub fn undo(&self) -> Remount {
        Remount {
            point: self.point.clone(),
            options: self.options.clone(),
            size: self.size,
            inodes: self.inodes,
        }
    }
}

/// The mount that the directory `/run` of `root` lies on.
///
/// # Errors
///
/// /proc is not mounted there, or has no such line.
pub fn read(root: &Root) -> io::Result<RunMount> {
    let text = fs::read(root.dir().join("proc/self/mountinfo"))?;
    let real = root.resolve(Path::new("/run")).map_err(io::Error::other)?.real;
    find(&text, &real).ok_or_else(|| io::Error::other("no mount holds /run in /proc/self/mountinfo"))
}

/// How large the file system at `directory` is, and its page size; `None` where it has no limit.
///
/// # Errors
///
/// What the kernel says.
#[allow(clippy::useless_conversion)] // these are 32-bit numbers on 32-bit processors
pub fn space(directory: &Path) -> io::Result<(Option<Space>, u64)> {
    let stat = statvfs(directory)?;
    let unit = u64::from(stat.fragment_size());
    let space = Space {
        total: u64::from(stat.blocks()).saturating_mul(unit),
        free: u64::from(stat.blocks_available()).saturating_mul(unit),
        total_inodes: u64::from(stat.files()),
        free_inodes: u64::from(stat.files_available()),
    };
    Ok(((space.total > 0).then_some(space), unit.max(512)))
}

/// The mount that the directory lies in, by the longest mount point; of several at one point the topmost.
fn find(mountinfo: &[u8], directory: &Path) -> Option<RunMount> {
    let table = mounts::parse_with_options(mountinfo);
    let all: Vec<Mount> = table.iter().map(|(mount, _)| mount.clone()).collect();
    let holding = mounts::holding(&all, directory)?;
    let (mount, options) = table.into_iter().find(|(mount, _)| mount.id == holding.id)?;
    Some(RunMount { point: mount.point, fstype: mount.fstype, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
21 1 31:3 / / ro,relatime - squashfs /dev/root ro
22 21 0:5 / /dev rw,nosuid - devtmpfs devtmpfs rw
25 21 0:22 / /run rw,nosuid,nodev,noexec,relatime shared:5 - tmpfs tmpfs rw,size=50000k,mode=755
26 25 0:23 / /run/lock rw - tmpfs tmpfs rw
";

    fn run() -> RunMount {
        find(MOUNTINFO.as_bytes(), Path::new("/run")).unwrap()
    }

    #[test]
    fn the_mount_of_run_is_found_among_the_others() {
        let options = ["rw", "nosuid", "nodev", "noexec", "relatime"].map(str::to_owned).to_vec();
        assert_eq!(run(), RunMount { point: "/run".into(), fstype: "tmpfs".into(), options });
        assert!(run().is_in_ram());
        let covered = format!("{MOUNTINFO}27 25 0:24 / /run rw - ext4 /dev/sda1 rw\n");
        assert!(!find(covered.as_bytes(), Path::new("/run")).unwrap().is_in_ram());
        let without = find(b"21 1 31:3 / / ro - squashfs /dev/root ro\n", Path::new("/run")).unwrap();
        assert!(!without.is_in_ram());
    }

    #[test]
    fn a_mount_point_in_any_bytes_hides_nothing() {
        let strange =
            [b"28 21 8:1 / /media/\xff\xfe rw - ext4 /dev/sda1 rw\n", MOUNTINFO.as_bytes()].concat();
        assert_eq!(find(&strange, Path::new("/run")), Some(run()));
    }

    #[test]
    fn a_noexec_run_is_made_executable_and_the_rest_is_kept() {
        let change = run().change(None).unwrap();
        assert_eq!(change.options, ["rw", "nosuid", "relatime"]);
        assert_eq!((change.size, change.inodes), (None, None));
        let plain = RunMount { options: vec!["rw".into(), "nosuid".into()], ..run() };
        assert_eq!(plain.change(None), None);
        let grown = plain.change(Some(Grow { bytes: 1 << 20, inodes: 0 })).unwrap();
        assert_eq!((grown.size, grown.inodes), (Some(1 << 20), Some(0)));
    }

    #[test]
    fn the_way_back_is_what_was_before() {
        let space = Space { total: 1 << 20, free: 5, total_inodes: 100, free_inodes: 7 };
        let change = run().change(Some(Grow { bytes: 2 << 20, inodes: 200 })).unwrap();
        let armed = run().before(&change, Some(space));
        assert_eq!(armed.undo().options, run().options);
        assert_eq!((armed.size, armed.inodes), (Some(1 << 20), Some(100)));
        let change = run().change(None).unwrap();
        assert_eq!(run().before(&change, Some(space)).size, None);
    }
}
