//! U-Boot's environment, where U-Boot for `virt` looks for it: at the start of pflash1.

use std::path::Path;

use crate::assets::Assets;
use crate::nor_image::{self, BANK, ENV, KERNEL, ROOTFS};
use crate::suite::Failure;

/// Writes the environment's image, checksum included.
pub(super) fn write(assets: &Assets, init: &str, out: &Path) -> Result<(), Failure> {
    let text = out.with_extension("txt");
    super::write(&text, variables(init).as_bytes())?;
    let mut mkenvimage = assets.tool("mkenvimage");
    mkenvimage.args(["-s", &ENV.size.to_string(), "-o"]).arg(out).arg(&text);
    super::run_tool(mkenvimage)
}

/// The FIT's configuration must be named (`#c`), and the device tree is the one that QEMU made.
fn variables(init: &str) -> String {
    format!(
        "bootdelay=0\nfdt_high=0xffffffff\ninitrd_high=0xffffffff\n\
         bootargs=console=ttyAMA0 root=/dev/mtdblock{} rootfstype=squashfs ro init={init} quiet {}\n\
         bootcmd=bootm {:#010x}#c - ${{fdtcontroladdr}}; echo no valid kernel; sleep 1; reset\n",
        nor_image::mtd_number(&ROOTFS),
        nor_image::mtdparts(),
        BANK + KERNEL.offset,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_started_from_its_partition_and_the_root_is_the_rootfs_partition() {
        let text = variables("/init");
        assert!(text.contains("bootm 0x04040000#c - ${fdtcontroladdr}"), "{text}");
        assert!(text.contains("root=/dev/mtdblock4 ") && text.contains(" init=/init "), "{text}");
    }
}
