//! A NAND chip: pages that are programmed once and in order, blocks that are bad or wear out, and ECC that corrects
//! some flipped bits, and not more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use super::nor::{refused, slice};
use super::power::{HalfErase, Power, power_lost};
use crate::device::{EraseBlock, Geometry, Mtd, MtdError, ReadHealth};
use crate::event::Operations;

/// Bytes of the spare area that are modelled for each page: the first is the factory's bad block marker (on a block's
/// first page), the second stands for the page's ECC.
const OOB: usize = 2;

/// How a block fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wear {
    /// Its erase reports EIO, always.
    Erase,
    /// Programming it reports EIO, always.
    Program,
}

/// A simulated NAND chip, or a partition of one.
#[derive(Debug, Clone)]
pub struct Nand {
    geometry: Geometry,
    bytes: Vec<u8>,
    oob: Vec<u8>,
    /// Flipped bits by page number, in the page's first ECC step.
    flips: BTreeMap<u64, u32>,
    /// Pages with one flipped bit in each ECC step.
    spread: BTreeSet<u64>,
    /// Pages that read right and will not for long.
    unstable: BTreeSet<u64>,
    /// Blocks (by start) that read 0xff and are not safely erased.
    weak: BTreeSet<u64>,
    worn: BTreeMap<u64, Wear>,
    power: Power,
    counts: Operations,
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EIO)
}

impl Nand {
    /// The bytes of one ECC step.
    pub const STEP: u64 = 16;
    /// So many flipped bits of a step are corrected.
    pub const STRENGTH: u32 = 4;
    /// From so many on the page is to be refreshed, as the kernel's default has it: three quarters.
    pub const THRESHOLD: u32 = 3;

    /// A chip that holds `bytes`, which are as many as its size.
    #[must_use]
    pub fn new(geometry: Geometry, bytes: Vec<u8>) -> Self {
        let page = usize::try_from(geometry.write_size).unwrap_or(1).max(1);
        let oob = bytes.chunks(page).flat_map(|page| [0xff, ecc(page)]).collect();
        Self {
            geometry,
            bytes,
            oob,
            flips: BTreeMap::new(),
            spread: BTreeSet::new(),
            unstable: BTreeSet::new(),
            weak: BTreeSet::new(),
            worn: BTreeMap::new(),
            power: Power::default(),
            counts: Operations::default(),
        }
    }

    /// The same chip with a bad block at `start`.
    #[must_use]
    pub fn with_bad(mut self, start: u64) -> Self {
        self.set_marker(start);
        self
    }

    /// The same chip with a block that fails, at `start`.
    #[must_use]
    pub fn with_worn(mut self, start: u64, wear: Wear) -> Self {
        self.worn.insert(start, wear);
        self
    }

    /// Flips one bit of each ECC step of the page at `offset`, until it is erased.
    pub fn flip_each_step(&mut self, offset: u64) {
        self.spread.insert(offset / self.geometry.write_size);
    }

    /// Flips so many bits of the first ECC step of the page at `offset`, until it is erased.
    pub fn flip(&mut self, offset: u64, bits: u32) {
        self.flips.insert(offset / self.geometry.write_size, bits);
    }

    /// What the cells hold, without flipped bits.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What a reader finds in the good blocks, one after the other; pages that ECC cannot correct hold wrong bytes.
    #[must_use]
    pub fn good_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (page, _) in self.flips.iter().filter(|(_, flips)| **flips > Self::STRENGTH) {
            let at = page * self.geometry.write_size;
            spoil(slice(&mut bytes, &(at..at + 1)).first_mut());
        }
        let blocks = self.geometry.blocks(0..self.geometry.size);
        let good = blocks.filter(|block| !self.is_marked(block.start));
        good.flat_map(|block| slice(&mut bytes, &block.range()).to_vec()).collect()
    }

    /// The starts of the blocks that are marked bad.
    #[must_use]
    pub fn marked(&self) -> Vec<u64> {
        let blocks = self.geometry.blocks(0..self.geometry.size);
        blocks.map(|block| block.start).filter(|start| self.is_marked(*start)).collect()
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

    /// Cuts the power inside the erase or program call number `at` (from 0), `sixteenths` of the way through it.
    pub fn cut_power(&mut self, at: u64, sixteenths: u64, half: HalfErase) {
        self.power.cut(at, sixteenths, half);
    }

    /// Power comes back. Nothing shows of unstable pages and weak blocks yet.
    pub fn power_cycle(&mut self) {
        self.power.cycle();
    }

    /// Time passes: what was not safely erased or programmed becomes unreadable.
    pub fn age(&mut self) {
        let mut lost = std::mem::take(&mut self.unstable);
        for start in std::mem::take(&mut self.weak) {
            lost.extend(self.pages(&self.geometry.block_at(start).range()));
        }
        self.flips.extend(lost.into_iter().map(|page| (page, Self::STRENGTH + 1)));
    }

    fn pages(&self, range: &Range<u64>) -> Range<u64> {
        let page = self.geometry.write_size;
        range.start / page..range.end.div_ceil(page)
    }

    fn oob(&mut self, page: u64) -> &mut [u8] {
        let start = usize::try_from(page).unwrap_or(usize::MAX).saturating_mul(OOB);
        self.oob.get_mut(start..start.saturating_add(OOB)).unwrap_or_default()
    }

    fn is_programmed(&self, page: u64) -> bool {
        let at = usize::try_from(page).unwrap_or(usize::MAX).saturating_mul(OOB).saturating_add(1);
        self.oob.get(at).is_some_and(|ecc| *ecc != 0xff)
    }

    fn is_marked(&self, start: u64) -> bool {
        let page = usize::try_from(start / self.geometry.write_size).unwrap_or(usize::MAX);
        self.oob.get(page.saturating_mul(OOB)).is_some_and(|marker| *marker != 0xff)
    }

    fn set_marker(&mut self, start: u64) {
        let page = start / self.geometry.write_size;
        if let Some(marker) = self.oob(page).first_mut() {
            *marker = 0;
        }
    }

    fn check(&self, range: &Range<u64>, unit: u64) -> io::Result<()> {
        self.power.check()?;
        if range.start > range.end || range.end > self.geometry.size {
            return Err(refused("beyond the end of the chip"));
        }
        if !range.start.is_multiple_of(unit) || !range.end.is_multiple_of(unit) {
            return Err(refused("not whole units"));
        }
        Ok(())
    }

    fn clear_pages(&mut self, range: &Range<u64>) {
        slice(&mut self.bytes, range).fill(0xff);
        for page in self.pages(range) {
            self.oob(page).fill(0xff);
            self.flips.remove(&page);
            self.spread.remove(&page);
            self.unstable.remove(&page);
        }
    }

    fn half_erase(&mut self, block: EraseBlock, half: HalfErase, sixteenths: u64) {
        match half {
            HalfErase::PartErased => {
                let pages = block.len / self.geometry.write_size * sixteenths / 16;
                self.clear_pages(&(block.start..block.start + pages * self.geometry.write_size));
            }
            HalfErase::Weak => {
                self.clear_pages(&block.range());
                self.weak.insert(block.start);
            }
            // Some cells are erased and some not: no page can be read.
            HalfErase::ZerosFromEnd | HalfErase::AllZero => {
                for page in self.pages(&block.range()) {
                    self.flips.insert(page, Self::STRENGTH + 1);
                }
            }
        }
    }

    fn do_erase(&mut self, range: &Range<u64>) -> io::Result<()> {
        self.check(range, self.geometry.erase_size)?;
        let blocks: Vec<_> = self.geometry.blocks(range.clone()).collect();
        let cut = self.power.call();
        let whole =
            cut.map_or(blocks.len() as u64, |cut| cut.done(blocks.len() as u64).min(blocks.len() as u64 - 1));
        for (number, block) in blocks.into_iter().enumerate() {
            if let Some(cut) = cut.filter(|_| number as u64 == whole) {
                self.half_erase(block, cut.half, cut.sixteenths);
                return Err(power_lost());
            }
            // The kernel refuses to erase a block that is marked.
            if self.is_marked(block.start) || self.worn.get(&block.start) == Some(&Wear::Erase) {
                return Err(eio());
            }
            self.clear_pages(&block.range());
            self.weak.remove(&block.start);
            self.counts.erases += 1;
        }
        Ok(())
    }

    fn do_program(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let size = self.geometry.write_size;
        self.check(&(offset..offset + bytes.len() as u64), size)?;
        let block = self.geometry.block_at(offset);
        if offset + bytes.len() as u64 > block.end() {
            return Err(refused("over the end of a block"));
        }
        let pages = self.pages(&(offset..block.end()));
        if pages.clone().any(|page| self.is_programmed(page)) {
            return Err(refused("a page twice, or before one that is programmed"));
        }
        let cut = self.power.call();
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let count = bytes.len().div_ceil(length) as u64;
        let whole = cut.map_or(count, |cut| cut.done(count));
        for ((number, page), data) in (0..).zip(pages).zip(bytes.chunks(length)) {
            let torn = number == whole;
            if torn && cut.is_some_and(|cut| cut.sixteenths == 0) {
                break;
            }
            let place = page * size..(page + 1) * size;
            slice(&mut self.bytes, &place).copy_from_slice(data);
            if let Some(code) = self.oob(page).get_mut(1) {
                *code = ecc(data).min(0xfe);
            }
            if self.worn.get(&block.start) == Some(&Wear::Program) {
                self.flips.insert(page, Self::STRENGTH + 1);
                return Err(eio());
            }
            if torn {
                // The further it came, the better it reads: not at all, with flipped bits, or right for now.
                match cut.map_or(16, |cut| cut.sixteenths) {
                    0..=5 => drop(self.flips.insert(page, Self::STRENGTH + 1)),
                    6..=9 => drop(self.flips.insert(page, Self::THRESHOLD)),
                    _ => {}
                }
                self.unstable.insert(page);
                break;
            }
            self.counts.programmed += size;
        }
        if cut.is_some() { Err(power_lost()) } else { Ok(()) }
    }

    fn do_read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<ReadHealth> {
        let range = offset..offset + buf.len() as u64;
        self.check(&range, 1)?;
        buf.copy_from_slice(slice(&mut self.bytes, &range));
        self.counts.read += buf.len() as u64;
        let mut health = ReadHealth::default();
        for page in self.pages(&range) {
            let start = page * self.geometry.write_size;
            let steps = (start..start + self.geometry.write_size).step_by(16);
            let steps = steps.filter(|step| *step < range.end && range.start < step + Self::STEP);
            if self.spread.contains(&page) {
                health.corrected += u32::try_from(steps.clone().count()).unwrap_or(0);
            }
            match self.flips.get(&page).copied().unwrap_or(0) {
                flips @ 0..=Self::STRENGTH => {
                    health.corrected += if steps.clone().any(|step| step == start) { flips } else { 0 };
                }
                _ => {
                    health.failed += 1;
                    let at = (page * self.geometry.write_size).max(offset) - offset;
                    spoil(buf.get_mut(usize::try_from(at).unwrap_or(usize::MAX)));
                }
            }
        }
        Ok(health)
    }
}

/// What becomes of a byte in a page that ECC cannot correct.
fn spoil(byte: Option<&mut u8>) {
    if let Some(byte) = byte {
        *byte ^= 0x24;
    }
}

/// A stand-in for a page's ECC; 0xff for a page that is erased.
fn ecc(page: &[u8]) -> u8 {
    if page.iter().all(|byte| *byte == 0xff) {
        0xff
    } else {
        page.iter().fold(0, |sum, byte| sum ^ byte) & 0x7f
    }
}

impl Mtd for Nand {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<ReadHealth, MtdError> {
        let length = buf.len() as u64;
        self.do_read(offset, buf).map_err(|source| MtdError::Read { offset, length, source })
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        self.do_erase(&range).map_err(|source| MtdError::Erase { start: range.start, end: range.end, source })
    }

    fn program(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MtdError> {
        let length = bytes.len() as u64;
        self.do_program(offset, bytes).map_err(|source| MtdError::Program { offset, length, source })
    }

    fn is_bad(&mut self, offset: u64) -> Result<bool, MtdError> {
        Ok(self.is_marked(self.geometry.block_at(offset).start))
    }

    fn mark_bad(&mut self, offset: u64) -> Result<(), MtdError> {
        self.set_marker(self.geometry.block_at(offset).start);
        Ok(())
    }

    fn bitflip_threshold(&self) -> Option<u32> {
        Some(Self::THRESHOLD)
    }

    fn ecc_step(&self) -> Option<u64> {
        Some(Self::STEP)
    }
}
