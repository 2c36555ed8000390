//! A whole run over an image that can be read once only. The pipeline's order is turned round: each block is looked at,
//! decided on, written and proven while its bytes are there; the head waits in memory, and invalid in flash, until
//! the stream's end is proven and the body was read back once more.

use std::ops::Range;
use std::time::Instant;

use crate::content::Content;
use crate::decide::{Finding, Have, Rules, Step, Want, decide, is_blank};
use crate::device::{EraseBlock, Mtd};
use crate::digest::Sha;
use crate::error::Error;
use crate::event::{Event, Phase, Retry};
use crate::locks::Before;
use crate::map::Map;
use crate::options::{BadBlocks, Mode, Rest};
use crate::pipeline::{self, Job};
use crate::plan::{Invalidation, Plan, Summary};
use crate::record::{Record, Recorder};
use crate::report::{Failure, Locks, Outcome, Report};
use crate::skip::Skipping;
use crate::source::{Feed, ImageError};

mod chip;
mod head;
pub(crate) mod input;

use chip::Chip;
use input::Input;

/// A head of so many bytes may always be held in memory, and one erase block.
const HEAD: u64 = 1 << 20;

/// Does what the options say. Memory: two erase blocks (the head's and the one at work) and a constant.
///
/// On power loss the flash holds the whole old image, the whole new one, or a head that is neither's; the same after a
/// stream that ended before its end. A second run completes it. What cannot be read again is never written in
/// plain order: `--head=keep` is taken as `auto`.
///
/// # Errors
/// [`Failure`], which says whether the flash is untouched or changed and unverified. An end that nothing proves
/// ([`ImageError::Unproven`]) is found before the first byte is read.
///
/// A block of NAND that wears out ends the run also where it is to be marked bad, which it then is: the image cannot be
/// read again, so it is the next run that moves on by a block.
pub fn run(mtd: &mut dyn Mtd, feed: &mut dyn Feed, job: Job<'_>) -> Result<Report, Failure> {
    if !pipeline::skips(mtd.geometry(), job.options) {
        return run_once(mtd, feed, job);
    }
    let marks = job.options.bad_blocks == BadBlocks::Mark;
    let result = run_once(&mut Skipping::new(mtd).map_err(Error::from)?, feed, job);
    if let (true, Err(Failure { error: Error::Worn { offset, .. }, .. })) = (marks, &result) {
        // The worn block is what is to be told.
        let _ = mtd.mark_bad(*offset);
    }
    result
}

/// One run over blocks that are all usable.
fn run_once(mtd: &mut dyn Mtd, feed: &mut dyn Feed, mut job: Job<'_>) -> Result<Report, Failure> {
    let begun = Instant::now();
    let (name, options) = (feed.name().to_owned(), job.options);
    let _lock = match options.mode {
        Mode::Write => Some(job.records.lock(job.command)?),
        Mode::DryRun | Mode::VerifyOnly => None,
    };
    let geometry = mtd.geometry().clone();
    let room = options.size.unwrap_or(geometry.size);
    let mut input = Input::new(feed, options, job.target.to_string(), room).map_err(Error::from)?;
    let range = pipeline::check_sizes(&geometry, &name, room, &job)?;
    let in_use = pipeline::check_use(&pipeline::places(mtd, &range), &job)?;
    let head_size = options.head_size.unwrap_or(geometry.block_at(0).len).max(1);
    let head_size = head_size.next_multiple_of(geometry.granule()).min(range.end);
    let head_size = if geometry.programs_in_order() { geometry.round_up(head_size) } else { head_size };
    let (late, most) = (geometry.round_up(head_size), HEAD.max(geometry.block_at(0).len));
    if late > most {
        return Err(Error::HeadTooLong { size: late, most }.into());
    }
    let mut head = vec![0xff; usize::try_from(late).unwrap_or(usize::MAX)];
    let taken = input.take(&mut head).map_err(Error::from)?;
    if taken == 0 {
        return Err(Error::from(ImageError::Empty { path: name.into() }).into());
    }
    let mut magic = [0xff; Content::MAGIC];
    magic.iter_mut().zip(&head).for_each(|(to, from)| *to = *from);
    let start = pipeline::check_content(mtd, &name, magic, room, &job)?;
    let first = |at: u64, buf: &mut [u8]| {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        buf.iter_mut().zip(head.iter().skip(at)).for_each(|(to, from)| *to = *from);
        Ok(())
    };
    pipeline::whole::check_whole(mtd, start.as_ref(), &name, options.size, taken as u64, first, &job)?;
    // An image that ends within its head leaves the blocks behind its end alone.
    let late = geometry.round_up(taken as u64).min(late);
    head.truncate(usize::try_from(late).unwrap_or(usize::MAX));
    let mut run = Run {
        chip: Chip::new(mtd),
        input,
        job: &mut job,
        room: range.clone(),
        late: 0..late,
        head_size: head_size.min(late),
        head_bytes: taken,
        head,
        head_step: (Step::Keep, Invalidation::None),
        erased_head: false,
        findings: Vec::new(),
        rules: Rules::new(&geometry, options, false),
        zeroed: false,
        steps: Vec::new(),
        digests: Vec::new(),
        differing: (0, None),
        started: None,
        locks: Locks::AsBefore,
        name,
    };
    let mut report = run.report();
    let result = run.go(&mut report);
    let end = run.end();
    let Run { chip, started, job, locks: left, .. } = run;
    (report.operations, report.retries, report.ecc) = (chip.operations, chip.retries, chip.ecc);
    match (result, started) {
        (result, Some((recorder, locks))) => {
            let touched = if result.is_ok() { end } else { chip.touched };
            pipeline::end(chip.mtd, job, recorder, &locks, result, touched, &mut report)?;
        }
        (Err(error), None) => return Err(Failure { locks: left, ..error.into() }),
        (Ok(_), None) => in_use?,
    }
    report.elapsed = begun.elapsed();
    Ok(report)
}

/// A run and how far it has come.
struct Run<'a, 'j> {
    chip: Chip<'a>,
    input: Input<'a>,
    job: &'a mut Job<'j>,
    name: String,
    /// The most that may be written.
    room: Range<u64>,
    /// The head's blocks.
    late: Range<u64>,
    /// How many bytes are completed last; whole granules.
    head_size: u64,
    /// What those blocks shall hold, and how many of these bytes are the image's.
    head: Vec<u8>,
    head_bytes: usize,
    /// What is done to the head's first block, at its start and at the end.
    head_step: (Step, Invalidation),
    erased_head: bool,
    /// The head's blocks as they were found.
    findings: Vec<Finding>,
    rules: Rules,
    zeroed: bool,
    /// The steps behind the head.
    steps: Vec<Step>,
    /// A digest of what each of these blocks shall hold.
    digests: Vec<[u8; 8]>,
    /// How many blocks differ, and the first of them.
    differing: (u64, Option<u64>),
    /// From the first change on.
    started: Option<(Recorder, Before)>,
    /// Whether locks stay open that were opened for a change that did not come.
    locks: Locks,
}

fn digest(bytes: &[u8]) -> [u8; 8] {
    let mut sha = Sha::default();
    sha.update(bytes);
    short(sha)
}

fn short(sha: Sha) -> [u8; 8] {
    let mut short = [0; 8];
    short.iter_mut().zip(sha.bytes()).for_each(|(to, from)| *to = from);
    short
}

/// The digest of so many bytes of 0xff.
fn blank_digest(length: u64) -> [u8; 8] {
    let piece = [0xff; 4096];
    let (mut sha, mut left) = (Sha::default(), length);
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        sha.update(&piece[..part]);
        left -= part as u64;
    }
    short(sha)
}

impl Run<'_, '_> {
    fn report(&self) -> Report {
        Report::begun(self.job.target.to_string(), &self.name)
    }

    /// All of it. Returns the SHA-256 of the image.
    fn go(&mut self, report: &mut Report) -> Result<String, Error> {
        self.survey_head()?;
        self.body()?;
        let sha256 = self.input.prove_end()?;
        if let (Rest::Erase, Mode::Write | Mode::DryRun) = (self.job.options.rest, self.job.options.mode) {
            self.rest()?;
        }
        (report.sha256, report.image_bytes) = (sha256.clone(), self.input.taken());
        if let Some((recorder, _)) = &mut self.started {
            let record = recorder.record();
            (record.image_bytes, record.bytes_total) = (report.image_bytes, report.image_bytes);
            record.image_sha256 = Some(sha256.clone());
        } else {
            let body = self.steps.iter().any(|step| *step != Step::Keep);
            self.decide_head(body || self.late_others_change());
        }
        let plan = self.plan();
        report.plan = plan.summary(&self.chip.geometry);
        match self.job.options.mode {
            Mode::DryRun => {
                self.job
                    .progress
                    .event(&Event::Map(Map::new(&self.chip.geometry, &plan, |at| self.chip.mtd.place(at))));
                self.job.progress.event(&Event::Plan(report.plan));
            }
            Mode::VerifyOnly => {
                report.outcome = match self.differing {
                    (blocks, Some(first)) => Outcome::Differs { blocks, first },
                    (_, None) => Outcome::Equal,
                };
            }
            Mode::Write => {
                self.job.progress.event(&Event::Plan(report.plan));
                report.operations = self.chip.operations;
                if plan.is_done() {
                    let record = self.record(&sha256, &plan.range);
                    pipeline::settle(self.job, record, &sha256, report)?;
                } else {
                    self.read_back()?;
                    self.complete_head()?;
                    self.tell_all(&report.plan);
                }
            }
        }
        Ok(sha256)
    }

    /// The image's body, block by block: looked at, decided on, written, proven.
    fn body(&mut self) -> Result<(), Error> {
        let geometry = self.chip.geometry.clone();
        let mut want = vec![0; usize::try_from(geometry.erase_size).unwrap_or(usize::MAX)];
        for block in geometry.blocks(self.late.end..self.room.end) {
            let want = &mut want[..usize::try_from(block.len).unwrap_or(usize::MAX)];
            match self.input.take(want)? {
                0 => break,
                taken => self.block(block, want, taken)?,
            }
        }
        Ok(())
    }

    /// Erases what lies behind the image.
    fn rest(&mut self) -> Result<(), Error> {
        let geometry = self.chip.geometry.clone();
        let want = vec![0xff; usize::try_from(geometry.erase_size).unwrap_or(usize::MAX)];
        for block in geometry.blocks(self.end()..self.room.end) {
            let want = &want[..usize::try_from(block.len).unwrap_or(usize::MAX)];
            self.block(block, want, want.len())?;
        }
        Ok(())
    }

    fn block(&mut self, block: EraseBlock, want: &[u8], image: usize) -> Result<(), Error> {
        let mode = self.job.options.mode;
        let looked_at = if mode == Mode::VerifyOnly { &want[..image] } else { want };
        let have = self.chip.compare(block.start, looked_at)?;
        self.differ(block, have);
        let step = decide(Finding { have, want: wanted(want) }, self.rules);
        if mode == Mode::Write && step != Step::Keep {
            self.start(true)?;
            self.chip.put(block, step, want, self.job.progress)?;
        }
        self.steps.push(step);
        self.digests.push(digest(want));
        let phase = if self.started.is_some() { Phase::Write } else { Phase::Survey };
        self.tell(phase, block.end(), self.room.end);
        Ok(())
    }

    fn differ(&mut self, block: EraseBlock, have: Have) {
        if !matches!(have, Have::Same | Have::Flipping) {
            self.differing = (self.differing.0 + 1, self.differing.1.or(Some(block.start)));
        }
    }

    /// Right before the first change: nobody else gets in, and the old head is made invalid.
    fn start(&mut self, others_change: bool) -> Result<(), Error> {
        if self.started.is_some() {
            return Ok(());
        }
        self.decide_head(others_change);
        let record = self.record("", &self.room);
        // What of it changes is not known yet: whatever is locked is unlocked.
        let blocks = self.chip.geometry.blocks(self.room.clone()).count();
        let plan = Plan {
            range: self.room.clone(),
            image_size: self.room.end,
            head_size: self.head_size,
            invalidation: Invalidation::None,
            steps: vec![Step::EraseProgram; blocks],
        };
        let begun = pipeline::begin(self.chip.mtd, self.job, &plan, record);
        self.started = Some(begun.map_err(|failure| {
            self.locks = failure.locks;
            failure.error
        })?);
        self.invalidate()
    }

    fn record(&self, sha256: &str, range: &Range<u64>) -> Record {
        let size = if sha256.is_empty() { self.job.options.size } else { Some(self.input.taken()) };
        let range = pipeline::places(self.chip.mtd, range);
        pipeline::first_record(&self.name, size, sha256, &range, &self.job.place())
    }

    /// The first byte behind the blocks that were taken from the stream (or erased behind it).
    fn end(&self) -> u64 {
        let blocks = self.chip.geometry.blocks(self.late.end..self.room.end);
        blocks.take(self.steps.len()).last().map_or(self.late.end, |block| block.end())
    }

    /// What was done, and what is still to be done to the head.
    fn plan(&self) -> Plan {
        let (first, invalidation) = self.head_step;
        let later = self.findings.iter().skip(1).map(|found| decide(*found, self.rules));
        let steps = std::iter::once(first).chain(later).chain(self.steps.iter().copied());
        Plan {
            range: 0..self.end(),
            image_size: self.input.taken(),
            head_size: self.head_size,
            invalidation,
            steps: steps.collect(),
        }
    }

    /// Everything behind the head once more: what was right when it was written may have been hit by a later write, on
    /// a chip that wraps its addresses.
    fn read_back(&mut self) -> Result<(), Error> {
        let geometry = self.chip.geometry.clone();
        let end = self.end();
        for block in geometry.blocks(self.late.end..end) {
            self.prove_block(block)?;
            self.tell(Phase::Verify, block.end().min(end - 1), end);
        }
        Ok(())
    }

    /// Whether a block behind the head still holds what was proven before.
    fn prove_block(&mut self, block: EraseBlock) -> Result<(), Error> {
        let before = self.chip.geometry.blocks(self.late.end..block.start).count();
        let expected = self.digests.get(before).copied();
        if expected == Some(self.read_digest(block)?) && !self.chip.unreadable {
            return Ok(());
        }
        self.chip.retries += 1;
        let offset = self.chip.mtd.place(block.start);
        self.job.progress.event(&Event::Retry { offset, what: Retry::Reread });
        if expected == Some(self.read_digest(block)?) && !self.chip.unreadable {
            return Ok(());
        }
        let start = self.chip.mtd.place(block.start);
        Err(Error::Overwritten { start, end: start + block.len })
    }

    fn read_digest(&mut self, block: EraseBlock) -> Result<[u8; 8], Error> {
        let mut sha = Sha::default();
        self.chip.read_all(block, |bytes| sha.update(bytes))?;
        Ok(short(sha))
    }

    fn tell(&mut self, phase: Phase, done: u64, total: u64) {
        let operations = self.chip.operations;
        if let Some((recorder, _)) = &mut self.started {
            recorder.update(self.input.taken(), operations);
        }
        self.job.progress.event(&Event::Progress { phase, done, total, operations });
    }

    /// Every phase is complete.
    fn tell_all(&mut self, plan: &Summary) {
        let erases = self.chip.operations.erases;
        for (phase, total) in
            [(Phase::Erase, erases), (Phase::Write, self.room.end), (Phase::Verify, plan.bytes)]
        {
            self.tell(phase, total, total);
        }
    }
}

fn wanted(bytes: &[u8]) -> Want {
    if is_blank(bytes) { Want::Blank } else { Want::Data }
}
