//! The devices that are there, in /sys.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::uevent::parse_properties;

/// Deeper folders are no devices; a guard against a loop.
const MAX_DEPTH: usize = 40;

/// A tree like /sys.
#[derive(Clone, Debug)]
pub(super) struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// The tree at `root`.
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A file of a device, without white space around it.
    pub(super) fn attribute(&self, devpath: &str, file: &str) -> Option<String> {
        let text = fs::read(self.place(devpath).join(file)).ok()?;
        Some(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// The properties of the device as it is now. None if it is gone.
    pub(super) fn properties(&self, devpath: &str) -> Option<BTreeMap<String, String>> {
        let folder = self.place(devpath);
        let mut properties = parse_properties(&fs::read_to_string(folder.join("uevent")).ok()?);
        let subsystem = fs::read_link(folder.join("subsystem")).ok();
        if let Some(name) = subsystem.as_deref().and_then(Path::file_name) {
            properties.insert("SUBSYSTEM".to_owned(), name.to_string_lossy().into_owned());
        }
        Some(properties)
    }

    /// The places of all devices, parents before children. Links are not followed: each is met once.
    pub(super) fn devices(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec!["/devices".to_owned()];
        while let Some(devpath) = todo.pop() {
            let folder = self.place(&devpath);
            if folder.join("uevent").is_file() {
                found.push(devpath.clone());
            }
            if devpath.matches('/').count() > MAX_DEPTH {
                continue;
            }
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir())
                    && let Some(name) = entry.file_name().to_str()
                {
                    todo.push(format!("{devpath}/{name}"));
                }
            }
        }
        found
    }

    fn place(&self, devpath: &str) -> PathBuf {
        self.root.join(devpath.trim_start_matches('/'))
    }
}
