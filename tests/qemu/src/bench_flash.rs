//! `cargo bench-flash`: what upgrades cost on an emulated chip, side by side in one guest with Debian's flashcp.
//!
//! Operations are QEMU's own trace events, so it is the chip that counts. Seconds are the guest's; under emulation they
//! repeat badly, and differences below threefold say nothing.

mod cases;
mod count;

use std::path::Path;

use serde::Serialize;

use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::{Device, Machine};
use crate::nor_image::{self, ERASE_BLOCK, FIRMWARE, Snapshot};
use crate::suite::Failure;

use cases::{Bound, Case};
use count::Counter;

/// Bytes of the image.
const SIZE: usize = 8 << 20;
/// The board's name.
const BOARD: &str = "virt";
/// Debian's flashcp, on the device.
const PEER: &str = "/tmp/peer";
/// The image, on the device.
const IMAGE: &str = "/tmp/image.bin";

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

    /// Erases and programmed bytes beyond the bound that are no broken promise; none for a peer.
    fn slack(self) -> Option<(u64, u64)> {
        match self {
            Self::Ours => Some((0, 0)),
            Self::OursSafe => Some((1, ERASE_BLOCK)),
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
    /// Bytes that the process read from flash; the board's kernel does not count them.
    read: Option<u64>,
    /// Seconds in the guest.
    seconds: f64,
    bound_erases: u64,
    /// Whole pages of 256 bytes.
    bound_programmed: u64,
    /// Why the image is not on the flash afterwards.
    error: Option<String>,
}

/// Runs every case with every tool; `shown` gets each line as it comes.
pub(crate) fn run(assets: &Assets, mut shown: impl FnMut(&Line)) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    nor_image::create(&device.nor(), &[])?;
    let mut machine = device.power_on(&firmware.rescue_boot())?;
    machine.ssh.wait_for_login(line::BOOT)?;
    machine.ssh.put(&assets.guest_root.join("usr/sbin/flashcp"), PEER)?;
    machine.ssh.succeed(&format!("chmod +x {PEER}"))?;
    let mut broken = Vec::new();
    for case in cases::all(SIZE) {
        let bound = cases::bound(&case);
        for tool in Tool::ALL {
            let line = measure(&device, &mut machine, &case, tool, bound)
                .map_err(|f| f.context(format!("{}, {}", case.name, tool.name())))?;
            shown(&line);
            broken.extend(broken_promise(&line));
        }
    }
    check!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

/// The heading of the table.
pub(crate) fn heading() -> String {
    format!(
        "{:<22}{:<10}{:>8}{:>8}{:>12}{:>12}{:>9}",
        BOARD, "tool", "erases", "bound", "programmed", "bound", "seconds"
    )
}

impl Line {
    /// A line of the table.
    pub(crate) fn text(&self) -> String {
        let error = self.error.as_ref().map(|error| format!("  {error}")).unwrap_or_default();
        format!(
            "{:<22}{:<10}{:>8}{:>8}{:>12}{:>12}{:>9.2}{error}",
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

/// What stands below the table.
pub(crate) const NOTES: &str = "\
An image of 8 MiB on a CFI NOR with erase blocks of 256 KiB. erases, programmed (bytes): as QEMU's chip saw them.
ours: --head=keep. ours-safe: the default. plain, blockwise: Debian's mtd-utils flashcp without and with -p.
The contents of the chip are compared with the image after each run. Seconds are the guest's: the processor and the
chip are emulated, and differences below threefold say nothing.";

fn broken_promise(line: &Line) -> Option<String> {
    let (erases, programmed) = line.tool.slack()?;
    let kept = line.error.is_none()
        && line.erases <= line.bound_erases + erases
        && line.programmed <= line.bound_programmed + programmed;
    (!kept).then(|| format!("a promise was not kept: {}", line.text()))
}

fn measure(
    device: &Device,
    machine: &mut Machine,
    case: &Case,
    tool: Tool,
    bound: Bound,
) -> Result<Line, Failure> {
    let target = format!("/dev/mtd{}", nor_image::mtd_number(&FIRMWARE));
    restore(device, machine, &case.old, &target)?;
    send(device, machine, &case.image)?;
    let before = Snapshot::take(&device.nor())?;

    let counter = Counter::start(machine, &device.file("trace"))?;
    let command = format!(
        "read a _ < /proc/uptime; {} >/tmp/said 2>&1; code=$?; read b _ < /proc/uptime; echo $a $b $code; cat /tmp/said",
        tool.command(&target)
    );
    let done = machine.ssh.run_for(&command, line::FLASH);
    let count = counter.stop(machine)?;
    let said = done?.stdout;
    let (numbers, said) = said.split_once('\n').unwrap_or((&said, ""));
    let numbers: Vec<f64> = numbers.split(' ').filter_map(|number| number.parse().ok()).collect();
    let [begun, ended, code] = numbers[..] else {
        return Err(Failure::harness(format!("the device said {numbers:?}: {said}")));
    };
    let after = Snapshot::take(&device.nor())?;
    let error = match code {
        0.0 => wrong(&before, &after, case).err(),
        code => Some(format!("exit {code}: {}", printable(said))),
    };
    Ok(Line {
        board: BOARD,
        case: case.name,
        tool,
        erases: count.erases,
        programmed: count.programmed,
        read: None,
        seconds: ((ended - begun) * 100.0).round() / 100.0,
        bound_erases: bound.erases,
        bound_programmed: bound.programmed,
        error,
    })
}

/// The start of what a program said: one that reads past its buffer may say anything.
fn printable(said: &str) -> String {
    let plain = |c: &char| c.is_ascii_graphic() || *c == ' ';
    said.trim().chars().take_while(plain).take(72).collect()
}

/// Holds the chip's contents to the image, and everything behind its last block to what was there.
fn wrong(before: &Snapshot, after: &Snapshot, case: &Case) -> Result<(), String> {
    let block = usize::try_from(ERASE_BLOCK).unwrap_or(usize::MAX);
    let end = case.image.len().next_multiple_of(block);
    let (before, after) = (before.partition(&FIRMWARE), after.partition(&FIRMWARE));
    match after.iter().zip(&case.image).position(|(found, wanted)| found != wanted) {
        Some(at) => Err(format!("the chip does not hold the image, first at {at:#x}")),
        None if before[end..] != after[end..] => Err("bytes behind the image were changed".to_owned()),
        None => Ok(()),
    }
}

/// Brings the flash into the state that the case starts from, and proves it from outside.
fn restore(device: &Device, machine: &Machine, old: &[u8], target: &str) -> Result<(), Failure> {
    if old.iter().all(|byte| *byte == 0xff) {
        machine.ssh.succeed_for(&format!("flash_erase -q {target} 0 0"), line::FLASH)?;
    } else {
        send(device, machine, old)?;
        machine
            .ssh
            .succeed_for(&format!("flashcp --head=keep --any-content {IMAGE} {target}"), line::FLASH)?;
    }
    let found = Snapshot::take(&device.nor())?;
    check!(found.partition(&FIRMWARE).starts_with(old), "the flash does not hold what the case starts from");
    Ok(())
}

fn send(device: &Device, machine: &Machine, bytes: &[u8]) -> Result<(), Failure> {
    let file = device.file("image.bin");
    write(&file, bytes)?;
    machine.ssh.put(&file, IMAGE)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|e| Failure::file("write", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(tool: Tool, erases: u64, programmed: u64, error: Option<&str>) -> Line {
        Line {
            board: BOARD,
            case: "same",
            tool,
            erases,
            programmed,
            read: None,
            seconds: 0.5,
            bound_erases: 3,
            bound_programmed: 1000,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn ours_is_held_to_the_bound_and_a_peer_to_nothing() {
        assert_eq!(broken_promise(&line(Tool::Ours, 3, 1000, None)), None);
        assert!(broken_promise(&line(Tool::Ours, 4, 1000, None)).is_some());
        assert!(broken_promise(&line(Tool::Ours, 3, 1001, None)).is_some());
        assert!(broken_promise(&line(Tool::Ours, 3, 1000, Some("exit 1"))).is_some());
        assert_eq!(broken_promise(&line(Tool::OursSafe, 4, 1000 + ERASE_BLOCK, None)), None);
        assert!(broken_promise(&line(Tool::OursSafe, 5, 1000, None)).is_some());
        assert_eq!(broken_promise(&line(Tool::Plain, 99, 99_999, Some("exit 1"))), None);
    }

    #[test]
    fn a_line_as_json_has_the_keys_that_scripts_know() {
        let json = serde_json::to_value(line(Tool::OursSafe, 3, 1000, None)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "board": "virt", "case": "same", "tool": "ours-safe", "erases": 3, "programmed": 1000, "read": null,
                "seconds": 0.5, "bound_erases": 3, "bound_programmed": 1000, "error": null
            })
        );
    }
}
