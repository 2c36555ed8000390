//! Images that can be read once only: what is proven, what is refused, and what an early end leaves.

mod common;

use common::{BLOCK, BLOCKS, ONE, SIZE, bench, facts, noise, serial, target, uniform};
use flasher::device::{Geometry, Kind, Mtd};
use flasher::error::Error;
use flasher::event::Silent;
use flasher::hold::NoHold;
use flasher::options::{Mode, Options, Rest};
use flasher::pipeline::Job;
use flasher::record::{RecordDir, State};
use flasher::report::{Failure, Flash, Outcome, Report};
use flasher::sim::{Fault, Faulty, HalfErase, Nor};
use flasher::source::feed::Plain;
use flasher::source::{Decompress, Limits, stdin};
use flasher::stream;
use proptest::prelude::*;

fn feed(chip: &mut dyn Mtd, image: &[u8], options: &Options, records: &RecordDir) -> Result<Report, Failure> {
    let target = target(chip.geometry().size);
    let facts = facts(chip.geometry());
    let command = ["flashcp", "-", "mtd:firmware"].map(str::to_owned);
    let job = Job {
        target: &target,
        facts: &facts,
        options,
        command: &command,
        records,
        hold: &mut NoHold,
        progress: &mut Silent,
    };
    stream::run(chip, &mut Plain::new("standard input", image), job)
}

fn sized(size: usize) -> Options {
    Options { size: Some(size as u64), ..Options::default() }
}

/// What the plain way leaves: the image, 0xff to the end of its last block, and what was there behind it.
fn plainly(before: &[u8], image: &[u8], geometry: &Geometry) -> Vec<u8> {
    let end = usize::try_from(geometry.round_up(image.len() as u64)).unwrap();
    let mut after = before.to_vec();
    after[..end].fill(0xff);
    after[..image.len()].copy_from_slice(image);
    after
}

#[test]
fn a_stream_that_ends_where_it_was_said_to_is_verified() {
    let (mut chip, bench) = (serial(), bench());
    let image = noise(2, SIZE - ONE - 7);
    let expected = plainly(chip.bytes(), &image, chip.geometry());
    let report = feed(&mut chip, &image, &sized(image.len()), &bench.records).unwrap();
    assert_eq!((&report.outcome, report.exit_code()), (&Outcome::Written, 0));
    assert!(chip.bytes() == expected);
    let counts = chip.counts();
    assert_eq!((report.operations.erases, report.operations.programmed), (counts.erases, counts.programmed));
    let record = bench.records.read().unwrap();
    assert_eq!((record.state, record.image_bytes), (State::Verified, image.len() as u64));
    assert_eq!(record.range_sha256.as_ref(), Some(&report.sha256));
    // The second time nothing is left to be done.
    let calls = chip.calls();
    let report = feed(&mut chip, &image, &sized(image.len()), &bench.records).unwrap();
    assert_eq!((report.outcome, chip.calls()), (Outcome::Unchanged, calls));
}

#[test]
fn a_stream_that_ends_early_leaves_no_valid_head_and_says_where_it_ended() {
    let image = noise(2, SIZE);
    let expected = image.clone();
    for end in (ONE + 1..SIZE).step_by(97) {
        let (mut chip, bench) = (serial(), bench());
        let old = chip.bytes().to_vec();
        let failure = feed(&mut chip, &image[..end], &sized(SIZE), &bench.records).unwrap_err();
        assert_eq!((failure.flash, failure.exit_code()), (Flash::Unverified, 3), "{failure}");
        assert_eq!(
            failure.to_string(),
            format!("the image standard input ended at byte {end} of 2048 while it was read")
        );
        assert_ne!(chip.bytes()[..16], old[..16]);
        assert_ne!(chip.bytes()[..16], image[..16]);
        assert_eq!(bench.records.read().unwrap().state, State::Unverified);
        feed(&mut chip, &image, &sized(SIZE), &bench.records).unwrap();
        assert!(chip.bytes() == expected);
        assert_eq!(bench.records.read().unwrap().state, State::Verified);
    }
}

/// A link that was lost, and a smaller image from a file: the partition is whole again, and nothing says otherwise.
#[test]
fn a_shorter_image_that_covers_what_a_lost_stream_has_touched_settles_it() {
    let image = noise(2, SIZE);
    let sha256 = feed(&mut serial(), &image, &sized(SIZE), &bench().records).unwrap().sha256;
    let unsized_ = Options { sha256: Some(sha256), ..Options::default() };
    for options in [unsized_, sized(SIZE)] {
        for (end, length, settles) in [(3 * ONE + 9, 3 * ONE + 1, true), (6 * ONE, 3 * ONE, false)] {
            let (mut chip, bench) = (serial(), bench());
            feed(&mut chip, &image[..end], &options, &bench.records).unwrap_err();
            let failed = bench.records.read().unwrap();
            // Nothing behind the last block that came was touched.
            let touched = 0x10000 + end.next_multiple_of(ONE) as u64;
            assert_eq!((failed.start, failed.end), (0x10000, touched), "{end}");
            let report =
                common::flash(&mut chip, &noise(3, length), &Options::default(), &bench.records).unwrap();
            let state = bench.records.read().unwrap().state;
            assert_eq!(state == State::Verified, settles, "{end}, {length}: {report:?}");
            let unfinished = report.unfinished.map(|run| (run.same_device, run.name, run.command));
            let expected = (true, "firmware".to_owned(), "flashcp - mtd:firmware".to_owned());
            assert_eq!(unfinished, (!settles).then_some(expected));
        }
    }
}

/// The record of a stream of unknown length names the whole partition at first.
#[test]
fn a_stream_settles_only_what_it_has_proven() {
    let (mut chip, bench) = (serial(), bench());
    feed(&mut chip, &noise(2, 6 * ONE), &sized(SIZE), &bench.records).unwrap_err();
    let image = noise(3, 2 * ONE);
    let sha256 = feed(&mut serial(), &image, &sized(2 * ONE), &common::bench().records).unwrap().sha256;
    let options = Options { sha256: Some(sha256), ..Options::default() };
    let report = feed(&mut chip, &image, &options, &bench.records).unwrap();
    assert!(report.unfinished.is_some());
    assert_eq!(bench.records.read().unwrap().state, State::Unverified);
}

#[test]
fn a_stream_that_ends_within_its_head_changes_nothing() {
    for end in [1, 16, ONE - 1, ONE] {
        let (mut chip, bench) = (serial(), bench());
        let failure = feed(&mut chip, &noise(2, end), &sized(SIZE), &bench.records).unwrap_err();
        assert_eq!((failure.exit_code(), chip.calls()), (1, 0), "{failure}");
        assert_eq!(bench.records.read(), None);
    }
    let (mut chip, bench) = (serial(), bench());
    let failure = feed(&mut chip, b"", &sized(SIZE), &bench.records).unwrap_err();
    assert_eq!(failure.to_string(), "the image standard input is empty");
}

#[test]
fn a_stream_that_goes_on_is_refused_and_the_head_stays_invalid() {
    let (mut chip, bench) = (serial(), bench());
    let image = noise(2, SIZE);
    let failure = feed(&mut chip, &image, &sized(SIZE - 10), &bench.records).unwrap_err();
    assert_eq!(failure.exit_code(), 3);
    assert_eq!(
        failure.to_string(),
        "the image standard input goes on behind the 2038 bytes it was said to have"
    );
    assert_ne!(chip.bytes()[..16], image[..16]);
    let options = Options { sha256: Some("00".repeat(32)), ..Options::default() };
    let failure = feed(&mut chip, &noise(2, SIZE + 1), &options, &bench.records).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the image standard input does not fit: it goes on behind the 2048 bytes of mtd5 \"firmware\""
    );
    // Where the size is known nothing is touched.
    let mut chip = serial();
    let failure = feed(&mut chip, &image, &sized(SIZE + 1), &bench.records).unwrap_err();
    assert!(matches!(failure.error, Error::TooLarge { .. }), "{failure}");
    assert_eq!((failure.exit_code(), chip.calls()), (1, 0));
}

#[test]
fn a_digest_proves_the_end_of_a_stream_of_unknown_length() {
    let (mut chip, bench) = (serial(), bench());
    let image = noise(2, SIZE - 300);
    let sha256 = feed(&mut serial(), &image, &sized(image.len()), &bench.records).unwrap().sha256;
    let options = Options { sha256: Some(sha256), ..Options::default() };
    let failure = feed(&mut chip, &image[..SIZE - 301], &options, &bench.records).unwrap_err();
    assert!(matches!(failure.error, Error::Digest { .. }) && failure.exit_code() == 3, "{failure}");
    assert_ne!(chip.bytes()[..16], image[..16]);
    let expected = plainly(&noise(1, SIZE), &image, chip.geometry());
    let report = feed(&mut chip, &image, &options, &bench.records).unwrap();
    assert_eq!(report.image_bytes, image.len() as u64);
    assert!(chip.bytes() == expected);
}

#[test]
fn a_stream_whose_end_nothing_proves_is_wrong_usage() {
    let (mut chip, bench) = (serial(), bench());
    let failure = feed(&mut chip, &noise(2, 9), &Options::default(), &bench.records).unwrap_err();
    assert_eq!((failure.exit_code(), chip.calls()), (2, 0));
    assert_eq!(
        failure.to_string(),
        "the end of the image standard input cannot be proven: it is not compressed, and neither size nor SHA-256 is \
         known"
    );
}

#[test]
fn a_stream_can_be_compared_and_planned_without_a_change() {
    let (mut chip, bench) = (serial(), bench());
    let mut image = noise(1, SIZE - 5);
    let with = |mode| Options { mode, ..sized(SIZE - 5) };
    let report = feed(&mut chip, &image, &with(Mode::VerifyOnly), &bench.records).unwrap();
    assert_eq!(report.outcome, Outcome::Equal);
    image[3 * ONE + 9] ^= 1;
    image[5 * ONE] ^= 1;
    let report = feed(&mut chip, &image, &with(Mode::VerifyOnly), &bench.records).unwrap();
    assert_eq!(report.outcome, Outcome::Differs { blocks: 2, first: 3 * BLOCK });
    let report = feed(&mut chip, &image, &with(Mode::DryRun), &bench.records).unwrap();
    assert_eq!((report.outcome, report.plan.blocks, report.plan.kept), (Outcome::Possible, BLOCKS, 4));
    let failure = feed(&mut chip, &image[..700], &with(Mode::DryRun), &bench.records).unwrap_err();
    assert_eq!((failure.exit_code(), chip.calls()), (1, 0));
    assert_eq!(bench.records.read(), None);
}

#[test]
fn a_head_too_long_to_be_held_is_refused() {
    let geometry = Geometry { size: 4 << 20, erase_size: 1 << 16, ..uniform(Kind::SpiNor, BLOCKS) };
    let (mut chip, bench) = (Nor::new(geometry, vec![0xff; 4 << 20]), bench());
    let options = Options { head_size: Some((1 << 20) + 1), ..sized(4 << 20) };
    let failure = feed(&mut chip, &noise(1, 9), &options, &bench.records).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "a head of 1114112 bytes is too long for an image that can be read once only: 1048576 at most"
    );
}

#[test]
fn a_power_cut_at_any_point_of_a_stream_leaves_the_old_the_new_or_no_head() {
    let image = noise(2, SIZE - 100);
    let old = noise(1, SIZE);
    let mut points = 0;
    for (kind, head_size) in [(Kind::SpiNor, None), (Kind::ParallelNor, None), (Kind::SpiNor, Some(600))] {
        let options = Options { head_size, ..sized(image.len()) };
        let mut whole = Nor::new(uniform(kind, BLOCKS), old.clone());
        feed(&mut whole, &image, &options, &bench().records).unwrap();
        for at in 0..whole.calls() {
            for half in HalfErase::ALL {
                for sixteenths in [0, 5, 11, 16] {
                    let bench = bench();
                    let mut chip = Nor::new(uniform(kind, BLOCKS), old.clone());
                    chip.cut_power(at, sixteenths, half);
                    let failure = feed(&mut chip, &image, &options, &bench.records).unwrap_err();
                    assert_eq!(failure.exit_code(), 3, "{failure}");
                    let head = |bytes: &[u8]| bytes[..16].to_vec();
                    let (now, is_old, is_new) =
                        (chip.bytes(), chip.bytes() == old, chip.bytes() == whole.bytes());
                    if head(now) == head(&old) {
                        assert!(is_old, "old head over other bytes: call {at}, {half:?} {sixteenths}");
                    }
                    if head(now) == head(&image) {
                        assert!(is_new, "new head over other bytes: call {at}, {half:?} {sixteenths}");
                    }
                    chip.power_cycle();
                    feed(&mut chip, &image, &options, &bench.records).unwrap();
                    chip.age();
                    assert!(chip.bytes() == whole.bytes(), "call {at}, {half:?} {sixteenths}");
                    points += 1;
                }
            }
        }
    }
    assert!(points > 500, "{points}");
}

#[test]
fn faults_are_never_called_verified() {
    let image = noise(2, SIZE);
    let faults = [Fault::EraseIgnored, Fault::ProgramIgnored, Fault::StuckBit(700), Fault::StuckBit(3)]
        .into_iter()
        .chain((0..40).flat_map(|at| {
            [Fault::EraseFails(at), Fault::ProgramFails(at), Fault::ReadFails(at), Fault::ReadFlips(at)]
        }))
        .chain((8..11).map(Fault::AddressWraps));
    for fault in faults {
        let (mut chip, bench) = (Faulty::new(serial(), fault), bench());
        match feed(&mut chip, &image, &sized(SIZE), &bench.records) {
            Ok(_) => {
                assert!(chip.inner().bytes() == image, "{fault:?}");
            }
            Err(failure) => {
                let record = bench.records.read().map(|record| record.state);
                let expected = (failure.flash == Flash::Unverified).then_some(State::Unverified);
                assert_eq!(record, expected, "{fault:?}: {failure}");
            }
        }
    }
    let mut chip = Faulty::new(serial(), Fault::AddressWraps(10));
    let failure = feed(&mut chip, &image, &sized(SIZE), &bench().records).unwrap_err();
    assert_eq!(failure.exit_code(), 3, "{failure}");
    assert_eq!(
        failure.to_string(),
        "verification failed: 0x100 to 0x200 was right when it was written and is not any more; the chip or its driver \
         may ignore an address line"
    );
    // Found before the head is completed.
    assert_ne!(chip.inner().bytes()[..16], image[..16]);
}

#[test]
fn a_compressed_stream_proves_its_own_end() {
    let image = noise(2, SIZE - 50);
    let compressed = common::gzip(&image);
    let write = |bytes: Vec<u8>, chip: &mut Nor| {
        let limits = Limits { memory: 1 << 20 };
        let opened = stdin::open(std::io::Cursor::new(bytes), Decompress::ByMagic, limits);
        let (mut feed, _) = opened.map_err(|error| Failure::from(Error::from(error)))?;
        let (target, facts, bench) = (target(SIZE as u64), facts(chip.geometry()), bench());
        let job = Job {
            target: &target,
            facts: &facts,
            options: &Options::default(),
            command: &[],
            records: &bench.records,
            hold: &mut NoHold,
            progress: &mut Silent,
        };
        stream::run(chip, feed.as_mut(), job)
    };
    let mut chip = serial();
    write(compressed.clone(), &mut chip).unwrap();
    assert!(chip.bytes().starts_with(&image));
    for cut in 1..9 {
        let mut chip = serial();
        let failure = write(compressed[..compressed.len() - cut].to_vec(), &mut chip).unwrap_err();
        assert_eq!(
            (failure.exit_code(), failure.to_string()),
            (
                3,
                "the image standard input is cut short: its gzip data ends behind byte 1998 of the image"
                    .to_owned()
            )
        );
        assert_ne!(chip.bytes()[..16], image[..16]);
    }
    let failure = write(image.clone(), &mut serial()).unwrap_err();
    assert_eq!(failure.exit_code(), 2, "{failure}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_stream_over_any_flash_ends_as_the_plain_way_would_leave_it(
        old in proptest::collection::vec(prop_oneof![Just(0xff_u8), Just(0), any::<u8>()], SIZE),
        edits in proptest::collection::vec((0..SIZE, any::<u8>()), 0..12),
        length in 1..=SIZE,
        head_size in prop_oneof![Just(None), (1..900_u64).prop_map(Some)],
        parallel: bool,
        erase_rest: bool,
        known: bool,
    ) {
        let kind = if parallel { Kind::ParallelNor } else { Kind::SpiNor };
        let mut image = old.clone();
        for (at, byte) in edits {
            image[at] = byte;
        }
        image.truncate(length);
        let mut chip = Nor::new(uniform(kind, BLOCKS), old.clone());
        let bench = bench();
        let content = flasher::options::Check::Allow;
        let rest = if erase_rest { Rest::Erase } else { Rest::Leave };
        let mut options = Options { head_size, content, rest, ..sized(length) };
        if !known {
            let check = Options { mode: Mode::VerifyOnly, ..options.clone() };
            options.sha256 = Some(feed(&mut chip, &image, &check, &bench.records).unwrap().sha256);
            options.size = None;
        }
        let mut expected = plainly(&old, &image, chip.geometry());
        if erase_rest {
            expected[length..].fill(0xff);
        }
        feed(&mut chip, &image, &options, &bench.records).unwrap();
        prop_assert!(chip.bytes() == expected);
    }
}
