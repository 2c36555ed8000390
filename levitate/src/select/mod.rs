//! What the maintenance root will hold, decided from the configuration and the running system. Nothing is written, and
//! whatever would leave the device without a way in is refused here.

pub(crate) mod services;

mod packages;

pub(crate) mod nss;

mod server;

mod sshd_config;

pub(crate) mod openssh;

mod pam;

mod door;

mod login;

mod link;

pub(crate) mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ramdisk::closure::{Closure, ClosureError, Closures, Missing};
use ramdisk::path::{Link, PathError, Root};
use ramdisk::service::{Service, ServiceError};
use ramdisk::users::{Accounts, UsersError};

use crate::budget::Reserve;
use crate::config::Config;
use crate::facts::SystemFacts;
use crate::keys::{self, KeysError};

/// Made anew in the maintenance root: nothing from the old system can lie below them.
const NEW_DIRECTORIES: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Where applets' links are looked for.
const APPLET_DIRECTORIES: [&str; 4] = ["/bin", "/sbin", "/usr/bin", "/usr/sbin"];

/// What will be staged.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Programs, interpreters and libraries.
    pub closure: Closure,
    /// Of these, by their real names, the programs that the configuration, a service or a user's shell asks for.
    pub programs: BTreeSet<PathBuf>,
    /// Symlinks to programs that come along.
    pub applets: BTreeSet<Link>,
    /// Files and trees to copy as they are.
    pub files: Vec<PathBuf>,
    /// Empty directories that are root's, by their real names.
    pub empty: BTreeSet<PathBuf>,
    /// The services, the bundle `default` among them.
    pub services: Vec<Service>,
    /// The kept accounts.
    pub accounts: Accounts,
    /// The keys of each kept user.
    pub authorized_keys: BTreeMap<String, Vec<String>>,
    /// The users who can log in.
    pub can_log_in: Vec<String>,
    /// The services through which they do.
    pub ways_in: Vec<String>,
    /// The login shells in use.
    pub shells: BTreeSet<PathBuf>,
    /// Host keys, staged under the same names.
    pub host_keys: BTreeSet<PathBuf>,
    /// RAM to keep free for the image.
    pub reserve: Reserve,
    /// What is worth knowing, and stops nothing.
    pub warnings: Vec<String>,
}

/// Why nothing can be staged.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A program, or what it needs, is missing.
    #[error("cannot stage a program")]
    Program(#[from] ClosureError),
    /// As before, for a program that a service runs.
    #[error("cannot stage service {service}")]
    ServiceProgram {
        /// The service.
        service: String,
        /// What is missing.
        source: ClosureError,
    },
    /// A library that is opened by name is missing, or what it needs.
    #[error("cannot stage a library of the configuration's list")]
    Library(#[source] ClosureError),
    /// A list of paths has a line that is none.
    #[error("{list}, line {line}: expected a path that begins with /, found {found:?}")]
    ListLine {
        /// The file.
        list: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// A list of paths names nothing, or does not exist.
    #[error("cannot stage the closure that {list} lists: it {what}")]
    List {
        /// The file.
        list: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What is to be a directory is none.
    #[error("cannot stage {path} as a directory: it is a file")]
    NoDirectory {
        /// As it is named in the configuration.
        path: PathBuf,
    },
    /// None of the places where ssh servers look for a program has it.
    #[error("cannot stage {what}: it is none of {}", .searched.join(", "))]
    NoHelper {
        /// The program.
        what: &'static str,
        /// Where it was looked for.
        searched: Vec<String>,
    },
    /// A user's shell is missing.
    #[error("cannot stage the shell of user {user}")]
    Shell {
        /// The user.
        user: String,
        /// What is missing.
        source: ClosureError,
    },
    /// The services' definitions are wrong.
    #[error("{}", joined(.0))]
    Services(Vec<ServiceError>),
    /// A source directory is missing.
    #[error("cannot stage service {service}: its source {path} does not exist")]
    NoSource {
        /// The service.
        service: String,
        /// The directory.
        path: PathBuf,
    },
    /// No such user, or passwd is malformed.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// Keys could not be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A name leads nowhere.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file lies where the maintenance root has something of its own.
    #[error("cannot stage {path}: {below} is made anew in the maintenance root")]
    Hidden {
        /// The file, by its real name.
        path: PathBuf,
        /// The directory.
        below: &'static str,
    },
    /// None of the services lets anybody log in.
    #[error(
        "nobody could log in: {}; add a service that runs dropbear or sshd, or mark one with login = true",
        none_of(.services)
    )]
    NoLoginService {
        /// The services that there are.
        services: Vec<String>,
    },
    /// None of the users can log in.
    #[error("nobody could log in: {}", .reasons.join("; "))]
    NoUser {
        /// Why not, user by user.
        reasons: Vec<String>,
    },
    /// The ssh server would not find the host keys that it is told to use.
    #[error(
        "cannot stage service {service}: of the host keys that its ssh server is told to use none exists: {}",
        .files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoNamedHostKey {
        /// The service.
        service: String,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// OpenSSH's server executes itself again for each connection, by the name under which it was started.
    #[error(
        "nobody could log in: service {service} starts sshd by its name alone, and OpenSSH refuses that: \
         give its whole path"
    )]
    NotByPath {
        /// The service.
        service: String,
    },
    /// OpenSSH's server does not start without its settings.
    #[error("nobody could log in: the settings of service {service} do not exist: {file}")]
    NoServerSettings {
        /// The service.
        service: String,
        /// The file.
        file: PathBuf,
    },
    /// The ssh server would refuse to start.
    #[error(
        "nobody could log in: service {service} has no host key: none is in /etc/dropbear or /etc/ssh, \
         and none is named in [keep] host_keys"
    )]
    NoHostKey {
        /// The service.
        service: String,
    },
}

fn joined(errors: &[ServiceError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn none_of(services: &[String]) -> String {
    if services.is_empty() {
        "no service is configured".to_owned()
    } else {
        format!("none of the services ({}) is one to log in through", services.join(", "))
    }
}

/// Decides.
///
/// # Errors
///
/// The first thing that is missing, by name; or that nobody could log in.
pub fn select(config: &Config, facts: &SystemFacts) -> Result<Selection, SelectError> {
    let mut selected = gather(config, facts, true)?;
    let (services, root) = (&selected.services, &facts.root);
    selected.host_keys = keys::host_keys(root, config.keep.host_keys.as_deref())?;
    selected.host_keys.extend(login::named_host_keys(services, root));
    let Selection { accounts, authorized_keys, host_keys, .. } = &selected;
    selected.can_log_in = login::check(config, services, accounts, authorized_keys, host_keys, root)?;
    for path in &selected.host_keys {
        is_not_hidden(root, path)?;
    }
    Ok(selected)
}

/// Everything but host keys and who can log in; `must_have` says whether every user and file of keys has to be there.
fn gather(config: &Config, facts: &SystemFacts, must_have: bool) -> Result<Selection, SelectError> {
    let root = &facts.root;
    let services = services::define(config, root)?;
    let built_in = openssh::has_sftp_built_in(&services, root);
    let packages = packages::Packages::find(config, root, &facts.path, built_in)?;
    let closures = &mut Closures::of(root, &facts.path)?;
    let mut closure = closures.resolve(&packages.programs)?;
    let mut programs = packages.programs.clone();
    let mut warnings = packages::contents(&mut closure, &mut programs, &packages.trees, root, closures)?;

    own_libraries(&mut closure, root, closures)?;

    for service in &services {
        let failed = |source| SelectError::ServiceProgram { service: service.name.clone(), source };
        let wanted = services::programs(service, root, &facts.path).map_err(failed)?;
        join(&mut closure, closures.resolve(&wanted).map_err(failed)?);
        programs.extend(wanted);
    }

    let openssh = openssh::needs(&services, root);
    let openssh_files: Vec<PathBuf> = openssh.files.iter().cloned().collect();
    let helpers: Vec<PathBuf> = openssh.programs.iter().cloned().collect();
    join(&mut closure, closures.resolve(&helpers)?);
    programs.extend(helpers);
    warnings.extend(packages::contents(&mut closure, &mut programs, &openssh_files, root, closures)?);

    let mut kept: Vec<&str> = config.users.keys().map(String::as_str).collect();
    kept.retain(|name| must_have || facts.accounts.user(name).is_some());
    kept.extend(openssh::user(&services, &facts.accounts));
    let mut accounts = facts.accounts.only(&kept)?;
    let mut authorized_keys = BTreeMap::new();
    let mut shells = BTreeSet::new();
    for user in &mut accounts.users {
        let Some(wanted) = config.users.get(&user.name) else { continue };
        let keys = match keys::authorized_keys(root, user, wanted) {
            Err(KeysError::Missing { .. }) if !must_have => Vec::new(),
            keys => keys?,
        };
        authorized_keys.insert(user.name.clone(), keys);
        if let Some(shell) = &wanted.shell {
            user.shell.clone_from(shell);
        }
        let shell = user.login_shell().to_owned();
        if !login::is_no_shell(&shell) {
            let needs = closures.resolve(std::slice::from_ref(&shell));
            join(
                &mut closure,
                needs.map_err(|source| SelectError::Shell { user: user.name.clone(), source })?,
            );
            programs.push(shell.clone());
            shells.insert(shell);
        }
    }
    let groups: Vec<(&str, bool)> = config.groups.iter().map(|(name, g)| (name.as_str(), g.keep)).collect();
    accounts.choose_groups(&facts.accounts, &groups)?;
    for (name, _) in config.users.iter().filter(|(_, user)| !user.keep) {
        accounts.lock_password(name);
    }

    let programs = programs.iter().map(|p| Ok(root.resolve(p)?.real)).collect::<Result<_, PathError>>()?;
    opened_by_name(&mut closure, config, root, closures, &programs)?;
    warnings.extend(pam_modules(&mut closure, &openssh.modules, closures, &programs)?);
    let mut empty = BTreeSet::new();
    for path in &openssh.empty {
        let found = root.resolve(path)?;
        closure.links.extend(found.links);
        empty.insert(found.real);
    }

    let ways_in = login::ways_in(config, &services);
    let files: Vec<PathBuf> =
        config.files.iter().chain(&packages.trees).chain(&openssh.files).cloned().collect();
    for path in &files {
        is_not_hidden(root, path)?;
    }
    warnings.extend(login::warnings(&services));
    warnings.extend(facts.network.left_out.iter().cloned());
    warnings.extend(link::warnings(root, &facts.network, &services));
    warnings.extend(login::lease_warning(config));
    Ok(Selection {
        applets: applets(root, &packages.with_links)?,
        warnings,
        closure,
        programs,
        files,
        empty,
        services,
        accounts,
        authorized_keys,
        can_log_in: Vec::new(),
        ways_in,
        shells,
        host_keys: BTreeSet::new(),
        reserve: reserve(config, facts),
    })
}

fn is_not_hidden(root: &Root, path: &Path) -> Result<(), SelectError> {
    let real = root.resolve(path)?.real;
    match NEW_DIRECTORIES.into_iter().find(|d| real.starts_with(d)) {
        Some(below) => Err(SelectError::Hidden { path: real, below }),
        None => Ok(()),
    }
}

/// A lease that is off leaves a device that its owner cannot reach where it is; one that is very short gives him no time.
fn join(closure: &mut Closure, more: Closure) {
    closure.files.extend(more.files);
    closure.links.extend(more.links);
}

/// What programs open by name: the configuration's list, and the C library's modules for users and hosts.
fn opened_by_name(
    closure: &mut Closure,
    config: &Config,
    root: &Root,
    closures: &mut Closures<'_>,
    programs: &BTreeSet<PathBuf>,
) -> Result<(), SelectError> {
    let like: Vec<PathBuf> = programs.iter().cloned().collect();
    join(
        closure,
        closures.libraries(&like, &config.libraries, Missing::Refuse).map_err(SelectError::Library)?,
    );
    let modules = nss::modules(&nss::text(config, root)?);
    join(closure, closures.libraries(&like, &modules, Missing::PassOver).map_err(SelectError::Library)?);
    Ok(())
}

/// What PAM loads for an ssh server. A module that is not there is told: what it would decide is refused.
fn pam_modules(
    closure: &mut Closure,
    modules: &BTreeSet<pam::Module>,
    closures: &mut Closures<'_>,
    programs: &BTreeSet<PathBuf>,
) -> Result<Vec<String>, SelectError> {
    let like: Vec<PathBuf> = programs.iter().cloned().collect();
    let mut warnings = Vec::new();
    for pam::Module { name, is_optional } in modules {
        match closures.libraries(&like, std::slice::from_ref(name), Missing::Refuse) {
            Ok(more) => join(closure, more),
            Err(ClosureError::NoNamedLibrary { .. }) if *is_optional => {}
            Err(ClosureError::NoNamedLibrary { library, .. }) => warnings.push(format!(
                "PAM's module {library}, which the ssh server's settings in /etc/pam.d name, is not there: it may let nobody in"
            )),
            Err(e) => return Err(SelectError::Library(e)),
        }
    }
    Ok(warnings)
}

/// What our own program needs, if it is not linked statically. The file itself is staged under a name of its own.
fn own_libraries(
    closure: &mut Closure,
    root: &Root,
    closures: &mut Closures<'_>,
) -> Result<(), ClosureError> {
    // a file that was replaced while it runs has no name any more
    let Ok(own) = root.resolve(Path::new("/proc/self/exe")) else { return Ok(()) };
    let mut needs = closures.resolve(std::slice::from_ref(&own.real))?;
    needs.files.remove(&own.real);
    join(closure, needs);
    Ok(())
}

/// Every symlink in the programs' directories that leads to one of `programs`, with the links on the way.
fn applets(root: &Root, programs: &[PathBuf]) -> Result<BTreeSet<Link>, PathError> {
    let mut links = BTreeSet::new();
    if programs.is_empty() {
        return Ok(links);
    }
    // by its real name and with its applets each directory once: /bin often is /usr/bin
    let mut seen: BTreeMap<PathBuf, bool> = BTreeMap::new();
    for directory in APPLET_DIRECTORIES.map(Path::new) {
        let Ok(resolved) = root.resolve(directory) else { continue };
        let has_some = match seen.get(&resolved.real) {
            Some(has_some) => *has_some,
            None => {
                let found = applets_in(root, &resolved.real, programs)?;
                let has_some = !found.is_empty();
                links.extend(found);
                seen.insert(resolved.real, has_some);
                has_some
            }
        };
        if has_some {
            links.extend(resolved.links);
        }
    }
    Ok(links)
}

/// Those in the directory `real`, whose name holds no symlinks. Hundreds of them say the same: where that leads is found
/// once.
fn applets_in(root: &Root, real: &Path, programs: &[PathBuf]) -> Result<Vec<Link>, PathError> {
    let host = root.host(real);
    let failed = |source| PathError::Io { path: host.clone(), source };
    let mut links = Vec::new();
    let mut known: BTreeMap<PathBuf, bool> = BTreeMap::new();
    for entry in std::fs::read_dir(&host).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_type().is_ok_and(|t| t.is_symlink()) {
            continue;
        }
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let leads_to_one = match known.get(&target) {
            Some(known) => *known,
            None => {
                let found = root.resolve(&real.join(entry.file_name()));
                let more = found.ok().filter(|found| programs.contains(&found.real));
                let leads_to_one = more.is_some();
                links.extend(more.into_iter().flat_map(|found| found.links));
                known.insert(target.clone(), leads_to_one);
                leads_to_one
            }
        };
        if leads_to_one {
            links.push(Link { at: real.join(entry.file_name()), target });
        }
    }
    Ok(links)
}

/// The image to come is at most as large as the largest partition that can be written, unless the configuration
/// knows better.
fn reserve(config: &Config, facts: &SystemFacts) -> Reserve {
    if let Some(bytes) = config.reserve {
        return Reserve { bytes, from: "reserve in the configuration".to_owned() };
    }
    // of equal ones the first; max_by_key takes the last
    match facts.mtd.iter().filter(|p| p.writeable).rev().max_by_key(|p| p.size) {
        None => Reserve { bytes: 0, from: "no writable MTD partition".to_owned() },
        Some(largest) => Reserve {
            bytes: largest.size,
            from: format!("the size of {} \"{}\"", largest.device, largest.name),
        },
    }
}

#[cfg(test)]
pub(crate) mod tests;

#[cfg(test)]
mod openssh_tests;
