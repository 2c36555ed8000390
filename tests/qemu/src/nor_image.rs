//! The layout of the emulated device's NOR chip, and images of it as files.
//!
//! U-Boot lies in a bank of its own (pflash0, 64 MiB, not written). The NOR of this file is pflash1. The kernel
//! concatenates both into one MTD device, `0.flash`, so every offset on its command line counts from pflash0.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use crate::suite::Failure;

/// Bytes of one bank of QEMU's `virt` board; there are two.
pub(crate) const BANK: u64 = 64 << 20;
/// Bytes of an erase block, as QEMU emulates it.
pub(crate) const ERASE_BLOCK: u64 = 256 << 10;

/// A named range of the NOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    /// As `/proc/mtd` names it.
    pub(crate) name: &'static str,
    /// Bytes from the start of the NOR (not of the concatenated device).
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) size: u64,
}

impl Partition {
    /// The bytes of the NOR file that this partition is.
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.size
    }
}

/// The U-Boot environment: one erase block at the start, where U-Boot looks for it.
pub(crate) const ENV: Partition = Partition { name: "env", offset: 0, size: ERASE_BLOCK };
/// What one `firmware.bin` fills; it overlaps the next two, as in the manual's /proc/mtd.
pub(crate) const FIRMWARE: Partition = Partition { name: "firmware", offset: ERASE_BLOCK, size: 16 << 20 };
/// The FIT image.
pub(crate) const KERNEL: Partition = Partition { name: "kernel", offset: ERASE_BLOCK, size: 4 << 20 };
/// The squashfs.
pub(crate) const ROOTFS: Partition =
    Partition { name: "rootfs", offset: ERASE_BLOCK + (4 << 20), size: 12 << 20 };
/// The jffs2 that is mounted at /persist.
pub(crate) const DATA: Partition =
    Partition { name: "data", offset: ERASE_BLOCK + (16 << 20), size: 16 << 20 };

/// Every partition, in the order of their MTD numbers; number 0 is the bank that holds U-Boot.
pub(crate) const LAYOUT: [Partition; 5] = [ENV, FIRMWARE, KERNEL, ROOTFS, DATA];

/// The kernel's `mtdparts=` for [`LAYOUT`].
pub(crate) fn mtdparts() -> String {
    let parts: Vec<String> = LAYOUT
        .iter()
        .map(|p| format!("{}k@{}k({})", p.size >> 10, (BANK + p.offset) >> 10, p.name))
        .collect();
    format!("mtdparts=0.flash:{}k(boot0)ro,{}", BANK >> 10, parts.join(","))
}

/// The number N of /dev/mtdN that `partition` gets by [`mtdparts`].
pub(crate) fn mtd_number(partition: &Partition) -> usize {
    LAYOUT.iter().position(|p| p == partition).map_or(0, |n| n + 1)
}

/// A blank chip with `contents` in it, written to `path`.
pub(crate) fn create(path: &Path, contents: &[(&Partition, &Path)]) -> Result<(), Failure> {
    let mut nor = vec![0xff; usize::try_from(BANK).map_err(Failure::harness)?];
    for (partition, file) in contents {
        let bytes = std::fs::read(file).map_err(|e| Failure::file("read", file, e))?;
        let start = usize::try_from(partition.offset).map_err(Failure::harness)?;
        if bytes.len() as u64 > partition.size {
            return Err(Failure::harness(format!(
                "{} has {} bytes, more than the {} of partition {}",
                file.display(),
                bytes.len(),
                partition.size,
                partition.name
            )));
        }
        nor[start..start + bytes.len()].copy_from_slice(&bytes);
    }
    std::fs::write(path, nor).map_err(|e| Failure::file("write", path, e))
}

/// The bytes of `range` of the NOR file.
pub(crate) fn read(path: &Path, range: Range<u64>) -> Result<Vec<u8>, Failure> {
    let mut file = File::open(path).map_err(|e| Failure::file("open", path, e))?;
    file.seek(SeekFrom::Start(range.start)).map_err(|e| Failure::file("seek in", path, e))?;
    let mut bytes = Vec::new();
    file.take(range.end - range.start).read_to_end(&mut bytes).map_err(|e| Failure::file("read", path, e))?;
    Ok(bytes)
}

/// A copy of the whole chip at one moment, to hold later states against.
pub(crate) struct Snapshot(Vec<u8>);

impl Snapshot {
    /// Reads the NOR file; QEMU writes through to it, so this may be done while the machine runs.
    pub(crate) fn take(nor: &Path) -> Result<Self, Failure> {
        Ok(Self(read(nor, 0..BANK)?))
    }

    /// The bytes of one partition.
    pub(crate) fn partition(&self, partition: &Partition) -> &[u8] {
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        self.0.get(at(partition.offset)..at(partition.range().end)).unwrap_or(&[])
    }

    /// Fails, with the first offset that differs, unless each of `partitions` is the same in both.
    pub(crate) fn same(&self, later: &Self, partitions: &[Partition], when: &str) -> Result<(), Failure> {
        for partition in partitions {
            let (before, after) = (self.partition(partition), later.partition(partition));
            if let Some(at) = before.iter().zip(after).position(|(a, b)| a != b) {
                return Err(Failure::test(format!(
                    "{when}: partition {} changed, first at offset {at:#x}",
                    partition.name
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_overlaps_kernel_and_rootfs_exactly() {
        assert_eq!(FIRMWARE.offset, KERNEL.offset);
        assert_eq!(KERNEL.range().end, ROOTFS.offset);
        assert_eq!(FIRMWARE.range().end, ROOTFS.range().end);
        assert_eq!(FIRMWARE.range().end, DATA.offset);
        assert!(LAYOUT.iter().all(|p| p.offset % ERASE_BLOCK == 0 && p.size % ERASE_BLOCK == 0));
    }

    #[test]
    fn mtdparts_counts_from_the_first_bank() {
        assert_eq!(
            mtdparts(),
            "mtdparts=0.flash:65536k(boot0)ro,256k@65536k(env),16384k@65792k(firmware),4096k@65792k(kernel),\
             12288k@69888k(rootfs),16384k@82176k(data)"
        );
        assert_eq!(mtd_number(&ROOTFS), 4);
    }
}
