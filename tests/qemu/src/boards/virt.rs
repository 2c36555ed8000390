//! QEMU's `virt` board (aarch64): U-Boot in pflash0, a 64 MiB CFI NOR in pflash1. One function per concern of the
//! command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::assets::Assets;
use crate::nor_image;

/// The address that every firmware of this board has; not the one that QEMU's DHCP would give (10.0.2.15).
pub(crate) const ADDRESS: &str = "10.0.2.77";

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
    },
}

/// What a machine of this board is made with.
#[derive(Debug, Clone)]
pub(crate) struct Setup<'a> {
    /// The NOR's contents; written through by QEMU.
    pub(crate) nor: &'a Path,
    /// Bytes per second that the chip erases or programs; none for as fast as QEMU can.
    pub(crate) chip_speed: Option<u64>,
    /// Where the first instruction comes from.
    pub(crate) boot: &'a Boot,
    /// Mebibytes of RAM.
    pub(crate) memory: u32,
    /// Where the console's text goes.
    pub(crate) console: &'a Path,
    /// QEMU's control socket.
    pub(crate) qmp: &'a Path,
    /// The port on 127.0.0.1 that leads to the device's ssh.
    pub(crate) ssh_port: u16,
}

/// QEMU's whole command line.
pub(crate) fn command(assets: &Assets, setup: &Setup<'_>) -> Command {
    let mut qemu = assets.qemu();
    processor(&mut qemu, setup.memory);
    flash(&mut qemu, setup.nor, setup.chip_speed);
    boot(&mut qemu, setup.boot);
    network(&mut qemu, setup.ssh_port);
    console(&mut qemu, setup.console, setup.qmp);
    peripherals(&mut qemu);
    qemu
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
        Boot::Rescue { kernel, initrd } => {
            qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
            qemu.arg("-append").arg(format!("console=ttyAMA0 quiet {}", nor_image::mtdparts()));
        }
    }
}

fn network(qemu: &mut Command, ssh_port: u16) {
    qemu.arg("-netdev").arg(format!("user,id=n0,hostfwd=tcp:127.0.0.1:{ssh_port}-{ADDRESS}:22"));
    qemu.args(["-device", "virtio-net-device,netdev=n0,id=nic0"]);
}

fn console(qemu: &mut Command, console: &Path, qmp: &Path) {
    qemu.args(["-display", "none", "-monitor", "none"]);
    qemu.arg("-chardev").arg(format!("file,id=con,path={}", console.display()));
    qemu.args(["-serial", "chardev:con"]);
    qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", qmp.display()));
}

/// A source of entropy (without it dropbear waits for the kernel's pool) and a watchdog that resets the board.
fn peripherals(qemu: &mut Command) {
    qemu.args(["-device", "virtio-rng-device", "-device", "i6300esb", "-action", "watchdog=reset"]);
}
