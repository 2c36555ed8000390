//! The watchdog device's requests, from the kernel's `include/uapi/linux/watchdog.h`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use thiserror::Error;

/// `WDIOF_MAGICCLOSE`: writing `V` before closing stops the timer.
const MAGIC_CLOSE: u32 = 0x0100;

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

mod requests {
    use super::Info;

    nix::ioctl_read!(support, b'W', 0, Info);
    nix::ioctl_read!(keep_alive, b'W', 5, i32);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, i32);
    nix::ioctl_read!(timeout, b'W', 7, i32);
}

/// A watchdog that cannot be used.
#[derive(Debug, Error)]
pub(crate) enum WatchdogError {
    /// The number that was handed over is not an open descriptor.
    #[error("descriptor {fd} was handed over as the watchdog, but it is not open")]
    NotOpen {
        /// The number.
        fd: RawFd,
        /// What the kernel said.
        source: Errno,
    },
    /// It is open, and something else.
    #[error("descriptor {fd} was handed over as the watchdog, but it is none")]
    NoWatchdog {
        /// The number.
        fd: RawFd,
        /// What the kernel said.
        source: Errno,
    },
    /// The driver does not do it.
    #[error("cannot {what} the watchdog")]
    Request {
        /// What was attempted.
        what: &'static str,
        /// What the kernel said.
        source: Errno,
    },
}

/// An open watchdog device. Dropping it closes it, which leaves it armed.
#[derive(Debug)]
pub(crate) struct Device(File);

impl Device {
    /// Takes over the descriptor `fd`, which nothing else may own, and keeps it from children. One that is no watchdog is
    /// left as it is.
    ///
    /// # Errors
    /// [`WatchdogError::NotOpen`] and [`WatchdogError::NoWatchdog`].
    #[allow(unsafe_code)]
    pub(crate) fn from_inherited(fd: RawFd) -> Result<Self, WatchdogError> {
        // SAFETY: F_GETFD works on any number and says whether it is open.
        if fd < 3 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            return Err(WatchdogError::NotOpen { fd, source: Errno::EBADF });
        }
        let mut info = Info::default();
        // SAFETY: the descriptor is open; the request writes one watchdog_info, to a live one of its layout. A file that
        // is no watchdog refuses a request of this letter.
        unsafe { requests::support(fd, &mut info) }
            .map_err(|source| WatchdogError::NoWatchdog { fd, source })?;
        // SAFETY: it is open, was inherited for this purpose, and nothing else in this process knows it.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
            .map_err(|source| WatchdogError::NotOpen { fd, source })?;
        Ok(Self(File::from(owned)))
    }

    /// Restarts the timer.
    ///
    /// # Errors
    /// If it is no watchdog.
    #[allow(unsafe_code)]
    pub(crate) fn feed(&self) -> Result<(), WatchdogError> {
        let mut unused = 0;
        // SAFETY: the descriptor is open; the request writes one int at most, to a live one.
        unsafe { requests::keep_alive(self.0.as_raw_fd(), &mut unused) }
            .map(drop)
            .map_err(|source| WatchdogError::Request { what: "feed", source })
    }

    /// The timeout in seconds.
    ///
    /// # Errors
    /// If the driver does not tell.
    #[allow(unsafe_code)]
    pub(crate) fn timeout(&self) -> Result<u32, WatchdogError> {
        let mut seconds = 0;
        // SAFETY: the descriptor is open; the request writes one int, to a live one.
        unsafe { requests::timeout(self.0.as_raw_fd(), &mut seconds) }
            .map(|_| u32::try_from(seconds).unwrap_or(0))
            .map_err(|source| WatchdogError::Request { what: "ask the timeout of", source })
    }

    /// Sets the timeout; the answer is what the driver made of it, in seconds.
    ///
    /// # Errors
    /// If the driver cannot.
    #[allow(unsafe_code)]
    pub(crate) fn set_timeout(&self, seconds: u32) -> Result<u32, WatchdogError> {
        let mut seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
        // SAFETY: the descriptor is open; the request reads and writes one int, a live one.
        unsafe { requests::set_timeout(self.0.as_raw_fd(), &mut seconds) }
            .map(|_| u32::try_from(seconds).unwrap_or(0))
            .map_err(|source| WatchdogError::Request { what: "set the timeout of", source })
    }

    /// Lets the next program in this process have it: answers the descriptor's number.
    pub(crate) fn outlive_exec(&self) -> std::io::Result<RawFd> {
        fcntl(&self.0, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(self.0.as_raw_fd())
    }

    /// Closes it so that it stops, if the driver knows the magic close; otherwise closes it armed.
    #[allow(unsafe_code)]
    pub(crate) fn magic_close(mut self) {
        let mut info = Info::default();
        // SAFETY: the descriptor is open; the request writes one watchdog_info, to a live one of its layout.
        let known = unsafe { requests::support(self.0.as_raw_fd(), &mut info) };
        if known.is_ok() && info.options & MAGIC_CLOSE != 0 {
            let _: io::Result<()> = self.0.write_all(b"V");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_is_no_watchdog_is_told() {
        let null = File::open("/dev/null").unwrap();
        let fd = null.as_raw_fd();
        let error = Device::from_inherited(fd).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("descriptor {fd} was handed over as the watchdog, but it is none")
        );
        assert!(null.metadata().is_ok(), "it was closed");
        let error = Device::from_inherited(987).unwrap_err();
        assert_eq!(error.to_string(), "descriptor 987 was handed over as the watchdog, but it is not open");
    }
}
