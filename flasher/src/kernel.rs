//! The kernel's MTD character device as a [`Mtd`].

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::device::{Geometry, Kind, Mtd, MtdError, ReadHealth, Region};
use crate::sys::ioctl::{self, Lock};
use crate::target::Node;

/// `MTD_WRITEABLE` of `<mtd/mtd-abi.h>`.
pub(crate) const WRITEABLE: u32 = 0x400;
/// `MTD_BIT_WRITEABLE` of `<mtd/mtd-abi.h>`.
const BIT_WRITEABLE: u32 = 0x800;

/// The bus a NOR chip sits on; `MEMGETINFO` does not tell, sysfs does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// The chip is driven by the kernel's `spi-nor`.
    Spi,
    /// Anything else.
    Other,
}

/// How the device is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only to look: a read-only partition is no error.
    Read,
    /// To change it.
    Write,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The node could not be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The device node.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node stands for another device than its name says, so that the guard has judged another chip than the one that
    /// would be written.
    #[error("{} is another device: {expected} expected, {found} found", path.display())]
    OtherDevice {
        /// The device node.
        path: PathBuf,
        /// What it is named after.
        expected: Node,
        /// What it stands for.
        found: Node,
    },
    /// The node is not that of an MTD.
    #[error("{} is no MTD character device: {source}", path.display())]
    NotMtd {
        /// The device node.
        path: PathBuf,
        /// What `MEMGETINFO` said.
        source: io::Error,
    },
    /// The chip has erase blocks of several sizes, and the kernel does not tell where.
    #[error("cannot ask {} for its erase regions: {source}", path.display())]
    Regions {
        /// The device node.
        path: PathBuf,
        /// What `MEMGETREGIONINFO` said.
        source: io::Error,
    },
    /// The kernel calls the partition read-only.
    #[error("{} is read-only: the kernel's partition table forbids to write it", path.display())]
    ReadOnly {
        /// The device node.
        path: PathBuf,
    },
}

/// `/dev/mtdN`, opened.
#[derive(Debug)]
pub struct KernelMtd {
    file: File,
    geometry: Geometry,
    bitflip_threshold: Option<u32>,
    ecc_step: Option<u64>,
}

impl KernelMtd {
    /// Opens mtd`number` by its node. `size` is the device's size in bytes as sysfs tells it, because `MEMGETINFO` has 32 bits for it.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed.
    pub fn open(path: &Path, number: u32, size: u64, bus: Bus, access: Access) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Open { path: path.to_owned(), source };
        let is_mtd = |meta: io::Result<Metadata>| match (Node::mtd(number), Node::of(&meta.map_err(failed)?))
        {
            (expected, found) if expected == found => Ok(()),
            (expected, found) => Err(OpenError::OtherDevice { path: path.to_owned(), expected, found }),
        };
        // Before it is opened: that alone can change a device, or wait for ever.
        is_mtd(std::fs::metadata(path))?;
        let open = |write| {
            let file = OpenOptions::new().read(true).write(write).open(path).map_err(failed)?;
            is_mtd(file.metadata()).map(|()| file)
        };
        let probe = open(false)?;
        let info = ioctl::info(&probe)
            .map_err(|errno| OpenError::NotMtd { path: path.to_owned(), source: errno.into() })?;
        let writeable = info.flags & WRITEABLE != 0;
        let file = match access {
            Access::Read => probe,
            Access::Write if !writeable => return Err(OpenError::ReadOnly { path: path.to_owned() }),
            Access::Write => open(true)?,
        };
        let regions = ioctl::regions(&file)
            .map_err(|errno| OpenError::Regions { path: path.to_owned(), source: errno.into() })?;
        let geometry = Geometry {
            kind: kind(info.kind, bus),
            size: if size == 0 { u64::from(info.size) } else { size },
            erase_size: u64::from(info.erase_size),
            write_size: u64::from(info.write_size.max(1)),
            bit_writeable: info.flags & BIT_WRITEABLE != 0,
            writeable,
            regions: regions
                .iter()
                .map(|region| Region {
                    offset: u64::from(region.offset),
                    erase_size: u64::from(region.erase_size),
                    blocks: u64::from(region.blocks),
                })
                .collect(),
        };
        let is_nand = geometry.kind == Kind::Nand;
        let bitflip_threshold = if is_nand { threshold(&file) } else { None };
        let ecc_step =
            if is_nand { attribute(&file, "ecc_step_size").filter(|size| *size > 0) } else { None };
        Ok(Self { file, geometry, bitflip_threshold, ecc_step })
    }

    fn lock_request(&self, what: Lock, text: &'static str, range: &Range<u64>) -> Result<bool, MtdError> {
        ioctl::lock(&self.file, what, range).map_err(|errno| match errno {
            // What drivers answer where a chip has no locks.
            Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EOVERFLOW => MtdError::Unsupported,
            // The concatenation layer has no locks either; but to a request for a change it means that the chip
            // cannot protect just this range.
            Errno::EINVAL if what == Lock::Ask => MtdError::Unsupported,
            errno => MtdError::Lock { what: text, start: range.start, end: range.end, source: errno.into() },
        })
    }
}

/// sysfs's `bitflip_threshold` of an open node. A kernel that does not tell (or tells 0) leaves one flip: every block
/// with a corrected flip is then refreshed.
fn threshold(file: &File) -> Option<u32> {
    Some(attribute(file, "bitflip_threshold").filter(|flips| *flips > 0).unwrap_or(1))
}

/// A number that sysfs tells of an open node.
fn attribute<T: std::str::FromStr>(file: &File, name: &str) -> Option<T> {
    let number = file.metadata().ok()?.rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let path = format!("/sys/dev/char/{major}:{minor}/{name}");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The numbers are those of `<mtd/mtd-abi.h>`.
fn kind(number: u8, bus: Bus) -> Kind {
    match (number, bus) {
        (3, Bus::Spi) => Kind::SpiNor,
        (3, Bus::Other) => Kind::ParallelNor,
        (4 | 8, _) => Kind::Nand,
        (1, _) => Kind::Ram,
        _ => Kind::Other,
    }
}

impl Mtd for KernelMtd {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<ReadHealth, MtdError> {
        let length = buf.len() as u64;
        let failed = |source| MtdError::Read { offset, length, source };
        if self.geometry.kind != Kind::Nand {
            self.file.read_exact_at(buf, offset).map_err(failed)?;
            return Ok(ReadHealth::default());
        }
        // read() returns bytes that ECC could not correct like any others: only the counters tell.
        let stats = || ioctl::ecc_stats(&self.file).map_err(|errno| failed(errno.into()));
        let before = stats()?;
        self.file.read_exact_at(buf, offset).map_err(failed)?;
        let after = stats()?;
        Ok(ReadHealth {
            corrected: after.corrected.wrapping_sub(before.corrected),
            failed: after.failed.wrapping_sub(before.failed),
        })
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        ioctl::erase(&self.file, &range).map_err(|errno| MtdError::Erase {
            start: range.start,
            end: range.end,
            source: errno.into(),
        })
    }

    fn program(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MtdError> {
        // The kernel does not say which page of a longer write failed.
        let at_once = match self.geometry.kind {
            Kind::Nand => usize::try_from(self.geometry.write_size).unwrap_or(usize::MAX).max(1),
            _ => bytes.len().max(1),
        };
        let mut offset = offset;
        for bytes in bytes.chunks(at_once) {
            let length = bytes.len() as u64;
            let failed = |source| MtdError::Program { offset, length, source };
            self.file.write_all_at(bytes, offset).map_err(failed)?;
            offset += length;
        }
        Ok(())
    }

    fn is_locked(&mut self, range: Range<u64>) -> Result<bool, MtdError> {
        self.lock_request(Lock::Ask, "ask for the lock of", &range)
    }

    fn unlock(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        self.lock_request(Lock::Off, "unlock", &range).map(drop)
    }

    fn lock(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        self.lock_request(Lock::On, "lock", &range).map(drop)
    }

    fn is_bad(&mut self, offset: u64) -> Result<bool, MtdError> {
        match ioctl::is_bad(&self.file, offset) {
            Ok(bad) => Ok(bad),
            // NOR drivers have no such request.
            Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL) => Ok(false),
            Err(errno) => Err(MtdError::Bad { offset, source: errno.into() }),
        }
    }

    fn mark_bad(&mut self, offset: u64) -> Result<(), MtdError> {
        ioctl::mark_bad(&self.file, offset).map_err(|errno| match errno {
            Errno::EOPNOTSUPP | Errno::ENOTTY => MtdError::Unsupported,
            errno => MtdError::Mark { offset, source: errno.into() },
        })
    }

    fn bitflip_threshold(&self) -> Option<u32> {
        self.bitflip_threshold
    }

    fn ecc_step(&self) -> Option<u64> {
        self.ecc_step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guard has looked at mtd5, whatever the node of that name stands for.
    #[test]
    fn a_node_of_another_device_is_refused_with_both_numbers() {
        let open = |path: &str| {
            KernelMtd::open(Path::new(path), 5, 0, Bus::Other, Access::Write).unwrap_err().to_string()
        };
        assert_eq!(
            open("/dev/null"),
            "/dev/null is another device: character device 90:10 expected, character device 1:3 found"
        );
        assert_eq!(
            open("/proc"),
            "/proc is another device: character device 90:10 expected, no device found"
        );
        assert_eq!(open("/dev/mtd999"), "cannot open /dev/mtd999: No such file or directory (os error 2)");
    }

    #[test]
    fn only_nor_on_spi_is_taken_for_spi_nor() {
        assert_eq!(kind(3, Bus::Spi), Kind::SpiNor);
        assert_eq!(kind(3, Bus::Other), Kind::ParallelNor);
        assert_eq!(kind(8, Bus::Spi), Kind::Nand);
    }
}
