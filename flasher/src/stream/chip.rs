//! One block at a time: look, erase, program, prove, with pieces of a few KiB in memory.

use crate::decide::{Comparison, Have, Step, is_blank};
use crate::device::{Ecc, EraseBlock, GRANULE_BYTES, Geometry, Kind, Mtd, MtdError};
use crate::error::{Direction, Error};
use crate::event::{Event, Operations, Progress, Retry};
use crate::execute::{next_run, program_failed};
use crate::retry;

/// A block is written again at most this often.
pub(super) const REWRITES: u32 = 2;

/// What a block is compared and programmed by, in bytes (or one page, if that is more).
const PIECE: usize = 4096;

/// The chip with what was done to it.
pub(super) struct Chip<'a> {
    pub(super) mtd: &'a mut dyn Mtd,
    pub(super) geometry: Geometry,
    pub(super) operations: Operations,
    /// Readings that were wrong once, and blocks that were written again.
    pub(super) retries: u64,
    /// What ECC said.
    pub(super) ecc: Ecc,
    /// A page of the last look was beyond correction.
    pub(super) unreadable: bool,
    /// The first byte behind everything that was erased or programmed, or was to be.
    pub(super) touched: u64,
    /// A page of the last look had as many flipped bits as the chip's threshold.
    flipping: bool,
    piece: Vec<u8>,
    erase_is_proven: bool,
    write_is_proven: bool,
}

/// A byte that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrong {
    offset: u64,
    expected: u8,
    found: u8,
}

impl Wrong {
    pub(super) fn error(self, rewrites: u32) -> Error {
        let Self { offset, expected, found } = self;
        if expected == found {
            return Error::Uncorrectable { offset, rewrites };
        }
        Error::Mismatch { offset, expected, found, direction: Direction::of(expected, found), rewrites }
    }
}

impl<'a> Chip<'a> {
    pub(super) fn new(mtd: &'a mut dyn Mtd) -> Self {
        let geometry = mtd.geometry().clone();
        let page = usize::try_from(geometry.write_size).unwrap_or(PIECE);
        // Flipped bits count page by page.
        let piece = if geometry.kind == Kind::Nand { page.max(1) } else { PIECE.max(page) };
        Self {
            mtd,
            geometry,
            operations: Operations::default(),
            retries: 0,
            ecc: Ecc::default(),
            unreadable: false,
            touched: 0,
            flipping: false,
            piece: vec![0; piece],
            erase_is_proven: false,
            write_is_proven: false,
        }
    }

    /// Reads up to one piece and hands it over.
    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], MtdError> {
        let piece = &mut self.piece[..length];
        let health = retry::read(self.mtd, offset, piece, &mut self.retries)?;
        self.ecc.add(health);
        self.unreadable |= health.failed > 0;
        self.operations.read += length as u64;
        let (range, read) = (offset..offset + length as u64, &mut self.operations.read);
        self.flipping |= retry::is_flipping(self.mtd, range, health, &mut self.retries, read)?;
        Ok(piece)
    }

    /// Calls `look` with each piece of `want` and what flash holds there, until it says that this is enough.
    pub(super) fn look(
        &mut self,
        start: u64,
        want: &[u8],
        mut look: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), MtdError> {
        (self.unreadable, self.flipping) = (false, false);
        let mut at = start;
        for want in want.chunks(self.piece.len()) {
            if look(self.read(at, want.len())?, want) {
                break;
            }
            at += want.len() as u64;
        }
        Ok(())
    }

    /// What flash holds beside what it shall hold.
    pub(super) fn compare(&mut self, start: u64, want: &[u8]) -> Result<Have, MtdError> {
        let mut comparison = Comparison::default();
        self.look(start, want, |have, want| {
            comparison.take(have, want);
            comparison.is_decided()
        })?;
        Ok(match comparison.answer() {
            _ if self.unreadable => Have::MustErase,
            Have::Same if self.flipping => {
                self.ecc.refreshed += 1;
                Have::Flipping
            }
            have => have,
        })
    }

    /// Whether every byte of `length` reads 0xff.
    pub(super) fn is_blank(&mut self, start: u64, length: u64) -> Result<bool, MtdError> {
        let mut at = start;
        while at < start + length {
            let piece = usize::try_from(start + length - at).unwrap_or(usize::MAX).min(self.piece.len());
            if !is_blank(self.read(at, piece)?) {
                return Ok(false);
            }
            at += piece as u64;
        }
        Ok(true)
    }

    /// Hands over all of a block.
    pub(super) fn read_all(
        &mut self,
        block: EraseBlock,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), MtdError> {
        (self.unreadable, self.flipping) = (false, false);
        let mut at = block.start;
        while at < block.end() {
            let piece = usize::try_from(block.end() - at).unwrap_or(usize::MAX).min(self.piece.len());
            take(self.read(at, piece)?);
            at += piece as u64;
        }
        Ok(())
    }

    /// Erases a block. The first erase is looked at: a protected chip swallows it without an error.
    pub(super) fn erase(&mut self, block: EraseBlock) -> Result<(), Error> {
        self.touched = self.touched.max(block.end());
        retry::erase(self.mtd, &block.range(), &mut self.retries)?;
        self.operations.erases += 1;
        if !self.erase_is_proven {
            self.erase_is_proven = true;
            let granule = self.geometry.granule();
            // Read again if wrong: a flaky bus is no protected chip.
            if !self.is_blank(block.start, granule)? && !self.is_blank(block.start, granule)? {
                return Err(Error::Protected { what: "erase", offset: self.mtd.place(block.start) });
            }
        }
        Ok(())
    }

    /// Programs one granule to zero; whether it reads so.
    pub(super) fn zero(&mut self, offset: u64) -> Result<bool, Error> {
        let zeros = [0; GRANULE_BYTES];
        self.touched = self.touched.max(offset + zeros.len() as u64);
        if self.mtd.program(offset, &zeros).is_err() {
            return Ok(false);
        }
        self.operations.programmed += zeros.len() as u64;
        Ok(self.wrong(offset, &zeros)?.is_none())
    }

    /// Programs whole granules, those that differ. Over blank flash nothing is read first.
    pub(super) fn program(&mut self, start: u64, want: &[u8], over_data: bool) -> Result<(), Error> {
        let granule = usize::try_from(self.geometry.granule()).unwrap_or(usize::MAX);
        let mut start = start;
        for want in want.chunks(self.piece.len()) {
            if over_data {
                self.read(start, want.len())?;
            } else {
                self.piece.fill(0xff);
            }
            let mut at = 0;
            while let Some(run) = next_run(&self.piece, want, at..want.len(), granule) {
                at = run.end;
                self.touched = self.touched.max(start + run.end as u64);
                self.mtd.program(start + run.start as u64, &want[run.clone()])?;
                self.operations.programmed += run.len() as u64;
            }
            start += want.len() as u64;
        }
        Ok(())
    }

    /// The first byte that is wrong in two readings.
    pub(super) fn wrong(&mut self, start: u64, want: &[u8]) -> Result<Option<Wrong>, Error> {
        for again in [false, true] {
            let (mut wrong, mut at) = (None, start);
            self.look(start, want, |have, want| {
                let found = have.iter().zip(want).position(|(have, want)| have != want);
                wrong = found.map(|place| Wrong {
                    offset: at + place as u64,
                    expected: want[place],
                    found: have[place],
                });
                at += want.len() as u64;
                wrong.is_some()
            })?;
            if let (None, true, Some(byte)) = (wrong, self.unreadable, want.first()) {
                // Right by chance.
                wrong = Some(Wrong { offset: start, expected: *byte, found: *byte });
            }
            let wrong = wrong.map(|wrong| Wrong { offset: self.mtd.place(wrong.offset), ..wrong });
            match wrong {
                None => return Ok(None),
                Some(wrong) if again => return Ok(Some(wrong)),
                Some(_) => self.retries += 1,
            }
        }
        Ok(None)
    }

    /// Carries out one block's step and proves it, at once: its bytes cannot be had again.
    pub(super) fn put(
        &mut self,
        block: EraseBlock,
        step: Step,
        want: &[u8],
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let (mut before, mut failed) = (None, None);
        for rewrites in 0..=REWRITES {
            let again = rewrites > 0;
            if again {
                let offset = self.mtd.place(block.start);
                progress.event(&Event::Retry { offset, what: Retry::Rewrite });
            }
            if step.erases() || again {
                self.erase(block)?;
            }
            if step.programs() || again {
                match self.program(block.start, want, step == Step::Clear && !again) {
                    // Any part of the bytes may be there: the block is erased and written again.
                    Err(error) if program_failed(&error) => {
                        self.retries += 1;
                        failed = Some(error);
                        continue;
                    }
                    programmed => programmed?,
                }
                failed = None;
            }
            let Some(wrong) = self.wrong(block.start, want)? else {
                self.write_is_proven = true;
                return Ok(());
            };
            if !self.write_is_proven && before == Some(wrong) {
                let what = match Direction::of(wrong.expected, wrong.found) {
                    Direction::ReadsOne => "write",
                    Direction::ReadsZero | Direction::Both => "erase",
                };
                return Err(Error::Protected { what, offset: wrong.offset });
            }
            before = Some(wrong);
        }
        match (failed, before) {
            (Some(error), _) => Err(error),
            (None, Some(wrong)) => Err(wrong.error(REWRITES)),
            (None, None) => Ok(()),
        }
    }
}
