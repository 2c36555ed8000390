//! Reads back and proves: the whole body first, then the head is completed, and proven too.
//!
//! Every rewrite starts the proof of the whole range again: on a chip that wraps its addresses the rewrite of one
//! block destroys another that was right before.

use std::ops::Range;

use crate::decide::Step;
use crate::device::EraseBlock;
use crate::digest::Sha;
use crate::error::{Direction, Error};
use crate::event::{Event, Phase, Retry};
use crate::execute::{Over, Work, within};
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

/// The image's head as the proof of the body saw it: the head is read from the image once more when it is written.
struct HeadBytes {
    first: Vec<u8>,
    rest: String,
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
                if sha256 != survey_sha256 {
                    return Err(ImageError::Changed {
                        name: self.source.name().to_owned(),
                        first: survey_sha256.to_owned(),
                        second: sha256,
                    }
                    .into());
                }
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

    fn prove_body(&mut self, rewrites: u32) -> Result<(Pass, String, HeadBytes), Error> {
        let (plan, geometry) = (self.plan, self.geometry);
        let granule = usize::try_from(geometry.granule()).unwrap_or(usize::MAX);
        let (mut image_sha, mut head_sha) = (Sha::default(), Sha::default());
        let mut head = HeadBytes { first: Vec::new(), rest: String::new() };
        let mut pass = Pass::Clean;
        let total = plan.range.end - plan.range.start;
        let mut done = 0;
        self.tell(Phase::Verify, 0, total);
        for (block, _) in plan.blocks(geometry) {
            let body = self.body_of(block);
            let head_end = within(block, &(block.start..body.start)).end;
            let (_, want) = self.buffers.pair(block.len);
            let image = wanted(self.source, block, want)?;
            image_sha.update(&want[..image]);
            let mut head_part = &want[..head_end];
            if block.start == plan.range.start {
                let (first, rest) = head_part.split_at(granule.min(head_part.len()));
                head.first = first.to_vec();
                head_part = rest;
            }
            head_sha.update(head_part);
            done += body.end - body.start;
            if self.prove(block, body, rewrites)? == Pass::Rewritten {
                pass = Pass::Rewritten;
            }
            // The head's share is told when it is proven.
            self.tell(Phase::Verify, done.min(total.saturating_sub(1)), total);
        }
        head.rest = head_sha.hex();
        Ok((pass, image_sha.hex(), head))
    }

    /// Programs the head, its first granule last of all, and proves both.
    fn complete_head(&mut self, rewrites: u32, expected: &HeadBytes) -> Result<Pass, Error> {
        let (plan, geometry) = (self.plan, self.geometry);
        let (start, end) = (plan.range.start, self.head_end());
        if start == end {
            return Ok(Pass::Clean);
        }
        let first_end = (start + geometry.granule()).min(end);
        let rest = first_end..end;
        for part in [rest.clone(), start..first_end] {
            for (block, step) in plan.blocks(geometry) {
                let part = part.start.max(block.start)..part.end.min(block.end());
                if part.start >= part.end {
                    continue;
                }
                let again = self.rewritten.contains(&block.start);
                if step.programs() || again {
                    let over = if step == Step::Clear && !again { Over::Data } else { Over::Blank };
                    self.write(block, part.clone(), over)?;
                    self.count_written(&part);
                }
            }
            let mut sha = Sha::default();
            for (block, _) in plan.blocks(geometry) {
                let part = part.start.max(block.start)..part.end.min(block.end());
                if part.start >= part.end {
                    continue;
                }
                let (_, want) = self.buffers.pair(block.len);
                wanted(self.source, block, want)?;
                if self.prove(block, part.clone(), rewrites)? == Pass::Rewritten {
                    self.rewrite_heads(block)?;
                    return Ok(Pass::Rewritten);
                }
                let (_, want) = self.buffers.pair(block.len);
                sha.update(&want[within(block, &part)]);
            }
            let mut first = Sha::default();
            first.update(&expected.first);
            let (should, is) = (if part == rest { expected.rest.clone() } else { first.hex() }, sha.hex());
            if should != is {
                let name = self.source.name().to_owned();
                return Err(ImageError::Changed { name, first: should, second: is }.into());
            }
        }
        Ok(Pass::Clean)
    }

    /// Compares `part` of a block with what the buffers say it shall hold. Wrong bytes are read again, because a
    /// flaky bus is no bad block; if they stay wrong the block is erased and its body part written again.
    fn prove(&mut self, block: EraseBlock, part: Range<u64>, rewrites: u32) -> Result<Pass, Error> {
        let Some(_) = self.compare(block, &part)? else { return Ok(Pass::Clean) };
        self.retries += 1;
        let Some(wrong) = self.compare(block, &part)? else {
            self.progress.event(&Event::Retry { offset: part.start, what: Retry::Reread });
            return Ok(Pass::Clean);
        };
        if rewrites >= REWRITES {
            return Err(self.mismatch(block, wrong, rewrites));
        }
        self.rewrite(block)?;
        Ok(Pass::Rewritten)
    }

    /// Erases a block and writes its body part again; a head part stays erased until the body is proven.
    fn rewrite(&mut self, block: EraseBlock) -> Result<(), Error> {
        self.progress.event(&Event::Retry { offset: block.start, what: Retry::Rewrite });
        self.rewritten.insert(block.start);
        self.erase(block.range(), 1)?;
        let body = self.body_of(block);
        self.write(block, body, Over::Blank)
    }

    /// The head's other blocks start over too: none of them is programmed twice between two erases.
    fn rewrite_heads(&mut self, but: EraseBlock) -> Result<(), Error> {
        let (plan, geometry, end) = (self.plan, self.geometry, self.head_end());
        for (block, step) in plan.blocks(geometry).take_while(|(block, _)| block.start < end) {
            if block != but && (step.programs() || self.rewritten.contains(&block.start)) {
                self.rewrite(block)?;
            }
        }
        Ok(())
    }

    /// The first programmed block is read back at once, so that a chip that swallows everything is found after one
    /// block and not after the last.
    pub(crate) fn prove_first(&mut self, block: EraseBlock, part: Range<u64>) -> Result<(), Error> {
        if self.compare(block, &part)?.is_none() {
            return Ok(());
        }
        let mut before = Sha::default();
        before.update(&self.buffers.have[within(block, &part)]);
        self.retries += 1;
        self.rewrite(block)?;
        let Some(wrong) = self.compare(block, &part)? else { return Ok(()) };
        let mut after = Sha::default();
        after.update(&self.buffers.have[within(block, &part)]);
        if before.hex() != after.hex() {
            return Err(self.mismatch(block, wrong, 1));
        }
        let offset = block.start + wrong as u64;
        let what = match Direction::of(self.buffers.want[wrong], self.buffers.have[wrong]) {
            Direction::ReadsOne => "write",
            Direction::ReadsZero | Direction::Both => "erase",
        };
        Err(Error::Protected { what, offset })
    }

    /// Reads `part` of a block; the place of the first byte that is not the wanted one.
    fn compare(&mut self, block: EraseBlock, part: &Range<u64>) -> Result<Option<usize>, Error> {
        let bytes = within(block, part);
        let (have, want) = self.buffers.pair(block.len);
        if bytes.is_empty() {
            return Ok(None);
        }
        self.chip.read(part.start, &mut have[bytes.clone()])?;
        self.operations.read += bytes.len() as u64;
        let differs = |at: &usize| have[*at] != want[*at];
        if have[bytes.clone()] == want[bytes.clone()] {
            Ok(None)
        } else {
            Ok(bytes.into_iter().find(differs))
        }
    }

    fn mismatch(&self, block: EraseBlock, at: usize, rewrites: u32) -> Error {
        let (expected, found) = (self.buffers.want[at], self.buffers.have[at]);
        let direction = Direction::of(expected, found);
        Error::Mismatch { offset: block.start + at as u64, expected, found, direction, rewrites }
    }

    /// A chip (or a driver) that ignores an address line writes the head to a second place as well, after that place
    /// was proven: the places that one missing line would give are looked at again.
    fn prove_aliases(&mut self) -> Result<(), Error> {
        let start = self.plan.range.start;
        let first = self.geometry.block_at(start);
        let mut distance = first.len.next_power_of_two();
        while start + distance < self.plan.range.end && self.plan.head_size > 0 {
            let block = self.geometry.block_at(start + distance);
            let (_, want) = self.buffers.pair(block.len);
            wanted(self.source, block, want)?;
            let end = (start + distance + self.geometry.granule()).min(block.end());
            if let Some(wrong) = self.compare(block, &(start + distance..end))? {
                return Err(self.mismatch(block, wrong, 0));
            }
            distance *= 2;
        }
        Ok(())
    }
}
