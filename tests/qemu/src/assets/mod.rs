//! The parts that an emulated board is made of, and how they get onto this machine: no root, nothing installed.
//!
//! What is made of what: package lists give exact versions, those the tools and the guest's material, the tools two
//! kernels and the device binary. Everything lies in a cache folder under a key of what it is made from.

mod apt;
pub mod child;
pub mod cross;
pub mod error;
mod kernel;
mod lock;
mod packages;
pub mod places;
mod setup;
pub mod tools;
mod unpack;

use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

pub use error::SetupError;
pub use setup::prepare;
pub use tools::Tools;

/// Where every part lies. `cargo demo --setup-only --json` prints exactly this.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// This run's own folder (NOR files, consoles, keys), below the cache; removed when the run is over.
    pub scratch: PathBuf,
}

impl Assets {
    /// A command line for one of the host's tools (`mksquashfs`, `mkimage`, `mkenvimage`, `mkfs.jffs2`, `dtc`, `ssh`, ...).
    #[must_use]
    pub fn tool(&self, name: &str) -> Command {
        self.tools.command(name)
    }

    /// A command line that starts QEMU; it ends when the thread that starts it ends.
    #[must_use]
    pub fn qemu(&self) -> Command {
        self.tools.qemu(&self.qemu)
    }
}
