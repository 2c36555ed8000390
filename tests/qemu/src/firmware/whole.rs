//! A firmware for measuring: v1, and beside what it needs all that came with its Debian packages, as a device has it
//! whose owner installs packages.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::rootfs::{self, Programs};
use super::system::System;
use super::{Firmware, fit, kept, key, nor_image, uboot_env};
use crate::assets::Assets;
use crate::nor_image::{ENV, KERNEL, ROOTFS};
use crate::suite::Failure;

/// Folders of the packages, and where they lie after the merge of /usr. What `rootfs` has put there already stays.
const FOLDERS: [(&str, &str); 6] = [
    ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"),
    ("usr/lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"),
    ("sbin", "usr/sbin"),
    ("usr/sbin", "usr/sbin"),
    ("bin", "usr/bin"),
    ("usr/bin", "usr/bin"),
];

/// What the names of those packages' files begin with; the folders hold other guests' packages, too.
const NAMES: &[&str] = &[
    // dropbear-bin, mtd-utils
    "dbclient",
    "doc_loadbios",
    "docfdisk",
    "dropbear",
    "flash",
    "ftl",
    "jffs2",
    "mkfs.jffs2",
    "mkfs.ubifs",
    "mtd",
    "nand",
    "rfd",
    "serve_image",
    "sumtool",
    "ubi",
    // libc6, libcrypt1, libgmp10, libtomcrypt1, libtommath1, zlib1g, libzstd1, libssl3, liblzo2-2, libuuid1
    "gconv",
    "ld-linux",
    "libBrokenLocale",
    "libanl",
    "libc.so",
    "libc_malloc",
    "libdl",
    "libm.so",
    "libmemusage",
    "libnsl",
    "libnss_",
    "libpcprofile",
    "libpthread",
    "libresolv",
    "librt",
    "libthread_db",
    "libutil",
    "libcrypt.so",
    "libgmp",
    "libtomcrypt",
    "libtommath",
    "libz.so",
    "libzstd",
    "libssl",
    "libcrypto",
    "liblzo2",
    "libuuid",
];

/// A NOR chip with that firmware; built once.
pub(crate) fn chip(assets: &Assets, firmware: &Firmware) -> Result<PathBuf, Failure> {
    let name = format!("{}-whole", key(assets, &firmware.ssh_key, System::S6)?);
    let folder = kept(assets, &name, |out| {
        let (kernel, env, squashed) = (out.join("kernel.fit"), out.join("env.img"), out.join("rootfs"));
        fit::write(assets, &assets.kernel_v1, &kernel)?;
        uboot_env::write(assets, "/init", &env)?;
        let tree = tempfile::tempdir_in(out).map_err(Failure::harness)?;
        super::sysroot(assets, &firmware.ssh_key, tree.path())?;
        for (from, to) in FOLDERS {
            let from = assets.guest_root.join(from);
            if from.is_dir() {
                merge(&from, &tree.path().join(to), NAMES)?;
            }
        }
        // ours is in the place of Debian's
        let peer = assets.guest_root.join("usr/sbin/flashcp");
        fs::copy(&peer, tree.path().join("usr/sbin/flashcp.mtd-utils"))
            .map_err(|e| Failure::file("copy", &peer, e))?;
        rootfs::squash(assets, tree.path(), "128K", &squashed)?;
        nor_image::create(&out.join("nor.img"), &[(&ENV, &env), (&KERNEL, &kernel), (&ROOTFS, &squashed)])
    })?;
    Ok(folder.join("nor.img"))
}

/// Copies what in `from` begins with one of `names`, and folders of those names whole.
fn merge(from: &Path, to: &Path, names: &[&str]) -> Result<(), Failure> {
    super::make_folder(to)?;
    for entry in fs::read_dir(from).map_err(|e| Failure::file("list", from, e))? {
        let entry = entry.map_err(Failure::harness)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !names.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(Failure::harness)?;
        if kind.is_dir() {
            merge(&from, &to, &[""])?;
        } else if to.symlink_metadata().is_err() {
            let made = if kind.is_symlink() {
                fs::read_link(&from).and_then(|target| symlink(target, &to))
            } else {
                fs::copy(&from, &to).map(drop)
            };
            made.map_err(|e| Failure::file("copy", &from, e))?;
        }
    }
    Ok(())
}

/// The root of firmware v1 below the folder `root`, which is made.
pub(crate) fn sysroot(assets: &Assets, ssh_key: &Path, root: &Path) -> Result<(), Failure> {
    super::make_folder(root)?;
    rootfs::assemble(
        Programs::arm64(assets),
        rootfs::Kind::System { version: "1", system: System::S6 },
        ssh_key,
        root,
    )
}
