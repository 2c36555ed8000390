//! Writing back and unmounting at the end.
//!
//! What cannot be unmounted becomes read-only, so that nothing is left half written. All of it runs in a child with a
//! limit: a stuck device would otherwise keep PID 1 from its reboot.

use std::path::PathBuf;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::mount_table::{self, Mount};
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
        for at in unmount_order(mount_table::read().unwrap_or_default()) {
            if umount2(&at, MntFlags::empty()).is_err() {
                let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                // Nothing is left to try; the sync above has written back what there was.
                let _ = mount(None::<&str>, &at, None::<&str>, flags, None::<&str>);
            }
        }
        nix::unistd::sync();
    })
}

/// The mount points that have something to lose, in the order in which they can be unmounted.
fn unmount_order(mounts: Vec<Mount>) -> Vec<PathBuf> {
    let is_worth_it = |mount: &Mount| !KERNEL_TYPES.contains(&mount.fstype.as_str());
    mounts.into_iter().rev().filter(is_worth_it).map(|mount| mount.point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mounted_goes_first_and_the_kernels_own_stay() {
        let table = b"1 0 0:2 / / rw - rootfs rootfs rw\n2 1 31:4 / /persist rw - jffs2 mtd4 rw\n\
                     3 1 0:4 / /proc rw shared:1 - proc proc rw\n4 2 8:1 / /persist/usb\\040stick rw - vfat sda1 rw\n";
        assert_eq!(
            unmount_order(mount_table::parse(table)),
            ["/persist/usb stick", "/persist"].map(PathBuf::from)
        );
    }
}
