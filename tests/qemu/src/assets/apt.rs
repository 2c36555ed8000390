//! A private apt: own lists, own cache, an empty status. Neither root nor the system's package lists are touched.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::child::Job;
use super::error::{Result, SetupError};
use super::mirrors::Mirrors;
use super::packages::{self, Deb};
use super::places::Overrides;
use crate::progress::{Step, megabytes};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The Debian release whose packages are used, whatever the machine runs.
const RELEASE: &str = "bookworm";
/// So many bytes are asked for by one `apt-get download`; what is complete survives an interruption.
const BATCH: u64 = 24 << 20;

/// What to get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// For this machine, with everything they depend on.
    pub(crate) host: Vec<&'static str>,
    /// For the guest (arm64), with everything they depend on.
    pub(crate) guest: Vec<&'static str>,
    /// Whether musl for arm64 is needed, to link with; that package alone.
    pub(crate) musl: bool,
    /// Whether the kernel's source is needed; that package alone.
    pub(crate) source: bool,
}

/// What apt answered: exact versions. Kept in the cache, so that a second run asks nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    pub(crate) host: Vec<Deb>,
    pub(crate) guest: Vec<Deb>,
    pub(crate) musl: Vec<Deb>,
    pub(crate) source: Vec<Deb>,
}

/// The same for the second board.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResolvedArmhf {
    /// The cross compiler, for this machine.
    pub(crate) gcc: Vec<Deb>,
    pub(crate) guest: Vec<Deb>,
    pub(crate) musl: Vec<Deb>,
    pub(crate) kernel: Vec<Deb>,
}

/// The private apt.
pub(crate) struct Apt {
    root: PathBuf,
    log: PathBuf,
    debs: PathBuf,
    mirrors: Mirrors,
    keyring: PathBuf,
}

#[derive(Clone, Copy)]
enum Side {
    Host,
    Guest,
    /// The guest, without the security archive: its index of an architecture can be out of step for a while.
    GuestMain,
    /// The second board's guest, from the main archive alone, with package lists of its own: most runs never need them.
    Armhf,
}

impl Apt {
    pub(crate) fn new(cache: &Path, overrides: &Overrides, mirrors: Mirrors) -> Self {
        Self {
            root: cache.join("apt"),
            log: cache.join("log/apt.log"),
            debs: cache.join("debs"),
            mirrors,
            keyring: overrides.keyring.clone().unwrap_or_else(|| KEYRING.into()),
        }
    }

    /// Where downloaded packages lie.
    pub(crate) fn debs(&self) -> &Path {
        &self.debs
    }

    /// The key under which the answer to these wishes is kept.
    pub(crate) fn key(&self, wanted: &Wanted) -> String {
        packages::digest(&[format!("{RELEASE} {:?} {wanted:?}", self.mirrors)])
    }

    /// Downloads the package lists and finds the exact versions of everything wanted.
    pub(crate) fn resolve(&self, wanted: &Wanted, step: &mut Step<'_>) -> Result<Resolved> {
        self.configure()?;
        step.at(0, 0, "downloading the package lists");
        self.run(Side::Host, "downloading Debian's package lists", 600, |apt| {
            apt.args(["-o", "APT::Update::Error-Mode=any", "update"]);
        })
        .map_err(|error| {
            SetupError::Missing(format!(
                "{error}\nis the network there? another mirror can be named by LEVITATE_DEBIAN_MIRROR and \
                 LEVITATE_DEBIAN_SECURITY_MIRROR; a proxy by apt's own configuration or http_proxy"
            ))
        })?;
        step.at(0, 0, "finding what the packages depend on");
        let mut resolved = Resolved { host: self.closure(Side::Host, &wanted.host)?, ..Resolved::default() };
        packages::one_rust(&resolved.host)
            .map_err(|found| SetupError::unexpected("Debian's Rust", "packages of one version", found))?;
        if wanted.musl {
            resolved.musl = self.uris(Side::Host, &[format!("{}:arm64", packages::MUSL)])?;
        }
        if !wanted.guest.is_empty() {
            resolved.guest = match self.closure(Side::Guest, &wanted.guest) {
                Ok(debs) => debs,
                Err(error) => {
                    step.note(&format!("taking the guest from the main archive alone, because {error}"));
                    self.closure(Side::GuestMain, &wanted.guest)?
                }
            };
        }
        if wanted.source {
            resolved.source = self.uris(Side::Host, &[packages::KERNEL_SOURCE.to_owned()])?;
        }
        Ok(resolved)
    }

    /// The same for the second board's parts.
    pub(crate) fn resolve_armhf(&self, step: &mut Step<'_>) -> Result<ResolvedArmhf> {
        self.configure()?;
        step.at(0, 0, "downloading the package lists");
        for side in [Side::Host, Side::Armhf] {
            self.run(side, "downloading Debian's package lists", 600, |apt| {
                apt.args(["-o", "APT::Update::Error-Mode=any", "update"]);
            })?;
        }
        step.at(0, 0, "finding what the packages depend on");
        let mut kernel = self.closure(Side::Armhf, &[packages::ARMHF_KERNEL])?;
        // the rest of its closure makes an initramfs on a device of its own
        kernel.retain(|deb| packages::is_kernel(&deb.name));
        let mut gcc = self.closure(Side::Host, &[packages::ARMHF_GCC])?;
        gcc.retain(|deb| !packages::skipped(&deb.name));
        Ok(ResolvedArmhf {
            gcc,
            guest: self.closure(Side::Armhf, &packages::ARMHF_GUEST)?,
            musl: self.uris(Side::Armhf, &[packages::MUSL.to_owned()])?,
            kernel,
        })
    }

    fn closure(&self, side: Side, names: &[impl AsRef<str>]) -> Result<Vec<Deb>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let simulation = self.run(side, "finding what the packages depend on", 120, |apt| {
            apt.args(["-s", "install"]).args(names.iter().map(AsRef::as_ref));
        })?;
        let wanted: Vec<String> = packages::parse_closure(&simulation);
        self.uris(side, &wanted)
    }

    fn uris(&self, side: Side, specs: &[String]) -> Result<Vec<Deb>> {
        let output = self.run(side, "finding where the packages lie", 120, |apt| {
            apt.args(["download", "--print-uris"]).args(specs);
        })?;
        let debs = packages::parse_uris(&output);
        if debs.len() < specs.len() || debs.is_empty() {
            let what = format!("`apt-get download --print-uris` of {} packages", specs.len());
            return Err(SetupError::unexpected(what, "a line for each", format!("{} lines", debs.len())));
        }
        Ok(debs)
    }

    /// Downloads what is not there yet. Every file is compared with its hash, those of an earlier run too.
    pub(crate) fn download(&self, debs: &[&Deb], step: &mut Step<'_>) -> Result<()> {
        self.configure()?;
        let done = self.download_from(Side::Host, debs, step);
        self.forget_indexes();
        done
    }

    /// Like [`Apt::download`], for packages of the second board's guest.
    pub(crate) fn download_armhf(&self, debs: &[&Deb], step: &mut Step<'_>) -> Result<()> {
        self.configure()?;
        let done = self.download_from(Side::Armhf, debs, step);
        self.forget_indexes();
        done
    }

    fn download_from(&self, side: Side, debs: &[&Deb], step: &mut Step<'_>) -> Result<()> {
        let folder = &self.debs;
        fs::create_dir_all(folder).map_err(SetupError::io("create", folder))?;
        let total: u64 = debs.iter().map(|deb| deb.bytes).sum();
        let mut done: u64 = 0;
        let mut missing = Vec::new();
        for deb in debs {
            if self.intact(deb)? {
                done += deb.bytes;
            } else {
                missing.push(*deb);
            }
        }
        let count = missing.len();
        let mut left = missing.as_slice();
        while !left.is_empty() {
            let mut bytes = 0;
            let fits = |deb: &&&Deb| {
                bytes += deb.bytes;
                bytes <= BATCH || bytes == deb.bytes
            };
            let (batch, rest) = left.split_at(left.iter().take_while(fits).count());
            left = rest;
            let detail = format!("{count} packages, {}", megabytes(total));
            let mut job = self.job(side, "downloading packages", 1800);
            // exact names with their architecture: one configuration knows both
            job.command.arg("download").args(batch.iter().map(|deb| deb.spec())).current_dir(folder);
            job.run(&mut |_| {
                let here: u64 = batch.iter().map(|deb| self.bytes_there(deb)).sum();
                step.at(done + here, total, &detail);
            })?;
            for deb in batch {
                if !self.intact(deb)? {
                    return Err(SetupError::unexpected(
                        folder.join(&deb.file).display().to_string(),
                        format!("{} bytes with the SHA-256 {}", deb.bytes, deb.sha256),
                        "another file; the log is log/apt.log in the cache",
                    ));
                }
                done += deb.bytes;
            }
        }
        Ok(())
    }

    /// apt's own indexes of the package lists: 190 MB, made again in seconds when they are asked for.
    fn forget_indexes(&self) {
        for cache in ["cache", "guest-cache", "armhf-cache"] {
            for index in ["pkgcache.bin", "srcpkgcache.bin"] {
                // one that stays only takes room
                let _ = fs::remove_file(self.root.join(cache).join(index));
            }
        }
    }

    fn bytes_there(&self, deb: &Deb) -> u64 {
        let partial = self.root.join("cache/archives/partial").join(&deb.file);
        [self.debs.join(&deb.file), partial]
            .iter()
            .filter_map(|path| path.metadata().ok())
            .map(|data| data.len())
            .sum()
    }

    /// Whether the file is there and right. A wrong one is removed, so that the next download is a whole one.
    fn intact(&self, deb: &Deb) -> Result<bool> {
        let path = self.debs.join(&deb.file);
        let Ok(mut file) = fs::File::open(&path) else { return Ok(false) };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer).map_err(SetupError::io("read", &path))?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
        if packages::hex(&hash.finalize()) == deb.sha256 {
            return Ok(true);
        }
        fs::remove_file(&path).map_err(SetupError::io("remove", &path))?;
        Ok(false)
    }

    fn configure(&self) -> Result<()> {
        if !self.keyring.exists() {
            return Err(SetupError::Missing(format!(
                "the keys of Debian's archive are not at {}: install `debian-archive-keyring`, or name them by \
                 LEVITATE_DEBIAN_KEYRING",
                self.keyring.display()
            )));
        }
        for folder in
            ["lists", "armhf-lists", "cache/archives", "guest-cache/archives", "armhf-cache/archives"]
        {
            let folder = self.root.join(folder).join("partial");
            fs::create_dir_all(&folder).map_err(SetupError::io("create", &folder))?;
        }
        let state = self.root.join("state");
        fs::create_dir_all(&state).map_err(SetupError::io("create", &state))?;
        self.write("status", "")?;
        let acquire = self.system_acquire();
        self.write(
            "host.conf",
            &self.configuration("amd64", &["amd64", "arm64"], ["sources.list", "lists", "cache"], &acquire),
        )?;
        let guest = ["sources.list", "lists", "guest-cache"];
        self.write("guest.conf", &self.configuration("arm64", &["arm64"], guest, &acquire))?;
        let armhf = ["main.list", "armhf-lists", "armhf-cache"];
        self.write("armhf.conf", &self.configuration("armhf", &["armhf"], armhf, &acquire))?;
        let Mirrors { main, security } = &self.mirrors;
        let line = |mirror: &str, suite: &str| {
            format!("deb [signed-by={}] {mirror} {suite} main\n", self.keyring.display())
        };
        let without_security = line(main, RELEASE) + &line(main, &format!("{RELEASE}-updates"));
        let security = security.as_ref().map(|mirror| line(mirror, &format!("{RELEASE}-security")));
        let all = without_security.clone() + &security.unwrap_or_default();
        self.write("main.list", &without_security)?;
        self.write("sources.list", &all)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.root.join(name);
        fs::write(&path, text).map_err(SetupError::io("write", &path))
    }

    /// The system's proxies and the like. The rest of its configuration stays out: hooks that clean its caches, a
    /// default release, pins.
    fn system_acquire(&self) -> String {
        let mut command = Command::new("apt-config");
        command.arg("dump").env_remove("APT_CONFIG").env("LC_ALL", "C");
        let job = Job {
            what: "reading apt's configuration".into(),
            command,
            log: self.log.clone(),
            limit: Duration::from_secs(20),
        };
        acquire_lines(&job.run_quietly().unwrap_or_default())
    }

    fn configuration(&self, arch: &str, all: &[&str], places: [&str; 3], acquire: &str) -> String {
        let root = self.root.display();
        let [sources, lists, cache] = places;
        let all: String = all.iter().map(|arch| format!(" \"{arch}\";")).collect();
        format!(
            "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\nDir::Etc::sourcelist \"{root}/{sources}\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nDir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::State \"{root}/state\";\nDir::State::lists \"{root}/{lists}\";\nDir::State::status \"{root}/status\";\n\
             Dir::Cache \"{root}/{cache}\";\nAPT::Architecture \"{arch}\";\nAPT::Architectures {{{all} }};\n\
             APT::Sandbox::User \"\";\nAPT::Install-Recommends \"false\";\nAPT::Install-Suggests \"false\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAcquire::http::Timeout \"30\";\n{acquire}"
        )
    }

    fn job(&self, side: Side, what: &str, seconds: u64) -> Job {
        let mut command = Command::new("apt-get");
        let file = match side {
            Side::Host => "host.conf",
            Side::Guest | Side::GuestMain => "guest.conf",
            Side::Armhf => "armhf.conf",
        };
        command
            .arg("-q")
            .env("APT_CONFIG", self.root.join(file))
            .env("LC_ALL", "C")
            .env_remove("LD_LIBRARY_PATH");
        if matches!(side, Side::GuestMain) {
            command.arg("-o").arg(format!("Dir::Etc::sourcelist={}", self.root.join("main.list").display()));
        }
        Job { what: what.into(), command, log: self.log.clone(), limit: Duration::from_secs(seconds) }
    }

    fn run(
        &self,
        side: Side,
        what: &str,
        seconds: u64,
        arguments: impl FnOnce(&mut Command),
    ) -> Result<String> {
        let mut job = self.job(side, what, seconds);
        arguments(&mut job.command);
        job.run_quietly()
    }
}

/// What concerns the way to the mirrors, from the output of `apt-config dump`.
fn acquire_lines(dump: &str) -> String {
    let ours = ["Acquire::Languages", "Acquire::Retries", "Acquire::http::Timeout", "Acquire::IndexTargets"];
    dump.lines()
        .filter(|line| line.starts_with("Acquire::") && !ours.iter().any(|ours| line.starts_with(ours)))
        .filter(|line| {
            ["http", "https", "ftp", "ForceIPv"].iter().any(|part| line.contains(&format!("::{part}")))
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_the_system_are_kept_and_its_hooks_are_not() {
        let dump = "APT::Update::Post-Invoke:: \"rm -f /var/cache/apt/archives/*.deb\";\nAPT::Default-Release \"x\";\n\
            Acquire::Languages \"\";\nAcquire::http::Proxy \"http://proxy:3128\";\nAcquire::https::CaInfo \"/ca\";\n\
            Acquire::cdrom::mount \"/media\";\n";
        assert_eq!(
            acquire_lines(dump),
            "Acquire::http::Proxy \"http://proxy:3128\";\nAcquire::https::CaInfo \"/ca\";\n"
        );
    }

    #[test]
    fn other_wishes_and_other_mirrors_are_asked_for_anew() {
        let apt = |mirror: &str, cache: &str| {
            let mirrors = Mirrors { main: mirror.to_owned(), security: None };
            Apt::new(Path::new(cache), &Overrides::default(), mirrors)
        };
        let wanted = Wanted { host: vec!["bc"], ..Wanted::default() };
        let key = apt("http://m/debian", "/c").key(&wanted);
        assert_ne!(key, apt("http://m/debian", "/c").key(&Wanted::default()));
        assert_ne!(key, apt("http://n/debian", "/c").key(&wanted));
        assert_eq!(key, apt("http://m/debian", "/other").key(&wanted));
    }
}
