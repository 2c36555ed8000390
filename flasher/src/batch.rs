//! Several images in one run: every check of every image passes before the first change of any.

use crate::device::Mtd;
use crate::error::Error;
use crate::event::{Event, Phase, Progress};
use crate::options::{Check, Mode, Options};
use crate::pipeline::{self, Job};
use crate::plan_file::Entry;
use crate::record::{Record, RecordDir, State};
use crate::report::{Failure, Flash, Outcome, Report};
use crate::source::Source;
use crate::ubi::{self, VolumeJob, Volumes};

/// A run over one image, with the record's entry that it would begin with.
pub struct Run {
    /// How it ended.
    pub report: Report,
    record: Record,
}

/// What a batch needs of its surroundings.
pub trait Surroundings {
    /// Opens image and target of an entry and calls [`run_one`] or [`run_volume`] with them and `options`; with
    /// `listen`.
    ///
    /// # Errors
    /// What opening says, and what these say.
    fn run(&mut self, entry: &Entry, options: &Options, listen: Listen<'_>) -> Result<Run, Failure>;

    /// One image is done.
    fn done(&mut self, report: &Report);
}

/// What is to be told of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen<'a> {
    /// Everything. Behind it these ranges are still to be written: from the first change on they do not hold what they
    /// shall hold.
    All(&'a [Record]),
    /// How far the comparison is: the plan is told by the run that carries it out.
    Survey,
}

impl Listen<'_> {
    fn planned(self) -> Vec<Record> {
        match self {
            Self::All(planned) => planned.to_vec(),
            Self::Survey => Vec::new(),
        }
    }
}

/// Passes on what [`Listen`] allows.
struct Filter<'a> {
    listen: Listen<'a>,
    progress: &'a mut dyn Progress,
}

impl Progress for Filter<'_> {
    fn event(&mut self, event: &Event) {
        if matches!(self.listen, Listen::All(_))
            || matches!(event, Event::Progress { phase: Phase::Survey, .. })
        {
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
    listen: Listen<'_>,
) -> Result<Run, Failure> {
    let (place, options) = (job.place(), job.options);
    let mut filter = Filter { listen, progress: job.progress };
    let job = Job {
        target: job.target,
        facts: job.facts,
        options: job.options,
        command: job.command,
        records: &job.records.with_planned(listen.planned()),
        hold: job.hold,
        progress: &mut filter,
    };
    let report = pipeline::run_locked(chip, source, job)?;
    let range = pipeline::skipped_places(chip, options, &(0..report.plan.bytes))?;
    let record = pipeline::first_record(source.name(), Some(source.size()), &report.sha256, &range, &place);
    Ok(Run { report, record })
}

/// The same for a UBI volume.
///
/// # Errors
/// [`Failure`].
pub fn run_volume(
    volumes: &mut dyn Volumes,
    source: &mut dyn Source,
    job: VolumeJob<'_>,
    listen: Listen<'_>,
) -> Result<Run, Failure> {
    let (volume, command) = (job.volume, job.command);
    let mut filter = Filter { listen, progress: job.progress };
    let job = VolumeJob {
        volume,
        named: job.named,
        users: job.users,
        options: job.options,
        command,
        records: &job.records.with_planned(listen.planned()),
        hold: job.hold,
        progress: &mut filter,
    };
    let report = ubi::run_locked(volumes, source, job)?;
    let record = ubi::record(source.name(), source.size(), &report.sha256, volume, command);
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
            let run = surroundings.run(entry, &options, Listen::All(&[]))?;
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
        record.state = State::Unverified;
        record.error = Some(format!("image {} of {count} of a plan was not written yet", number + 1));
    }
    let (mut worst, mut written) = (0, Flash::Untouched);
    for (number, (entry, digest)) in entries.iter().zip(digests).enumerate() {
        // The image that was checked, and no other that has taken its name since.
        let options = of(Mode::Write, Some(digest));
        let planned = checked.get(number + 1..).unwrap_or_default();
        match surroundings.run(entry, &options, Listen::All(planned)) {
            Ok(mut run) => {
                if run.report.outcome == Outcome::Written {
                    written = Flash::Unverified;
                }
                // What is still missing is this plan's own next image until the last one is done.
                if number + 1 < count {
                    run.report.unfinished = None;
                }
                worst = worst.max(run.report.exit_code());
                surroundings.done(&run.report);
            }
            Err(failure) if written == Flash::Untouched => return Err(failure),
            Err(failure) => return Err(Failure { flash: Flash::Unverified, ..failure }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::device::{Geometry, Kind};
    use crate::event::Silent;
    use crate::guard::{Facts, MtdFacts};
    use crate::hold::NoHold;
    use crate::sim::Nor;
    use crate::source::Bytes;
    use crate::target::Target;

    const BLOCK: u64 = 256;

    /// Two partitions of four blocks, side by side, and the image files by name.
    struct Sim {
        chips: [Nor; 2],
        starts: [u64; 2],
        images: Vec<(&'static str, Vec<u8>)>,
        records: RecordDir,
        /// The next writing run finds this image instead.
        swapped: Option<Vec<u8>>,
        told: Vec<String>,
        states: Vec<Option<State>>,
    }

    impl Surroundings for Sim {
        fn run(&mut self, entry: &Entry, options: &Options, listen: Listen<'_>) -> Result<Run, Failure> {
            if options.mode == Mode::Write {
                self.states.push(self.records.read().map(|record| record.state));
            }
            let number = usize::from(entry.partition == "mtd1");
            let name = entry.image.to_str().unwrap();
            let mut bytes = self.images.iter().find(|(other, _)| *other == name).unwrap().1.clone();
            if options.mode == Mode::Write && number == 1 {
                bytes = self.swapped.take().unwrap_or(bytes);
            }
            let mut source = Bytes::new(name, bytes).map_err(Error::from)?;
            let part = |number: u32, start| MtdFacts {
                number,
                name: format!("p{number}"),
                kind: "nor".to_owned(),
                size: 4 * BLOCK,
                erase_size: BLOCK,
                writeable: true,
                spi_nor: true,
                chip: Some("chip".to_owned()),
                start: Some(start),
            };
            let facts = Facts::new(vec![part(0, self.starts[0]), part(1, self.starts[1])], Vec::new());
            let target = Target {
                number: u32::try_from(number).unwrap(),
                name: format!("p{number}"),
                size: 4 * BLOCK,
                erase_size: BLOCK,
            };
            let command = ["flashcp".to_owned(), "--plan=up.toml".to_owned()];
            let job = Job {
                target: &target,
                facts: &facts,
                options,
                command: &command,
                records: &self.records,
                hold: &mut NoHold,
                progress: &mut Silent,
            };
            run_one(&mut self.chips[number], &mut source, job, listen)
        }

        fn done(&mut self, report: &Report) {
            let after =
                report.unfinished.as_ref().map_or(String::new(), |run| format!(", then {}", run.command));
            self.told.push(format!("{} {:?}{after}", report.image, report.outcome));
        }
    }

    fn sim(dir: &Path) -> Sim {
        let geometry = Geometry {
            kind: Kind::SpiNor,
            size: 4 * BLOCK,
            erase_size: BLOCK,
            write_size: 1,
            bit_writeable: true,
            writeable: true,
            regions: Vec::new(),
        };
        let chip = || Nor::new(geometry.clone(), vec![0x55; 4 * 256]);
        Sim {
            chips: [chip(), chip()],
            starts: [0, 4 * BLOCK],
            images: vec![("a", vec![0xaa; 700]), ("b", vec![0xbb; 900]), ("large", vec![1; 1025])],
            records: RecordDir::new(&dir.join("levitate")),
            swapped: None,
            told: Vec::new(),
            states: Vec::new(),
        }
    }

    fn go(sim: &mut Sim, entries: &[(&str, &str)], options: &Options) -> Result<u8, Failure> {
        let entry = |(partition, image): &(&str, &str)| Entry {
            partition: (*partition).to_owned(),
            image: image.into(),
            sha256: None,
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        let records = sim.records.clone();
        run(&entries, options, &["flashcp".to_owned()], &records, sim)
    }

    fn calls(sim: &Sim) -> u64 {
        sim.chips.iter().map(Nor::calls).sum()
    }

    #[test]
    fn all_images_are_written_in_order_and_the_record_is_verified_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(dir.path());
        assert_eq!(go(&mut sim, &[("mtd1", "b"), ("mtd0", "a")], &Options::default()).unwrap(), 0);
        assert!(sim.chips[0].bytes().starts_with(&[0xaa; 700]));
        assert!(sim.chips[1].bytes().starts_with(&[0xbb; 900]));
        assert_eq!(sim.told, ["b Written", "a Written"]);
        // Until the first change nothing is said: a signal that ends the comparison leaves no record.
        assert_eq!(sim.states, [None, Some(State::Unverified)]);
        let record = sim.records.read().unwrap();
        assert_eq!((record.state, record.earlier.len()), (State::Verified, 0));
    }

    #[test]
    fn only_behind_the_last_image_another_partition_is_told_that_an_earlier_run_left_unverified() {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(dir.path());
        sim.swapped = Some(vec![0xcc; 900]);
        go(&mut sim, &[("mtd0", "a"), ("mtd1", "b")], &Options::default()).unwrap_err();
        sim.told.clear();
        // The same images at other places: what the first run left is nobody's now.
        sim.starts = [16 * BLOCK, 32 * BLOCK];
        go(&mut sim, &[("mtd1", "b"), ("mtd0", "a")], &Options::default()).unwrap();
        assert_eq!(sim.told, ["b Written", "a Unchanged, then flashcp --plan=up.toml"]);
    }

    #[test]
    fn one_image_that_fails_a_check_keeps_all_flash_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(dir.path());
        let failure = go(&mut sim, &[("mtd0", "a"), ("mtd1", "large")], &Options::default()).unwrap_err();
        assert!(matches!(failure.error, Error::TooLarge { .. }), "{failure}");
        assert_eq!((failure.exit_code(), calls(&sim)), (1, 0));
        assert_eq!(sim.records.read(), None);
        assert!(sim.told.is_empty());
    }

    #[test]
    fn images_that_would_overlap_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(dir.path());
        let failure = go(&mut sim, &[("mtd0", "a"), ("mtd0", "b")], &Options::default()).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "the plan writes a (/dev/mtd0 \"p0\") and b (/dev/mtd0 \"p0\") over each other"
        );
        sim.starts = [0, 2 * BLOCK];
        let failure = go(&mut sim, &[("mtd0", "a"), ("mtd1", "b")], &Options::default()).unwrap_err();
        assert_eq!((failure.exit_code(), calls(&sim)), (1, 0));
        // The first image ends where the second partition starts.
        sim.starts = [0, 3 * BLOCK];
        go(&mut sim, &[("mtd0", "a"), ("mtd1", "b")], &Options::default()).unwrap();
    }

    #[test]
    fn a_failure_in_the_middle_leaves_a_record_that_names_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(dir.path());
        sim.swapped = Some(vec![0xcc; 900]);
        let failure = go(&mut sim, &[("mtd0", "a"), ("mtd1", "b")], &Options::default()).unwrap_err();
        assert!(matches!(failure.error, Error::Digest { .. }), "{failure}");
        assert_eq!((failure.flash, failure.exit_code()), (Flash::Unverified, 3));
        assert!(sim.chips[1].bytes() == [0x55; 4 * 256]);
        let record = sim.records.read().unwrap();
        assert_eq!((record.state, record.device.as_str()), (State::Unverified, "/dev/mtd1"));
        assert_eq!(record.error.as_deref(), Some("image 2 of 2 of a plan was not written yet"));
        // The same command again completes it.
        go(&mut sim, &[("mtd0", "a"), ("mtd1", "b")], &Options::default()).unwrap();
        assert_eq!(sim.told, ["a Written", "a Unchanged", "b Written"]);
        assert_eq!(sim.records.read().unwrap().state, State::Verified);
    }

    #[test]
    fn a_failure_before_the_first_change_takes_the_record_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(dir.path());
        sim.swapped = Some(vec![0xcc; 900]);
        let failure = go(&mut sim, &[("mtd1", "b"), ("mtd0", "a")], &Options::default()).unwrap_err();
        assert_eq!((failure.exit_code(), calls(&sim)), (1, 0));
        assert_eq!(sim.records.read(), None);
    }

    #[test]
    fn a_plan_can_be_tried_and_compared_and_the_worst_code_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(dir.path());
        let with = |mode| Options { mode, ..Options::default() };
        let both = [("mtd0", "a"), ("mtd1", "b")];
        assert_eq!(go(&mut sim, &both, &with(Mode::DryRun)).unwrap(), 0);
        assert_eq!(calls(&sim), 0);
        go(&mut sim, &both[..1], &Options::default()).unwrap();
        assert_eq!(go(&mut sim, &both, &with(Mode::VerifyOnly)).unwrap(), 5);
    }
}
