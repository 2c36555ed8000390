//! Who uses flash, and how it is told.

use std::fmt;

/// A process, as a message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// The kernel's short name of it.
    pub comm: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.comm)
    }
}

/// One way in which flash is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// A file system on it is mounted.
    Mount {
        /// Where, as the process that sees it sees it.
        mount_point: String,
        /// The file system's type.
        fs_type: String,
        /// A process in whose mount namespace it is, if it is not this process's.
        elsewhere: Option<Holder>,
    },
    /// It is swapped to.
    Swap,
    /// A loop device lies on it.
    Loop {
        /// The loop device's name.
        device: String,
    },
    /// UBI is attached to it.
    Ubi {
        /// The UBI device's name.
        device: String,
    },
    /// A kernel thread works for a file system or for UBI on it.
    Thread(
        /// The thread.
        Holder,
    ),
    /// A process has it open.
    Open {
        /// The process.
        holder: Holder,
        /// The device node.
        node: String,
    },
    /// A process runs from a file system on it, or stands in it.
    Process {
        /// The process.
        holder: Holder,
        /// What lies there: `runs a program from it`, `maps FILE`, and so on.
        what: String,
    },
    /// The hand-over into this system could not let go of it.
    Stayed {
        /// Where the old system had it mounted, or the device.
        path: String,
        /// The file system's type; `ubi` for a UBI device.
        fs_type: String,
        /// What the hand-over knew of the reason.
        reason: String,
    },
    /// The kernel says that its block device is in use, though no table shows by whom (a file system that was
    /// unmounted lazily, for one).
    Busy,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { mount_point, fs_type, elsewhere: None } => {
                write!(f, "mounted at {mount_point} ({fs_type})")
            }
            Self::Mount { mount_point, fs_type, elsewhere: Some(holder) } => {
                write!(f, "mounted at {mount_point} ({fs_type}) in the mount namespace of {holder}")
            }
            Self::Swap => f.write_str("used as swap"),
            Self::Loop { device } => write!(f, "under the loop device {device}"),
            Self::Ubi { device } => write!(f, "attached to UBI as {device}"),
            Self::Thread(holder) => write!(f, "served by the kernel thread {} ({})", holder.comm, holder.pid),
            Self::Open { holder, node } => write!(f, "{holder} has {node} open"),
            Self::Process { holder, what } => write!(f, "{holder} {what}"),
            Self::Stayed { path, fs_type, reason } => {
                write!(f, "{path} ({fs_type}) of the old system could not be let go of ({reason})")
            }
            Self::Busy => f.write_str("held by the kernel (its block device cannot be opened exclusively)"),
        }
    }
}

/// One live user of one MTD. Prints as one line: `mtd3 "rootfs": mounted at / (squashfs)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// N of mtdN.
    pub mtd: u32,
    /// The partition's name.
    pub name: String,
    /// How it is used.
    pub how: Use,
}

impl User {
    /// `mtd3 "rootfs"`.
    #[must_use]
    pub fn partition(&self) -> String {
        format!("mtd{} \"{}\"", self.mtd, self.name)
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.partition(), self.how)
    }
}
