//! How long work takes on a typical chip, by data sheets: good for "seconds or minutes", not for a clock. Plans are
//! estimated and planners are compared by the same figures.

use std::time::Duration;

use crate::device::Kind;
use crate::map::{Map, Mark};

/// A chip's typical times, by its data sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its name, for the user.
    pub name: &'static str,
    /// Its data sheet and the figures that are used, and how far they are known.
    pub source: &'static str,
    /// Erase times in microseconds by block size in bytes, ascending; larger blocks take as many of the last one.
    erase: &'static [(u64, u64)],
    /// What is programmed at once, in bytes, and how long that takes in microseconds.
    page: (u64, u64),
    /// Bytes read in a millisecond.
    read: u64,
    /// Bytes that come over the bus to be programmed, in a millisecond; beside the time that programming takes.
    write: u64,
}

/// Work that was done to a chip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Blocks that were erased.
    pub erases: u64,
    /// Their size in bytes.
    pub erase_size: u64,
    /// Pages that were programmed, each time one was.
    pub pages: u64,
    /// Bytes that were sent for them.
    pub sent: u64,
    /// Bytes that were read.
    pub read: u64,
}

/// Winbond W25Q128JV, data sheet revision F, table "AC Electrical Characteristics": tSE, tBE1, tBE2, tPP, FR.
///
/// Second-hand: the table itself was not at hand. Projects that quote it agree on 45 ms and 150 ms and on 133 MHz; for
/// tPP they give 0.4 ms or, as for older parts of the family, 0.7 ms.
const SERIAL: Part = Part {
    name: "W25Q128JV",
    source: "\
serial: Winbond W25Q128JV (data sheet revision F, AC electrical characteristics, typical; quoted second-hand): erase 45 ms
per 4 KiB, 120 ms per 32 KiB or 150 ms per 64 KiB, program 0.4 ms per page of 256 bytes, one data line at 133 MHz",
    erase: &[(0x1000, 45_000), (0x8000, 120_000), (0x1_0000, 150_000)],
    page: (256, 400),
    read: 133_000 / 8,
    write: 133_000 / 8,
};

/// Cypress (Spansion, Infineon) S29GL128S to S29GL01GS, data sheet 001-98285, "Embedded Algorithm Performance"; also
/// Spansion's S29GL_128S_01GS_00. It is the part whose pages must not be programmed twice.
///
/// Seen in the sheet's general description: the buffer of 512 bytes and random access in 90 ns. Second-hand: 275 ms and
/// 340 us (they agree with the rates of 477 kB/s and 1.5 MB/s that are quoted for the family), and the 60 ns of a write
/// cycle.
const PARALLEL: Part = Part {
    name: "S29GL128S",
    source: "\
parallel: Cypress S29GL128S (data sheet 001-98285, embedded algorithm performance, typical; quoted second-hand): erase
275 ms per 128 KiB, program 0.34 ms per buffer of 512 bytes, 16-bit words read in 90 ns and written in 60 ns",
    erase: &[(0x2_0000, 275_000)],
    page: (512, 340),
    read: 22_222,
    write: 33_333,
};

/// Micron MT29F4G08ABADA, data sheet of the 4Gb, 8Gb and 16Gb parts, "Features", seen there: a block of 128 KiB is
/// erased in 700 us, a page of 2 KiB programmed in 200 us (both typical) and read in 25 us; a cycle of the bus takes
/// 20 ns at 3.3 V.
const NAND: Part = Part {
    name: "MT29F4G08ABADA",
    source: "\
NAND: Micron MT29F4G08ABADA (data sheet, features, typical): erase 0.7 ms per 128 KiB, program 0.2 ms and read 25 us per
page of 2 KiB, bytes on the bus in 20 ns",
    erase: &[(0x2_0000, 700)],
    page: (2048, 200),
    read: 31_050,
    write: 50_000,
};

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

    /// Bytes that it programs at once.
    #[must_use]
    pub fn page(&self) -> u64 {
        self.page.0
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

    /// How long work took, in seconds. A page takes its time however little of it is programmed.
    #[must_use]
    pub fn seconds(&self, done: &Done) -> f64 {
        let micros = done.erases * self.erase(done.erase_size) + done.pages * self.page.1;
        let bus = done.read as f64 / self.read as f64 + done.sent as f64 / self.write as f64;
        micros as f64 / 1e6 + bus / 1e3
    }

    /// How long a map's work takes at most: every erase, every byte of the blocks that are programmed, a survey of all that
    /// is in range, and the read-back of what is changed (on NAND of everything; of NOR's kept blocks it is a few bytes).
    #[must_use]
    pub fn time(&self, map: &Map) -> Duration {
        let mut micros = 0;
        for (_, len, mark) in &map.blocks {
            let read = 2 * len * 1000 / self.read;
            let erase = self.erase(*len);
            let program = len.div_ceil(self.page.0) * self.page.1 + len * 1000 / self.write;
            micros += match mark {
                Mark::Outside | Mark::Bad => 0,
                Mark::Keep if map.kind == Kind::Nand => read,
                Mark::Keep => read / 2,
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
        assert_eq!(serial(0x1_0000, &[Mark::Keep]), 3);
        assert_eq!(serial(0x1000, &[Mark::Erase]), 45);
        assert_eq!(serial(0x1_0000, &[Mark::Rewrite]), 150 + 102 + 8 + 4);
        assert_eq!(serial(0x2_0000, &[Mark::Erase, Mark::Bad]), 300 + 15);
        assert_eq!(time(&map(Kind::ParallelNor, 0x2_0000, &[Mark::Program])), 87 + 11 + 4);
        assert_eq!(time(&map(Kind::Nand, 0x2_0000, &[Mark::Rewrite])), 24);
        assert_eq!(time(&map(Kind::Nand, 0x2_0000, &[Mark::Keep])), 8);
        assert_eq!(Part::typical(Kind::Ram), None);
    }

    #[test]
    fn work_that_was_counted_takes_what_its_parts_take() {
        let done = Done { erases: 2, erase_size: 0x1000, pages: 3, sent: 16_625, read: 33_250 };
        let seconds = Part::typical(Kind::SpiNor).unwrap().seconds(&done);
        assert!((seconds - (0.09 + 0.0012 + 0.003)).abs() < 1e-9, "{seconds}");
    }
}
