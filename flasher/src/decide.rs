//! What one erase block needs: a pure function of what it holds, what it shall hold, and what the chip allows.

use crate::device::{Geometry, Kind};
use crate::options::{ClearBits, Extent, Options};

/// What a block holds today, beside what it shall hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Have {
    /// What it shall hold, to the last byte.
    Same,
    /// What it shall hold, but so many of its bits have flipped that ECC may soon not correct them (NAND).
    Flipping,
    /// 0xff in every byte, and something else is wanted.
    Blank,
    /// Something else, from which the wanted bytes can be reached by clearing bits alone.
    OnlyClears,
    /// Something else; at least one bit must go from 0 to 1.
    MustErase,
}

/// What a block shall hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Bytes of which at least one is not 0xff.
    Data,
    /// 0xff in every byte.
    Blank,
}

/// A block as the survey found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// What it holds.
    pub have: Have,
    /// What it shall hold.
    pub want: Want,
}

/// Whether a block that reads 0xff is erased. A block whose erase was cut off can read 0xff and lose bits later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blank {
    /// It is: nothing speaks of an interrupted run.
    Trusted,
    /// It is erased again before it is programmed: the chip hides flipped bits in erased pages (NAND).
    NotForData,
    /// It may not be: it is erased again whatever it shall hold.
    Untrusted,
}

/// What the chip and the user allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether a block that reads 0xff may be programmed as it is.
    pub blank: Blank,
    /// Whether bits may be cleared in a block that holds data.
    pub clear_in_place: bool,
    /// Whether an old head may be zeroed before its block is erased. That needs no leave on parallel NOR: the erase
    /// that follows puts the page's ECC right again.
    pub zero_in_place: bool,
    /// Which blocks are rewritten.
    pub extent: Extent,
}

impl Rules {
    /// The rules for a chip. `interrupted` says that the survey found the traces of a run that was cut off.
    #[must_use]
    pub fn new(geometry: &Geometry, options: &Options, interrupted: bool) -> Self {
        let zero_in_place = geometry.clears_bits();
        let allowed = geometry.kind == Kind::SpiNor || options.clear_bits == ClearBits::Allow;
        let clear_in_place = zero_in_place && allowed;
        let blank = match (interrupted, zero_in_place) {
            (true, _) => Blank::Untrusted,
            (false, true) => Blank::Trusted,
            (false, false) => Blank::NotForData,
        };
        // A page whose programming was cut off can read right today and not tomorrow, and nothing tells which one.
        let extent = match (interrupted, geometry.kind) {
            (true, Kind::Nand) => Extent::Full,
            _ => options.extent,
        };
        Self { blank, clear_in_place, zero_in_place, extent }
    }
}

/// What is done to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Program what is not 0xff; the block is erased already.
    Program,
    /// Program the runs that differ, over the data that is there.
    Clear,
    /// Erase; nothing is to be programmed.
    Erase,
    /// Erase, then program what is not 0xff.
    EraseProgram,
}

impl Step {
    /// Whether it erases.
    #[must_use]
    pub fn erases(self) -> bool {
        matches!(self, Self::Erase | Self::EraseProgram)
    }

    /// Whether it programs.
    #[must_use]
    pub fn programs(self) -> bool {
        matches!(self, Self::Program | Self::Clear | Self::EraseProgram)
    }
}

/// The cheapest step that leaves the wanted bytes, and only bytes that can be trusted.
#[must_use]
pub fn decide(found: Finding, rules: Rules) -> Step {
    let rewrite = match found.want {
        Want::Data => Step::EraseProgram,
        Want::Blank => Step::Erase,
    };
    if rules.extent == Extent::Full {
        return rewrite;
    }
    match (found.have, found.want, rules.blank) {
        (Have::Same, Want::Data, _) | (Have::Same, Want::Blank, Blank::Trusted | Blank::NotForData) => {
            Step::Keep
        }
        (Have::Blank, Want::Data, Blank::Trusted) => Step::Program,
        // Where an erase was cut off inside the block, what reads 1 may be as weak as in a blank one.
        (Have::OnlyClears, Want::Data, Blank::Trusted) if rules.clear_in_place => Step::Clear,
        _ => rewrite,
    }
}

/// What a block holds beside what it shall hold, taken in pieces: once a bit must go from 0 to 1 the rest of the
/// block need not be read.
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    same: bool,
    blank: bool,
    clears: bool,
}

impl Default for Comparison {
    fn default() -> Self {
        Self { same: true, blank: true, clears: true }
    }
}

impl Comparison {
    /// Takes the next bytes into account.
    pub fn take(&mut self, have: &[u8], want: &[u8]) {
        self.same &= have == want;
        self.blank &= is_blank(have);
        self.clears &= have.iter().zip(want).all(|(have, want)| have & want == *want);
    }

    /// Some of the bytes could not be read: whatever they were, the block is to be erased.
    pub fn take_unreadable(&mut self) {
        *self = Self { same: false, blank: false, clears: false };
    }

    /// Whether nothing that follows can change the answer.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        !self.clears
    }

    /// The same for a block in which no bits may be cleared: once it is another one than the image's, and not blank,
    /// it is erased whatever follows.
    #[must_use]
    pub fn is_decided_without_clearing(&self) -> bool {
        self.is_decided() || !self.same && !self.blank
    }

    /// The answer for the bytes taken so far.
    #[must_use]
    pub fn answer(&self) -> Have {
        match () {
            () if self.same => Have::Same,
            () if self.blank => Have::Blank,
            () if self.clears => Have::OnlyClears,
            () => Have::MustErase,
        }
    }
}

/// Whether every byte is 0xff.
#[must_use]
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Rules = Rules {
        blank: Blank::Trusted,
        clear_in_place: false,
        zero_in_place: true,
        extent: Extent::Differing,
    };

    fn step(have: Have, want: Want, rules: Rules) -> Step {
        decide(Finding { have, want }, rules)
    }

    #[test]
    fn each_block_gets_the_cheapest_step_that_leaves_the_wanted_bytes() {
        let clear = Rules { clear_in_place: true, ..PLAIN };
        let table = [
            (Have::Same, Want::Data, Step::Keep, Step::Keep),
            (Have::Same, Want::Blank, Step::Keep, Step::Keep),
            (Have::Blank, Want::Data, Step::Program, Step::Program),
            (Have::OnlyClears, Want::Data, Step::EraseProgram, Step::Clear),
            (Have::MustErase, Want::Data, Step::EraseProgram, Step::EraseProgram),
            (Have::MustErase, Want::Blank, Step::Erase, Step::Erase),
            (Have::Flipping, Want::Data, Step::EraseProgram, Step::EraseProgram),
            (Have::Flipping, Want::Blank, Step::Erase, Step::Erase),
        ];
        for (have, want, plain, clearing) in table {
            assert_eq!(step(have, want, PLAIN), plain, "{have:?} {want:?}");
            assert_eq!(step(have, want, clear), clearing, "{have:?} {want:?}, clearing allowed");
        }
    }

    #[test]
    fn blank_blocks_are_erased_again_after_an_interrupted_run() {
        let rules = Rules { blank: Blank::Untrusted, ..PLAIN };
        assert_eq!(step(Have::Blank, Want::Data, rules), Step::EraseProgram);
        assert_eq!(step(Have::Same, Want::Blank, rules), Step::Erase);
        assert_eq!(step(Have::Same, Want::Data, rules), Step::Keep);
        // What of the block reads 1 may be as weak as in a blank one.
        let rules = Rules { clear_in_place: true, ..rules };
        assert_eq!(step(Have::OnlyClears, Want::Data, rules), Step::EraseProgram);
    }

    #[test]
    fn full_rewrites_what_is_the_same_too() {
        let rules = Rules { extent: Extent::Full, clear_in_place: true, ..PLAIN };
        assert_eq!(step(Have::Same, Want::Data, rules), Step::EraseProgram);
        assert_eq!(step(Have::Same, Want::Blank, rules), Step::Erase);
        assert_eq!(step(Have::Blank, Want::Data, rules), Step::EraseProgram);
    }

    #[test]
    fn bits_are_cleared_in_place_on_serial_nor_and_elsewhere_only_by_leave() {
        let chip = |kind, write_size, bit_writeable| Geometry {
            kind,
            size: 1 << 20,
            erase_size: 1 << 16,
            write_size,
            bit_writeable,
            writeable: true,
            regions: Vec::new(),
        };
        let allowed = |geometry: &Geometry, clear_bits| {
            Rules::new(geometry, &Options { clear_bits, ..Options::default() }, false).clear_in_place
        };
        let default = ClearBits::WhereSafe;
        assert!(allowed(&chip(Kind::SpiNor, 1, true), default));
        assert!(!allowed(&chip(Kind::SpiNor, 1, false), default));
        assert!(!allowed(&chip(Kind::SpiNor, 16, true), default));
        assert!(!allowed(&chip(Kind::ParallelNor, 1, true), default));
        assert!(allowed(&chip(Kind::ParallelNor, 1, true), ClearBits::Allow));
        assert!(!allowed(&chip(Kind::Nand, 2048, false), ClearBits::Allow));
        let nand = Rules::new(&chip(Kind::Nand, 2048, false), &Options::default(), false);
        assert_eq!(nand.blank, Blank::NotForData);
        assert_eq!(step(Have::Blank, Want::Data, nand), Step::EraseProgram);
        assert_eq!(step(Have::Same, Want::Blank, nand), Step::Keep);
        let nand = Rules::new(&chip(Kind::Nand, 2048, false), &Options::default(), true);
        assert_eq!(step(Have::Same, Want::Data, nand), Step::EraseProgram);
    }

    #[test]
    fn a_comparison_is_decided_by_one_bit_that_must_be_set() {
        let have = |have: &[u8], want: &[u8]| {
            let mut comparison = Comparison::default();
            comparison.take(have, want);
            (comparison.answer(), comparison.is_decided())
        };
        assert_eq!(have(&[1, 2], &[1, 2]), (Have::Same, false));
        assert_eq!(have(&[0xff, 0xff], &[0xff, 0xff]), (Have::Same, false));
        assert_eq!(have(&[0xff, 0xff], &[0xff, 0]), (Have::Blank, false));
        assert_eq!(have(&[0xf0, 0xff], &[0x30, 0]), (Have::OnlyClears, false));
        assert_eq!(have(&[0xf0, 0xff], &[0x31, 0]), (Have::MustErase, true));
        let mut unreadable = Comparison::default();
        unreadable.take(&[1], &[1]);
        unreadable.take_unreadable();
        assert_eq!((unreadable.answer(), unreadable.is_decided()), (Have::MustErase, true));
    }
}
