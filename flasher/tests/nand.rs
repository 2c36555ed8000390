//! Whole runs over simulated NAND: bad blocks, pages, ECC, and blocks that wear out.

mod common;

use common::{BLOCK, BLOCKS, ONE, SIZE, Way, bench, facts, flash, flash_by, nand, noise, target};
use flasher::device::Mtd;
use flasher::error::Error;
use flasher::event::{Event, Progress};
use flasher::hold::NoHold;
use flasher::options::{BadBlocks, Check, Mode, Options, Rest};
use flasher::pipeline::{self, Job};
use flasher::record::State;
use flasher::report::{Flash, Outcome, Report};
use flasher::sim::{Fault, Faulty, Nand, Wear};
use flasher::source::Bytes;
use flasher::source::feed::Plain;
use flasher::stream;

const PAGE: usize = ONE / 4;

fn with(bad_blocks: BadBlocks) -> Options {
    Options { bad_blocks, ..Options::default() }
}

fn chip() -> Nand {
    Nand::new(nand(BLOCKS), noise(1, SIZE))
}

fn written(chip: &mut Nand, image: &[u8], options: &Options) -> Report {
    let bench = bench();
    let report = flash(chip, image, options, &bench.records).unwrap();
    assert_eq!(bench.records.read().unwrap().state, State::Verified);
    assert!(chip.good_bytes()[..image.len()] == *image);
    report
}

#[test]
fn an_image_over_a_bad_block_is_refused_unless_it_shall_be_skipped() {
    let bench = bench();
    let mut chip = chip().with_bad(2 * BLOCK);
    let failure = flash(&mut chip, &noise(2, 3 * ONE), &Options::default(), &bench.records).unwrap_err();
    assert_eq!(
        (failure.to_string().as_str(), failure.exit_code(), chip.calls()),
        ("mtd5 \"firmware\" has a bad block at 0x200, within the range to be written", 1, 0)
    );
    // One behind the image is nobody's business, unless the rest is to be erased.
    written(&mut chip, &noise(2, 2 * ONE), &Options::default());
    let all = Options { rest: Rest::Erase, ..Options::default() };
    assert!(flash(&mut chip, &noise(3, 2 * ONE), &all, &bench.records).is_err());
}

#[test]
fn the_image_goes_on_in_the_next_good_block() {
    let old = noise(1, SIZE);
    let image = noise(2, 3 * ONE + 5);
    let mut chip = chip().with_bad(0).with_bad(2 * BLOCK).with_bad(3 * BLOCK);
    let bench = bench();
    let report = flash(&mut chip, &image, &with(BadBlocks::Skip), &bench.records).unwrap();
    assert_eq!(report.outcome, Outcome::Written);
    let padded = [image.as_slice(), &vec![0xff; ONE - 5]].concat();
    assert!(chip.good_bytes()[..4 * ONE] == padded);
    // Bad blocks and what lies behind the image are as they were.
    for range in [0..ONE, 2 * ONE..4 * ONE, 7 * ONE..SIZE] {
        assert!(chip.bytes()[range.clone()] == old[range]);
    }
    let record = bench.records.read().unwrap();
    assert_eq!((record.start, record.end), (0x10000, 0x10000 + 7 * BLOCK));
    let again = written(&mut chip, &image, &with(BadBlocks::Skip));
    assert_eq!(again.outcome, Outcome::Unchanged);
    let verify = Options { mode: Mode::VerifyOnly, ..with(BadBlocks::Skip) };
    assert_eq!(flash(&mut chip, &image, &verify, &bench.records).unwrap().outcome, Outcome::Equal);
}

#[test]
fn an_image_must_fit_into_the_good_blocks() {
    let bench = bench();
    let mut chip = chip().with_bad(BLOCK);
    let failure = flash(&mut chip, &noise(2, SIZE), &with(BadBlocks::Skip), &bench.records).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the image fw.bin does not fit: it has 2048 bytes, the good blocks of mtd5 \"firmware\" have 1792 (256 too many)"
    );
    assert_eq!((failure.exit_code(), chip.calls()), (1, 0));
}

#[test]
fn pages_are_programmed_whole_and_blank_ones_not_at_all() {
    let mut image = noise(2, 2 * ONE + 1);
    image[ONE..ONE + 2 * PAGE].fill(0xff);
    let mut chip = chip();
    let report = written(&mut chip, &image, &Options::default());
    assert_eq!(report.operations.programmed, (4 + 2 + 1) * PAGE as u64);
    assert_eq!((report.operations.erases, report.operations.programmed), (3, chip.counts().programmed));
}

#[test]
fn a_blank_block_is_never_trusted_with_data() {
    let mut chip = Nand::new(nand(BLOCKS), vec![0xff; SIZE]);
    let report = written(&mut chip, &noise(2, 3 * ONE), &Options::default());
    assert_eq!(report.operations.erases, 3);
}

#[test]
fn a_block_is_kept_only_while_its_flipped_bits_are_below_the_threshold() {
    let image = noise(1, SIZE);
    for (flips, erases, refreshed) in [(Nand::THRESHOLD - 1, 0, 0), (Nand::THRESHOLD, 2, 1)] {
        let mut chip = chip();
        chip.flip(3 * BLOCK + 70, flips);
        let report = written(&mut chip, &image, &Options::default());
        assert_eq!((report.operations.erases, report.ecc.refreshed), (erases, refreshed));
        assert_eq!((report.ecc.corrected, report.ecc.failed), (u64::from(flips), 0));
        // To compare, they are equal all the same.
        let verify = Options { mode: Mode::VerifyOnly, ..Options::default() };
        chip.flip(3 * BLOCK + 70, flips);
        assert_eq!(flash(&mut chip, &image, &verify, &bench().records).unwrap().outcome, Outcome::Equal);
    }
}

/// The threshold is that of one ECC step, and the driver's count the sum over a page.
#[test]
fn flipped_bits_that_lie_in_several_ecc_steps_of_a_page_are_no_reason_to_rewrite_it() {
    let image = noise(1, SIZE);
    for way in [Way::File, Way::Stream] {
        let mut chip = chip();
        chip.flip_each_step(3 * BLOCK + 70);
        let options = Options { bad_blocks: BadBlocks::Skip, ..Options::default() };
        let report = flash_by(way, &mut chip, &image, &options, &bench().records).unwrap();
        assert_eq!((report.operations.erases, report.ecc.refreshed), (0, 0), "{way:?}");
        assert!(report.ecc.corrected >= u64::from(Nand::THRESHOLD));
        // One step that is as bad makes the difference.
        chip.flip(3 * BLOCK + 70, Nand::THRESHOLD - 1);
        let report = flash_by(way, &mut chip, &image, &options, &bench().records).unwrap();
        assert_eq!(report.ecc.refreshed, 1, "{way:?}");
    }
}

#[test]
fn what_ecc_cannot_correct_is_rewritten_and_never_taken_for_equal() {
    let image = noise(1, SIZE);
    let mut chip = chip();
    chip.flip(5 * BLOCK, Nand::STRENGTH + 1);
    let verify = Options { mode: Mode::VerifyOnly, ..Options::default() };
    let report = flash(&mut chip, &image, &verify, &bench().records).unwrap();
    assert_eq!(report.outcome, Outcome::Differs { blocks: 1, first: 5 * BLOCK });
    let report = written(&mut chip, &image, &Options::default());
    assert_eq!(report.operations.erases, 2);
    assert!(report.ecc.failed > 0 && report.retries > 0);
    // The old head may be unreadable as well.
    let mut head = Nand::new(nand(BLOCKS), noise(1, SIZE));
    head.flip(0, Nand::STRENGTH + 1);
    written(&mut head, &image, &Options::default());
}

#[test]
fn a_worn_block_is_named_and_marked_only_on_demand() {
    for wear in [Wear::Erase, Wear::Program] {
        for block in [0, 3] {
            let bench = bench();
            let image = noise(2, 5 * ONE);
            let mut chip = chip().with_worn(block * BLOCK, wear);
            let failure = flash(&mut chip, &image, &with(BadBlocks::Skip), &bench.records).unwrap_err();
            assert!(
                matches!(failure.error, Error::Worn { offset, .. } if offset == block * BLOCK),
                "{failure}"
            );
            assert_eq!((failure.flash, chip.marked()), (Flash::Unverified, Vec::new()));
            assert_eq!(bench.records.read().unwrap().state, State::Unverified);
            let report = flash(&mut chip, &image, &with(BadBlocks::Mark), &bench.records).unwrap();
            assert_eq!((report.outcome, chip.marked()), (Outcome::Written, vec![block * BLOCK]));
            assert!(chip.good_bytes()[..image.len()] == image);
            assert_eq!(bench.records.read().unwrap().state, State::Verified);
        }
    }
}

#[test]
fn many_worn_blocks_are_another_fault_and_not_marked_one_by_one() {
    let bench = bench();
    let mut chip = (0..BLOCKS).fold(chip(), |chip, block| chip.with_worn(block * BLOCK, Wear::Erase));
    let failure = flash(&mut chip, &noise(2, 9), &with(BadBlocks::Mark), &bench.records).unwrap_err();
    assert_eq!((failure.exit_code(), chip.marked().len()), (3, 4));
}

#[test]
fn a_second_program_of_a_page_is_refused_by_the_simulated_chip() {
    let mut chip = chip();
    chip.erase(0..BLOCK).unwrap();
    chip.program(0, &noise(3, 2 * PAGE)).unwrap();
    assert!(chip.program(PAGE as u64, &noise(4, PAGE)).is_err());
    chip.program(3 * PAGE as u64, &noise(4, PAGE)).unwrap();
    assert!(chip.program(2 * PAGE as u64, &noise(4, PAGE)).is_err());
    assert!(chip.erase(0..BLOCK + 1).is_err());
}

#[test]
fn a_ubi_image_is_not_for_raw_nand() {
    let image = [b"UBI#".as_slice(), &noise(2, 60)].concat();
    let failure = flash(&mut chip(), &image, &Options::default(), &bench().records).unwrap_err();
    assert!(matches!(failure.error, Error::UbiOnNand { .. }));
    // A kind of image is one thing, the erase counters are another.
    let any = Options { content: Check::Allow, ..Options::default() };
    let failure = flash(&mut chip(), &image, &any, &bench().records).unwrap_err();
    assert!(matches!(failure.error, Error::UbiOnNand { .. }));
    // Who is sent to another tool need not think about bad blocks.
    let mut bad = chip().with_bad(0);
    let failure = flash(&mut bad, &image, &Options::default(), &bench().records).unwrap_err();
    assert!(matches!(failure.error, Error::UbiOnNand { .. }));
    let raw = Options { raw_ubi: Check::Allow, ..Options::default() };
    written(&mut chip(), &image, &raw);
}

/// Where a retry is told, in both ways of writing.
#[derive(Default)]
struct Offsets(Vec<u64>);

impl Progress for Offsets {
    fn event(&mut self, event: &Event) {
        if let Event::Retry { offset, .. } = event {
            self.0.push(*offset);
        }
    }
}

#[test]
fn what_is_tried_again_is_told_by_its_place_on_the_partition() {
    let image = noise(2, 3 * ONE);
    let mut told = 0;
    for way in [Way::File, Way::Stream] {
        for number in 0..60 {
            for fault in [Fault::ReadFlips(number), Fault::ProgramFlips(number)] {
                // Every other block is bad: what lies in one of them is no place of the image's.
                let bad = (0..BLOCKS).step_by(2);
                let chip = bad.fold(Nand::new(nand(BLOCKS), noise(1, SIZE)), |chip, number| {
                    chip.with_bad(number * BLOCK)
                });
                let (mut chip, bench, mut seen) = (Faulty::new(chip, fault), bench(), Offsets::default());
                let size = Some(image.len() as u64);
                let options = Options { bad_blocks: BadBlocks::Skip, size, ..Options::default() };
                let job = Job {
                    target: &target(SIZE as u64),
                    facts: &facts(chip.geometry()),
                    options: &options,
                    command: &[],
                    records: &bench.records,
                    hold: &mut NoHold,
                    progress: &mut seen,
                };
                match way {
                    Way::File => pipeline::run(&mut chip, &mut Bytes::new("a", image.clone()).unwrap(), job),
                    Way::Stream => stream::run(&mut chip, &mut Plain::new("-", image.as_slice()), job),
                }
                .unwrap();
                assert!(seen.0.iter().all(|at| at / BLOCK % 2 == 1), "{way:?}, {fault:?}: {:?}", seen.0);
                told += seen.0.len();
            }
        }
    }
    assert!(told > 40, "{told}");
}
