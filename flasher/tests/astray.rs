//! Operations that go astray, on chips whose kept blocks are not read back whole: never "verified" when the bytes
//! differ, whichever address bit, block and change it is.

mod common;

use common::{BLOCK, Way, bench, flash, flash_by, noise, uniform};
use flasher::device::{Kind, Mtd};
use flasher::error::Error;
use flasher::options::{Head, Options};
use flasher::record::RecordDir;
use flasher::sim::{Fault, Faulty, Nor};

const BLOCKS: u64 = 16;
const LINES: std::ops::Range<u32> = 8..12;

/// What becomes of one block; the others stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Other bytes all over.
    Other,
    /// Other bytes in the last granule only.
    Tail,
    /// Bits that are cleared in one byte.
    Clear,
    /// It becomes blank.
    Blank,
    /// It was blank, and gets a few bytes in its middle.
    FromBlank,
}

const CHANGES: [Change; 5] = [Change::Other, Change::Tail, Change::Clear, Change::Blank, Change::FromBlank];

fn read_all(chip: &mut dyn Mtd) -> Vec<u8> {
    let size = usize::try_from(chip.geometry().size).unwrap();
    let mut bytes = vec![0; size];
    for (number, block) in bytes.chunks_mut(256).enumerate() {
        chip.read(number as u64 * 256, block).unwrap();
    }
    bytes
}

/// The image: what the chip shows, but for the changed block.
fn image(mut view: Vec<u8>, start: usize, change: Change) -> Vec<u8> {
    let block = &mut view[start..start + 256];
    match change {
        Change::Other => block.copy_from_slice(&noise(7, 256)),
        Change::Tail => block[250..].iter_mut().for_each(|byte| *byte = !*byte),
        // A byte of noise can be 0 itself.
        Change::Clear => block[130..140].fill(0),
        Change::Blank => block.fill(0xff),
        Change::FromBlank => block[100..110].fill(0x5a),
    }
    view
}

/// One run; whether it ended in "verified", which is only right where the chip shows the image.
fn run(fault: Fault, number: u64, change: Change, head: Head, kind: Kind, records: &RecordDir) -> bool {
    run_by(Way::File, fault, number, change, Options { head, ..Options::default() }, kind, records)
}

/// The same of either way, with options.
fn run_by(
    way: Way,
    fault: Fault,
    number: u64,
    change: Change,
    options: Options,
    kind: Kind,
    records: &RecordDir,
) -> bool {
    let mut bytes = noise(1, usize::try_from(BLOCKS * BLOCK).unwrap());
    let start = usize::try_from(number * BLOCK).unwrap();
    if change == Change::FromBlank {
        // Wherever the faulty chip finds this block, it is blank.
        for line in LINES {
            for place in [start, start & !(1 << line), start | 1 << line, start & ((1 << line) - 1)] {
                bytes[place..place + 256].fill(0xff);
            }
        }
    }
    let mut chip = Faulty::new(Nor::new(uniform(kind, BLOCKS), bytes), fault);
    let image = image(read_all(&mut chip), start, change);
    match flash_by(way, &mut chip, &image, &options, records) {
        Ok(_) => {
            let holds = read_all(&mut chip) == image;
            assert!(
                holds,
                "{way:?}, {fault:?}, block {number}, {change:?}, {options:?}: verified, and the bytes differ"
            );
            true
        }
        Err(failure) => {
            assert_eq!(failure.exit_code(), 3, "{fault:?}: {failure}");
            let told = match &failure.error {
                Error::Mismatch { .. } | Error::Protected { .. } => true,
                Error::Overwritten { .. } => way == Way::Stream,
                _ => false,
            };
            assert!(told, "{failure}");
            false
        }
    }
}

#[test]
fn an_operation_that_goes_astray_by_any_address_bit_is_never_called_verified() {
    let bench = bench();
    for line in LINES {
        let faults =
            [Fault::AddressWraps(line), Fault::LineLow(line), Fault::LineHigh(line), Fault::AlsoAt(line)];
        for fault in faults {
            let mut found = 0;
            for number in 0..BLOCKS {
                for change in CHANGES {
                    for kind in [Kind::SpiNor, Kind::ParallelNor] {
                        for head in [Head::Keep, Head::Auto] {
                            found += u32::from(!run(fault, number, change, head, kind, &bench.records));
                        }
                    }
                }
            }
            // Each of these faults gives every block another one that shares its bytes or its operations. A block
            // that becomes blank over a blank one, and zeros over zeros, are no damage.
            assert!(found > 200, "{fault:?}: found in {found} of 320 runs");
        }
    }
}

#[test]
fn an_erase_that_takes_its_neighbours_along_is_never_called_verified() {
    let bench = bench();
    for times in [2, 4, 8, 16] {
        for number in 0..BLOCKS {
            for change in CHANGES {
                for head in [Head::Keep, Head::Auto] {
                    let is_found =
                        !run(Fault::EraseTimes(times), number, change, head, Kind::SpiNor, &bench.records);
                    // A block that becomes blank is not damaged by the rewrite of those that went with it, and a
                    // head that is blank with its block is not erased.
                    let erases = match change {
                        Change::Other | Change::Tail => true,
                        Change::Clear => head == Head::Auto && number != 0,
                        Change::Blank | Change::FromBlank => is_found,
                    };
                    assert_eq!(is_found, erases, "{times}, {number}, {change:?}, {head:?}");
                }
            }
        }
    }
}

/// The head of a stream is completed over a body whose bytes are gone: what its operations reach beside it must show.
#[test]
fn an_operation_of_a_stream_that_goes_astray_is_never_called_verified() {
    let bench = bench();
    let lines = LINES.flat_map(|line| {
        [Fault::AddressWraps(line), Fault::LineLow(line), Fault::LineHigh(line), Fault::AlsoAt(line)]
    });
    for fault in lines.chain([2, 4, 8, 16].map(Fault::EraseTimes)) {
        let mut found = 0;
        for number in 0..BLOCKS {
            for change in CHANGES {
                for head_size in [None, Some(2 * BLOCK), Some(3 * BLOCK)] {
                    let options = Options { head_size, ..Options::default() };
                    let kind = Kind::SpiNor;
                    let verified = run_by(Way::Stream, fault, number, change, options, kind, &bench.records);
                    found += u32::from(!verified);
                }
            }
        }
        assert!(found > 80, "{fault:?}: found in {found} of 480 runs");
    }
}

/// The neighbours of the block that is erased are blank: the damage lies behind them.
#[test]
fn an_erase_that_takes_a_block_behind_blank_ones_along_is_found() {
    let bench = bench();
    for number in 0..4 {
        let mut bytes = vec![0xff; 4096];
        bytes[..1024].copy_from_slice(&noise(1, 1024));
        let kept = (number ^ 3) * 256;
        for block in 0..4 {
            if block != number && block * 256 != kept {
                bytes[block * 256..(block + 1) * 256].fill(0xff);
            }
        }
        let image = image(bytes.clone(), number * 256, Change::Other);
        for head in [Head::Keep, Head::Auto] {
            let chip = Nor::new(uniform(Kind::SpiNor, BLOCKS), bytes.clone());
            let mut chip = Faulty::new(chip, Fault::EraseTimes(4));
            let options = Options { head, ..Options::default() };
            let failure = flash(&mut chip, &image, &options, &bench.records).unwrap_err();
            assert!(matches!(failure.error, Error::Mismatch { .. }), "{number}, {head:?}: {failure}");
        }
    }
}

/// Head and body share their bytes, both change, and they differ from each other late in the block only.
#[test]
fn a_head_that_is_completed_over_a_changed_block_is_found_by_what_tells_the_two_apart() {
    let bench = bench();
    for line in LINES {
        let partner = 1_usize << line;
        for at in [0, 100, 255] {
            let inner = Nor::new(uniform(Kind::SpiNor, BLOCKS), noise(1, 4096));
            let mut chip = Faulty::new(inner, Fault::LineLow(line));
            let mut image = read_all(&mut chip);
            image[..256].copy_from_slice(&noise(9, 256));
            image[partner..partner + 256].copy_from_slice(&noise(9, 256));
            image[partner + at] ^= 0x40;
            let failure = flash(&mut chip, &image, &Options::default(), &bench.records).unwrap_err();
            assert!(matches!(failure.error, Error::Mismatch { .. }), "line {line}, {at}: {failure}");
        }
    }
}

/// What was missing where it should be tells of it: then everything is read, wherever the bytes may have gone.
#[test]
fn a_program_that_arrived_at_any_other_block_instead_is_found_and_put_right() {
    let bench = bench();
    for bits in 1..BLOCKS {
        let bytes = noise(1, 4096);
        let image = image(bytes.clone(), 5 * 256, Change::Clear);
        let chip = Nor::new(uniform(Kind::SpiNor, BLOCKS), bytes);
        let mut chip = Faulty::new(chip, Fault::ProgramAstray(0, bits * BLOCK));
        let options = Options { head: Head::Keep, ..Options::default() };
        flash(&mut chip, &image, &options, &bench.records).unwrap();
        assert!(chip.inner().bytes() == image, "verified, and the bytes differ: {bits:#x}");
    }
}

/// The size that matters: chips above 16 MiB whose driver sends three address bytes.
#[test]
fn a_chip_of_32_mib_that_wraps_at_16_mib_is_found_by_one_changed_block() {
    let bench = bench();
    let geometry =
        flasher::device::Geometry { size: 32 << 20, erase_size: 64 << 10, ..uniform(Kind::SpiNor, 1) };
    for place in [0, 5 << 16, (16 << 20) + (7 << 16), (32 << 20) - (64 << 10)] {
        let chip = Nor::new(geometry.clone(), noise(1, 32 << 20));
        let mut chip = Faulty::new(chip, Fault::AddressWraps(24));
        let image = image(read_all(&mut chip), place + 1000, Change::Other);
        let options = Options { head: Head::Keep, ..Options::default() };
        let failure = flash(&mut chip, &image, &options, &bench.records).unwrap_err();
        assert_eq!(failure.exit_code(), 3, "{place:#x}: {failure}");
    }
}

/// What is kept is not read twice: that is what the time goal needs.
#[test]
fn of_kept_blocks_only_a_few_granules_are_read_again() {
    let bench = bench();
    let bytes = noise(1, 4096);
    let mut chip = Nor::new(uniform(Kind::SpiNor, BLOCKS), bytes.clone());
    let image = image(bytes, 5 * 256, Change::Other);
    let options = Options { head: Head::Keep, ..Options::default() };
    let report = flash(&mut chip, &image, &options, &bench.records).unwrap();
    // The survey reads 15 blocks and four bytes, the end one block, one granule of each other, and its first granule
    // where the eight neighbours' is no other; at once the first erase, and the block's bytes.
    assert_eq!(report.operations.read, 15 * 256 + 4 + 256 + 15 * 16 + 16 + 256);
}
