//! Whether anybody could log in to the maintenance root: a service that lets people in, a user with a key or a
//! password and a shell, and a host key for the ssh server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ramdisk::path::Root;
use ramdisk::service::{Kind, Service};
use ramdisk::users::Accounts;

use super::SelectError;
use super::services::{own_programs, started, words};
use crate::config::Config;

/// Programs through which people log in.
const LOGIN_PROGRAMS: [&str; 7] = ["dropbear", "sshd", "tinysshd", "telnetd", "getty", "agetty", "mgetty"];
/// Those of them that do not start without a host key.
const WANT_HOST_KEY: [&str; 2] = ["dropbear", "sshd"];

/// Shells that end at once.
pub(super) fn is_no_shell(shell: &Path) -> bool {
    shell.file_name().is_some_and(|n| n == "false" || n == "nologin" || n == "true")
}

/// The login program among a service's words, and the words after it.
fn login_program(words: &[String]) -> Option<(&str, &[String])> {
    words.iter().enumerate().find_map(|(at, word)| {
        let name = Path::new(word).file_name()?.to_str()?;
        let known = LOGIN_PROGRAMS.into_iter().find(|known| *known == name)?;
        Some((known, words.get(at + 1..).unwrap_or_default()))
    })
}

fn words_of(service: &Service) -> Vec<String> {
    match service.kind {
        Kind::Longrun { .. } => own_programs(service).next().map(words).unwrap_or_default(),
        Kind::Oneshot { .. } | Kind::Bundle { .. } => Vec::new(),
    }
}

/// The host keys that ssh servers are told to use (`-r` of dropbear, `-h` of sshd), as far as they exist.
pub(super) fn named_host_keys(services: &[Service], root: &Root) -> BTreeSet<PathBuf> {
    let mut named = BTreeSet::new();
    for service in services {
        let words = words_of(service);
        let Some((program, arguments)) = login_program(&words) else { continue };
        let flag = match program {
            "dropbear" => "-r",
            "sshd" => "-h",
            _ => continue,
        };
        for (at, argument) in arguments.iter().enumerate() {
            let file = match argument.strip_prefix(flag) {
                Some("") => arguments.get(at + 1).map(String::as_str),
                other => other,
            };
            named.extend(file.filter(|f| f.starts_with('/')).map(PathBuf::from));
        }
    }
    named.retain(|path| root.resolve(path).is_ok());
    named
}

/// Who can log in; refused if nobody can.
pub(super) fn check(
    config: &Config,
    services: &[Service],
    accounts: &Accounts,
    keys: &BTreeMap<String, Vec<String>>,
    host_keys: &BTreeSet<PathBuf>,
) -> Result<Vec<String>, SelectError> {
    let started = started(services);
    let mut ways_in = services.iter().filter(|s| started.contains(&s.name)).filter(|service| {
        let told = config.services.get(&service.name).and_then(|s| s.login);
        told.unwrap_or_else(|| login_program(&words_of(service)).is_some())
    });
    let Some(first) = ways_in.next() else {
        let services = config.services.keys().cloned().collect();
        return Err(SelectError::NoLoginService { services });
    };
    let lacks_host_key = |service: &Service| {
        let words = words_of(service);
        let makes_its_own = |w: &String| {
            let flags = w.starts_with('-') && !w.starts_with("--") && w.contains('R');
            flags || w.ends_with("dropbearkey") || w.ends_with("ssh-keygen")
        };
        login_program(&words).is_some_and(|(program, _)| WANT_HOST_KEY.contains(&program))
            && host_keys.is_empty()
            && !words.iter().any(makes_its_own)
    };
    if lacks_host_key(first) && ways_in.all(lacks_host_key) {
        return Err(SelectError::NoHostKey { service: first.name.clone() });
    }
    let mut reasons = Vec::new();
    let mut can = Vec::new();
    for user in &accounts.users {
        let has_key = keys.get(&user.name).is_some_and(|k| !k.is_empty());
        if is_no_shell(user.login_shell()) {
            reasons.push(format!("user {} has the shell {}", user.name, user.login_shell().display()));
        } else if has_key || accounts.has_password(&user.name) {
            can.push(user.name.clone());
        } else {
            reasons.push(format!("user {} has neither an authorized key nor a password", user.name));
        }
    }
    if can.is_empty() {
        if reasons.is_empty() {
            reasons.push("no user is kept".to_owned());
        }
        return Err(SelectError::NoUser { reasons });
    }
    Ok(can)
}

/// What will probably not do what was meant.
pub(super) fn warnings(services: &[Service]) -> Vec<String> {
    let forks = |service: &&Service| {
        let words = words_of(service);
        let flag = match login_program(&words) {
            Some(("dropbear", arguments)) => Some(('F', arguments.to_vec())),
            Some(("sshd", arguments)) => Some(('D', arguments.to_vec())),
            _ => None,
        };
        flag.is_some_and(|(flag, arguments)| {
            !arguments.iter().any(|a| a.starts_with('-') && a.contains(flag))
        })
    };
    let warning = |service: &Service| {
        format!(
            "service {}: its ssh server goes into the background and will be started again and again; \
             give it -F (dropbear) or -D (sshd)",
            service.name
        )
    };
    let openssh = |service: &&Service| login_program(&words_of(service)).is_some_and(|(p, _)| p == "sshd");
    let its_files = |service: &Service| {
        format!(
            "service {}: OpenSSH needs more than its program: the user sshd in [users], and /etc/ssh and its helpers \
             (/usr/lib/openssh) in files; log in there once before you rely on it",
            service.name
        )
    };
    let openssh = services.iter().filter(openssh).map(its_files);
    services.iter().filter(forks).map(warning).chain(openssh).collect()
}
