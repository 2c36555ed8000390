//! What a plan does to a whole partition, block by block: what a dry run shows.

use crate::decide::Step;
use crate::device::{Geometry, Kind};
use crate::plan::{Invalidation, Plan};

/// What happens to a block, from the cheapest to the dearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// It lies behind the image and is left alone.
    Outside,
    /// It is bad and passed over (NAND).
    Bad,
    /// It holds the right bytes already.
    Keep,
    /// It is erased already: programmed only.
    Program,
    /// Bits are cleared in it, without an erase.
    Clear,
    /// It is erased, and nothing is programmed.
    Erase,
    /// It is erased and programmed.
    Rewrite,
    /// It holds the image's head and changes: invalid first, completed last.
    Head,
}

impl Mark {
    /// Every mark, from the cheapest to the dearest.
    pub const ALL: [Self; 8] = [
        Self::Outside,
        Self::Bad,
        Self::Keep,
        Self::Program,
        Self::Clear,
        Self::Erase,
        Self::Rewrite,
        Self::Head,
    ];

    /// Its character in a map.
    #[must_use]
    pub fn character(self) -> char {
        match self {
            Self::Outside => '.',
            Self::Bad => 'b',
            Self::Keep => '=',
            Self::Program => 'p',
            Self::Clear => 'c',
            Self::Erase => 'e',
            Self::Rewrite => 'w',
            Self::Head => 'H',
        }
    }

    /// What the character means.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Outside => "behind the image, left alone",
            Self::Bad => "bad, passed over",
            Self::Keep => "kept",
            Self::Program => "programmed, it is erased already",
            Self::Clear => "bits cleared without an erase",
            Self::Erase => "erased",
            Self::Rewrite => "erased and programmed",
            Self::Head => "head: invalid first, completed last",
        }
    }
}

/// What happens to every block of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// What kind of flash it is.
    pub kind: Kind,
    /// Each block's start and size in bytes, and what happens to it; ascending.
    pub blocks: Vec<(u64, u64, Mark)>,
}

impl Map {
    /// The map of a plan. Where bad blocks are passed over, `geometry` is that of the good ones; `place` tells where a
    /// byte of them lies on the partition, and what lies between is bad.
    #[must_use]
    pub fn new(geometry: &Geometry, plan: &Plan, place: impl Fn(u64) -> u64) -> Self {
        let late = plan.late_end(geometry);
        let mut steps = plan.steps.iter().copied();
        let blocks = geometry.blocks(0..geometry.size).map(|block| {
            let step = if plan.range.contains(&block.start) { steps.next() } else { None };
            let is_head = block.start < late && plan.invalidation != Invalidation::None;
            let mark = match step {
                None => Mark::Outside,
                Some(Step::Keep) => Mark::Keep,
                Some(_) if is_head => Mark::Head,
                Some(Step::Program) => Mark::Program,
                Some(Step::Clear) => Mark::Clear,
                Some(Step::Erase) => Mark::Erase,
                Some(Step::EraseProgram) => Mark::Rewrite,
            };
            (place(block.start), block.len, mark)
        });
        let (mut all, mut end) = (Vec::new(), 0);
        for (start, len, mark) in blocks {
            while end < start && len > 0 {
                all.push((end, len, Mark::Bad));
                end += len;
            }
            all.push((start, len, mark));
            end = start + len;
        }
        Self { kind: geometry.kind, blocks: all }
    }

    /// How many blocks share a character if there are to be at most `characters` (not 0).
    #[must_use]
    pub fn group(&self, characters: usize) -> usize {
        self.blocks.len().div_ceil(characters.max(1)).max(1)
    }

    /// One character for each `group` blocks: that of the dearest of them.
    #[must_use]
    pub fn characters(&self, group: usize) -> String {
        let dearest = |blocks: &[(u64, u64, Mark)]| blocks.iter().map(|(.., mark)| *mark).max();
        self.blocks.chunks(group.max(1)).filter_map(dearest).map(Mark::character).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_shows_the_whole_partition_and_a_group_by_its_dearest_block() {
        let geometry = Geometry {
            kind: Kind::SpiNor,
            size: 8 * 0x1000,
            erase_size: 0x1000,
            write_size: 1,
            bit_writeable: true,
            writeable: true,
            regions: Vec::new(),
        };
        let plan = Plan {
            range: 0..6 * 0x1000,
            image_size: 6 * 0x1000,
            head_size: 0x1000,
            invalidation: Invalidation::Zero,
            steps: vec![
                Step::EraseProgram,
                Step::Keep,
                Step::Program,
                Step::Clear,
                Step::Erase,
                Step::EraseProgram,
            ],
        };
        let map = Map::new(&geometry, &plan, |offset| offset);
        assert_eq!(map.characters(map.group(1024)), "H=pcew..");
        // The blocks 1 and 4 are bad.
        let skipping = Map::new(&geometry, &plan, |offset| match offset / 0x1000 {
            0 => offset,
            1 | 2 => offset + 0x1000,
            _ => offset + 0x2000,
        });
        assert_eq!(skipping.characters(1), "Hb=pbcew..");
        assert_eq!(skipping.blocks[4], (0x4000, 0x1000, Mark::Bad));
        assert_eq!(map.characters(map.group(4)), "Hcw.");
        assert_eq!(map.characters(map.group(3)), "Hw.");
        let kept = Plan { invalidation: Invalidation::None, ..plan };
        assert!(Map::new(&geometry, &kept, |offset| offset).characters(1).starts_with("w="));
    }
}
