//! Whether anybody could log in to the maintenance root: a service that lets people in, a user with a key or a
//! password and a shell, and a host key for the ssh server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ramdisk::init::lease::{WARNING_MS, lasting};
use ramdisk::path::Root;
use ramdisk::service::Service;
use ramdisk::users::Accounts;

use super::SelectError;
use super::door::Door;
use super::server::Server;
use super::services::{own_programs, started, words};
use super::sshd_config::{Settings, main_file};
use crate::config::Config;

/// Servers that do not start without a host key.
const WANT_HOST_KEY: [&str; 2] = ["dropbear", "sshd"];

/// Those that sshd uses where it is told none.
const OPENSSH_HOST_KEYS: [&str; 3] =
    ["/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_ed25519_key"];

/// Shells that end at once.
pub(super) fn is_no_shell(shell: &Path) -> bool {
    shell.file_name().is_some_and(|n| n == "false" || n == "nologin" || n == "true")
}

/// The host keys that an ssh server is told to use: `-r` of dropbear; `-h` and the setting `HostKey` of sshd. Names
/// that are not told in full (a script's variables) are none.
fn told_host_keys(server: &Server, root: &Root) -> Vec<PathBuf> {
    let named: Vec<String> = match server.program {
        "dropbear" => server.values('r').map(str::to_owned).collect(),
        "sshd" => {
            let settings = Settings::read(server, root);
            let told: Vec<String> =
                server.values('h').chain(settings.all("HostKey")).map(str::to_owned).collect();
            if told.is_empty() { OPENSSH_HOST_KEYS.map(str::to_owned).to_vec() } else { told }
        }
        _ => Vec::new(),
    };
    if named.iter().all(|f| f.starts_with('/')) {
        named.into_iter().map(PathBuf::from).collect()
    } else {
        Vec::new()
    }
}

/// The host keys that ssh servers are told to use, as far as they exist.
pub(super) fn named_host_keys(services: &[Service], root: &Root) -> BTreeSet<PathBuf> {
    let servers = services.iter().filter_map(Server::of);
    servers.flat_map(|s| told_host_keys(&s, root)).filter(|path| root.resolve(path).is_ok()).collect()
}

/// The services through which people log in: those that the configuration says, and known servers.
fn is_way_in(config: &Config, service: &Service) -> bool {
    let told = config.services.get(&service.name).and_then(|s| s.login);
    told.unwrap_or_else(|| Server::of(service).is_some())
}

/// Their names.
pub(super) fn ways_in(config: &Config, services: &[Service]) -> Vec<String> {
    services.iter().filter(|service| is_way_in(config, service)).map(|s| s.name.clone()).collect()
}

/// What keeps OpenSSH's server from starting at all, however many keys there are.
fn starts(service: &Service, root: &Root) -> Result<(), SelectError> {
    let Some(server) = Server::of(service).filter(|server| server.program == "sshd") else { return Ok(()) };
    let service = service.name.clone();
    if !server.by_path {
        return Err(SelectError::NotByPath { service });
    }
    let file = main_file(&server);
    let none = file.starts_with("/dev") || file == Path::new("none");
    if !none && file.is_absolute() && root.resolve(&file).is_err() {
        return Err(SelectError::NoServerSettings { service, file });
    }
    Ok(())
}

/// Who can log in; refused if nobody can.
pub(super) fn check(
    config: &Config,
    services: &[Service],
    accounts: &Accounts,
    keys: &BTreeMap<String, Vec<String>>,
    host_keys: &BTreeSet<PathBuf>,
    root: &Root,
) -> Result<Vec<String>, SelectError> {
    let started = started(services);
    let services: Vec<&Service> = services.iter().filter(|s| started.contains(&s.name)).collect();
    let mut ways_in = services.clone();
    ways_in.retain(|service| is_way_in(config, service));
    let Some(first) = ways_in.first().map(|s| s.name.clone()) else {
        let services = config.services.keys().cloned().collect();
        return Err(SelectError::NoLoginService { services });
    };
    let makes_keys = |word: &String| word.ends_with("dropbearkey") || word.ends_with("ssh-keygen");
    let keys_are_made = services.iter().any(|s| own_programs(s).flat_map(words).any(|w| makes_keys(&w)));
    let waits_for_a_key = |service: &Service| {
        Server::of(service).filter(|server| {
            let makes_its_own = server.program == "dropbear" && server.has('R');
            WANT_HOST_KEY.contains(&server.program) && !makes_its_own && !keys_are_made
        })
    };
    for service in &ways_in {
        starts(service, root)?;
        let files = waits_for_a_key(service).map(|s| told_host_keys(&s, root)).unwrap_or_default();
        if !files.is_empty() && files.iter().all(|file| root.resolve(file).is_err()) {
            return Err(SelectError::NoNamedHostKey { service: service.name.clone(), files });
        }
    }
    ways_in.retain(|service| !host_keys.is_empty() || waits_for_a_key(service).is_none());
    if ways_in.is_empty() {
        return Err(SelectError::NoHostKey { service: first });
    }
    let doors: Vec<Door> = ways_in.iter().map(|service| Door::of(service, root)).collect();
    let mut reasons = Vec::new();
    let mut can = Vec::new();
    for user in accounts.users.iter().filter(|user| config.users.contains_key(&user.name)) {
        let has_key = keys.get(&user.name).is_some_and(|k| !k.is_empty());
        if is_no_shell(user.login_shell()) {
            reasons.push(format!("user {} has the shell {}", user.name, user.login_shell().display()));
        } else if !has_key && !accounts.has_password(&user.name) {
            reasons.push(format!("user {} has neither an authorized key nor a password", user.name));
        } else {
            let refusals: Option<Vec<String>> =
                doors.iter().map(|door| door.refuses(user, accounts, has_key)).collect();
            match refusals {
                None => can.push(user.name.clone()),
                Some(refusals) => {
                    let has = if has_key { "an authorized key" } else { "a password and no authorized key" };
                    reasons.push(format!("user {} has {has}, but {}", user.name, refusals.join(", and ")));
                }
            }
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
        Server::of(service).is_some_and(|server| match server.program {
            "dropbear" => !server.has('F'),
            "sshd" => !server.has('D'),
            _ => false,
        })
    };
    let warning = |service: &Service| {
        format!(
            "service {}: its ssh server goes into the background and will be started again and again; \
             give it -F (dropbear) or -D (sshd)",
            service.name
        )
    };
    services.iter().filter(forks).map(warning).collect()
}

/// What is unusual about how long a root stays into which nobody gets.
pub(super) fn lease_warning(config: &Config) -> Option<String> {
    let text = match config.lease {
        None => "the lease is off: a maintenance root into which nobody gets stays until the power is cut"
            .to_owned(),
        Some(ms) if ms < WARNING_MS => {
            format!("the lease is {}: that is all the time there is to log in", lasting(ms))
        }
        Some(_) => return None,
    };
    Some(text)
}
