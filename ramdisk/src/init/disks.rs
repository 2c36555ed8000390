//! Writing back and unmounting at the end.
//!
//! What cannot be unmounted becomes read-only, so that nothing is left half written. All of it runs in a child with a
//! limit: a stuck device would otherwise keep PID 1 from its reboot.

use std::fs;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::sys::process::run_in_child;

/// The limit for writing back and unmounting together.
const LIMIT: Duration = Duration::from_secs(10);

/// File systems that hold nothing that could be lost, and are still needed.
const KERNEL_TYPES: [&str; 9] =
    ["proc", "sysfs", "devtmpfs", "devpts", "tmpfs", "ramfs", "rootfs", "cgroup2", "pstore"];

/// Writes back and unmounts, the last mounted first; meanwhile `feed` is called again and again. True if it was done within
/// the limit.
pub(super) fn settle(feed: &mut dyn FnMut()) -> bool {
    run_in_child(LIMIT, feed, || {
        nix::unistd::sync();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for at in unmount_order(&table) {
            if umount2(at.as_str(), MntFlags::empty()).is_err() {
                let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                // Nothing is left to try; the sync above has written back what there was.
                let _ = mount(None::<&str>, at.as_str(), None::<&str>, flags, None::<&str>);
            }
        }
        nix::unistd::sync();
    })
}

/// The mount points that have something to lose, in the order in which they can be unmounted.
fn unmount_order(mountinfo: &str) -> Vec<String> {
    let mut points: Vec<String> = mountinfo.lines().filter_map(worth_unmounting).collect();
    points.reverse();
    points
}

fn worth_unmounting(line: &str) -> Option<String> {
    let (mount, rest) = line.split_once(" - ")?;
    let kind = rest.split(' ').next()?;
    let at = mount.split(' ').nth(4)?;
    if KERNEL_TYPES.contains(&kind) { None } else { Some(unescape(at)) }
}

/// The mount table writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mounted_goes_first_and_the_kernels_own_stay() {
        let table = "1 0 0:2 / / rw - rootfs rootfs rw\n2 1 31:4 / /persist rw - jffs2 mtd4 rw\n\
                     3 1 0:4 / /proc rw shared:1 - proc proc rw\n4 2 8:1 / /persist/usb\\040stick rw - vfat sda1 rw\n";
        assert_eq!(unmount_order(table), ["/persist/usb stick", "/persist"]);
    }
}
