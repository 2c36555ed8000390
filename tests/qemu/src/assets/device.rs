//! The programs for the device: static aarch64 binaries of this checkout, kept by what they are made from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::child::Job;
use super::cross::{self, Toolchain};
use super::error::{Result, SetupError};
use super::places::Cross;
use super::sources::Sources;
use super::target::Target;
use super::tools::Tools;
use super::{keep, packages, unpack};
use crate::progress::{Step, duration};

/// Raised when the way of building changes, so that old results are not taken for new ones.
const RECIPE: &str = "1";
const PROGRAMS: [&str; 2] = ["levitate", "flashcp"];
/// So many builds are kept, those used last.
const KEPT: usize = 30;
/// So many toolchains keep their half-made things: 350 MB each.
const KEPT_FOLDERS: usize = 2;
/// The crate that everything else is compiled for; with link-time optimization it takes as long as half of the rest.
const LAST: &str = "levitate ";

/// What the programs are made with.
pub(crate) struct Device<'a> {
    pub(crate) cache: &'a Path,
    pub(crate) way: Cross,
    pub(crate) tools: &'a Tools,
    /// What they are to run on.
    pub(crate) target: &'static Target,
    /// The cross compiler, which links.
    pub(crate) linker: &'a Path,
    /// Versions of Debian's Rust and of the cross compiler.
    pub(crate) packages: &'a str,
    /// Features of `levitate` that the shipped program does not have.
    pub(crate) features: &'a [&'a str],
}

impl Device<'_> {
    /// `levitate` and `flashcp` of this checkout; built only if nobody built just these before.
    pub(crate) fn binaries(&self, step: &mut Step<'_>) -> Result<[PathBuf; 2]> {
        let compiler = self.compiler()?;
        let sources = Sources::read(&cross::checkout())?;
        let place = self.cache.join("device").join(packages::digest(&[
            RECIPE,
            self.target.triple,
            &compiler,
            &(sources.key() + &self.features.concat() + &self.target.flags.concat()),
        ]));
        unpack::whole(&place, |new| self.build(&compiler, &sources, new, step))?;
        keep_used(&place, KEPT)?;
        Ok(PROGRAMS.map(|name| place.join(name)))
    }

    /// What the result depends on besides the sources.
    fn compiler(&self) -> Result<String> {
        match self.way {
            Cross::Debian => Ok(format!("debian {}", self.packages)),
            Cross::Rustup => {
                let mut command = std::process::Command::new(cross::rustc());
                command.current_dir(cross::checkout()).arg("-vV");
                let what = "asking rustc for its version".into();
                let job = Job { what, command, log: self.log(), limit: Duration::from_secs(60) };
                let linker = std::env::var(self.target.linker_variable());
                Ok(format!("rustup {} {}", job.run_quietly()?, linker.unwrap_or_default()))
            }
        }
    }

    /// Builds in the toolchain's own folder, whose standard library and other people's crates stay for the next build.
    fn build(&self, compiler: &str, sources: &Sources, new: &Path, step: &mut Step<'_>) -> Result<()> {
        let root = self.tools.root.as_deref().unwrap_or(Path::new("")).to_string_lossy();
        let folder = self.cache.join("device-build").join(packages::digest(&[RECIPE, compiler, &root]));
        fs::create_dir_all(&folder).map_err(SetupError::io("create", &folder))?;
        keep_used(&folder, KEPT_FOLDERS)?;
        let source = folder.join("source");
        let target = folder.join("target");
        sources.copy_to(&source)?;
        let toolchain = match self.way {
            Cross::Rustup => cross::rustup(self.target),
            Cross::Debian => cross::debian(self.target, self.tools, self.linker, &folder)?,
        };
        let Toolchain { cargo: mut command, arguments, flags, paths } = toolchain;
        let flags: Vec<&str> =
            flags.iter().chain(self.target.flags).copied().chain(paths.iter().map(String::as_str)).collect();
        // with --target these flags are not for what runs on this machine: build scripts, macros
        command
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_TERM_COLOR", "never")
            .args(["build", "--locked", "--profile", "device", "--target", self.target.triple])
            .args(["--package", "levitate", "--bin", "levitate", "--package", "flasher", "--bin", "flashcp"])
            .args(self.features.iter().map(|feature| format!("--features=levitate/{feature}")))
            .args(arguments)
            .arg("--manifest-path")
            .arg(source.join("Cargo.toml"));
        let what = "building the device binary".into();
        let job = Job { what, command, log: self.log(), limit: Duration::from_secs(1800) };
        let mut told = Told::default();
        job.run(&mut |line| told.hear(line, step))?;
        for name in PROGRAMS {
            let from = target.join(self.target.triple).join("device").join(name);
            fs::copy(&from, new.join(name)).map_err(SetupError::io("copy", &from))?;
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.cache.join("log/device.log")
    }
}

/// What was said of the build so far.
struct Told {
    started: Instant,
    crates: u64,
}

impl Default for Told {
    fn default() -> Self {
        Self { started: Instant::now(), crates: 0 }
    }
}

impl Told {
    fn hear(&mut self, line: Option<&str>, step: &mut Step<'_>) {
        let Some(name) = line.and_then(compiled) else { return };
        self.crates += 1;
        step.at(0, 0, &format!("crate {}, {name}", self.crates));
        if name.starts_with(LAST) {
            step.note(&last(self.crates - 1, self.started.elapsed()));
        }
    }
}

/// Said once, before the longest silence.
fn last(others: u64, time: Duration) -> String {
    let before = match others {
        0 => String::new(),
        1 => format!("another crate took {}; ", duration(time)),
        others => format!("{others} other crates took {}; ", duration(time)),
    };
    before + "levitate is compiled and optimized as a whole now"
}

/// The crate, with its version, whose compilation a line of cargo's announces. Where its source lies is left out.
fn compiled(line: &str) -> Option<&str> {
    let named = line.trim_start().strip_prefix("Compiling ")?;
    Some(named.split_once(" (").map_or(named, |(name, _)| name))
}

/// Removes what lies beside this folder but what was used last or is in use; this one is used from now on.
fn keep_used(used: &Path, kept: usize) -> Result<()> {
    keep::hold(used).map_err(SetupError::io("mark as used", used))?;
    let all = used.parent().unwrap_or(used);
    keep::prune(all, "", kept).map_err(SetupError::io("tidy", all))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn cargos_chatter_is_told_from_the_crates_it_compiles() {
        assert_eq!(compiled("   Compiling serde v1.0.228"), Some("serde v1.0.228"));
        assert_eq!(compiled("    Finished `device` profile [optimized] target(s) in 1m 38s"), None);
        let levitate = compiled("   Compiling levitate v0.1.0 (/checkout/levitate)").unwrap();
        assert_eq!(levitate, "levitate v0.1.0");
        assert!(levitate.starts_with(LAST));
    }

    #[test]
    fn before_the_longest_silence_it_is_said_what_takes_so_long() {
        let ends = "levitate is compiled and optimized as a whole now";
        assert_eq!(last(0, Duration::ZERO), ends);
        assert_eq!(last(51, Duration::from_secs(72)), format!("51 other crates took 1 min 12 s; {ends}"));
    }

    #[test]
    fn the_builds_used_last_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, age) in [("a", 3), ("b", 1), ("c", 2)] {
            fs::create_dir(path(name)).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            File::open(path(name)).unwrap().set_modified(time).unwrap();
        }
        keep_used(&path("a"), 3).unwrap();
        assert!(["a", "b", "c"].iter().all(|name| path(name).exists()));
        keep_used(&path("a"), 2).unwrap();
        assert!(path("a").exists() && path("b").exists() && !path("c").exists());
    }
}
