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

/// Where the device tree goes, and right below it what of RAM outlives a reset: far from the kernel (at 0x40200000), and
/// from U-Boot at the end of the smallest RAM.
const DEVICE_TREE: u64 = 0x4190_0000;
const RAMOOPS: u64 = DEVICE_TREE - RAMOOPS_BYTES;
const RAMOOPS_BYTES: u64 = 0x4_0000;

/// U-Boot's commands (its shell takes `#` for a comment) for the reserved memory that the kernel's ramoops looks for
/// (`Documentation/devicetree/bindings/reserved-memory/ramoops.yaml`): half for a dying kernel's words, half for services'.
fn reserve() -> String {
    let (parent, half) = ("/reserved-memory", RAMOOPS_BYTES / 2);
    let node = format!("{parent}/ramoops@{RAMOOPS:x}");
    [
        "fdt addr ${fdtcontroladdr}".to_owned(),
        format!("fdt move ${{fdtcontroladdr}} {DEVICE_TREE:#x} 0x110000"),
        format!("fdt mknode / {}", &parent[1..]),
        format!("fdt set {parent} '#address-cells' <2>"),
        format!("fdt set {parent} '#size-cells' <2>"),
        format!("fdt set {parent} ranges"),
        format!("fdt mknode {parent} ramoops@{RAMOOPS:x}"),
        format!("fdt set {node} compatible ramoops"),
        format!("fdt set {node} reg <0 {RAMOOPS:#x} 0 {RAMOOPS_BYTES:#x}>"),
        format!("fdt set {node} record-size <{half:#x}>"),
        format!("fdt set {node} pmsg-size <{half:#x}>"),
    ]
    .join("; ")
}

/// The FIT's configuration must be named (`#c`), and the device tree is the one that QEMU made, with one node more.
fn variables(init: &str) -> String {
    format!(
        "reserve={}\nbootdelay=0\nfdt_high=0xffffffff\ninitrd_high=0xffffffff\n\
         bootargs=console=ttyAMA0 root=/dev/mtdblock{} rootfstype=squashfs ro init={init} quiet {}\n\
         bootcmd=run reserve; bootm {:#010x}#c - {DEVICE_TREE:#x}; echo no valid kernel; sleep 1; reset\n",
        reserve(),
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
        assert!(text.contains("=run reserve; bootm 0x04040000#c - 0x41900000;"), "{text}");
        assert!(text.contains("root=/dev/mtdblock4 ") && text.contains(" init=/init "), "{text}");
    }
}
