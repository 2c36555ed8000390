//! Which of a kernel's modules are needed, and in which order. The packages do not say: `depmod` does, on a device.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};

use crate::suite::Failure;

/// The files of `names` and of everything that they need, each behind what it needs.
pub(super) fn in_order(folder: &Path, names: &[&str]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = BTreeMap::new();
    find(folder, &mut files).map_err(|e| Failure::file("list", folder, e))?;
    let mut found = Vec::new();
    for name in names {
        add(&files, name, &mut found)?;
    }
    Ok(found)
}

fn add(files: &BTreeMap<String, PathBuf>, name: &str, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let missing = || Failure::harness(format!("the kernel has no module {name}"));
    let path = files.get(&underscored(name)).ok_or_else(missing)?;
    if found.contains(path) {
        return Ok(());
    }
    let bytes = fs::read(path).map_err(|e| Failure::file("read", path, e))?;
    for needed in needs(&bytes).map_err(|e| Failure::harness(format!("{}: {e}", path.display())))? {
        add(files, &needed, found)?;
    }
    found.push(path.clone());
    Ok(())
}

/// What a module says it depends on, in its section `.modinfo`.
fn needs(module: &[u8]) -> object::read::Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let info =
        file.section_by_name(".modinfo").map(|section| section.data()).transpose()?.unwrap_or_default();
    Ok(listed(info))
}

fn listed(info: &[u8]) -> Vec<String> {
    let depends = info.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let text = String::from_utf8_lossy(depends.unwrap_or_default()).into_owned();
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Module files by their names, in which `-` and `_` are the same.
fn find(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find(&path, found)?;
        } else if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".ko")) {
            found.insert(underscored(name), path);
        }
    }
    Ok(())
}

fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_needs_are_what_its_own_text_says() {
        let info = b"license=GPL\0depends=libphy,mdio-devres,of_mdio\0name=mdio_aspeed\0";
        assert_eq!(listed(info), ["libphy", "mdio-devres", "of_mdio"]);
        assert_eq!(listed(b"depends=\0"), Vec::<String>::new());
    }
}
