//! Processes that run from flash or have it open, and the kernel's threads that serve it.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::facts::FactsError;
use super::mounts::{Devices, block_name, ubi_number};
use super::users::{Holder, Use};
use crate::target::MTD_CHAR_MAJOR;

/// One directory of /proc.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    comm: String,
}

impl Process {
    pub(super) fn holder(&self) -> Holder {
        Holder { pid: self.pid, comm: self.comm.clone() }
    }
}

/// What was found in all processes.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) users: Vec<(u32, Use)>,
    /// Processes that privilege hid.
    pub(super) hidden: usize,
}

impl Seen {
    /// Whether a process was told of already: what runs from flash has files of it open as a rule.
    fn runs_from(&self, mtd: u32, pid: u32) -> bool {
        let is = |how: &Use| matches!(how, Use::Process { holder, .. } if holder.pid == pid);
        self.users.iter().any(|(number, how)| *number == mtd && is(how))
    }
}

/// Every process there is, by number.
pub(super) fn list(root: &Path) -> Result<Vec<Process>, FactsError> {
    let path = root.join("proc");
    let entries =
        std::fs::read_dir(&path).map_err(|source| FactsError::Read { path: path.clone(), source })?;
    let mut pids: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let comm = |pid: u32| std::fs::read(path.join(pid.to_string()).join("comm"));
    Ok(pids
        .into_iter()
        .filter_map(|pid| {
            Some(Process { pid, comm: String::from_utf8_lossy(&comm(pid).ok()?).trim().to_owned() })
        })
        .collect())
}

/// Looks into every process. This process's own descriptors are passed over.
pub(super) fn read(root: &Path, pids: &[Process], devices: &Devices) -> Seen {
    let own = std::fs::read_link(root.join("proc/self")).ok();
    let own: Option<u32> = own.and_then(|own| own.to_str()?.parse().ok());
    let mut seen = Seen::default();
    for process in pids {
        if let Some(mtd) = thread(&process.comm, devices) {
            seen.users.push((mtd, Use::Thread(process.holder())));
            continue;
        }
        let mut hidden = false;
        runs_from(root, process, devices, &mut seen, &mut hidden);
        if own != Some(process.pid) {
            opens(root, process, devices, &mut seen, &mut hidden);
        }
        seen.hidden += usize::from(hidden);
    }
    seen
}

/// `jffs2_gcd_mtd4`, `ubi_bgt0d`
fn thread(comm: &str, devices: &Devices) -> Option<u32> {
    if let Some(number) = comm.strip_prefix("jffs2_gcd_mtd") {
        return number.parse().ok();
    }
    devices.ubis().get(&ubi_number(comm.strip_prefix("ubi_bgt")?)?).copied()
}

fn runs_from(root: &Path, process: &Process, devices: &Devices, seen: &mut Seen, hidden: &mut bool) {
    let dir = root.join("proc").join(process.pid.to_string());
    let mut told = BTreeSet::new();
    let mut tell = |mtd: Option<u32>, what: &str| {
        // One line per process and partition says enough.
        if let Some(mtd) = mtd.filter(|mtd| told.insert(*mtd)) {
            seen.users.push((mtd, Use::Process { holder: process.holder(), what: what.to_owned() }));
        }
    };
    // A kernel thread's root is the one that PID 1 has, and says nothing about who reads flash.
    if std::fs::read_to_string(dir.join("stat")).is_ok_and(|stat| is_kernel_thread(&stat)) {
        return;
    }
    for (link, what) in [
        ("exe", "runs a program from it"),
        ("root", "has its root on it"),
        ("cwd", "stands in a directory on it"),
    ] {
        // Through the link, not by its text: it also leads into file systems that were unmounted lazily.
        match std::fs::metadata(dir.join(link)) {
            Ok(meta) => tell(devices.mtd((major(meta.dev()), minor(meta.dev()))), what),
            Err(error) => *hidden |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    match std::fs::read(dir.join("maps")) {
        Ok(maps) => {
            for line in String::from_utf8_lossy(&maps).lines() {
                if let Some((dev, path)) = mapping(line) {
                    tell(devices.mtd(dev), &format!("maps {path}"));
                }
            }
        }
        Err(error) => *hidden |= error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// PF_KTHREAD in the flags, the seventh field behind the name, which may itself hold blanks and brackets
/// (proc(5), linux/sched.h).
fn is_kernel_thread(stat: &str) -> bool {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let flags =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// `7f00-7f10 r-xp 00000000 1f:03 262   /lib/libc.so.6`: the device in hexadecimal, and the file.
fn mapping(line: &str) -> Option<((u64, u64), &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor) = fields.nth(3)?.split_once(':')?;
    let dev = (u64::from_str_radix(major, 16).ok()?, u64::from_str_radix(minor, 16).ok()?);
    fields.next()?;
    let path = fields.next()?;
    // From its first character to the line's end: a name may hold spaces.
    Some((dev, line.get(line.find(path)?..)?.trim_end()))
}

fn opens(root: &Path, process: &Process, devices: &Devices, seen: &mut Seen, hidden: &mut bool) {
    let dir = root.join("proc").join(process.pid.to_string()).join("fd");
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) => {
            *hidden |= error.kind() == io::ErrorKind::PermissionDenied;
            return;
        }
    };
    let mut told = BTreeSet::new();
    for entry in entries.flatten() {
        let Ok(link) = std::fs::read_link(entry.path()) else { continue };
        let node = link.display().to_string();
        let by_number = match std::fs::metadata(entry.path()) {
            Ok(meta) if meta.file_type().is_char_device() && major(meta.rdev()) == MTD_CHAR_MAJOR => {
                u32::try_from(minor(meta.rdev()) / 2).ok()
            }
            Ok(meta) if meta.file_type().is_block_device() && major(meta.rdev()) == 31 => {
                u32::try_from(minor(meta.rdev())).ok()
            }
            // A file keeps its file system alive, whoever has unmounted it; of jffs2 no other trace may be left.
            Ok(meta) if meta.is_file() || meta.is_dir() => devices
                .mtd((major(meta.dev()), minor(meta.dev())))
                .filter(|mtd| !seen.runs_from(*mtd, process.pid)),
            // Seen from here the node may be gone, or lie in another root.
            Ok(_) | Err(_) => None,
        };
        if let Some(mtd) = by_number.or_else(|| node_name(&node)).filter(|mtd| told.insert(*mtd)) {
            seen.users.push((mtd, Use::Open { holder: process.holder(), node }));
        }
    }
}

/// `/dev/mtd3`, `/dev/mtd3ro`, `/dev/mtdblock3`
fn node_name(node: &str) -> Option<u32> {
    let char_name = |node: &str| {
        let number = node.strip_prefix("/dev/mtd")?;
        number.strip_suffix("ro").unwrap_or(number).parse().ok()
    };
    block_name(node).or_else(|| char_name(node))
}

/// The numbers of the block device that a path names.
pub(super) fn block_numbers(root: &Path, path: &str) -> Option<(u64, u64)> {
    let meta = std::fs::metadata(root.join(path.trim_start_matches('/'))).ok()?;
    meta.file_type().is_block_device().then(|| (major(meta.rdev()), minor(meta.rdev())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_read_with_its_device_in_hexadecimal() {
        let line = "b6e00000-b6f00000 r-xp 00000000 1f:0a 262        /usr/lib/a file.so";
        assert_eq!(mapping(line), Some(((31, 10), "/usr/lib/a file.so")));
        assert_eq!(mapping("7ffc0000-7ffd0000 rw-p 00000000 00:00 0"), None);
    }

    #[test]
    fn a_kernel_thread_is_told_from_a_process_by_its_flags_whatever_its_name_holds() {
        assert!(is_kernel_thread("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0"));
        assert!(is_kernel_thread("9 (odd) S name) S 2 0 0 0 -1 69238880 0 0"));
        assert!(!is_kernel_thread("1 (s6-svscan) S 0 1 1 0 -1 4194560 0 0"));
        assert!(!is_kernel_thread(""));
    }

    #[test]
    fn nodes_are_understood_by_name_where_their_numbers_cannot_be_had() {
        assert_eq!(node_name("/dev/mtd3"), Some(3));
        assert_eq!(node_name("/dev/mtd3ro"), Some(3));
        assert_eq!(node_name("/dev/mtdblock7"), Some(7));
        assert_eq!(node_name("/dev/null"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_line_of_maps_is_too_odd_to_be_read(text in "[0-9a-f: /é-]{0,60}") {
            if let Some((_, path)) = mapping(&text) {
                proptest::prop_assert!(!path.is_empty());
            }
            let _ = node_name(&text);
        }
    }
}
