//! What a flash device can do and how it is divided.

use std::io;
use std::ops::Range;

use nix::libc;

/// What kind of flash it is: decides what may be done to it without an erase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// NOR on a serial bus: bits can be cleared in place.
    SpiNor,
    /// NOR on a parallel bus (CFI). Some of these switch a page's ECC off, silently, when it is programmed twice
    /// (S29GL-S), so clearing in place needs leave.
    ParallelNor,
    /// NAND: pages are programmed once between erases, blocks can be bad.
    Nand,
    /// RAM that behaves like a device with erase blocks.
    Ram,
    /// Anything else that has erase blocks.
    Other,
}

/// A run of erase blocks of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Where it starts, in bytes from the device's start.
    pub offset: u64,
    /// The size of one erase block in bytes.
    pub erase_size: u64,
    /// How many erase blocks.
    pub blocks: u64,
}

/// One erase block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EraseBlock {
    /// Where it starts, in bytes from the device's start.
    pub start: u64,
    /// Its size in bytes, never 0.
    pub len: u64,
}

impl EraseBlock {
    /// The first byte behind it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Its bytes as a range of the device.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.start..self.end()
    }
}

/// How a device is divided. All sizes are in bytes and known at run time only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// What kind of flash.
    pub kind: Kind,
    /// The device's size.
    pub size: u64,
    /// The size of an erase block, the largest one where they differ.
    pub erase_size: u64,
    /// The smallest unit that can be programmed; 1 on NOR, a page on NAND.
    pub write_size: u64,
    /// Whether single bits can be cleared without an erase (the kernel's `MTD_BIT_WRITEABLE`).
    pub bit_writeable: bool,
    /// Whether the device may be written at all (the kernel's `MTD_WRITEABLE`).
    pub writeable: bool,
    /// The erase regions in ascending order where block sizes differ; empty where all are `erase_size`.
    pub regions: Vec<Region>,
}

/// Bytes are programmed in aligned units of at least this size: some chips (and emulators) cannot program single
/// bytes, and programming a byte with its own value is harmless on NOR.
pub const GRANULE: u64 = GRANULE_BYTES as u64;

pub(crate) const GRANULE_BYTES: usize = 16;

impl Geometry {
    /// The aligned unit in which this device is programmed.
    #[must_use]
    pub fn granule(&self) -> u64 {
        GRANULE.max(self.write_size)
    }

    /// Whether pages must be programmed once and in ascending order within a block, as NAND wants it.
    #[must_use]
    pub fn programs_in_order(&self) -> bool {
        self.kind == Kind::Nand
    }

    /// Whether bits can be cleared over data at all, were it only to zero a head that is about to be erased.
    #[must_use]
    pub fn clears_bits(&self) -> bool {
        self.bit_writeable && self.write_size == 1 && matches!(self.kind, Kind::SpiNor | Kind::ParallelNor)
    }

    /// What makes the sizes unusable, with numbers; `None` if they fit together. Regions must follow each other from
    /// the start without a gap.
    #[must_use]
    pub fn flaw(&self) -> Option<String> {
        if self.erase_size == 0 || self.size == 0 {
            return Some(format!("size {}, erase blocks of {} bytes", self.size, self.erase_size));
        }
        let mut end = 0_u64;
        for region in &self.regions {
            if region.offset != end || region.erase_size == 0 || region.erase_size > self.erase_size {
                return Some(format!(
                    "an erase region of {} blocks of {} bytes at {:#x}, where {end:#x} was expected",
                    region.blocks, region.erase_size, region.offset
                ));
            }
            end = end.saturating_add(region.blocks.saturating_mul(region.erase_size));
        }
        (!self.regions.is_empty() && end != self.size)
            .then(|| format!("its erase regions end at {end:#x}, and its size is {:#x}", self.size))
    }

    /// The erase block that holds the byte at `offset`; the last one for offsets behind the end.
    #[must_use]
    pub fn block_at(&self, offset: u64) -> EraseBlock {
        let region =
            self.regions.iter().rev().find(|region| region.offset <= offset && region.erase_size > 0);
        let (base, len) =
            region.map_or((0, self.erase_size.max(1)), |region| (region.offset, region.erase_size));
        EraseBlock { start: base + (offset - base) / len * len, len }
    }

    /// The erase blocks that hold `range`, ascending.
    pub fn blocks(&self, range: Range<u64>) -> impl Iterator<Item = EraseBlock> + '_ {
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let block = self.block_at(at);
            at = block.end();
            Some(block)
        })
    }

    /// The end of the erase block that holds the last byte before `end`; 0 for 0.
    #[must_use]
    pub fn round_up(&self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.block_at(end - 1).end() }
    }
}

/// What a read said about the health of the bytes it returned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadHealth {
    /// Bit flips that the device's ECC corrected, in all of its steps together; always 0 on NOR.
    pub corrected: u32,
    /// ECC steps that could not be corrected: their bytes are wrong. The kernel hands them out all the same.
    pub failed: u32,
}

/// What ECC said over a whole run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Ecc {
    /// Bit flips that were corrected.
    pub corrected: u64,
    /// ECC steps that could not be corrected.
    pub failed: u64,
    /// Blocks that held the right bytes and were rewritten for their flipped bits.
    pub refreshed: u64,
}

impl Ecc {
    /// Adds what one read said.
    pub fn add(&mut self, health: ReadHealth) {
        self.corrected += u64::from(health.corrected);
        self.failed += u64::from(health.failed);
    }
}

/// What failed on a device. Offsets are bytes from the device's start.
#[derive(Debug, thiserror::Error)]
pub enum MtdError {
    /// The device cannot do this at all (locks, mostly). Nothing was done.
    #[error("the device does not support it")]
    Unsupported,
    /// A read failed.
    #[error("cannot read {length} bytes at {offset:#x}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// How many bytes were asked for.
        length: u64,
        /// What the driver said.
        source: io::Error,
    },
    /// An erase failed; the blocks hold anything.
    #[error("cannot erase {start:#x} to {end:#x}: {source}")]
    Erase {
        /// The first byte.
        start: u64,
        /// The first byte behind it.
        end: u64,
        /// What the driver said.
        source: io::Error,
    },
    /// Programming failed; any part of the bytes may have been programmed.
    #[error("cannot program {length} bytes at {offset:#x}: {source}")]
    Program {
        /// Where.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// What the driver said.
        source: io::Error,
    },
    /// A lock could not be asked for or changed.
    #[error("cannot {what} {start:#x} to {end:#x}: {source}")]
    Lock {
        /// The operation: `ask for the lock of`, `unlock` or `lock`.
        what: &'static str,
        /// The first byte.
        start: u64,
        /// The first byte behind it.
        end: u64,
        /// What the driver said.
        source: io::Error,
    },
    /// The device could not say whether a block is bad.
    #[error("cannot ask whether the block at {offset:#x} is bad: {source}")]
    Bad {
        /// The block's start.
        offset: u64,
        /// What the driver said.
        source: io::Error,
    },
    /// A block could not be marked bad.
    #[error("cannot mark the block at {offset:#x} bad: {source}")]
    Mark {
        /// The block's start.
        offset: u64,
        /// What the driver said.
        source: io::Error,
    },
}

impl MtdError {
    /// Whether trying again may help: the chip or the bus reported a failure. What the kernel refuses (a read-only
    /// device, a range that is none) it refuses again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let (Self::Read { source, .. } | Self::Erase { source, .. } | Self::Program { source, .. }) = self
        else {
            return false;
        };
        match source.raw_os_error() {
            Some(errno) => {
                matches!(errno, libc::EIO | libc::EAGAIN | libc::ETIMEDOUT | libc::EBADMSG | libc::EUCLEAN)
            }
            // A write that ended short, and a read.
            None => matches!(source.kind(), io::ErrorKind::WriteZero | io::ErrorKind::UnexpectedEof),
        }
    }
}

/// A flash device, or one partition of it. Offsets are bytes from its start; ranges that leave it are errors.
///
/// On power loss an erase may leave its blocks in any state, a program any part of its bytes; other bytes are not
/// touched.
pub trait Mtd {
    /// How the device is divided.
    fn geometry(&self) -> &Geometry;

    /// Fills `buf` from `offset`. Bytes that ECC could not correct are no error, but told of.
    ///
    /// # Errors
    /// [`MtdError::Read`].
    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<ReadHealth, MtdError>;

    /// Erases whole erase blocks: afterwards they read 0xff. Callers keep one call to about a second's worth.
    ///
    /// # Errors
    /// [`MtdError::Erase`].
    fn erase(&mut self, range: Range<u64>) -> Result<(), MtdError>;

    /// Programs bytes; on NOR the result is the old bytes AND the new ones. `offset` and length are multiples of
    /// [`Geometry::granule`].
    ///
    /// # Errors
    /// [`MtdError::Program`].
    fn program(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MtdError>;

    /// Whether the range is locked against changes.
    ///
    /// # Errors
    /// [`MtdError::Unsupported`] where there are no locks, [`MtdError::Lock`].
    fn is_locked(&mut self, _range: Range<u64>) -> Result<bool, MtdError> {
        Err(MtdError::Unsupported)
    }

    /// Unlocks the range.
    ///
    /// # Errors
    /// [`MtdError::Unsupported`], [`MtdError::Lock`].
    fn unlock(&mut self, _range: Range<u64>) -> Result<(), MtdError> {
        Err(MtdError::Unsupported)
    }

    /// Locks the range.
    ///
    /// # Errors
    /// [`MtdError::Unsupported`], [`MtdError::Lock`].
    fn lock(&mut self, _range: Range<u64>) -> Result<(), MtdError> {
        Err(MtdError::Unsupported)
    }

    /// Whether the erase block at `offset` is marked bad; never true on NOR.
    ///
    /// # Errors
    /// [`MtdError::Bad`].
    fn is_bad(&mut self, offset: u64) -> Result<bool, MtdError>;

    /// Marks the erase block at `offset` bad, for ever.
    ///
    /// # Errors
    /// [`MtdError::Unsupported`] where blocks do not go bad, [`MtdError::Mark`].
    fn mark_bad(&mut self, _offset: u64) -> Result<(), MtdError> {
        Err(MtdError::Unsupported)
    }

    /// How many bytes one ECC step has, where the kernel tells it: [`ReadHealth::corrected`] is the sum over all steps of what
    /// was read (of whole pages, where a driver reads no parts of them).
    fn ecc_step(&self) -> Option<u64> {
        None
    }

    /// From so many corrected flips in one ECC step on, data is to be moved or refreshed (the kernel's
    /// `bitflip_threshold`). `None` where there is no ECC.
    fn bitflip_threshold(&self) -> Option<u32> {
        None
    }

    /// Where on the partition the byte at `offset` lies, for people and records; another place where bad blocks are
    /// skipped.
    fn place(&self, offset: u64) -> u64 {
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed() -> Geometry {
        Geometry {
            kind: Kind::ParallelNor,
            size: 0x28000,
            erase_size: 0x10000,
            write_size: 1,
            bit_writeable: true,
            writeable: true,
            regions: vec![
                Region { offset: 0, erase_size: 0x2000, blocks: 4 },
                Region { offset: 0x8000, erase_size: 0x10000, blocks: 2 },
            ],
        }
    }

    #[test]
    fn blocks_of_different_sizes_follow_their_regions() {
        let geometry = mixed();
        let starts: Vec<_> = geometry.blocks(0x2000..0x9000).map(|block| (block.start, block.len)).collect();
        assert_eq!(starts, [(0x2000, 0x2000), (0x4000, 0x2000), (0x6000, 0x2000), (0x8000, 0x10000)]);
        assert_eq!(geometry.round_up(0x8001), 0x18000);
        assert_eq!(geometry.round_up(0), 0);
    }

    #[test]
    fn regions_that_do_not_follow_each_other_are_a_flaw() {
        assert_eq!(mixed().flaw(), None);
        let gap = Geometry {
            regions: vec![mixed().regions[0], Region { offset: 0x9000, ..mixed().regions[1] }],
            ..mixed()
        };
        assert_eq!(
            gap.flaw().unwrap(),
            "an erase region of 2 blocks of 65536 bytes at 0x9000, where 0x8000 was expected"
        );
        let short = Geometry { size: 0x38000, ..mixed() };
        assert_eq!(short.flaw().unwrap(), "its erase regions end at 0x28000, and its size is 0x38000");
    }

    #[test]
    fn offsets_above_four_gigabytes_keep_their_block() {
        let geometry = Geometry { size: 8 << 30, regions: Vec::new(), ..mixed() };
        assert_eq!(geometry.block_at((5 << 30) + 7), EraseBlock { start: 5 << 30, len: 0x10000 });
    }

    #[test]
    fn the_granule_is_a_page_where_pages_are_larger_than_sixteen_bytes() {
        assert_eq!(mixed().granule(), 16);
        assert_eq!(Geometry { write_size: 2048, ..mixed() }.granule(), 2048);
    }
}
