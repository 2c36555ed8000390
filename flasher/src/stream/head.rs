//! The head of a stream's image: looked at first, invalid while the body is written, completed last.

use super::chip::{REWRITES, Wrong};
use super::{Run, wanted};
use crate::decide::{Finding, Rules, Step, decide};
use crate::device::EraseBlock;
use crate::error::Error;
use crate::event::{Event, Retry};
use crate::execute::program_failed;
use crate::options::Mode;
use crate::plan::{Invalidation, plan_head};
use crate::readback::one_bit_beside;

/// Why the head is to be erased and written again.
enum Fault {
    Wrong(Wrong),
    Failed(Error),
}

impl Run<'_, '_> {
    /// The head's blocks with their part of the head's bytes.
    fn late_blocks(&self) -> Vec<(EraseBlock, std::ops::Range<usize>)> {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let blocks = self.chip.geometry.blocks(self.late.clone());
        blocks.map(|block| (block, index(block.start)..index(block.end()).min(self.head.len()))).collect()
    }

    /// Looks at what the head's blocks hold, and whether an earlier run was cut off.
    pub(super) fn survey_head(&mut self) -> Result<(), Error> {
        for (block, bytes) in self.late_blocks() {
            let want = &self.head[bytes.clone()];
            let looked_at = match self.job.options.mode {
                Mode::VerifyOnly => &want[..want.len().min(self.head_bytes.saturating_sub(bytes.start))],
                Mode::Write | Mode::DryRun => want,
            };
            let have = self.chip.compare(block.start, looked_at)?;
            self.findings.push(Finding { have, want: wanted(want) });
            self.differ(block, have);
        }
        // The same signs as in the survey of an image that can be read again.
        let geometry = self.chip.geometry.clone();
        let granule = usize::try_from(geometry.granule()).unwrap_or(usize::MAX).min(self.head.len());
        let (mut zero, mut blank, mut same) = (true, true, true);
        self.chip.look(0, &self.head[..granule], |have, want| {
            zero &= have.iter().all(|byte| *byte == 0);
            blank &= have.iter().all(|byte| *byte == 0xff);
            same &= have == want;
            false
        })?;
        self.zeroed = zero && !same;
        let mut interrupted = self.zeroed;
        if blank && !same && !interrupted {
            let first = geometry.block_at(0).end();
            let length = self.room.end.saturating_sub(first);
            interrupted = !geometry.clears_bits() || !self.chip.is_blank(first, length)?;
        }
        self.rules = Rules::new(&geometry, self.job.options, interrupted);
        Ok(())
    }

    /// Whether a block of the head behind its first is to be changed.
    pub(super) fn late_others_change(&self) -> bool {
        self.findings.iter().skip(1).any(|found| decide(*found, self.rules) != Step::Keep)
    }

    pub(super) fn decide_head(&mut self, others_change: bool) {
        if let Some(found) = self.findings.first() {
            let step = decide(*found, self.rules);
            self.head_step = plan_head(step, *found, self.zeroed, self.rules, others_change);
        }
    }

    /// Makes the old head invalid, and proves it.
    pub(super) fn invalidate(&mut self) -> Result<(), Error> {
        let block = self.chip.geometry.block_at(0);
        let erase_now = match self.head_step.1 {
            Invalidation::None | Invalidation::Void => false,
            Invalidation::Erase => true,
            // A chip that does not take the zeros is left to its erase, which tells what ails it.
            Invalidation::Zero => !self.chip.zero(block.start)?,
        };
        if erase_now {
            self.chip.erase(block)?;
            self.erased_head = true;
        }
        Ok(())
    }

    /// Erases the head's blocks, the first one last; programs them, the first granule last of all; proves them.
    pub(super) fn complete_head(&mut self) -> Result<(), Error> {
        let later: Vec<Step> = self.findings.iter().skip(1).map(|found| decide(*found, self.rules)).collect();
        self.start(self.late_others_change())?;
        let steps: Vec<Step> = std::iter::once(self.head_step.0).chain(later).collect();
        let blocks = self.late_blocks();
        for rewrites in 0..=REWRITES {
            let again = rewrites > 0;
            for (number, ((block, _), step)) in blocks.iter().zip(&steps).enumerate().rev() {
                if again {
                    let offset = self.chip.mtd.place(block.start);
                    self.job.progress.event(&Event::Retry { offset, what: Retry::Rewrite });
                }
                let is_erased = number == 0 && self.erased_head;
                if again || step.erases() && !is_erased {
                    self.chip.erase(*block)?;
                }
            }
            self.erased_head = false;
            match self.program_head(&steps, again)? {
                None => return self.prove_aliases(&steps, again),
                Some(Fault::Wrong(wrong)) if rewrites == REWRITES => return Err(wrong.error(rewrites)),
                Some(Fault::Failed(error)) if rewrites == REWRITES => return Err(error),
                Some(_) => self.chip.retries += 1,
            }
        }
        Ok(())
    }

    /// Behind the head's bytes, the head's bytes, the first granule: each programmed and proven before the next.
    fn program_head(&mut self, steps: &[Step], again: bool) -> Result<Option<Fault>, Error> {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.head.len());
        let (head_end, granule) = (index(self.head_size), index(self.chip.geometry.granule()));
        let first_end = granule.min(head_end);
        let blocks = self.late_blocks();
        let parts = if self.chip.geometry.programs_in_order() {
            blocks.iter().rev().map(|(_, bytes)| bytes.clone()).collect()
        } else {
            vec![head_end..self.head.len(), first_end..head_end, 0..first_end]
        };
        for part in parts {
            for prove in [false, true] {
                for ((_, bytes), step) in blocks.iter().zip(steps) {
                    let bytes = bytes.start.max(part.start)..bytes.end.min(part.end);
                    if bytes.is_empty() {
                        continue;
                    }
                    let (start, want) = (bytes.start as u64, &self.head[bytes]);
                    if prove {
                        if let Some(wrong) = self.chip.wrong(start, want)? {
                            return Ok(Some(Fault::Wrong(wrong)));
                        }
                    } else if step.programs() || again {
                        match self.chip.program(start, want, *step == Step::Clear && !again) {
                            Err(error) if program_failed(&error) => return Ok(Some(Fault::Failed(error))),
                            programmed => programmed?,
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    /// The head's blocks are changed after the body was proven: the body is looked at again where that would show if the
    /// chip or its driver ignores an address line, or erases more than it is told to.
    fn prove_aliases(&mut self, steps: &[Step], rewritten: bool) -> Result<(), Error> {
        let geometry = self.chip.geometry.clone();
        let body = self.late.end..self.end();
        let blocks = self.late_blocks();
        let heads = blocks.iter().map(|(block, _)| *block).zip(steps).enumerate();
        let changed = heads.filter(|(_, (_, step))| rewritten || **step != Step::Keep);
        let beside = one_bit_beside(&geometry, changed.map(|(number, (block, _))| (number, block)), &body);
        if beside.is_empty() {
            return Ok(());
        }
        // What an erase of the head took with it starts right behind it; what is blank there does not show it.
        for (number, block) in geometry.blocks(body).enumerate() {
            self.prove_block(block)?;
            if self.digests.get(number) != Some(&super::blank_digest(block.len)) {
                break;
            }
        }
        for start in beside.into_keys() {
            self.prove_block(geometry.block_at(start))?;
        }
        Ok(())
    }
}
