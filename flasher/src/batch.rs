//! Several images in one run: every check of every image passes before the first change of any.

use crate::device::Mtd;
use crate::error::Error;
use crate::event::{Event, Phase, Progress};
use crate::options::{Check, Mode, Options};
use crate::pipeline::{self, Job};
use crate::plan_file::Entry;
use crate::record::{Record, RecordDir};
use crate::report::{Failure, Flash, Outcome, Report};
use crate::source::Source;

/// A run over one image, with the record's entry that it would begin with.
pub struct Run {
    /// How it ended.
    pub report: Report,
    record: Record,
}

/// What a batch needs of its surroundings.
pub trait Surroundings {
    /// Opens image and partition of an entry and calls [`run_one`] with them and `options`; with
    /// `listen`.
    ///
    /// # Errors
    /// What opening says, and what [`run_one`] says.
    fn run(&mut self, entry: &Entry, options: &Options, listen: Listen) -> Result<Run, Failure>;

    /// One image is done.
    fn done(&mut self, report: &Report);
}

/// What is to be told of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Everything.
    All,
    /// How far the comparison is: the plan is told by the run that carries it out.
    Survey,
}

/// Passes on what [`Listen`] allows.
struct Filter<'a> {
    listen: Listen,
    progress: &'a mut dyn Progress,
}

impl Progress for Filter<'_> {
    fn event(&mut self, event: &Event) {
        if self.listen == Listen::All || matches!(event, Event::Progress { phase: Phase::Survey, .. }) {
            self.progress.event(event);
        }
    }
}

/// One image's part of a batch.
///
/// # Errors
/// [`Failure`].
pub fn run_one(
    chip: &mut dyn Mtd,
    source: &mut dyn Source,
    job: Job<'_>,
    listen: Listen,
) -> Result<Run, Failure> {
    let place = job.place();
    let mut filter = Filter { listen, progress: job.progress };
    let job = Job {
        target: job.target,
        facts: job.facts,
        options: job.options,
        command: job.command,
        records: job.records,
        hold: job.hold,
        progress: &mut filter,
    };
    let report = pipeline::run_locked(chip, source, job)?;
    let range = 0..report.plan.bytes;
    let record = pipeline::first_record(source.name(), Some(source.size()), &report.sha256, &range, &place);
    Ok(Run { report, record })
}

/// Carries a plan out. Returns the worst exit code of those that ended well.
///
/// On power loss each range is as a single run leaves it; ranges that were not reached hold what they held, and the
/// record names the command that completes them. The same command again does.
///
/// # Errors
/// The first [`Failure`]; the images behind it are not written. It is [`Flash::Unverified`] as soon as one image was
/// written: the plan as a whole is then not what the flash holds.
pub fn run(
    entries: &[Entry],
    options: &Options,
    command: &[String],
    records: &RecordDir,
    surroundings: &mut dyn Surroundings,
) -> Result<u8, Failure> {
    let of = |mode, sha256| Options { mode, sha256, ..options.clone() };
    if options.mode != Mode::Write {
        let mut worst = 0;
        let mut checked: Vec<Record> = Vec::new();
        for entry in entries {
            let options = of(options.mode, entry.sha256.clone());
            let run = surroundings.run(entry, &options, Listen::All)?;
            worst = worst.max(run.report.exit_code());
            surroundings.done(&run.report);
            checked.push(run.record);
        }
        refuse_overlaps(&checked, options)?;
        return Ok(worst);
    }
    let _lock = records.lock(command)?;
    let mut checked = Vec::new();
    let mut digests = Vec::new();
    for entry in entries {
        let options = of(Mode::DryRun, entry.sha256.clone());
        let run = surroundings.run(entry, &options, Listen::Survey)?;
        digests.push(run.report.sha256.clone());
        checked.push(run.record);
    }
    refuse_overlaps(&checked, options)?;
    let count = entries.len();
    for (number, record) in checked.iter_mut().enumerate() {
        record.error = Some(format!("image {} of {count} of a plan was not written yet", number + 1));
    }
    let mut expected = Some(records.expect(&checked)?);
    let (mut worst, mut written) = (0, Flash::Untouched);
    for (entry, digest) in entries.iter().zip(digests) {
        // The image that was checked, and no other that has taken its name since.
        let options = of(Mode::Write, Some(digest));
        match surroundings.run(entry, &options, Listen::All) {
            Ok(run) => {
                if run.report.outcome == Outcome::Written {
                    written = Flash::Unverified;
                }
                worst = worst.max(run.report.exit_code());
                surroundings.done(&run.report);
            }
            Err(failure) => {
                if failure.flash == Flash::Untouched
                    && written == Flash::Untouched
                    && let Some(expected) = expected.take()
                {
                    records.take_back(expected);
                    return Err(failure);
                }
                return Err(Failure { flash: Flash::Unverified, error: failure.error });
            }
        }
    }
    Ok(worst)
}

/// Two entries that would write the same bytes; what the kernel does not tell apart counts as the same.
fn refuse_overlaps(records: &[Record], options: &Options) -> Result<(), Error> {
    for (number, first) in records.iter().enumerate() {
        for second in records.iter().skip(number + 1) {
            let same = first.device == second.device;
            if same || first.overlaps(second) && options.in_use == Check::Refuse {
                let name =
                    |record: &Record| format!("{} ({} \"{}\")", record.image, record.device, record.name);
                return Err(Error::Overlap { first: name(first), second: name(second) });
            }
        }
    }
    Ok(())
}
