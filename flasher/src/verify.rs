//! Reads back and proves: the whole body first, then the head is completed, and proven too.
//!
//! Every rewrite starts the proof of the whole body again: on a chip that wraps its addresses the rewrite of one
//! block destroys another that was right before.

use std::ops::Range;

use crate::decide::Step;
use crate::device::EraseBlock;
use crate::digest::Sha;
use crate::error::{Direction, Error};
use crate::event::{Phase, Retry};
use crate::execute::{Over, Work, program_failed, within};
use crate::retry;
use crate::source::ImageError;
use crate::survey::wanted;

/// A block is written again at most this often.
const REWRITES: u32 = 2;

/// Whether a pass over flash found everything as it shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Clean,
    Rewritten,
}

impl Work<'_> {
    /// Proves the body, completes the head, proves the head. Returns the SHA-256 of the image's bytes on flash.
    ///
    /// `survey_sha256` is the digest of the pass before the first change.
    pub(crate) fn prove_and_complete(&mut self, survey_sha256: &str) -> Result<String, Error> {
        let mut rewrites = 0;
        loop {
            let (mut pass, sha256, head) = self.prove_body(rewrites)?;
            if pass == Pass::Clean {
                self.expect_unchanged(survey_sha256, &sha256)?;
                pass = self.complete_head(rewrites, &head)?;
            }
            if pass == Pass::Clean {
                self.prove_aliases()?;
                let total = self.plan.range.end - self.plan.range.start;
                self.tell(Phase::Verify, total, total);
                return Ok(sha256);
            }
            rewrites += 1;
        }
    }

    /// The image is read several times: each time it must be the same.
    fn expect_unchanged(&self, first: &str, second: &str) -> Result<(), Error> {
        if first == second {
            return Ok(());
        }
        let name = self.source.name().to_owned();
        Err(ImageError::Changed { name, first: first.to_owned(), second: second.to_owned() }.into())
    }

    /// Returns the image's digest, and that of what the head's blocks shall hold.
    fn prove_body(&mut self, rewrites: u32) -> Result<(Pass, String, String), Error> {
        let (plan, geometry) = (self.plan, self.geometry);
        let late = plan.late_end(geometry);
        let (mut image_sha, mut head_sha) = (Sha::default(), Sha::default());
        let mut pass = Pass::Clean;
        let total = plan.range.end - plan.range.start;
        let mut done = 0;
        self.tell(Phase::Verify, 0, total);
        for (block, _) in plan.blocks(geometry) {
            let (_, want) = self.buffers.pair(block.len);
            let image = wanted(self.source, block, want)?;
            image_sha.update(&want[..image]);
            if block.start < late {
                head_sha.update(want);
                continue;
            }
            if self.prove(block, block.range(), rewrites)? == Pass::Rewritten {
                self.rewrite(block)?;
                pass = Pass::Rewritten;
            }
            // The last byte is told when the head is proven.
            done += block.len;
            self.tell(Phase::Verify, done.min(total.saturating_sub(1)), total);
        }
        Ok((pass, image_sha.hex(), head_sha.hex()))
    }

    /// Erases the head's blocks, the first one last, so that its zeros stand as long as any other erase can be cut
    /// off; programs them, the first granule last of all; proves them.
    fn complete_head(&mut self, rewrites: u32, expected: &str) -> Result<Pass, Error> {
        let (plan, geometry) = (self.plan, self.geometry);
        let (start, late) = (plan.range.start, plan.late_end(geometry));
        let blocks: Vec<(EraseBlock, Step)> =
            plan.blocks(geometry).take_while(|(block, _)| block.start < late).collect();
        for (block, step) in blocks.iter().rev() {
            if step.erases() && !self.erased_late.contains(&block.start) {
                self.erase(block.range(), 1)?;
            }
        }
        self.erased_late.clear();
        let head_end = start + plan.head_size;
        let first_end = (start + geometry.granule()).min(head_end);
        let parts = if geometry.programs_in_order() {
            blocks.iter().rev().map(|(block, _)| block.range()).collect()
        } else {
            vec![head_end..late, first_end..head_end, start..first_end]
        };
        for part in parts {
            let parts = || blocks.iter().map(|(block, step)| (*block, *step, overlap(*block, &part)));
            for (block, step, part) in parts().filter(|(.., part)| !part.is_empty()) {
                let again = self.rewritten.contains(&block.start);
                if step.programs() || again {
                    let over = if step == Step::Clear && !again { Over::Data } else { Over::Blank };
                    match self.write(block, part.clone(), over) {
                        Err(error) if program_failed(&error) && rewrites < REWRITES => {
                            self.retries += 1;
                            self.restart_head(&blocks)?;
                            return Ok(Pass::Rewritten);
                        }
                        written => written?,
                    }
                    self.count_written(&part);
                }
            }
            for (block, _, part) in parts().filter(|(.., part)| !part.is_empty()) {
                let (_, want) = self.buffers.pair(block.len);
                wanted(self.source, block, want)?;
                if self.prove(block, part, rewrites)? == Pass::Rewritten {
                    self.restart_head(&blocks)?;
                    return Ok(Pass::Rewritten);
                }
            }
        }
        // What was proven is what the image held just now: it must be what the body's pass saw.
        let mut sha = Sha::default();
        for (block, _) in &blocks {
            let (_, want) = self.buffers.pair(block.len);
            wanted(self.source, *block, want)?;
            sha.update(want);
        }
        self.expect_unchanged(expected, &sha.hex())?;
        Ok(Pass::Clean)
    }

    /// Erases all of the head's blocks at once: none stands valid while the body is proven again, and none is
    /// programmed twice between two erases.
    fn restart_head(&mut self, blocks: &[(EraseBlock, Step)]) -> Result<(), Error> {
        for (block, _) in blocks {
            self.tell_retry(block.start, Retry::Rewrite);
            self.rewritten.insert(block.start);
            self.erase(block.range(), 1)?;
            self.erased_late.insert(block.start);
        }
        Ok(())
    }

    /// Compares `part` of a block with what the buffers say it shall hold. Wrong bytes are read again, because a
    /// flaky bus is no bad block; if they stay wrong, the caller is to write the block again.
    fn prove(&mut self, block: EraseBlock, part: Range<u64>, rewrites: u32) -> Result<Pass, Error> {
        match self.wrong(block, &part)? {
            None => Ok(Pass::Clean),
            Some(wrong) if rewrites >= REWRITES => Err(self.mismatch(block, wrong, rewrites)),
            Some(_) => Ok(Pass::Rewritten),
        }
    }

    /// The first byte of `part` that is wrong in two readings, as its place in the block.
    fn wrong(&mut self, block: EraseBlock, part: &Range<u64>) -> Result<Option<usize>, Error> {
        if self.compare(block, part)?.is_none() {
            return Ok(None);
        }
        self.retries += 1;
        let again = self.compare(block, part)?;
        if again.is_none() {
            self.tell_retry(part.start, Retry::Reread);
        }
        Ok(again)
    }

    /// The first programmed block is read back at once, so that a chip that swallows everything is found after one
    /// block and not after the last.
    pub(crate) fn prove_first(&mut self, block: EraseBlock) -> Result<(), Error> {
        if self.wrong(block, &block.range())?.is_none() {
            return Ok(());
        }
        let before = self.have_sha(block);
        self.rewrite(block)?;
        let Some(wrong) = self.wrong(block, &block.range())? else { return Ok(()) };
        let (have, want) = self.buffers.pair(block.len);
        let many = have.iter().zip(&*want).filter(|(have, want)| have != want).count() > have.len() / 16;
        // A few wrong bytes are those of a bad block, not of one that takes nothing.
        if before != self.have_sha(block) || !many {
            return Err(self.mismatch(block, wrong, 1));
        }
        let offset = self.chip.place(block.start + wrong as u64);
        let what = match Direction::of(self.buffers.want[wrong], self.buffers.have[wrong]) {
            Direction::ReadsOne => "write",
            Direction::ReadsZero | Direction::Both => "erase",
        };
        Err(Error::Protected { what, offset })
    }

    fn have_sha(&mut self, block: EraseBlock) -> String {
        let mut sha = Sha::default();
        sha.update(self.buffers.pair(block.len).0);
        sha.hex()
    }

    /// Reads `part` of a block; the place of the first byte that is not the wanted one.
    fn compare(&mut self, block: EraseBlock, part: &Range<u64>) -> Result<Option<usize>, Error> {
        let bytes = within(block, part);
        let (have, want) = self.buffers.pair(block.len);
        let health = retry::read(self.chip, part.start, &mut have[bytes.clone()], &mut self.retries)?;
        self.ecc.add(health);
        self.operations.read += bytes.len() as u64;
        if have[bytes.clone()] == want[bytes.clone()] {
            // Right by chance, if ECC could not correct them.
            return Ok((health.failed > 0).then_some(bytes.start));
        }
        Ok(bytes.into_iter().find(|at| have[*at] != want[*at]))
    }

    fn mismatch(&self, block: EraseBlock, at: usize, rewrites: u32) -> Error {
        let (expected, found) = (self.buffers.want[at], self.buffers.have[at]);
        let offset = self.chip.place(block.start + at as u64);
        if expected == found {
            return Error::Uncorrectable { offset, rewrites };
        }
        let direction = Direction::of(expected, found);
        Error::Mismatch { offset, expected, found, direction, rewrites }
    }

    /// A chip (or a driver) that ignores an address line writes the head to a second place as well, after that place
    /// was proven: the places that one missing line would give are looked at again.
    fn prove_aliases(&mut self) -> Result<(), Error> {
        let (start, late) = (self.plan.range.start, self.plan.late_end(self.geometry));
        if late == start {
            return Ok(());
        }
        let mut distance = self.geometry.block_at(start).len.next_power_of_two();
        while start + distance < self.plan.range.end {
            let place = start + distance;
            distance *= 2;
            if place < late {
                continue;
            }
            let block = self.geometry.block_at(place);
            let (_, want) = self.buffers.pair(block.len);
            wanted(self.source, block, want)?;
            let end = (place + self.geometry.granule()).min(block.end());
            if let Some(wrong) = self.wrong(block, &(place..end))? {
                return Err(self.mismatch(block, wrong, 0));
            }
        }
        Ok(())
    }
}

/// The bytes of `range` that lie in a block; empty if none do.
fn overlap(block: EraseBlock, range: &Range<u64>) -> Range<u64> {
    let start = range.start.clamp(block.start, block.end());
    start..range.end.clamp(start, block.end())
}
