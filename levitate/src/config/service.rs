//! `[services.NAME]`: each service for itself, and all of them as a set.

use std::path::PathBuf;

use ramdisk::service::definition::{check_name, parse_signal};
use serde::Deserialize;

use super::units::Millis;

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
    /// The longrun that starts and stops it; it is not started at boot then.
    #[serde(rename = "controlled-by")]
    pub controlled_by: Option<String>,
    /// The longrun that reads this one's output.
    #[serde(rename = "producer-for")]
    pub producer_for: Option<String>,
    /// The longruns whose output this one reads.
    #[serde(rename = "consumer-for")]
    pub consumer_for: Option<Vec<String>>,
    /// A bundle to make of the pipeline that ends here.
    #[serde(rename = "pipeline-name")]
    pub pipeline_name: Option<String>,
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

/// What serde cannot see: which keys go together.
pub(super) fn check(name: &str, service: &Service) -> Result<(), String> {
    if let Some(why) = check_name(name) {
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
        ("controlled-by", service.controlled_by.is_some()),
        ("producer-for", service.producer_for.is_some()),
        ("consumer-for", service.consumer_for.is_some()),
        ("pipeline-name", service.pipeline_name.is_some()),
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
        && parse_signal(signal).is_none()
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
    let limits = ["type", "dependencies", "controlled-by", "timeout-up", "timeout-down"];
    match service.kind.unwrap_or_default() {
        ServiceType::Longrun => {
            let own = ["run", "finish", "notification-fd", "down-signal", "timeout-kill"];
            let pipes = ["producer-for", "consumer-for", "pipeline-name"];
            only("a longrun", &[&own[..], &limits[..], &pipes[..]].concat())?;
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
