//! A NOR chip: programming only clears bits, an erase sets all, and the power can be cut inside any operation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use super::power::{HalfErase, Power, power_lost};
use crate::device::{EraseBlock, Geometry, Mtd, MtdError, ReadHealth};
use crate::event::Operations;

/// A simulated NOR chip, or a partition of one.
#[derive(Debug, Clone)]
pub struct Nor {
    geometry: Geometry,
    bytes: Vec<u8>,
    /// Bytes that read 0xff and are not safely erased: where each run of them starts, and where it ends.
    weak: BTreeMap<u64, u64>,
    locked: Option<BTreeSet<u64>>,
    /// Only a part at the top or at the bottom can be locked.
    one_end: bool,
    power: Power,
    counts: Operations,
    page_size: u64,
    page_programs: u64,
}

/// A NOR chip's caller keeps these rules; a simulated chip insists on them.
pub(super) fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

impl Nor {
    /// A chip that holds `bytes`, which are as many as its size.
    #[must_use]
    pub fn new(geometry: Geometry, bytes: Vec<u8>) -> Self {
        Self {
            geometry,
            bytes,
            weak: BTreeMap::new(),
            locked: None,
            one_end: false,
            power: Power::default(),
            counts: Operations::default(),
            page_size: 256,
            page_programs: 0,
        }
    }

    /// The same chip with program pages (the write buffer of a parallel chip) of another size than 256 bytes.
    #[must_use]
    pub fn with_pages(mut self, bytes: u64) -> Self {
        self.page_size = bytes.max(1);
        self
    }

    /// The same chip with locks, all blocks locked.
    #[must_use]
    pub fn with_all_locked(mut self) -> Self {
        self.locked = Some(self.geometry.blocks(0..self.geometry.size).map(|block| block.start).collect());
        self
    }

    /// The same chip, all blocks locked, of the kind that can lock all, nothing, or a part at one end.
    #[must_use]
    pub fn with_all_locked_from_one_end(mut self) -> Self {
        self.one_end = true;
        self.with_all_locked()
    }

    /// Makes `locked` the locked blocks, if the chip can.
    fn set_locked(&mut self, locked: BTreeSet<u64>) -> io::Result<()> {
        let blocks: Vec<_> = self.geometry.blocks(0..self.geometry.size).map(|block| block.start).collect();
        let pattern = || blocks.iter().map(|start| locked.contains(start));
        let changes = pattern().zip(pattern().skip(1)).filter(|(one, next)| one != next).count();
        if self.one_end && changes > 1 {
            return Err(io::Error::from_raw_os_error(nix::libc::EINVAL));
        }
        self.locked = Some(locked);
        Ok(())
    }

    /// The starts of the blocks that are locked now.
    #[must_use]
    pub fn locked_blocks(&self) -> Vec<u64> {
        self.locked.iter().flatten().copied().collect()
    }

    /// What the chip holds.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many erase and program calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.power.calls()
    }

    /// What was done to it.
    #[must_use]
    pub fn counts(&self) -> Operations {
        self.counts
    }

    /// How often the chip programmed a page: a driver cuts each program call where a page ends.
    #[must_use]
    pub fn page_programs(&self) -> u64 {
        self.page_programs
    }

    /// Cuts the power inside the erase or program call number `at` (from 0), `sixteenths` of the way through it.
    pub fn cut_power(&mut self, at: u64, sixteenths: u64, half: HalfErase) {
        self.power.cut(at, sixteenths, half);
    }

    /// Power comes back. Weak bits show nothing yet.
    pub fn power_cycle(&mut self) {
        self.power.cycle();
    }

    /// Time passes: every byte that was taken for erased and was not loses bits.
    pub fn age(&mut self) {
        for (start, end) in std::mem::take(&mut self.weak) {
            let bytes = slice(&mut self.bytes, &(start..end));
            for byte in bytes.iter_mut().step_by(5) {
                *byte &= 0xdf;
            }
        }
    }

    fn check(&self, offset: u64, length: u64) -> io::Result<()> {
        self.power.check()?;
        match offset.checked_add(length) {
            Some(end) if end <= self.geometry.size => Ok(()),
            _ => Err(refused("beyond the end of the chip")),
        }
    }

    fn is_locked_at(&self, offset: u64) -> bool {
        let start = self.geometry.block_at(offset).start;
        self.locked.as_ref().is_some_and(|locked| locked.contains(&start))
    }

    fn half_erase(&mut self, block: EraseBlock, half: HalfErase, sixteenths: u64) {
        let part = block.len * sixteenths / 16;
        let range = match half {
            HalfErase::ZerosFromEnd => block.end() - part..block.end(),
            HalfErase::AllZero | HalfErase::Weak => block.range(),
            HalfErase::PartErased => block.start..block.start + part,
        };
        let byte = match half {
            HalfErase::ZerosFromEnd | HalfErase::AllZero => 0,
            HalfErase::PartErased | HalfErase::Weak => 0xff,
        };
        slice(&mut self.bytes, &range).fill(byte);
        self.weak.remove(&block.start);
        if matches!(half, HalfErase::PartErased | HalfErase::Weak) && !range.is_empty() {
            self.weak.insert(range.start, range.end);
        }
    }

    fn do_erase(&mut self, range: &Range<u64>) -> io::Result<()> {
        self.check(range.start, range.end.saturating_sub(range.start))?;
        let blocks: Vec<_> = self.geometry.blocks(range.clone()).collect();
        if self.geometry.block_at(range.start).start != range.start
            || self.geometry.round_up(range.end) != range.end
        {
            return Err(refused("not whole erase blocks"));
        }
        if blocks.iter().any(|block| self.is_locked_at(block.start)) {
            return Err(io::Error::from_raw_os_error(nix::libc::EROFS));
        }
        let cut = self.power.call();
        // A cut inside a call that erases several blocks: those before it are done, one is half done.
        let whole = cut.map_or(blocks.len(), |cut| {
            usize::try_from(cut.done(blocks.len() as u64)).unwrap_or(0).min(blocks.len().saturating_sub(1))
        });
        for block in blocks.iter().take(whole) {
            slice(&mut self.bytes, &block.range()).fill(0xff);
            self.weak.remove(&block.start);
            self.counts.erases += 1;
        }
        if let (Some(cut), Some(block)) = (cut, blocks.get(whole)) {
            self.half_erase(*block, cut.half, cut.sixteenths);
            return Err(power_lost());
        }
        Ok(())
    }

    fn do_program(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check(offset, bytes.len() as u64)?;
        let granule = self.geometry.granule();
        if !offset.is_multiple_of(granule) || !(bytes.len() as u64).is_multiple_of(granule) {
            return Err(refused("not whole granules"));
        }
        if self.is_locked_at(offset) {
            return Err(io::Error::from_raw_os_error(nix::libc::EROFS));
        }
        let end = offset + bytes.len() as u64;
        self.page_programs += end.div_ceil(self.page_size) - offset / self.page_size;
        let cut = self.power.call();
        let taken = cut.map_or(bytes.len() as u64, |cut| cut.done(bytes.len() as u64));
        let taken = usize::try_from(taken).unwrap_or(0);
        let chip = slice(&mut self.bytes, &(offset..end));
        for (cell, byte) in chip.iter_mut().zip(&bytes[..taken]) {
            *cell &= byte;
        }
        self.counts.programmed += taken as u64;
        if cut.is_some() {
            // Torn: of the next byte only some bits were cleared.
            if let (Some(cell), Some(byte)) = (chip.get_mut(taken), bytes.get(taken)) {
                *cell &= byte | 0x55;
            }
            return Err(power_lost());
        }
        Ok(())
    }
}

pub(super) fn slice<'a>(bytes: &'a mut [u8], range: &Range<u64>) -> &'a mut [u8] {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    bytes.get_mut(index(range.start)..index(range.end)).unwrap_or_default()
}

impl Mtd for Nor {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<ReadHealth, MtdError> {
        let length = buf.len() as u64;
        self.check(offset, length).map_err(|source| MtdError::Read { offset, length, source })?;
        buf.copy_from_slice(slice(&mut self.bytes, &(offset..offset + length)));
        self.counts.read += length;
        Ok(ReadHealth::default())
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        self.do_erase(&range).map_err(|source| MtdError::Erase { start: range.start, end: range.end, source })
    }

    fn program(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MtdError> {
        let length = bytes.len() as u64;
        self.do_program(offset, bytes).map_err(|source| MtdError::Program { offset, length, source })
    }

    fn is_locked(&mut self, range: Range<u64>) -> Result<bool, MtdError> {
        match &self.locked {
            None => Err(MtdError::Unsupported),
            Some(locked) => Ok(self.geometry.blocks(range).all(|block| locked.contains(&block.start))),
        }
    }

    fn unlock(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        let mut locked = self.locked.clone().ok_or(MtdError::Unsupported)?;
        for block in self.geometry.blocks(range.clone()) {
            locked.remove(&block.start);
        }
        let failed = |source| MtdError::Lock { what: "unlock", start: range.start, end: range.end, source };
        self.set_locked(locked).map_err(failed)
    }

    fn lock(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        let mut locked = self.locked.clone().ok_or(MtdError::Unsupported)?;
        locked.extend(self.geometry.blocks(range.clone()).map(|block| block.start));
        let failed = |source| MtdError::Lock { what: "lock", start: range.start, end: range.end, source };
        self.set_locked(locked).map_err(failed)
    }

    fn is_bad(&mut self, _: u64) -> Result<bool, MtdError> {
        Ok(false)
    }
}
