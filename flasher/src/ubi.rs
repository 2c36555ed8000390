//! UBI volumes as a target: another kind of thing than a partition. UBI moves and skips blocks itself, so there is
//! no erase, no head and no diff; there is an update, which voids the volume first, and a swap of names, which is
//! atomic.

use std::fmt;
use std::io;

use crate::error::Error;
use crate::target::ubi::{Named, UbiDevice, UbiVolume};

mod run;
mod stream;
mod system;
mod work;

pub(crate) use run::run_locked;
pub use run::{VolumeJob, run};
pub use stream::run as run_stream;
pub use system::SystemVolumes;
pub(crate) use work::record;

/// What failed on a UBI device.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {on}: {source}")]
pub struct UbiError {
    /// What was attempted: `read`, `update`, ...
    pub what: &'static str,
    /// On which volume or device.
    pub on: String,
    /// What the system said.
    pub source: io::Error,
}

impl UbiError {
    /// Whether the bytes themselves are at fault: flash that ECC cannot correct, a check sum that is wrong, an update
    /// that was cut off.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        use nix::libc::{EBADF, EBADMSG, EIO};
        self.source.raw_os_error().is_some_and(|errno| [EBADF, EBADMSG, EIO].contains(&errno))
    }
}

/// The volumes of a UBI device, behind a seam.
///
/// On power loss an update leaves its volume void (its contents cannot be read until it is updated anew); making,
/// renaming and removing happen wholly or not at all.
pub trait Volumes {
    /// The device and its volumes as they are now.
    ///
    /// # Errors
    /// [`UbiError`] if it is gone.
    fn device(&mut self) -> Result<UbiDevice, UbiError>;

    /// Keeps everybody else from writing a volume and from mounting it writable, until it is updated, renamed or removed
    /// here. The volume is not changed.
    ///
    /// # Errors
    /// [`UbiError`], with `EBUSY` if somebody has it open, if only to read.
    fn claim(&mut self, volume: &UbiVolume) -> Result<(), UbiError>;

    /// Makes an empty volume of the kind, size and alignment of another.
    ///
    /// # Errors
    /// [`UbiError`]; nothing was made.
    fn make(&mut self, name: &str, like: &UbiVolume) -> Result<(), UbiError>;

    /// Voids a volume and takes `bytes` bytes for it, in pieces, by [`Volumes::write`].
    ///
    /// # Errors
    /// [`UbiError`], with `EBUSY` if somebody has it open; the volume is untouched then.
    fn update(&mut self, volume: &UbiVolume, bytes: u64) -> Result<(), UbiError>;

    /// The next bytes of the update that was begun. With the last of them the volume is valid.
    ///
    /// # Errors
    /// [`UbiError`]; the volume is void.
    fn write(&mut self, bytes: &[u8]) -> Result<(), UbiError>;

    /// Fills `buf` from `offset` of a volume.
    ///
    /// # Errors
    /// [`UbiError`].
    fn read(&mut self, volume: &UbiVolume, offset: u64, buf: &mut [u8]) -> Result<(), UbiError>;

    /// Gives each of two volumes the other's name, at once.
    ///
    /// # Errors
    /// [`UbiError`]; the names are as they were.
    fn swap(&mut self, one: &UbiVolume, other: &UbiVolume) -> Result<(), UbiError>;

    /// Removes a volume.
    ///
    /// # Errors
    /// [`UbiError`], with `EBUSY` if somebody has it open.
    fn remove(&mut self, volume: &UbiVolume) -> Result<(), UbiError>;
}

/// How an image gets into a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Into a new volume of this name, which is read back and then swaps names with the old one. A power cut at any
    /// point leaves the whole old image or the whole new one under the name.
    Swap {
        /// The new volume's name while it is written.
        beside: String,
    },
    /// Over the old contents. *Not* atomic: a power cut leaves a void volume, and a second run completes it.
    InPlace {
        /// Why not beside it.
        why: &'static str,
    },
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Swap { beside } => write!(f, "by way of {beside} and a swap of names"),
            Self::InPlace { why } => write!(f, "in place, which is not atomic ({why})"),
        }
    }
}

/// The name of the volume beside `name`: one that nobody else gives, because what a run that was cut off has left there
/// is removed, and power that is lost takes the record along.
#[must_use]
pub fn beside(name: &str) -> String {
    format!("{name}.flashcp")
}

/// Whether a volume of the name [`beside`] can be what a run over `volume` has left there: it is made like that one, and
/// takes its place. One whose update was cut off holds nothing that could be lost.
fn is_left(volume: &UbiVolume, beside: &UbiVolume) -> bool {
    let like = |volume: &UbiVolume| (volume.kind, volume.blocks, volume.alignment);
    beside.torn || like(volume) == like(beside)
}

/// The safest way that there is room for.
///
/// # Errors
/// [`Error::VolumeInTheWay`].
pub fn way(device: &UbiDevice, volume: &UbiVolume, named: Named) -> Result<Way, Error> {
    let beside = beside(&volume.name);
    let there = device.volumes.iter().find(|other| other.name == beside);
    if let (Named::ByName, Some(other)) = (named, there.filter(|other| !is_left(volume, other))) {
        return Err(Error::VolumeInTheWay {
            target: volume.to_string(),
            other: other.to_string(),
            shapes: Box::new((volume.shape(), other.shape())),
        });
    }
    // What an earlier run left is removed first.
    let left = there.map_or(0, |other| other.blocks);
    Ok(match named {
        Named::ByNumber => Way::InPlace { why: "it is named by its number, and a new volume has another" },
        Named::ByName if beside.len() > crate::sys::ubi::MAX_NAME => {
            Way::InPlace { why: "its name leaves no room for `.flashcp`" }
        }
        Named::ByName if device.free_blocks.saturating_add(left) < volume.blocks => {
            Way::InPlace { why: "there is no room for a second volume of its size" }
        }
        Named::ByName => Way::Swap { beside },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::ubi::VolumeKind;

    #[test]
    fn bytes_that_are_at_fault_are_told_from_a_device_that_is() {
        let error = |errno| UbiError {
            what: "read",
            on: "ubi0_1".to_owned(),
            source: io::Error::from_raw_os_error(errno),
        };
        for errno in [nix::libc::EIO, nix::libc::EBADMSG, nix::libc::EBADF] {
            assert!(error(errno).is_unreadable());
        }
        assert!(!error(nix::libc::ENODEV).is_unreadable());
    }

    #[test]
    fn a_volume_is_written_beside_the_old_one_where_there_is_room() {
        let volume = |number, name: &str, blocks| UbiVolume {
            ubi: 0,
            number,
            name: name.to_owned(),
            kind: VolumeKind::Dynamic,
            blocks,
            block_size: 100,
            data_bytes: blocks * 100,
            alignment: 1,
            torn: false,
        };
        let device = |free_blocks, volumes| UbiDevice { number: 0, free_blocks, volumes };
        let rootfs = volume(1, "rootfs", 10);
        let swap = Way::Swap { beside: "rootfs.flashcp".to_owned() };
        assert_eq!(way(&device(10, vec![rootfs.clone()]), &rootfs, Named::ByName).unwrap(), swap);
        let full = device(9, vec![rootfs.clone()]);
        assert!(
            matches!(way(&full, &rootfs, Named::ByName).unwrap(), Way::InPlace { why } if why.contains("room"))
        );
        assert_eq!(swap.to_string(), "by way of rootfs.flashcp and a swap of names");
        assert_eq!(
            way(&full, &rootfs, Named::ByName).unwrap().to_string(),
            "in place, which is not atomic (there is no room for a second volume of its size)"
        );
        // What a run that was cut off has left makes room.
        let left = device(0, vec![rootfs.clone(), volume(2, "rootfs.flashcp", 10)]);
        assert_eq!(way(&left, &rootfs, Named::ByName).unwrap(), swap);
        let by_number = way(&device(10, Vec::new()), &rootfs, Named::ByNumber).unwrap();
        assert!(matches!(by_number, Way::InPlace { why } if why.contains("number")));
        let long = volume(1, &"x".repeat(125), 1);
        assert!(matches!(way(&device(10, Vec::new()), &long, Named::ByName).unwrap(), Way::InPlace { .. }));
    }
}
