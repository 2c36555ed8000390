//! The requests of `<mtd/ubi-user.h>`.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// `UBI_MAX_VOLUME_NAME`
pub(crate) const MAX_NAME: usize = 127;

/// `struct ubi_mkvol_req`, which is packed; as bytes, because `bytes` lies where nothing needs padding anyway.
#[repr(C)]
struct MakeVolume {
    number: i32,
    alignment: i32,
    bytes: i64,
    kind: i8,
    flags: u8,
    name_length: i16,
    padding: [i8; 4],
    name: [u8; MAX_NAME + 1],
}

/// `struct ubi_rnvol_req`'s entries.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rename {
    number: i32,
    name_length: i16,
    padding: [i8; 2],
    name: [u8; MAX_NAME + 1],
}

/// `UBI_MAX_RNVOL`
const MAX_RENAMES: usize = 32;

/// `struct ubi_rnvol_req`
#[repr(C)]
struct RenameVolumes {
    count: i32,
    padding: [i8; 12],
    entries: [Rename; MAX_RENAMES],
}

/// `struct ubi_rsvol_req`, which is packed.
#[repr(C, packed)]
struct ResizeVolume {
    bytes: i64,
    number: i32,
}

/// `UBI_VOL_NUM_AUTO`
const ANY_NUMBER: i32 = -1;

/// The numbers of `enum ubi_volume_type` in the user's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dynamic = 3,
    Static = 4,
}

mod request {
    use super::{MakeVolume, RenameVolumes, ResizeVolume};

    nix::ioctl_write_ptr!(make, b'o', 0, MakeVolume);
    nix::ioctl_write_ptr!(remove, b'o', 1, i32);
    nix::ioctl_write_ptr!(resize, b'o', 2, ResizeVolume);
    nix::ioctl_write_ptr!(rename, b'o', 3, RenameVolumes);
    nix::ioctl_write_ptr!(update, b'O', 0, i64);
}

fn name_field(name: &str) -> nix::Result<([u8; MAX_NAME + 1], i16)> {
    let mut field = [0; MAX_NAME + 1];
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_NAME {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok((field, i16::try_from(bytes.len()).map_err(|_| Errno::ENAMETOOLONG)?))
}

/// UBI_IOCMKVOL: makes a volume of the next free number. `ubi` is the UBI device's node.
#[allow(unsafe_code)]
pub(crate) fn make(ubi: &File, name: &str, bytes: u64, alignment: u64, kind: Kind) -> nix::Result<()> {
    let (name, name_length) = name_field(name)?;
    let bytes = i64::try_from(bytes).map_err(|_| Errno::EOVERFLOW)?;
    let info = MakeVolume {
        number: ANY_NUMBER,
        alignment: i32::try_from(alignment).map_err(|_| Errno::EOVERFLOW)?,
        bytes,
        kind: kind as i8,
        flags: 0,
        name_length,
        padding: [0; 4],
        name,
    };
    // SAFETY: the descriptor is open, and `info` is a live structure of the kernel's layout; the kernel reads it, and
    // writes no more of it back than the number.
    unsafe { request::make(ubi.as_raw_fd(), &raw const info) }.map(drop)
}

/// UBI_IOCRMVOL: `EBUSY` if somebody has it open.
#[allow(unsafe_code)]
pub(crate) fn remove(ubi: &File, number: u32) -> nix::Result<()> {
    let number = i32::try_from(number).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open, and `number` is a live integer that the kernel only reads.
    unsafe { request::remove(ubi.as_raw_fd(), &raw const number) }.map(drop)
}

/// UBI_IOCRSVOL to the size that the volume has: the kernel opens it exclusively for that, and changes nothing. `EBUSY` if
/// anybody has it open, a UBIFS that only reads as well. `ubi` is the UBI device's node, `bytes` the volume's whole size.
#[allow(unsafe_code)]
pub(crate) fn open_exclusively(ubi: &File, number: u32, bytes: u64) -> nix::Result<()> {
    let number = i32::try_from(number).map_err(|_| Errno::EINVAL)?;
    let request = ResizeVolume { bytes: i64::try_from(bytes).map_err(|_| Errno::EOVERFLOW)?, number };
    // SAFETY: the descriptor is open, and `request` is a live structure of the kernel's layout that it only reads.
    unsafe { request::resize(ubi.as_raw_fd(), &raw const request) }.map(drop)
}

/// UBI_IOCRNVOL: gives all the volumes their new names at once; after a power cut either all have them or none.
#[allow(unsafe_code)]
pub(crate) fn rename(ubi: &File, names: &[(u32, &str)]) -> nix::Result<()> {
    let empty = Rename { number: 0, name_length: 0, padding: [0; 2], name: [0; MAX_NAME + 1] };
    let mut info = RenameVolumes { count: 0, padding: [0; 12], entries: [empty; MAX_RENAMES] };
    info.count = i32::try_from(names.len()).map_err(|_| Errno::EINVAL)?;
    for (entry, (number, name)) in info.entries.iter_mut().zip(names) {
        let (name, name_length) = name_field(name)?;
        let number = i32::try_from(*number).map_err(|_| Errno::EINVAL)?;
        *entry = Rename { number, name_length, padding: [0; 2], name };
    }
    // SAFETY: the descriptor is open, and `info` is a live structure of the kernel's layout that it only reads.
    unsafe { request::rename(ubi.as_raw_fd(), &raw const info) }.map(drop)
}

/// UBI_IOCVOLUP: from here on the volume's contents are void, until `bytes` bytes are written. `EBUSY` if somebody
/// else has the volume open.
#[allow(unsafe_code)]
pub(crate) fn update(volume: &File, bytes: u64) -> nix::Result<()> {
    let bytes = i64::try_from(bytes).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the descriptor is open, and `bytes` is a live integer that the kernel only reads.
    unsafe { request::update(volume.as_raw_fd(), &raw const bytes) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<MakeVolume>(), 152);
        assert_eq!(size_of::<Rename>(), 136);
        assert_eq!(size_of::<ResizeVolume>(), 12);
        assert_eq!(size_of::<RenameVolumes>(), 4368);
        assert_eq!(std::mem::offset_of!(MakeVolume, name), 24);
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        assert_eq!(name_field(&"x".repeat(128)), Err(Errno::ENAMETOOLONG));
        assert_eq!(name_field("ab").unwrap().1, 2);
    }
}
