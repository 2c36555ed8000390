//! NAND without its bad blocks: the image goes on in the next good one, as mtd-utils' `nandwrite` and U-Boot's
//! `nand write` and `nand read` have it.

use std::ops::Range;

use crate::device::{EraseBlock, Geometry, Mtd, MtdError, ReadHealth};

/// Which blocks of a partition are passed over. Pure arithmetic, in bytes from the partition's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipMap {
    erase_size: u64,
    /// The numbers of the bad blocks, ascending.
    bad: Vec<u64>,
}

impl SkipMap {
    /// A map for blocks of `erase_size` bytes (not 0), with the numbers of the bad ones in any order.
    #[must_use]
    pub fn new(erase_size: u64, mut bad: Vec<u64>) -> Self {
        bad.sort_unstable();
        bad.dedup();
        Self { erase_size: erase_size.max(1), bad }
    }

    /// Where the byte that is number `offset` of the good blocks' bytes lies on the partition.
    #[must_use]
    pub fn place(&self, offset: u64) -> u64 {
        let mut block = offset / self.erase_size;
        for bad in &self.bad {
            if *bad > block {
                break;
            }
            block += 1;
        }
        block * self.erase_size + offset % self.erase_size
    }

    /// The places of a range, in pieces that lie in one run on the partition.
    #[must_use]
    pub fn places(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut places: Vec<Range<u64>> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let end = ((at / self.erase_size + 1) * self.erase_size).min(range.end);
            let start = self.place(at);
            match places.last_mut() {
                Some(last) if last.end == start => last.end = start + (end - at),
                _ => places.push(start..start + (end - at)),
            }
            at = end;
        }
        places
    }

    /// How many bytes the good blocks of a partition of `size` bytes have.
    #[must_use]
    pub fn room(&self, size: u64) -> u64 {
        let bad = self.bad.iter().filter(|bad| **bad < size / self.erase_size).count() as u64;
        size - bad * self.erase_size
    }
}

/// A device seen without its bad blocks. Offsets count the good blocks' bytes; errors tell places on the partition.
pub(crate) struct Skipping<'a> {
    chip: &'a mut dyn Mtd,
    geometry: Geometry,
    map: SkipMap,
}

impl<'a> Skipping<'a> {
    /// Asks for every block whether it is bad.
    pub(crate) fn new(chip: &'a mut dyn Mtd) -> Result<Self, MtdError> {
        let mut geometry = chip.geometry().clone();
        let blocks: Vec<EraseBlock> = geometry.blocks(0..geometry.size).collect();
        let mut bad = Vec::new();
        for (number, block) in blocks.iter().enumerate() {
            if chip.is_bad(block.start)? {
                bad.push(number as u64);
            }
        }
        let map = SkipMap::new(geometry.erase_size, bad);
        geometry.size = map.room(geometry.size);
        Ok(Self { chip, geometry, map })
    }
}

impl Mtd for Skipping<'_> {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn read(&mut self, offset: u64, mut buf: &mut [u8]) -> Result<ReadHealth, MtdError> {
        let mut health = ReadHealth::default();
        for place in self.map.places(offset..offset.saturating_add(buf.len() as u64)) {
            let length = usize::try_from(place.end - place.start).unwrap_or(usize::MAX).min(buf.len());
            let (part, rest) = buf.split_at_mut(length);
            let said = self.chip.read(place.start, part)?;
            health.corrected += said.corrected;
            health.failed += said.failed;
            buf = rest;
        }
        Ok(health)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        self.map.places(range).into_iter().try_for_each(|place| self.chip.erase(place))
    }

    fn program(&mut self, offset: u64, mut bytes: &[u8]) -> Result<(), MtdError> {
        for place in self.map.places(offset..offset.saturating_add(bytes.len() as u64)) {
            let length = usize::try_from(place.end - place.start).unwrap_or(usize::MAX).min(bytes.len());
            let (part, rest) = bytes.split_at(length);
            self.chip.program(place.start, part)?;
            bytes = rest;
        }
        Ok(())
    }

    fn is_locked(&mut self, range: Range<u64>) -> Result<bool, MtdError> {
        for place in self.map.places(range) {
            if !self.chip.is_locked(place)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn unlock(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        self.map.places(range).into_iter().try_for_each(|place| self.chip.unlock(place))
    }

    fn lock(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        self.map.places(range).into_iter().try_for_each(|place| self.chip.lock(place))
    }

    fn is_bad(&mut self, offset: u64) -> Result<bool, MtdError> {
        self.chip.is_bad(self.map.place(offset))
    }

    fn bitflip_threshold(&self) -> Option<u32> {
        self.chip.bitflip_threshold()
    }

    fn ecc_step(&self) -> Option<u64> {
        self.chip.ecc_step()
    }

    fn place(&self, offset: u64) -> u64 {
        self.chip.place(self.map.place(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_goes_on_in_the_next_good_block() {
        let map = SkipMap::new(100, vec![3, 0, 4, 9]);
        let places: Vec<_> = [0, 99, 100, 200, 250, 300, 699].map(|offset| map.place(offset)).into();
        assert_eq!(places, [100, 199, 200, 500, 550, 600, 1099]);
        assert_eq!(map.places(150..350), [250..300, 500..650]);
        assert_eq!(map.places(0..0), []);
        assert_eq!((map.room(1000), map.room(300)), (600, 200));
    }

    proptest::proptest! {
        #[test]
        fn every_good_block_is_used_once_and_no_bad_one(bad in proptest::collection::vec(0..40_u64, 0..20)) {
            let map = SkipMap::new(16, bad.clone());
            let good: Vec<u64> = (0..40).filter(|block| !bad.contains(block)).collect();
            let mapped: Vec<u64> = (0..map.room(640) / 16).map(|block| map.place(block * 16) / 16).collect();
            proptest::prop_assert_eq!(mapped, good);
        }
    }
}
