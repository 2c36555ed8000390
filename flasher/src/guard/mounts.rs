//! Mounts, swap, and the devices that lie on top of flash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::processes::{self, Process};
use super::users::Use;
// jffs2 mounts carry it too.
pub(super) use crate::target::MTD_BLOCK_MAJOR;
use crate::target::ubi::Source;

/// Which block device (major, minor) lies on which MTD, beyond mtdblock's own numbers.
#[derive(Debug, Default)]
pub(super) struct Devices {
    others: BTreeMap<(u64, u64), u32>,
    loops: Vec<(u32, String)>,
    ubis: BTreeMap<u32, u32>,
}

impl Devices {
    /// UBI devices and what lies on them, and loop devices on mtdblock. What is not there is passed over.
    pub(super) fn read(root: &Path) -> Self {
        let mut devices = Self::default();
        for name in names(&root.join("sys/class/ubi")) {
            let ubi = name.strip_prefix("ubi").and_then(|ubi| ubi.parse().ok());
            let mtd = text(&root.join("sys/class/ubi").join(&name).join("mtd_num"));
            if let (Some(ubi), Some(mtd)) = (ubi, mtd.and_then(|mtd| mtd.parse().ok())) {
                devices.ubis.insert(ubi, mtd);
            }
        }
        for name in names(&root.join("sys/class/block")) {
            let dir = root.join("sys/class/block").join(&name);
            let Some(dev) = text(&dir.join("dev")).as_deref().and_then(numbers) else { continue };
            if let Some(ubi) = name.strip_prefix("ubiblock").and_then(ubi_number) {
                devices.lay(dev, devices.ubis.get(&ubi).copied());
            }
            let backing = text(&dir.join("loop/backing_file"));
            if let Some(mtd) = backing.as_deref().and_then(block_name) {
                devices.lay(dev, Some(mtd));
                devices.loops.push((mtd, name));
            }
        }
        devices
    }

    fn lay(&mut self, dev: (u64, u64), mtd: Option<u32>) {
        if let Some(mtd) = mtd {
            self.others.insert(dev, mtd);
        }
    }

    /// The MTD on which the file system or block device with these numbers lies.
    pub(super) fn mtd(&self, (major, minor): (u64, u64)) -> Option<u32> {
        if major == MTD_BLOCK_MAJOR {
            return u32::try_from(minor).ok();
        }
        self.others.get(&(major, minor)).copied()
    }

    /// Loop devices, by the MTD they lie on.
    pub(super) fn loops(&self) -> &[(u32, String)] {
        &self.loops
    }

    /// UBI device number to MTD number.
    pub(super) fn ubis(&self) -> &BTreeMap<u32, u32> {
        &self.ubis
    }
}

/// Every mount on flash in every mount namespace, each once. File systems on UBI volumes have numbers of their own;
/// these are added to `devices`.
pub(super) fn read(root: &Path, pids: &[Process], devices: &mut Devices) -> Vec<(u32, Use)> {
    let namespace = |process: &str| std::fs::read_link(root.join("proc").join(process).join("ns/mnt")).ok();
    let ours = namespace("self");
    let mut namespaces = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for process in pids {
        let pid = process.pid.to_string();
        let theirs = namespace(&pid);
        // Within one namespace a process with another root sees other mounts: only who sees the same is skipped.
        let view = std::fs::read_link(root.join("proc").join(&pid).join("root")).ok();
        if theirs.is_some() && view.is_some() && !namespaces.insert((theirs.clone(), view)) {
            continue;
        }
        let Ok(table) = std::fs::read(root.join("proc").join(&pid).join("mountinfo")) else { continue };
        for line in String::from_utf8_lossy(&table).lines() {
            let Some(mount) = mount(line) else { continue };
            let ubi = if mount.fs_type == "ubifs" { ubi_source(mount.source) } else { None };
            if let Some(mtd) = ubi.and_then(|ubi| devices.ubis.get(&ubi).copied()) {
                devices.lay(mount.dev, Some(mtd));
            }
            let Some(mtd) = devices.mtd(mount.dev) else { continue };
            let mount_point = unescape(mount.mount_point);
            if seen.insert((theirs.clone(), mtd, mount_point.clone(), mount.fs_type.to_owned())) {
                let elsewhere = (ours.is_some() && theirs != ours).then(|| process.holder());
                found.push((mtd, Use::Mount { mount_point, fs_type: mount.fs_type.to_owned(), elsewhere }));
            }
        }
    }
    found
}

/// /proc/swaps.
pub(super) fn swaps(root: &Path, devices: &Devices) -> Vec<(u32, Use)> {
    let table = text(&root.join("proc/swaps")).unwrap_or_default();
    let names = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    names
        .filter_map(|name| {
            let name = unescape(name);
            block_name(&name).or_else(|| devices.mtd(processes::block_numbers(root, &name)?))
        })
        .map(|mtd| (mtd, Use::Swap))
        .collect()
}

/// One mount, as proc_pid_mountinfo(5) tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Major and minor number of the file system's device.
    pub dev: (u64, u64),
    /// Where it is mounted.
    pub mount_point: String,
    /// `squashfs`, `ubifs`, ...
    pub fs_type: String,
    /// What is mounted, as the file system tells it: `/dev/mtdblock3`, `ubi0:rootfs`, ...
    pub source: String,
}

/// Every mount in the text of a `mountinfo`. Lines that are none are passed over.
#[must_use]
pub fn mounts_of(text: &[u8]) -> Vec<MountEntry> {
    let text = String::from_utf8_lossy(text);
    let entry = |mount: Mount<'_>| MountEntry {
        dev: mount.dev,
        mount_point: unescape(mount.mount_point),
        fs_type: mount.fs_type.to_owned(),
        source: unescape(mount.source),
    };
    text.lines().filter_map(mount).map(entry).collect()
}

/// The fields of a mountinfo line that matter here (proc_pid_mountinfo(5)).
struct Mount<'a> {
    dev: (u64, u64),
    mount_point: &'a str,
    fs_type: &'a str,
    source: &'a str,
}

fn mount(line: &str) -> Option<Mount<'_>> {
    let (fixed, rest) = line.split_once(" - ")?;
    let mut fixed = fixed.split(' ').skip(2);
    let dev = numbers(fixed.next()?)?;
    let mount_point = fixed.nth(1)?;
    let mut rest = rest.split(' ');
    Some(Mount { dev, mount_point, fs_type: rest.next()?, source: rest.next().unwrap_or("") })
}

/// `31:3`
pub(super) fn numbers(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `/dev/mtdblock3`, `/dev/mtdblock/3`
pub(super) fn block_name(path: &str) -> Option<u32> {
    let number = path.strip_prefix("/dev/mtdblock")?;
    number.strip_prefix('/').unwrap_or(number).parse().ok()
}

/// `ubi0:rootfs`, `ubi:rootfs`, `ubi0_1`, `/dev/ubi0_1`
pub(super) fn ubi_source(source: &str) -> Option<u32> {
    if let Some(source) = Source::parse(source) {
        return Some(source.ubi);
    }
    ubi_number(source.strip_prefix("/dev/").unwrap_or(source).strip_prefix("ubi")?)
}

/// The leading number of `0_1`, `0:rootfs`, `0!rootfs`.
pub(super) fn ubi_number(text: &str) -> Option<u32> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = after.get(3..).unwrap_or("");
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn text(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mountinfo_line_is_read_by_its_numbers() {
        let line =
            "21 1 31:3 / /mnt/a\\040b ro,noatime shared:1 master:2 - squashfs /dev/root ro,errors=continue";
        let mount = mount(line).unwrap();
        assert_eq!((mount.dev, mount.fs_type, mount.source), ((31, 3), "squashfs", "/dev/root"));
        assert_eq!(unescape(mount.mount_point), "/mnt/a b");
        assert_eq!(unescape("a\\b\\134\\0"), "a\\b\\\\0");
    }

    #[test]
    fn names_of_devices_on_flash_are_understood() {
        assert_eq!(block_name("/dev/mtdblock3"), Some(3));
        assert_eq!(block_name("/dev/mtdblock/12"), Some(12));
        assert_eq!(block_name("/dev/sda1"), None);
        assert_eq!(ubi_source("ubi2:root fs"), Some(2));
        assert_eq!(ubi_source("/dev/ubi0_1"), Some(0));
        assert_eq!(ubi_source("ubi!rootfs"), Some(0));
        assert_eq!(ubi_source("ubi3"), Some(0));
        assert_eq!(ubi_source("tmpfs"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_line_of_mountinfo_is_too_odd_to_be_read(text in "[0-9: a-z/\\\\-]{0,60}") {
            if let Some(mount) = mount(&text) {
                proptest::prop_assert!(unescape(mount.mount_point).len() <= mount.mount_point.len());
            }
            let _ = (numbers(&text), block_name(&text), ubi_source(&text));
        }
    }
}
