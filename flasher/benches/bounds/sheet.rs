//! Two typical parts, as [`flasher::estimate`] has them, and what may be done to them.

use flasher::device::{Geometry, Kind};
use flasher::estimate::{Done, Part};
use flasher::sim::cases::{Bound, Case, Clearing, bound};

/// A part.
#[derive(Clone, Copy)]
pub(crate) struct Sheet {
    pub(crate) kind: Kind,
    pub(crate) clearing: Clearing,
}

/// Serial NOR.
pub(crate) const SERIAL: Sheet = Sheet { kind: Kind::SpiNor, clearing: Clearing::Allowed };

/// Parallel NOR: the part whose pages must not be programmed twice.
pub(crate) const PARALLEL: Sheet = Sheet { kind: Kind::ParallelNor, clearing: Clearing::Forbidden };

impl Sheet {
    pub(crate) fn part(&self) -> Part {
        Part::typical(self.kind).expect("both kinds have a typical part")
    }

    /// Bytes of a program page, or of the write buffer.
    pub(crate) fn page(&self) -> u64 {
        self.part().page()
    }

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

    /// The least that a case can cost.
    pub(crate) fn bound(&self, geometry: &Geometry, case: &Case) -> Bound {
        let [block, page] =
            [geometry.erase_size, self.page()].map(|size| usize::try_from(size).expect("fits"));
        bound(block, page, self.clearing, &case.old, &case.image)
    }

    /// How long all of it takes, in seconds.
    pub(crate) fn seconds(&self, done: &Done) -> f64 {
        self.part().seconds(done)
    }
}
