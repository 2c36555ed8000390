//! Reads back and proves: the body first, as [`Readback`] chooses, then the head is completed, and proven too.
//!
//! Every rewrite starts the proof again, of all of the body: on a chip that wraps its addresses the rewrite of one
//! block destroys another that was right before.
//!
//! [`Readback`]: crate::readback::Readback

use std::ops::Range;

use crate::decide::Step;
use crate::device::{EraseBlock, Geometry};
use crate::digest::Sha;
use crate::error::{Direction, Error};
use crate::event::{Phase, Retry};
use crate::execute::{Over, Work, program_failed, within};
use crate::readback::{Beside, Extent, Reading, Reason, first_data};
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
    /// Proves the body, completes the head, proves the head. Returns the SHA-256 of the image, each of whose bytes was
    /// compared with the flash: those of the kept blocks at least by the survey, all others after the last change.
    ///
    /// `survey_sha256` is the digest of the pass before the first change.
    pub(crate) fn prove_and_complete(&mut self, survey_sha256: &str) -> Result<String, Error> {
        let mut rewrites = 0;
        loop {
            if rewrites > 0 || self.retries > 0 {
                self.readback.extent = Extent::Everything(Reason::Retried);
            }
            let extent = self.readback.extent;
            let (mut pass, sha256, head) = self.prove_body(rewrites)?;
            if pass == Pass::Clean && extent == Extent::Changes && self.retries > 0 {
                // A reading that was wrong once: what was not read is read now.
                continue;
            }
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
        self.head_samples.clear();
        let total = plan.range.end - plan.range.start;
        let mut done = 0;
        self.tell(Phase::Verify, 0, total);
        for (number, (block, _)) in plan.blocks(geometry).enumerate() {
            let (_, want) = self.buffers.pair(block.len);
            let image = wanted(self.source, block, want)?;
            image_sha.update(&want[..image]);
            if block.start < late {
                head_sha.update(want);
                self.head_samples.push(sample(geometry, want));
                continue;
            }
            let parts = match self.readback.body(geometry, &plan.steps, number, block, want) {
                Reading::Whole => vec![block.range()],
                Reading::Granules(granules) => granules,
            };
            for part in parts {
                if self.prove(block, part, rewrites)? == Pass::Rewritten {
                    self.rewrite(block)?;
                    pass = Pass::Rewritten;
                    break;
                }
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

    /// The first programmed bytes are read back at once, so that a chip that swallows everything is found after one
    /// block and not after the last.
    pub(crate) fn prove_first(&mut self, block: EraseBlock) -> Result<(), Error> {
        let first = self.first_run.clone().unwrap_or(block.range());
        if self.wrong(block, &overlap(block, &first))?.is_none() {
            return Ok(());
        }
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

    /// The head's blocks are changed after the body was proven: the body is looked at again where that would show if
    /// the chip or its driver ignores an address line, or erases more than it is told to.
    fn prove_aliases(&mut self) -> Result<(), Error> {
        let (plan, geometry) = (self.plan, self.geometry);
        let is_changed =
            |block: EraseBlock, step| step != Step::Keep || self.rewritten.contains(&block.start);
        let beside = self.readback.beside_the_head(geometry, plan, is_changed);
        if beside.is_empty() {
            return Ok(());
        }
        // What an erase of the head took with it starts right behind it.
        for block in geometry.blocks(plan.late_end(geometry)..plan.range.end) {
            if self.prove_data(block)? {
                break;
            }
        }
        for Beside { block, reading, unlike } in beside {
            self.prove_data(block)?;
            let mut parts = match reading {
                Reading::Whole => vec![block.range()],
                Reading::Granules(granules) => granules,
            };
            let (_, want) = self.buffers.pair(block.len);
            parts.extend(unlike.iter().map(|head| match self.head_samples.get(*head) {
                Some((at, bytes)) if want.get(*at..*at + bytes.len()).is_some_and(|want| want != bytes) => {
                    let start = block.start + *at as u64;
                    start..start + bytes.len() as u64
                }
                _ => block.range(),
            }));
            for part in parts {
                self.prove_part(block, &part)?;
            }
        }
        Ok(())
    }

    /// Reads the first granule of a block that is to hold data; whether there is one.
    fn prove_data(&mut self, block: EraseBlock) -> Result<bool, Error> {
        let (_, want) = self.buffers.pair(block.len);
        wanted(self.source, block, want)?;
        let Some(data) = first_data(self.geometry, want) else { return Ok(false) };
        let start = block.start + data;
        self.prove_part(block, &(start..(start + self.geometry.granule()).min(block.end())))?;
        Ok(true)
    }

    /// Compares a part of a block whose wanted bytes are in the buffers.
    fn prove_part(&mut self, block: EraseBlock, part: &Range<u64>) -> Result<(), Error> {
        match self.wrong(block, part)? {
            Some(wrong) => Err(self.mismatch(block, wrong, 0)),
            None => Ok(()),
        }
    }
}

/// A granule of a block: where it lies, and what it shall hold.
fn sample(geometry: &Geometry, want: &[u8]) -> (usize, Vec<u8>) {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(want.len());
    let start = first_data(geometry, want).unwrap_or(0);
    let range = index(start)..index(start + geometry.granule());
    (range.start, want[range].to_vec())
}

/// The bytes of `range` that lie in a block; empty if none do.
fn overlap(block: EraseBlock, range: &Range<u64>) -> Range<u64> {
    let start = range.start.clamp(block.start, block.end());
    start..range.end.clamp(start, block.end())
}
