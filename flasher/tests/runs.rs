//! Whole runs over simulated chips: what is done, what is refused, and what is told.

mod common;

use std::io;

use common::{BLOCK, BLOCKS, ONE, Run, SIZE, bench, facts, flash, noise, serial, system::here, uniform};
use flasher::device::{Geometry, Kind, Mtd};
use flasher::event::{Event, Phase, Progress, Silent};
use flasher::guard::facts::MtdFacts;
use flasher::guard::{Facts, Use, User};
use flasher::hold::{Hold, NoHold};
use flasher::options::{Check, Extent, Head, Mode, Options, Rest};
use flasher::record::{RecordDir, State};
use flasher::report::{Failure, Flash, Locks, Outcome};
use flasher::sim::{Fault, Faulty, Nor};
use flasher::source::Bytes;
use proptest::prelude::*;

fn with(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    change(&mut options);
    options
}

/// A refusal leaves chip and record as they were.
fn refused(chip: &mut Nor, image: &[u8], options: &Options) -> String {
    let bench = bench();
    let before = chip.bytes().to_vec();
    let failure = flash(chip, image, options, &bench.records).unwrap_err();
    assert_eq!((failure.flash, failure.exit_code()), (Flash::Untouched, 1), "{failure}");
    assert_eq!(chip.calls(), 0, "{failure}");
    assert!(chip.bytes() == before);
    assert_eq!(bench.records.read(), None);
    failure.to_string()
}

#[test]
fn an_image_one_byte_too_large_is_refused_before_any_change() {
    assert_eq!(
        refused(&mut serial(), &noise(2, SIZE + 1), &Options::default()),
        "the image fw.bin does not fit: it has 2049 bytes, mtd5 \"firmware\" has 2048 (1 too many)"
    );
}

#[test]
fn a_read_only_partition_is_refused() {
    let geometry = Geometry { writeable: false, ..uniform(Kind::SpiNor, BLOCKS) };
    assert_eq!(
        refused(&mut Nor::new(geometry, noise(1, SIZE)), &noise(2, 9), &Options::default()),
        "mtd5 \"firmware\" is read-only: the kernel's partition table forbids to write it"
    );
}

#[test]
fn an_image_of_another_kind_than_the_flash_holds_is_refused_unless_told_otherwise() {
    let mut old = noise(1, SIZE);
    old[..4].copy_from_slice(&[0xd0, 0x0d, 0xfe, 0xed]);
    let mut chip = Nor::new(uniform(Kind::SpiNor, BLOCKS), old);
    assert_eq!(
        refused(&mut chip, b"<!DOCTYPE html>", &Options::default()),
        "mtd5 \"firmware\" starts with a FIT image today, the image fw.bin with something unknown"
    );
    let bench = bench();
    flash(&mut chip, b"<!DOCTYPE html>", &with(|options| options.content = Check::Allow), &bench.records)
        .unwrap();
    assert!(chip.bytes().starts_with(b"<!DOCTYPE html>\xff"));
}

#[test]
fn another_image_than_the_one_named_by_its_digest_is_refused() {
    let options = with(|options| options.sha256 = Some("00".repeat(32)));
    let text = refused(&mut serial(), b"abc", &options);
    assert_eq!(
        text,
        format!(
            "the image fw.bin has another SHA-256: {} expected, \
             ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad found",
            "00".repeat(32)
        )
    );
}

#[test]
fn sizes_that_cannot_be_worked_with_are_refused_with_numbers() {
    let geometry = Geometry { size: 300, ..uniform(Kind::SpiNor, BLOCKS) };
    assert_eq!(
        refused(&mut Nor::new(geometry, noise(1, 300)), &noise(2, 290), &Options::default()),
        "mtd5 \"firmware\" cannot be written: its size 300 is no multiple of its erase blocks of 256 bytes, and the \
         last one would be needed"
    );
    let geometry = Geometry { erase_size: 0, ..uniform(Kind::SpiNor, BLOCKS) };
    assert_eq!(
        refused(&mut Nor::new(geometry, noise(1, SIZE)), &noise(2, 9), &Options::default()),
        "mtd5 \"firmware\" cannot be written: size 2048, erase blocks of 0 bytes"
    );
}

#[test]
fn the_same_image_again_changes_nothing_and_is_verified() {
    let (bench, mut chip) = (bench(), serial());
    let image = noise(2, 1000);
    let report = flash(&mut chip, &image, &Options::default(), &bench.records).unwrap();
    assert_eq!(report.outcome, Outcome::Written);
    let calls = chip.calls();
    let read = chip.counts().read;
    let report = flash(&mut chip, &image, &Options::default(), &bench.records).unwrap();
    assert_eq!((report.outcome.clone(), report.exit_code()), (Outcome::Unchanged, 0));
    assert_eq!(chip.calls(), calls);
    // One pass over the range, and the bytes that tell its kind.
    assert_eq!(chip.counts().read - read, 4 * BLOCK + 16);
}

#[test]
fn only_what_differs_is_erased_and_programmed() {
    let bench = bench();
    let old = noise(1, SIZE);
    let mut image = old.clone();
    image[3 * ONE] ^= 0xff;
    // The bound: one block. With the head made invalid and completed: the head's too, and sixteen zeros.
    for (head, erases, programmed) in [(Head::Keep, 1, BLOCK), (Head::Auto, 2, 2 * BLOCK + 16)] {
        let mut chip = Nor::new(uniform(Kind::ParallelNor, BLOCKS), old.clone());
        let report = flash(&mut chip, &image, &with(|options| options.head = head), &bench.records).unwrap();
        assert!(chip.bytes() == image);
        assert_eq!(
            (report.operations.erases, report.operations.programmed),
            (erases, programmed),
            "{head:?}"
        );
        assert_eq!(report.operations.erases, chip.counts().erases);
        assert_eq!(report.operations.programmed, chip.counts().programmed);
    }
}

#[test]
fn bits_are_cleared_without_an_erase_on_serial_nor() {
    let bench = bench();
    let old = noise(1, SIZE);
    let mut image = old.clone();
    image[3 * ONE + 40] = 0;
    let mut chip = serial();
    let report =
        flash(&mut chip, &image, &with(|options| options.head = Head::Keep), &bench.records).unwrap();
    assert_eq!((report.operations.erases, report.operations.programmed), (0, 16));
    assert!(chip.bytes() == image);
}

#[test]
fn the_rest_of_the_partition_is_left_or_erased_as_told() {
    let bench = bench();
    let image = noise(2, 3 * ONE);
    let mut chip = serial();
    flash(&mut chip, &image, &Options::default(), &bench.records).unwrap();
    assert_eq!(chip.bytes()[3 * ONE..], noise(1, SIZE)[3 * ONE..]);
    flash(&mut chip, &image, &with(|options| options.rest = Rest::Erase), &bench.records).unwrap();
    assert!(chip.bytes()[3 * ONE..].iter().all(|byte| *byte == 0xff));
    assert_eq!(chip.bytes()[..3 * ONE], image);
}

#[test]
fn full_rewrites_every_block() {
    let (bench, mut chip) = (bench(), serial());
    let image = noise(1, SIZE);
    let options = with(|options| options.extent = Extent::Full);
    let report = flash(&mut chip, &image, &options, &bench.records).unwrap();
    assert_eq!((report.operations.erases, report.plan.kept), (BLOCKS, 0));
}

#[test]
fn dry_run_and_verify_only_touch_nothing() {
    let (bench, mut chip) = (bench(), serial());
    let before = chip.bytes().to_vec();
    let mut image = before[..700].to_vec();
    let verify = with(|options| options.mode = Mode::VerifyOnly);
    let report = flash(&mut chip, &image, &verify, &bench.records).unwrap();
    assert_eq!((report.outcome.clone(), report.exit_code()), (Outcome::Equal, 0));
    image[300] ^= 1;
    let report = flash(&mut chip, &image, &verify, &bench.records).unwrap();
    assert_eq!(
        (report.outcome.clone(), report.exit_code()),
        (Outcome::Differs { blocks: 1, first: BLOCK }, 5)
    );
    let dry = with(|options| options.mode = Mode::DryRun);
    let report = flash(&mut chip, &image, &dry, &bench.records).unwrap();
    assert_eq!((report.outcome.clone(), report.exit_code()), (Outcome::Possible, 0));
    assert_eq!((report.plan.blocks, report.plan.erases, report.plan.kept), (3, 3, 0));
    assert_eq!((chip.calls(), chip.bytes() == before), (0, true));
    assert_eq!(bench.records.read(), None);
}

#[test]
fn the_record_says_changing_before_the_first_change_and_the_truth_after_the_last() {
    struct Look<'a> {
        records: &'a RecordDir,
        states: Vec<(&'static str, Option<State>)>,
    }
    impl Progress for Look<'_> {
        fn event(&mut self, event: &Event) {
            let what = match event {
                Event::Plan(_) => "plan",
                Event::FirstChange => "first change",
                _ => return,
            };
            self.states.push((what, self.records.read().map(|record| record.state)));
        }
    }
    let bench = bench();
    let mut look = Look { records: &bench.records, states: Vec::new() };
    let mut chip = serial();
    let run = Run {
        facts: facts(chip.geometry()),
        options: Options::default(),
        records: &bench.records,
        hold: &mut NoHold,
        progress: &mut look,
    };
    let mut image = Bytes::new("fw.bin", noise(2, 1000)).unwrap();
    let report = run.go(&mut chip, &mut image).unwrap();
    assert_eq!(look.states, [("plan", None), ("first change", Some(State::Changing))]);
    let record = bench.records.read().unwrap();
    assert_eq!(record.state, State::Verified);
    assert_eq!((record.exit_code, record.error.as_deref()), (Some(0), None));
    assert_eq!((record.start, record.end, record.chip.as_deref()), (0x10000, 0x10400, Some("0.flash")));
    assert_eq!((record.bytes_done, record.bytes_total, record.image_bytes), (1000, 1000, 1000));
    assert_eq!(
        (record.image_sha256.as_ref(), record.range_sha256.as_ref()),
        (Some(&report.sha256), Some(&report.sha256))
    );
    assert_eq!(
        (record.command.join(" ").as_str(), record.pid),
        ("flashcp -v fw.bin mtd:firmware", std::process::id())
    );
    assert_eq!((record.device.as_str(), record.name.as_str()), ("/dev/mtd5", "firmware"));
    assert!(record.finished >= Some(record.started) && record.operations == report.operations);
}

#[test]
fn what_was_locked_is_locked_again_and_nothing_else_was_unlocked() {
    let bench = bench();
    let image = noise(2, 2 * ONE);
    let mut chip = serial().with_all_locked();
    chip.unlock(5 * BLOCK..6 * BLOCK).unwrap();
    let locked = chip.locked_blocks();
    let report = flash(&mut chip, &image, &Options::default(), &bench.records).unwrap();
    assert_eq!((report.locks.clone(), report.exit_code()), (Locks::AsBefore, 0));
    assert_eq!(chip.locked_blocks(), locked);
    let mut chip = Faulty::new(serial().with_all_locked(), Fault::LockFails);
    let report = flash(&mut chip, &image, &Options::default(), &bench.records).unwrap();
    assert_eq!(report.exit_code(), 4);
    let error = here(
        "0x0 to 0x800 locked before, 0x200 to 0x800 now (cannot lock 0x0 to 0x800: Input/output error (os error 5))",
    );
    assert_eq!(report.locks, Locks::NotRestored { error });
    assert_eq!(bench.records.read().unwrap().exit_code, Some(4));
}

#[test]
fn a_chip_that_protects_one_end_only_is_opened_as_far_as_it_must_and_closed_again() {
    let bench = bench();
    let locked = serial().with_all_locked().locked_blocks();
    let mut chip = Nor::new(uniform(Kind::SpiNor, BLOCKS), noise(1, SIZE)).with_all_locked_from_one_end();
    let report = flash(&mut chip, &noise(2, 2 * ONE), &Options::default(), &bench.records).unwrap();
    assert_eq!((report.exit_code(), chip.locked_blocks()), (0, locked.clone()));
    // A block in the middle: the chip cannot open it alone.
    let mut image = chip.bytes()[..6 * ONE].to_vec();
    image[3 * ONE] ^= 0xff;
    let keep = with(|options| options.head = Head::Keep);
    let report = flash(&mut chip, &image, &keep, &bench.records).unwrap();
    assert_eq!((report.exit_code(), report.operations.erases, chip.locked_blocks()), (0, 1, locked));
    assert!(chip.bytes().starts_with(&image));
}

#[test]
fn a_lock_that_takes_hold_of_more_than_before_is_told() {
    let bench = bench();
    let mut chip = serial().with_all_locked();
    chip.unlock(4 * BLOCK..8 * BLOCK).unwrap();
    let mut chip = Faulty::new(chip, Fault::LocksAll);
    let report = flash(&mut chip, &noise(2, 2 * ONE), &Options::default(), &bench.records).unwrap();
    let error = "0x0 to 0x400 locked before, 0x0 to 0x800 now".to_owned();
    assert_eq!((report.locks.clone(), report.exit_code()), (Locks::NotRestored { error }, 4));
    assert_eq!(bench.records.read().unwrap().state, State::Verified);
}

/// Notes the order of its calls.
#[derive(Default)]
struct Notes {
    calls: Vec<String>,
    busy: Option<u32>,
}

impl Hold for Notes {
    fn claim(&mut self, number: u32) -> io::Result<()> {
        self.calls.push(format!("claim {number}"));
        if self.busy == Some(number) { Err(io::Error::from_raw_os_error(16)) } else { Ok(()) }
    }

    fn flush(&mut self) {
        self.calls.push("flush".to_owned());
    }

    fn steel(&mut self) {
        self.calls.push("steel".to_owned());
    }
}

fn neighbours(users: Vec<User>) -> Facts {
    let mtd = |number, name: &str, start, size| MtdFacts {
        number,
        name: name.to_owned(),
        kind: "nor".to_owned(),
        size,
        erase_size: BLOCK,
        writeable: true,
        spi_nor: true,
        chip: Some("spi0.0".to_owned()),
        start: Some(start),
    };
    Facts::new(
        vec![
            mtd(3, "kernel", 0, 512),
            mtd(4, "rootfs", 512, 1536),
            mtd(5, "firmware", 0, 2048),
            mtd(6, "data", 2048, 512),
        ],
        users,
    )
}

fn held(hold: &mut Notes, facts: Facts, options: Options) -> (Result<flasher::report::Report, Failure>, u64) {
    let (bench, mut chip) = (bench(), serial());
    let run = Run { facts, options, records: &bench.records, hold, progress: &mut Silent };
    let mut image = Bytes::new("fw.bin", noise(2, SIZE)).unwrap();
    let result = run.go(&mut chip, &mut image);
    (result, chip.calls())
}

#[test]
fn overlapping_partitions_are_held_and_their_caches_flushed_around_the_change() {
    let mut notes = Notes::default();
    held(&mut notes, neighbours(Vec::new()), Options::default()).0.unwrap();
    assert_eq!(notes.calls, ["claim 3", "claim 4", "claim 5", "steel", "flush", "flush"]);
    let mut notes = Notes { busy: Some(4), ..Notes::default() };
    let (result, calls) = held(&mut notes, neighbours(Vec::new()), Options::default());
    let failure = result.unwrap_err();
    assert_eq!(
        failure.to_string(),
        here(
            "mtd4 is in use: its block device cannot be opened exclusively: Device or resource busy (os error 16)"
        )
    );
    assert_eq!((failure.exit_code(), calls), (1, 0));
}

#[test]
fn flash_in_use_is_refused_with_everyone_who_uses_it_unless_told_otherwise() {
    let user = |mtd, name: &str, mount_point: &str| User {
        mtd,
        name: name.to_owned(),
        how: Use::Mount {
            mount_point: mount_point.to_owned(),
            fs_type: "squashfs".to_owned(),
            elsewhere: None,
        },
    };
    let facts = || neighbours(vec![user(4, "rootfs", "/"), user(6, "data", "/persist")]);
    let (result, calls) = held(&mut Notes::default(), facts(), Options::default());
    let failure = result.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "mtd5 \"firmware\" is in use:\nmtd4 \"rootfs\" (lies inside the target): mounted at / (squashfs)"
    );
    assert_eq!((failure.exit_code(), calls), (1, 0));
    let allowed = with(|options| options.in_use = Check::Allow);
    held(&mut Notes { busy: Some(4), ..Notes::default() }, facts(), allowed).0.unwrap();
    // A dry run shows the plan, and what stands in its way.
    struct Plans(u32);
    impl Progress for Plans {
        fn event(&mut self, event: &Event) {
            self.0 += u32::from(matches!(event, Event::Plan(_)));
        }
    }
    let (bench, mut chip, mut plans) = (bench(), serial(), Plans(0));
    let run = Run {
        facts: facts(),
        options: with(|options| options.mode = Mode::DryRun),
        records: &bench.records,
        hold: &mut NoHold,
        progress: &mut plans,
    };
    let failure = run.go(&mut chip, &mut Bytes::new("fw.bin", noise(2, SIZE)).unwrap()).unwrap_err();
    assert_eq!((failure.exit_code(), plans.0), (1, 1));
}

#[test]
fn each_phase_ends_at_its_total() {
    #[derive(Default)]
    struct Totals(Vec<(Phase, u64, u64)>);
    impl Progress for Totals {
        fn event(&mut self, event: &Event) {
            if let Event::Progress { phase, done, total, .. } = event {
                assert!(done <= total, "{event:?}");
                self.0.retain(|(other, ..)| other != phase);
                self.0.push((*phase, *done, *total));
            }
        }
    }
    for (kind, head) in [(Kind::SpiNor, Head::Auto), (Kind::ParallelNor, Head::Keep), (Kind::Ram, Head::Auto)]
    {
        let (bench, mut totals) = (bench(), Totals::default());
        let mut chip = Nor::new(uniform(kind, BLOCKS), noise(1, SIZE));
        let run = Run {
            facts: facts(chip.geometry()),
            options: with(|options| options.head = head),
            records: &bench.records,
            hold: &mut NoHold,
            progress: &mut totals,
        };
        run.go(&mut chip, &mut Bytes::new("fw.bin", noise(2, 1000)).unwrap()).unwrap();
        assert_eq!(totals.0.len(), 4);
        assert!(totals.0.iter().all(|(_, done, total)| done == total && *total > 0), "{:?}", totals.0);
    }
}

#[test]
fn a_second_run_while_one_is_running_is_refused_with_its_name() {
    let (bench, mut chip) = (bench(), serial());
    let other = ["flashcp".to_owned(), "other.bin".to_owned(), "mtd4".to_owned()];
    let lock = bench.records.lock(&other).unwrap();
    let failure = flash(&mut chip, &noise(2, SIZE), &Options::default(), &bench.records).unwrap_err();
    let pid = std::process::id();
    assert_eq!(
        failure.to_string(),
        format!("flash is being written by process {pid} (flashcp other.bin mtd4); wait for it to finish")
    );
    assert_eq!((failure.exit_code(), chip.calls()), (1, 0));
    drop(lock);
    flash(&mut chip, &noise(2, SIZE), &Options::default(), &bench.records).unwrap();
}

/// A flash or an image in which blocks are blank, noise, or alike, and some bytes differ.
fn contents(blocks: usize) -> impl Strategy<Value = Vec<u8>> {
    let block =
        prop_oneof![Just(vec![0xff; ONE]), (0..3_u64).prop_map(|seed| noise(seed, ONE)), Just(vec![0; ONE])];
    let blocks = proptest::collection::vec(block, blocks);
    let spots = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6);
    (blocks, spots).prop_map(|(blocks, spots)| {
        let mut bytes = blocks.concat();
        for (at, byte) in spots {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_image_over_any_flash_ends_as_erasing_and_writing_everything_would(
        old in contents(8),
        image in contents(6),
        cut in 0..ONE,
        kind in prop_oneof![Just(Kind::SpiNor), Just(Kind::ParallelNor), Just(Kind::Other)],
        keep in any::<bool>(),
        full in any::<bool>(),
        head_size in proptest::option::of(1..1000_u64),
    ) {
        let bench = bench();
        let image = &image[..image.len() - cut];
        let options = Options {
            head: if keep { Head::Keep } else { Head::Auto },
            extent: if full { Extent::Full } else { Extent::Differing },
            head_size: head_size.filter(|_| !keep),
            content: Check::Allow,
            ..Options::default()
        };
        let mut chip = Nor::new(uniform(kind, BLOCKS), old.clone());
        let report = flash(&mut chip, image, &options, &bench.records).unwrap();
        let mut expected = old.clone();
        let end = image.len().next_multiple_of(ONE);
        expected[..end].fill(0xff);
        expected[..image.len()].copy_from_slice(image);
        prop_assert!(chip.bytes() == expected);
        prop_assert_eq!(report.operations, chip.counts());
        // No bit must go from 0 to 1 in a block that is not erased, and only one block more is.
        let bound = (0..end).step_by(ONE).filter(|at| {
            let range = *at..*at + ONE;
            old[range.clone()].iter().zip(&expected[range]).any(|(old, new)| !old & new != 0)
        });
        let bound = u64::try_from(bound.count()).unwrap();
        if keep && !full && kind == Kind::SpiNor {
            prop_assert!(report.operations.erases == bound || report.operations.erases > bound && old[..16] == [0; 16]
                || old[..16] == [0xff; 16]);
        }
        let again = flash(&mut chip, image, &Options { extent: Extent::Differing, ..options }, &bench.records).unwrap();
        prop_assert_eq!(again.outcome, Outcome::Unchanged);
    }
}
