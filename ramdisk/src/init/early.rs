//! What has to be there before the first service: the kernel's file systems and a few settings.
//!
//! After a hand-over most of it is there already (/proc, /sys and /dev were moved in), as the first process of an
//! initramfs nothing is: "already so" is success, and a failure is told and lived with.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use thiserror::Error;

use crate::mount_table;

/// A file system that PID 1 mounts, if nothing is mounted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The type.
    pub kind: &'static str,
    /// Where.
    pub at: &'static str,
    /// `mount -o`'s part that is the kernel's flags.
    pub flags: MsFlags,
    /// The part that is the file system's own.
    pub data: &'static str,
}

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// The table, in order.
pub const MOUNTS: [Mount; 6] = [
    Mount { kind: "proc", at: "/proc", flags: SAFE, data: "" },
    Mount { kind: "sysfs", at: "/sys", flags: SAFE, data: "" },
    Mount { kind: "devtmpfs", at: "/dev", flags: MsFlags::MS_NOSUID, data: "mode=0755" },
    Mount {
        kind: "devpts",
        at: "/dev/pts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        data: "gid=5,mode=620,ptmxmode=666",
    },
    Mount {
        kind: "tmpfs",
        at: "/dev/shm",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        data: "mode=1777",
    },
    Mount {
        kind: "tmpfs",
        at: "/run",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        data: "mode=0755",
    },
];

/// Names in /dev that programs expect and the kernel does not make.
const DEV_LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// Something early that did not work.
#[derive(Debug, Error)]
pub enum EarlyError {
    /// A mount.
    #[error("cannot mount {kind} on {at}")]
    Mount {
        /// The type.
        kind: &'static str,
        /// Where.
        at: &'static str,
        /// What the kernel said.
        source: Errno,
    },
    /// A directory, link or setting.
    #[error("cannot set up {path}")]
    File {
        /// Which.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The host name.
    #[error("cannot set the host name to {name:?}")]
    HostName {
        /// The name.
        name: String,
        /// What the kernel said.
        source: Errno,
    },
}

/// Mounts what is missing of [`MOUNTS`] and makes the links. The answer is what did not work.
pub fn mount_all() -> Vec<EarlyError> {
    let mut errors: Vec<EarlyError> = MOUNTS.iter().filter_map(|entry| mount_one(entry).err()).collect();
    for (path, to) in DEV_LINKS {
        match symlink(to, path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                errors.push(EarlyError::File { path, source });
            }
            _ => {}
        }
    }
    errors
}

fn mount_one(entry: &Mount) -> Result<(), EarlyError> {
    let is_there = match entry.at {
        "/proc" => Path::new("/proc/self/stat").exists(),
        // A folder of a root in RAM is as good as a tmpfs of its own, and what the hand-over left in it stays.
        "/run" => statfs("/run").is_ok_and(|fs| is_ram(fs.filesystem_type())),
        at => mount_table::has(at),
    };
    if is_there {
        return Ok(());
    }
    if let Err(source) = fs::create_dir_all(entry.at) {
        return Err(EarlyError::File { path: entry.at, source });
    }
    let data = Some(entry.data).filter(|data| !data.is_empty());
    match mount(Some(entry.kind), entry.at, Some(entry.kind), entry.flags, data) {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(source) => Err(EarlyError::Mount { kind: entry.kind, at: entry.at, source }),
    }
}

/// `RAMFS_MAGIC` of the kernel's `include/uapi/linux/magic.h`: an initramfs's root without tmpfs.
const RAMFS: i128 = 0x8584_58f6;

fn is_ram(kind: FsType) -> bool {
    // The field is signed or not and of either width, depending on processor and C library.
    kind == TMPFS_MAGIC || i128::from(kind.0) & 0xffff_ffff == RAMFS
}

/// True in a pid namespace of its own: the machine's settings are then somebody else's. The number is the kernel's
/// `PROC_PID_INIT_INO`; a kernel without such namespaces has no such link.
#[must_use]
pub fn is_contained() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link != Path::new("pid:[4026531836]"))
}

/// Makes a panicking kernel reset the board after 10 s where it would stop for ever: nobody is there to press a button.
pub fn reset_on_panic() -> Result<(), EarlyError> {
    let path = "/proc/sys/kernel/panic";
    match fs::read_to_string(path) {
        Ok(text) if text.trim() == "0" => {
            fs::write(path, "10").map_err(|source| EarlyError::File { path, source })
        }
        _ => Ok(()),
    }
}

/// Sets the host name to `name`, or to what `file` says if there is none.
///
/// # Errors
/// What the kernel said. No name at all is no error.
pub fn set_host_name(name: Option<&str>, file: &Path) -> Result<(), EarlyError> {
    let from_file = fs::read_to_string(file).unwrap_or_default();
    let name = name.unwrap_or(from_file.trim());
    if name.is_empty() {
        return Ok(());
    }
    nix::unistd::sethostname(name).map_err(|source| EarlyError::HostName { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_mounted_before_what_lies_in_them() {
        for (n, entry) in MOUNTS.iter().enumerate() {
            for later in &MOUNTS[n + 1..] {
                assert!(!entry.at.starts_with(&format!("{}/", later.at)), "{entry:?}");
            }
        }
    }
}
