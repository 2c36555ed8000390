//! One service: its type, its programs, what it needs, and its limits.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use thiserror::Error;

/// The limit of readiness where `timeout-up` is absent, in milliseconds: the manual's 20 seconds.
pub const DEFAULT_TIMEOUT_UP_MS: u64 = 20_000;
/// The limit of a stop where `timeout-down` is absent, in milliseconds. s6-rc waits for ever; a maintenance root must
/// be able to reboot whatever its services do, so the absent file means this and an explicit 0 means for ever.
pub const DEFAULT_TIMEOUT_DOWN_MS: u64 = 10_000;
/// The longest accepted service name, in bytes: a file name's limit, less room for what is put around it.
pub const MAX_NAME: usize = 200;

/// A time limit of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// No limit: a `0` in the file, as in s6-rc.
    Never,
    /// A limit in milliseconds, never 0.
    After(u64),
}

impl Timeout {
    /// The limit for `ms` milliseconds, where 0 means none.
    #[must_use]
    pub fn from_ms(ms: u64) -> Self {
        if ms == 0 { Self::Never } else { Self::After(ms) }
    }

    /// The file's number: milliseconds, 0 for none.
    #[must_use]
    pub fn as_ms(self) -> u64 {
        match self {
            Self::Never => 0,
            Self::After(ms) => ms,
        }
    }

    /// When this limit is over, if it began at `start` (milliseconds of any clock).
    #[must_use]
    pub fn ends(self, start: u64) -> Option<u64> {
        match self {
            Self::Never => None,
            Self::After(ms) => Some(start.saturating_add(ms)),
        }
    }
}

/// A program of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A script's text, not yet written anywhere (an inline service). Without `#!` it is one for `/bin/sh`.
    Script(String),
    /// An executable file: what is read from a source directory.
    File(PathBuf),
    /// A command and its arguments: a oneshot's `up` or `down` that is neither executable nor starts with `#!`.
    Words(Vec<OsString>),
}

/// What kind of service it is, with what only that kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process that is kept alive.
    Longrun {
        /// The process.
        run: Program,
        /// Run after each death of the process, with its exit code and signal as arguments.
        finish: Option<Program>,
        /// The descriptor on which the process writes a newline when it is ready; none: it is ready when it runs.
        notification_fd: Option<u16>,
        /// What asks the process to end. TERM unless the file `down-signal` says otherwise.
        down_signal: Signal,
        /// From the down signal to KILL.
        timeout_kill: Timeout,
    },
    /// A program for up and one for down.
    Oneshot {
        /// Run to bring the service up; none: it is up at once.
        up: Option<Program>,
        /// Run to bring the service down; none: it is down at once.
        down: Option<Program>,
    },
    /// A name for several services.
    Bundle {
        /// Their names.
        contents: BTreeSet<String>,
    },
}

/// A longrun's place in a pipeline: its output goes to another longrun's input instead of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// The longrun that reads this one's output (file `producer-for`).
    pub producer_for: Option<String>,
    /// The longruns whose output this one reads (file `consumer-for`).
    pub consumer_for: BTreeSet<String>,
    /// A bundle to make of the whole pipeline, if this is its last consumer (file `pipeline-name`).
    pub name: Option<String>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique in a set; see [`check_name`].
    pub name: String,
    /// Where it was defined: a source directory or a configuration file; for messages.
    pub origin: PathBuf,
    /// What has to be up before it starts. Always empty for a bundle.
    pub dependencies: BTreeSet<String>,
    /// From the first start to readiness.
    pub timeout_up: Timeout,
    /// From the request to stop to KILL.
    pub timeout_down: Timeout,
    /// The longrun that starts and stops it as things outside demand (file `controlled-by`): it is not for the default
    /// set, and it goes down before its controller does.
    pub controlled_by: Option<String>,
    /// Its place in a pipeline; only a longrun has one.
    pub pipeline: Pipeline,
    /// Its type.
    pub kind: Kind,
}

impl Service {
    /// A longrun with every default: no dependencies, ready when it runs.
    pub fn longrun(name: impl Into<String>, origin: impl Into<PathBuf>, run: Program) -> Self {
        Self {
            name: name.into(),
            origin: origin.into(),
            dependencies: BTreeSet::new(),
            timeout_up: Timeout::Never,
            timeout_down: Timeout::After(DEFAULT_TIMEOUT_DOWN_MS),
            controlled_by: None,
            pipeline: Pipeline::default(),
            kind: Kind::Longrun {
                run,
                finish: None,
                notification_fd: None,
                down_signal: Signal::SIGTERM,
                timeout_kill: Timeout::Never,
            },
        }
    }

    /// A oneshot with every default.
    pub fn oneshot(
        name: impl Into<String>,
        origin: impl Into<PathBuf>,
        up: Option<Program>,
        down: Option<Program>,
    ) -> Self {
        Self { kind: Kind::Oneshot { up, down }, ..Self::longrun(name, origin, Program::Words(Vec::new())) }
    }

    /// A bundle of the services named.
    pub fn bundle<S: Into<String>>(
        name: impl Into<String>,
        origin: impl Into<PathBuf>,
        contents: impl IntoIterator<Item = S>,
    ) -> Self {
        let contents = contents.into_iter().map(Into::into).collect();
        Self { kind: Kind::Bundle { contents }, ..Self::longrun(name, origin, Program::Words(Vec::new())) }
    }

    /// The same service, needing `name` too.
    #[must_use]
    pub fn after(mut self, name: impl Into<String>) -> Self {
        self.dependencies.insert(name.into());
        self
    }

    /// The same service, started and stopped by the longrun `controller`.
    #[must_use]
    pub fn controlled_by(mut self, controller: impl Into<String>) -> Self {
        self.controlled_by = Some(controller.into());
        self
    }

    /// The type's word, as in the file `type`.
    #[must_use]
    pub fn type_word(&self) -> &'static str {
        match self.kind {
            Kind::Longrun { .. } => "longrun",
            Kind::Oneshot { .. } => "oneshot",
            Kind::Bundle { .. } => "bundle",
        }
    }

    /// The same longrun, ready when it writes a newline to descriptor `fd`, within the manual's 20 seconds. Any other
    /// type of service is left as it is.
    #[must_use]
    pub fn notifying(mut self, fd: u16) -> Self {
        if let Kind::Longrun { notification_fd, .. } = &mut self.kind {
            *notification_fd = Some(fd);
            self.timeout_up = Timeout::After(DEFAULT_TIMEOUT_UP_MS);
        }
        self
    }

    /// The limit that an absent `timeout-up` means for this service: 20 seconds with readiness, none without (a
    /// longrun without is up as soon as it runs; a oneshot has s6-rc's default).
    #[must_use]
    pub fn default_timeout_up(&self) -> Timeout {
        match self.kind {
            Kind::Longrun { notification_fd: Some(_), .. } => Timeout::After(DEFAULT_TIMEOUT_UP_MS),
            _ => Timeout::Never,
        }
    }
}

/// Says what is wrong with `name` as a service's name; nothing, if it will do.
///
/// It becomes a directory's name and the second word of log lines, so: not empty, at most [`MAX_NAME`] bytes, no slash,
/// no white space or control characters, no leading dot (s6-rc's rule, hidden files) and no leading `s6rc-` (reserved
/// by s6-rc).
#[must_use]
pub fn check_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("a service needs a name");
    }
    if name.len() > MAX_NAME {
        return Some("the name is longer than 200 bytes");
    }
    if name.starts_with('.') {
        return Some("a service's name does not start with a dot");
    }
    if name.starts_with("s6rc-") {
        return Some("names that start with s6rc- are s6-rc's own");
    }
    if name.chars().any(|c| c == '/' || c.is_whitespace() || c.is_control()) {
        return Some("a service's name has no slash, white space or control character in it");
    }
    None
}

/// The signal named by `text`: `TERM`, `SIGTERM` or `15`.
#[must_use]
pub fn parse_signal(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).ok();
    }
    let upper = text.to_ascii_uppercase();
    let long = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    long.parse().ok()
}

/// What can be wrong with a service or a set of them. Each names the service and the file.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file's content is not what its name promises.
    #[error("service {service}: {path}: expected {expected}, found {found:?}", path = path.display())]
    Content {
        /// Of which service.
        service: String,
        /// Which file.
        path: PathBuf,
        /// What has to be there.
        expected: &'static str,
        /// What is there, the first 80 characters.
        found: String,
    },
    /// A file that this type of service needs is absent.
    #[error("service {service}: {path} is missing: a {kind} needs it", path = path.display())]
    Missing {
        /// Of which service.
        service: String,
        /// Which file.
        path: PathBuf,
        /// The type.
        kind: &'static str,
    },
    /// A name that cannot be a service's.
    #[error("service {name:?} in {path}: {why}", path = path.display())]
    Name {
        /// The name.
        name: String,
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two services of one name.
    #[error("service {name} is defined twice: in {first} and in {second}", first = first.display(), second = second.display())]
    Twice {
        /// The name.
        name: String,
        /// One place.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A dependency or a member of a bundle does not exist.
    #[error("service {service}: {path} names {unknown}, which does not exist", path = path.display())]
    Unknown {
        /// Whose.
        service: String,
        /// The file that names it.
        path: PathBuf,
        /// The name that is not there.
        unknown: String,
    },
    /// A bundle cannot depend on anything: its members do.
    #[error("bundle {service}: {path}: a bundle has no dependencies of its own, give them to its members", path = path.display())]
    BundleDepends {
        /// Which bundle.
        service: String,
        /// The file.
        path: PathBuf,
    },
    /// A bundle is a name: there is nothing in it that a controller could start.
    #[error("bundle {service}: {path}: a bundle is not controlled, give controlled-by to its members", path = path.display())]
    BundleControlled {
        /// Which bundle.
        service: String,
        /// The file.
        path: PathBuf,
    },
    /// A bundle contains itself, directly or through other bundles.
    #[error("bundle {service} in {path} contains itself: {way}", path = path.display(), way = way.join(" -> "))]
    BundleInItself {
        /// Which bundle.
        service: String,
        /// Where it is defined.
        path: PathBuf,
        /// From it through the others back to it.
        way: Vec<String>,
    },
    /// Services wait for one another.
    #[error("service {service} in {path} depends on itself: {way}", path = path.display(), way = way.join(" -> "))]
    Cycle {
        /// The first of them, by name.
        service: String,
        /// Where it is defined.
        path: PathBuf,
        /// From it through the others back to it.
        way: Vec<String>,
    },
    /// A longrun is needed there, to be a controller or a part of a pipeline.
    #[error("service {service}: {path} names {other}: expected a longrun, found a {found}", path = path.display())]
    NotALongrun {
        /// Whose.
        service: String,
        /// The file that names it.
        path: PathBuf,
        /// The name.
        other: String,
        /// Its type.
        found: &'static str,
    },
    /// One end of a pipe knows of the other, which does not know of it.
    #[error("service {service}: {path} names {other}, whose {missing} does not name {service}", path = path.display())]
    HalfAPipe {
        /// Whose.
        service: String,
        /// The file that names it.
        path: PathBuf,
        /// The other end.
        other: String,
        /// The file that should say so, too.
        missing: &'static str,
    },
    /// Something in the default set needs a service that only its controller may start.
    #[error(
        "service {controlled} in {path} is controlled by {controller} and cannot be in the bundle default, which reaches it: {way}",
        path = path.display(), way = way.join(" -> ")
    )]
    ControlledInDefault {
        /// Which.
        controlled: String,
        /// Where it is defined.
        path: PathBuf,
        /// Who starts it.
        controller: String,
        /// From the default set through dependencies to it.
        way: Vec<String>,
    },
    /// A notification descriptor that collides with the standard ones.
    #[error("service {service} in {path}: the notification descriptor is {fd}: expected 3 or more, because 0 to 2 are its standard ones", path = path.display())]
    NotificationFd {
        /// Which service.
        service: String,
        /// Where it is defined.
        path: PathBuf,
        /// The number.
        fd: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_understood_by_name_short_name_and_number() {
        for text in ["HUP", "SIGHUP", "1", "hup"] {
            assert_eq!(parse_signal(text), Some(Signal::SIGHUP), "{text}");
        }
        for text in ["", "SIG", "NOPE", "0", "99", "-1"] {
            assert_eq!(parse_signal(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_a_directory_or_a_word_of_a_log_line_is_refused() {
        for name in ["", ".x", "a/b", "a b", "a\nb", "s6rc-x", "..", &"x".repeat(201)] {
            assert!(check_name(name).is_some(), "{name:?}");
        }
        for name in ["sshd", "wan.link.pppoe", "0", "a-b_c", "größe"] {
            assert_eq!(check_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn zero_is_no_limit_as_in_s6_rc() {
        assert_eq!(Timeout::from_ms(0).ends(5), None);
        assert_eq!(Timeout::from_ms(7).ends(5), Some(12));
        assert_eq!(Timeout::After(u64::MAX).ends(5), Some(u64::MAX));
    }
}
