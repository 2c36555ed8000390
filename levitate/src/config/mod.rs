//! `/etc/levitate.toml`: what the maintenance root is to hold. See `levitate.toml.example`.

mod units;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ramdisk::init::lease::DEFAULT_MS;
use serde::Deserialize;
use toml::Spanned;

use crate::manifest::HandoverLimits;
pub use units::{Bytes, Lease, Millis};

/// Where the configuration lies unless another file is named.
pub const CONFIG: &str = "/etc/levitate.toml";

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
    /// Programs to stage, with all that they need.
    pub packages: Vec<Package>,
    /// Files and directory trees to copy as they are.
    pub files: Vec<PathBuf>,
    /// The text of `/etc/banner`.
    pub banner: String,
    /// Bytes of RAM to leave for the image; none: the largest writable MTD partition.
    pub reserve: Option<u64>,
    /// Where the hand-over's fate is recorded; on a persistent file system.
    pub state_file: Option<PathBuf>,
    /// How long the maintenance root stays with nobody logged in, in milliseconds; none: for ever.
    pub lease_ms: Option<u64>,
    /// The services by name.
    pub services: BTreeMap<String, Service>,
    /// The users by name. Root is kept if none is named.
    pub users: BTreeMap<String, User>,
    /// What else is carried over.
    pub keep: Keep,
    /// The hand-over's deadlines.
    pub handover: HandoverLimits,
}

/// A program to stage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = r#"expected a program such as "/usr/sbin/dropbear" or "mtd_debug", or { program = "/bin/busybox", links = true }"#
)]
pub enum Package {
    /// Just the program: an absolute path, or a name that is looked up as a shell would.
    Name(String),
    /// The program, and more about it.
    Table {
        /// As above.
        program: String,
        /// Whether the symlinks in /bin, /sbin, /usr/bin and /usr/sbin that lead to it come along: busybox's applets.
        #[serde(default)]
        links: bool,
    },
}

/// What a service runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = r##"expected a command such as ["/usr/sbin/dropbear", "-F"], or a script such as "#!/bin/sh\nexec ...""##
)]
pub enum Command {
    /// A script; without `#!` it is one for `/bin/sh`.
    Script(String),
    /// A program and its arguments, each just as it is.
    Words(Vec<String>),
}

/// The types of services, as s6-rc has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceType {
    /// A process that is kept alive.
    #[default]
    Longrun,
    /// A program that is run once to go up, and one to go down.
    Oneshot,
    /// A name for several services.
    Bundle,
}

/// One service of the maintenance root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// An s6-rc source directory of the old system that defines it; then only `login` and `dependencies` may be given
    /// as well, the latter instead of the directory's own.
    pub source: Option<PathBuf>,
    /// Its type; longrun unless given.
    #[serde(rename = "type")]
    pub kind: Option<ServiceType>,
    /// A longrun's process.
    pub run: Option<Command>,
    /// Run after each death of it.
    pub finish: Option<Command>,
    /// A oneshot's program to go up.
    pub up: Option<Command>,
    /// A oneshot's program to go down.
    pub down: Option<Command>,
    /// A bundle's members.
    pub contents: Option<Vec<String>>,
    /// What must be up first.
    pub dependencies: Option<Vec<String>>,
    /// Whether people log in through it; unless given, told by the program's name.
    pub login: Option<bool>,
    /// The descriptor on which it says that it is ready.
    #[serde(rename = "notification-fd")]
    pub notification_fd: Option<u16>,
    /// From start to readiness.
    #[serde(rename = "timeout-up")]
    pub timeout_up: Option<Millis>,
    /// From the request to stop to KILL.
    #[serde(rename = "timeout-down")]
    pub timeout_down: Option<Millis>,
    /// The signal that asks it to end, such as `"TERM"`.
    #[serde(rename = "down-signal")]
    pub down_signal: Option<String>,
    /// From that signal to KILL.
    #[serde(rename = "timeout-kill")]
    pub timeout_kill: Option<Millis>,
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
}

impl Default for Keep {
    fn default() -> Self {
        Self { host_keys: None, network: true }
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
    files: Vec<Spanned<PathBuf>>,
    banner: Option<String>,
    reserve: Option<Bytes>,
    state_file: Option<Spanned<PathBuf>>,
    lease: Option<Lease>,
    #[serde(default)]
    services: BTreeMap<String, Spanned<Service>>,
    users: Option<BTreeMap<String, User>>,
    #[serde(default)]
    keep: Keep,
    #[serde(default)]
    handover: Handover,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handover {
    whole: Option<Millis>,
    #[serde(rename = "term-grace")]
    term_grace: Option<Millis>,
    call: Option<Millis>,
}

fn yes() -> bool {
    true
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
            .map_err(|e| invalid(e.span().map_or(0, |s| s.start), e.message().replace('`', "'")))?;
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
            check_service(name, service.get_ref())
                .map_err(|message| invalid(service.span().start, format!("service {name}: {message}")))?;
        }
        let limits = HandoverLimits::default();
        let users = file.users.unwrap_or_else(|| BTreeMap::from([("root".to_owned(), User::default())]));
        Ok(Self {
            packages: file.packages,
            files: file.files.into_iter().map(Spanned::into_inner).collect(),
            banner: file.banner.unwrap_or_else(|| BANNER.to_owned()),
            reserve: file.reserve.map(|b| b.0),
            state_file: file.state_file.map(Spanned::into_inner),
            lease_ms: file.lease.map_or(Some(DEFAULT_MS), |lease| lease.0.map(|time| time.0)),
            services: file.services.into_iter().map(|(name, s)| (name, s.into_inner())).collect(),
            users,
            keep: file.keep,
            handover: HandoverLimits {
                whole_ms: file.handover.whole.map_or(limits.whole_ms, |t| t.0),
                term_grace_ms: file.handover.term_grace.map_or(limits.term_grace_ms, |t| t.0),
                call_ms: file.handover.call.map_or(limits.call_ms, |t| t.0),
            },
        })
    }
}

/// What serde cannot see: which keys go together.
fn check_service(name: &str, service: &Service) -> Result<(), String> {
    if let Some(why) = ramdisk::service::definition::check_name(name) {
        return Err(why.to_owned());
    }
    let given = [
        ("run", service.run.is_some()),
        ("finish", service.finish.is_some()),
        ("notification-fd", service.notification_fd.is_some()),
        ("down-signal", service.down_signal.is_some()),
        ("timeout-kill", service.timeout_kill.is_some()),
        ("up", service.up.is_some()),
        ("down", service.down.is_some()),
        ("contents", service.contents.is_some()),
        ("timeout-up", service.timeout_up.is_some()),
        ("timeout-down", service.timeout_down.is_some()),
        ("type", service.kind.is_some()),
        ("dependencies", service.dependencies.is_some()),
    ];
    let only =
        |kind: &str, allowed: &[&str]| match given.iter().find(|(key, is)| *is && !allowed.contains(key)) {
            None => Ok(()),
            Some((key, _)) => Err(format!("{kind} has no {key}; it may have {}", allowed.join(", "))),
        };
    let empty =
        |command: &Option<Command>| matches!(command, Some(Command::Words(words)) if words.is_empty());
    if [&service.run, &service.finish, &service.up, &service.down].into_iter().any(empty) {
        return Err("a command needs at least the program's name".to_owned());
    }
    if let Some(signal) = &service.down_signal
        && ramdisk::service::definition::parse_signal(signal).is_none()
    {
        return Err(format!(r#"expected a signal such as "TERM" in down-signal, found "{signal}""#));
    }
    if let Some(source) = &service.source {
        if !source.is_absolute() {
            return Err(format!(
                "expected a path that begins with / in source, found \"{}\"",
                source.display()
            ));
        }
        return only("a service with a source", &["dependencies"]);
    }
    let limits = ["type", "dependencies", "timeout-up", "timeout-down"];
    match service.kind.unwrap_or_default() {
        ServiceType::Longrun => {
            let own = ["run", "finish", "notification-fd", "down-signal", "timeout-kill"];
            only("a longrun", &[&own[..], &limits[..]].concat())?;
            if service.run.is_none() {
                return Err("a longrun needs run (or source)".to_owned());
            }
        }
        ServiceType::Oneshot => {
            only("a oneshot", &[&["up", "down"][..], &limits[..]].concat())?;
            if service.up.is_none() && service.down.is_none() {
                return Err("a oneshot needs up or down (or source)".to_owned());
            }
        }
        ServiceType::Bundle => {
            only("a bundle", &["type", "contents"])?;
            if service.contents.is_none() {
                return Err("a bundle needs contents".to_owned());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
