//! What a run leaves in the record, at its beginning, meanwhile and at its end.

use std::ops::Range;

use super::Place;
use crate::error::Error;
use crate::event::{Event, Phase, Progress};
use crate::plan::Summary;
use crate::record::{Record, Recorder, State};
use crate::report::{Failure, Report, Unfinished};

/// `size` is `None` for a stream of unknown length: then the partition's size stands for it until the end is reached.
pub(crate) fn first_record(
    image: &str,
    size: Option<u64>,
    sha256: &str,
    range: &Range<u64>,
    place: &Place<'_>,
) -> Record {
    let Place { target, facts, command } = *place;
    let facts = facts.mtd(target.number);
    let base = facts.and_then(|facts| facts.start).unwrap_or(0);
    Record {
        device: target.node().display().to_string(),
        name: target.name.clone(),
        chip: facts.and_then(|facts| facts.chip_name()).map(str::to_owned),
        start: base + range.start,
        end: base + range.end,
        ..Record::begun(image, size.unwrap_or(target.size), sha256, command)
    }
}

/// Writes the last record. Returns the latest of the earlier runs that are still not verified.
pub(super) fn finish(
    mut recorder: Recorder,
    result: Result<&String, &Failure>,
    report: &Report,
) -> Result<Option<Unfinished>, Error> {
    let record = recorder.record();
    let device = record.device.clone();
    match result {
        Ok(sha256) => {
            record.state = State::Verified;
            record.range_sha256 = Some(sha256.clone());
            record.exit_code = Some(report.exit_code());
            record.bytes_done = record.bytes_total;
        }
        Err(failure) => {
            record.state = State::Unverified;
            record.exit_code = Some(failure.exit_code());
            record.error = Some(failure.to_string());
        }
    }
    Ok(recorder.finish()?.map(|earlier| Unfinished::of(earlier, &device)))
}

/// Passes the news on, and keeps the record up to date with it.
pub(super) struct Watch<'a> {
    pub(super) progress: &'a mut dyn Progress,
    pub(super) recorder: Recorder,
    pub(super) plan: Summary,
}

impl Progress for Watch<'_> {
    fn event(&mut self, event: &Event) {
        if let Event::Progress { phase: Phase::Erase | Phase::Write | Phase::Verify, operations, .. } = event
        {
            let done = match event {
                Event::Progress { phase: Phase::Write, done, .. } => {
                    self.plan.bytes - self.plan.program_bytes + done
                }
                _ => self.recorder.record().bytes_done,
            };
            self.recorder.update(done, *operations);
        }
        self.progress.event(event);
    }
}
