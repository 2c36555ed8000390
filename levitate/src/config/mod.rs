//! `/etc/levitate.toml`: what the maintenance root is to hold. See `levitate.toml.example` and levitate.toml(5).

mod hint;
mod package;
mod service;
mod set;
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ramdisk::init::lease::default_unverified;
use serde::Deserialize;
use toml::Spanned;

use crate::manifest::HandoverLimits;
pub use package::Package;
pub use service::{Command, Service, ServiceType};
use units::Lease;
pub use units::{Bytes, Millis};

/// Where the configuration lies unless another file is named.
pub const CONFIG: &str = "/etc/levitate.toml";

/// How long the maintenance root waits for somebody to log in unless the configuration says otherwise, in milliseconds.
pub const LEASE: u64 = 15 * 60_000;

/// The manual's text, told to whoever logs in.
pub const BANNER: &str = "
LADIES AND GENTLEMEN WE ARE FLOATING IN SPACE

Most services are disabled. The system is operating
with a ram-based root filesystem, making it safe to
overwrite the flash devices in order to perform
upgrades and maintenance.

Don't forget to reboot when you have finished.

";

/// The whole configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Programs, directories and closures to stage, with all that they need.
    pub packages: Vec<Package>,
    /// Libraries that programs open by name while they run (NSS and PAM modules, plugins): names or absolute paths.
    pub libraries: Vec<String>,
    /// Files and directory trees to copy as they are.
    pub files: Vec<PathBuf>,
    /// The text of `/etc/banner`.
    pub banner: String,
    /// Bytes of RAM to leave for the image; none: the largest writable MTD partition.
    pub reserve: Option<u64>,
    /// Where the hand-over's fate is recorded; on a persistent file system.
    pub state_file: Option<PathBuf>,
    /// The services by name.
    pub services: BTreeMap<String, Service>,
    /// The users by name. Root is kept if none is named.
    pub users: BTreeMap<String, User>,
    /// Groups that are kept, or left out, other than the users' own make it so.
    pub groups: BTreeMap<String, Group>,
    /// What else is carried over.
    pub keep: Keep,
    /// After so many milliseconds without anybody logged in the maintenance root goes back; none: never.
    pub lease: Option<u64>,
    /// As `lease`, in milliseconds, while flash is as the old system left it, changed and not verified; none: that ends it.
    pub lease_unverified: Option<u64>,
    /// The hand-over's deadlines.
    pub handover: HandoverLimits,
}

/// One user of the maintenance root.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Whether password and authorized keys are carried over. Number, groups and home always are.
    #[serde(default = "yes")]
    pub keep: bool,
    /// Keys that open the account, instead of those in its home.
    pub authorized_keys: Option<AuthorizedKeys>,
    /// The login shell, instead of the one that the old system has.
    pub shell: Option<PathBuf>,
}

impl Default for User {
    fn default() -> Self {
        Self { keep: true, authorized_keys: None, shell: None }
    }
}

/// One group of the maintenance root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Whether its line is carried over, with those of its members who are kept. A kept user's own group always is.
    #[serde(default = "yes")]
    pub keep: bool,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = r#"expected a file such as "/etc/authorized_keys", or a list of keys such as ["ssh-ed25519 AAAA... me"]"#
)]
pub enum AuthorizedKeys {
    /// A file of the old system.
    File(PathBuf),
    /// The lines themselves.
    Keys(Vec<String>),
}

/// What is carried over besides users.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Host keys; none: all that are in `/etc/dropbear` and `/etc/ssh`.
    pub host_keys: Option<Vec<PathBuf>>,
    /// Addresses, routes, resolv.conf and hostname.
    #[serde(default = "yes")]
    pub network: bool,
    /// The program that ssh servers start for `sftp`, and for the `scp` of OpenSSH since 9.0.
    #[serde(default)]
    pub sftp: bool,
    /// The program that the `scp` of others starts on the device.
    #[serde(default)]
    pub scp: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self { host_keys: None, network: true, sftp: false, scp: false }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file says something that is not allowed.
    #[error("{path}, line {line}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what would be right.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    packages: Vec<Package>,
    #[serde(default)]
    libraries: Vec<String>,
    #[serde(default)]
    files: Vec<Spanned<PathBuf>>,
    banner: Option<String>,
    reserve: Option<Bytes>,
    state_file: Option<Spanned<PathBuf>>,
    lease: Option<Lease>,
    lease_unverified: Option<Lease>,
    #[serde(default)]
    services: BTreeMap<String, Spanned<Service>>,
    users: Option<BTreeMap<String, User>>,
    #[serde(default)]
    groups: BTreeMap<String, Group>,
    #[serde(default)]
    keep: Keep,
    #[serde(default)]
    handover: Handover,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handover {
    whole: Option<Spanned<Millis>>,
    #[serde(rename = "term-grace")]
    term_grace: Option<Spanned<Millis>>,
    call: Option<Spanned<Millis>>,
    shutdown: Option<Spanned<Millis>>,
}

/// Less than this is no time for a hand-over, in milliseconds: each `reboot` would fail.
const LEAST_WHOLE: u64 = 10_000;
/// The same for one call of the kernel.
const LEAST_CALL: u64 = 100;
/// The same for an init's own shutdown.
const LEAST_SHUTDOWN: u64 = 5_000;

impl Handover {
    /// The deadlines, checked.
    ///
    /// # Errors
    ///
    /// Where the first that is out of bounds is, and what would be right.
    fn limits(&self) -> Result<HandoverLimits, (usize, String)> {
        let default = HandoverLimits::default();
        let of = |given: &Option<Spanned<Millis>>, default: u64, least: u64, most: u64, key: &str| {
            let Some(given) = given else { return Ok(default.min(most)) };
            let ms = given.get_ref().0;
            if (least..=most).contains(&ms) {
                return Ok(ms);
            }
            let most = if most == u64::MAX { String::new() } else { format!(" and at most {most} ms") };
            Err((given.span().start, format!("{key}: expected at least {least} ms{most}, found {ms} ms")))
        };
        let whole_ms = of(&self.whole, default.whole_ms, LEAST_WHOLE, u64::MAX, "whole")?;
        // both have to fit in, with room for the rest
        let term_grace_ms = of(&self.term_grace, default.term_grace_ms, 0, whole_ms / 2, "term-grace")?;
        let call_ms = of(&self.call, default.call_ms, LEAST_CALL, whole_ms, "call")?;
        let shutdown_ms = of(&self.shutdown, default.shutdown_ms, LEAST_SHUTDOWN, u64::MAX, "shutdown")?;
        Ok(HandoverLimits { whole_ms, term_grace_ms, call_ms, shutdown_ms })
    }
}

fn yes() -> bool {
    true
}

/// Where a line of `text` begins with the key `word`; its beginning if none does.
fn key_in(text: &str, word: &str) -> usize {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if !word.is_empty() && line.trim_start().starts_with(word) {
            return at;
        }
        at += line.len();
    }
    0
}

/// Where `text` says `word` in quotes: the line to be told. Its beginning if it does not.
fn quoted_in(text: &str, word: &str) -> usize {
    let found = ['"', '\''].iter().filter_map(|quote| text.find(&format!("{quote}{word}{quote}")));
    found.min().unwrap_or(0)
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or the first thing in it that is wrong, with its line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Parses and checks the text of the file `path`.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its line.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let invalid = |at: usize, message: String| ConfigError::Invalid {
            path: path.to_owned(),
            line: text.get(..at).unwrap_or(text).matches('\n').count() + 1,
            message,
        };
        let file: File = toml::from_str(text)
            .map_err(|e| invalid(e.span().map_or(0, |s| s.start), hint::improve(e.message())))?;
        let absolute = |path: &Spanned<PathBuf>| {
            let given = path.get_ref();
            if given.is_absolute() {
                return Ok(());
            }
            let message = format!("expected a path that begins with /, found \"{}\"", given.display());
            Err(invalid(path.span().start, message))
        };
        file.files.iter().chain(&file.state_file).try_for_each(absolute)?;
        for (name, service) in &file.services {
            service::check(name, service.get_ref())
                .map_err(|message| invalid(service.span().start, format!("service {name}: {message}")))?;
        }
        let all = file.services.iter().map(|(name, service)| (name.clone(), service.get_ref())).collect();
        set::check(&all).map_err(|e| {
            let start = file.services.get(&e.service).map_or(0, |service| service.span().start);
            let key = start + key_in(text.get(start..).unwrap_or_default(), &e.key);
            invalid(key + quoted_in(text.get(key..).unwrap_or_default(), &e.word), e.message)
        })?;
        let handover = file.handover.limits().map_err(|(at, message)| invalid(at, message))?;
        let users = file.users.unwrap_or_else(|| BTreeMap::from([("root".to_owned(), User::default())]));
        Ok(Self {
            packages: file.packages,
            libraries: file.libraries,
            files: file.files.into_iter().map(Spanned::into_inner).collect(),
            banner: file.banner.unwrap_or_else(|| BANNER.to_owned()),
            reserve: file.reserve.map(|b| b.0),
            state_file: file.state_file.map(Spanned::into_inner),
            services: file.services.into_iter().map(|(name, s)| (name, s.into_inner())).collect(),
            users,
            groups: file.groups,
            lease: file.lease.map_or(Some(LEASE), |lease| lease.0),
            lease_unverified: file.lease_unverified.map_or(default_unverified(), |lease| lease.0),
            keep: file.keep,
            handover,
        })
    }
}

#[cfg(test)]
mod tests;
