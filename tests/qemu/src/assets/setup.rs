//! The order of set-up. A step that finds its result in the cache says nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::apt::{Apt, Resolved, Wanted};
use super::child::Job;
use super::device::Device;
use super::error::{Result, SetupError};
use super::kernel::Kernels;
use super::lock::{Lock, sweep};
use super::mirrors::Mirrors;
use super::packages::{self, Deb};
use super::places::{self, Cross, Overrides};
use super::target::AARCH64;
use super::tools::Tools;
use super::{Assets, cross, keep, musl, unpack};
use crate::progress::{Progress, duration, megabytes};

/// Documentation and translations: a third of the files, read by nobody here.
const UNREAD: [&str; 6] = ["doc", "man", "locale", "info", "lintian", "bug"];

/// Makes every part that is not there yet. Shows what it does on standard error.
///
/// # Errors
/// A part could not be made; the text says which, why, and what the user can do.
pub(crate) fn prepare() -> Result<Assets> {
    let overrides = Overrides::from_environment()?;
    let cache = places::cache_root(&|name| std::env::var(name).ok())?;
    let _lock = Lock::take(&cache, &mut |text| eprintln!("[setup] {text}"))?;
    sweep(&cache)?;
    let mut setup = Setup {
        way: overrides.cross.unwrap_or_else(|| cross::detect(&AARCH64)),
        progress: Progress::new("setup", 6),
        cache,
        overrides,
    };
    let assets = setup.all()?;
    let cache = assets.cache.display();
    if setup.progress.worked() {
        eprintln!(
            "[setup] everything is ready after {}; it lies in {cache}",
            duration(setup.progress.elapsed())
        );
    } else {
        eprintln!("[setup] everything is in the cache ({cache})");
    }
    Ok(assets)
}

/// The device binary with fault injection, beside the shipped one.
///
/// # Errors
/// It could not be made, or the device binary is one that the user named.
pub(super) fn faulty(cache: &Path) -> Result<PathBuf> {
    let overrides = Overrides::from_environment()?;
    if overrides.device_binary.is_some() {
        return Err(SetupError::Missing(
            "the binary with fault injection is built from the checkout; it is not made where LEVITATE_DEVICE_BINARY names \
             the device binary"
                .into(),
        ));
    }
    let _lock = Lock::take(cache, &mut |text| eprintln!("[faults] {text}"))?;
    let mut setup = Setup {
        way: overrides.cross.unwrap_or_else(|| cross::detect(&AARCH64)),
        progress: Progress::new("faults", 6),
        cache: cache.to_owned(),
        overrides,
    };
    let packages = if debian() { setup.packages()? } else { setup.without_packages()? };
    let [levitate, _] = setup.built(&packages, &["fault-injection"])?;
    Ok(levitate)
}

struct Setup {
    cache: PathBuf,
    overrides: Overrides,
    way: Cross,
    progress: Progress,
}

/// Raised when what is done with unpacked packages changes, so that old folders are not taken for new ones.
const RECIPE: &str = "2";

/// So many folders of unpacked packages are kept of each kind, besides those in use.
const KEPT: usize = 3;

/// Where the packages' contents lie.
struct Packages {
    tools: Tools,
    guest: Option<PathBuf>,
    kernels: Option<PathBuf>,
    /// The exact versions of what makes the device binary, as far as packages do.
    rust: String,
}

impl Setup {
    fn all(&mut self) -> Result<Assets> {
        let packages = if debian() { self.packages()? } else { self.without_packages()? };
        let [device_binary, flashcp_binary] = self.binaries(&packages)?;
        let or = |given: &Option<PathBuf>, made: Option<PathBuf>| given.clone().or(made);
        let lacking = |what: &str| SetupError::Missing(format!("{what} is not there and could not be made"));
        let kernel =
            |version: &str| packages.kernels.as_ref().map(|place| place.join(version).join("Image.gz"));
        let own = &self.overrides;
        let uboot =
            packages.tools.root.as_ref().map(|root| root.join("usr/lib/u-boot/qemu_arm64/u-boot.bin"));
        Ok(Assets {
            device_binary,
            flashcp_binary,
            qemu: own.qemu.clone().unwrap_or_else(|| packages.tools.find("qemu-system-aarch64")),
            uboot: or(&own.uboot, uboot).ok_or_else(|| lacking("U-Boot"))?,
            kernel_v1: or(&own.kernel_v1, kernel("v1")).ok_or_else(|| lacking("kernel v1"))?,
            kernel_v2: or(&own.kernel_v2, kernel("v2")).ok_or_else(|| lacking("kernel v2"))?,
            guest_root: or(&own.guest_root, packages.guest).ok_or_else(|| lacking("the guest's root"))?,
            faulty_binary: None,
            armhf: None,
            tools: packages.tools,
            scratch: scratch(&self.cache)?,
            cache: self.cache.clone(),
        })
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            host: packages::host(&self.overrides, self.way),
            guest: if self.overrides.guest_root.is_none() { packages::GUEST.to_vec() } else { Vec::new() },
            musl: self.way == Cross::Debian && self.overrides.device_binary.is_none(),
            source: !self.overrides.has_kernels(),
        }
    }

    fn packages(&mut self) -> Result<Packages> {
        let wanted = self.wanted();
        if (wanted.source || wanted.musl) && !on_path("cc") {
            return Err(SetupError::Missing(
                "no C compiler `cc` in PATH, needed for programs that run on this machine during the builds: \
                 install Debian's `gcc` and `libc6-dev`"
                    .into(),
            ));
        }
        let apt = Apt::new(&self.cache, &self.overrides, Mirrors::find(&self.overrides)?);
        let pin = self.cache.join("packages").join(format!("resolved-{}.json", apt.key(&wanted)));
        if let Some(resolved) = fs::read(&pin).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            match self.unpacked(&apt, &resolved) {
                // a mirror drops a version when the next one comes: then ask again, once
                Err(SetupError::Program { what, .. }) if what == "downloading packages" => {}
                done => return done,
            }
        }
        let resolved = apt.resolve(&wanted, &mut self.progress.step(1, "package lists"))?;
        write_pin(&pin, &resolved)?;
        self.unpacked(&apt, &resolved)
    }

    fn unpacked(&mut self, apt: &Apt, resolved: &Resolved) -> Result<Packages> {
        let host: Vec<&Deb> = resolved.host.iter().filter(|deb| !packages::skipped(&deb.name)).collect();
        let tools_debs: Vec<Deb> =
            host.iter().map(|deb| (*deb).clone()).chain(resolved.musl.iter().cloned()).collect();
        let folder = self.cache.join("packages");
        let tools_key = packages::digest(&[RECIPE, &packages::key(&tools_debs)]);
        let tools_place = folder.join(format!("tools-{tools_key}"));
        let guest_place = folder.join(format!("guest-{}", packages::key(&resolved.guest)));
        let tools = Tools { root: Some(tools_place.clone()) };

        let cache = self.cache.clone();
        let prefix = cross_prefix(&self.overrides, &tools);
        let compiler = self.compiler(resolved)?;
        let rust = format!("{} {compiler}", packages::rust_and_musl(&tools_debs));
        let kernels = resolved.source.first().map(|source| Kernels {
            cache: &cache,
            tools: &tools,
            cross_prefix: &prefix,
            compiler,
            source,
            debs: apt.debs().to_path_buf(),
        });

        let mut missing: Vec<&Deb> = Vec::new();
        if !tools_place.exists() {
            missing.extend(&host);
            missing.extend(&resolved.musl);
        }
        if !guest_place.exists() {
            missing.extend(&resolved.guest);
        }
        if kernels.as_ref().is_some_and(|kernels| !kernels.place().exists()) {
            missing.extend(&resolved.source);
        }
        if !missing.is_empty() {
            let bytes: u64 = missing.iter().map(|deb| deb.bytes).sum();
            let mut step = self.progress.step(2, "downloads");
            apt.download(&missing, &mut step)?;
            step.done(&format!("{} packages, {}", missing.len(), megabytes(bytes)));
        }
        let log = cache.join("log/unpack.log");
        let mut step = self.progress.step(3, "tools");
        unpack::whole(&tools_place, |new| {
            unpack::unpack(&host, apt.debs(), new, &log, &mut step)?;
            trim(new)?;
            if resolved.musl.is_empty() {
                return Ok(());
            }
            let arm64 = new.join("arm64");
            unpack::unpack(&resolved.musl.iter().collect::<Vec<_>>(), apt.debs(), &arm64, &log, &mut step)?;
            let fresh = Tools { root: Some(new.to_owned()) };
            let gcc = format!("{}gcc", cross_prefix(&self.overrides, &fresh));
            musl::lay_out(&AARCH64, &arm64, new, &|| fresh.command_at(Path::new(&gcc)), &log)
        })?;
        step.done(&format!("{} packages unpacked", tools_debs.len()));
        let mut step = self.progress.step(4, "guest");
        if !resolved.guest.is_empty() {
            unpack::whole(&guest_place, |new| {
                unpack::unpack(&resolved.guest.iter().collect::<Vec<_>>(), apt.debs(), new, &log, &mut step)?;
                trim(new)
            })?;
        }
        step.done(&format!("{} arm64 packages unpacked", resolved.guest.len()));
        for (place, prefix) in [(&tools_place, "tools-"), (&guest_place, "guest-")] {
            keep::hold(place).map_err(SetupError::io("lock", place))?;
            keep::prune(&folder, prefix, KEPT).map_err(SetupError::io("tidy", &folder))?;
        }
        let mut step = self.progress.step(5, "kernels");
        if let Some(kernels) = &kernels {
            kernels.build(&mut step)?;
            kernels.keep()?;
        }
        step.done("v1 and v2 are built");
        Ok(Packages {
            kernels: kernels.map(|kernels| kernels.place()),
            guest: (!resolved.guest.is_empty()).then_some(guest_place),
            tools,
            rust,
        })
    }

    fn binaries(&mut self, packages: &Packages) -> Result<[PathBuf; 2]> {
        if let Some(levitate) = &self.overrides.device_binary {
            // it answers to the name flashcp, too
            let flashcp = self.overrides.flashcp_binary.as_ref().unwrap_or(levitate);
            cross::check(&AARCH64, levitate, cross::LIMIT)?;
            cross::check(&AARCH64, flashcp, cross::LIMIT)?;
            return Ok([levitate.clone(), flashcp.clone()]);
        }
        let [levitate, flashcp] = self.built(packages, &[])?;
        Ok([levitate, self.overrides.flashcp_binary.clone().unwrap_or(flashcp)])
    }

    fn built(&mut self, packages: &Packages, features: &[&str]) -> Result<[PathBuf; 2]> {
        let linker = PathBuf::from(format!("{}gcc", cross_prefix(&self.overrides, &packages.tools)));
        let device = Device {
            cache: &self.cache,
            way: self.way,
            tools: &packages.tools,
            target: &AARCH64,
            linker: &linker,
            packages: &packages.rust,
            features,
        };
        let mut step = self.progress.step(6, "device binary");
        let [levitate, flashcp] = device.binaries(&mut step)?;
        cross::check(&AARCH64, &levitate, cross::LIMIT)?;
        cross::check(&AARCH64, &flashcp, cross::LIMIT)?;
        let size = fs::metadata(&levitate).map_or(0, |data| data.len());
        step.done(&format!("{size} bytes, static, for aarch64"));
        Ok([levitate, flashcp])
    }

    /// What the kernels' key says of the compiler.
    fn compiler(&self, resolved: &Resolved) -> Result<String> {
        let Some(prefix) = &self.overrides.cross_prefix else {
            let tool = |deb: &&Deb| {
                deb.name.ends_with("-aarch64-linux-gnu")
                    && (deb.name.starts_with("gcc-") || deb.name.starts_with("binutils-"))
            };
            return Ok(resolved.host.iter().filter(tool).map(Deb::spec).collect::<Vec<_>>().join(" "));
        };
        let mut command = Command::new(format!("{prefix}gcc"));
        command.arg("--version");
        let job = Job {
            what: "asking LEVITATE_CROSS_PREFIX's gcc for its version".into(),
            command,
            log: self.cache.join("log/kernel-source.log"),
            limit: Duration::from_secs(20),
        };
        Ok(job.run_quietly()?.lines().next().unwrap_or_default().to_owned())
    }

    /// Another distribution, or another processor: the machine's own programs, and what the variables name.
    fn without_packages(&self) -> Result<Packages> {
        let lacks = lacking(&self.overrides, self.way, &on_path);
        if lacks.is_empty() {
            return Ok(Packages {
                tools: Tools { root: None },
                guest: None,
                kernels: None,
                rust: String::new(),
            });
        }
        Err(SetupError::Missing(format!(
            "this is no amd64 machine with apt-get and dpkg-deb, so nothing can be downloaded for it; it lacks:\n  {}\n\
             (every variable: `cargo demo --help`)",
            lacks.join("\n  ")
        )))
    }
}

/// Keeps what apt answered, whole or not at all.
pub(super) fn write_pin(pin: &Path, resolved: &impl serde::Serialize) -> Result<()> {
    if let Some(folder) = pin.parent() {
        fs::create_dir_all(folder).map_err(SetupError::io("create", folder))?;
    }
    let new = keep::unfinished(pin);
    let text = serde_json::to_vec_pretty(resolved).unwrap_or_default();
    fs::write(&new, text).map_err(SetupError::io("write", &new))?;
    fs::rename(&new, pin).map_err(SetupError::io("rename into place", pin))
}

/// What is missing where no package can be downloaded, each with the way to get it.
fn lacking(own: &Overrides, way: Cross, on_path: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut lacks = Vec::new();
    let mut need = |there: bool, text: &str| {
        if !there {
            lacks.push(text.to_owned());
        }
    };
    need(
        own.qemu.is_some() || on_path("qemu-system-aarch64"),
        "qemu-system-aarch64: install QEMU's arm64 system emulator, or name it by LEVITATE_QEMU",
    );
    need(own.uboot.is_some(), "U-Boot: build `qemu_arm64_defconfig`, name its u-boot.bin by LEVITATE_UBOOT");
    need(
        own.has_kernels(),
        "two kernels: build arm64 Image.gz from linux 6.1 with tests/qemu/kernel/virt-arm64.config (KCONFIG_ALLCONFIG, \
         allnoconfig) and KBUILD_BUILD_VERSION 1 and 2, name them by LEVITATE_KERNEL_V1 and LEVITATE_KERNEL_V2",
    );
    need(
        own.guest_root.is_some(),
        "the guest's root: unpack Debian's arm64 packages s6 execline dropbear-bin busybox-static mtd-utils systemd sysvinit-core dash openssh-server usr-is-merged \
         and what they depend on into a folder, name it by LEVITATE_GUEST_ROOT",
    );
    need(own.device_binary.is_some() || way == Cross::Rustup, &AARCH64.advice());
    for (program, package) in [
        ("mksquashfs", "squashfs-tools"),
        ("mkimage", "u-boot-tools"),
        ("mkenvimage", "u-boot-tools"),
        ("mkfs.jffs2", "mtd-utils"),
        ("dtc", "device-tree-compiler"),
        ("ssh", "an OpenSSH client"),
        ("ssh-keygen", "an OpenSSH client"),
        ("setpriv", "util-linux (busybox's has no --pdeathsig)"),
    ] {
        need(on_path(program), &format!("{program}: install {package}"));
    }
    lacks
}

pub(super) fn debian() -> bool {
    std::env::consts::ARCH == "x86_64" && on_path("apt-get") && on_path("dpkg-deb")
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// What stands before `gcc` in the cross compiler's name.
fn cross_prefix(overrides: &Overrides, tools: &Tools) -> String {
    overrides.cross_prefix.clone().unwrap_or_else(|| {
        let gcc = tools.root.as_ref().map(|root| root.join("usr/bin").join(AARCH64.gcc));
        gcc.map_or_else(|| AARCH64.gcc.into(), |path| path.to_string_lossy().into_owned())
    })
}

/// Takes away what nobody reads.
pub(super) fn trim(root: &Path) -> Result<()> {
    UNREAD.iter().try_for_each(|folder| unpack::remove(&root.join("usr/share").join(folder)))
}

/// A folder for this run's files, held as long as this process lives. Not named by the process: two containers that share a
/// cache may have the same process ids.
fn scratch(cache: &Path) -> Result<PathBuf> {
    let runs = cache.join("run");
    fs::create_dir_all(&runs).map_err(SetupError::io("create", &runs))?;
    let folder =
        tempfile::Builder::new().prefix("").tempdir_in(&runs).map_err(SetupError::io("write to", &runs))?;
    let folder = folder.keep();
    keep::hold(&folder).map_err(SetupError::io("lock", &folder))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_distribution_is_told_what_is_missing_and_which_variable_names_it() {
        let lacks = lacking(&Overrides::default(), Cross::Debian, &|_| false).join("\n");
        for name in ["QEMU", "UBOOT", "KERNEL_V1", "KERNEL_V2", "GUEST_ROOT", "DEVICE_BINARY"] {
            assert!(lacks.contains(&format!("LEVITATE_{name}")), "{name}: {lacks}");
        }
        let has = Overrides {
            uboot: Some("/u".into()),
            kernel_v1: Some("/1".into()),
            kernel_v2: Some("/2".into()),
            guest_root: Some("/g".into()),
            ..Overrides::default()
        };
        assert_eq!(lacking(&has, Cross::Rustup, &|_| true), Vec::<String>::new());
        assert_eq!(
            lacking(&has, Cross::Rustup, &|name| name != "dtc"),
            ["dtc: install device-tree-compiler"]
        );
    }
}
