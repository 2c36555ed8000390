//! A whole run onto a UBI volume, from an image that can be read again.

use std::time::Instant;

use super::work::{self, Plan, Work};
use super::{Volumes, Way, way};
use crate::content::{self, Content};
use crate::digest::Sha;
use crate::error::{Direction, Error};
use crate::event::{Event, Phase, Progress};
use crate::hold::Hold;
use crate::options::{Check, Extent, Mode, Options};
use crate::plan::Summary;
use crate::record::{RecordDir, Recorder};
use crate::report::{Failure, Outcome, Report};
use crate::source::{ImageError, Source};
use crate::target::ubi::{Named, UbiVolume, VolumeKind};

/// Everything around the volume and the image.
pub struct VolumeJob<'a> {
    /// The volume.
    pub volume: &'a UbiVolume,
    /// How it was named.
    pub named: Named,
    /// Who uses it, in words.
    pub users: &'a [String],
    /// What is asked for. What is about erase blocks and heads has no meaning here.
    pub options: &'a Options,
    /// The command line, for the record.
    pub command: &'a [String],
    /// Where the record lies.
    pub records: &'a RecordDir,
    /// What keeps the process alive.
    pub hold: &'a mut dyn Hold,
    /// Who listens.
    pub progress: &'a mut dyn Progress,
}

/// What the look before the first change has found.
struct Compared {
    sha256: String,
    differing: u64,
    first: u64,
}

/// Does what the options say. With [`super::Way::Swap`] a power cut leaves the whole old image or the whole new one
/// under the name; with [`super::Way::InPlace`] it may leave a void volume, which a second run completes.
///
/// # Errors
/// [`Failure`]. Until the names are swapped the old image is whole: that counts as untouched.
pub fn run(
    volumes: &mut dyn Volumes,
    source: &mut dyn Source,
    job: VolumeJob<'_>,
) -> Result<Report, Failure> {
    let _lock = match job.options.mode {
        Mode::Write => Some(job.records.lock(job.command)?),
        Mode::DryRun | Mode::VerifyOnly => None,
    };
    run_locked(volumes, source, job)
}

/// The same, for a caller that holds the record's lock.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run_locked(
    volumes: &mut dyn Volumes,
    source: &mut dyn Source,
    mut job: VolumeJob<'_>,
) -> Result<Report, Failure> {
    let begun = Instant::now();
    let (volume, options) = (job.volume, job.options);
    if let Some(expected) = options.size.filter(|expected| *expected != source.size()) {
        let (name, found) = (source.name().to_owned(), source.size());
        return Err(Error::from(ImageError::Size { name, expected, found }).into());
    }
    check_size(source.name(), source.size(), volume)?;
    let in_use = check_use(volumes, &job)?;
    let mut work = Work::new(volumes, volume.block_size, source.size());
    let found = compare(&mut work, source, &mut job)?;
    if let Some(expected) = options.sha256.as_ref().filter(|expected| **expected != found.sha256) {
        let (image, expected) = (source.name().to_owned(), expected.clone());
        return Err(Error::Digest { image, expected, found: found.sha256 }.into());
    }
    let device = work.volumes.device().map_err(Error::from)?;
    let way = way(&device, volume, job.named);
    let same = found.differing == 0 && options.extent == Extent::Differing;
    let mut report = report(source.name(), &found.sha256, volume, source.size(), !same);
    if options.mode == Mode::VerifyOnly {
        report.outcome = match found.differing {
            0 => Outcome::Equal,
            blocks => Outcome::Differs { blocks, first: found.first },
        };
        return Ok(report);
    }
    let way = match way {
        // Nothing is made: whatever stands in the way stays there.
        Err(_) if same => Way::InPlace { why: "nothing differs" },
        way => way?,
    };
    if !same {
        report.target = format!("{volume}, {way}");
    }
    job.progress.event(&Event::Plan(report.plan));
    if options.mode == Mode::DryRun {
        in_use?;
        return Ok(report);
    }
    let record = work::record(source.name(), source.size(), &found.sha256, volume, job.command);
    (report.operations, report.retries) = (work.operations, work.retries);
    if same {
        report.outcome = Outcome::Unchanged;
        work::tidy(&mut work, &device, &way);
        report.unfinished = work::finish(Recorder::prepared(job.records, record), &report)?;
        return Ok(report);
    }
    let plan = Plan { way: &way, bytes: source.size(), record };
    let sha256 = found.sha256;
    work::change(&mut work, &mut job, plan, &mut report, |work, into, progress| {
        fill(work, source, progress)?;
        prove(work, source, into, &sha256, progress)?;
        Ok(sha256)
    })?;
    report.elapsed = begun.elapsed();
    Ok(report)
}

/// What is known of a run before it begins.
pub(super) fn report(image: &str, sha256: &str, volume: &UbiVolume, bytes: u64, writes: bool) -> Report {
    let blocks = bytes.div_ceil(volume.block_size.max(1));
    let plan = if writes {
        Summary { blocks, programs: blocks, program_bytes: bytes, bytes, ..Summary::default() }
    } else {
        Summary { blocks, kept: blocks, kept_bytes: bytes, bytes, ..Summary::default() }
    };
    Report { image_bytes: bytes, sha256: sha256.to_owned(), plan, ..Report::begun(volume.to_string(), image) }
}

pub(super) fn check_size(image: &str, size: u64, volume: &UbiVolume) -> Result<(), Error> {
    if size <= volume.room() {
        return Ok(());
    }
    Err(Error::TooLarge { image: image.to_owned(), size, target: volume.to_string(), room: volume.room() })
}

/// Whether somebody uses the volume; from here on nobody else can begin to. A dry run shows its plan all the same: what
/// stands in its way is told after it.
pub(super) fn check_use(volumes: &mut dyn Volumes, job: &VolumeJob<'_>) -> Result<Result<(), Error>, Error> {
    let options = job.options;
    if options.mode == Mode::VerifyOnly {
        return Ok(Ok(()));
    }
    let target = || job.volume.to_string();
    let claimed = if job.users.is_empty() {
        match volumes.claim(job.volume) {
            // Not everybody is in a table.
            Err(error) if error.source.raw_os_error() == Some(nix::libc::EBUSY) => {
                let users =
                    vec!["held by the kernel or by a process (it cannot be opened exclusively)".to_owned()];
                Err(Error::VolumeInUse { target: target(), users })
            }
            claimed => claimed.map_err(Error::from),
        }
    } else {
        Err(Error::VolumeInUse { target: target(), users: job.users.to_vec() })
    };
    match (options.in_use, options.mode, claimed) {
        (Check::Allow, ..) | (_, _, Ok(())) => Ok(Ok(())),
        (Check::Refuse, Mode::DryRun, Err(error)) => Ok(Err(error)),
        (Check::Refuse, _, Err(error)) => Err(error),
    }
}

/// What the volume starts with beside what the image starts with.
pub(super) fn check_content(have: &[u8], want: &[u8], image: &str, job: &VolumeJob<'_>) -> Result<(), Error> {
    if job.options.mode == Mode::VerifyOnly || job.options.content == Check::Allow {
        return Ok(());
    }
    let (target, image, found) = (job.volume.to_string(), image.to_owned(), Content::of(want));
    if found == Some(Content::Ubi) {
        return Err(Error::UbiInVolume { target, image });
    }
    let head = want.get(..want.len().min(content::uimage::HEADER)).unwrap_or_default();
    if let Some(what) = content::uimage::damage(head, None) {
        return Err(Error::Damaged { image, kind: "uImage", what });
    }
    content::check(have, want).map_err(|expected| Error::Content { target, expected, image, found })
}

/// Reads image and volume to the image's end.
fn compare(work: &mut Work<'_>, source: &mut dyn Source, job: &mut VolumeJob<'_>) -> Result<Compared, Error> {
    let volume = job.volume;
    let mut sha = Sha::default();
    let mut found = Compared { sha256: String::new(), differing: 0, first: 0 };
    let other_length = volume.kind == VolumeKind::Static && volume.readable() != source.size();
    let mut offset = 0;
    loop {
        let length = next(work, source, offset)?;
        if length == 0 {
            break;
        }
        sha.update(&work.want[..length]);
        let end = offset + length as u64;
        let there = work.read_old(volume, offset, length, job.options.mode)?;
        if offset == 0 {
            check_content(&work.have[..there], &work.want[..length], source.name(), job)?;
        }
        let mut same = there == length && work.have[..length] == work.want[..length];
        if there == length && !same && job.options.mode == Mode::VerifyOnly {
            same = work.reads(volume, offset, length, job.progress, |have, want| have == want)?;
        }
        if !same || other_length && end == source.size() {
            if found.differing == 0 {
                found.first = offset;
            }
            found.differing += 1;
        }
        offset = end;
        work.tell(Phase::Survey, offset, job.progress);
    }
    source.end_of_pass()?;
    found.sha256 = sha.hex();
    Ok(found)
}

/// Reads the next block's worth of the image into `want`; how many bytes that is, 0 at its end.
fn next(work: &mut Work<'_>, source: &mut dyn Source, offset: u64) -> Result<usize, Error> {
    let left = source.size().saturating_sub(offset);
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(work.want.len());
    if length > 0 {
        source.read_at(offset, &mut work.want[..length])?;
    }
    Ok(length)
}

/// Writes the image into the update that was begun.
fn fill(work: &mut Work<'_>, source: &mut dyn Source, progress: &mut dyn Progress) -> Result<(), Error> {
    let mut offset = 0;
    loop {
        let length = next(work, source, offset)?;
        if length == 0 {
            return Ok(());
        }
        work.volumes.write(&work.want[..length])?;
        offset += length as u64;
        work.operations.programmed += length as u64;
        work.tell(Phase::Write, offset, progress);
    }
}

/// Reads the volume back beside the image, which must still be the same.
fn prove(
    work: &mut Work<'_>,
    source: &mut dyn Source,
    volume: &UbiVolume,
    expected: &str,
    progress: &mut dyn Progress,
) -> Result<(), Error> {
    let mut sha = Sha::default();
    let mut offset = 0;
    loop {
        let length = next(work, source, offset)?;
        if length == 0 {
            break;
        }
        sha.update(&work.want[..length]);
        let right = work.reads(volume, offset, length, progress, |have, want| have == want)?;
        let differs = (0..length).find(|at| work.have[*at] != work.want[*at]);
        if let (false, Some(at)) = (right, differs) {
            let (expected, found) = (work.want[at], work.have[at]);
            let direction = Direction::of(expected, found);
            let offset = offset + at as u64;
            return Err(Error::Mismatch { offset, expected, found, direction, rewrites: 0 });
        }
        offset += length as u64;
        work.tell(Phase::Verify, offset, progress);
    }
    let second = sha.hex();
    if second != expected {
        let (name, first) = (source.name().to_owned(), expected.to_owned());
        return Err(ImageError::Changed { name, first, second }.into());
    }
    Ok(())
}
