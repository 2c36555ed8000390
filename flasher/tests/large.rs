//! Chips larger than 32 bits can count, and chips whose erase blocks have several sizes.

mod common;

use common::{bench, boot_sectors, flash, noise, uniform};
use flasher::device::{Geometry, Kind, Mtd, Region};
use flasher::error::Error;
use flasher::options::{Head, Options, Rest};
use flasher::record::State;
use flasher::report::Outcome;
use flasher::sim::{Fault, Faulty, Nor, Sparse};

const MIB: u64 = 1 << 20;

#[test]
fn a_chip_beyond_four_gigabytes_is_erased_to_its_last_block_and_nowhere_twice() {
    let bench = bench();
    let block = 32 * MIB;
    let size = (4 << 30) + 2 * block;
    let geometry = Geometry { size, erase_size: block, ..uniform(Kind::ParallelNor, 1) };
    let mut chip = Sparse::new(geometry.clone());
    // Every block holds something, so that the survey ends early in each.
    for block in geometry.blocks(0..size) {
        chip.program(block.start + 512, &[0x5a; 16]).unwrap();
    }
    let image = noise(2, 70_000);
    let options = Options { rest: Rest::Erase, ..Options::default() };
    let report = flash(&mut chip, &image, &options, &bench.records).unwrap();
    assert_eq!((report.outcome, report.operations.erases), (Outcome::Written, size / block));
    let mut places: Vec<_> = chip.erased().iter().map(|range| range.start).collect();
    places.sort_unstable();
    assert!(places.iter().copied().eq((0..size / block).map(|number| number * block)));
    let mut last = [0; 1024];
    chip.read(size - block, &mut last).unwrap();
    assert_eq!(last, [0xff; 1024]);
    let record = bench.records.read().unwrap();
    assert_eq!((record.state, record.end - record.start), (State::Verified, size));
}

#[test]
fn each_region_is_erased_in_its_own_blocks() {
    // A parallel chip with small blocks at both ends, as the data sheets call "dual boot".
    let regions = vec![
        Region { offset: 0, erase_size: 64, blocks: 4 },
        Region { offset: 256, erase_size: 256, blocks: 5 },
        Region { offset: 1536, erase_size: 64, blocks: 8 },
    ];
    let geometry = Geometry { regions, ..uniform(Kind::ParallelNor, 8) };
    let old = noise(1, 2048);
    let keep = Options { head: Head::Keep, ..Options::default() };
    for (at, erased) in [(70, 1), (300, 1), (1540, 1), (1601, 1)] {
        let mut chip = Nor::new(geometry.clone(), old.clone());
        let mut image = old[..1728].to_vec();
        image[at] ^= 0xff;
        let report = flash(&mut chip, &image, &keep, &bench().records).unwrap();
        assert_eq!((report.operations.erases, report.plan.blocks), (erased, 4 + 5 + 3), "{at}");
        assert!(chip.bytes()[..1728] == image && chip.bytes()[1728..] == old[1728..]);
    }
    let mut chip = Nor::new(geometry, old);
    let all = Options { rest: Rest::Erase, ..Options::default() };
    let report = flash(&mut chip, &noise(2, 100), &all, &bench().records).unwrap();
    assert_eq!(report.operations.erases, 4 + 5 + 8);
}

#[test]
fn regions_that_do_not_add_up_are_refused() {
    let bench = bench();
    let geometry = Geometry { size: 4096, ..boot_sectors(Kind::ParallelNor, 8) };
    let mut chip = Nor::new(geometry, noise(1, 4096));
    let failure = flash(&mut chip, &noise(2, 100), &Options::default(), &bench.records).unwrap_err();
    assert_eq!(
        (failure.to_string().as_str(), failure.exit_code()),
        ("mtd5 \"firmware\" cannot be written: its erase regions end at 0x800, and its size is 0x1000", 1)
    );
}

#[test]
fn a_chip_that_wraps_at_sixteen_megabytes_is_never_called_verified() {
    let size = 17 * MIB;
    let geometry = Geometry { size, erase_size: 64 << 10, ..uniform(Kind::SpiNor, 1) };
    let bytes = usize::try_from(size).unwrap();
    let (bench, image) = (bench(), noise(2, bytes - 100));
    for head in [Head::Auto, Head::Keep] {
        let inner = Nor::new(geometry.clone(), vec![0xff; bytes]);
        let mut chip = Faulty::new(inner, Fault::AddressWraps(24));
        let options = Options { head, ..Options::default() };
        let failure = flash(&mut chip, &image, &options, &bench.records).unwrap_err();
        assert_eq!(failure.exit_code(), 3, "{failure}");
        assert!(matches!(failure.error, Error::Mismatch { .. } | Error::Overwritten { .. }), "{failure}");
    }
}
