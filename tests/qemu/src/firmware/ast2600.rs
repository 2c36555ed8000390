//! The second board's rescue root: Debian's kernel, the modules that it needs, and the programs of every rescue root.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::rootfs::{self, Programs};
use super::{hash_of, initrd, kept, modules, name, ssh_key};
use crate::assets::{Armhf, Assets};
use crate::boards::ast2600::{Boot, CHIP, MEMORY};
use crate::check::check;
use crate::machine::Device;
use crate::suite::Failure;

/// Loaded at boot. The order counts beyond what they say of each other: without `ofpart` the chip has no partitions,
/// without `mdio-aspeed` the network has no link.
const LOADED: [&str; 6] = ["ofpart", "spi-nor", "spi-aspeed-smc", "mtdblock", "mdio-aspeed", "ftgmac100"];
/// What a keyboard needs, and the flash without a network.
const KEYBOARD: [&str; 6] = ["ofpart", "spi-nor", "spi-aspeed-smc", "ehci-platform", "usbhid", "hid-generic"];
/// Brought along, for a scenario to load. UBIFS asks for its compressors by name, without a dependency.
const ASIDE: [&str; 8] = ["nandsim", "ubi", "zstd", "deflate", "ubifs", "jffs2", "squashfs", "loop"];
/// Where the first of them lies in the root.
pub(crate) const NANDSIM: &str = "/lib/modules/nandsim.ko";
/// The files of all the others, in the order in which they can be loaded.
const MORE_MODULES: &str = "/etc/modules.more";
/// Loads all the others.
pub(crate) const LOAD_MORE: &str =
    "while read -r module; do insmod \"$module\" || exit 1; done < /etc/modules.more";
/// What a scenario sets flash up with, from Debian's mtd-utils; by their names in /usr/sbin.
const UTILITIES: [&str; 5] = ["ubiattach", "ubidetach", "ubimkvol", "ubiblock", "mtdpart"];

/// What a scenario on the second board needs.
#[derive(Debug, Clone)]
pub(crate) struct Rescue {
    /// The way to switch it on.
    pub(crate) boot: Boot,
    ssh_key: PathBuf,
}

impl Rescue {
    /// Builds what the cache does not hold yet.
    pub(crate) fn build(assets: &Assets) -> Result<Self, Failure> {
        let armhf = parts(assets)?;
        let ssh_key = ssh_key(assets)?;
        let folder = kept(assets, &key(armhf, &ssh_key)?, |folder| build_in(armhf, &ssh_key, folder))?;
        let boot = Boot {
            kernel: armhf.kernel.clone(),
            device_tree: armhf.device_tree.clone(),
            initrd: folder.join("rescue.cpio"),
        };
        Ok(Self { boot, ssh_key })
    }

    /// The same board with a root of a scenario's own, to which the modules for the flash and for a keyboard at the USB
    /// socket are added.
    pub(crate) fn boot_with_keyboard(&self, assets: &Assets, root: &Path) -> Result<Boot, Failure> {
        let armhf = parts(assets)?;
        super::make_folder(&root.join("usr/lib/modules"))?;
        symlink("usr/lib", root.join("lib")).map_err(|e| Failure::file("link", root, e))?;
        add_modules(armhf, &KEYBOARD, root)?;
        let initrd = root.with_extension("cpio");
        initrd::write(root, &initrd)?;
        Ok(Boot { initrd, ..self.boot.clone() })
    }

    /// A board whose chip holds `contents`.
    pub(crate) fn device(&self, assets: &Assets, contents: &[u8]) -> Result<Device, Failure> {
        check!(contents.len() as u64 == CHIP, "{} bytes are no contents of this chip", contents.len());
        let file = tempfile::NamedTempFile::new_in(&assets.scratch).map_err(Failure::harness)?;
        super::write(file.path(), contents)?;
        let mut device = Device::with_chip(assets, file.path(), &self.ssh_key)?;
        device.memory = MEMORY;
        device.log_chip = true;
        Ok(device)
    }
}

/// The board's parts, which set-up makes for those who say that they need them.
pub(crate) fn parts(assets: &Assets) -> Result<&Armhf, Failure> {
    let missing = || Failure::harness("the parts of the board ast2600-evb were not made");
    assets.armhf.as_ref().ok_or_else(missing)
}

fn build_in(armhf: &Armhf, ssh_key: &Path, out: &Path) -> Result<(), Failure> {
    let tree = tempfile::tempdir_in(out).map_err(Failure::harness)?;
    let root = tree.path();
    let programs = Programs {
        packages: &armhf.guest_root,
        device_binary: &armhf.device_binary,
        triplet: "arm-linux-gnueabihf",
        loader: "ld-linux-armhf.so.3",
    };
    rootfs::assemble(programs, rootfs::Kind::Rescue, ssh_key, root)?;
    add_modules(armhf, &LOADED, root)?;
    let mut more = String::new();
    for module in modules::in_order(&armhf.modules, &ASIDE)? {
        let path = add_module(&module, root)?;
        if path != NANDSIM {
            more += &format!("{path}\n");
        }
    }
    super::write(&root.join(MORE_MODULES.trim_start_matches('/')), more.as_bytes())?;
    for name in UTILITIES {
        let path = Path::new("usr/sbin").join(name);
        let from = armhf.guest_root.join(&path);
        std::fs::copy(&from, root.join(&path)).map_err(|e| Failure::file("copy", &from, e))?;
    }
    initrd::write(root, &out.join("rescue.cpio"))
}

/// Copies the kernel's modules `names`, and what they need, into the root; /etc/modules there lists them in the order in
/// which they can be loaded.
fn add_modules(armhf: &Armhf, names: &[&str], root: &Path) -> Result<(), Failure> {
    let mut listed = String::new();
    for module in modules::in_order(&armhf.modules, names)? {
        listed += &format!("{}\n", add_module(&module, root)?);
    }
    super::write(&root.join("etc/modules"), listed.as_bytes())
}

/// Copies a module into the root; its path there.
fn add_module(module: &Path, root: &Path) -> Result<String, Failure> {
    let file = module.file_name().unwrap_or_default().to_string_lossy();
    let folder = super::make_folder(&root.join("usr/lib/modules"))?.to_owned();
    std::fs::copy(module, folder.join(&*file)).map_err(|e| Failure::file("copy", module, e))?;
    Ok(format!("/lib/modules/{file}"))
}

fn key(armhf: &Armhf, ssh_key: &Path) -> Result<String, Failure> {
    use sha2::Digest;
    let mut hash = hash_of(&[&armhf.device_binary, ssh_key], &[rootfs::Kind::Rescue])?;
    // The folder of the unpacked packages is itself keyed by their versions.
    hash.update(armhf.guest_root.as_os_str().as_encoded_bytes());
    hash.update(include_str!("ast2600.rs"));
    hash.update(include_str!("modules.rs"));
    Ok(name(hash))
}
