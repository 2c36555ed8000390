//! What the hand-over into this system could not let go of, as `/run/levitate/handover.json` tells.
//!
//! A jffs2 whose unmounting has not come back is in no mount table, has no thread any more and holds no block device:
//! nothing else tells of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use super::facts;
use super::mounts::{self, Devices};
use super::users::Use;

/// The report, below the root.
const REPORT: &str = "run/levitate/handover.json";
/// What it is expected to be.
const EXPECTED: &str = "expected the hand-over's report, version 1, with the list `still_mounted`";
/// A longer report is none of the hand-over's, in bytes.
const LONGEST: u64 = 1 << 20;

/// As much of the report as is needed here.
#[derive(Debug, Deserialize)]
struct Report {
    version: u64,
    still_mounted: Vec<Stayed>,
}

/// A file system, or a device, of the old system.
#[derive(Debug, Deserialize)]
struct Stayed {
    path: String,
    source: String,
    fstype: String,
    reason: String,
    #[serde(default)]
    device: Option<String>,
}

/// Which flash it lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    On(u32),
    /// On flash, but nobody says where.
    Somewhere,
    /// On a disk, on the network, in RAM.
    NotFlash,
}

/// What is in the report and not known to be gone by now, with the MTD that it lies on; `None` is any. Without a report
/// there was no hand-over, and the answer is empty. `has` tells which MTD devices there are.
///
/// # Errors
/// A sentence, if there is a report that cannot be read or understood: what stayed is not known then.
pub(super) fn read(
    root: &Path,
    devices: &Devices,
    has: impl Fn(u32) -> bool,
) -> Result<Vec<(Option<u32>, Use)>, String> {
    let Some(report) = report(root).map_err(|why| format!("/{REPORT}: {why}; {EXPECTED}"))? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for one in report.still_mounted {
        let place = match one.place(devices) {
            Place::NotFlash => continue,
            Place::On(mtd) if has(mtd) => Some(mtd),
            Place::On(_) | Place::Somewhere => None,
        };
        if !one.is_gone(root, devices, place) {
            found.push((place, Use::Stayed { path: one.path, fs_type: one.fstype, reason: one.reason }));
        }
    }
    Ok(found)
}

fn report(root: &Path) -> Result<Option<Report>, String> {
    let file = match File::open(root.join(REPORT)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut text = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    let report: Report = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if report.version != 1 {
        return Err(format!("it has version {}", report.version));
    }
    if let Some(odd) = report.still_mounted.iter().find(|one| one.numbers() == Err(())) {
        return Err(format!("the device of {:?} is not MAJOR:MINOR", odd.path));
    }
    Ok(Some(report))
}

impl Stayed {
    fn numbers(&self) -> Result<Option<(u64, u64)>, ()> {
        self.device.as_deref().map(|text| mounts::numbers(text).ok_or(())).transpose()
    }

    fn place(&self, devices: &Devices) -> Place {
        if let Ok(Some(numbers)) = self.numbers()
            && let Some(mtd) = devices.mtd(numbers)
        {
            return Place::On(mtd);
        }
        let of_ubi = |ubi: Option<u32>| {
            let mtd = ubi.and_then(|ubi| devices.ubis().get(&ubi).copied());
            mtd.map_or(Place::Somewhere, Place::On)
        };
        let ubi_number = |text: &str, prefix: &str| text.strip_prefix(prefix).and_then(mounts::ubi_number);
        match self.fstype.as_str() {
            "ubi" => match self.source.strip_prefix("/dev/mtd").and_then(|number| number.parse().ok()) {
                Some(mtd) => Place::On(mtd),
                None => of_ubi(ubi_number(&self.path, "/dev/ubi")),
            },
            "ubifs" => of_ubi(mounts::ubi_source(&self.source)),
            _ if self.source.starts_with("/dev/ubiblock") => {
                of_ubi(ubi_number(&self.source, "/dev/ubiblock"))
            }
            kind => match mounts::block_name(&self.source) {
                Some(mtd) => Place::On(mtd),
                None if kind == "jffs2" => Place::Somewhere,
                None => Place::NotFlash,
            },
        }
    }

    /// Whether the kernel itself says that it has gone since. Of a file system that uses MTD without a block device it
    /// says nothing, whatever the tables and threads look like.
    fn is_gone(&self, root: &Path, devices: &Devices, place: Option<u32>) -> bool {
        let ubi_tells = || root.join("sys/class/ubi").is_dir();
        let attached = |mtd: u32| devices.ubis().values().any(|used| *used == mtd);
        match (self.fstype.as_str(), place) {
            ("jffs2" | "cramfs" | "romfs", _) => false,
            ("ubi", Some(mtd)) => ubi_tells() && !attached(mtd),
            // It holds its volume open, which holds the device.
            ("ubifs", _) => {
                let ubi = mounts::ubi_source(&self.source);
                ubi.is_some_and(|ubi| ubi_tells() && !devices.ubis().contains_key(&ubi))
            }
            (_, Some(mtd)) if self.numbers() == Ok(Some((mounts::MTD_BLOCK_MAJOR, mtd.into()))) => {
                matches!(facts::claim(root, mtd), Ok(Some(_)))
            }
            _ => false,
        }
    }
}
