//! A simulated chip with everything around it that a run needs.

#![allow(dead_code, reason = "each test file uses its share of these")]

pub(crate) mod system;

use flasher::device::{Geometry, Kind, Mtd, Region};
use flasher::event::Progress;
use flasher::guard::Facts;
use flasher::guard::facts::MtdFacts;
use flasher::hold::{Hold, NoHold};
use flasher::options::Options;
use flasher::pipeline::{self, Failure, Job, Report};
use flasher::record::RecordDir;
pub(crate) use flasher::sim::cases::noise;
use flasher::sim::{HalfErase, Nand, Nor};
use flasher::source::feed::Plain;
use flasher::source::{Bytes, Source};
use flasher::target::Target;

/// Erase blocks of the simulated chips, small so that sweeps are quick.
pub(crate) const BLOCK: u64 = 256;

/// A chip of `blocks` erase blocks.
pub(crate) fn uniform(kind: Kind, blocks: u64) -> Geometry {
    Geometry {
        kind,
        size: blocks * BLOCK,
        erase_size: BLOCK,
        write_size: 1,
        bit_writeable: true,
        writeable: true,
        regions: Vec::new(),
    }
}

/// A NAND chip of `blocks` erase blocks, of four pages each.
pub(crate) fn nand(blocks: u64) -> Geometry {
    Geometry { write_size: BLOCK / 4, bit_writeable: false, ..uniform(Kind::Nand, blocks) }
}

/// A chip of the same size with small blocks at its start.
pub(crate) fn boot_sectors(kind: Kind, blocks: u64) -> Geometry {
    let regions = vec![
        Region { offset: 0, erase_size: BLOCK / 4, blocks: 8 },
        Region { offset: 2 * BLOCK, erase_size: BLOCK, blocks: blocks - 2 },
    ];
    Geometry { regions, ..uniform(kind, blocks) }
}

pub(crate) fn target(size: u64) -> Target {
    Target { number: 5, name: "firmware".to_owned(), size, erase_size: BLOCK }
}

/// A system whose only flash is the target, which nobody uses.
pub(crate) fn facts(geometry: &Geometry) -> Facts {
    let mtd = MtdFacts {
        number: 5,
        name: "firmware".to_owned(),
        kind: "nor".to_owned(),
        size: geometry.size,
        erase_size: geometry.erase_size,
        writeable: geometry.writeable,
        spi_nor: geometry.kind == Kind::SpiNor,
        chip: Some("platform/0.flash".to_owned()),
        start: Some(0x10000),
    };
    Facts::new(vec![mtd], Vec::new())
}

/// One run over any chip, with everything that can be replaced.
pub(crate) struct Run<'a> {
    pub(crate) facts: Facts,
    pub(crate) options: Options,
    pub(crate) records: &'a RecordDir,
    pub(crate) hold: &'a mut dyn Hold,
    pub(crate) progress: &'a mut dyn Progress,
}

impl Run<'_> {
    pub(crate) fn go(self, chip: &mut dyn Mtd, source: &mut dyn Source) -> Result<Report, Failure> {
        let target = target(chip.geometry().size);
        let command = ["flashcp", "-v", "fw.bin", "mtd:firmware"].map(str::to_owned);
        let job = Job {
            target: &target,
            facts: &self.facts,
            options: &self.options,
            command: &command,
            records: self.records,
            hold: self.hold,
            progress: self.progress,
        };
        pipeline::run(chip, source, job)
    }
}

/// One run where nobody listens and nobody else uses flash.
pub(crate) fn flash(
    chip: &mut dyn Mtd,
    image: &[u8],
    options: &Options,
    records: &RecordDir,
) -> Result<Report, Failure> {
    let run = Run {
        facts: facts(chip.geometry()),
        options: options.clone(),
        records,
        hold: &mut NoHold,
        progress: &mut flasher::event::Silent,
    };
    let mut source = Bytes::new("fw.bin", image.to_vec()).expect("an image has bytes");
    run.go(chip, &mut source)
}

/// Erase blocks of the chip that most tests use, its size, and one block's, in bytes.
pub(crate) const BLOCKS: u64 = 8;
pub(crate) const SIZE: usize = 2048;
pub(crate) const ONE: usize = 256;

pub(crate) struct Bench {
    _dir: tempfile::TempDir,
    pub(crate) records: RecordDir,
}

pub(crate) fn bench() -> Bench {
    // In memory where there is such a place: records are written to the end of their disk, thousands of times.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let records = RecordDir::new(&dir.path().join("levitate"));
    Bench { _dir: dir, records }
}

pub(crate) fn serial() -> Nor {
    Nor::new(uniform(Kind::SpiNor, BLOCKS), noise(1, SIZE))
}

/// The bytes as gzip makes them.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// A simulated chip of either kind.
pub(crate) trait Chip: Mtd + Clone {
    fn make(geometry: &Geometry, bytes: &[u8]) -> Self;
    /// What a reader finds in the good blocks.
    fn holds(&self) -> Vec<u8>;
    fn changes(&self) -> u64;
    fn cut(&mut self, at: u64, sixteenths: u64, half: HalfErase);
    fn power_on(&mut self);
    fn grow_old(&mut self);
}

macro_rules! chip {
    ($chip:ty, $holds:expr) => {
        impl Chip for $chip {
            fn make(geometry: &Geometry, bytes: &[u8]) -> Self {
                Self::new(geometry.clone(), bytes.to_vec())
            }
            fn holds(&self) -> Vec<u8> {
                $holds(self)
            }
            fn changes(&self) -> u64 {
                self.calls()
            }
            fn cut(&mut self, at: u64, sixteenths: u64, half: HalfErase) {
                self.cut_power(at, sixteenths, half);
            }
            fn power_on(&mut self) {
                self.power_cycle();
            }
            fn grow_old(&mut self) {
                self.age();
            }
        }
    };
}

chip!(Nor, |chip: &Nor| chip.bytes().to_vec());
chip!(Nand, Nand::good_bytes);

/// How the image comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It can be read as often as needed.
    File,
    /// It can be read once, and its size is known.
    Stream,
}

/// One run of either way where nobody listens and nobody else uses flash.
pub(crate) fn flash_by(
    way: Way,
    chip: &mut dyn Mtd,
    image: &[u8],
    options: &Options,
    records: &RecordDir,
) -> Result<Report, Failure> {
    if way == Way::File {
        return flash(chip, image, options, records);
    }
    let target = target(chip.geometry().size);
    let job = Job {
        target: &target,
        facts: &facts(chip.geometry()),
        options: &Options { size: Some(image.len() as u64), ..options.clone() },
        command: &["flashcp", "-", "mtd:firmware"].map(str::to_owned),
        records,
        hold: &mut NoHold,
        progress: &mut flasher::event::Silent,
    };
    flasher::stream::run(chip, &mut Plain::new("standard input", image), job)
}
