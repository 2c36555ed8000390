//! The parts that an emulated board is made of, and how they get onto this machine: no root, nothing installed.

pub mod tools;

use std::path::PathBuf;
use std::process::Command;

use serde::Serialize;

pub use tools::Tools;

/// Where every part lies. `cargo demo --setup-only --json` prints exactly this.
#[derive(Clone, Debug, Serialize)]
pub struct Assets {
    /// The cache folder; nothing outside of it and of the checkout's `target` was written.
    pub cache: PathBuf,
    /// The static aarch64 multi-call binary, `levitate`.
    pub device_binary: PathBuf,
    /// The static aarch64 `flashcp` that is built on its own.
    pub flashcp_binary: PathBuf,
    /// `qemu-system-aarch64`; start it by [`Assets::qemu`].
    pub qemu: PathBuf,
    /// U-Boot for the `virt` board, as it lies at the start of pflash0.
    pub uboot: PathBuf,
    /// The kernel of firmware v1, `Image.gz`.
    pub kernel_v1: PathBuf,
    /// The kernel of firmware v2: it differs in `uname -v`.
    pub kernel_v2: PathBuf,
    /// arm64 packages (s6, execline, dropbear, busybox, mtd-utils and their libraries), unpacked; never written to.
    pub guest_root: PathBuf,
    /// The host's tools.
    pub tools: Tools,
    /// This run's own folder (NOR files, consoles, keys), below the cache; removed when the run succeeds.
    pub scratch: PathBuf,
}

impl Assets {
    /// A command line for one of the host's tools (`mksquashfs`, `mkimage`, `mkenvimage`, `mkfs.jffs2`, `dtc`, `ssh`, ...).
    #[must_use]
    pub fn tool(&self, name: &str) -> Command {
        self.tools.command(name)
    }

    /// A command line that starts QEMU; it ends with the process that started it.
    #[must_use]
    pub fn qemu(&self) -> Command {
        self.tools.qemu(&self.qemu)
    }
}
