//! Two kernels for the `virt` board from one source: small, reproducible, and told apart by `uname -v`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::child::Job;
use super::error::{Result, SetupError};
use super::packages::{self, Deb};
use super::tools::Tools;
use super::{keep, unpack};
use crate::progress::Step;

/// The configuration; everything that it does not name is off.
pub(crate) const FRAGMENT: &str = include_str!("../../kernel/virt-arm64.config");
/// Raised when the way of building changes, so that old results are not taken for new ones.
const RECIPE: &str = "1";
/// So many pairs of kernels are kept besides those in use, at 7 MB each.
const KEPT: usize = 8;
/// Lines that the first build says, one for each file made: the percentage's 100.
const LINES: u64 = 1708;
/// What stands in `uname -v` of each: number and time. Fixed, so that everybody's kernels are the same.
const VERSIONS: [(&str, &str); 2] =
    [("1", "Thu Jan  1 00:00:00 UTC 2026"), ("2", "Mon Jun  1 00:00:00 UTC 2026")];

/// What the kernels are made with.
pub(crate) struct Kernels<'a> {
    pub(crate) cache: &'a Path,
    pub(crate) tools: &'a Tools,
    /// What stands before `gcc`.
    pub(crate) cross_prefix: &'a str,
    /// Versions of compiler and linker.
    pub(crate) compiler: String,
    pub(crate) source: &'a Deb,
    /// Where the source's package lies.
    pub(crate) debs: PathBuf,
}

impl Kernels<'_> {
    /// The folder of the finished kernels: `v1/Image.gz`, `v2/Image.gz`, `config`.
    pub(crate) fn place(&self) -> PathBuf {
        let key = packages::digest(&[RECIPE, &self.source.spec(), FRAGMENT, &self.compiler]);
        self.cache.join("kernel").join(key)
    }

    /// Builds both, all or nothing. The source is gone afterwards.
    pub(crate) fn build(&self, step: &mut Step<'_>) -> Result<()> {
        unpack::whole(&self.place(), |new| {
            step.at(0, 100, "unpacking the source");
            let package = new.join("package");
            let mut extract = Command::new("dpkg-deb");
            extract.arg("-x").arg(self.debs.join(&self.source.file)).arg(&package);
            self.run("unpacking the kernel's package", extract, 300, &mut || {
                step.at(0, 100, "unpacking the source");
            })?;
            let archive = package.join("usr/src").join(format!("{}.tar.xz", packages::KERNEL_SOURCE));
            let mut extract = self.tools.command("tar");
            // half of the tree's bytes are register lists of graphics chips
            extract.args(["--exclude=*/asic_reg/*", "-xJf"]).arg(&archive).arg("-C").arg(new);
            self.run("unpacking the kernel's source", extract, 900, &mut || {
                step.at(1, 100, "unpacking the source");
            })?;
            unpack::remove(&package)?;
            let tree = new.join(packages::KERNEL_SOURCE);
            self.configure(&tree, step)?;
            for (index, (number, time)) in VERSIONS.iter().enumerate() {
                self.compile(&tree, index, number, time, step)?;
                let folder = new.join(format!("v{number}"));
                fs::create_dir(&folder).map_err(SetupError::io("create", &folder))?;
                copy(&tree.join("arch/arm64/boot/Image.gz"), &folder.join("Image.gz"))?;
            }
            copy(&tree.join(".config"), &new.join("config"))?;
            step.at(99, 100, "removing the source");
            unpack::remove(&tree)
        })
    }

    /// Holds the kernels for this process; of the others those used last are kept.
    pub(crate) fn keep(&self) -> Result<()> {
        let (place, all) = (self.place(), self.cache.join("kernel"));
        keep::hold(&place).map_err(SetupError::io("lock", &place))?;
        keep::prune(&all, "", KEPT).map_err(SetupError::io("tidy", &all))
    }

    fn configure(&self, tree: &Path, step: &mut Step<'_>) -> Result<()> {
        let fragment = tree.with_file_name("fragment");
        fs::write(&fragment, FRAGMENT).map_err(SetupError::io("write", &fragment))?;
        let mut make = self.make(tree);
        make.env("KCONFIG_ALLCONFIG", &fragment).arg("allnoconfig");
        self.run("configuring the kernel", make, 300, &mut || step.at(2, 100, "configuring"))?;
        let path = tree.join(".config");
        let config = fs::read_to_string(&path).map_err(SetupError::io("read", &path))?;
        let lost = lost_symbols(FRAGMENT, &config);
        if lost.is_empty() {
            return fs::remove_file(&fragment).map_err(SetupError::io("remove", &fragment));
        }
        let what = "the kernel's configuration (an unmet dependency, or a symbol this version does not have)";
        Err(SetupError::unexpected(what, lost.join(", "), "other values in .config"))
    }

    fn compile(
        &self,
        tree: &Path,
        index: usize,
        number: &str,
        time: &str,
        step: &mut Step<'_>,
    ) -> Result<()> {
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut make = self.make(tree);
        make.arg(format!("-j{jobs}"))
            .arg(format!("KBUILD_BUILD_VERSION={number}"))
            .arg(format!("KBUILD_BUILD_TIMESTAMP={time}"))
            .arg("Image.gz");
        let log = self.cache.join(format!("log/kernel-v{number}.log"));
        let job = Job {
            what: format!("building kernel v{number}"),
            command: make,
            log,
            limit: Duration::from_secs(3600),
        };
        let mut lines = 0;
        let mut file = String::new();
        job.run(&mut |line| {
            if let Some(made) = line.and_then(made) {
                lines += 1;
                made.clone_into(&mut file);
            }
            // the second one is linked only
            let percent = if index == 0 { 2 + (lines * 92 / LINES).min(92) } else { 95 };
            step.at(percent, 100, &format!("v{number} {file}"));
        })?;
        Ok(())
    }

    fn make(&self, tree: &Path) -> Command {
        let mut make = self.tools.command("make");
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let disturbs = ["KBUILD_", "KCONFIG_", "INSTALL_"].iter().any(|start| name.starts_with(start));
            let flags = [
                "MAKEFLAGS",
                "MFLAGS",
                "ARCH",
                "LOCALVERSION",
                "KCFLAGS",
                "KCPPFLAGS",
                "KAFLAGS",
                "LLVM",
                "CC",
                "O",
                "V",
            ];
            if disturbs || flags.contains(&name.as_ref()) {
                make.env_remove(name.as_ref());
            }
        }
        make.current_dir(tree)
            .env("LC_ALL", "C")
            .args(["ARCH=arm64", "KBUILD_BUILD_USER=levitate", "KBUILD_BUILD_HOST=levitate"])
            // the machine's own compiler works with the machine's own libraries
            .args(["HOSTCC=env -u LD_LIBRARY_PATH cc", "HOSTCXX=env -u LD_LIBRARY_PATH c++"])
            .arg(format!("CROSS_COMPILE={}", self.cross_prefix));
        make
    }

    fn run(&self, what: &str, command: Command, seconds: u64, tick: &mut dyn FnMut()) -> Result<String> {
        let log = self.cache.join("log/kernel-source.log");
        Job { what: what.into(), command, log, limit: Duration::from_secs(seconds) }.run(&mut |_| tick())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(|_| ()).map_err(SetupError::io("copy", from))
}

/// The file that a line of the kernel's build tells of: `  CC      net/ipv4/tcp.o`.
fn made(line: &str) -> Option<&str> {
    let mut words = line.strip_prefix("  ")?.split_whitespace();
    let (verb, file) = (words.next()?, words.next()?);
    (verb.len() > 1 && verb.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())).then_some(file)
}

/// The lines of the fragment that did not come through.
fn lost_symbols(fragment: &str, config: &str) -> Vec<String> {
    let has: std::collections::BTreeSet<&str> = config.lines().collect();
    fragment
        .lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter(|line| match line.strip_suffix("=n") {
            Some(symbol) => {
                has.iter().any(|line| line.strip_prefix(symbol).is_some_and(|rest| rest.starts_with('=')))
            }
            None => !has.contains(line),
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_that_did_not_come_through_is_named() {
        let fragment = "# why\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_C=n\nCONFIG_D=n\nCONFIG_E=\"-nor\"\n";
        let config =
            "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=y\nCONFIG_DD=y\nCONFIG_E=\"-nor\"\n";
        assert_eq!(lost_symbols(fragment, config), ["CONFIG_B=m", "CONFIG_D=n"]);
    }

    #[test]
    fn the_builds_lines_are_told_from_its_chatter() {
        assert_eq!(made("  CC      net/ipv4/tcp.o"), Some("net/ipv4/tcp.o"));
        assert_eq!(made("  CHKSHA1 include/linux/atomic.h"), Some("include/linux/atomic.h"));
        assert_eq!(made("#"), None);
        assert_eq!(made("  Support for this"), None);
    }

    #[test]
    fn the_two_kernels_differ_in_what_uname_says() {
        assert_ne!(VERSIONS[0].0, VERSIONS[1].0);
        assert_ne!(VERSIONS[0].1, VERSIONS[1].1);
    }
}
