//! A NOR chip of any size that takes memory only where it holds data.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use super::nor::refused;
use crate::device::{Geometry, Mtd, MtdError, ReadHealth};

/// Bytes that are kept or not.
const PAGE: u64 = 4096;

/// A simulated NOR chip whose pages read 0xff unless they are kept. Without faults.
#[derive(Debug, Clone)]
pub struct Sparse {
    geometry: Geometry,
    pages: BTreeMap<u64, Vec<u8>>,
    erased: Vec<Range<u64>>,
}

impl Sparse {
    /// An erased chip. Its erase blocks are multiples of 4 KiB.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self { geometry, pages: BTreeMap::new(), erased: Vec::new() }
    }

    /// The ranges of all erase calls, in their order.
    #[must_use]
    pub fn erased(&self) -> &[Range<u64>] {
        &self.erased
    }

    fn check(&self, range: &Range<u64>) -> io::Result<()> {
        if range.start <= range.end && range.end <= self.geometry.size {
            Ok(())
        } else {
            Err(refused("beyond the end of the chip"))
        }
    }
}

/// The pieces of a range that lie in one page each: the page's number, the place in it, and the place in the range.
fn pieces(range: Range<u64>) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let index = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = ((at / PAGE + 1) * PAGE).min(range.end);
        let piece = (at / PAGE, index(at % PAGE), index(at - range.start)..index(end - range.start));
        let more = at < range.end;
        at = end;
        more.then_some(piece)
    })
}

impl Mtd for Sparse {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<ReadHealth, MtdError> {
        let length = buf.len() as u64;
        let range = offset..offset.saturating_add(length);
        self.check(&range).map_err(|source| MtdError::Read { offset, length, source })?;
        buf.fill(0xff);
        let kept = self.pages.range(range.start / PAGE..range.end.div_ceil(PAGE)).next().is_some();
        for (page, start, place) in pieces(range).filter(|_| kept) {
            if let Some(page) = self.pages.get(&page) {
                let end = start + place.len();
                buf[place].copy_from_slice(&page[start..end]);
            }
        }
        Ok(ReadHealth::default())
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        let whole = self.geometry.block_at(range.start).start == range.start
            && self.geometry.round_up(range.end) == range.end;
        let checked = if whole { self.check(&range) } else { Err(refused("not whole erase blocks")) };
        checked.map_err(|source| MtdError::Erase { start: range.start, end: range.end, source })?;
        self.pages.retain(|page, _| !range.contains(&(page * PAGE)));
        self.erased.push(range);
        Ok(())
    }

    fn program(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MtdError> {
        let length = bytes.len() as u64;
        let range = offset..offset.saturating_add(length);
        self.check(&range).map_err(|source| MtdError::Program { offset, length, source })?;
        for (page, start, place) in pieces(range) {
            let page = self.pages.entry(page).or_insert_with(|| vec![0xff; 4096]);
            for (cell, byte) in page.iter_mut().skip(start).zip(&bytes[place]) {
                *cell &= byte;
            }
        }
        Ok(())
    }

    fn is_bad(&mut self, _: u64) -> Result<bool, MtdError> {
        Ok(false)
    }
}
