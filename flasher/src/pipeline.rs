//! A whole run, from an image to verified flash, behind seams: chip, image, facts, record and surroundings are all
//! given, so that a simulated chip goes the same way as a real one.

use std::ops::Range;
use std::time::Instant;

use crate::content::environment::{self, Start};
use crate::content::{self, Content};
use crate::decide::{Have, Rules};
use crate::device::{Ecc, Geometry, Kind, Mtd};
use crate::error::Error;
use crate::event::{Event, Operations, Phase, Progress};
use crate::execute::Work;
use crate::guard::{self, Facts, ranges};
use crate::hold::Hold;
use crate::locks::{self, Before};
use crate::map::Map;
use crate::options::{BadBlocks, Check, Mode, Options, Rest};
use crate::plan::{Plan, plan};
use crate::readback::Readback;
use crate::record::{Record, RecordDir, Recorder};
pub use crate::report::{Failure, Flash, Locks, Outcome, Report, Unfinished};
use crate::retry;
use crate::skip::Skipping;
use crate::source::{ImageError, Source};
use crate::survey::{Beyond, Buffers, Clearing, Survey, survey};
use crate::target::Target;

mod told;
pub(crate) mod whole;
pub(crate) mod worn;

pub(crate) use told::first_record;
use told::{Watch, finish};

/// Everything around the chip and the image.
pub struct Job<'a> {
    /// The partition that `chip` is.
    pub target: &'a Target,
    /// The system's flash and its users.
    pub facts: &'a Facts,
    /// What is asked for.
    pub options: &'a Options,
    /// The command line, for the record.
    pub command: &'a [String],
    /// Where the record lies.
    pub records: &'a RecordDir,
    /// What keeps others out and the process alive.
    pub hold: &'a mut dyn Hold,
    /// Who listens.
    pub progress: &'a mut dyn Progress,
}

/// Where a run writes, as the record tells it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) target: &'a Target,
    pub(crate) facts: &'a Facts,
    pub(crate) command: &'a [String],
}

impl<'a> Job<'a> {
    pub(crate) fn place(&self) -> Place<'a> {
        Place { target: self.target, facts: self.facts, command: self.command }
    }
}

/// Does what the options say. On power loss the flash holds the whole old image, the whole new one, or a head that
/// is neither's (with [`crate::options::Head::Auto`]); a second run completes it.
///
/// # Errors
/// [`Failure`], which says whether the flash is untouched or changed and unverified.
pub fn run(chip: &mut dyn Mtd, source: &mut dyn Source, job: Job<'_>) -> Result<Report, Failure> {
    let _lock = match job.options.mode {
        Mode::Write => Some(job.records.lock(job.command)?),
        Mode::DryRun | Mode::VerifyOnly => None,
    };
    run_locked(chip, source, job)
}

/// The same, for a caller that holds the record's lock.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run_locked(
    chip: &mut dyn Mtd,
    source: &mut dyn Source,
    job: Job<'_>,
) -> Result<Report, Failure> {
    if skips(chip.geometry(), job.options) {
        worn::run(chip, source, job)
    } else {
        run_once(chip, source, job)
    }
}

/// Whether bad blocks are passed over.
pub(crate) fn skips(geometry: &Geometry, options: &Options) -> bool {
    geometry.kind == Kind::Nand && options.bad_blocks != BadBlocks::Refuse
}

/// The part of the partition in which a range lies: where bad blocks are skipped, those before its last byte belong
/// to it, for a block that goes bad later moves everything.
pub(crate) fn places(chip: &dyn Mtd, range: &Range<u64>) -> Range<u64> {
    if range.is_empty() { range.clone() } else { range.start..chip.place(range.end - 1) + 1 }
}

/// The same for a chip that is not seen without its bad blocks yet.
pub(crate) fn skipped_places(
    chip: &mut dyn Mtd,
    options: &Options,
    range: &Range<u64>,
) -> Result<Range<u64>, Error> {
    let skips = skips(chip.geometry(), options);
    Ok(if skips { places(&Skipping::new(chip)?, range) } else { range.clone() })
}

/// One run over blocks that are all usable.
fn run_once(chip: &mut dyn Mtd, source: &mut dyn Source, mut job: Job<'_>) -> Result<Report, Failure> {
    let begun = Instant::now();
    let options = job.options;
    let geometry = chip.geometry().clone();
    if let Some(expected) = options.size.filter(|expected| *expected != source.size()) {
        let (name, found) = (source.name().to_owned(), source.size());
        return Err(Error::from(ImageError::Size { name, expected, found }).into());
    }
    let range = check_sizes(&geometry, source.name(), source.size(), &job)?;
    let in_use = check_use(&places(chip, &range), &job)?;
    let mut image_head = [0xff; Content::MAGIC];
    let length = usize::try_from(source.size()).unwrap_or(usize::MAX).min(Content::MAGIC);
    source.read_at(0, &mut image_head[..length]).map_err(Error::from)?;
    let name = source.name().to_owned();
    let start = check_content(chip, &name, image_head, source.size(), &job)?;
    let size = source.size();
    let read = |at, buf: &mut [u8]| source.read_at(at, buf);
    whole::check_whole(chip, start.as_ref(), &name, Some(size), size, read, &job)?;
    let mut buffers = Buffers::new(geometry.erase_size);
    let beyond = if options.mode == Mode::VerifyOnly { Beyond::Ignored } else { Beyond::Erased };
    let may_clear = Rules::new(&geometry, options, false).clear_in_place;
    let clearing = if may_clear { Clearing::Possible } else { Clearing::Forbidden };
    let found = survey(chip, source, &range, beyond, clearing, &mut buffers, job.progress)?;
    if let Some(expected) = options.sha256.as_ref().filter(|expected| **expected != found.image_sha256) {
        let (image, expected) = (source.name().to_owned(), expected.clone());
        return Err(Error::Digest { image, expected, found: found.image_sha256 }.into());
    }
    let rules = Rules::new(&geometry, options, found.interrupted);
    let plan = plan(&geometry, &found, rules, range, source.size(), options.head, options.head_size);
    let refreshed = found.findings.iter().filter(|finding| finding.have == Have::Flipping).count() as u64;
    let mut report = Report {
        image_bytes: source.size(),
        sha256: found.image_sha256.clone(),
        plan: plan.summary(&geometry),
        operations: Operations { read: found.read, ..Operations::default() },
        retries: found.retries,
        ecc: Ecc { refreshed, ..found.ecc },
        elapsed: begun.elapsed(),
        ..Report::begun(job.target.to_string(), source.name())
    };
    match options.mode {
        Mode::Write => {}
        Mode::DryRun => {
            job.progress.event(&Event::Map(Map::new(&geometry, &plan, |at| chip.place(at))));
            job.progress.event(&Event::Plan(report.plan));
            in_use?;
            return Ok(report);
        }
        Mode::VerifyOnly => {
            report.outcome = compared(&geometry, &plan, &found);
            return Ok(report);
        }
    }
    job.progress.event(&Event::Plan(report.plan));
    let found = Found { geometry: &geometry, plan: &plan, survey: &found, rules };
    write(chip, source, &mut job, &found, buffers, &mut report)?;
    report.elapsed = begun.elapsed();
    Ok(report)
}

/// Whether somebody uses the range. A dry run shows its plan all the same: what stands in its way is told after it.
pub(crate) fn check_use(range: &Range<u64>, job: &Job<'_>) -> Result<Result<(), Error>, Error> {
    let verdict = guard::judge(job.facts, job.target.number, range);
    if job.options.mode == Mode::VerifyOnly || job.options.in_use == Check::Allow || verdict.is_clear() {
        return Ok(Ok(()));
    }
    let in_use = Err(Error::InUse { target: job.target.to_string(), verdict: Box::new(verdict) });
    if job.options.mode == Mode::DryRun { Ok(in_use) } else { in_use.map(Ok) }
}

/// The range to be written, if everything fits together.
pub(crate) fn check_sizes(
    geometry: &Geometry,
    image: &str,
    size: u64,
    job: &Job<'_>,
) -> Result<Range<u64>, Error> {
    let target = || job.target.to_string();
    if let Some(what) = geometry.flaw() {
        return Err(Error::Geometry { target: target(), what });
    }
    if size > geometry.size {
        let image = image.to_owned();
        if geometry.size < job.target.size && geometry.kind == Kind::Nand {
            return Err(Error::TooFewGood { image, size, target: target(), room: geometry.size });
        }
        return Err(Error::TooLarge { image, size, target: target(), room: geometry.size });
    }
    let end = match job.options.rest {
        Rest::Leave => geometry.round_up(size),
        Rest::Erase => geometry.round_up(geometry.size),
    };
    if end > geometry.size {
        let what = format!(
            "its size {} is no multiple of its erase blocks of {} bytes, and the last one would be needed",
            geometry.size, geometry.erase_size
        );
        return Err(Error::Geometry { target: target(), what });
    }
    let granule = geometry.granule();
    if let Some(block) = geometry.blocks(0..end).find(|block| !block.len.is_multiple_of(granule)) {
        let what = format!(
            "an erase block of {} bytes at {:#x}, written in units of {granule}",
            block.len, block.start
        );
        return Err(Error::Geometry { target: target(), what });
    }
    if !geometry.writeable && job.options.mode != Mode::VerifyOnly {
        return Err(Error::ReadOnly { target: target() });
    }
    Ok(0..end)
}

/// What the target starts with beside what the image starts with; and on NAND, whether its blocks are good. Returns the
/// target's first bytes, unless any content is right.
pub(crate) fn check_content(
    chip: &mut dyn Mtd,
    image: &str,
    image_head: [u8; Content::MAGIC],
    size: u64,
    job: &Job<'_>,
) -> Result<Option<Start>, Error> {
    if job.options.mode == Mode::VerifyOnly {
        return Ok(None);
    }
    let geometry = chip.geometry().clone();
    let target = || job.target.to_string();
    let found = Content::of(&image_head);
    // Before its blocks are looked at: whoever is sent to another tool need not think about them.
    if geometry.kind == Kind::Nand && found == Some(Content::Ubi) && job.options.raw_ubi == Check::Refuse {
        return Err(Error::UbiOnNand { target: target(), image: image.to_owned() });
    }
    if geometry.kind == Kind::Nand {
        let end = match job.options.rest {
            Rest::Leave => geometry.round_up(size),
            Rest::Erase => geometry.size,
        };
        for block in geometry.blocks(0..end) {
            if chip.is_bad(block.start)? {
                return Err(Error::BadBlock { target: target(), offset: chip.place(block.start) });
            }
        }
    }
    if job.options.content == Check::Allow {
        return Ok(None);
    }
    let mut head = [0xff; environment::START];
    // Not looked at: what cannot be read is of no known kind.
    let _ = retry::read(chip, 0, &mut head, &mut 0);
    content::check(&head, &image_head).map_err(|expected| Error::Content {
        target: target(),
        expected,
        image: image.to_owned(),
        found,
    })?;
    Ok(Some(head))
}

fn compared(geometry: &Geometry, plan: &Plan, found: &Survey) -> Outcome {
    let mut differing = geometry
        .blocks(plan.range.clone())
        .zip(&found.findings)
        .filter(|(_, finding)| !matches!(finding.have, Have::Same | Have::Flipping))
        .map(|(block, _)| block.start);
    match differing.next() {
        None => Outcome::Equal,
        Some(first) => Outcome::Differs { blocks: 1 + differing.count() as u64, first },
    }
}

/// What the checks before the first change have found.
#[derive(Clone, Copy)]
struct Found<'a> {
    geometry: &'a Geometry,
    plan: &'a Plan,
    survey: &'a Survey,
    rules: Rules,
}

/// The part of a run that changes flash: everything before its first line left it untouched.
fn write(
    chip: &mut dyn Mtd,
    source: &mut dyn Source,
    job: &mut Job<'_>,
    found: &Found<'_>,
    buffers: Buffers,
    report: &mut Report,
) -> Result<(), Failure> {
    let Found { geometry, plan, survey, rules } = *found;
    let places = places(chip, &plan.range);
    let record =
        first_record(source.name(), Some(source.size()), &survey.image_sha256, &places, &job.place());
    if plan.is_done() {
        return settle(job, record, &survey.image_sha256, report).map_err(Failure::from);
    }
    let (recorder, locks) = begin(chip, job, plan, record)?;
    let mut watch = Watch { progress: &mut *job.progress, recorder, plan: report.plan };
    let readback = Readback::new(geometry, survey, rules.blank);
    let mut work = Work::new(chip, source, plan, geometry, buffers, &mut watch, readback);
    work.operations = report.operations;
    let result = work
        .invalidate()
        .and_then(|()| work.body())
        .and_then(|()| work.prove_and_complete(&survey.image_sha256));
    report.operations = work.operations;
    report.retries += work.retries;
    report.ecc.corrected += work.ecc.corrected;
    report.ecc.failed += work.ecc.failed;
    let touched = work.touched;
    let recorder = watch.recorder;
    let touched = if result.is_ok() { plan.range.end } else { touched };
    end(chip, job, recorder, &locks, result, touched, report)
}

/// The end of a run that had nothing to change.
pub(crate) fn settle(
    job: &mut Job<'_>,
    record: Record,
    sha256: &String,
    report: &mut Report,
) -> Result<(), Error> {
    // The survey read every byte: it is the verification. It may settle an earlier run that was cut off.
    report.outcome = Outcome::Unchanged;
    let (bytes, operations) = (report.plan.bytes, report.operations);
    for (phase, total) in [(Phase::Erase, 0), (Phase::Write, 0), (Phase::Verify, bytes)] {
        job.progress.event(&Event::Progress { phase, done: total, total, operations });
    }
    let mut recorder = Recorder::prepared(job.records, record);
    recorder.update(report.image_bytes, report.operations);
    report.unfinished = finish(recorder, Ok(sha256), report)?;
    Ok(())
}

/// Everything that comes right before the first change, and the first entry of the record.
pub(crate) fn begin(
    chip: &mut dyn Mtd,
    job: &mut Job<'_>,
    plan: &Plan,
    record: Record,
) -> Result<(Recorder, Before), Failure> {
    let geometry = chip.geometry().clone();
    let places = places(chip, &plan.range);
    let mut claims = Vec::new();
    for other in job.facts.mtds() {
        let related = job.facts.mtd(job.target.number).and_then(|mtd| ranges::relation(mtd, &places, other));
        if related.is_some() {
            claims.push(other.number);
        }
    }
    for number in claims {
        use nix::libc::{EBUSY, ENODEV, ENOENT, ENXIO};
        let Err(source) = job.hold.claim(number) else { continue };
        match source.raw_os_error() {
            _ if job.options.in_use == Check::Allow => {}
            Some(EBUSY) => return Err(Error::Claim { number, source }.into()),
            // A node that nothing stands behind, as where the kernel has no mtdblock.
            Some(ENXIO | ENODEV | ENOENT) => {}
            _ => return Err(Error::NotClaimed { number, source }.into()),
        }
    }
    // Steeled first: no signal of a lost session comes between the record and what it tells of.
    job.hold.steel();
    job.hold.flush();
    // Before the record: bytes that a lock protects are still the old ones.
    let locks = locks::unlock(chip, plan, &geometry)?;
    match Recorder::changing(job.records, record) {
        Ok(recorder) => {
            job.progress.event(&Event::FirstChange);
            Ok((recorder, locks))
        }
        Err(error) => Err(locks.untouched(chip, &geometry, error)),
    }
}

/// Everything that comes right after the last change, and the last entry of the record. `touched` is the first byte behind
/// everything that may have been changed (that is proven, after a success).
pub(crate) fn end(
    chip: &mut dyn Mtd,
    job: &mut Job<'_>,
    mut recorder: Recorder,
    locks: &Before,
    result: Result<String, Error>,
    touched: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let geometry = chip.geometry().clone();
    // Whole blocks, and never without the head.
    let touched = places(chip, &(0..geometry.round_up(touched.max(1))));
    let end = recorder.record().start + touched.end;
    recorder.narrow(end);
    report.locks = Locks::of(locks.restore(chip, &geometry));
    job.hold.flush();
    report.outcome = Outcome::Written;
    recorder.record().operations = report.operations;
    recorder.record().retries = report.retries;
    match result {
        Ok(sha256) => {
            report.unfinished = finish(recorder, Ok(&sha256), report).map_err(Failure::unverified)?;
            Ok(())
        }
        Err(error) => {
            let failure =
                Failure { locks: report.locks.clone(), ..Failure::unverified(worn::name(&geometry, error)) };
            // The first error is the one to tell.
            let _ = finish(recorder, Err(&failure), report);
            Err(failure)
        }
    }
}
