//! What goes into an image on a build machine, and what a device adds to one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ramdisk::closure::{Closure, ClosureError};
use ramdisk::path::Root;
use ramdisk::service::{Program, Service, read_services_in};
use ramdisk::tree::{Node, Tree};
use ramdisk::users::Accounts;

use super::{Selection, gather, link, login, openssh, reserve, services};
use crate::config::{AuthorizedKeys, Config};
use crate::facts::SystemFacts;
use crate::keys::{self, KeysError};
use crate::plan::home;
use crate::select::SelectError;

/// Where services lie in a root.
pub(crate) const SERVICES: &str = "etc/levitate/services";
/// Keys of one user: more is no list of keys.
const MOST_KEYS: u64 = 1 << 20;
/// A service's program of more bytes is no script.
const MOST_SCRIPT: u64 = 64 << 10;

/// Selects from an unpacked root. Users that it does not have are the device's; so are all host keys. That nobody could
/// log in to the archive as it is, is a warning: the device looks again.
///
/// # Errors
///
/// A program or a file is missing, or no service lets anybody in.
pub(crate) fn on_build_machine(config: &Config, facts: &SystemFacts) -> Result<Selection, SelectError> {
    let mut selected = gather(config, facts, false)?;
    let root = &facts.root;
    if let Ok(inside) = facts.binary.strip_prefix(root.dir()) {
        let own = Path::new("/").join(inside);
        let mut needs = Closure::resolve(root, std::slice::from_ref(&own), &facts.path)?;
        // the file itself has a name of its own in every maintenance root
        needs.files.remove(&own);
        selected.closure.files.extend(needs.files);
        selected.closure.links.extend(needs.links);
    }
    let Selection { services, accounts, authorized_keys, .. } = &selected;
    match login::check(config, services, accounts, authorized_keys, &BTreeSet::new(), root) {
        Ok(users) => selected.can_log_in = users,
        Err(e @ SelectError::NoLoginService { .. }) => return Err(e),
        Err(e) => selected.warnings.push(format!("as an initramfs, without a device: {e}")),
    }
    Ok(selected)
}

/// Selects what the device adds to `image`: accounts, keys that open them, host keys. Who can log in is found out by
/// [`check`].
///
/// # Errors
///
/// A user, a shell or a file that the configuration names is missing.
pub(crate) fn on_device(
    config: &Config,
    facts: &SystemFacts,
    image: &Tree,
) -> Result<Selection, SelectError> {
    let root = &facts.root;
    let inline = config.services.iter().filter(|(_, wanted)| wanted.source.is_none());
    let services: Vec<Service> = inline.map(|(name, wanted)| services::from_config(name, wanted)).collect();
    let mut kept: Vec<&str> = config.users.keys().map(String::as_str).collect();
    let all = with_openssh_user(&facts.accounts, image);
    kept.extend(openssh::user(&services, &all));
    let mut accounts = all.only(&kept)?;
    let mut authorized_keys = BTreeMap::new();
    let mut shells = BTreeSet::new();
    for user in &mut accounts.users {
        let Some(wanted) = config.users.get(&user.name) else { continue };
        let found = match (keys::authorized_keys(root, user, wanted), &wanted.authorized_keys) {
            // a file of the build machine: what was in it is in the archive
            (Err(KeysError::Missing { .. }), Some(AuthorizedKeys::File(_))) => {
                let file = home(user).join(".ssh/authorized_keys");
                let bytes = image.read(&file, MOST_KEYS).ok().flatten().unwrap_or_default();
                String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
            }
            (found, _) => found?,
        };
        authorized_keys.insert(user.name.clone(), found);
        if let Some(shell) = &wanted.shell {
            user.shell.clone_from(shell);
        }
        let shell = user.login_shell().to_owned();
        if !login::is_no_shell(&shell) {
            if !is_program(image, &shell) {
                let source = ClosureError::NoProgram { program: shell, needed_by: None };
                return Err(SelectError::Shell { user: user.name.clone(), source });
            }
            shells.insert(shell);
        }
    }
    let groups: Vec<(&str, bool)> = config.groups.iter().map(|(name, g)| (name.as_str(), g.keep)).collect();
    accounts.choose_groups(&facts.accounts, &groups)?;
    for (name, _) in config.users.iter().filter(|(_, user)| !user.keep) {
        accounts.lock_password(name);
    }
    let mut host_keys = keys::host_keys(root, config.keep.host_keys.as_deref())?;
    host_keys.extend(login::named_host_keys(&services, root));
    let ways_in = login::ways_in(config, &services);
    let mut warnings = facts.network.left_out.clone();
    let all: Vec<Service> = services.iter().cloned().chain(carried(image)).collect();
    warnings.extend(link::warnings(root, &facts.network, &all));
    Ok(Selection {
        ways_in,
        closure: Closure::default(),
        programs: BTreeSet::new(),
        applets: BTreeSet::new(),
        files: Vec::new(),
        empty: BTreeSet::new(),
        services,
        accounts,
        authorized_keys,
        can_log_in: Vec::new(),
        shells,
        host_keys,
        reserve: reserve(config, facts),
        warnings,
    })
}

/// The programs of services that were source directories on the build machine, as one service each: enough to see what
/// they run.
fn carried(image: &Tree) -> Vec<Service> {
    let programs = image.iter().filter(|(path, _)| {
        path.starts_with(SERVICES) && path.file_name().is_some_and(|name| name == "run" || name == "up")
    });
    let text = |path: &Path| image.read(path, MOST_SCRIPT).ok().flatten();
    programs
        .filter_map(|(path, _)| {
            let script = String::from_utf8_lossy(&text(path)?).into_owned();
            Some(Service::longrun("carried", "/", Program::Script(script)))
        })
        .collect()
}

/// Who can log in to the root that was written below `staged`.
///
/// # Errors
///
/// Nobody can, or the services in it are damaged.
pub(crate) fn check(
    config: &Config,
    selected: &Selection,
    staged: &Root,
) -> Result<Vec<String>, SelectError> {
    let directory = staged.resolve(Path::new(SERVICES))?.real;
    let set = read_services_in(staged, &directory).map_err(|e| SelectError::Services(vec![e]))?;
    set.check().map_err(SelectError::Services)?;
    let services: Vec<Service> = set.iter().cloned().collect();
    let Selection { accounts, authorized_keys, host_keys, .. } = selected;
    login::check(config, &services, accounts, authorized_keys, host_keys, staged)
}

/// The device's accounts, and the archive's account for OpenSSH where the device has none.
fn with_openssh_user(accounts: &Accounts, image: &Tree) -> Accounts {
    let mut all = accounts.clone();
    if all.user(openssh::USER).is_none() {
        let text = image.read(Path::new("etc/passwd"), MOST_KEYS).ok().flatten().unwrap_or_default();
        let baked = Accounts::parse(&String::from_utf8_lossy(&text), "", "").unwrap_or_default();
        all.users.extend(baked.user(openssh::USER).cloned());
    }
    all
}

fn is_program(tree: &Tree, path: &Path) -> bool {
    matches!(tree.get(path), Some(Node::File(meta, _)) if meta.mode & 0o111 != 0)
}
