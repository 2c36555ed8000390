//! The requests of `<mtd/mtd-abi.h>` and `<linux/fs.h>`. nix's macros give each request its number per processor
//! (the direction bits differ on MIPS and PowerPC).

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

/// `struct mtd_info_user`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MtdInfo {
    pub(crate) kind: u8,
    pub(crate) flags: u32,
    /// The low 32 bits of the size only.
    pub(crate) size: u32,
    pub(crate) erase_size: u32,
    pub(crate) write_size: u32,
    oob_size: u32,
    padding: u64,
}

/// `struct erase_info_user`.
#[repr(C)]
struct EraseInfo {
    start: u32,
    length: u32,
}

/// `struct erase_info_user64`.
#[repr(C)]
struct EraseInfo64 {
    start: u64,
    length: u64,
}

/// `struct region_info_user`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RegionInfo {
    pub(crate) offset: u32,
    pub(crate) erase_size: u32,
    pub(crate) blocks: u32,
    index: u32,
}

/// `struct mtd_ecc_stats`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EccStats {
    pub(crate) corrected: u32,
    pub(crate) failed: u32,
    bad_blocks: u32,
    table_blocks: u32,
}

mod request {
    use super::{EccStats, EraseInfo, EraseInfo64, MtdInfo, RegionInfo, libc};

    nix::ioctl_read!(mem_get_info, b'M', 1, MtdInfo);
    nix::ioctl_write_ptr!(mem_lock, b'M', 5, EraseInfo);
    nix::ioctl_write_ptr!(mem_unlock, b'M', 6, EraseInfo);
    nix::ioctl_read!(mem_get_region_count, b'M', 7, libc::c_int);
    nix::ioctl_readwrite!(mem_get_region_info, b'M', 8, RegionInfo);
    nix::ioctl_write_ptr!(mem_get_bad_block, b'M', 11, libc::loff_t);
    nix::ioctl_write_ptr!(mem_set_bad_block, b'M', 12, libc::loff_t);
    nix::ioctl_read!(ecc_get_stats, b'M', 18, EccStats);
    nix::ioctl_write_ptr!(mem_erase64, b'M', 20, EraseInfo64);
    nix::ioctl_read!(mem_is_locked, b'M', 23, EraseInfo);
    nix::ioctl_none!(blk_flush_buffers, 0x12, 97);
}

/// MEMGETINFO.
#[allow(unsafe_code)]
pub(crate) fn info(file: &File) -> nix::Result<MtdInfo> {
    let mut info = MtdInfo::default();
    // SAFETY: the descriptor is open, and `info` is a live structure of the kernel's layout that it fills.
    unsafe { request::mem_get_info(file.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// MEMGETREGIONCOUNT and MEMGETREGIONINFO: the erase regions; none where all blocks have one size.
#[allow(unsafe_code)]
pub(crate) fn regions(file: &File) -> nix::Result<Vec<RegionInfo>> {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open, and `count` is a live int that the kernel fills.
    match unsafe { request::mem_get_region_count(file.as_raw_fd(), &raw mut count) } {
        // A kernel that does not know the request has no such chips.
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        told => drop(told?),
    }
    let mut regions = Vec::new();
    for index in 0..u32::try_from(count).unwrap_or(0) {
        let mut region = RegionInfo { index, ..RegionInfo::default() };
        // SAFETY: the descriptor is open, and `region` is a live structure of the kernel's layout.
        unsafe { request::mem_get_region_info(file.as_raw_fd(), &raw mut region) }?;
        regions.push(region);
    }
    Ok(regions)
}

/// MEMERASE64. The call returns when the erase is complete.
#[allow(unsafe_code)]
pub(crate) fn erase(file: &File, range: &Range<u64>) -> nix::Result<()> {
    let info = EraseInfo64 { start: range.start, length: range.end - range.start };
    // SAFETY: the descriptor is open, and `info` is a live structure of the kernel's layout that it only reads.
    unsafe { request::mem_erase64(file.as_raw_fd(), &raw const info) }.map(drop)
}

/// Which lock request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// MEMISLOCKED
    Ask,
    /// MEMUNLOCK
    Off,
    /// MEMLOCK
    On,
}

/// MEMISLOCKED, MEMUNLOCK or MEMLOCK: whether the range is locked (only [`Lock::Ask`] can say true). The kernel has
/// no 64-bit form, so ranges above 4 GiB are `EOVERFLOW`.
#[allow(unsafe_code)]
pub(crate) fn lock(file: &File, what: Lock, range: &Range<u64>) -> nix::Result<bool> {
    let start = u32::try_from(range.start).map_err(|_| Errno::EOVERFLOW)?;
    let length = u32::try_from(range.end - range.start).map_err(|_| Errno::EOVERFLOW)?;
    let mut info = EraseInfo { start, length };
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is open, and `info` is a live structure of the kernel's layout in all three requests.
    let answer = unsafe {
        match what {
            Lock::Ask => request::mem_is_locked(fd, &raw mut info),
            Lock::Off => request::mem_unlock(fd, &raw const info),
            Lock::On => request::mem_lock(fd, &raw const info),
        }
    }?;
    Ok(answer > 0)
}

/// MEMGETBADBLOCK.
#[allow(unsafe_code)]
pub(crate) fn is_bad(file: &File, offset: u64) -> nix::Result<bool> {
    let offset = libc::loff_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the descriptor is open, and `offset` is a live 64-bit integer that the kernel only reads.
    Ok(unsafe { request::mem_get_bad_block(file.as_raw_fd(), &raw const offset) }? > 0)
}

/// MEMSETBADBLOCK.
#[allow(unsafe_code)]
pub(crate) fn mark_bad(file: &File, offset: u64) -> nix::Result<()> {
    let offset = libc::loff_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the descriptor is open, and `offset` is a live 64-bit integer that the kernel only reads.
    unsafe { request::mem_set_bad_block(file.as_raw_fd(), &raw const offset) }.map(drop)
}

/// ECCGETSTATS: counted since the device was registered.
#[allow(unsafe_code)]
pub(crate) fn ecc_stats(file: &File) -> nix::Result<EccStats> {
    let mut stats = EccStats::default();
    // SAFETY: the descriptor is open, and `stats` is a live structure of the kernel's layout that it fills.
    unsafe { request::ecc_get_stats(file.as_raw_fd(), &raw mut stats) }?;
    Ok(stats)
}

/// BLKFLSBUF: writes back and drops a block device's cache, so that nobody reads old bytes from it later.
#[allow(unsafe_code)]
pub(crate) fn flush_buffers(file: &File) -> nix::Result<()> {
    // SAFETY: the descriptor is open, and the request takes no argument.
    unsafe { request::blk_flush_buffers(file.as_raw_fd()) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<EraseInfo>(), 8);
        assert_eq!(size_of::<EraseInfo64>(), 16);
        assert_eq!(size_of::<RegionInfo>(), 16);
        assert_eq!(size_of::<EccStats>(), 16);
        // 24 bytes of fields and 8 of padding; i386 alone aligns 64-bit integers to 4.
        assert_eq!(size_of::<MtdInfo>(), 32);
    }
}
