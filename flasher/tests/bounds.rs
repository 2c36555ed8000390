//! The plan reaches the lower bound, by what the simulated chip saw. `cargo bench -p flasher` prints the same for a
//! larger image.

#[allow(dead_code, reason = "the bench program prints more than the tests compare")]
#[path = "../benches/bounds/mod.rs"]
mod bounds;
mod common;

use bounds::measure::{Measured, Tool, measure};
use bounds::sheet::{PARALLEL, SERIAL, Sheet};
use common::bench;
use flasher::estimate::Done;
use flasher::sim::cases::{Case, LARGE, SMALL, cases};

const SIZE: usize = 1 << 20;

fn measured(sheet: &Sheet, case: &Case, tool: Tool) -> Measured {
    measure(sheet, case, tool, &bench().records).unwrap()
}

#[test]
fn no_case_costs_an_erase_or_a_page_more_than_its_bound() {
    for mut case in cases(SIZE) {
        for erase_size in [SMALL, LARGE] {
            case.erase_size = erase_size;
            for sheet in [SERIAL, PARALLEL] {
                let run = measured(&sheet, &case, Tool::Ours);
                assert_eq!(run.broken_promise(), None);
                assert_eq!((run.count.erases, run.count.pages), (run.bound.erases, run.bound.pages));
            }
        }
    }
}

#[test]
fn a_head_that_is_never_valid_over_a_foreign_body_costs_at_most_one_erase_and_one_block() {
    for mut case in cases(SIZE) {
        for erase_size in [SMALL, LARGE] {
            case.erase_size = erase_size;
            for sheet in [SERIAL, PARALLEL] {
                assert_eq!(measured(&sheet, &case, Tool::OursSafe).broken_promise(), None);
            }
        }
    }
}

/// The dearest case there is: the head's block is the same, and is made invalid and completed all the same.
#[test]
fn a_head_that_stays_costs_its_block_and_its_first_page_twice_more() {
    let mut case = cases(SIZE).remove(0);
    let head = usize::try_from(SMALL).unwrap();
    case.image[..head].copy_from_slice(&case.old[..head]);
    let run = measured(&SERIAL, &case, Tool::OursSafe);
    // Zeros over the old head, and the first granule after all others.
    let pages = SMALL / run.page + 2;
    assert_eq!((run.count.erases, run.count.pages), (run.bound.erases + 1, run.bound.pages + pages));
}

/// What is read of each block until it shows that it is another one: 4 bytes, 16, 256, or pieces of 4 KiB.
fn looks(case: &Case, block: usize) -> u64 {
    let blocks = case.old.chunks(block).zip(case.image.chunks(block));
    let firsts =
        blocks.filter_map(|(have, want)| have.iter().zip(want).position(|(have, want)| have != want));
    let looked = firsts.map(|first| match first {
        0..4 => 4,
        4..16 => 16,
        16..256 => 256,
        _ => (first as u64 / 4096 + 1) * 4096,
    });
    // And the padding behind the image's end is read back.
    looked.sum::<u64>() + case.image.len().next_multiple_of(block) as u64 - case.image.len() as u64
}

/// Nobody can tell what a block needs without a look at it: that, and a page and a few bytes at once, is what a peer
/// does not read that rewrites everything unseen.
#[test]
fn by_the_data_sheets_no_case_takes_longer_than_the_best_peer_and_a_first_look_at_each_block() {
    for mut case in cases(SIZE) {
        for erase_size in [SMALL, LARGE] {
            case.erase_size = erase_size;
            for sheet in [SERIAL, PARALLEL] {
                let run = measured(&sheet, &case, Tool::Ours);
                let peers = [Tool::Plain, Tool::Blockwise].map(|tool| measured(&sheet, &case, tool));
                let block = usize::try_from(run.count.erase_size).unwrap();
                let look = Done { read: looks(&case, block) + 1024, ..Done::default() };
                let best = peers[0].seconds.min(peers[1].seconds) + sheet.seconds(&look);
                assert!(run.seconds <= best, "{}: {} s, {best} s", case.name, run.seconds);
            }
        }
    }
}

#[test]
fn where_little_changed_an_upgrade_takes_a_small_fraction_of_the_plain_way() {
    for number in [1, 2, 5] {
        let case = &cases(SIZE)[number];
        let seconds = |tool| measured(&SERIAL, case, tool).seconds;
        assert!(seconds(Tool::OursSafe) * 8.0 < seconds(Tool::Plain), "{}", case.name);
    }
}

#[test]
fn the_bound_is_that_of_each_case() {
    let blocks = SIZE as u64 / SMALL;
    let pages = SIZE as u64 / 256;
    let bounds: Vec<_> = cases(SIZE)
        .iter()
        .map(|case| {
            let bound = measured(&SERIAL, case, Tool::Plain).bound;
            (case.name, bound.erases, bound.pages)
        })
        .collect();
    let clears = bounds[5].2;
    assert!((150..=26 * 14).contains(&clears), "{clears}");
    assert_eq!(
        bounds,
        [
            ("all-different", blocks, pages),
            ("same", 0, 0),
            ("five-percent-changed", 1, 256),
            ("blank-chip", 0, pages),
            ("half-padding", blocks, bounds[4].2),
            ("only-clears", 0, clears),
            ("odd-length", blocks - 1, pages - 5001 / 256),
        ]
    );
    assert!((pages / 2..pages / 2 + 30).contains(&bounds[4].2), "{}", bounds[4].2);
}

#[test]
fn other_tools_do_what_their_names_say() {
    let blocks = SIZE as u64 / SMALL;
    let count = |number: usize, tool| {
        let run = measured(&SERIAL, &cases(SIZE)[number], tool);
        assert_eq!(run.broken_promise(), None);
        (run.count.erases, run.count.sent, run.count.read)
    };
    let size = SIZE as u64;
    assert_eq!(count(1, Tool::Plain), (blocks, size, size));
    assert_eq!(count(1, Tool::Blockwise), (0, 0, size));
    assert_eq!(count(0, Tool::Blockwise), (blocks, size, 2 * size));
    let changed = blocks.div_ceil(10);
    assert_eq!(count(5, Tool::Blockwise), (changed, changed * SMALL, size + changed * SMALL));
}
