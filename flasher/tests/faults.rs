//! Whole runs over chips and images that fail: never "verified" when the bytes differ, and always the right code.

mod common;

use std::io;

use common::system::here;
use common::{BLOCK, Bench, ONE, Run, SIZE, Way, bench, facts, flash, flash_by, noise, serial};
use flasher::device::Mtd;
use flasher::error::Error;
use flasher::event::Silent;
use flasher::hold::{Hold, NoHold};
use flasher::options::Options;
use flasher::record::State;
use flasher::report::{Failure, Locks};
use flasher::sim::{Fault, Faulty, Nor};
use flasher::source::{Bytes, ImageError, Source};

/// An image whose end is cut off while it is read, or which changes between two passes.
struct Moody {
    inner: Bytes,
    ends_at: u64,
    changes_after: u32,
    passes: u32,
}

impl Source for Moody {
    fn name(&self) -> &str {
        "fw.bin"
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ImageError> {
        if offset + buf.len() as u64 > self.ends_at {
            let (expected, found) = (self.size(), self.ends_at);
            return Err(ImageError::Shrank { name: "fw.bin".to_owned(), expected, found });
        }
        self.inner.read_at(offset, buf)?;
        if self.passes >= self.changes_after && offset == 2 * BLOCK {
            buf[0] ^= 0x80;
        }
        Ok(())
    }

    fn end_of_pass(&mut self) -> Result<(), ImageError> {
        self.passes += 1;
        Ok(())
    }
}

fn moody(ends_at: u64, changes_after: u32) -> Moody {
    Moody { inner: Bytes::new("fw.bin", noise(2, 1000)).unwrap(), ends_at, changes_after, passes: 0 }
}

fn run(
    chip: &mut dyn Mtd,
    source: &mut dyn Source,
    bench: &Bench,
) -> Result<flasher::report::Report, Failure> {
    let facts = facts(chip.geometry());
    let run = Run {
        facts,
        options: Options::default(),
        records: &bench.records,
        hold: &mut NoHold,
        progress: &mut Silent,
    };
    run.go(chip, source)
}

#[test]
fn an_image_that_ends_while_it_is_read_leaves_the_flash_untouched() {
    let (bench, mut chip) = (bench(), serial());
    let failure = run(&mut chip, &mut moody(999, 9), &bench).unwrap_err();
    assert_eq!(failure.to_string(), "the image fw.bin ended at byte 999 of 1000 while it was read");
    assert_eq!((failure.exit_code(), chip.calls()), (1, 0));
}

#[test]
fn an_image_that_changes_while_it_is_written_never_gets_its_head() {
    let (bench, mut chip) = (bench(), serial());
    let mut image = moody(1000, 1);
    let failure = run(&mut chip, &mut image, &bench).unwrap_err();
    assert!(
        failure.to_string().starts_with("the image fw.bin changed while it was written: SHA-256 "),
        "{failure}"
    );
    assert_eq!(failure.exit_code(), 3);
    assert_eq!(chip.bytes()[..16], [0; 16]);
}

/// Runs over a chip with one fault.
fn faulty(fault: Fault) -> (Result<flasher::report::Report, Failure>, Faulty<Nor>, Bench) {
    let bench = bench();
    let mut chip = Faulty::new(serial(), fault);
    let result = flash(&mut chip, &noise(2, SIZE), &Options::default(), &bench.records);
    (result, chip, bench)
}

#[test]
fn a_chip_that_swallows_everything_is_found_at_once_and_called_protected() {
    let protected = "had no effect though no error was reported: the chip is write-protected (its WP# pin, or \
                     protection bits in its status register)";
    let bench = bench();
    let mut chip = Faulty::new(Faulty::new(serial(), Fault::EraseIgnored), Fault::ProgramIgnored);
    let failure = flash(&mut chip, &noise(2, SIZE), &Options::default(), &bench.records).unwrap_err();
    assert_eq!((failure.to_string(), failure.exit_code()), (format!("the erase at 0x0 {protected}"), 3));
    let (result, chip, bench) = faulty(Fault::ProgramIgnored);
    let failure = result.unwrap_err();
    assert_eq!((failure.to_string(), failure.exit_code()), (format!("the write at 0x100 {protected}"), 3));
    assert!(chip.inner().counts().erases <= 9);
    let record = bench.records.read().unwrap();
    assert_eq!((record.state, record.exit_code), (State::Unverified, Some(3)));
    assert_eq!(record.error, Some(failure.to_string()));
}

#[test]
fn an_error_of_the_driver_is_told_with_its_place_and_the_flash_called_unverified() {
    for (fault, text) in [
        (Fault::EraseFailsFrom(0), "cannot erase 0x100 to 0x200: Input/output error (os error 5)"),
        (Fault::ProgramFailsFrom(3), "cannot program 256 bytes at 0x300: Input/output error (os error 5)"),
    ] {
        let (result, _, bench) = faulty(fault);
        let failure = result.unwrap_err();
        assert_eq!(
            (failure.to_string().as_str(), failure.exit_code()),
            (here(text).as_str(), 3),
            "{fault:?}"
        );
        assert_eq!(bench.records.read().unwrap().state, State::Unverified);
    }
    let (result, chip, bench) = faulty(Fault::ReadFailsFrom(1));
    let failure = result.unwrap_err();
    let text = "cannot read 16 bytes at 0x0: Input/output error (os error 5)";
    assert_eq!((failure.to_string().as_str(), failure.exit_code()), (here(text).as_str(), 1));
    assert_eq!((chip.inner().calls(), bench.records.read()), (0, None));
}

#[test]
fn a_wrong_reading_is_read_again_and_never_believed() {
    let (clean, chip, _bench) = faulty(Fault::ReadFlips(u64::MAX));
    assert_eq!(clean.unwrap().retries, 0);
    let mut retried = 0;
    for number in 0..chip.reads() {
        let (result, chip, _bench) = faulty(Fault::ReadFlips(number));
        retried += result.unwrap().retries;
        assert!(chip.inner().bytes() == noise(2, SIZE), "reading {number}");
    }
    assert!(retried > 0);
}

#[test]
fn a_stuck_bit_is_an_error_with_offset_and_direction_after_two_rewrites() {
    let image = noise(2, SIZE);
    let wanted = |bit: u8| (2 * ONE..SIZE).find(|at| image[*at] & 1 == bit);
    // The images of these tests have no lowest bits: nothing is stuck for them.
    assert_eq!(wanted(1), None);
    let mut image = image.clone();
    image[600] |= 1;
    let bench = bench();
    let mut chip = Faulty::new(serial(), Fault::StuckBit(600));
    let failure = flash(&mut chip, &image, &Options::default(), &bench.records).unwrap_err();
    let (expected, found) = (image[600], image[600] & 0xfe);
    assert_eq!(
        failure.to_string(),
        format!(
            "verification failed at 0x258: {expected:#04x} expected, {found:#04x} found (bits that should be 1 read \
             0), after 2 rewrites"
        )
    );
    assert_eq!(failure.exit_code(), 3);
    // The head was never completed.
    assert_eq!(chip.inner().bytes()[..16], [0; 16]);
}

#[test]
fn a_chip_that_wraps_its_addresses_is_never_called_verified() {
    let blank = vec![0xff; ONE];
    let images = [
        noise(2, SIZE),
        [noise(3, ONE), blank.repeat(4), noise(4, ONE)].concat(),
        // Only the head is written to two places, and after the rest was proven.
        [noise(3, ONE), blank.repeat(4)].concat(),
    ];
    for image in images {
        let bench = bench();
        let mut chip = Faulty::new(serial(), Fault::AddressWraps(10));
        let failure = flash(&mut chip, &image, &Options::default(), &bench.records).unwrap_err();
        assert_eq!(failure.exit_code(), 3);
        assert!(matches!(failure.error, Error::Mismatch { .. }), "{failure}");
    }
}

/// A full /run, for one: the last thing before the first change, and the locks are open already.
#[test]
fn a_record_that_cannot_be_written_leaves_the_chip_locked_as_it_was() {
    for way in [Way::File, Way::Stream] {
        let bench = bench();
        std::fs::create_dir_all(bench.records.path().with_file_name(".flash.json.new")).unwrap();
        let mut chip = serial().with_all_locked();
        let (locked, old) = (chip.locked_blocks(), chip.bytes().to_vec());
        let failure =
            flash_by(way, &mut chip, &noise(2, 900), &Options::default(), &bench.records).unwrap_err();
        assert!(matches!(failure.error, Error::Record { .. }), "{way:?}: {failure}");
        assert_eq!((failure.exit_code(), chip.calls(), chip.locked_blocks()), (1, 0, locked), "{way:?}");
        assert!(chip.bytes() == old);
    }
}

/// A system that answers so when the flash's block device is to be kept from others.
struct Refusing(i32);

impl Hold for Refusing {
    fn claim(&mut self, _: u32) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(self.0))
    }

    fn flush(&mut self) {}

    fn steel(&mut self) {}
}

#[test]
fn only_a_block_device_that_is_busy_is_called_in_use() {
    use nix::libc::{EBUSY, EIO, ENODEV, ENOENT, ENXIO};
    let run = |errno| {
        let (bench, mut chip) = (bench(), serial());
        let (facts, options) = (facts(chip.geometry()), Options::default());
        let mut hold = Refusing(errno);
        let run = Run { facts, options, records: &bench.records, hold: &mut hold, progress: &mut Silent };
        let result = run.go(&mut chip, &mut Bytes::new("fw.bin", noise(2, SIZE)).unwrap());
        result.map(drop).map_err(|failure| (failure.to_string(), failure.exit_code(), chip.calls()))
    };
    // A node that nothing stands behind, as where the kernel has no mtdblock.
    for absent in [ENXIO, ENODEV, ENOENT] {
        assert_eq!(run(absent), Ok(()));
    }
    let text = "mtd5 is in use: its block device cannot be opened exclusively: Device or resource busy (os error 16)";
    assert_eq!(run(EBUSY), Err((here(text), 1, 0)));
    let text = "cannot open mtd5's block device exclusively, to keep others from it: Input/output error (os error 5)";
    assert_eq!(run(EIO), Err((here(text), 1, 0)));
}

/// The run's own error is the one to tell, and the locks are not passed over in silence.
#[test]
fn a_failed_run_tells_that_the_chip_is_not_locked_again() {
    let left = "the locks could not be restored: 0x0 to 0x800 locked before, 0x400 to 0x800 now";
    for way in [Way::File, Way::Stream] {
        let bench = bench();
        let inner = serial().with_all_locked();
        let mut chip = Faulty::with_all(inner, vec![Fault::ProgramFailsFrom(3), Fault::LockFails]);
        let failure =
            flash_by(way, &mut chip, &noise(2, 900), &Options::default(), &bench.records).unwrap_err();
        let text = failure.to_string();
        assert!(text.starts_with("cannot program ") && text.contains(left), "{way:?}: {text}");
        assert!(matches!(failure.locks, Locks::NotRestored { .. }));
        assert_eq!((failure.exit_code(), bench.records.read().unwrap().error), (3, Some(text)));
        // The same where nothing was changed yet.
        std::fs::remove_file(bench.records.path()).unwrap();
        std::fs::create_dir_all(bench.records.path().with_file_name(".flash.json.new")).unwrap();
        let mut chip = Faulty::new(serial().with_all_locked(), Fault::LockFails);
        let failure =
            flash_by(way, &mut chip, &noise(2, 900), &Options::default(), &bench.records).unwrap_err();
        let text = failure.to_string();
        assert!(text.starts_with("cannot write the record ") && text.contains(left), "{way:?}: {text}");
        assert_eq!(failure.exit_code(), 1);
    }
}
