//! Which bytes of the flash are read back once the body is written, and why. A pure function.
//!
//! What was erased or programmed is read back whole. A kept block was compared to its last byte by the survey, and no
//! operation was meant for it since: only an operation that went astray can have damaged it. Such an operation
//!
//! - *missed its own block*: that block is read back whole and is wrong. From then on everything is read.
//! - *hit its own block and another one, which reads like it* (addresses wrap at a power of two, an address line is
//!   stuck): the two differ in one address bit, or another block between them does, and both gave the same bytes to
//!   the survey. So the kept one shows the damage at the very place where the changed one was found to differ.
//! - *erased more than it was told to*: whole blocks read 0xff, whichever they are. So every kept block that holds
//!   data is looked at where it does.
//!
//! That is a granule or a few of each kept block instead of all of it. Everything is read where these reasons do not
//! hold: on NAND, where a kept block's health counts too; on blocks that are no equal powers of two; and wherever a
//! reading or an operation failed once, or an earlier run was cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::decide::{Blank, Step, is_blank};
use crate::device::{EraseBlock, Geometry, Kind};
use crate::plan::Plan;
use crate::survey::Survey;

/// What is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readback {
    /// How much of the body.
    pub extent: Extent,
    /// Of each block, where the survey found it to differ first, in bytes from its start.
    differs: Vec<Option<u64>>,
}

/// How much of the body is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What was changed, and of the rest the places where an operation that went astray would show.
    Changes,
    /// Every byte of the range.
    Everything(Reason),
}

/// Why every byte is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The flash is none of the kinds whose blocks keep to themselves.
    Kind,
    /// Its erase blocks are of several sizes, or their size is no power of two.
    Blocks,
    /// An earlier run was cut off here.
    Interrupted,
    /// Something failed once and was tried again: the bus or the chip is not to be trusted.
    Retried,
}

/// What is read of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// All of it.
    Whole,
    /// These granules, ascending, none twice. In bytes from the device's start.
    Granules(Vec<Range<u64>>),
}

/// A block of the body that shares its bytes with one of the head's, if a bit of the address goes astray.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// The block.
    pub block: EraseBlock,
    /// What is read of it.
    pub reading: Reading,
    /// The head's blocks, by number, that are to be told from it by the image alone: a granule is read in which the
    /// image's two blocks differ, or all of the block.
    pub unlike: Vec<usize>,
}

impl Readback {
    /// The choice for a plan.
    #[must_use]
    pub fn new(geometry: &Geometry, found: &Survey, blank: Blank) -> Self {
        let is_nor = matches!(geometry.kind, Kind::SpiNor | Kind::ParallelNor);
        let is_even = geometry.regions.is_empty() && geometry.erase_size.is_power_of_two();
        let extent = match (is_nor, is_even, blank) {
            (false, ..) => Extent::Everything(Reason::Kind),
            (true, false, _) => Extent::Everything(Reason::Blocks),
            (true, true, Blank::Untrusted) => Extent::Everything(Reason::Interrupted),
            _ if found.retries > 0 => Extent::Everything(Reason::Retried),
            _ => Extent::Changes,
        };
        Self { extent, differs: found.differs.clone() }
    }

    /// What is read of the block with this number when the body is written; `want` is what it shall hold.
    #[must_use]
    pub fn body(
        &self,
        geometry: &Geometry,
        steps: &[Step],
        number: usize,
        block: EraseBlock,
        want: &[u8],
    ) -> Reading {
        let changes = |number: usize| steps.get(number).is_none_or(|step| *step != Step::Keep);
        if self.extent != Extent::Changes || changes(number) {
            return Reading::Whole;
        }
        let beside = neighbours(number, steps.len()).filter(|other| changes(*other));
        let places = beside.map(|other| self.differs.get(other).copied().flatten().unwrap_or(0));
        Reading::Granules(granules(geometry, block, places.chain(first_data(geometry, want))))
    }

    /// What of the body is read again when the head's blocks, which are changed last, are complete: the blocks that
    /// one address bit more or less would make of one of the head's. `is_changed` says it of a head's block.
    #[must_use]
    pub fn beside_the_head(
        &self,
        geometry: &Geometry,
        plan: &Plan,
        is_changed: impl Fn(EraseBlock, Step) -> bool,
    ) -> Vec<Beside> {
        let late = plan.late_end(geometry);
        let body = late..plan.range.end;
        let heads = plan.blocks(geometry).enumerate().take_while(|(_, (block, _))| block.start < late);
        let changed = heads.filter(|(_, (block, step))| is_changed(*block, *step));
        let beside = one_bit_beside(geometry, changed.map(|(number, (block, _))| (number, block)), &body);
        let blocks = plan.blocks(geometry).zip(&self.differs);
        blocks
            .filter_map(|((block, step), differs)| {
                let heads = beside.get(&block.start)?;
                Some(self.beside(geometry, block, step, *differs, heads))
            })
            .collect()
    }

    /// What of a block is read when others were changed that share its bytes, if a bit of the address goes astray.
    /// They shared them at the survey: a place where one of the two differed from its image and the other did not
    /// shows it. Where both did, only the images can tell.
    fn beside(
        &self,
        geometry: &Geometry,
        block: EraseBlock,
        step: Step,
        differs: Option<u64>,
        heads: &[usize],
    ) -> Beside {
        if self.extent != Extent::Changes {
            return Beside { block, reading: Reading::Whole, unlike: Vec::new() };
        }
        let differs = differs.filter(|_| step != Step::Keep);
        let place = |head: &usize| self.differs.get(*head).copied().flatten();
        let unlike =
            heads.iter().filter(|head| differs.is_some() && place(head).is_some()).copied().collect();
        let places = heads.iter().filter_map(place).chain(differs);
        Beside { block, reading: Reading::Granules(granules(geometry, block, places)), unlike }
    }
}

/// The blocks of the body, by their start, that one address bit more or less would make of one of the head's, with these
/// by their numbers.
pub(crate) fn one_bit_beside(
    geometry: &Geometry,
    heads: impl Iterator<Item = (usize, EraseBlock)>,
    body: &Range<u64>,
) -> BTreeMap<u64, Vec<usize>> {
    let mut beside: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (number, head) in heads {
        let distances = (0..u64::BITS - 2).map(|bit| 1_u64 << bit);
        for distance in distances.filter(|distance| *distance >= head.len) {
            let starts = [head.start.checked_sub(distance), head.start.checked_add(distance)];
            for start in starts.into_iter().flatten().filter(|start| body.contains(start)) {
                beside.entry(geometry.block_at(start).start).or_default().push(number);
            }
        }
    }
    beside
}

/// The granules that hold these places of a block.
fn granules(geometry: &Geometry, block: EraseBlock, places: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let granule = geometry.granule();
    let starts: BTreeSet<u64> = places.map(|place| place - place % granule).collect();
    let range = |place: u64| block.start + place..(block.start + place + granule).min(block.end());
    starts.into_iter().map(range).collect()
}

/// The blocks whose address differs from that of block `number` in one bit. Whatever the address of the first block
/// is, one bit more or less is a step of a power of two.
fn neighbours(number: usize, count: usize) -> impl Iterator<Item = usize> {
    let distances = (0..usize::BITS).map(|bit| 1_usize << bit).take_while(move |distance| *distance < count);
    distances
        .flat_map(move |distance| [number.checked_sub(distance), number.checked_add(distance)])
        .flatten()
        .filter(move |other| *other < count)
}

/// Where a block's first granule lies that is not 0xff, in bytes from its start.
#[must_use]
pub fn first_data(geometry: &Geometry, want: &[u8]) -> Option<u64> {
    let granule = usize::try_from(geometry.granule()).unwrap_or(usize::MAX);
    let number = want.chunks(granule).position(|granule| !is_blank(granule))?;
    Some(number as u64 * geometry.granule())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry {
            kind: Kind::SpiNor,
            size: 16 * 256,
            erase_size: 256,
            write_size: 1,
            bit_writeable: true,
            writeable: true,
            regions: Vec::new(),
        }
    }

    #[test]
    fn a_kept_block_is_looked_at_where_its_neighbours_differ_and_where_it_holds_data() {
        let mut differs = vec![None; 16];
        (differs[5], differs[13], differs[6]) = (Some(0x21), Some(0x80), Some(0xff));
        let readback = Readback { extent: Extent::Changes, differs };
        let mut steps = [Step::Keep; 16];
        for changed in [5, 13, 6] {
            steps[changed] = Step::EraseProgram;
        }
        let mut want = vec![0xff; 256];
        want[70] = 0;
        let read = |number: usize, steps: &[Step], want: &[u8]| {
            let block = geometry().block_at(number as u64 * 256);
            readback.body(&geometry(), steps, number, block, want)
        };
        assert_eq!(read(5, &steps, &want), Reading::Whole);
        // 5 is 4 and 1 from it, 13 is 12 and 4 from it, which is no power of two and one; 6 is 3 and 5 away.
        assert_eq!(read(9, &steps, &want), Reading::Granules(vec![0x920..0x930, 0x940..0x950, 0x980..0x990]));
        assert_eq!(read(14, &steps, &[0xff; 256]), Reading::Granules(vec![0xe80..0xe90, 0xef0..0xf00]));
        assert_eq!(read(14, &[Step::Keep; 16], &[0xff; 256]), Reading::Granules(Vec::new()));
        let all = Readback { extent: Extent::Everything(Reason::Kind), ..readback.clone() };
        assert_eq!(all.body(&geometry(), &steps, 9, geometry().block_at(0x900), &want), Reading::Whole);
    }

    #[test]
    fn behind_a_head_the_blocks_are_looked_at_that_one_address_bit_would_make_of_it() {
        let mut differs = vec![None; 16];
        (differs[1], differs[5]) = (Some(0x55), Some(0x20));
        let mut steps = vec![Step::Keep; 16];
        for changed in [0, 1, 5] {
            steps[changed] = Step::EraseProgram;
        }
        let plan = Plan {
            range: 0..16 * 256,
            image_size: 16 * 256,
            head_size: 512,
            invalidation: crate::plan::Invalidation::Zero,
            steps,
        };
        let read = |extent, only: u64| {
            let readback = Readback { extent, differs: differs.clone() };
            readback.beside_the_head(&geometry(), &plan, |block, _| block.start == only * 256)
        };
        let block = |number: u64| geometry().block_at(number * 256);
        let granules = |number: u64, places: &[u64]| {
            let start = number * 256;
            let granules = places.iter().map(|at| start + at..start + at + 16).collect();
            Beside { block: block(number), reading: Reading::Granules(granules), unlike: Vec::new() }
        };
        // The head differs there; where both do only the images can tell.
        let both = Beside { unlike: vec![1], ..granules(5, &[0x20, 0x50]) };
        assert_eq!(
            read(Extent::Changes, 1),
            [granules(2, &[0x50]), granules(3, &[0x50]), both, granules(9, &[0x50])]
        );
        // The head is the same and is written again: only what was changed can show it.
        assert_eq!(read(Extent::Changes, 0), [granules(2, &[]), granules(4, &[]), granules(8, &[])]);
        let whole = [2, 4, 8].map(|number| Beside { reading: Reading::Whole, ..granules(number, &[]) });
        assert_eq!(read(Extent::Everything(Reason::Retried), 0), whole);
    }

    #[test]
    fn everything_is_read_where_the_reasons_do_not_hold() {
        let found = Survey { differs: vec![None, Some(7)], ..Survey::default() };
        let extent = |geometry: &Geometry, blank, retries| {
            Readback::new(geometry, &Survey { retries, ..found.clone() }, blank).extent
        };
        let odd = Geometry { erase_size: 264, size: 264 * 4, ..geometry() };
        let nand = Geometry { kind: Kind::Nand, ..geometry() };
        assert_eq!(extent(&geometry(), Blank::Trusted, 0), Extent::Changes);
        assert_eq!(extent(&geometry(), Blank::Trusted, 1), Extent::Everything(Reason::Retried));
        assert_eq!(extent(&geometry(), Blank::Untrusted, 0), Extent::Everything(Reason::Interrupted));
        assert_eq!(extent(&odd, Blank::Trusted, 0), Extent::Everything(Reason::Blocks));
        assert_eq!(extent(&nand, Blank::NotForData, 0), Extent::Everything(Reason::Kind));
    }
}
