//! Standard input and output on the new console; everything else closed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

/// Puts 0, 1 and 2 on `dev/console`; where there is none, or none behind it, on `dev/null`; where there is no /dev at
/// all, on a console node of our own.
pub(super) fn take_console(dev: &Path) -> io::Result<()> {
    let console = open(&dev.join("console"))
        .or_else(|_| open(&dev.join("null")))
        .or_else(|_| make_console(dev).and_then(|()| open(&dev.join("console"))))?;
    dup2_stdin(console.as_fd())?;
    dup2_stdout(console.as_fd())?;
    dup2_stderr(console.as_fd())?;
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK the open itself could wait for a carrier; the descriptors then get it off again.
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).append(true).custom_flags(flags).open(path)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

fn make_console(dev: &Path) -> io::Result<()> {
    Ok(mknod(&dev.join("console"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(5, 1))?)
}

/// Closes every descriptor above 2 but those of `kept`. No object of this program may own one of them.
pub(super) fn close_others(kept: &[i32]) -> io::Result<()> {
    let kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    for (first, last) in gaps(&kept) {
        match close_range(first, last) {
            Ok(()) => {}
            // Before kernel 5.9.
            Err(Errno::ENOSYS) => return close_listed(&kept),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The ranges of numbers above 2 that lie between those of `kept`.
fn gaps(kept: &[u32]) -> Vec<(u32, u32)> {
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    let (mut gaps, mut first) = (Vec::new(), 3);
    for fd in kept.into_iter().filter(|fd| *fd > 2) {
        if fd > first {
            gaps.push((first, fd - 1));
        }
        first = first.max(fd.saturating_add(1));
    }
    gaps.push((first, u32::MAX));
    gaps
}

#[allow(unsafe_code)]
fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: the caller has given up every object that owns a descriptor in the range.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

#[allow(unsafe_code)]
fn close_listed(kept: &[u32]) -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    let goes = |fd: &i32| *fd > 2 && u32::try_from(*fd).is_ok_and(|fd| !kept.contains(&fd));
    for fd in open.into_iter().filter(goes) {
        // SAFETY: as above; the directory's own descriptor is closed by now, and closing it again is EBADF.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_closed_but_what_is_kept() {
        assert_eq!(gaps(&[]), [(3, u32::MAX)]);
        assert_eq!(gaps(&[3]), [(4, u32::MAX)]);
        assert_eq!(gaps(&[9, 4, 9, 0]), [(3, 3), (5, 8), (10, u32::MAX)]);
        assert_eq!(gaps(&[3, 4]), [(5, u32::MAX)]);
    }
}
