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

/// Closes every descriptor above 2 but `kept`. No object of this program may own one of them.
pub(super) fn close_others(kept: Option<i32>) -> io::Result<()> {
    let kept = kept.and_then(|fd| u32::try_from(fd).ok()).filter(|fd| *fd > 2);
    let ranges = match kept {
        Some(fd) => vec![(3, fd.saturating_sub(1)), (fd.saturating_add(1), u32::MAX)],
        None => vec![(3, u32::MAX)],
    };
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        match close_range(first, last) {
            Ok(()) => {}
            // Before kernel 5.9.
            Err(Errno::ENOSYS) => return close_listed(kept),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[allow(unsafe_code)]
fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: the caller has given up every object that owns a descriptor in the range.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

#[allow(unsafe_code)]
fn close_listed(kept: Option<u32>) -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for fd in open.into_iter().filter(|fd| *fd > 2 && u32::try_from(*fd).ok() != kept) {
        // SAFETY: as above; the directory's own descriptor is closed by now, and closing it again is EBADF.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
