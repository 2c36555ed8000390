//! `cargo bench-flash`: what upgrades cost on emulated chips, side by side in one guest with Debian's flashcp.
//!
//! Operations are QEMU's own trace events, so it is the chip that counts. Seconds are the guest's; under emulation they
//! repeat badly, and differences below threefold say nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flasher::sim::cases::{Bound, Case, Clearing, bound, cases};
use serde::Serialize;

use crate::assets::Assets;
use crate::boards::ast2600;
use crate::check::check;
use crate::chip_log::Counter;
use crate::firmware::Firmware;
use crate::firmware::ast2600::Rescue;
use crate::line;
use crate::machine::{Device, Machine};
use crate::nor_image::{self, FIRMWARE, Partition};
use crate::suite::Failure;

/// Debian's flashcp, on the device.
const PEER: &str = "/tmp/peer";
/// The image, on the device.
const IMAGE: &str = "/tmp/image.bin";
/// Bytes of a program page. A parallel chip's write buffer is larger: this is the stricter measure.
const PAGE: u64 = 256;

/// A board, and what is written on it.
#[derive(Debug, Clone, Copy)]
struct Board {
    name: &'static str,
    /// Bytes of the image. The trace of an SPI-NOR has a line for each byte.
    size: usize,
    erase_size: u64,
    clearing: Clearing,
    partition: Partition,
    /// N of /dev/mtdN.
    number: usize,
}

impl Board {
    fn virt() -> Self {
        Self {
            name: "virt",
            size: 8 << 20,
            erase_size: nor_image::ERASE_BLOCK,
            clearing: Clearing::Forbidden,
            partition: FIRMWARE,
            number: nor_image::mtd_number(&FIRMWARE),
        }
    }

    fn ast2600() -> Self {
        Self {
            name: "ast2600-evb",
            size: 1 << 20,
            erase_size: ast2600::ERASE_BLOCK,
            clearing: Clearing::Allowed,
            partition: ast2600::KERNEL,
            number: 2,
        }
    }

    fn bound(&self, case: &Case) -> Bound {
        let [block, page] = [self.erase_size, PAGE].map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        bound(block, page, self.clearing, &case.old, &case.image)
    }

    /// Its heading in the table.
    fn heading(&self) -> String {
        format!(
            "{:<22}{:<10}{:>8}{:>8}{:>12}{:>12}{:>12}{:>9}",
            self.name, "tool", "erases", "bound", "programmed", "bound", "read", "seconds"
        )
    }
}

/// Who brings the image onto the flash, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Tool {
    /// Our flashcp, `--head=keep`.
    Ours,
    /// Our flashcp.
    OursSafe,
    /// Debian's flashcp.
    Plain,
    /// Debian's flashcp, `-p`.
    Blockwise,
}

impl Tool {
    const ALL: [Self; 4] = [Self::Ours, Self::OursSafe, Self::Plain, Self::Blockwise];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursSafe => "ours-safe",
            Self::Plain => "plain",
            Self::Blockwise => "blockwise",
        }
    }

    fn command(self, target: &str) -> String {
        match self {
            Self::Ours => format!("flashcp --head=keep {IMAGE} {target}"),
            Self::OursSafe => format!("flashcp {IMAGE} {target}"),
            Self::Plain => format!("{PEER} {IMAGE} {target}"),
            Self::Blockwise => format!("{PEER} -p {IMAGE} {target}"),
        }
    }

    /// Erases and blocks of programmed bytes beyond the bound that are no broken promise; none for a peer.
    fn slack(self) -> Option<u64> {
        match self {
            Self::Ours => Some(0),
            Self::OursSafe => Some(1),
            Self::Plain | Self::Blockwise => None,
        }
    }
}

/// One run; `--json` prints exactly this.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    board: &'static str,
    case: &'static str,
    tool: Tool,
    /// Blocks that the chip erased.
    erases: u64,
    /// Bytes that the chip programmed.
    programmed: u64,
    /// Bytes that the process read, from flash and from the image, as the kernel counts them; none where it does not.
    read: Option<u64>,
    /// Seconds in the guest.
    seconds: f64,
    bound_erases: u64,
    /// Whole pages of 256 bytes.
    bound_programmed: u64,
    /// Why the image is not on the flash afterwards.
    error: Option<String>,
}

/// What is shown while it runs.
pub(crate) enum Shown<'a> {
    /// Another board begins: the heading of its table.
    Board(String),
    /// A run is over.
    Line(&'a Line),
}

/// Runs every case with every tool on both boards; `shown` gets each line as it comes.
pub(crate) fn run(assets: &mut Assets, mut shown: impl FnMut(Shown<'_>)) -> Result<(), Failure> {
    assets.with_armhf().map_err(|error| Failure::harness(error.to_string()))?;
    let mut broken = Vec::new();
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    nor_image::create(&device.nor(), &[])?;
    let machine = device.power_on(&firmware.rescue_boot())?;
    let peer = assets.guest_root.join("usr/sbin/flashcp");
    broken.extend(Bench { board: Board::virt(), device, machine }.run(&peer, &mut shown)?);

    let rescue = Rescue::build(assets)?;
    let blank = vec![0xff; usize::try_from(ast2600::CHIP).map_err(Failure::harness)?];
    let device = rescue.device(assets, &blank)?;
    let machine = device.power_on(&rescue.boot)?;
    let root: Option<PathBuf> = assets.armhf.as_ref().map(|armhf| armhf.guest_root.clone());
    let peer = root.unwrap_or_default().join("usr/sbin/flashcp");
    broken.extend(Bench { board: Board::ast2600(), device, machine }.run(&peer, &mut shown)?);
    check!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

impl Line {
    /// A line of the table.
    pub(crate) fn text(&self) -> String {
        let error = self.error.as_ref().map(|error| format!("  {error}")).unwrap_or_default();
        let read = self.read.map_or("-".to_owned(), |read| read.to_string());
        format!(
            "{:<22}{:<10}{:>8}{:>8}{:>12}{:>12}{read:>12}{:>9.2}{error}",
            self.case,
            self.tool.name(),
            self.erases,
            self.bound_erases,
            self.programmed,
            self.bound_programmed,
            self.seconds
        )
    }
}

/// What stands below the tables.
pub(crate) const NOTES: &str = "\
virt: an image of 8 MiB on a CFI NOR with erase blocks of 256 KiB. ast2600-evb: 1 MiB on an SPI-NOR, 4 KiB.
erases, programmed (bytes): as QEMU's chip saw them. read (bytes): by the process, from flash and image together.
ours: --head=keep. ours-safe: the default. plain, blockwise: Debian's mtd-utils flashcp without and with -p.
The contents of the chip are compared with the image after each run. Seconds are the guest's: the processor and the
chip are emulated, and differences below threefold say nothing.";

/// Our runs are held to the bound, and to reading flash twice and the image four times.
fn broken_promise(board: &Board, line: &Line) -> Option<String> {
    let slack = line.tool.slack()?;
    let image = (board.size as u64).next_multiple_of(board.erase_size);
    let kept = line.error.is_none()
        && line.erases <= line.bound_erases + slack
        && line.programmed <= line.bound_programmed + slack * board.erase_size
        && line.read.is_none_or(|read| read <= 6 * image + 2 * board.erase_size);
    (!kept).then(|| format!("a promise was not kept on {}: {}", board.name, line.text()))
}

/// A board that is on.
struct Bench {
    board: Board,
    device: Device,
    machine: Machine,
}

impl Bench {
    /// Every case with every tool; the promises that were not kept.
    fn run(mut self, peer: &Path, shown: &mut impl FnMut(Shown<'_>)) -> Result<Vec<String>, Failure> {
        self.machine.ssh.wait_for_login(line::BOOT)?;
        self.machine.ssh.put(peer, PEER)?;
        self.machine.ssh.succeed(&format!("chmod +x {PEER}"))?;
        shown(Shown::Board(self.board.heading()));
        let mut broken = Vec::new();
        for mut case in cases(self.board.size) {
            case.old.truncate(self.board.size);
            let bound = self.board.bound(&case);
            for tool in Tool::ALL {
                let line = self
                    .measure(&case, tool, bound)
                    .map_err(|f| f.context(format!("{}, {}", case.name, tool.name())))?;
                shown(Shown::Line(&line));
                broken.extend(broken_promise(&self.board, &line));
            }
        }
        Ok(broken)
    }

    fn measure(&mut self, case: &Case, tool: Tool, bound: Bound) -> Result<Line, Failure> {
        let target = format!("/dev/mtd{}", self.board.number);
        self.restore(&case.old, &target)?;
        self.send(&case.image)?;
        let before = std::fs::read(self.device.nor()).map_err(Failure::harness)?;

        let counter = Counter::start(&mut self.machine, &self.device.file("trace"))?;
        // What a child has read is added to its parent's when that has waited for it.
        let command = format!(
            "io() {{ while read k v; do [ $k = rchar: ] && r=$v; done < /proc/$$/io; }}; r=-; io 2>/dev/null; q=$r\n\
             read a _ < /proc/uptime; {} >/tmp/said 2>&1; code=$?; read b _ < /proc/uptime; io 2>/dev/null\n\
             [ $r = - ] && n=-1 || n=$((r - q)); echo $a $b $code $n; cat /tmp/said",
            tool.command(&target)
        );
        let done = self.machine.ssh.run_for(&command, line::FLASH);
        let count = counter.stop(&mut self.machine)?;
        let said = done?.stdout;
        let (numbers, said) = said.split_once('\n').unwrap_or((&said, ""));
        // The last one is -1 where the kernel does not count.
        let read = numbers.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok());
        let numbers: Vec<f64> = numbers.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [begun, ended, code, _] = numbers[..] else {
            return Err(Failure::harness(format!("the device said {numbers:?}: {said}")));
        };
        let error = match code {
            0.0 => self.wrong(&before, case)?,
            code => Some(format!("exit {code}: {}", printable(said))),
        };
        Ok(Line {
            board: self.board.name,
            case: case.name,
            tool,
            erases: count.erases,
            programmed: count.programmed,
            read,
            seconds: ((ended - begun) * 100.0).round() / 100.0,
            bound_erases: bound.erases,
            bound_programmed: bound.pages * PAGE,
            error,
        })
    }

    /// Holds the chip's contents to the image, and everything outside its blocks to what was there.
    fn wrong(&self, before: &[u8], case: &Case) -> Result<Option<String>, Failure> {
        let start = usize::try_from(self.board.partition.offset).map_err(Failure::harness)?;
        let block = usize::try_from(self.board.erase_size).map_err(Failure::harness)?;
        let image = start..start + case.image.len();
        let end = start + case.image.len().next_multiple_of(block);
        self.settled(|chip| {
            if let Some(at) = chip[image.clone()].iter().zip(&case.image).position(|(a, b)| a != b) {
                return Some(format!("the chip does not hold the image, first at {at:#x}"));
            }
            let same = chip[..start] == before[..start] && chip[end..] == before[end..];
            (!same).then(|| "bytes outside of the image's blocks were changed".to_owned())
        })
    }

    /// What is wrong with the chip's file. An SPI-NOR's is written a little later than the chip is done.
    fn settled(&self, wrong: impl Fn(&[u8]) -> Option<String>) -> Result<Option<String>, Failure> {
        let begun = Instant::now();
        loop {
            let wrong = wrong(&std::fs::read(self.device.nor()).map_err(Failure::harness)?);
            if wrong.is_none() || begun.elapsed() > Duration::from_secs(20) {
                return Ok(wrong);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Brings the flash into the state that the case starts from, and proves it from outside.
    fn restore(&self, old: &[u8], target: &str) -> Result<(), Failure> {
        let command = if old.iter().all(|byte| *byte == 0xff) {
            format!("flash_erase -q {target} 0 0")
        } else {
            self.send(old)?;
            format!("flashcp --head=keep --any-content {IMAGE} {target}")
        };
        self.machine.ssh.succeed_for(&command, line::FLASH)?;
        let start = usize::try_from(self.board.partition.offset).map_err(Failure::harness)?;
        let wrong = self.settled(|chip| {
            (!chip[start..].starts_with(old)).then(|| "the flash is not what the case starts from".to_owned())
        })?;
        check!(wrong.is_none(), "{}", wrong.unwrap_or_default());
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        let file = self.device.file("image.bin");
        std::fs::write(&file, bytes).map_err(|e| Failure::file("write", &file, e))?;
        self.machine.ssh.put(&file, IMAGE)
    }
}

/// The start of what a program said: one that reads past its buffer may say anything.
fn printable(said: &str) -> String {
    let plain = |c: &char| c.is_ascii_graphic() || *c == ' ';
    said.trim().chars().take_while(plain).take(72).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(tool: Tool, erases: u64, programmed: u64, error: Option<&str>) -> Line {
        Line {
            board: "virt",
            case: "same",
            tool,
            erases,
            programmed,
            read: Some(5 << 20),
            seconds: 0.5,
            bound_erases: 3,
            bound_programmed: 1000,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn ours_is_held_to_the_bound_and_a_peer_to_nothing() {
        let board = Board::virt();
        let broken = |line: &Line| broken_promise(&board, line).is_some();
        assert!(!broken(&line(Tool::Ours, 3, 1000, None)));
        assert!(broken(&line(Tool::Ours, 4, 1000, None)));
        assert!(broken(&line(Tool::Ours, 3, 1001, None)));
        assert!(broken(&line(Tool::Ours, 3, 1000, Some("exit 1"))));
        assert!(broken(&Line { read: Some(50 << 20), ..line(Tool::Ours, 3, 1000, None) }));
        assert!(!broken(&line(Tool::OursSafe, 4, 1000 + board.erase_size, None)));
        assert!(broken(&line(Tool::OursSafe, 5, 1000, None)));
        assert!(!broken(&line(Tool::Plain, 99, 99_999, Some("exit 1"))));
    }

    #[test]
    fn a_line_as_json_has_the_keys_that_scripts_know() {
        let json = serde_json::to_value(line(Tool::OursSafe, 3, 1000, None)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "board": "virt", "case": "same", "tool": "ours-safe", "erases": 3, "programmed": 1000,
                "read": 5 << 20, "seconds": 0.5, "bound_erases": 3, "bound_programmed": 1000, "error": null
            })
        );
    }

    /// What a board's bound says of each case, by hand.
    #[test]
    fn the_bound_is_that_of_each_case_and_board() {
        let bounds = |board: Board| {
            let bound = |mut case: Case| {
                case.old.truncate(1 << 20);
                let bound = board.bound(&case);
                (bound.erases, bound.pages * PAGE)
            };
            cases(1 << 20).into_iter().map(bound).collect::<Vec<_>>()
        };
        let (all, virt) = (1 << 20, bounds(Board::virt()));
        assert_eq!(virt[..4], [(4, all), (0, 0), (1, 256 << 10), (0, all)]);
        // Bits may not be cleared in place there.
        assert_eq!(virt[5..], [(4, all), (4, all - 19 * 256)]);
        let spi = bounds(Board::ast2600());
        assert_eq!(spi[..4], [(256, all), (0, 0), (16, 64 << 10), (0, all)]);
        assert_eq!((spi[5].0, spi[6]), (0, (255, all - 19 * 256)));
    }
}
