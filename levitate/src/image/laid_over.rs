//! The device's own over an archive's tree: accounts, keys, host keys, network, and the manifest of this boot.

use std::path::Path;

use ramdisk::path::Root;
use ramdisk::sink::Meta;
use ramdisk::tree::{Node, Tree};

use super::{Image, ImageError};
use crate::arming::{LevitateError, Prepared};
use crate::config::{AuthorizedKeys, Config};
use crate::facts::SystemFacts;
use crate::keys::DROPBEAR_ROOT_KEYS;
use crate::manifest::{MANIFEST, Manifest};
use crate::network;
use crate::plan::{self, Plan, PlanError};
use crate::select::{Selection, image::on_device};
use crate::state::seconds_since_1970;

/// What makes a root enterable.
const PROGRAMS: [&str; 3] = ["exec", "sbin/init", "sbin/levitate"];
/// Directories that the hand-over and the init expect, with their modes.
const DIRECTORIES: [(&str, u32); 7] = [
    ("dev", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("root", 0o700),
    ("oldroot", 0o755),
];

pub(super) fn prepare(
    image: &Image,
    config: &Config,
    facts: &SystemFacts,
) -> Result<Prepared, LevitateError> {
    let selected = on_device(config, facts, &image.tree)?;
    let mut tree = image.tree.clone();
    for program in PROGRAMS {
        if !matches!(tree.get(Path::new(program)), Some(Node::File(meta, _)) if meta.mode & 0o111 != 0) {
            let what = format!("{program} is no program");
            return Err(ImageError::NotOurs { path: image.path.clone(), what }.into());
        }
    }
    for (name, mode) in DIRECTORIES {
        tree.directory(Path::new(name), Meta::root(mode))?;
    }
    forget_baked_keys(&mut tree, image, &selected);
    plan::accounts(&mut tree, facts, &selected)?;
    host_keys(&mut tree, &facts.root, &selected)?;
    if config.keep.network {
        network::put(&mut tree, &facts.network, facts.hosts.as_deref()).map_err(PlanError::from)?;
    }
    let size = tree.size(facts.page)?;
    let manifest = Manifest {
        version: plan::LAYOUT,
        staged_at: seconds_since_1970(),
        boot_id: facts.boot_id.clone(),
        services: image.manifest.services.clone(),
        // found out once the services lie there
        users: Vec::new(),
        files: size.files,
        bytes: size.bytes,
        state_file: config.state_file.as_deref().map(|path| plan::state_file(&facts.root, path)),
        state_home: config.state_file.as_deref().and_then(|path| plan::state_home(&facts.root, path)),
        watchdogs: plan::watchdogs(&facts.root),
        lease_ms: config.lease,
        lease_unverified_ms: config.lease_unverified,
        ways_in: image.manifest.ways_in.clone(),
        handover: config.handover,
    };
    let text = serde_json::to_string(&manifest).map_err(PlanError::from)?;
    plan::text(&mut tree, MANIFEST, 0o644, &text)?;
    Ok(Prepared { plan: Plan { tree, manifest, warnings: Vec::new() }, selected })
}

/// Keys of the build machine's root open nothing on a device whose owner never put them there.
fn forget_baked_keys(tree: &mut Tree, image: &Image, selected: &Selection) {
    for user in &selected.accounts.users {
        let named = image.config.users.get(&user.name).and_then(|u| u.authorized_keys.as_ref());
        if named.is_none_or(|keys| matches!(keys, AuthorizedKeys::File(_))) {
            tree.remove(&plan::home(user).join(".ssh/authorized_keys"));
        }
    }
    tree.remove(Path::new(DROPBEAR_ROOT_KEYS));
}

/// Host keys lie where services name them, whatever symlinks the device has on the way.
fn host_keys(tree: &mut Tree, root: &Root, selected: &Selection) -> Result<(), LevitateError> {
    for path in &selected.host_keys {
        let real = root.host(&root.resolve(path)?.real);
        let public = path.extension().is_some_and(|e| e == "pub");
        tree.file(path, Meta::root(if public { 0o644 } else { 0o600 }), plan::original(&real)?)?;
    }
    Ok(())
}
