//! Whether a symlink of an archive stays in the root, also for somebody who follows it from outside.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::reader::{Entry, Held};

/// As many symlinks as the kernel follows in one name.
const MAX_LINKS: usize = 40;

/// Whether what the symlink `at` says climbs above the root on its way, through whatever symlinks it passes. One that
/// leads round in a circle leads nowhere, and stays inside.
pub(super) fn leaves(entries: &BTreeMap<&Path, &Entry>, at: &Path, target: &Path) -> bool {
    let mut real: PathBuf = at.parent().unwrap_or(Path::new("")).to_owned();
    let mut todo: Vec<Component<'_>> = target.components().rev().collect();
    let mut passed = 0;
    while let Some(part) = todo.pop() {
        match part {
            Component::Prefix(_) | Component::CurDir => {}
            Component::RootDir => return true,
            Component::ParentDir => {
                if !real.pop() {
                    return true;
                }
            }
            Component::Normal(name) => {
                real.push(name);
                if let Some(Entry { held: Held::Symlink(target), .. }) = entries.get(real.as_path()) {
                    passed += 1;
                    if passed > MAX_LINKS {
                        return false;
                    }
                    real.pop();
                    todo.extend(target.components().rev());
                }
            }
        }
    }
    false
}
