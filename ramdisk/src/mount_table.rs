//! The mount table: `/proc/PID/mountinfo` (proc_pid_mountinfo(5)), and what a mount is worth.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The major number of mtdblock devices, and of jffs2 superblocks, whose minor is the MTD device's number
/// (`MTD_BLOCK_MAJOR` in the kernel's `include/uapi/linux/major.h`).
pub const MTD_BLOCK_MAJOR: u32 = 31;

/// One line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount's id.
    pub id: u32,
    /// The id of the mount that it is mounted on.
    pub parent: u32,
    /// The major number of the superblock's device.
    pub major: u32,
    /// The minor number of the superblock's device.
    pub minor: u32,
    /// Which directory of the file system is mounted: `/` unless it is a bind mount or a subvolume.
    pub root: PathBuf,
    /// Where it is mounted, seen from the reader's root.
    pub point: PathBuf,
    /// The file system's type.
    pub fstype: String,
    /// What the file system calls its source; `none` or any word for file systems without a device.
    pub source: String,
}

impl Mount {
    /// Whether its superblock lies on an MTD device: an mtdblock or jffs2 superblock by its number, UBIFS by its type, what
    /// lies on a block device over a UBI volume by that device's name.
    #[must_use]
    pub fn is_on_flash(&self) -> bool {
        self.major == MTD_BLOCK_MAJOR
            || matches!(self.fstype.as_str(), "jffs2" | "ubifs")
            || self.source.starts_with("/dev/ubiblock")
    }

    /// Whether its files are nowhere but in RAM, so that removing them is no loss after the reset that follows anyway.
    #[must_use]
    pub fn is_in_ram(&self) -> bool {
        matches!(self.fstype.as_str(), "tmpfs" | "ramfs" | "rootfs")
    }

    /// Whether it keeps data that a reset without a clean unmount could harm.
    #[must_use]
    pub fn keeps_data(&self) -> bool {
        self.major != 0
            || matches!(self.fstype.as_str(), "ubifs" | "overlay" | "btrfs" | "nfs" | "nfs4" | "fuseblk")
    }
}

/// The mounts of this process, in the order in which they were made.
///
/// # Errors
/// Those of reading the table.
pub(crate) fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// True if something is mounted at `at`. A table that cannot be read has nothing in it.
pub(crate) fn has(at: &str) -> bool {
    read().is_ok_and(|mounts| mounts.iter().any(|mount| mount.point == Path::new(at)))
}

/// Parses a mountinfo file. Lines that are no mountinfo lines are skipped: a table that can be read in part is better
/// for a PID 1 than none.
#[must_use]
pub fn parse(bytes: &[u8]) -> Vec<Mount> {
    parse_with_options(bytes).into_iter().map(|(mount, _)| mount).collect()
}

/// The same with each mount's own options: `rw`, `noexec`, ...
#[must_use]
pub fn parse_with_options(bytes: &[u8]) -> Vec<(Mount, Vec<String>)> {
    bytes.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<(Mount, Vec<String>)> {
    let mut fields = line.split(|b| *b == b' ').filter(|field| !field.is_empty());
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let mut device = fields.next()?.split(|b| *b == b':');
    let (major, minor) = (number(device.next()?)?, number(device.next()?)?);
    let root = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let point = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    let options = String::from_utf8_lossy(fields.next()?).split(',').map(str::to_owned).collect();
    // Any number of optional fields, closed by a single dash.
    fields.by_ref().find(|field| *field == b"-")?;
    let fstype = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    let source = fields.next().map(unescape).unwrap_or_default();
    let source = String::from_utf8_lossy(&source).into_owned();
    Some((Mount { id, parent, major, minor, root, point, fstype, source }, options))
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and `#`. Anything else stays as it is.
#[must_use]
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (first, tail) {
            plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            plain.push(first);
            rest = tail;
        }
    }
    plain
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
    fn every_whole_line_is_read_and_escapes_are_undone() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 8);
        assert_eq!(mounts[5].point, Path::new("/persist/with space\\"));
        assert_eq!((mounts[3].fstype.as_str(), mounts[3].source.as_str()), ("tmpfs", "tmpfs"));
    }

    #[test]
    fn a_backslash_that_begins_no_octal_number_stays() {
        assert_eq!(unescape(b"a\\040b\\04\\999\\"), b"a b\\04\\999\\");
    }

    #[test]
    fn squashfs_and_jffs2_and_ubifs_lie_on_flash_and_tmpfs_does_not() {
        let flash: Vec<Mount> = parse(TABLE).into_iter().filter(Mount::is_on_flash).collect();
        assert_eq!(points(&flash), ["/", "/persist", "/ubi"]);
    }

    #[test]
    fn the_own_table_is_read() {
        assert!(has("/proc") && !has("/nowhere"));
    }
}
