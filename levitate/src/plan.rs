//! The root to be staged, entry by entry: what was selected from the old system, and over it what every maintenance
//! root has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ramdisk::original::Original;
use ramdisk::path::{PathError, Root};
use ramdisk::service::{ServiceError, source::write_source_dir};
use ramdisk::sink::{Content, Meta};
use ramdisk::tree::{Node, Tree, TreeError};
use ramdisk::users::User;

use crate::config::Config;
use crate::facts::SystemFacts;
use crate::handover::journey::StateHome;
use crate::handover::{mounts, watchdog};
use crate::keys::DROPBEAR_ROOT_KEYS;
use crate::manifest::{MANIFEST, Manifest};
use crate::network::{self, NetworkFilesError};
use crate::select::{Selection, nss, openssh, services};
use crate::state::seconds_since_1970;

/// The version of the staged root's layout.
pub(crate) const LAYOUT: u32 = 1;
/// The commands that are ours whoever else has them.
const OURS: [&str; 4] = ["flashcp", "reboot", "poweroff", "halt"];
/// The other directories of a usual PATH, before or after /sbin.
const OTHER_DIRECTORIES: [&str; 3] = ["bin", "usr/bin", "usr/sbin"];
/// Executed by the kernel as `/sbin/levitate init`: a file of its own, so that its mode is its own.
const INIT: &str = "#!/sbin/levitate init\n";
/// A login shell shows where its user is, and finds our commands first. The aliases are for busybox shells that prefer their own applets to PATH:
/// their `reboot` only sends a signal to PID 1, which then waits for flashcp all the same but cannot say so to the user.
/// (An ssh server sets a PATH of its own where no login shell runs.)
const PROFILE: &str = "export PATH=/sbin:/usr/sbin:/bin:/usr/bin\n\
    for name in reboot poweroff halt flashcp; do alias $name=/sbin/$name; done\n\
    unset name\n\
    cat /etc/banner
\
    levitate lease 2>/dev/null
";
/// Why the root cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A file that the configuration lists cannot be read.
    #[error("plan the maintenance root")]
    Path(#[from] PathError),
    /// Two things in one place, or a file that is gone by now.
    #[error("plan the maintenance root")]
    Tree(#[from] TreeError),
    /// A service's file cannot be read.
    #[error("plan the maintenance root")]
    Service(#[from] ServiceError),
    /// The network's settings.
    #[error("plan the maintenance root")]
    Network(#[from] NetworkFilesError),
    /// The manifest cannot be written as JSON.
    #[error("write the manifest")]
    Json(#[from] serde_json::Error),
}

/// The planned root.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What lies where.
    pub tree: Tree,
    /// What the root says of itself; it is in the tree, too.
    pub manifest: Manifest,
    /// What will probably not do what was meant.
    pub warnings: Vec<String>,
}

/// Plans.
///
/// # Errors
///
/// Something has no place, or cannot be read.
pub fn plan(config: &Config, facts: &SystemFacts, selected: &Selection) -> Result<Plan, PlanError> {
    plan_in(Tree::new(), config, facts, selected)
}

/// As [`plan`], in a tree of the caller's.
///
/// # Errors
///
/// As [`plan`].
pub(crate) fn plan_in(
    mut tree: Tree,
    config: &Config,
    facts: &SystemFacts,
    selected: &Selection,
) -> Result<Plan, PlanError> {
    let root = &facts.root;
    // symlinks first: whatever is put below them then lies where they lead
    tree.links(&selected.closure.links)?;
    tree.links(&selected.applets)?;
    for real in &selected.closure.files {
        tree.copy_real(root, real)?;
    }
    for path in &selected.files {
        tree.copy(root, path)?;
    }
    for path in &selected.empty {
        tree.directory(path, Meta::root(0o755))?;
    }
    for path in &selected.host_keys {
        let real = tree.copy(root, path)?;
        let public = path.extension().is_some_and(|e| e == "pub");
        let mode = if public { 0o644 } else { 0o600 };
        tree.file(&real, Meta::root(mode), original(&root.host(&real))?)?;
    }
    text(&mut tree, nss::NSSWITCH, 0o644, &nss::text(config, root)?)?;
    if config.keep.network {
        network::put(&mut tree, &facts.network, facts.hosts.as_deref())?;
    }
    let mut warnings = skeleton(&mut tree, facts)?;
    accounts(&mut tree, facts, selected)?;
    text(&mut tree, "etc/banner", 0o644, &config.banner)?;
    // scripts may say what only their owner is to read; PID 1 alone reads them here
    tree.directory(Path::new("etc/levitate/services"), Meta::root(0o700))?;
    for service in &selected.services {
        for file in write_source_dir(service)? {
            let at = Path::new("etc/levitate/services").join(&file.path);
            tree.file(&at, Meta::root(file.mode), Content::Bytes(file.bytes))?;
        }
    }
    warnings.extend(left_behind(&tree, facts, selected));
    tree.adopt_parents(root)?;
    let size = tree.size(facts.page)?;
    let manifest = Manifest {
        version: LAYOUT,
        staged_at: seconds_since_1970(),
        boot_id: facts.boot_id.clone(),
        services: selected.services.iter().map(|s| s.name.clone()).filter(|n| n != "default").collect(),
        users: selected.can_log_in.clone(),
        files: size.files,
        bytes: size.bytes,
        state_file: config.state_file.as_deref().map(|path| state_file(&facts.root, path)),
        watchdogs: watchdogs(&facts.root),
        state_home: config.state_file.as_deref().and_then(|path| state_home(&facts.root, path)),
        lease_ms: config.lease,
        lease_unverified_ms: config.lease_unverified,
        ways_in: selected.ways_in.clone(),
        handover: config.handover,
    };
    text(&mut tree, MANIFEST, 0o644, &serde_json::to_string(&manifest)?)?;
    Ok(Plan { tree, manifest, warnings })
}

/// The regular file `host`, to be copied.
pub(crate) fn original(host: &Path) -> Result<Content, TreeError> {
    Original::look(host).map(Content::CopyOf).map_err(at(host))
}

fn at(host: &Path) -> impl FnOnce(std::io::Error) -> TreeError {
    let path = host.to_owned();
    move |source| TreeError::Io { path, source }
}

/// The watchdogs that run, by the rules of the hand-over.
pub(crate) fn watchdogs(root: &Root) -> Vec<String> {
    let facts = crate::sys::handover::watchdog_facts(root.dir());
    watchdog::plan(&facts, &[]).iter().map(|plan| plan.device().to_owned()).collect()
}

/// The state file's path without symbolic links: after the pivot an absolute one would lead into the new root. As it was
/// configured if its directory is not there.
pub(crate) fn state_file(root: &Root, file: &Path) -> PathBuf {
    real(root, file).unwrap_or_else(|| file.to_owned())
}

/// Of the file itself no link is followed: it is replaced by a rename.
fn real(root: &Root, file: &Path) -> Option<PathBuf> {
    Some(root.resolve(file.parent()?).ok()?.real.join(file.file_name()?))
}

/// The file system that holds the state file, if it can be mounted again by its source and type alone.
pub(crate) fn state_home(root: &Root, file: &Path) -> Option<StateHome> {
    let table = mounts::parse(&std::fs::read(root.dir().join("proc/self/mountinfo")).ok()?);
    let real = real(root, file)?;
    let mount = mounts::holding(&table, &real)?;
    let file = real.strip_prefix(&mount.point).ok()?.to_owned();
    let (source, fstype) = (mount.source.clone(), mount.fstype.clone());
    (mount.keeps_data() && mount.root == Path::new("/")).then_some(StateHome { source, fstype, file })
}

pub(crate) fn text(tree: &mut Tree, path: &str, mode: u32, text: &str) -> Result<(), TreeError> {
    tree.file(Path::new(path), Meta::root(mode), Content::Bytes(text.into()))
}

pub(crate) fn accounts(tree: &mut Tree, facts: &SystemFacts, selected: &Selection) -> Result<(), PlanError> {
    let accounts = &selected.accounts;
    text(tree, "etc/passwd", 0o644, &accounts.passwd_text())?;
    text(tree, "etc/group", 0o644, &accounts.group_text())?;
    text(tree, "etc/shadow", 0o600, &accounts.shadow_text())?;
    // ssh servers let nobody in whose shell is not listed here
    let shells: BTreeSet<String> = selected.shells.iter().map(|s| format!("{}\n", s.display())).collect();
    text(tree, "etc/shells", 0o644, &shells.into_iter().collect::<String>())?;
    for user in &accounts.users {
        let owned = |mode| Meta { mode, uid: user.uid, gid: user.gid };
        let home = home(user);
        // system users have homes such as /usr/sbin, which must not become theirs alone
        if home != Path::new("/") && tree.get(home).is_none() {
            // OpenSSH gives up its privileges in there, and does not start unless it is root's
            let meta = if user.name == openssh::USER { Meta::root(0o755) } else { owned(0o700) };
            tree.directory(home, meta)?;
        }
        let Some(keys) = selected.authorized_keys.get(&user.name).filter(|k| !k.is_empty()) else { continue };
        let lines: String = keys.iter().map(|k| format!("{k}\n")).collect();
        let ssh = home.join(".ssh");
        tree.directory(&ssh, owned(0o700))?;
        tree.file(&ssh.join("authorized_keys"), owned(0o600), Content::Bytes(lines.clone().into()))?;
        if user.uid == 0 && facts.root.resolve(Path::new(DROPBEAR_ROOT_KEYS)).is_ok() {
            tree.file(Path::new(DROPBEAR_ROOT_KEYS), owned(0o600), Content::Bytes(lines.into()))?;
        }
    }
    Ok(())
}

pub(crate) fn home(user: &User) -> &Path {
    if user.home.is_absolute() { &user.home } else { Path::new("/") }
}

/// Files that services name, that the old system has, and that are not staged.
fn left_behind(tree: &Tree, facts: &SystemFacts, selected: &Selection) -> Vec<String> {
    let root = &facts.root;
    let mut warnings = BTreeSet::new();
    for service in &selected.services {
        for word in services::own_programs(service).flat_map(services::words) {
            let path = Path::new(&word);
            let made_anew = ["/dev", "/proc", "/sys", "/run"].iter().any(|d| path.starts_with(d));
            if !path.is_absolute() || made_anew || tree.get(path).is_some() {
                continue;
            }
            if root.resolve(path).is_ok_and(|found| root.host(&found.real).is_file()) {
                let name = &service.name;
                warnings.insert(format!(
                    "service {name} names {word}, which is not staged: name it in packages or files"
                ));
            }
        }
    }
    warnings.into_iter().collect()
}

/// What every maintenance root has. Returns a warning for each program that gave way to ours.
fn skeleton(tree: &mut Tree, facts: &SystemFacts) -> Result<Vec<String>, PlanError> {
    for name in ["dev", "proc", "sys", "run", "oldroot", "etc", "sbin"] {
        tree.directory(Path::new(name), Meta::root(0o755))?;
    }
    tree.directory(Path::new("tmp"), Meta::root(0o1777))?;
    tree.directory(Path::new("root"), Meta::root(0o700))?;
    let mut warnings = Vec::new();
    for name in OURS.into_iter().chain(ramdisk::commands::NAMES).chain(ramdisk::controllers::NAMES) {
        for directory in OTHER_DIRECTORIES {
            let at = Path::new("/").join(directory).join(name);
            if let Some(node) = tree.get(&at) {
                if matches!(node, Node::File(..)) {
                    warnings.push(format!("{} gives way to levitate's own command", at.display()));
                }
                tree.symlink(&at, Path::new("/sbin/levitate"))?;
            }
        }
        tree.symlink(&Path::new("sbin").join(name), Path::new("levitate"))?;
    }
    // the name is /proc's own link to the running program
    let binary = Original::follow(&facts.binary).map_err(at(&facts.binary))?;
    tree.file(Path::new("sbin/levitate"), Meta::root(0o755), Content::CopyOf(binary))?;
    text(tree, "sbin/init", 0o755, INIT)?;
    tree.symlink(Path::new("exec"), Path::new("sbin/levitate"))?;
    // the names by which systemd and procd execute what they find in here
    tree.symlink(Path::new("shutdown"), Path::new("sbin/levitate"))?;
    tree.symlink(Path::new("sbin/upgraded"), Path::new("levitate"))?;
    if tree.get(Path::new("etc/profile")).is_none() {
        text(tree, "etc/profile", 0o644, PROFILE)?;
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_behind_an_absolute_link_is_staged_by_the_path_that_holds_after_the_pivot() {
        let dir = tempfile::tempdir().unwrap();
        for made in ["persist/var/lib", "proc/self"] {
            std::fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        std::os::unix::fs::symlink("/persist/var", dir.path().join("var")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", dir.path().join("persist/var/lib/state.json")).unwrap();
        let table =
            "20 1 31:3 / / ro - squashfs /dev/root ro\n24 20 31:4 / /persist rw - jffs2 /dev/mtdblock4 rw\n";
        std::fs::write(dir.path().join("proc/self/mountinfo"), table).unwrap();
        let (root, file) = (Root::new(dir.path()), Path::new("/var/lib/state.json"));
        assert_eq!(state_file(&root, file), Path::new("/persist/var/lib/state.json"));
        let home = state_home(&root, file).unwrap();
        assert_eq!(
            (home.source.as_str(), home.file.as_path()),
            ("/dev/mtdblock4", Path::new("var/lib/state.json"))
        );
        let nowhere = Path::new("/not/there.json");
        assert_eq!(state_file(&root, nowhere), nowhere);
    }
}
