//! A whole run onto a UBI volume.

use std::time::Instant;

use super::{UbiError, Volumes, Way, beside, way};
use crate::content::{self, Content};
use crate::device::Ecc;
use crate::digest::Sha;
use crate::error::{Direction, Error};
use crate::event::{Event, Operations, Phase, Progress};
use crate::hold::Hold;
use crate::options::{Check, Extent, Mode, Options};
use crate::plan::Summary;
use crate::record::{Record, RecordDir, Recorder, State, now};
use crate::report::{Failure, Flash, Locks, Outcome, Report};
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

/// Does what the options say. With [`Way::Swap`] a power cut leaves the whole old image or the whole new one under
/// the name; with [`Way::InPlace`] it may leave a void volume, which a second run completes.
///
/// # Errors
/// [`Failure`]. Until the names are swapped the old image is whole: that counts as untouched.
pub fn run(
    volumes: &mut dyn Volumes,
    source: &mut dyn Source,
    job: VolumeJob<'_>,
) -> Result<Report, Failure> {
    let begun = Instant::now();
    let (volume, options) = (job.volume, job.options);
    let target = volume.to_string();
    if source.size() > volume.room() {
        let (image, size, room) = (source.name().to_owned(), source.size(), volume.room());
        return Err(Error::TooLarge { image, size, target, room }.into());
    }
    let in_use = if job.users.is_empty() || options.in_use == Check::Allow || options.mode == Mode::VerifyOnly
    {
        Ok(())
    } else {
        Err(Error::VolumeInUse { target: target.clone(), users: job.users.to_vec() })
    };
    let in_use = if options.mode == Mode::DryRun { in_use } else { in_use.map(|()| Ok(()))? };
    let _lock = match options.mode {
        Mode::Write => Some(job.records.lock(job.command)?),
        Mode::DryRun | Mode::VerifyOnly => None,
    };
    let mut work = Work::new(volumes, source, volume.block_size, job.progress);
    let found = work.compare(volume, options)?;
    if let Some(expected) = options.sha256.as_ref().filter(|expected| **expected != found.sha256) {
        let (image, expected) = (work.source.name().to_owned(), expected.clone());
        return Err(Error::Digest { image, expected, found: found.sha256 }.into());
    }
    let device = work.volumes.device().map_err(Error::from)?;
    let bytes = work.source.size();
    let blocks = bytes.div_ceil(volume.block_size.max(1));
    let (same, programs) = (found.differing == 0 && options.extent == Extent::Differing, bytes);
    let way = way(&device, volume, job.named);
    let mut report = Report {
        target: if same || options.mode == Mode::VerifyOnly { target } else { format!("{target}, {way}") },
        image: work.source.name().to_owned(),
        image_bytes: bytes,
        sha256: found.sha256.clone(),
        outcome: Outcome::Possible,
        plan: if same {
            Summary { blocks, kept: blocks, kept_bytes: bytes, bytes, ..Summary::default() }
        } else {
            Summary { blocks, programs: blocks, program_bytes: programs, bytes, ..Summary::default() }
        },
        operations: Operations::default(),
        retries: 0,
        ecc: Ecc::default(),
        locks: Locks::AsBefore,
        unfinished: None,
        elapsed: begun.elapsed(),
    };
    if options.mode == Mode::VerifyOnly {
        report.outcome = match found.differing {
            0 => Outcome::Equal,
            blocks => Outcome::Differs { blocks, first: found.first },
        };
        return Ok(report);
    }
    work.progress.event(&Event::Plan(report.plan));
    if options.mode == Mode::DryRun {
        in_use?;
        return Ok(report);
    }
    let record = record(&work, volume, job.command, &found.sha256);
    let left = device.volumes.iter().find(|other| other.name == beside(&volume.name));
    if same {
        report.outcome = Outcome::Unchanged;
        if let (Way::Swap { .. }, Some(left)) = (&way, left) {
            // The old image of a run that was cut off at its very end. Nobody needs it, and nothing depends on this.
            let _ = work.volumes.remove(left);
        }
        report.unfinished = finish(Recorder::prepared(job.records, record), &report)?;
        report.operations = work.operations;
        return Ok(report);
    }
    let unverified = |error| Failure { flash: Flash::Unverified, error };
    job.hold.steel();
    let result = match &way {
        Way::Swap { beside } => {
            // The old image stays whole until the names are swapped: no record says otherwise.
            work.progress.event(&Event::FirstChange);
            if let Some(left) = left {
                work.volumes.remove(left).map_err(Error::from)?;
            }
            work.write_beside(volume, beside, &found.sha256).map_err(Failure::from)?;
            Ok(Recorder::prepared(job.records, record))
        }
        Way::InPlace { .. } => {
            work.progress.event(&Event::FirstChange);
            let opened = work.volumes.update(volume, bytes).map_err(Error::from);
            // Refused before it was voided, because somebody has it open, for one.
            let opened = match opened {
                Err(error) if !work.is_void(volume) => return Err(error.into()),
                opened => opened,
            };
            let recorder = Recorder::changing(job.records, record).map_err(unverified)?;
            match opened.and_then(|()| work.fill()).and_then(|()| work.prove(volume, &found.sha256)) {
                Ok(()) => Ok(recorder),
                Err(error) => Err((recorder, unverified(error))),
            }
        }
    };
    report.operations = work.operations;
    report.outcome = Outcome::Written;
    report.elapsed = begun.elapsed();
    match result {
        Ok(recorder) => {
            report.unfinished = finish(recorder, &report).map_err(unverified)?;
            Ok(report)
        }
        Err((mut recorder, failure)) => {
            let record = recorder.record();
            record.state = State::Unverified;
            record.exit_code = Some(failure.exit_code());
            record.error = Some(failure.to_string());
            // The first error is the one to tell.
            let _ = recorder.finish();
            Err(failure)
        }
    }
}

fn record(work: &Work<'_>, volume: &UbiVolume, command: &[String], sha256: &str) -> Record {
    Record {
        version: 1,
        state: State::Changing,
        pid: std::process::id(),
        command: command.to_vec(),
        device: volume.node().display().to_string(),
        name: volume.name.clone(),
        // Where the volume lies on its chip is UBI's own affair.
        chip: Some(format!("ubi{}:{}", volume.ubi, volume.name)),
        start: 0,
        end: volume.room(),
        image: work.source.name().to_owned(),
        image_bytes: work.source.size(),
        bytes_done: 0,
        bytes_total: work.source.size(),
        started: now(),
        finished: None,
        operations: Operations::default(),
        retries: 0,
        image_sha256: Some(sha256.to_owned()),
        range_sha256: None,
        exit_code: None,
        error: None,
        earlier: Vec::new(),
    }
}

fn finish(mut recorder: Recorder, report: &Report) -> Result<Option<String>, Error> {
    let record = recorder.record();
    record.state = State::Verified;
    record.range_sha256 = Some(report.sha256.clone());
    record.exit_code = Some(report.exit_code());
    record.bytes_done = record.bytes_total;
    record.operations = report.operations;
    Ok(recorder.finish()?.map(|earlier| earlier.command.join(" ")))
}

/// A run under way, with two blocks' worth of bytes.
struct Work<'a> {
    volumes: &'a mut dyn Volumes,
    source: &'a mut dyn Source,
    progress: &'a mut dyn Progress,
    have: Vec<u8>,
    want: Vec<u8>,
    operations: Operations,
}

impl<'a> Work<'a> {
    fn new(
        volumes: &'a mut dyn Volumes,
        source: &'a mut dyn Source,
        block_size: u64,
        progress: &'a mut dyn Progress,
    ) -> Self {
        let size = usize::try_from(block_size).unwrap_or(usize::MAX).max(1);
        let operations = Operations::default();
        Self { volumes, source, progress, have: vec![0; size], want: vec![0; size], operations }
    }

    /// Reads the next block's worth of the image into `want`; how many bytes that is, 0 at its end.
    fn next(&mut self, offset: u64) -> Result<usize, Error> {
        let left = self.source.size().saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.want.len());
        if length > 0 {
            self.source.read_at(offset, &mut self.want[..length])?;
        }
        Ok(length)
    }

    fn tell(&mut self, phase: Phase, done: u64) {
        let (total, operations) = (self.source.size(), self.operations);
        self.progress.event(&Event::Progress { phase, done, total, operations });
    }

    /// Reads image and volume to the image's end.
    fn compare(&mut self, volume: &UbiVolume, options: &Options) -> Result<Compared, Error> {
        let mut sha = Sha::default();
        let mut found = Compared { sha256: String::new(), differing: 0, first: 0 };
        // A static volume is as long as its contents, and one whose update was cut off has none.
        let readable = if volume.torn { 0 } else { volume.data_bytes };
        let other_length = volume.kind == VolumeKind::Static && readable != self.source.size();
        let mut offset = 0;
        loop {
            let length = self.next(offset)?;
            if length == 0 {
                break;
            }
            sha.update(&self.want[..length]);
            let end = offset + length as u64;
            let mut same = end <= readable;
            let there = usize::try_from(readable.saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
            if there > 0 {
                let have = &mut self.have[..there];
                self.volumes.read(volume, offset, have)?;
                self.operations.read += there as u64;
                same &= *have == self.want[..there];
                if offset == 0 && options.mode != Mode::VerifyOnly && options.content == Check::Refuse {
                    self.check_content(volume, there, length)?;
                }
            }
            if !same || other_length && end == self.source.size() {
                if found.differing == 0 {
                    found.first = offset;
                }
                found.differing += 1;
            }
            offset = end;
            self.tell(Phase::Survey, offset);
        }
        self.source.end_of_pass()?;
        found.sha256 = sha.hex();
        Ok(found)
    }

    fn check_content(&self, volume: &UbiVolume, there: usize, length: usize) -> Result<(), Error> {
        let (have, want) = (&self.have[..there], &self.want[..length]);
        let target = || volume.to_string();
        let image = || self.source.name().to_owned();
        if Content::of(want) == Some(Content::Ubi) {
            return Err(Error::UbiInVolume { target: target(), image: image() });
        }
        content::check(have, want).map_err(|expected| Error::Content {
            target: target(),
            expected,
            image: image(),
            found: Content::of(want),
        })
    }

    /// Whether the volume has lost its contents, or cannot be asked.
    fn is_void(&mut self, volume: &UbiVolume) -> bool {
        let device = self.volumes.device();
        let now = device.map(|device| device.volumes.into_iter().find(|now| now.number == volume.number));
        !now.is_ok_and(|now| now.is_some_and(|now| !now.torn || volume.torn))
    }

    /// Writes the image into the update that was begun.
    fn fill(&mut self) -> Result<(), Error> {
        let mut offset = 0;
        loop {
            let length = self.next(offset)?;
            if length == 0 {
                return Ok(());
            }
            self.volumes.write(&self.want[..length])?;
            offset += length as u64;
            self.operations.programmed += length as u64;
            self.tell(Phase::Write, offset);
        }
    }

    /// Reads the volume back beside the image, which must still be the same.
    fn prove(&mut self, volume: &UbiVolume, expected: &str) -> Result<(), Error> {
        let mut sha = Sha::default();
        let mut offset = 0;
        loop {
            let length = self.next(offset)?;
            if length == 0 {
                break;
            }
            let (have, want) = (&mut self.have[..length], &self.want[..length]);
            sha.update(want);
            self.volumes.read(volume, offset, have)?;
            self.operations.read += length as u64;
            if let Some(at) = (0..length).find(|at| have[*at] != want[*at]) {
                let (expected, found) = (want[at], have[at]);
                let direction = Direction::of(expected, found);
                return Err(Error::Mismatch {
                    offset: offset + at as u64,
                    expected,
                    found,
                    direction,
                    rewrites: 0,
                });
            }
            offset += length as u64;
            self.tell(Phase::Verify, offset);
        }
        let second = sha.hex();
        if second != expected {
            let (name, first) = (self.source.name().to_owned(), expected.to_owned());
            return Err(ImageError::Changed { name, first, second }.into());
        }
        Ok(())
    }

    /// Writes and proves a new volume, gives it the old one's name, and removes the old one.
    fn write_beside(&mut self, volume: &UbiVolume, beside: &str, sha256: &str) -> Result<(), Error> {
        self.volumes.make(beside, volume.room(), volume.kind)?;
        let written = self.new_volume(beside).and_then(|new| {
            self.volumes.update(&new, self.source.size())?;
            self.fill()?;
            self.prove(&new, sha256)?;
            self.volumes.swap(volume, &new)?;
            Ok(())
        });
        if let Err(error) = written {
            // What was begun takes room and is of no use. The first error is the one to tell.
            if let Ok(new) = self.new_volume(beside) {
                let _ = self.volumes.remove(&new);
            }
            return Err(error);
        }
        // The old image, under the new one's name now. If somebody still holds it, the next run removes it.
        let _ = self.volumes.remove(volume);
        Ok(())
    }

    fn new_volume(&mut self, name: &str) -> Result<UbiVolume, Error> {
        let device = self.volumes.device()?;
        let missing = || UbiError {
            what: "find the volume",
            on: name.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        device.volumes.into_iter().find(|volume| volume.name == name).ok_or_else(|| missing().into())
    }
}
