//! Two typical parts, and how long their data sheets say that operations take. All times are typical ones.

use flasher::device::{Geometry, Kind};

use super::bound::Clearing;
use super::case::SMALL;
use super::measure::Count;

/// A part.
pub(crate) struct Sheet {
    /// The part, the data sheet, and the figures, for below the table.
    pub(crate) source: &'static str,
    pub(crate) kind: Kind,
    /// The bytes that one program operation takes at most.
    pub(crate) page: usize,
    pub(crate) clearing: Clearing,
    /// Seconds for one page. Partly filled pages are counted as full ones: that favours no tool that leaves bytes out.
    program: f64,
    /// Seconds on the bus for a byte that is read.
    pub(crate) read: f64,
    /// Seconds on the bus for a byte that is written.
    write: f64,
}

/// Serial NOR: Winbond W25Q128JV, data sheet revision F, "AC Electrical Characteristics": tSE (4 KiB) 45 ms, tBE2
/// (64 KiB) 150 ms, tPP (256 bytes) 0.7 ms, FR 133 MHz for fast read and page program on one data line.
pub(crate) const SERIAL: Sheet = Sheet {
    source: "\
serial: Winbond W25Q128JV (data sheet revision F, AC characteristics, typical): erase 45 ms per 4 KiB or 150 ms per
64 KiB, program 0.7 ms per page of 256 bytes, one data line at 133 MHz",
    kind: Kind::SpiNor,
    page: 256,
    clearing: Clearing::Allowed,
    program: 0.7e-3,
    read: 8.0 / 133e6,
    write: 8.0 / 133e6,
};

/// Parallel NOR: Spansion S29GL128S, data sheet S29GL_128S_01GS_00, "Embedded Algorithm Performance": erase 275 ms
/// per sector of 128 KiB, program 340 µs per buffer of 512 bytes; words of 16 bits, tRC 90 ns, tWC 60 ns.
/// It is the part whose pages must not be programmed twice.
pub(crate) const PARALLEL: Sheet = Sheet {
    source: "\
parallel: Spansion S29GL128S (data sheet S29GL_128S_01GS_00, embedded algorithm performance, typical): erase 275 ms
per 128 KiB, program 0.34 ms per buffer of 512 bytes, 16-bit words read in 90 ns and written in 60 ns",
    kind: Kind::ParallelNor,
    page: 512,
    clearing: Clearing::Forbidden,
    program: 340e-6,
    read: 90e-9 / 2.0,
    write: 60e-9 / 2.0,
};

impl Sheet {
    /// The chip: the serial one can be erased in blocks of two sizes.
    pub(crate) fn geometry(&self, size: u64, erase_size: u64) -> Geometry {
        let erase_size = if self.kind == Kind::SpiNor { erase_size } else { 128 << 10 };
        Geometry {
            kind: self.kind,
            size,
            erase_size,
            write_size: 1,
            bit_writeable: true,
            writeable: true,
            regions: Vec::new(),
        }
    }

    /// How long all of it takes, in seconds.
    pub(crate) fn seconds(&self, erase_size: u64, count: &Count) -> f64 {
        let erase = match self.kind {
            Kind::SpiNor if erase_size == SMALL => 45e-3,
            Kind::SpiNor => 150e-3,
            _ => 275e-3,
        };
        count.erases as f64 * erase
            + count.pages as f64 * self.program
            + count.read as f64 * self.read
            + count.bytes as f64 * self.write
    }
}
