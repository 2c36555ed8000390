//! What the device binary is made of: this checkout's files, by content. They are built in a copy at a fixed place, so
//! that every checkout shares one build folder, and what was hashed is what is built.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{Result, SetupError};
use super::packages;

/// The workspace's members: cargo wants to read them all, whatever it builds.
const MEMBERS: [&str; 4] = ["flasher", "ramdisk", "levitate", "tests/qemu"];
/// The one that does not go onto devices.
const HARNESS: &str = "tests/qemu";
/// Tests, examples and fuzz targets of the others do not go onto devices either.
const ASIDE: [&str; 4] = ["tests", "examples", "benches", "fuzz"];
const TOP: [&str; 3] = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"];

/// Files by their path in the checkout.
pub(crate) struct Sources(BTreeMap<PathBuf, Vec<u8>>);

impl Sources {
    /// Reads them all.
    pub(crate) fn read(checkout: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for path in TOP.map(PathBuf::from).into_iter().filter(|path| checkout.join(path).exists()) {
            files.insert(path.clone(), read(&checkout.join(path))?);
        }
        for member in MEMBERS {
            for path in walk(&checkout.join(member))? {
                let bytes = read(&path)?;
                files.insert(path.strip_prefix(checkout).unwrap_or(&path).to_owned(), bytes);
            }
        }
        Ok(Self(files))
    }

    /// The same for the same device binary; everything that could make another one is in it.
    pub(crate) fn key(&self) -> String {
        let deciding = self.0.iter().filter(|(path, _)| decides(path));
        let lines: Vec<String> = deciding
            .map(|(path, bytes)| format!("{} {}", packages::hex(&Sha256::digest(bytes)), path.display()))
            .collect();
        packages::digest(&lines)
    }

    /// Makes the folder hold these files and no others. One that is the same is left alone: cargo goes by times.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<()> {
        for path in walk(folder)? {
            if !self.0.contains_key(path.strip_prefix(folder).unwrap_or(&path)) {
                fs::remove_file(&path).map_err(SetupError::io("remove", &path))?;
            }
        }
        for (path, bytes) in &self.0 {
            let path = folder.join(path);
            if fs::read(&path).is_ok_and(|there| there == *bytes) {
                continue;
            }
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(SetupError::io("create", parent))?;
            }
            fs::write(&path, bytes).map_err(SetupError::io("write", &path))?;
        }
        Ok(())
    }
}

/// Whether the device binary depends on it.
fn decides(path: &Path) -> bool {
    let second = path.components().nth(1).map(|part| part.as_os_str());
    !path.starts_with(HARNESS) && !ASIDE.iter().any(|aside| second.is_some_and(|part| part == *aside))
}

/// Every file below a folder; its own build folder is left out, a module's folder of that name is not.
fn walk(top: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(folder) = left.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(SetupError::io("read", &folder))?,
        };
        for entry in entries {
            let entry = entry.map_err(SetupError::io("read", &folder))?;
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.extend((path != top.join("target")).then_some(path));
            } else if path.is_file() {
                files.push(path);
            }
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(SetupError::io("read", path))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::cross::checkout;
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Sources {
        Sources(files.iter().map(|(path, text)| (path.into(), text.as_bytes().to_vec())).collect())
    }

    #[test]
    fn every_member_of_the_workspace_is_copied() {
        let manifest = fs::read_to_string(checkout().join("Cargo.toml")).unwrap();
        let members = format!("members = {MEMBERS:?}");
        assert!(manifest.contains(&members), "{members}");
        let sources = Sources::read(&checkout()).unwrap();
        for path in ["Cargo.lock", "levitate/src/main.rs", "flasher/Cargo.toml", "tests/qemu/Cargo.toml"] {
            assert!(sources.0.contains_key(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn the_key_follows_whatever_goes_onto_the_device() {
        let base = [("Cargo.toml", "profile"), ("flasher/src/lib.rs", "a"), ("flasher/tests/t.rs", "t")];
        let key = sources(&base).key();
        for other in [
            [("Cargo.toml", "other"), base[1], base[2]],
            [base[0], ("flasher/src/lib.rs", "b"), base[2]],
            [base[0], ("flasher/src/mod.rs", "a"), base[2]],
        ] {
            assert_ne!(sources(&other).key(), key, "{other:?}");
        }
        assert_eq!(sources(&[base[0], base[1], ("tests/qemu/src/main.rs", "m")]).key(), key);
        // a module of that name is no test
        assert_ne!(sources(&[base[0], base[1], ("flasher/src/tests/t.rs", "t")]).key(), key);
    }

    #[test]
    fn a_build_folder_is_left_out_and_a_module_named_target_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["target/debug/x", "src/target/ubi.rs"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(walk(folder.path()).unwrap(), [folder.path().join("src/target/ubi.rs")]);
    }

    #[test]
    fn a_copy_has_the_same_files_and_unchanged_ones_keep_their_times() {
        let folder = tempfile::tempdir().unwrap();
        sources(&[("a/one", "1"), ("a/two", "2"), ("three", "3")]).copy_to(folder.path()).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        for path in ["a/one", "three"] {
            File::options().write(true).open(folder.path().join(path)).unwrap().set_modified(time).unwrap();
        }
        sources(&[("a/one", "1"), ("three", "4")]).copy_to(folder.path()).unwrap();
        let modified = |path| fs::metadata(folder.path().join(path)).unwrap().modified().unwrap();
        assert_eq!(modified("a/one"), time);
        assert_ne!(modified("three"), time);
        assert_eq!(fs::read_to_string(folder.path().join("three")).unwrap(), "4");
        assert!(!folder.path().join("a/two").exists());
    }
}
