//! Power is cut at every operation of an upgrade, and inside it, on every geometry.

mod common;

use common::{BLOCK, boot_sectors, flash, noise, uniform};
use flasher::device::{Geometry, Kind, MtdError};
use flasher::error::Error;
use flasher::options::{Extent, Options, Rest};
use flasher::record::{RecordDir, State};
use flasher::report::Flash;
use flasher::sim::{HalfErase, Nor};

const BLOCKS: u64 = 12;

/// What the flash holds before, and the image.
struct Case {
    name: &'static str,
    old: Vec<u8>,
    image: Vec<u8>,
    options: Options,
}

fn cases() -> Vec<Case> {
    let size = usize::try_from(BLOCKS * BLOCK).unwrap();
    let block = usize::try_from(BLOCK).unwrap();
    let old = noise(1, size);
    let case = |name, old: &[u8], image: &[u8]| Case {
        name,
        old: old.to_vec(),
        image: image.to_vec(),
        options: Options::default(),
    };
    let mut few = old[..size - block].to_vec();
    few[3 * block + 7] ^= 0xff;
    few[8 * block] ^= 0x18;
    let mut cleared = old[..size - block].to_vec();
    for at in [0, 40, 3 * block, 3 * block + 100, 9 * block] {
        cleared[at] &= 0x33;
    }
    let mut head_only = old[..size - block].to_vec();
    head_only[5] ^= 0xff;
    let mut padded = noise(2, size - block);
    padded[2 * block..7 * block].fill(0xff);
    let mut lone = vec![0xff; size];
    lone[..block].copy_from_slice(&old[..block]);
    let mut pair = lone.clone();
    pair[4 * block..5 * block].copy_from_slice(&old[..block]);
    let odd = noise(3, 5 * block + 13);
    vec![
        case("all different", &old, &noise(2, size - block)),
        case("few blocks changed", &old, &few),
        case("only bits to clear", &old, &cleared),
        case("only the head changed", &old, &head_only),
        case("blank chip", &vec![0xff; size], &noise(2, size - block)),
        case("half padding", &old, &padded),
        case("odd length", &old, &odd),
        case("one block", &old, &noise(4, block - 40)),
        case("old image in one block", &lone, &odd),
        case("old image in two blocks", &pair, &odd),
        Case {
            options: Options { rest: Rest::Erase, ..Options::default() },
            ..case("erase all", &old, &odd)
        },
        Case { options: Options { extent: Extent::Full, ..Options::default() }, ..case("full", &old, &few) },
    ]
}

fn geometries() -> Vec<Geometry> {
    vec![
        uniform(Kind::SpiNor, BLOCKS),
        uniform(Kind::ParallelNor, BLOCKS),
        boot_sectors(Kind::SpiNor, BLOCKS),
        boot_sectors(Kind::ParallelNor, BLOCKS),
        // Nothing can be cleared in place, the head is erased first.
        Geometry { write_size: 32, bit_writeable: false, ..uniform(Kind::Other, BLOCKS) },
    ]
}

struct Sweep {
    records: RecordDir,
    tried: u64,
    recovered: u64,
}

impl Sweep {
    fn case(&mut self, geometry: &Geometry, case: &Case, head_size: Option<u64>) {
        let options = Options { head_size, ..case.options.clone() };
        let mut clean = Nor::new(geometry.clone(), case.old.clone());
        flash(&mut clean, &case.image, &options, &self.records).unwrap();
        let calls = clean.calls();
        for at in 0..calls {
            for sixteenths in [0, 3, 7, 11, 16] {
                for half in HalfErase::ALL {
                    let was_erase = self.cut(geometry, case, &options, clean.bytes(), (at, sixteenths, half));
                    // The kinds differ for erases alone.
                    if !was_erase {
                        break;
                    }
                }
            }
        }
    }

    /// One cut, what it leaves, and the run after it. Whether an erase was cut.
    fn cut(
        &mut self,
        geometry: &Geometry,
        case: &Case,
        options: &Options,
        new: &[u8],
        place: (u64, u64, HalfErase),
    ) -> bool {
        let what = || format!("{} on {geometry:?}, {options:?}, cut {place:?}", case.name);
        self.tried += 1;
        let mut chip = Nor::new(geometry.clone(), case.old.clone());
        chip.cut_power(place.0, place.1, place.2);
        let failure = flash(&mut chip, &case.image, options, &self.records).unwrap_err();
        assert_eq!(failure.flash, Flash::Unverified, "{}", what());
        assert_eq!(self.records.read().unwrap().state, State::Unverified, "{}", what());

        let first = geometry.block_at(0).len;
        let head = usize::try_from(
            options.head_size.map_or(first, |size| size.next_multiple_of(geometry.granule())),
        )
        .unwrap();
        let found = chip.bytes();
        let is_whole = found == case.old || found == new;
        // A blank head is no image's, even where the old one was blank too.
        let is_old = found[..head] == case.old[..head] && case.old[..head].iter().any(|byte| *byte != 0xff);
        let is_neither = !is_old && found[..head] != new[..head];
        assert!(is_whole || is_neither, "a head stands over a body that is not its own: {}", what());
        let end = match options.rest {
            Rest::Leave => usize::try_from(geometry.round_up(case.image.len() as u64)).unwrap(),
            Rest::Erase => found.len(),
        };
        assert_eq!(found[end..], case.old[end..], "bytes outside changed: {}", what());

        chip.power_cycle();
        let report = flash(&mut chip, &case.image, options, &self.records);
        assert!(report.is_ok(), "{:?}: {}", report, what());
        chip.age();
        assert!(chip.bytes() == new, "the second run left something else: {}", what());
        assert_eq!(self.records.read().unwrap().state, State::Verified, "{}", what());
        self.recovered += 1;
        matches!(failure.error, Error::Chip(MtdError::Erase { .. }))
    }
}

#[test]
fn after_a_cut_at_any_operation_a_second_run_verifies() {
    // In memory where there is such a place: the records are written tens of thousands of times.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let sweeps: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = geometries()
            .into_iter()
            .enumerate()
            .map(|(number, geometry)| {
                let records = RecordDir::new(&dir.path().join(number.to_string()));
                scope.spawn(move || {
                    let mut sweep = Sweep { records, tried: 0, recovered: 0 };
                    // A chip that fills blocks with zeros from their end before it erases can keep a head smaller than
                    // its block whole; only zeroing it first prevents that.
                    let small = geometry.clears_bits().then_some(Some(40));
                    for case in cases() {
                        for head_size in [Some(None), small, Some(Some(2 * BLOCK + 20))].into_iter().flatten()
                        {
                            sweep.case(&geometry, &case, head_size);
                        }
                    }
                    (sweep.tried, sweep.recovered)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (tried, recovered) = sweeps.iter().fold((0, 0), |sum, sweep| (sum.0 + sweep.0, sum.1 + sweep.1));
    println!("cut points: {tried} tried, {recovered} recovered");
    assert!(tried > 10_000, "{tried} cut points are too few to be a sweep");
    assert_eq!(tried, recovered);
}
