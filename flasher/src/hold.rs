//! What surrounds a change of flash: nobody else gets at it, and nothing ends the process half-way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::guard::facts;
use crate::sys::{ioctl, process};

/// The surroundings of a change, behind a seam: tests look at the order of the calls.
pub trait Hold {
    /// Keeps mtd`number`'s block device from being mounted or swapped to until the value is dropped. A device
    /// without a node is no error.
    ///
    /// # Errors
    /// `EBUSY` if somebody has it, `ENXIO`, `ENODEV` or `ENOENT` if nothing stands behind the node, and whatever else keeps
    /// it from being asked.
    fn claim(&mut self, number: u32) -> io::Result<()>;

    /// Writes back and drops what the claimed devices' caches hold: before the first change, so that nothing old is
    /// written over the new, and after the last, so that nobody reads old bytes.
    fn flush(&mut self);

    /// Called once, right before the first change: from here on the signals of a lost session no longer end the process,
    /// its pages stay in memory, and it is spared when memory runs out.
    fn steel(&mut self);
}

/// The real thing.
#[derive(Debug)]
pub struct SystemHold {
    root: PathBuf,
    claimed: BTreeMap<u32, File>,
}

impl SystemHold {
    /// Nothing is claimed yet; device nodes are looked for below `root`/dev.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, claimed: BTreeMap::new() }
    }
}

impl Hold for SystemHold {
    fn claim(&mut self, number: u32) -> io::Result<()> {
        // A second exclusive descriptor of our own would be refused as well.
        if self.claimed.contains_key(&number) {
            return Ok(());
        }
        if let Some(file) = facts::claim(&self.root, number)? {
            self.claimed.insert(number, file);
        }
        Ok(())
    }

    fn flush(&mut self) {
        for file in self.claimed.values() {
            // Without privilege there is no flush; the flash itself is written and read past the cache.
            let _ = ioctl::flush_buffers(file);
        }
    }

    fn steel(&mut self) {
        // Each of them helps, none is needed: what the system refuses is done without.
        let _ = process::ignore_session_signals();
        let _ = process::lock_pages();
        let _ = process::spare_from_oom();
    }
}

/// Holds nothing: for simulated chips.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHold;

impl Hold for NoHold {
    fn claim(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) {}

    fn steel(&mut self) {}
}
