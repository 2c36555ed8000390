//! What runs over files and streams have in common: the buffers, the record, and how a volume comes to its new contents.

use super::{UbiError, Volumes, Way};
use crate::error::Error;
use crate::event::{Event, Operations, Phase, Progress, Retry};
use crate::options::Mode;
use crate::record::{Record, Recorder, State};
use crate::report::{Failure, Outcome, Report, Unfinished};
use crate::target::ubi::{Named, UbiDevice, UbiVolume};
use crate::ubi::VolumeJob;

/// A run under way, with two blocks' worth of bytes.
pub(super) struct Work<'a> {
    pub(super) volumes: &'a mut dyn Volumes,
    pub(super) have: Vec<u8>,
    pub(super) want: Vec<u8>,
    pub(super) operations: Operations,
    /// Readings that were made again.
    pub(super) retries: u64,
    /// The image's size, as far as it is known.
    pub(super) total: u64,
    /// From the first change on.
    recorder: Option<Recorder>,
}

impl<'a> Work<'a> {
    pub(super) fn new(volumes: &'a mut dyn Volumes, block_size: u64, total: u64) -> Self {
        let size = usize::try_from(block_size).unwrap_or(usize::MAX).max(1);
        let operations = Operations::default();
        Self {
            volumes,
            have: vec![0; size],
            want: vec![0; size],
            operations,
            retries: 0,
            total,
            recorder: None,
        }
    }

    pub(super) fn tell(&mut self, phase: Phase, done: u64, progress: &mut dyn Progress) {
        let (total, operations) = (self.total, self.operations);
        if let Some(recorder) = &mut self.recorder {
            let done = if phase == Phase::Write { done } else { recorder.record().bytes_done };
            recorder.update(done, operations);
        }
        progress.event(&Event::Progress { phase, done, total, operations });
    }

    /// Fills the first `length` bytes of `have`. An error may pass: it is believed when it comes twice.
    pub(super) fn read(&mut self, volume: &UbiVolume, offset: u64, length: usize) -> Result<(), Error> {
        let have = &mut self.have[..length];
        if self.volumes.read(volume, offset, have).is_err() {
            self.retries += 1;
            self.volumes.read(volume, offset, have)?;
        }
        self.operations.read += length as u64;
        Ok(())
    }

    /// Reads until `right` says so of the bytes, twice at most: a flaky bus is no bad block. Whether it did.
    pub(super) fn reads(
        &mut self,
        volume: &UbiVolume,
        offset: u64,
        length: usize,
        progress: &mut dyn Progress,
        right: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Result<bool, Error> {
        for again in [false, true] {
            self.read(volume, offset, length)?;
            if right(&self.have[..length], &self.want[..length]) {
                return Ok(true);
            }
            if !again {
                self.retries += 1;
                progress.event(&Event::Retry { offset, what: Retry::Reread });
            }
        }
        Ok(false)
    }

    /// The same from a volume as it was found: how many bytes there are. What cannot be read at all shall be written
    /// anew, and is an error for a comparison only.
    pub(super) fn read_old(
        &mut self,
        volume: &UbiVolume,
        offset: u64,
        length: usize,
        mode: Mode,
    ) -> Result<usize, Error> {
        let left = usize::try_from(volume.readable().saturating_sub(offset)).unwrap_or(usize::MAX);
        let there = left.min(length);
        if there == 0 {
            return Ok(0);
        }
        match self.read(volume, offset, there) {
            Err(Error::Ubi(error)) if mode != Mode::VerifyOnly && error.is_unreadable() => Ok(0),
            read => read.map(|()| there),
        }
    }

    fn find(&mut self, name: &str) -> Result<UbiVolume, Error> {
        let device = self.volumes.device()?;
        let missing = || UbiError {
            what: "find the volume",
            on: name.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        device.volumes.into_iter().find(|volume| volume.name == name).ok_or_else(|| missing().into())
    }

    /// Whether the volume has lost its contents, or cannot be asked.
    fn is_void(&mut self, volume: &UbiVolume) -> bool {
        let device = self.volumes.device();
        let now = device.map(|device| device.volumes.into_iter().find(|now| now.number == volume.number));
        !now.is_ok_and(|now| now.is_some_and(|now| !now.torn || volume.torn))
    }
}

/// Removes the old image of a run that was cut off at its very end. Nobody needs it, and nothing depends on this.
pub(super) fn tidy(work: &mut Work<'_>, device: &UbiDevice, way: &Way) {
    if let Way::Swap { beside } = way
        && let Some(left) = device.volumes.iter().find(|volume| volume.name == *beside)
    {
        let _ = work.volumes.remove(left);
    }
}

pub(crate) fn record(
    image: &str,
    bytes: u64,
    sha256: &str,
    volume: &UbiVolume,
    command: &[String],
) -> Record {
    Record {
        device: volume.node().display().to_string(),
        name: volume.name.clone(),
        // Where the volume lies on its chip is UBI's own affair.
        chip: Some(format!("ubi{}:{}", volume.ubi, volume.name)),
        end: volume.room(),
        ..Record::begun(image, bytes, sha256, command)
    }
}

/// The last record of a run that ended well. Returns the latest of the earlier ones that are still not verified.
pub(super) fn finish(mut recorder: Recorder, report: &Report) -> Result<Option<Unfinished>, Error> {
    let record = recorder.record();
    let device = record.device.clone();
    record.state = State::Verified;
    record.image_sha256 = Some(report.sha256.clone());
    record.range_sha256 = Some(report.sha256.clone());
    record.exit_code = Some(report.exit_code());
    (record.image_bytes, record.bytes_total) = (report.image_bytes, report.image_bytes);
    record.bytes_done = record.bytes_total;
    (record.operations, record.retries) = (report.operations, report.retries);
    Ok(recorder.finish()?.map(|earlier| Unfinished::of(earlier, &device)))
}

/// What is about to be done.
pub(super) struct Plan<'a> {
    pub(super) way: &'a Way,
    /// How many bytes the update is said to have.
    pub(super) bytes: u64,
    pub(super) record: Record,
}

/// A change that is complete.
struct Done {
    sha256: String,
    /// What bears the name now.
    volume: UbiVolume,
    /// The old image could not be removed.
    left: bool,
}

/// How far a change had come when it failed.
enum Reached {
    /// The old image is whole under its name.
    Nothing,
    /// It is not.
    Void,
}

/// The part of a run that changes volumes. `fill` writes all bytes of the update that was begun, reads them back from the
/// volume it is given, and returns the image's SHA-256; only then the names are swapped.
pub(super) fn change(
    work: &mut Work<'_>,
    job: &mut VolumeJob<'_>,
    plan: Plan<'_>,
    report: &mut Report,
    fill: impl FnOnce(&mut Work<'_>, &UbiVolume, &mut dyn Progress) -> Result<String, Error>,
) -> Result<(), Failure> {
    let volume = job.volume;
    job.hold.steel();
    work.recorder = Some(Recorder::changing(job.records, plan.record)?);
    job.progress.event(&Event::FirstChange);
    let result = match plan.way {
        Way::Swap { beside } => write_beside(work, job, beside, plan.bytes, fill),
        Way::InPlace { .. } => match work.volumes.update(volume, plan.bytes) {
            // Refused before it was voided, because somebody has it open, for one.
            Err(error) if !work.is_void(volume) => Err((Reached::Nothing, error.into())),
            Err(error) => Err((Reached::Void, error.into())),
            Ok(()) => fill(work, volume, job.progress)
                .map(|sha256| Done { sha256, volume: volume.clone(), left: false })
                .map_err(|error| (Reached::Void, error)),
        },
    };
    (report.operations, report.retries) = (work.operations, work.retries);
    let Some(mut recorder) = work.recorder.take() else { return Ok(()) };
    match result {
        Ok(Done { sha256, volume, left }) => {
            report.outcome = Outcome::Written;
            report.target = format!("{volume}, {}", plan.way);
            if let (true, Way::Swap { beside }) = (left, plan.way) {
                report.target += &format!("; the old image is in use and stays as {beside}");
            }
            // A volume that took the name has another number.
            recorder.record().device = volume.node().display().to_string();
            report.sha256 = sha256;
            report.image_bytes = work.total;
            report.unfinished = finish(recorder, report).map_err(Failure::unverified)?;
            Ok(())
        }
        Err((Reached::Nothing, error)) => {
            recorder.take_back();
            Err(error.into())
        }
        Err((Reached::Void, error)) => {
            let failure = Failure::unverified(error);
            let record = recorder.record();
            record.state = State::Unverified;
            record.exit_code = Some(failure.exit_code());
            record.error = Some(failure.to_string());
            (record.operations, record.retries) = (work.operations, work.retries);
            // The first error is the one to tell.
            let _ = recorder.finish();
            Err(failure)
        }
    }
}

/// Writes and proves a new volume, gives it the old one's name, and removes the old one.
fn write_beside(
    work: &mut Work<'_>,
    job: &mut VolumeJob<'_>,
    beside: &str,
    bytes: u64,
    fill: impl FnOnce(&mut Work<'_>, &UbiVolume, &mut dyn Progress) -> Result<String, Error>,
) -> Result<Done, (Reached, Error)> {
    let volume = job.volume;
    let mut made = false;
    let write = || {
        // What an earlier run left. Looked at once more: somebody may have made one of that name since.
        super::way(&work.volumes.device()?, volume, Named::ByName)?;
        if let Ok(left) = work.find(beside) {
            work.volumes.remove(&left)?;
        }
        work.volumes.make(beside, volume)?;
        made = true;
        let new = work.find(beside)?;
        work.volumes.update(&new, bytes)?;
        let sha256 = fill(work, &new, job.progress)?;
        work.volumes.swap(volume, &new)?;
        Ok((sha256, new))
    };
    match write() {
        Ok((sha256, new)) => {
            // The old image. If somebody still holds it, the next run removes it.
            let left = work.volumes.remove(volume).is_err();
            Ok(Done { sha256, volume: UbiVolume { name: volume.name.clone(), ..new }, left })
        }
        Err(error) => {
            // What was begun takes room and is of no use. The first error is the one to tell.
            if made && let Ok(new) = work.find(beside) {
                let _ = work.volumes.remove(&new);
            }
            Err((Reached::Nothing, error))
        }
    }
}
