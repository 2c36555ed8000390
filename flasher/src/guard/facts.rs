//! What the running system says about its flash: partitions, where they lie, and who uses them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::mounts::Devices;
use super::users::{Use, User};
use super::{mounts, processes, stayed};
use crate::kernel::{Bus, WRITEABLE};
use crate::target::{self, Node};

/// Why the system could not be looked at. The flash was not touched.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A file of /proc or /sys that must be there could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One MTD device. Sizes and offsets are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MtdFacts {
    /// N of mtdN.
    pub number: u32,
    /// The partition's name.
    pub name: String,
    /// sysfs's `type`: `nor`, `nand`, `ram`, ...; empty if unknown.
    pub kind: String,
    /// The device's size.
    pub size: u64,
    /// The size of its erase blocks.
    pub erase_size: u64,
    /// Whether its flags allow to write it.
    pub writeable: bool,
    /// Whether the kernel's spi-nor drives the chip.
    pub spi_nor: bool,
    /// The sysfs path (below /sys/devices) of the device that partitions of one chip share; `None` where the kernel
    /// tells none, as for concatenated banks.
    pub chip: Option<String>,
    /// Where it starts on that chip: the sum of the `offset` attributes along its sysfs path, because an offset is
    /// relative to the parent partition. `None` on kernels (before 5.10) that tell no offsets, unless it is the only device.
    pub start: Option<u64>,
}

impl MtdFacts {
    /// The chip's name for people and records: the last part of [`MtdFacts::chip`].
    #[must_use]
    pub fn chip_name(&self) -> Option<&str> {
        self.chip.as_deref().map(|chip| chip.rsplit('/').next().unwrap_or(chip))
    }

    /// The bus, as [`crate::kernel::KernelMtd::open`] wants it.
    #[must_use]
    pub fn bus(&self) -> Bus {
        if self.spi_nor { Bus::Spi } else { Bus::Other }
    }
}

/// A snapshot of the system's flash and its users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    mtds: Vec<MtdFacts>,
    users: Vec<User>,
    /// What uses flash, but nobody tells which.
    anywhere: Vec<Use>,
    hidden: usize,
    unread: Option<String>,
}

impl Facts {
    /// Looks at the system below `root` (`/`, or a captured tree with `proc`, `sys` and `dev`). A system without
    /// flash gives empty facts. Nothing is changed; block devices of flash are opened for a moment, exclusively and
    /// to read, to ask whether the kernel holds them.
    ///
    /// # Errors
    /// [`FactsError`] if /proc cannot be listed at all. Processes that end meanwhile are passed over; those that
    /// privilege hides are counted ([`Facts::hidden`]), and a report of the hand-over that cannot be understood is told
    /// ([`Facts::unread`]).
    pub fn read(root: &Path) -> Result<Self, FactsError> {
        let mtds = mtds(root)?;
        if mtds.is_empty() {
            return Ok(Self::default());
        }
        let mut facts = Self { mtds, ..Self::default() };
        let pids = processes::list(root)?;
        let mut devices = Devices::read(root);
        let mut found = mounts::read(root, &pids, &mut devices);
        found.extend(mounts::swaps(root, &devices));
        found
            .extend(devices.loops().iter().map(|(mtd, device)| (*mtd, Use::Loop { device: device.clone() })));
        found
            .extend(devices.ubis().iter().map(|(ubi, mtd)| (*mtd, Use::Ubi { device: format!("ubi{ubi}") })));
        let seen = processes::read(root, &pids, &devices);
        found.extend(seen.users);
        facts.hidden = seen.hidden;
        for mtd in &facts.mtds {
            // Where a table shows the mount, that says more.
            let told = found.iter().any(|(number, how)| {
                *number == mtd.number && matches!(how, Use::Mount { .. } | Use::Swap | Use::Loop { .. })
            });
            if !told && is_busy(root, mtd.number) {
                found.push((mtd.number, Use::Busy));
            }
        }
        match stayed::read(root, &devices, |number| facts.mtd(number).is_some()) {
            Ok(all) => {
                for (mtd, how) in all {
                    match mtd {
                        Some(mtd) => found.push((mtd, how)),
                        None => facts.anywhere.push(how),
                    }
                }
            }
            Err(why) => facts.unread = Some(why),
        }
        facts.users = found
            .into_iter()
            .map(|(mtd, how)| {
                let name = facts.mtd(mtd).map_or_else(|| "?".to_owned(), |facts| facts.name.clone());
                User { mtd, name, how }
            })
            .collect();
        Ok(facts)
    }

    /// Facts from a list of devices and users, for callers that know them otherwise.
    #[must_use]
    pub fn new(mtds: Vec<MtdFacts>, users: Vec<User>) -> Self {
        Self { mtds, users, ..Self::default() }
    }

    /// Every MTD device, by number.
    #[must_use]
    pub fn mtds(&self) -> &[MtdFacts] {
        &self.mtds
    }

    /// The device mtd`number`.
    #[must_use]
    pub fn mtd(&self, number: u32) -> Option<&MtdFacts> {
        self.mtds.iter().find(|mtd| mtd.number == number)
    }

    /// Every live user of any MTD of the system; none means that no file system, swap, loop, UBI device, kernel
    /// thread, open descriptor or running program needs flash. This process's own open descriptors do not count.
    #[must_use]
    pub fn users(&self) -> Vec<User> {
        self.users.clone()
    }

    /// What the hand-over into this system could not let go of, where nobody tells which flash it lies on.
    #[must_use]
    pub fn anywhere(&self) -> &[Use] {
        &self.anywhere
    }

    /// Why the hand-over's report, which is there, does not tell what it left behind.
    #[must_use]
    pub fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// How many processes could not be looked into for want of privilege; 0 for root.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.hidden
    }
}

/// The devices of sysfs, or of /proc/mtd where sysfs has none.
fn mtds(root: &Path) -> Result<Vec<MtdFacts>, FactsError> {
    let listed = match target::partitions(root) {
        Ok(listed) => listed,
        Err(target::TargetError::List { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Vec::new()
        }
        Err(target::TargetError::List { path, source }) => return Err(FactsError::Read { path, source }),
        Err(_) => Vec::new(),
    };
    let places: Vec<Place> = listed.iter().map(|mtd| Place::read(root, mtd.number)).collect();
    // Kernels since 5.10 tell every partition's offset: who has none there is no partition, but a whole chip.
    let kernel_tells = places.iter().any(|place| place.has_offset);
    let alone = listed.len() == 1;
    Ok(listed
        .into_iter()
        .zip(places)
        .map(|(mtd, place)| MtdFacts {
            number: mtd.number,
            name: mtd.name,
            kind: place.kind,
            size: place.size.unwrap_or(mtd.size),
            erase_size: mtd.erase_size,
            writeable: place.flags.is_none_or(|flags| flags & WRITEABLE != 0),
            spi_nor: place.spi_nor,
            chip: place.chip,
            start: (kernel_tells && place.found || alone).then_some(place.offset),
        })
        .collect())
}

/// What sysfs says of one device.
#[derive(Default)]
struct Place {
    found: bool,
    kind: String,
    size: Option<u64>,
    flags: Option<u32>,
    spi_nor: bool,
    chip: Option<String>,
    offset: u64,
    has_offset: bool,
}

impl Place {
    fn read(root: &Path, number: u32) -> Self {
        let link = root.join(format!("sys/class/mtd/mtd{number}"));
        let (Ok(path), Ok(devices)) = (link.canonicalize(), root.join("sys/devices").canonicalize()) else {
            return Self::default();
        };
        let text = |name: &str| std::fs::read_to_string(path.join(name)).map(|text| text.trim().to_owned());
        let mut place = Self {
            found: true,
            kind: text("type").unwrap_or_default(),
            size: text("size").ok().and_then(|text| text.parse().ok()),
            flags: text("flags")
                .ok()
                .and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()),
            ..Self::default()
        };
        // A partition inside a partition is a directory inside its directory.
        let mut at = path.as_path();
        let mut top_is_chip = false;
        let mut depth = 0;
        while is_mtd(at) {
            let offset =
                std::fs::read_to_string(at.join("offset")).ok().and_then(|text| text.trim().parse().ok());
            place.offset = place.offset.saturating_add(offset.unwrap_or(0));
            place.has_offset |= offset.is_some();
            top_is_chip = offset.is_none() && depth > 0;
            depth += 1;
            let Some(parent) = at.parent() else { break };
            at = parent;
        }
        let top = path.ancestors().nth(depth.max(1) - 1).unwrap_or(&path);
        // The class's own directory lies between a device and what hangs below it.
        let device =
            if at.file_name().is_some_and(|name| name == "mtd") { at.parent().unwrap_or(at) } else { at };
        let below = |path: &Path| path.strip_prefix(&devices).ok().map(|path| path.display().to_string());
        place.chip = match below(device).as_deref() {
            Some("virtual") if top_is_chip => below(top),
            Some("virtual" | "") | None => None,
            Some(chip) => Some(chip.to_owned()),
        };
        place.spi_nor = device.join("spi-nor").is_dir()
            || std::fs::read_link(device.join("driver")).is_ok_and(|driver| driver.ends_with("spi-nor"));
        place
    }
}

fn is_mtd(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix("mtd")).is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Opens mtd`number`'s block device so that nobody else can mount it or swap to it. `Ok(None)` if it has no node.
///
/// # Errors
/// `EBUSY` if somebody already does, and whatever else opening says. A node that stands for another device is an error
/// without a number.
pub(crate) fn claim(root: &Path, number: u32) -> io::Result<Option<File>> {
    for node in [format!("dev/mtdblock{number}"), format!("dev/mtdblock/{number}")] {
        let path = root.join(node);
        // O_EXCL without O_CREAT means something for block devices alone.
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if meta.file_type().is_block_device() {
            expect(&path, number, Node::of(&meta))?;
            let file = OpenOptions::new().read(true).custom_flags(OFlag::O_EXCL.bits()).open(&path)?;
            expect(&path, number, Node::of(&file.metadata()?))?;
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// Another chip's block device would be claimed, and this one's left to others.
fn expect(path: &Path, number: u32, found: Node) -> io::Result<()> {
    let expected = Node::mtd_block(number);
    if found == expected {
        return Ok(());
    }
    let path = path.display();
    Err(io::Error::other(format!("{path} is another device: {expected} expected, {found} found")))
}

fn is_busy(root: &Path, number: u32) -> bool {
    claim(root, number).is_err_and(|error| error.raw_os_error() == Some(nix::libc::EBUSY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_device_of_another_chip_is_not_claimed() {
        let path = Path::new("/dev/mtdblock3");
        expect(path, 3, Node::Block { major: 31, minor: 3 }).unwrap();
        for (major, minor) in [(31, 4), (7, 3)] {
            let error = expect(path, 3, Node::Block { major, minor }).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "/dev/mtdblock3 is another device: block device 31:3 expected, block device {major}:{minor} found"
                )
            );
        }
        // Any block device of this machine, under a name that is not its own.
        let is_block =
            |path: &PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device());
        let any = std::fs::read_dir("/dev").unwrap().flatten().map(|entry| entry.path()).find(is_block);
        if let Some(any) = any {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("dev")).unwrap();
            std::os::unix::fs::symlink(any, root.path().join("dev/mtdblock999")).unwrap();
            let error = claim(root.path(), 999).unwrap_err().to_string();
            assert!(error.contains("block device 31:999 expected, block device "), "{error}");
        }
    }
}
