//! Carries a plan out: the old head invalid, then the body, and the head when [`crate::verify`] has proven the body.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::decide::{Step, is_blank};
use crate::device::{Ecc, EraseBlock, GRANULE, GRANULE_BYTES, Geometry, Mtd, MtdError};
use crate::error::Error;
use crate::event::{Event, Operations, Phase, Progress, Retry};
use crate::plan::{Invalidation, Plan, Summary, erase_at_once};
use crate::readback::Readback;
use crate::retry::{self, AGAIN};
use crate::source::Source;
use crate::survey::{Buffers, wanted};

/// At most this many bytes are programmed by one call, so that progress shows and a record stays fresh.
const AT_ONCE: usize = 32 * 1024;

/// The program page of serial NOR. The kernel does not tell it; parallel chips' write buffers are multiples of it, or
/// parts of it.
const PAGE: usize = 256;

/// A plan that is being carried out.
pub(crate) struct Work<'a> {
    pub(crate) chip: &'a mut dyn Mtd,
    pub(crate) source: &'a mut dyn Source,
    pub(crate) plan: &'a Plan,
    pub(crate) geometry: &'a Geometry,
    pub(crate) buffers: Buffers,
    pub(crate) progress: &'a mut dyn Progress,
    pub(crate) operations: Operations,
    /// What failed or was wrong and was read, erased or written again.
    pub(crate) retries: u64,
    /// What ECC said.
    pub(crate) ecc: Ecc,
    /// Blocks that were erased a second time: whatever their step says, all of them is to be programmed.
    pub(crate) rewritten: BTreeSet<u64>,
    /// The head's blocks that are erased and not programmed yet.
    pub(crate) erased_late: BTreeSet<u64>,
    /// What of the body is read back.
    pub(crate) readback: Readback,
    /// Of each of the head's blocks a granule that holds data: its place in the block, and its bytes.
    pub(crate) head_samples: Vec<(usize, Vec<u8>)>,
    /// The first bytes of the run that were programmed.
    pub(crate) first_run: Option<Range<u64>>,
    /// The first byte behind everything that was erased or programmed, or was to be.
    pub(crate) touched: u64,
    summary: Summary,
    erased: u64,
    written: u64,
    erase_is_proven: bool,
    write_is_proven: bool,
}

/// What a block holds when it is programmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// 0xff in every byte of the part.
    Blank,
    /// Data from which the wanted bytes are reached by clearing bits.
    Data,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        chip: &'a mut dyn Mtd,
        source: &'a mut dyn Source,
        plan: &'a Plan,
        geometry: &'a Geometry,
        buffers: Buffers,
        progress: &'a mut dyn Progress,
        readback: Readback,
    ) -> Self {
        Self {
            chip,
            source,
            plan,
            geometry,
            buffers,
            progress,
            operations: Operations::default(),
            retries: 0,
            ecc: Ecc::default(),
            rewritten: BTreeSet::new(),
            erased_late: BTreeSet::new(),
            readback,
            head_samples: Vec::new(),
            first_run: None,
            touched: 0,
            summary: plan.summary(geometry),
            erased: 0,
            written: 0,
            erase_is_proven: false,
            write_is_proven: false,
        }
    }

    /// Makes the old head invalid, and proves it: from here on no boot loader takes the image for a whole one.
    pub(crate) fn invalidate(&mut self) -> Result<(), Error> {
        // A phase with nothing to do is complete from the start.
        self.tell(Phase::Erase, self.erased, self.summary.erases);
        self.tell(Phase::Write, self.written, self.summary.program_bytes);
        let block = self.geometry.block_at(self.plan.range.start);
        let erase_now = match self.plan.invalidation {
            Invalidation::None | Invalidation::Void => false,
            Invalidation::Erase => true,
            // A chip that does not take the zeros is left to its erase, which tells what ails it.
            Invalidation::Zero => !self.zero(block.start)?,
        };
        if erase_now {
            self.erase(block.range(), 1)?;
            self.erased_late.insert(block.start);
        }
        Ok(())
    }

    /// Programs one granule to zero; whether it reads so.
    fn zero(&mut self, offset: u64) -> Result<bool, Error> {
        let zeros = [0; GRANULE_BYTES];
        let mut found = [0xff; GRANULE_BYTES];
        self.touched = self.touched.max(offset + GRANULE);
        if self.chip.program(offset, &zeros).is_err() {
            return Ok(false);
        }
        self.operations.programmed += GRANULE;
        self.reads(offset, &mut found, |found| found == zeros)
    }

    /// Erases and programs every block behind the head's. Neighbouring blocks are erased by one call.
    pub(crate) fn body(&mut self) -> Result<(), Error> {
        let (plan, geometry) = (self.plan, self.geometry);
        let late = plan.late_end(geometry);
        let mut blocks = plan.blocks(geometry).skip_while(|(block, _)| block.start < late).peekable();
        while let Some((block, step)) = blocks.next() {
            if !step.erases() {
                self.write_block(block, step)?;
                continue;
            }
            let limit = erase_at_once(block.len);
            let (mut end, mut group) = (block.end(), vec![(block, step)]);
            while let Some(next) = blocks.next_if(|(next, step)| {
                step.erases() && next.len == block.len && next.end() - block.start <= limit
            }) {
                end = next.0.end();
                group.push(next);
            }
            self.erase(block.start..end, group.len() as u64)?;
            for (block, step) in group {
                self.write_block(block, step)?;
            }
        }
        Ok(())
    }

    fn write_block(&mut self, block: EraseBlock, step: Step) -> Result<(), Error> {
        if !step.programs() {
            return Ok(());
        }
        let over = if step == Step::Clear { Over::Data } else { Over::Blank };
        let written = self.write(block, block.range(), over);
        self.settle(block, written)?;
        self.count_written(&block.range());
        if !self.write_is_proven {
            self.write_is_proven = true;
            self.prove_first(block)?;
        }
        Ok(())
    }

    /// A program that failed leaves any part of its bytes: the block is erased and written again, twice at most.
    fn settle(&mut self, block: EraseBlock, mut result: Result<(), Error>) -> Result<(), Error> {
        for _ in 0..AGAIN {
            if !result.as_ref().is_err_and(program_failed) {
                break;
            }
            self.retries += 1;
            result = self.rewrite_once(block);
        }
        result
    }

    /// Erases a block and writes all of it.
    pub(crate) fn rewrite(&mut self, block: EraseBlock) -> Result<(), Error> {
        let result = self.rewrite_once(block);
        self.settle(block, result)
    }

    fn rewrite_once(&mut self, block: EraseBlock) -> Result<(), Error> {
        self.tell_retry(block.start, Retry::Rewrite);
        self.erase(block.range(), 1)?;
        self.write(block, block.range(), Over::Blank)
    }

    pub(crate) fn tell_retry(&mut self, offset: u64, what: Retry) {
        let offset = self.chip.place(offset);
        self.progress.event(&Event::Retry { offset, what });
    }

    pub(crate) fn count_written(&mut self, part: &Range<u64>) {
        self.written = (self.written + part.end - part.start).min(self.summary.program_bytes);
        self.tell(Phase::Write, self.written, self.summary.program_bytes);
    }

    /// Programs what differs in `part` of a block, in whole granules.
    pub(crate) fn write(&mut self, block: EraseBlock, part: Range<u64>, over: Over) -> Result<(), Error> {
        let (have, want) = self.buffers.pair(block.len);
        wanted(self.source, block, want)?;
        let part = within(block, &part);
        have.fill(0xff);
        if over == Over::Data {
            let offset = block.start + part.start as u64;
            self.ecc.add(retry::read(self.chip, offset, &mut have[part.clone()], &mut self.retries)?);
            self.operations.read += part.len() as u64;
        }
        let granule = usize::try_from(self.geometry.granule()).unwrap_or(usize::MAX);
        let mut at = part.start;
        while let Some(run) = next_run(have, want, at..part.end, granule) {
            at = run.end;
            self.touched = self.touched.max(block.start + run.end as u64);
            self.chip.program(block.start + run.start as u64, &want[run.clone()])?;
            self.operations.programmed += run.len() as u64;
            let start = block.start + run.start as u64;
            self.first_run.get_or_insert(start..start + run.len().min(PAGE) as u64);
            // Nothing of the plan is done yet, but the record of a slow block stays fresh.
            self.progress.event(&Event::Progress {
                phase: Phase::Write,
                done: self.written,
                total: self.summary.program_bytes,
                operations: self.operations,
            });
        }
        Ok(())
    }

    /// Erases `count` blocks. The first erase of a run is looked at: a protected chip swallows it without an error.
    pub(crate) fn erase(&mut self, range: Range<u64>, count: u64) -> Result<(), Error> {
        let start = range.start;
        self.touched = self.touched.max(range.end);
        retry::erase(self.chip, &range, &mut self.retries)?;
        self.operations.erases += count;
        self.erased = (self.erased + count).min(self.summary.erases);
        self.tell(Phase::Erase, self.erased, self.summary.erases);
        if !self.erase_is_proven {
            self.erase_is_proven = true;
            let mut head = vec![0; usize::try_from(self.geometry.granule()).unwrap_or(usize::MAX)];
            if !self.reads(start, &mut head, is_blank)? {
                return Err(Error::Protected { what: "erase", offset: self.chip.place(start) });
            }
        }
        Ok(())
    }

    /// Whether bytes read as they should. They are read again if not: a flaky bus is no protected chip.
    fn reads(&mut self, offset: u64, bytes: &mut [u8], right: impl Fn(&[u8]) -> bool) -> Result<bool, Error> {
        for _ in 0..2 {
            let health = retry::read(self.chip, offset, bytes, &mut self.retries)?;
            self.ecc.add(health);
            self.operations.read += bytes.len() as u64;
            if right(bytes) && health.failed == 0 {
                return Ok(true);
            }
            self.retries += 1;
        }
        Ok(false)
    }

    pub(crate) fn tell(&mut self, phase: Phase, done: u64, total: u64) {
        self.progress.event(&Event::Progress { phase, done, total, operations: self.operations });
    }
}

/// Whether an error is that of programming, and may pass.
pub(crate) fn program_failed(error: &Error) -> bool {
    matches!(error, Error::Chip(error @ MtdError::Program { .. }) if error.is_transient())
}

/// A range of the device as one of its block's bytes.
pub(crate) fn within(block: EraseBlock, part: &Range<u64>) -> Range<usize> {
    let offset = |at: u64| usize::try_from(at.saturating_sub(block.start)).unwrap_or(usize::MAX);
    offset(part.start)..offset(part.end)
}

/// The next run of whole granules in `part` to be programmed, of at most [`AT_ONCE`] bytes (or one granule). What
/// lies between two granules of one page that differ is programmed with its own value, so that each page is
/// programmed once, and none that has nothing to change.
pub(crate) fn next_run(have: &[u8], want: &[u8], part: Range<usize>, granule: usize) -> Option<Range<usize>> {
    let differs = |at: &usize| {
        let granule = *at..at.saturating_add(granule).min(part.end);
        have[granule.clone()] != want[granule]
    };
    let start = (part.start..part.end).step_by(granule).find(differs)?;
    // Cut at multiples, so that no page is cut.
    let at_once = (AT_ONCE / granule).max(1) * granule;
    let limit = (start / at_once).saturating_add(1).saturating_mul(at_once).min(part.end);
    let mut end = start;
    for at in (start..limit).step_by(granule) {
        if differs(&at) {
            end = at.saturating_add(granule).min(part.end);
        } else if at / PAGE != (end - 1) / PAGE {
            break;
        }
    }
    Some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(have: &[u8], want: &[u8], part: Range<usize>) -> Vec<Range<usize>> {
        let mut at = part.start;
        std::iter::from_fn(|| {
            let run = next_run(have, want, at..part.end, 16)?;
            at = run.end;
            Some(run)
        })
        .collect()
    }

    #[test]
    fn a_page_with_something_to_change_is_programmed_once_and_no_other_page() {
        let have = vec![0xff; 5 * PAGE];
        let mut want = have.clone();
        assert!(runs(&have, &want, 0..have.len()).is_empty());
        want[17] = 0;
        want[40] = 0;
        want[200] = 0;
        want[PAGE + 250] = 0;
        want[4 * PAGE] = 0;
        assert_eq!(
            runs(&have, &want, 0..have.len()),
            [16..208, PAGE + 240..2 * PAGE, 4 * PAGE..4 * PAGE + 16]
        );
        assert_eq!(next_run(&have, &want, 32..112, 16), Some(32..48));
        want[255] = 0;
        want[256] = 0;
        assert_eq!(next_run(&have, &want, 0..2 * PAGE, 16), Some(16..2 * PAGE));
    }

    #[test]
    fn long_runs_are_cut_between_pages_so_that_progress_shows() {
        let (have, want) = (vec![0xff; 2 * AT_ONCE + 32], vec![0; 2 * AT_ONCE + 32]);
        assert_eq!(
            runs(&have, &want, 16..have.len()),
            [16..AT_ONCE, AT_ONCE..2 * AT_ONCE, 2 * AT_ONCE..2 * AT_ONCE + 32]
        );
    }
}
