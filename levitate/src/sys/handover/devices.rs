//! Swap, loop and UBI devices, and the exclusive open.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::handover::mounts::unescape;
use crate::handover::seam::Attached;

/// `LOOP_CLR_FD` of the kernel's include/uapi/linux/loop.h.
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
/// `UBI_IOCDET` of the kernel's include/uapi/mtd/ubi-user.h.
const UBI_IOCDET: libc::Ioctl = nix::request_code_write!(b'o', 65, size_of::<i32>()) as libc::Ioctl;

/// An ioctl whose argument is an int, or that takes none.
#[allow(unsafe_code)]
pub(super) fn ioctl_int(fd: i32, request: libc::Ioctl, value: &mut i32) -> nix::Result<()> {
    // SAFETY: every request of this crate's that comes here reads or writes at most one int behind the pointer.
    let answer = unsafe { libc::ioctl(fd, request, std::ptr::from_mut(value)) };
    Errno::result(answer).map(drop)
}

/// The first column of /proc/swaps.
pub(super) fn swaps() -> io::Result<Vec<PathBuf>> {
    match fs::read("/proc/swaps") {
        Ok(text) => Ok(parse_swaps(&text)),
        // A kernel without swap has no such file.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn parse_swaps(text: &[u8]) -> Vec<PathBuf> {
    text.split(|b| *b == b'\n')
        .skip(1)
        .filter_map(|line| line.split(|b| b.is_ascii_whitespace()).next())
        .filter(|path| !path.is_empty())
        .map(|path| PathBuf::from(std::ffi::OsString::from_vec(unescape(path))))
        .collect()
}

/// swapoff(2).
#[allow(unsafe_code)]
pub(super) fn swapoff(path: &Path) -> nix::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the pointer is to a string that ends with a NUL and lives until the call returns.
    Errno::result(unsafe { libc::swapoff(path.as_ptr()) }).map(drop)
}

/// What sysfs shows as attached.
pub(super) fn attached() -> Vec<Attached> {
    let mut found = Vec::new();
    for (name, path) in entries("/sys/block") {
        if let Some(number) = number_after(&name, "loop")
            && let Ok(backing) = fs::read_to_string(path.join("loop/backing_file"))
        {
            found.push(Attached::Loop { number, backing: backing.trim().to_owned() });
        }
    }
    for (name, path) in entries("/sys/class/ubi") {
        // Volumes are ubi0_0, and do not parse.
        if let Some(number) = number_after(&name, "ubi") {
            let mtd = fs::read_to_string(path.join("mtd_num")).ok().and_then(|text| text.trim().parse().ok());
            found.push(Attached::Ubi { number, mtd });
        }
    }
    found
}

fn entries(directory: &str) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
}

fn number_after(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

/// Detaches it. A loop device whose file system is still mounted detaches itself when that is unmounted.
pub(super) fn detach(device: &Attached) -> nix::Result<()> {
    let open = |path: &str| File::open(path).map_err(|e| errno(&e));
    match device {
        Attached::Loop { number, .. } => {
            ioctl_int(open(&format!("/dev/loop{number}"))?.as_raw_fd(), LOOP_CLR_FD, &mut 0)
        }
        Attached::Ubi { number, .. } => {
            let mut number = i32::try_from(*number).map_err(|_| Errno::EINVAL)?;
            ioctl_int(open("/dev/ubi_ctrl")?.as_raw_fd(), UBI_IOCDET, &mut number)
        }
    }
}

/// Where a node can be made: in our own root, and where that allows no devices, among the devices.
const NODES: [&str; 2] = ["/tmp", "/dev"];

/// Opens the block device with `O_EXCL`, which without `O_CREAT` asks for exclusive use, by a node of our own: the one
/// in /dev may be missing or named otherwise. The answer is the device's; that no node could be made or opened is
/// EACCES, never an error that could be taken for one of the device's.
pub(super) fn open_exclusively(major: u32, minor: u32) -> nix::Result<()> {
    let device = makedev(u64::from(major), u64::from(minor));
    for directory in NODES {
        let node = Path::new(directory).join(format!(".levitate-{major}-{minor}"));
        // Left over from an earlier look.
        let _ = fs::remove_file(&node);
        if mknod(&node, SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), device).is_err() {
            continue;
        }
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(&node);
        let _ = fs::remove_file(&node);
        match opened {
            Ok(_) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EACCES) => {}
            Err(e) => return Err(errno(&e)),
        }
    }
    Err(Errno::EACCES)
}

/// The error number of a library error, for the exit status of a child.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swaps_are_the_first_column_with_escapes_undone() {
        let text = b"Filename\t\t\t\tType\t\tSize\n/dev/zram0                              partition\t1\n/swap\\040file file\t2\n";
        assert_eq!(parse_swaps(text), [PathBuf::from("/dev/zram0"), PathBuf::from("/swap file")]);
        assert_eq!(parse_swaps(b"Filename\n"), Vec::<PathBuf>::new());
    }

    #[test]
    fn without_the_privilege_to_ask_nothing_is_answered_for_the_device() {
        let answer = open_exclusively(31, 200);
        // who may make nodes is told that there is no such device, or that it cannot be opened from here
        let free = [Err(Errno::ENXIO), Err(Errno::ENODEV), Err(Errno::EPERM), Err(Errno::EACCES)];
        let may = nix::unistd::geteuid().is_root();
        assert!(if may { free.contains(&answer) } else { answer == Err(Errno::EACCES) }, "{answer:?}");
    }

    #[test]
    fn volumes_are_not_taken_for_devices() {
        assert_eq!(number_after("ubi0_0", "ubi"), None);
        assert_eq!(number_after("loop12", "loop"), Some(12));
    }
}
