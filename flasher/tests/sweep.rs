//! Every fault at every operation on every geometry, and several at once by a seed: the run ends verified with the
//! right bytes, or with the code that is true.

mod common;

use std::io::Write;

use common::system::here;
use common::{BLOCK, Chip, Way, boot_sectors, facts, flash, flash_by, nand, noise, uniform};
use flasher::device::{Geometry, Kind, Mtd, MtdError};
use flasher::error::Error;
use flasher::options::{BadBlocks, Options};
use flasher::record::{RecordDir, State};
use flasher::sim::{Fault, Faulty, Nand, Nor};

/// Said even where the test harness keeps a passing test's output to itself.
macro_rules! say {
    ($($text:tt)*) => {{
        let mut out = std::io::stdout();
        writeln!(out, $($text)*).unwrap();
    }};
}

const BLOCKS: u64 = 6;

struct Sweep {
    records: RecordDir,
    runs: u64,
    verified: u64,
}

impl Sweep {
    /// One run of each way over a chip with faults.
    fn run<C: Chip>(&mut self, geometry: &Geometry, faults: Vec<Fault>, what: &str) {
        for way in [Way::File, Way::Stream] {
            self.run_by::<C>(way, geometry, faults.clone(), what);
        }
    }

    /// One run over a chip with faults; what it claims must be true.
    fn run_by<C: Chip>(&mut self, way: Way, geometry: &Geometry, faults: Vec<Fault>, what: &str) {
        let size = usize::try_from(geometry.size).unwrap();
        // Bytes with every bit, so that stuck bits show.
        let old: Vec<u8> = noise(1, size).iter().zip(noise(7, size)).map(|(a, b)| a | b >> 7).collect();
        let image: Vec<u8> =
            noise(2, size - 40).iter().zip(noise(9, size)).map(|(a, b)| a | b >> 7).collect();
        let mut wanted = image.clone();
        wanted.resize(size, 0xff);
        let _ = std::fs::remove_file(self.records.path());
        let mut chip = Faulty::with_all(C::make(geometry, &old), faults.clone());
        let options = Options { bad_blocks: BadBlocks::Skip, ..Options::default() };
        let result = flash_by(way, &mut chip, &image, &options, &self.records);
        let what = format!(
            "{way:?}, {what}: {faults:?} on {geometry:?}: {:?}",
            result.as_ref().map(|report| report.exit_code())
        );
        self.runs += 1;
        // What the user of this chip reads, faults included; transient ones have passed.
        let mut seen = vec![0; size];
        let readings: Vec<bool> = (0..3).map(|_| chip.read(0, &mut seen).is_ok() && seen == wanted).collect();
        let readable = chip.read(0, &mut seen).is_ok();
        let record = self.records.read();
        match result {
            Ok(report) => {
                self.verified += 1;
                assert_eq!(report.exit_code(), 0, "{what}");
                assert_eq!(record.unwrap().state, State::Verified, "{what}");
                assert!(!readable || readings.contains(&true), "{what}");
                assert!(chip.inner().holds() == wanted || faults.iter().any(by_reading), "{what}");
            }
            Err(failure) if failure.exit_code() == 1 => {
                assert_eq!((chip.inner().changes(), record), (0, None), "{what}");
                assert!(chip.inner().holds() == old, "{what}");
            }
            Err(failure) => {
                assert_eq!(failure.exit_code(), 3, "{what}");
                assert_eq!(record.unwrap().state, State::Unverified, "{what}");
                let text = failure.to_string();
                assert!(text.contains("0x"), "{text}: {what}");
                if let Error::Mismatch { expected, found, offset, .. } = failure.error {
                    assert_eq!(expected, wanted[usize::try_from(offset).unwrap()], "{what}");
                    assert_ne!(expected, found, "{what}");
                }
                // Nothing is called worn or protected that is not.
                if let Error::Chip(error) = &failure.error {
                    assert!(
                        error.is_transient() || matches!(error, MtdError::Program { .. }),
                        "{text}: {what}"
                    );
                }
            }
        }
    }

    fn enumerate<C: Chip>(&mut self, geometry: &Geometry) {
        let mut clean = Faulty::with_all(
            C::make(geometry, &noise(1, usize::try_from(geometry.size).unwrap())),
            Vec::new(),
        );
        let image = noise(2, usize::try_from(geometry.size).unwrap() - 40);
        flash(&mut clean, &image, &Options::default(), &self.records).unwrap();
        let calls = clean.inner().changes().max(clean.reads()) + 3;
        for number in 0..calls {
            for fault in Fault::at_call(number) {
                self.run::<C>(geometry, vec![fault], "one");
            }
        }
        for offset in (0..geometry.size).step_by(24) {
            for fault in Fault::at_offset(offset) {
                self.run::<C>(geometry, vec![fault], "one");
            }
        }
        for fault in [Fault::EraseIgnored, Fault::ProgramIgnored] {
            self.run::<C>(geometry, vec![fault], "one");
        }
        self.run::<C>(geometry, vec![Fault::EraseIgnored, Fault::ProgramIgnored], "two");
    }

    fn seeded<C: Chip>(&mut self, geometry: &Geometry, seed: u64, rounds: u64) {
        let mut state = seed | 1;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap() % below
        };
        for _ in 0..rounds {
            let faults = (0..2 + random(3))
                .map(|_| {
                    let number = random(60) as u64;
                    let offset = random(usize::try_from(geometry.size).unwrap()) as u64;
                    let at_call = Fault::at_call(number);
                    let at_offset = Fault::at_offset(offset);
                    match random(17) {
                        kind @ 0..13 => at_call[kind],
                        kind => at_offset[kind - 13],
                    }
                })
                .collect();
            self.run::<C>(geometry, faults, &format!("seed {seed}"));
        }
    }
}

/// Whether the fault lies in reading: the cells hold what they like.
fn by_reading(fault: &Fault) -> bool {
    matches!(fault, Fault::StuckBit(_) | Fault::StuckOne(_) | Fault::AddressWraps(_))
}

#[test]
fn no_fault_at_any_operation_is_ever_called_verified() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let seed = std::env::var("FAULT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |now| now.as_secs())
    });
    say!("seed of the random faults: {seed} (FAULT_SEED={seed} repeats them)");
    let mut sweep = Sweep { records: RecordDir::new(dir.path()), runs: 0, verified: 0 };
    let nors = [
        uniform(Kind::SpiNor, BLOCKS),
        uniform(Kind::ParallelNor, BLOCKS),
        boot_sectors(Kind::SpiNor, BLOCKS),
        Geometry { write_size: 32, bit_writeable: false, ..uniform(Kind::Other, BLOCKS) },
    ];
    for geometry in &nors {
        sweep.enumerate::<Nor>(geometry);
        sweep.seeded::<Nor>(geometry, seed, 1000);
    }
    sweep.enumerate::<Nand>(&nand(BLOCKS));
    sweep.seeded::<Nand>(&nand(BLOCKS), seed, 1000);
    say!("faults: {} runs, {} verified, the others told the truth", sweep.runs, sweep.verified);
    assert!(sweep.runs > 3000 && sweep.verified > 100);
}

#[test]
fn stuck_locks_leave_the_flash_untouched_and_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let records = RecordDir::new(dir.path());
    for (fault, text) in [
        (
            Fault::UnlockIgnored,
            "cannot unlock 0x0 to 0x200: the chip stays locked though no error was reported",
        ),
        (Fault::UnlockFails, "cannot unlock 0x0 to 0x200: Input/output error (os error 5)"),
    ] {
        let old = noise(1, 2048);
        let mut chip = Faulty::new(Nor::new(uniform(Kind::SpiNor, 8), old.clone()).with_all_locked(), fault);
        let locked = chip.inner().locked_blocks();
        let failure = flash(&mut chip, &noise(2, 300), &Options::default(), &records).unwrap_err();
        assert_eq!((failure.to_string().as_str(), failure.exit_code()), (here(text).as_str(), 1));
        assert!(chip.inner().bytes() == old && chip.inner().calls() == 0);
        assert_eq!((chip.inner().locked_blocks(), records.read()), (locked, None));
    }
    // Nothing of this is asked of chips without locks.
    let mut plain = Nor::new(uniform(Kind::SpiNor, 8), noise(1, 2048));
    flash(&mut plain, &noise(2, 300), &Options::default(), &records).unwrap();
    assert_eq!(facts(plain.geometry()).mtds().len(), 1);
}

#[test]
fn a_few_faults_that_pass_do_not_stop_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let records = RecordDir::new(dir.path());
    let image = noise(2, 5 * usize::try_from(BLOCK).unwrap());
    let faults = [
        Fault::EraseFails(0),
        Fault::ProgramTorn(3),
        Fault::ProgramShort(6),
        Fault::ReadFails(4),
        Fault::ReadFlips(16),
    ];
    let inner = Nor::new(uniform(Kind::SpiNor, BLOCKS), noise(1, 1536));
    let mut chip = Faulty::with_all(inner, faults.to_vec());
    let report = flash(&mut chip, &image, &Options::default(), &records).unwrap();
    assert!(report.retries >= 4, "{report:?}");
    assert!(chip.inner().bytes().starts_with(&image));
}
