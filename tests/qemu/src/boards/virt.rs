//! QEMU's `virt` board (aarch64): U-Boot in pflash0, a 64 MiB CFI NOR in pflash1. One function per concern of the
//! command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Setup;
use crate::assets::Assets;
use crate::nor_image;

/// Where the first instruction comes from.
#[derive(Debug, Clone)]
pub(crate) enum Boot {
    /// Power-on: U-Boot from pflash0, which reads its environment and the kernel from the NOR.
    Flash {
        /// The bank that holds U-Boot.
        uboot_bank: PathBuf,
    },
    /// A rescue boot: kernel and initramfs given from outside; the NOR is there and nothing on it is used.
    Rescue {
        /// The kernel's `Image.gz`.
        kernel: PathBuf,
        /// A newc archive.
        initrd: PathBuf,
        /// More words for the kernel.
        append: String,
    },
}

impl super::Boot for Boot {
    fn command(&self, assets: &Assets, setup: &Setup<'_>) -> Command {
        let mut qemu = assets.qemu();
        processor(&mut qemu, setup.memory);
        flash(&mut qemu, setup.nor, setup.chip_speed);
        boot(&mut qemu, self);
        network(&mut qemu, setup);
        super::console(&mut qemu, setup);
        peripherals(&mut qemu);
        if let Some(disk) = setup.disk {
            qemu.arg("-drive").arg(format!("if=none,id=disk0,format=raw,file={}", disk.display()));
            qemu.args(["-device", "virtio-blk-device,drive=disk0"]);
        }
        qemu
    }

    fn keeps_host_key(&self) -> bool {
        matches!(self, Self::Flash { .. })
    }
}

fn processor(qemu: &mut Command, memory: u32) {
    qemu.args(["-M", "virt", "-cpu", "cortex-a53", "-accel", "tcg", "-m", &memory.to_string()]);
}

/// QEMU's chip is as fast as a file; throttling its file makes erasing and programming take their time.
fn flash(qemu: &mut Command, nor: &Path, chip_speed: Option<u64>) {
    let throttle = chip_speed.map(|speed| format!(",throttling.bps-write={speed}")).unwrap_or_default();
    qemu.arg("-drive").arg(format!("if=pflash,unit=1,format=raw,file={}{throttle}", nor.display()));
}

fn boot(qemu: &mut Command, boot: &Boot) {
    match boot {
        Boot::Flash { uboot_bank } => {
            let drive = format!("if=pflash,unit=0,format=raw,readonly=on,file={}", uboot_bank.display());
            qemu.arg("-drive").arg(drive);
        }
        // Without pflash0: a blank file there makes QEMU start from it and hang.
        Boot::Rescue { kernel, initrd, append } => {
            qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
            qemu.arg("-append").arg(format!("console=ttyAMA0 quiet {} {append}", nor_image::mtdparts()));
        }
    }
}

fn network(qemu: &mut Command, setup: &Setup<'_>) {
    qemu.arg("-netdev").arg(format!("{},id=n0", super::user_network(setup)));
    qemu.args(["-device", "virtio-net-device,netdev=n0,id=nic0"]);
}

/// A source of entropy (without it dropbear waits for the kernel's pool), a watchdog that resets the board, and a socket
/// into which something can be plugged.
fn peripherals(qemu: &mut Command) {
    qemu.args(["-device", "virtio-rng-device", "-device", "i6300esb", "-action", "watchdog=reset"]);
    qemu.args(["-device", "pcie-root-port,id=socket,chassis=1,slot=1"]);
}
