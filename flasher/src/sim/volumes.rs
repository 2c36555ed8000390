//! A UBI device whose volumes are in memory, and whose power can be cut.

use std::io;

use super::power::power_lost;
use crate::target::ubi::{UbiDevice, UbiVolume, VolumeKind};
use crate::ubi::{UbiError, Volumes};

/// A volume with its bytes.
#[derive(Debug, Clone)]
struct Kept {
    volume: UbiVolume,
    bytes: Vec<u8>,
}

/// A simulated UBI device.
#[derive(Debug, Clone)]
pub struct SimVolumes {
    free_blocks: u64,
    block_size: u64,
    kept: Vec<Kept>,
    /// The number of the volume that is updated, and how many bytes it still wants.
    updating: Option<(u32, u64)>,
    cut: Option<u64>,
    calls: u64,
    /// The number of a volume that somebody has open.
    busy: Option<u32>,
    /// Writes flip a bit of their first byte.
    flips: bool,
    /// The changing call that fails once, with an error of the driver.
    fails: Option<u64>,
    /// The reading that fails once, and how.
    misreads: Option<(u64, Misread)>,
    reads: u64,
}

/// How one reading goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misread {
    /// A bit of its first byte is flipped.
    Flips,
    /// The driver reports an error.
    Fails,
}

impl SimVolumes {
    /// A device with so many free blocks of so many bytes, and no volume.
    #[must_use]
    pub fn new(free_blocks: u64, block_size: u64) -> Self {
        let (kept, updating, cut) = (Vec::new(), None, None);
        Self {
            free_blocks,
            block_size,
            kept,
            updating,
            cut,
            calls: 0,
            busy: None,
            flips: false,
            fails: None,
            misreads: None,
            reads: 0,
        }
    }

    /// The same device with one volume more, which takes `blocks` of its free blocks and holds `bytes`.
    #[must_use]
    pub fn with(mut self, name: &str, kind: VolumeKind, blocks: u64, bytes: &[u8]) -> Self {
        self.add(name, kind, blocks);
        if let Some(kept) = self.kept.last_mut() {
            kept.fill(bytes);
        }
        self
    }

    /// The same device; somebody has volume `number` open.
    #[must_use]
    pub fn with_busy(mut self, number: u32) -> Self {
        self.busy = Some(number);
        self
    }

    /// The same device; what is written reads back with a flipped bit.
    #[must_use]
    pub fn with_flips(mut self) -> Self {
        self.flips = true;
        self
    }

    /// The same device; changing call number `at` (from 0) fails, and does nothing.
    #[must_use]
    pub fn with_failure(mut self, at: u64) -> Self {
        self.fails = Some(at);
        self
    }

    /// The same device; reading number `at` (from 0) goes wrong.
    #[must_use]
    pub fn with_misreading(mut self, at: u64, how: Misread) -> Self {
        self.misreads = Some((at, how));
        self
    }

    /// How many readings there were.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// What the volume of this name holds; `None` if there is none, or if its update was cut off.
    #[must_use]
    pub fn holds(&self, name: &str) -> Option<&[u8]> {
        let kept = self.kept.iter().find(|kept| kept.volume.name == name)?;
        (!kept.volume.torn).then_some(&kept.bytes)
    }

    /// How many changing calls there were.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Cuts the power in changing call number `at` (from 0).
    pub fn cut_power(&mut self, at: u64) {
        self.cut = Some(at);
    }

    /// Power comes back, and every fault has passed.
    pub fn power_cycle(&mut self) {
        self.cut = None;
        (self.fails, self.misreads) = (None, None);
        self.calls = 0;
        self.updating = None;
    }

    fn add(&mut self, name: &str, kind: VolumeKind, blocks: u64) {
        let number =
            (0..).find(|number| self.kept.iter().all(|kept| kept.volume.number != *number)).unwrap_or(0);
        let volume = UbiVolume {
            ubi: 0,
            number,
            name: name.to_owned(),
            kind,
            blocks,
            block_size: self.block_size,
            data_bytes: 0,
            alignment: 1,
            torn: false,
        };
        self.free_blocks = self.free_blocks.saturating_sub(blocks);
        self.kept.push(Kept { volume, bytes: Vec::new() });
        if let Some(kept) = self.kept.last_mut() {
            kept.fill(&[]);
        }
    }

    fn call(&mut self, what: &'static str, on: &str) -> Result<(), UbiError> {
        let number = self.calls;
        self.calls += 1;
        match self.cut {
            Some(at) if at <= number => Err(UbiError { what, on: on.to_owned(), source: power_lost() }),
            _ if self.fails == Some(number) => Err(Self::errno(what, on, nix::libc::EIO)),
            _ => Ok(()),
        }
    }

    fn errno(what: &'static str, on: &str, errno: i32) -> UbiError {
        UbiError { what, on: on.to_owned(), source: io::Error::from_raw_os_error(errno) }
    }

    fn find(&mut self, what: &'static str, number: u32) -> Result<&mut Kept, UbiError> {
        let kept = self.kept.iter_mut().find(|kept| kept.volume.number == number);
        kept.ok_or_else(|| Self::errno(what, &number.to_string(), nix::libc::ENODEV))
    }
}

impl Kept {
    fn fill(&mut self, bytes: &[u8]) {
        self.bytes = bytes.to_vec();
        if self.volume.kind == VolumeKind::Dynamic {
            self.bytes.resize(usize::try_from(self.volume.room()).unwrap_or(usize::MAX), 0xff);
        }
        self.volume.data_bytes = self.bytes.len() as u64;
    }
}

impl Volumes for SimVolumes {
    fn device(&mut self) -> Result<UbiDevice, UbiError> {
        let volumes = self.kept.iter().map(|kept| kept.volume.clone()).collect();
        Ok(UbiDevice { number: 0, free_blocks: self.free_blocks, volumes })
    }

    fn claim(&mut self, volume: &UbiVolume) -> Result<(), UbiError> {
        if self.busy == Some(volume.number) {
            return Err(Self::errno("claim", &volume.to_string(), nix::libc::EBUSY));
        }
        Ok(())
    }

    fn make(&mut self, name: &str, like: &UbiVolume) -> Result<(), UbiError> {
        self.call("make", name)?;
        let blocks = like.blocks;
        if blocks > self.free_blocks {
            return Err(Self::errno("make", name, nix::libc::ENOSPC));
        }
        if self.kept.iter().any(|kept| kept.volume.name == name) {
            return Err(Self::errno("make", name, nix::libc::EEXIST));
        }
        self.add(name, like.kind, blocks);
        Ok(())
    }

    fn update(&mut self, volume: &UbiVolume, bytes: u64) -> Result<(), UbiError> {
        self.call("update", &volume.name)?;
        if self.busy == Some(volume.number) {
            return Err(Self::errno("update", &volume.to_string(), nix::libc::EBUSY));
        }
        let kept = self.find("update", volume.number)?;
        kept.volume.torn = true;
        kept.bytes.clear();
        self.updating = Some((volume.number, bytes));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), UbiError> {
        self.call("write", "volume")?;
        let flips = self.flips;
        let Some((number, left)) = self.updating else {
            return Err(Self::errno("write", "volume", nix::libc::EPERM));
        };
        let left = left.saturating_sub(bytes.len() as u64);
        self.updating = Some((number, left));
        let kept = self.find("write", number)?;
        let start = kept.bytes.len();
        kept.bytes.extend_from_slice(bytes);
        if let Some(byte) = kept.bytes.get_mut(start).filter(|_| flips) {
            *byte ^= 4;
        }
        if left == 0 {
            let bytes = std::mem::take(&mut kept.bytes);
            kept.fill(&bytes);
            kept.volume.torn = false;
        }
        Ok(())
    }

    fn read(&mut self, volume: &UbiVolume, offset: u64, buf: &mut [u8]) -> Result<(), UbiError> {
        let misread = self.misreads.filter(|(at, _)| *at == self.reads).map(|(_, how)| how);
        self.reads += 1;
        if misread == Some(Misread::Fails) {
            return Err(Self::errno("read", &volume.to_string(), nix::libc::EIO));
        }
        let kept = self.find("read", volume.number)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match kept.bytes.get(start..start.saturating_add(buf.len())).filter(|_| !kept.volume.torn) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                if let (Some(Misread::Flips), Some(first)) = (misread, buf.first_mut()) {
                    *first ^= 1;
                }
                Ok(())
            }
            None => Err(Self::errno("read", &volume.to_string(), nix::libc::EBADF)),
        }
    }

    fn swap(&mut self, one: &UbiVolume, other: &UbiVolume) -> Result<(), UbiError> {
        self.call("swap", &one.name)?;
        self.find("swap", one.number)?.volume.name.clone_from(&other.name);
        self.find("swap", other.number)?.volume.name.clone_from(&one.name);
        Ok(())
    }

    fn remove(&mut self, volume: &UbiVolume) -> Result<(), UbiError> {
        self.call("remove", &volume.name)?;
        if self.busy == Some(volume.number) {
            return Err(Self::errno("remove", &volume.to_string(), nix::libc::EBUSY));
        }
        self.free_blocks += self.find("remove", volume.number)?.volume.blocks;
        self.kept.retain(|kept| kept.volume.number != volume.number);
        Ok(())
    }
}
