//! QEMU's `ast2600-evb` (ARMv7): a 64 MiB SPI-NOR that behaves as real ones do (programming clears bits, nothing else),
//! and Debian's own kernel. No boot loader for it is packaged, so kernel and initramfs are given from outside.

use std::path::PathBuf;
use std::process::Command;

use super::Setup;
use crate::assets::Assets;
use crate::nor_image::Partition;

/// Bytes of the chip, an mx25u51245g.
pub(crate) const CHIP: u64 = 64 << 20;
/// Bytes of an erase block, as the kernel drives this chip.
pub(crate) const ERASE_BLOCK: u64 = 4 << 10;
/// Mebibytes of RAM: the board comes with no less, and a simulated NAND chip lies in it.
pub(crate) const MEMORY: u32 = 1024;

/// Partitions in the order of their MTD numbers, as the board's device tree has them.
pub(crate) const LAYOUT: [Partition; 5] = [
    Partition { name: "u-boot", offset: 0, size: 0xe_0000 },
    Partition { name: "u-boot-env", offset: 0xe_0000, size: 0x2_0000 },
    KERNEL,
    Partition { name: "rofs", offset: 0xa0_0000, size: 32 << 20 },
    Partition { name: "rwfs", offset: 0x2a0_0000, size: 22 << 20 },
];
/// The partition that scenarios write.
pub(crate) const KERNEL: Partition = Partition { name: "kernel", offset: 0x10_0000, size: 9 << 20 };

/// Kernel, device tree and initramfs from outside.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    /// A `zImage`.
    pub(crate) kernel: PathBuf,
    /// The board's, as a blob.
    pub(crate) device_tree: PathBuf,
    /// A newc archive.
    pub(crate) initrd: PathBuf,
}

impl super::Boot for Boot {
    fn command(&self, assets: &Assets, setup: &Setup<'_>) -> Command {
        // the emulator of the other board knows this one, too
        let mut qemu = assets.qemu();
        qemu.args(["-M", "ast2600-evb", "-accel", "tcg", "-m", &setup.memory.to_string()]);
        flash(&mut qemu, setup);
        qemu.arg("-kernel").arg(&self.kernel).arg("-dtb").arg(&self.device_tree);
        qemu.arg("-initrd").arg(&self.initrd);
        // without that much room for mappings the flash controller's window finds none
        qemu.args(["-append", "console=ttyS4,115200n8 quiet rdinit=/init panic=-1 vmalloc=768M"]);
        qemu.arg("-nic").arg(format!("{},id=nic0", super::user_network(setup)));
        super::console(&mut qemu, setup);
        if let Some(path) = setup.chip_log {
            qemu.args(["-trace", "m25p80_flash_erase", "-trace", "m25p80_page_program", "-D"]).arg(path);
        }
        qemu
    }

    fn keeps_host_key(&self) -> bool {
        false
    }
}

/// The chip writes its file behind the guest's back, so a throttle would not make it any slower.
fn flash(qemu: &mut Command, setup: &Setup<'_>) {
    qemu.arg("-drive").arg(format!("if=mtd,format=raw,file={}", setup.nor.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partitions_fill_the_chip_without_a_gap() {
        let mut end = 0;
        for partition in LAYOUT {
            assert_eq!(partition.offset, end, "{}", partition.name);
            assert_eq!(partition.offset % ERASE_BLOCK, 0);
            end = partition.range().end;
        }
        assert_eq!(end, CHIP);
    }
}
