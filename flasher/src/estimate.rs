//! How long a plan would take on a typical chip, by data sheets: good for "seconds or minutes", not for a clock.

use std::time::Duration;

use crate::device::Kind;
use crate::map::{Map, Mark};

/// A chip's typical times, by its data sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its name, for the user.
    pub name: &'static str,
    /// Erase times in microseconds by block size in bytes, ascending; larger blocks take as many of the last one.
    erase: &'static [(u64, u64)],
    /// What is programmed at once, in bytes, and how long that takes in microseconds.
    page: (u64, u64),
    /// Bytes read in a millisecond.
    read: u64,
}

/// Winbond W25Q128JV (data sheet revision F, AC characteristics, typical): 4 KiB 45 ms, 32 KiB 120 ms, 64 KiB 150 ms, a page
/// of 256 bytes 0.4 ms. Read over one line at 50 MHz.
const SERIAL: Part = Part {
    name: "W25Q128JV",
    erase: &[(0x1000, 45_000), (0x8000, 120_000), (0x1_0000, 150_000)],
    page: (256, 400),
    read: 6_250,
};

/// Cypress S29GL512S (data sheet 001-98285, embedded algorithm performance, typical): a sector of 128 KiB 275 ms, a write buffer of
/// 512 bytes 340 us. Read 16 bits wide at 110 ns.
const PARALLEL: Part =
    Part { name: "S29GL512S", erase: &[(0x2_0000, 275_000)], page: (512, 340), read: 18_180 };

/// Micron MT29F4G08ABADA (data sheet, array characteristics, typical): a block of 128 KiB 0.7 ms, a page of 2 KiB 200 us. Read: 25 us
/// and 2048 cycles of 25 ns for a page.
const NAND: Part =
    Part { name: "MT29F4G08ABADA", erase: &[(0x2_0000, 700)], page: (2048, 200), read: 26_860 };

impl Part {
    /// The part that stands for a kind of flash; `None` for what has no typical part.
    #[must_use]
    pub fn typical(kind: Kind) -> Option<Self> {
        match kind {
            Kind::SpiNor => Some(SERIAL),
            Kind::ParallelNor => Some(PARALLEL),
            Kind::Nand => Some(NAND),
            Kind::Ram | Kind::Other => None,
        }
    }

    /// One erase of a block of `len` bytes, in microseconds. A size that the chip lacks is several of its next
    /// smaller one.
    fn erase(&self, len: u64) -> u64 {
        let (size, time) = self
            .erase
            .iter()
            .rev()
            .find(|(size, _)| *size <= len)
            .or(self.erase.first())
            .copied()
            .unwrap_or((1, 0));
        time * (len / size.max(1)).max(1)
    }

    /// How long a map's work takes at most: survey and read-back of all that is in range, every erase, and every
    /// byte of the blocks that are programmed.
    #[must_use]
    pub fn time(&self, map: &Map) -> Duration {
        let mut micros = 0;
        for (_, len, mark) in &map.blocks {
            let read = 2 * len * 1000 / self.read;
            let erase = self.erase(*len);
            let program = len.div_ceil(self.page.0) * self.page.1;
            micros += match mark {
                Mark::Outside => 0,
                Mark::Keep => read,
                Mark::Program | Mark::Clear => read + program,
                Mark::Erase => read + erase,
                Mark::Rewrite | Mark::Head => read + erase + program,
            };
        }
        Duration::from_micros(micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(kind: Kind, len: u64, marks: &[Mark]) -> Map {
        Map { kind, blocks: marks.iter().map(|mark| (0, len, *mark)).collect() }
    }

    #[test]
    fn times_are_those_of_the_data_sheet() {
        let time = |map: &Map| Part::typical(map.kind).unwrap().time(map).as_millis();
        let serial = |len, marks: &[Mark]| time(&map(Kind::SpiNor, len, marks));
        assert_eq!(serial(0x1000, &[Mark::Outside]), 0);
        assert_eq!(serial(0x1000, &[Mark::Keep]), 1);
        assert_eq!(serial(0x1000, &[Mark::Erase]), 45 + 1);
        assert_eq!(serial(0x1_0000, &[Mark::Rewrite]), 150 + 102 + 20 + 1);
        assert_eq!(serial(0x2_0000, &[Mark::Erase]), 300 + 41);
        assert_eq!(time(&map(Kind::ParallelNor, 0x2_0000, &[Mark::Program])), 87 + 14);
        assert_eq!(time(&map(Kind::Nand, 0x2_0000, &[Mark::Rewrite])), 1 + 12 + 10);
        assert_eq!(Part::typical(Kind::Ram), None);
    }
}
