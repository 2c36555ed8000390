//! The firmware of the emulated device: v1 on a NOR chip as it leaves the factory, v2 as one `firmware.bin`, and a
//! rescue root. Built once for each set of inputs, kept in the cache. A v1 with another init than the main job's is built
//! when the first scenario asks for it.

pub(crate) mod ast2600;
mod fit;
pub(crate) mod initrd;
mod libraries;
mod modules;
mod rootfs;
mod system;
mod uboot_env;
pub(crate) mod whole;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::assets::{Assets, keep, unpack};
use crate::boards::virt::Boot;
use crate::nor_image::{self, ENV, FIRMWARE, KERNEL, ROOTFS};
use crate::process;
use crate::suite::Failure;
pub(crate) use system::System;

use rootfs::Programs;
pub(crate) use whole::sysroot;

/// Where the files that are laid over Debian's packages lie.
const DEVICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/device");

/// Everything a scenario needs of the firmware, as files.
#[derive(Debug, Clone)]
pub(crate) struct Firmware {
    /// A NOR chip with firmware v1, a U-Boot environment and a blank `data`.
    pub(crate) nor_v1: PathBuf,
    /// Firmware v2: what `flashcp` writes to `mtd:firmware`.
    pub(crate) firmware_v2: PathBuf,
    /// pflash0: U-Boot.
    pub(crate) uboot_bank: PathBuf,
    /// The root of a rescue boot, a newc archive.
    pub(crate) rescue: PathBuf,
    /// The kernel of a rescue boot.
    pub(crate) rescue_kernel: PathBuf,
    /// The private key that every root lets in.
    pub(crate) ssh_key: PathBuf,
}

impl Firmware {
    /// The device of the main job. Builds what the cache does not hold yet.
    pub(crate) fn build(assets: &Assets) -> Result<Self, Failure> {
        let ssh_key = ssh_key(assets)?;
        let key = key(assets, &ssh_key, System::S6)?;
        let folder = kept(assets, &key, |folder| build_in(assets, &ssh_key, folder))?;
        Ok(Self {
            nor_v1: folder.join("nor-v1.img"),
            firmware_v2: folder.join("firmware.bin"),
            uboot_bank: folder.join("pflash0.img"),
            rescue: folder.join("rescue.cpio"),
            rescue_kernel: assets.kernel_v1.clone(),
            ssh_key,
        })
    }

    /// A device whose v1 runs `system`; everything else, v2 included, is the main job's.
    pub(crate) fn of(assets: &Assets, system: System) -> Result<Self, Failure> {
        let base = Self::build(assets)?;
        if system == System::S6 {
            return Ok(base);
        }
        let key = format!("{}-{}", system.name(), key(assets, &base.ssh_key, system)?);
        if system == System::Initramfs {
            let folder = kept(assets, &key, |folder| initramfs(assets, &base.ssh_key, folder))?;
            return Ok(Self { rescue: folder.join("system.cpio"), ..base });
        }
        let folder = kept(assets, &key, |folder| nor_v1(assets, system, &base.ssh_key, folder))?;
        Ok(Self { nor_v1: folder.join("nor-v1.img"), ..base })
    }
}

impl Firmware {
    /// Power-on through U-Boot.
    pub(crate) fn flash_boot(&self) -> Boot {
        Boot::Flash { uboot_bank: self.uboot_bank.clone() }
    }

    /// A rescue boot, with the kernel of v1.
    pub(crate) fn rescue_boot(&self) -> Boot {
        Boot::Rescue {
            kernel: self.rescue_kernel.clone(),
            initrd: self.rescue.clone(),
            append: String::new(),
        }
    }
}

/// Folders of this kind that are kept besides those in use, at about 130 MB each.
const KEPT: usize = 12;

/// The folder `key` among those that are kept; where it is not there, `build` fills it, all or nothing.
fn kept(
    assets: &Assets,
    key: &str,
    build: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<PathBuf, Failure> {
    let all = assets.cache.join("firmware");
    let folder = make_folder(&all)?.join(key);
    let hold = || keep::hold(&folder).map_err(|e| Failure::file("lock", &folder, e));
    if hold()? {
        return Ok(folder);
    }
    // One builder at a time: the second of two scenarios with the same wish finds it done.
    let builder = all.join("builder.lock");
    let lock = File::create(&builder).map_err(|e| Failure::file("create", &builder, e))?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| Failure::harness(e))?;
    if hold()? {
        return Ok(folder);
    }
    keep::sweep_unfinished(&all).map_err(|e| Failure::file("tidy", &all, e))?;
    let new = tempfile::Builder::new().prefix(keep::UNFINISHED).tempdir_in(&all).map_err(Failure::harness)?;
    build(new.path())?;
    unpack::settle(new.path()).map_err(|e| Failure::file("write to disk", new.path(), e))?;
    std::fs::rename(new.path(), &folder).map_err(|e| Failure::file("make", &folder, e))?;
    drop(new.keep());
    let held = hold()?;
    keep::prune(&all, "", KEPT).map_err(|e| Failure::file("tidy", &all, e))?;
    drop(lock);
    if held { Ok(folder) } else { Err(Failure::harness(format!("{} is gone", folder.display()))) }
}

fn build_in(assets: &Assets, ssh_key: &Path, out: &Path) -> Result<(), Failure> {
    nor_v1(assets, System::S6, ssh_key, out)?;
    let v2 = version(assets, System::S6, ssh_key, out, "2")?;
    let mut image = std::fs::read(&v2.kernel).map_err(|e| Failure::file("read", &v2.kernel, e))?;
    image.resize(usize::try_from(ROOTFS.offset - FIRMWARE.offset).map_err(Failure::harness)?, 0xff);
    image.extend(std::fs::read(&v2.rootfs).map_err(|e| Failure::file("read", &v2.rootfs, e))?);
    write(&out.join("firmware.bin"), &image)?;

    let mut bank = std::fs::read(&assets.uboot).map_err(|e| Failure::file("read", &assets.uboot, e))?;
    bank.resize(usize::try_from(nor_image::BANK).map_err(Failure::harness)?, 0);
    write(&out.join("pflash0.img"), &bank)?;

    let tree = tempfile::tempdir_in(out).map_err(Failure::harness)?;
    rootfs::assemble(Programs::arm64(assets), rootfs::Kind::Rescue, ssh_key, tree.path())?;
    initrd::write(tree.path(), &out.join("rescue.cpio"))
}

/// The chip of a device as it leaves the factory.
fn nor_v1(assets: &Assets, system: System, ssh_key: &Path, out: &Path) -> Result<(), Failure> {
    let v1 = version(assets, system, ssh_key, out, "1")?;
    let env = out.join("env.img");
    uboot_env::write(assets, system.parts().init, &env)?;
    nor_image::create(
        &out.join("nor-v1.img"),
        &[(&ENV, env.as_path()), (&KERNEL, v1.kernel.as_path()), (&ROOTFS, v1.rootfs.as_path())],
    )
}

/// The root of v1 as an archive, to be booted in the place of a rescue root.
fn initramfs(assets: &Assets, ssh_key: &Path, out: &Path) -> Result<(), Failure> {
    let tree = tempfile::tempdir_in(out).map_err(Failure::harness)?;
    let kind = rootfs::Kind::System { version: "1", system: System::Initramfs };
    rootfs::assemble(Programs::arm64(assets), kind, ssh_key, tree.path())?;
    initrd::write(tree.path(), &out.join("system.cpio"))
}

/// The two halves of a firmware.
struct Halves {
    kernel: PathBuf,
    rootfs: PathBuf,
}

fn version(
    assets: &Assets,
    system: System,
    ssh_key: &Path,
    out: &Path,
    version: &'static str,
) -> Result<Halves, Failure> {
    let halves = Halves {
        kernel: out.join(format!("kernel-v{version}.fit")),
        rootfs: out.join(format!("rootfs-v{version}.squashfs")),
    };
    let kernel = if version == "1" { &assets.kernel_v1 } else { &assets.kernel_v2 };
    fit::write(assets, kernel, &halves.kernel)?;
    let tree = tempfile::tempdir_in(out).map_err(Failure::harness)?;
    let kind = rootfs::Kind::System { version, system };
    rootfs::assemble(Programs::arm64(assets), kind, ssh_key, tree.path())?;
    rootfs::squash(assets, tree.path(), if version == "1" { "128K" } else { "64K" }, &halves.rootfs)?;
    Ok(halves)
}

/// The ssh key of this cache: made once, so that a user can look around with it later.
fn ssh_key(assets: &Assets) -> Result<PathBuf, Failure> {
    let key = make_folder(&assets.cache.join("ssh"))?.join("id_ed25519");
    if !key.exists() {
        let new = tempfile::tempdir_in(assets.cache.join("ssh")).map_err(Failure::harness)?;
        let made = new.path().join("id_ed25519");
        let mut keygen = assets.tool("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "levitate-harness", "-f"]).arg(&made);
        run_tool(keygen)?;
        for name in ["id_ed25519.pub", "id_ed25519"] {
            let to = key.with_file_name(name);
            std::fs::rename(new.path().join(name), &to).map_err(|e| Failure::file("make", &to, e))?;
        }
    }
    Ok(key)
}

/// What the firmware is made from, as a name: the same inputs give the same name.
fn key(assets: &Assets, ssh_key: &Path, system: System) -> Result<String, Failure> {
    let files: [&Path; 5] =
        [&assets.device_binary, &assets.uboot, &assets.kernel_v1, &assets.kernel_v2, ssh_key];
    let kinds = [rootfs::Kind::System { version: "", system }, rootfs::Kind::Rescue];
    let mut hash = hash_of(&files, &kinds)?;
    hash.update(assets.guest_root.as_os_str().as_encoded_bytes());
    // The cache's folder of unpacked packages is itself keyed by their versions; one that the user named may change.
    if !assets.guest_root.starts_with(&assets.cache) {
        look_over(&assets.guest_root, &mut hash)?;
    }
    hash.update(nor_image::mtdparts());
    Ok(name(hash))
}

/// The contents of `files`, and everything that roots of these kinds are put together by.
fn hash_of(files: &[&Path], kinds: &[rootfs::Kind]) -> Result<Sha256, Failure> {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(std::fs::read(file).map_err(|e| Failure::file("read", file, e))?);
    }
    hash.update(include_str!("mod.rs"));
    hash.update(include_str!("fit.rs"));
    hash.update(include_str!("initrd.rs"));
    hash.update(include_str!("libraries.rs"));
    hash.update(include_str!("rootfs.rs"));
    hash.update(include_str!("system.rs"));
    hash.update(include_str!("uboot_env.rs"));
    hash.update(include_str!("whole.rs"));
    for layer in kinds.iter().flat_map(|kind| rootfs::layers(*kind)) {
        for (path, mode) in rootfs::overlay_files(&Path::new(DEVICE).join(layer))? {
            hash.update(path.strip_prefix(DEVICE).unwrap_or(&path).as_os_str().as_encoded_bytes());
            hash.update(mode.to_le_bytes());
            hash.update(std::fs::read(&path).map_err(|e| Failure::file("read", &path, e))?);
        }
    }
    Ok(hash)
}

/// Names, sizes and times of all that is in a folder.
fn look_over(folder: &Path, hash: &mut Sha256) -> Result<(), Failure> {
    let failed = |e| Failure::file("look at", folder, e);
    let mut entries: Vec<_> = std::fs::read_dir(folder).and_then(Iterator::collect).map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let data = entry.metadata().map_err(failed)?;
        hash.update(entry.path().as_os_str().as_encoded_bytes());
        hash.update([data.len(), data.mtime().cast_unsigned()].map(u64::to_le_bytes).concat());
        if data.is_dir() {
            look_over(&entry.path(), hash)?;
        }
    }
    Ok(())
}

fn name(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Runs one of the image tools; that it fails is a failure of the harness.
fn run_tool(command: Command) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = process::run(command, None, Duration::from_secs(120))?;
    if done.code == Some(0) { Ok(()) } else { Err(Failure::harness(format!("{name}: {done}"))) }
}

fn make_folder(path: &Path) -> Result<&Path, Failure> {
    std::fs::create_dir_all(path).map_err(|e| Failure::file("make", path, e))?;
    Ok(path)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|e| Failure::file("write", path, e))
}
