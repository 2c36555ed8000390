//! The parts that an emulated board is made of, and how they get onto this machine: no root, nothing installed.
//!
//! What is made of what: package lists give exact versions, those the tools and the guest's material, the tools two
//! kernels and the device binary. Everything lies in a cache folder under a key of what it is made from.

mod apt;
mod armhf;
pub(crate) mod child;
pub(crate) mod cross;
mod device;
pub(crate) mod error;
pub(crate) mod keep;
mod kernel;
mod lock;
mod mirrors;
mod musl;
mod packages;
pub(crate) mod places;
mod setup;
mod sources;
pub(crate) mod target;
pub(crate) mod tools;
pub(crate) mod unpack;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

pub(crate) use armhf::Armhf;
pub(crate) use setup::prepare;
pub(crate) use tools::Tools;

/// Where every part lies. `cargo demo --setup-only` prints [`Assets::places`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Assets {
    /// The cache folder; nothing outside of it and of the checkout's `target` was written.
    pub(crate) cache: PathBuf,
    /// The static aarch64 multi-call binary, `levitate`.
    pub(crate) device_binary: PathBuf,
    /// The static aarch64 `flashcp` that is built on its own.
    pub(crate) flashcp_binary: PathBuf,
    /// `qemu-system-aarch64`; start it by [`Assets::qemu`].
    pub(crate) qemu: PathBuf,
    /// U-Boot for the `virt` board, as it lies at the start of pflash0.
    pub(crate) uboot: PathBuf,
    /// The kernel of firmware v1, `Image.gz`.
    pub(crate) kernel_v1: PathBuf,
    /// The kernel of firmware v2: it differs in `uname -v`.
    pub(crate) kernel_v2: PathBuf,
    /// arm64 packages (s6, execline, dropbear, busybox, mtd-utils and their libraries), unpacked; never written to.
    pub(crate) guest_root: PathBuf,
    /// The device binary whose hand-over fails on request, once [`Assets::with_faults`] made it.
    pub(crate) faulty_binary: Option<PathBuf>,
    /// The second board's parts, once [`Assets::with_armhf`] made them.
    pub(crate) armhf: Option<Armhf>,
    /// The host's tools.
    pub(crate) tools: Tools,
    /// This run's own folder (NOR files, consoles, keys), below the cache; removed when the run is over.
    pub(crate) scratch: PathBuf,
}

impl Assets {
    /// Every part by its name, for a user or a script; the tools only where they were unpacked.
    #[must_use]
    pub(crate) fn places(&self) -> Vec<(&'static str, &Path)> {
        let mut places: Vec<(&'static str, &Path)> = vec![
            ("device_binary", &self.device_binary),
            ("flashcp_binary", &self.flashcp_binary),
            ("qemu", &self.qemu),
            ("uboot", &self.uboot),
            ("kernel_v1", &self.kernel_v1),
            ("kernel_v2", &self.kernel_v2),
            ("guest_root", &self.guest_root),
        ];
        places.extend(self.tools.root.as_deref().map(|root| ("tools", root)));
        places.push(("cache", &self.cache));
        places
    }

    /// Makes the second board's parts, too. Most runs never need them: their packages are 90 MB more.
    ///
    /// # Errors
    /// A part could not be made.
    pub(crate) fn with_armhf(&mut self) -> error::Result<()> {
        self.armhf = Some(armhf::prepare(&self.cache, &self.tools)?);
        Ok(())
    }

    /// Makes the device binary with fault injection, too.
    ///
    /// # Errors
    /// It could not be made.
    pub(crate) fn with_faults(&mut self) -> error::Result<()> {
        self.faulty_binary = Some(setup::faulty(&self.cache)?);
        Ok(())
    }

    /// Removes this run's own folder. One that stays, after a failure, is removed by the next set-up.
    pub(crate) fn tidy(&self) {
        // what cannot be removed now is swept up by the next set-up
        let _ = std::fs::remove_dir_all(&self.scratch);
    }

    /// A command line for one of the host's tools (`mksquashfs`, `mkimage`, `mkenvimage`, `mkfs.jffs2`, `dtc`, `ssh`, ...).
    #[must_use]
    pub(crate) fn tool(&self, name: &str) -> Command {
        self.tools.command(name)
    }

    /// A command line that starts QEMU; it ends when the thread that starts it ends.
    #[must_use]
    pub(crate) fn qemu(&self) -> Command {
        self.tools.qemu(&self.qemu)
    }
}
