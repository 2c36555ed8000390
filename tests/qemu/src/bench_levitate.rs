//! `cargo bench-levitate`: `levitate` beside the manual's way (`cp -a`, path by path), and `reboot` into the maintenance
//! root beside a full reboot, in one guest.
//!
//! Rounds alternate and caches are dropped before each, so that both start from flash. RAM is what file systems in RAM
//! hold afterwards (`Shmem`), by the guest's own count; seconds of staging are the guest's, of restarts the host's, for
//! the guest has no clock over a reboot.

mod cases;
mod restart;

use serde::Serialize;

use crate::assets::Assets;
use crate::check::check;
use crate::firmware::{Firmware, whole};
use crate::line;
use crate::machine::{Device, Machine};
use crate::suite::Failure;

use cases::{CASES, Case};

/// Rounds of each. One more, the first, is not counted.
const ROUNDS: usize = 5;
/// RAM of the guest in MiB: both copies of the larger case fit beside what is kept for an image.
const MEMORY: u32 = 512;
/// Beyond the needed files, in bytes: levitate itself, which is init, flashcp and reboot there.
const OWN: u64 = 2 << 20;

/// One comparison; `--json` prints exactly this.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    case: &'static str,
    /// `seconds` or `bytes`.
    unit: &'static str,
    /// `levitate`, or the soft restart.
    ours: f64,
    /// `cp -a`, or the full reboot.
    theirs: f64,
    /// Ours by theirs.
    ratio: f64,
    /// Smallest and largest of the rounds.
    ours_range: [f64; 2],
    theirs_range: [f64; 2],
    /// What ours may be at most.
    target: f64,
    /// Whether it is.
    met: bool,
}

impl Line {
    fn new(case: &'static str, unit: &'static str, ours: &[f64], theirs: &[f64], target: Target) -> Self {
        let ([mine, _], [other, _]) = (range(ours), range(theirs));
        let target = match target {
            Target::Ratio(ratio) => other * ratio,
            Target::Most(most) => most,
        };
        let round = |x: f64| (x * 1000.0).round() / 1000.0;
        Self {
            case,
            unit,
            ours: round(mine),
            theirs: round(other),
            ratio: round(mine / other),
            ours_range: range(ours),
            theirs_range: range(theirs),
            target: round(target),
            met: mine <= target,
        }
    }

    /// A line of the table.
    pub(crate) fn text(&self) -> String {
        let show = |x: f64| match self.unit {
            "bytes" => format!("{:.0} KiB", x / 1024.0),
            _ => format!("{x:.2} s"),
        };
        let met = if self.met { "met" } else { "MISSED" };
        format!(
            "{:<26}{:>12}{:>12}{:>8.2}{:>14} {met:<7} {}..{}, {}..{}",
            self.case,
            show(self.ours),
            show(self.theirs),
            self.ratio,
            show(self.target),
            show(self.ours_range[0]),
            show(self.ours_range[1]),
            show(self.theirs_range[0]),
            show(self.theirs_range[1]),
        )
    }
}

/// What is promised.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// Of theirs.
    Ratio(f64),
    /// In the line's unit.
    Most(f64),
}

/// The heading of the table.
pub(crate) fn heading() -> String {
    format!(
        "{:<26}{:>12}{:>12}{:>8}{:>14} {:<7} rounds",
        "virt", "levitate", "cp/reboot", "ratio", "target", ""
    )
}

/// What stands below the table.
pub(crate) const NOTES: &str = "\
5 MB: busybox, dropbear, flashcp and their libraries, file by file. Whole packages: those they come in (30 MB).
A restart ends with the first command run by ssh. The least disturbed of alternating rounds with cold caches, squashfs (xz) on NOR.
RAM is what lies in file systems in RAM; the target of the 5 MB case is the needed files and 2 MiB.";

/// Measures; `shown` gets each line as it comes. Missed targets of RAM are a broken promise: they repeat exactly. Seconds
/// are the guest's, under emulation, and are shown only.
pub(crate) fn run(assets: &Assets, mut shown: impl FnMut(&Line)) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let mut device = Device::with_chip(assets, &whole::chip(assets, &firmware)?, &firmware.ssh_key)?;
    device.memory = MEMORY;
    let (machine, _) = line::power_on(&device, &firmware, 1)?;
    let mut broken = Vec::new();
    for case in CASES {
        for line in staging(&machine, case).map_err(|f| f.context(case.name.to_owned()))? {
            shown(&line);
            if line.unit == "bytes" && !line.met {
                broken.push(format!("a promise was not kept: {}", line.text()));
            }
        }
    }
    let (soft, full) = restart::rounds(&machine)?;
    shown(&Line::new("restart to ssh login", "seconds", &soft, &full, Target::Ratio(0.25)));
    check!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

/// Seconds and bytes of one case.
fn staging(machine: &Machine, case: &Case) -> Result<[Line; 2], Failure> {
    cases::prepare(machine, case)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (mine, other) = (cases::levitate(machine)?, cases::copy(machine)?);
        if round > 0 {
            ours.push(mine);
            theirs.push(other);
        }
    }
    let column =
        |of: &[cases::Round], pick: fn(&cases::Round) -> f64| of.iter().map(pick).collect::<Vec<_>>();
    let [seconds, bytes] = [|r: &cases::Round| r.seconds, |r: &cases::Round| r.bytes]
        .map(|pick| (column(&ours, pick), column(&theirs, pick)));
    let [time, ram] = match case.ratio {
        Some(ratio) => [Target::Ratio(ratio), Target::Ratio(ratio)],
        None => {
            let needed = cases::needed(machine)?;
            #[allow(clippy::cast_precision_loss)] // a few million
            let most = (needed + OWN) as f64;
            [Target::Ratio(1.0), Target::Most(most)]
        }
    };
    Ok([
        Line::new(case.name, "seconds", &seconds.0, &seconds.1, time),
        Line::new(case.name, "bytes", &bytes.0, &bytes.1, ram),
    ])
}

/// The smallest and the largest. Every round does the same work, so the smallest is the one that was disturbed least by
/// whatever else the machine did.
fn range(of: &[f64]) -> [f64; 2] {
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    let fold = |pick: fn(f64, f64) -> f64| round(of.iter().copied().reduce(pick).unwrap_or(f64::NAN));
    [fold(f64::min), fold(f64::max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_compares_the_least_disturbed_rounds_and_holds_ours_to_the_target() {
        let line = Line::new("25 MB", "seconds", &[1.0, 9.0, 0.5], &[4.0, 2.0, 3.0], Target::Ratio(0.25));
        assert_eq!((line.ours, line.theirs, line.ratio, line.target, line.met), (0.5, 2.0, 0.25, 0.5, true));
        assert_eq!((line.ours_range, line.theirs_range), ([0.5, 9.0], [2.0, 4.0]));
        assert!(Line::new("5 MB", "bytes", &[5.0], &[4.0], Target::Most(5.0)).met);
        assert!(!Line::new("5 MB", "bytes", &[5.1], &[4.0], Target::Most(5.0)).met);
    }

    #[test]
    fn a_line_as_json_has_the_keys_that_scripts_know() {
        let line = Line::new("5 MB", "bytes", &[1.0], &[2.0], Target::Most(3.0));
        assert_eq!(
            serde_json::to_value(line).unwrap(),
            serde_json::json!({
                "case": "5 MB", "unit": "bytes", "ours": 1.0, "theirs": 2.0, "ratio": 0.5,
                "ours_range": [1.0, 1.0], "theirs_range": [2.0, 2.0], "target": 3.0, "met": true
            })
        );
    }
}
