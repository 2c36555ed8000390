//! The parts of the second board, for those who ask: Debian's own kernel for ARMv7, programs for it, and the device
//! binary built for that processor.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::apt::{Apt, ResolvedArmhf};
use super::device::Device;
use super::error::{Result, SetupError};
use super::lock::Lock;
use super::mirrors::Mirrors;
use super::packages::{self, Deb};
use super::places::{Cross, Overrides};
use super::setup::{debian, trim, write_pin};
use super::target::ARMV7;
use super::tools::Tools;
use super::{cross, keep, musl, unpack};
use crate::progress::{Progress, megabytes};

/// Raised when what is done with unpacked packages changes.
const RECIPE: &str = "1";
/// So many folders of unpacked packages are kept besides those in use.
const KEPT: usize = 2;
/// The cross compiler with its libraries, from the folder of its packages.
const GCC: &str = "armv7-gcc";

/// Where the second board's parts lie.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Armhf {
    /// The kernel, `zImage`.
    pub(crate) kernel: PathBuf,
    /// The board's device tree.
    pub(crate) device_tree: PathBuf,
    /// The kernel's modules: the folder named after its version.
    pub(crate) modules: PathBuf,
    /// armhf packages (dropbear, busybox, mtd-utils and their libraries), unpacked; never written to.
    pub(crate) guest_root: PathBuf,
    /// The static armv7 multi-call binary, `levitate`.
    pub(crate) device_binary: PathBuf,
}

/// Makes every part that is not there yet; `tools` are those of the first board.
///
/// # Errors
/// A part could not be made; the text says which.
pub(super) fn prepare(cache: &Path, tools: &Tools) -> Result<Armhf> {
    let overrides = Overrides::from_environment()?;
    if !debian() {
        return Err(SetupError::Missing(
            "the board ast2600-evb is made from Debian's packages, and this is no amd64 machine with apt-get and dpkg-deb"
                .into(),
        ));
    }
    let _lock = Lock::take(cache, &mut |text| eprintln!("[ast2600] {text}"))?;
    let way = overrides.cross.unwrap_or_else(|| cross::detect(&ARMV7));
    let mut parts = Parts { cache, tools, way, progress: Progress::new("ast2600", 4), overrides };
    let (place, versions) = parts.packages()?;
    let device_binary = parts.binary(&place, &versions)?;
    let guest_root = place.join("guest");
    let release = only(&guest_root.join("lib/modules"))?;
    let version = release.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Armhf {
        kernel: guest_root.join(format!("boot/vmlinuz-{version}")),
        device_tree: guest_root.join(format!("usr/lib/linux-image-{version}/aspeed-ast2600-evb.dtb")),
        modules: release,
        guest_root,
        device_binary,
    })
}

struct Parts<'a> {
    cache: &'a Path,
    tools: &'a Tools,
    way: Cross,
    progress: Progress,
    overrides: Overrides,
}

impl Parts<'_> {
    /// The folder with everything unpacked, and the versions of what makes the device binary.
    fn packages(&mut self) -> Result<(PathBuf, String)> {
        let apt = Apt::new(self.cache, &self.overrides, Mirrors::find(&self.overrides)?);
        let wanted = (packages::ARMHF_GUEST, packages::ARMHF_KERNEL, packages::ARMHF_GCC);
        let key = packages::digest(&[format!("{wanted:?} {}", apt.key(&super::apt::Wanted::default()))]);
        let pin = self.cache.join("packages").join(format!("resolved-armhf-{key}.json"));
        if let Some(resolved) = fs::read(&pin).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            match self.unpacked(&apt, &resolved) {
                // a mirror drops a version when the next one comes: then ask again, once
                Err(SetupError::Program { what, .. }) if what == "downloading packages" => {}
                done => return done,
            }
        }
        let resolved = apt.resolve_armhf(&mut self.progress.step(1, "package lists"))?;
        write_pin(&pin, &resolved)?;
        self.unpacked(&apt, &resolved)
    }

    fn unpacked(&mut self, apt: &Apt, resolved: &ResolvedArmhf) -> Result<(PathBuf, String)> {
        let made = self.made(apt, resolved)?;
        let all = self.cache.join("packages");
        keep::hold(&made.0).map_err(SetupError::io("lock", &made.0))?;
        keep::prune(&all, "armhf-", KEPT).map_err(SetupError::io("tidy", &all))?;
        Ok(made)
    }

    fn made(&mut self, apt: &Apt, resolved: &ResolvedArmhf) -> Result<(PathBuf, String)> {
        let ResolvedArmhf { gcc, guest, musl, kernel } = resolved;
        let all: Vec<Deb> = [gcc, guest, musl, kernel].into_iter().flatten().cloned().collect();
        let key = packages::digest(&[RECIPE, &packages::key(&all)]);
        let place = self.cache.join("packages").join(format!("armhf-{key}"));
        // of all that is on the machine's side, the compiler and its linker decide what comes out
        let own: Vec<Deb> =
            gcc.iter().filter(|deb| deb.name.contains("arm-linux-gnueabihf")).cloned().collect();
        let versions = packages::key(&own.iter().chain(musl).cloned().collect::<Vec<_>>());
        if place.exists() {
            return Ok((place, versions));
        }
        let log = self.cache.join("log/unpack.log");
        let device: Vec<&Deb> = guest.iter().chain(kernel).collect();
        let mut step = self.progress.step(2, "downloads");
        apt.download(&gcc.iter().collect::<Vec<_>>(), &mut step)?;
        apt.download_armhf(&device.iter().copied().chain(musl).collect::<Vec<_>>(), &mut step)?;
        let bytes = all.iter().map(|deb| deb.bytes).sum();
        step.done(&format!("{} packages, {}", all.len(), megabytes(bytes)));
        let mut step = self.progress.step(3, "packages");
        unpack::whole(&place, |new| {
            unpack::unpack(&device, apt.debs(), &new.join("guest"), &log, &mut step)?;
            trim(&new.join("guest"))?;
            unpack::unpack(&gcc.iter().collect::<Vec<_>>(), apt.debs(), &new.join("gcc"), &log, &mut step)?;
            trim(&new.join("gcc"))?;
            cross::script(&new.join(GCC), &gcc_script())?;
            let package = new.join("musl");
            unpack::unpack(&musl.iter().collect::<Vec<_>>(), apt.debs(), &package, &log, &mut step)?;
            musl::lay_out(&ARMV7, &package, &new.join("rust"), &|| Command::new(new.join(GCC)), &log)
        })?;
        step.done(&format!("{} packages unpacked", all.len()));
        Ok((place, versions))
    }

    fn binary(&mut self, place: &Path, versions: &str) -> Result<PathBuf> {
        let binary = match &self.overrides.device_binary_armv7 {
            Some(own) => own.clone(),
            None => self.build(place, versions)?,
        };
        cross::check(&ARMV7, &binary, cross::LIMIT)?;
        Ok(binary)
    }

    fn build(&mut self, place: &Path, versions: &str) -> Result<PathBuf> {
        if let (Cross::Debian, Some(root)) = (self.way, &self.tools.root) {
            // rustc looks for a target's C library beside itself, and it came with the first board's tools
            put_link(&place.join("rust"), root)?;
        }
        let rust =
            self.tools.root.as_ref().map(|root| root.file_name().unwrap_or_default().to_string_lossy());
        let device = Device {
            cache: self.cache,
            way: self.way,
            tools: self.tools,
            target: &ARMV7,
            linker: &place.join(GCC),
            packages: &format!("{} {versions}", rust.unwrap_or_default()),
            features: &[],
        };
        let mut step = self.progress.step(4, "device binary");
        let [levitate, _] = device.binaries(&mut step)?;
        let size = fs::metadata(&levitate).map_or(0, |data| data.len());
        step.done(&format!("{size} bytes, static, for {}", ARMV7.name));
        Ok(levitate)
    }
}

/// Only the compiler gets the library path of its own packages, whoever starts it.
fn gcc_script() -> String {
    format!(
        "gcc=$(dirname \"$0\")/gcc\nexport LD_LIBRARY_PATH=\"$gcc/usr/lib/x86_64-linux-gnu:$gcc/lib/x86_64-linux-gnu\"\n\
         exec \"$gcc/usr/bin/{}gcc\" \"$@\"\n",
        ARMV7.gcc
    )
}

/// Links the target's folder into the tools' Rust, in place of one for other versions.
fn put_link(from: &Path, tools: &Path) -> Result<()> {
    let below = Path::new("usr/lib/rustlib").join(ARMV7.triple);
    let link = tools.join(&below);
    // under the lock: nobody else makes one
    let new = link.with_extension("new");
    // one that an interrupted set-up left
    let _ = fs::remove_file(&new);
    symlink(from.join(&below), &new).map_err(SetupError::io("link", &new))?;
    fs::rename(&new, &link).map_err(SetupError::io("rename into place", &link))
}

/// The one entry of a folder.
fn only(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(SetupError::io("read", folder))?;
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    match paths.as_slice() {
        [path] => Ok(path.clone()),
        more => {
            Err(SetupError::unexpected(folder.display().to_string(), "one entry", format!("{}", more.len())))
        }
    }
}
