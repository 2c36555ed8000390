//! Power is cut at every operation of an upgrade, and inside it, on every geometry.

mod common;

use std::io::Write;
use std::path::Path;

use common::{BLOCK, Chip, Way, boot_sectors, flash_by, nand, noise, uniform};
use flasher::device::{Geometry, Kind, MtdError, Region};
use flasher::error::Error;
use flasher::options::{BadBlocks, Extent, Options, Rest};
use flasher::record::{RecordDir, State};
use flasher::report::Flash;
use flasher::sim::{Fault, Faulty, HalfErase, Nand, Nor};
use flasher::skip::SkipMap;

/// Said even where the test harness keeps a passing test's output to itself.
macro_rules! say {
    ($($text:tt)*) => {{
        let mut out = std::io::stdout();
        writeln!(out, $($text)*).unwrap();
    }};
}

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
    let dual_boot = |kind| Geometry {
        regions: vec![
            Region { offset: 0, erase_size: BLOCK / 4, blocks: 4 },
            Region { offset: BLOCK, erase_size: BLOCK, blocks: BLOCKS - 3 },
            Region { offset: (BLOCKS - 2) * BLOCK, erase_size: BLOCK / 2, blocks: 4 },
        ],
        ..uniform(kind, BLOCKS)
    };
    vec![
        uniform(Kind::SpiNor, BLOCKS),
        uniform(Kind::ParallelNor, BLOCKS),
        boot_sectors(Kind::SpiNor, BLOCKS),
        boot_sectors(Kind::ParallelNor, BLOCKS),
        dual_boot(Kind::SpiNor),
        dual_boot(Kind::ParallelNor),
        // Nothing can be cleared in place, the head is erased first.
        Geometry { write_size: 32, bit_writeable: false, ..uniform(Kind::Other, BLOCKS) },
    ]
}

/// A chip or a driver that lies: without an error, and not about the cut.
fn lies() -> [(&'static str, Fault); 2] {
    [
        ("protected from the middle on, in silence", Fault::ProtectedFrom(6 * BLOCK)),
        // As it happens at 16 MiB where a driver sends three address bytes.
        ("wraps its addresses", Fault::AddressWraps(11)),
    ]
}

struct Sweep {
    records: RecordDir,
    way: Way,
    tried: u64,
    recovered: u64,
}

/// Where the power goes.
type Place = (u64, u64, HalfErase);

/// A case on a chip.
struct Setting<'a, C> {
    geometry: &'a Geometry,
    case: &'a Case,
    options: Options,
    /// The chip before the run.
    chip: C,
    /// What its good blocks hold before, and after a run that ended well.
    old: Vec<u8>,
    new: Vec<u8>,
    fault: Option<Fault>,
}

impl<C: Chip> Setting<'_, C> {
    fn faulty(&self, chip: C) -> Faulty<C> {
        Faulty::with_all(chip, self.fault.into_iter().collect())
    }

    /// How many bytes tell whose head it is.
    fn head(&self) -> usize {
        let first = self.geometry.block_at(0).len;
        let size =
            self.options.head_size.map_or(first, |size| size.next_multiple_of(self.geometry.granule()));
        let size = if self.geometry.kind == Kind::Nand { self.geometry.round_up(size) } else { size };
        usize::try_from(size).unwrap()
    }

    /// What must hold of the flash after a cut.
    fn check(&self, found: &[u8], what: &str) {
        let head = self.head();
        let is_whole = found == self.old || found == self.new;
        // A blank head is no image's, even where the old one was blank too.
        let is_old = found[..head] == self.old[..head] && self.old[..head].iter().any(|byte| *byte != 0xff);
        let is_neither = !is_old && found[..head] != self.new[..head];
        assert!(is_whole || is_neither, "a head stands over a body that is not its own: {what}");
        let end = match self.options.rest {
            Rest::Leave => usize::try_from(self.geometry.round_up(self.case.image.len() as u64)).unwrap(),
            Rest::Erase => found.len(),
        };
        assert_eq!(found[end..], self.old[end..], "bytes outside changed: {what}");
    }
}

impl Sweep {
    fn new(dir: &Path, name: &str, way: Way) -> Self {
        Self { records: RecordDir::new(&dir.join(name)), way, tried: 0, recovered: 0 }
    }

    fn case<C: Chip>(&mut self, chip: C, case: &Case, head_size: Option<u64>, fault: Option<Fault>) {
        let options = Options { head_size, bad_blocks: BadBlocks::Skip, ..case.options.clone() };
        let geometry = chip.geometry().clone();
        let mut clean = chip.clone();
        flash_by(self.way, &mut clean, &case.image, &options, &self.records).unwrap();
        let (old, new) = (chip.holds(), clean.holds());
        let setting = Setting { geometry: &geometry, case, options, chip, old, new, fault };
        let mut clean = setting.faulty(setting.chip.clone());
        // A chip that lies does not end verified, but it has operations all the same.
        let _ = flash_by(self.way, &mut clean, &case.image, &setting.options, &self.records);
        let calls = clean.inner().changes();
        for at in 0..calls {
            for sixteenths in [0, 3, 7, 11, 16] {
                // The very last page of NAND: programmed, and not for long, it cannot be told from a good one.
                if geometry.kind == Kind::Nand && at + 1 == calls && sixteenths == 11 {
                    continue;
                }
                for half in HalfErase::ALL {
                    // The zeros over the head that tell a later run of the cut lie where its addresses wrap to.
                    let weak = matches!(half, HalfErase::PartErased | HalfErase::Weak);
                    if matches!(fault, Some(Fault::AddressWraps(_))) && weak {
                        continue;
                    }
                    // The kinds differ for erases alone.
                    if !self.cut(&setting, (at, sixteenths, half)) {
                        break;
                    }
                }
            }
        }
    }

    /// One cut, what it leaves, and the run after it. Whether an erase was cut.
    fn cut<C: Chip>(&mut self, setting: &Setting<'_, C>, place: Place) -> bool {
        let Setting { geometry, case, options, fault, .. } = setting;
        let what = || format!("{} on {geometry:?}, {options:?}, {fault:?}, cut {place:?}", case.name);
        self.tried += 1;
        let mut chip = setting.chip.clone();
        chip.cut(place.0, place.1, place.2);
        let mut chip = setting.faulty(chip);
        let failure = flash_by(self.way, &mut chip, &case.image, options, &self.records).unwrap_err();
        assert_eq!(failure.flash, Flash::Unverified, "{}", what());
        assert_eq!(self.records.read().unwrap().state, State::Unverified, "{}", what());
        let mut chip = chip.into_inner();
        chip.power_on();
        setting.check(&chip.holds(), &what());

        if fault.is_some() {
            // As long as it lies it is never called verified.
            let mut chip = setting.faulty(chip.clone());
            if flash_by(self.way, &mut chip, &case.image, options, &self.records).is_ok() {
                assert!(chip.inner().holds() == setting.new, "verified, and not the image: {}", what());
            }
        }
        let report = flash_by(self.way, &mut chip, &case.image, options, &self.records);
        assert!(report.is_ok(), "{:?}: {}", report, what());
        chip.grow_old();
        assert!(chip.holds() == setting.new, "the second run left something else: {}", what());
        assert_eq!(self.records.read().unwrap().state, State::Verified, "{}", what());
        self.recovered += 1;
        matches!(failure.error, Error::Chip(MtdError::Erase { .. }))
    }
}

fn nor_sweep(mut sweep: Sweep, geometry: &Geometry) -> Sweep {
    // A chip that fills blocks with zeros from their end before it erases can keep a head smaller than its block
    // whole; only zeroing it first prevents that.
    let small = geometry.clears_bits().then_some(Some(40));
    for case in cases() {
        for head_size in [Some(None), small, Some(Some(2 * BLOCK + 20))].into_iter().flatten() {
            sweep.case(Nor::new(geometry.clone(), case.old.clone()), &case, head_size, None);
        }
    }
    sweep
}

fn nand_sweep(mut sweep: Sweep) -> Sweep {
    // Two blocks more, which are bad.
    let geometry = nand(BLOCKS + 2);
    for case in cases() {
        let old = [&case.old[..], &noise(5, 2 * usize::try_from(BLOCK).unwrap())].concat();
        // The old bytes as they lie around the bad blocks.
        let map = SkipMap::new(BLOCK, vec![1, 4]);
        let mut bytes = old.clone();
        for at in (0..case.old.len()).step_by(usize::try_from(BLOCK).unwrap()) {
            let place = usize::try_from(map.place(at as u64)).unwrap();
            let block = usize::try_from(BLOCK).unwrap();
            bytes[place..place + block].copy_from_slice(&case.old[at..at + block]);
        }
        for head_size in [None, Some(40), Some(2 * BLOCK + 20)] {
            let chip = Nand::new(geometry.clone(), bytes.clone()).with_bad(BLOCK).with_bad(4 * BLOCK);
            sweep.case(chip, &case, head_size, None);
        }
    }
    sweep
}

fn lying_sweep(mut sweep: Sweep, kind: Kind, fault: Fault) -> Sweep {
    let geometry = uniform(kind, BLOCKS);
    for case in cases() {
        sweep.case(Nor::new(geometry.clone(), case.old.clone()), &case, None, Some(fault));
    }
    sweep
}

#[test]
fn after_a_cut_at_any_operation_a_second_run_verifies() {
    // In memory where there is such a place: the records are written tens of thousands of times.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let dir = dir.path();
    let sweeps: Vec<(String, Sweep)> = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, geometry) in geometries().into_iter().enumerate() {
            let name = format!("{:?}, {} regions", geometry.kind, geometry.regions.len());
            let sweep = Sweep::new(dir, &number.to_string(), Way::File);
            threads.push((name, scope.spawn(move || nor_sweep(sweep, &geometry))));
        }
        for way in [Way::File, Way::Stream] {
            let sweep = Sweep::new(dir, &format!("nand {way:?}"), way);
            let name = format!("Nand, two bad blocks, {way:?}");
            threads.push((name, scope.spawn(move || nand_sweep(sweep))));
        }
        let sweep = Sweep::new(dir, "streamed", Way::Stream);
        let geometry = geometries().remove(4);
        let name = "SpiNor, 3 regions, Stream".to_owned();
        threads.push((name, scope.spawn(move || nor_sweep(sweep, &geometry))));
        for (name, fault) in lies() {
            for kind in [Kind::SpiNor, Kind::ParallelNor] {
                for way in [Way::File, Way::Stream] {
                    let sweep = Sweep::new(dir, &format!("{name}{kind:?}{way:?}"), way);
                    let name = format!("{kind:?} that {name}, {way:?}");
                    threads.push((name, scope.spawn(move || lying_sweep(sweep, kind, fault))));
                }
            }
        }
        threads.into_iter().map(|(name, thread)| (name, thread.join().unwrap())).collect()
    });
    let (mut tried, mut recovered) = (0, 0);
    for (name, sweep) in sweeps {
        say!("{name}: {} tried, {} recovered", sweep.tried, sweep.recovered);
        assert!(sweep.tried > 1000, "{} cut points are too few to be a sweep", sweep.tried);
        tried += sweep.tried;
        recovered += sweep.recovered;
    }
    say!("cut points: {tried} tried, {recovered} recovered");
    assert_eq!(tried, recovered);
}
