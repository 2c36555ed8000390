//! A whole run onto a UBI volume, from an image that can be read once only.
//!
//! What is the same in the volume is passed over, as long as it can still be had from there: the new volume's beginning is
//! then copied from the old one. The last byte of an update is held back until the stream's end is proven, so that a
//! volume is never valid with half an image.

use std::time::Instant;

use super::run::{check_content, check_size, check_use, report};
use super::work::{self, Plan, Work};
use super::{VolumeJob, Volumes, Way, way};
use crate::digest::Sha;
use crate::error::Error;
use crate::event::{Event, Phase, Progress};
use crate::options::{Extent, Mode};
use crate::record::Recorder;
use crate::report::{Failure, Outcome, Report};
use crate::source::{Feed, ImageError};
use crate::stream::input::Input;
use crate::target::ubi::{Named, UbiVolume, VolumeKind};

/// Does what the options say. Memory: two logical erase blocks, eight bytes for each of the image, and a constant.
///
/// On power loss, and after a stream that ended before its end, the name stands for the whole old image or the whole new
/// one with [`Way::Swap`]; with [`Way::InPlace`] the volume is void, and a second run completes it.
///
/// # Errors
/// [`Failure`]. An end that nothing proves ([`ImageError::Unproven`]) is found before the first byte is read, and so is
/// a static volume for an image of unknown size.
pub fn run(
    volumes: &mut dyn Volumes,
    feed: &mut dyn Feed,
    mut job: VolumeJob<'_>,
) -> Result<Report, Failure> {
    let begun = Instant::now();
    let (volume, options) = (job.volume, job.options);
    let _lock = match options.mode {
        Mode::Write => Some(job.records.lock(job.command)?),
        Mode::DryRun | Mode::VerifyOnly => None,
    };
    let name = feed.name().to_owned();
    let room = options.size.unwrap_or(volume.room());
    let input = Input::new(feed, options, volume.to_string(), room).map_err(Error::from)?;
    check_size(&name, room, volume)?;
    if volume.kind == VolumeKind::Static && options.size.is_none() && options.mode == Mode::Write {
        return Err(Error::StreamToStatic { target: volume.to_string() }.into());
    }
    let in_use = check_use(volumes, &job)?;
    let device = volumes.device().map_err(Error::from)?;
    // What is only compared is in nobody's way.
    let named = if options.mode == Mode::VerifyOnly { Named::ByNumber } else { job.named };
    let way = way(&device, volume, named)?;
    let mut run = Run { input, name, digests: Vec::new(), pending: 0, differing: (0, 0) };
    let mut work = Work::new(volumes, volume.block_size, room);
    let differs = run.pass_over(&mut work, &mut job, &way)?;
    let mut sha256 = String::new();
    if !differs || options.mode != Mode::Write {
        sha256 = run.input.prove_end()?;
        work.total = run.input.taken();
    }
    let mut report = report(&run.name, &sha256, volume, work.total, differs);
    (report.operations, report.retries) = (work.operations, work.retries);
    match options.mode {
        Mode::VerifyOnly => {
            report.outcome = match run.differing {
                (0, _) => Outcome::Equal,
                (blocks, first) => Outcome::Differs { blocks, first },
            };
        }
        Mode::DryRun => {
            if differs {
                report.target = format!("{volume}, {way}");
            }
            job.progress.event(&Event::Plan(report.plan));
            in_use?;
        }
        Mode::Write if differs => {
            job.progress.event(&Event::Plan(report.plan));
            let record = work::record(&run.name, room, "", volume, job.command);
            let plan = Plan { way: &way, bytes: room, record };
            work::change(&mut work, &mut job, plan, &mut report, |work, into, progress| {
                run.rest(work, volume, into, room, progress)
            })?;
            report.plan = self::report(&run.name, "", volume, work.total, true).plan;
        }
        Mode::Write => {
            job.progress.event(&Event::Plan(report.plan));
            report.outcome = Outcome::Unchanged;
            work::tidy(&mut work, &device, &way);
            let record = work::record(&run.name, work.total, &sha256, volume, job.command);
            report.unfinished = work::finish(Recorder::prepared(job.records, record), &report)?;
        }
    }
    report.elapsed = begun.elapsed();
    Ok(report)
}

/// A stream and how far it was taken.
struct Run<'a> {
    input: Input<'a>,
    name: String,
    /// A digest of each block that was taken.
    digests: Vec<[u8; 8]>,
    /// How many bytes in the work's `want` were taken and not written yet.
    pending: usize,
    /// How many blocks differ, and where the first lies.
    differing: (u64, u64),
}

impl Run<'_> {
    /// Takes the stream up to the first block that differs (which is pending then), or to its end. Returns whether
    /// anything is to be written. A run that writes nothing takes all of it.
    fn pass_over(&mut self, work: &mut Work<'_>, job: &mut VolumeJob<'_>, way: &Way) -> Result<bool, Error> {
        let (volume, options) = (job.volume, job.options);
        // What an update in place has voided cannot be copied from there.
        let keeps = matches!(way, Way::Swap { .. }) && options.extent == Extent::Differing;
        loop {
            let offset = self.input.taken();
            let taken = self.take(work)?;
            if taken == 0 {
                break;
            }
            let there = work.read_old(volume, offset, taken, options.mode)?;
            if offset == 0 {
                check_content(&work.have[..there], &work.want[..taken], &self.name, job)?;
            }
            let mut same = there == taken && work.have[..taken] == work.want[..taken];
            if there == taken && !same && options.mode == Mode::VerifyOnly {
                same = work.reads(volume, offset, taken, job.progress, |have, want| have == want)?;
            }
            if !same {
                self.differ(offset);
            }
            if options.mode == Mode::Write && (self.differing.0 > 0 || !keeps) {
                self.pending = taken;
                return Ok(true);
            }
            work.tell(Phase::Survey, self.input.taken(), job.progress);
        }
        let taken = self.input.taken();
        if taken == 0 {
            return Err(ImageError::Empty { path: self.name.clone().into() }.into());
        }
        if volume.kind == VolumeKind::Static && volume.readable() != taken && self.differing.0 == 0 {
            self.differ((taken - 1) / volume.block_size.max(1) * volume.block_size);
        }
        Ok(self.differing.0 > 0 || options.extent == Extent::Full)
    }

    fn differ(&mut self, offset: u64) {
        if self.differing.0 == 0 {
            self.differing.1 = offset;
        }
        self.differing.0 += 1;
    }

    fn take(&mut self, work: &mut Work<'_>) -> Result<usize, Error> {
        let taken = self.input.take(&mut work.want)?;
        if taken > 0 {
            self.digests.push(short(&work.want[..taken]));
        }
        Ok(taken)
    }

    /// Writes what was passed over, what is pending and what still comes; proves the end, then the volume.
    fn rest(
        &mut self,
        work: &mut Work<'_>,
        old: &UbiVolume,
        into: &UbiVolume,
        declared: u64,
        progress: &mut dyn Progress,
    ) -> Result<String, Error> {
        let mut out = Out { held: None, written: 0 };
        let passed = self.input.taken() - self.pending as u64;
        while out.written < passed {
            let length = usize::try_from(passed - out.written).unwrap_or(usize::MAX).min(work.have.len());
            let block = usize::try_from(out.written / old.block_size.max(1)).unwrap_or(usize::MAX);
            let digest = self.digests.get(block).copied();
            if !work.reads(old, out.written, length, progress, |have, _| Some(short(have)) == digest)? {
                let start = out.written;
                return Err(Error::ReadBack { start, end: start + length as u64 });
            }
            out.put(work, Which::Have, length)?;
            work.tell(Phase::Write, out.written, progress);
        }
        let mut taken = std::mem::take(&mut self.pending);
        while taken > 0 {
            out.put(work, Which::Want, taken)?;
            work.tell(Phase::Write, out.written, progress);
            taken = self.take(work)?;
        }
        let sha256 = self.input.prove_end()?;
        work.total = self.input.taken();
        // Bytes that read as erased are not written by UBI.
        work.want.fill(0xff);
        while out.written < declared {
            let length = usize::try_from(declared - out.written).unwrap_or(usize::MAX).min(work.want.len());
            out.put(work, Which::Want, length)?;
        }
        if let Some(held) = out.held {
            work.volumes.write(&[held])?;
        }
        work.operations.programmed += work.total;
        self.prove(work, into, &sha256, progress)?;
        Ok(sha256)
    }

    /// Reads the volume back: each block must be what was taken.
    fn prove(
        &self,
        work: &mut Work<'_>,
        into: &UbiVolume,
        sha256: &str,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let (mut sha, mut offset) = (Sha::default(), 0);
        for expected in &self.digests {
            let left = usize::try_from(work.total - offset).unwrap_or(usize::MAX);
            let length = left.min(work.have.len());
            let end = offset + length as u64;
            if !work.reads(into, offset, length, progress, |have, _| short(have) == *expected)? {
                return Err(Error::ReadBack { start: offset, end });
            }
            sha.update(&work.have[..length]);
            offset = end;
            work.tell(Phase::Verify, offset, progress);
        }
        if sha.hex() == sha256 { Ok(()) } else { Err(Error::ReadBack { start: 0, end: offset }) }
    }
}

fn short(bytes: &[u8]) -> [u8; 8] {
    let mut sha = Sha::default();
    sha.update(bytes);
    let mut short = [0; 8];
    short.iter_mut().zip(sha.bytes()).for_each(|(to, from)| *to = from);
    short
}

/// Which of the work's buffers.
#[derive(Clone, Copy)]
enum Which {
    Have,
    Want,
}

/// An update whose last byte is held back.
struct Out {
    held: Option<u8>,
    written: u64,
}

impl Out {
    fn put(&mut self, work: &mut Work<'_>, which: Which, length: usize) -> Result<(), Error> {
        let bytes = match which {
            Which::Have => &work.have[..length],
            Which::Want => &work.want[..length],
        };
        if let Some(held) = self.held.take() {
            work.volumes.write(&[held])?;
        }
        if let Some((last, bytes)) = bytes.split_last() {
            if !bytes.is_empty() {
                work.volumes.write(bytes)?;
            }
            self.held = Some(*last);
        }
        self.written += length as u64;
        Ok(())
    }
}
