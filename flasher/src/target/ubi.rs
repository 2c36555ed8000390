//! UBI volumes by their names.

use std::fmt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::TargetError;
use crate::guard::mounts_of;

/// How a volume was named. A volume that takes another's place keeps the name and not the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// `ubi0:rootfs`
    ByName,
    /// `ubi0_1`, `/dev/ubi0_1`: whoever says so, a boot loader too, may know it by its number alone.
    ByNumber,
}

/// A volume's two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeKind {
    /// Bytes can be changed at any time; the volume is as large as its blocks.
    Dynamic,
    /// Written at once, with a checksum; the volume is as large as its contents.
    Static,
}

/// A UBI volume as sysfs tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UbiVolume {
    /// N of ubiN.
    pub ubi: u32,
    /// The volume's number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: VolumeKind,
    /// How many logical erase blocks are reserved for it.
    pub blocks: u64,
    /// The usable bytes of one of them.
    pub block_size: u64,
    /// How many bytes can be read today.
    pub data_bytes: u64,
    /// Its blocks' usable bytes are a multiple of this.
    pub alignment: u64,
    /// An update was cut off: what it holds cannot be read, until it is written anew.
    pub torn: bool,
}

impl UbiVolume {
    /// The volume's character device.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        PathBuf::from(format!("/dev/ubi{}_{}", self.ubi, self.number))
    }

    /// How many bytes it can hold.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.blocks.saturating_mul(self.block_size)
    }

    /// How many bytes of it can be read: none after an update that was cut off.
    #[must_use]
    pub fn readable(&self) -> u64 {
        if self.torn { 0 } else { self.data_bytes }
    }
}

impl fmt::Display for UbiVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ubi{}_{} \"{}\"", self.ubi, self.number, self.name)
    }
}

/// A UBI device with its volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UbiDevice {
    /// N of ubiN.
    pub number: u32,
    /// Logical erase blocks that no volume has.
    pub free_blocks: u64,
    /// Its volumes, by number.
    pub volumes: Vec<UbiVolume>,
}

/// The UBI device `number` below `root`; `None` if there is none.
#[must_use]
pub fn device(root: &Path, number: u32) -> Option<UbiDevice> {
    let class = root.join("sys/class/ubi");
    let text = |dir: &str, name: &str| {
        std::fs::read_to_string(class.join(dir).join(name)).ok().map(|text| text.trim().to_owned())
    };
    let number_of = |dir: &str, name: &str| text(dir, name).and_then(|text| text.parse::<u64>().ok());
    let free_blocks = number_of(&format!("ubi{number}"), "avail_eraseblocks")?;
    let prefix = format!("ubi{number}_");
    let mut volumes: Vec<_> = std::fs::read_dir(&class)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let dir = entry.ok()?.file_name().into_string().ok()?;
            Some(UbiVolume {
                ubi: number,
                number: dir.strip_prefix(&prefix)?.parse().ok()?,
                name: text(&dir, "name")?,
                kind: if text(&dir, "type")? == "static" { VolumeKind::Static } else { VolumeKind::Dynamic },
                blocks: number_of(&dir, "reserved_ebs")?,
                block_size: number_of(&dir, "usable_eb_size")?,
                data_bytes: number_of(&dir, "data_bytes")?,
                alignment: number_of(&dir, "alignment").unwrap_or(1).max(1),
                torn: number_of(&dir, "upd_marker")? != 0,
            })
        })
        .collect();
    volumes.sort_by_key(|volume| volume.number);
    Some(UbiDevice { number, free_blocks, volumes })
}

/// The volume that `wanted` means: `/dev/ubiN_V`, `ubiN_V` or `ubiN:NAME` (the exact name). `None` if it is no name
/// of a volume at all.
///
/// # Errors
/// [`TargetError::NoVolume`].
pub fn resolve(root: &Path, wanted: &str) -> Result<Option<(UbiVolume, Named)>, TargetError> {
    let Some((ubi, rest)) = split(wanted) else { return Ok(None) };
    let found = device(root, ubi).map_or_else(Vec::new, |device| device.volumes);
    let (named, place) = match rest {
        Rest::Number(number) => (Named::ByNumber, found.iter().position(|volume| volume.number == number)),
        Rest::Name(name) => (Named::ByName, found.iter().position(|volume| volume.name == name)),
    };
    match place.and_then(|place| found.get(place)) {
        Some(volume) => Ok(Some((volume.clone(), named))),
        None => Err(TargetError::NoVolume { wanted: wanted.to_owned(), found }),
    }
}

enum Rest<'a> {
    Number(u32),
    Name(&'a str),
}

fn split(wanted: &str) -> Option<(u32, Rest<'_>)> {
    let rest = wanted.strip_prefix("/dev/").unwrap_or(wanted).strip_prefix("ubi")?;
    if let Some((ubi, name)) = rest.split_once(':') {
        return Some((ubi.parse().ok()?, Rest::Name(name)));
    }
    let (ubi, number) = rest.split_once('_')?;
    Some((ubi.parse().ok()?, Rest::Number(number.parse().ok()?)))
}

/// Who uses a volume, in words: mounts of UBIFS in any mount namespace, a block device on top of it, and processes that
/// have it open. The kernel's own exclusive opening is asked by whoever writes.
#[must_use]
pub fn users(root: &Path, volume: &UbiVolume) -> Vec<String> {
    let short = format!("ubi{}_{}", volume.ubi, volume.number);
    let names = [format!("ubi{}:{}", volume.ubi, volume.name), format!("/dev/{short}"), short.clone()];
    let mut users = Vec::new();
    let own = std::fs::read_link(root.join("proc/self")).ok();
    for process in std::fs::read_dir(root.join("proc")).into_iter().flatten().flatten() {
        // `self` and `thread-self` are there as well.
        let is_process = process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        if own.as_deref() != Some(Path::new(&process.file_name())) && has_open(root, &process.path(), volume)
        {
            let comm = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let pid = process.file_name().to_string_lossy().into_owned();
            users.push(format!("process {pid} ({}) has /dev/{short} open", comm.trim()));
        }
        let Ok(table) = std::fs::read(process.path().join("mountinfo")) else { continue };
        for mount in mounts_of(&table) {
            if names.contains(&mount.source) {
                users.push(format!("mounted at {}", mount.mount_point));
            }
        }
    }
    let block = format!("ubiblock{}_{}", volume.ubi, volume.number);
    if root.join("sys/class/block").join(&block).exists() {
        users.push(format!("block device {block} lies on it"));
    }
    users.sort();
    users.dedup();
    users
}

/// By the device's numbers, or by its name where these cannot be had.
fn has_open(root: &Path, process: &Path, volume: &UbiVolume) -> bool {
    let node = volume.node();
    let class = root.join(format!("sys/class/ubi/ubi{}_{}/dev", volume.ubi, volume.number));
    let numbers = std::fs::read_to_string(class).unwrap_or_default();
    let descriptors = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors.into_iter().any(|descriptor| {
        let by_numbers = std::fs::metadata(descriptor.path())
            .is_ok_and(|meta| meta.file_type().is_char_device() && dev(meta.rdev()) == numbers.trim());
        by_numbers || std::fs::read_link(descriptor.path()).is_ok_and(|link| link == node)
    })
}

/// As sysfs spells it.
fn dev(numbers: u64) -> String {
    format!("{}:{}", nix::sys::stat::major(numbers), nix::sys::stat::minor(numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("sys/class/ubi");
        let write = |name: &str, files: &[(&str, &str)]| {
            std::fs::create_dir_all(class.join(name)).unwrap();
            for (file, text) in files {
                std::fs::write(class.join(name).join(file), format!("{text}\n")).unwrap();
            }
        };
        write("ubi0", &[("avail_eraseblocks", "40"), ("mtd_num", "3")]);
        for (number, name) in [("0", "kernel"), ("1", "rootfs")] {
            write(
                &format!("ubi0_{number}"),
                &[
                    ("name", name),
                    ("type", "dynamic"),
                    ("reserved_ebs", "10"),
                    ("usable_eb_size", "126976"),
                    ("data_bytes", "1269760"),
                    ("upd_marker", "0"),
                ],
            );
        }
        dir
    }

    #[test]
    fn a_volume_has_a_number_and_a_name() {
        let root = root();
        for name in ["ubi0:rootfs", "ubi0_1", "/dev/ubi0_1"] {
            let (volume, named) = resolve(root.path(), name).unwrap().unwrap();
            assert_eq!(
                (volume.to_string().as_str(), volume.room()),
                ("ubi0_1 \"rootfs\"", 1_269_760),
                "{name}"
            );
            assert_eq!(named == Named::ByName, name.contains(':'));
        }
        for other in ["mtd5", "mtd:ubi", "/dev/ubi0", "ubi", "ubiblock0_1"] {
            assert_eq!(resolve(root.path(), other).unwrap(), None, "{other}");
        }
        assert_eq!(device(root.path(), 0).unwrap().free_blocks, 40);
    }

    #[test]
    fn an_unknown_volume_is_refused_with_what_there_is() {
        let text = |name| resolve(root().path(), name).unwrap_err().to_string();
        assert_eq!(
            text("ubi0:nosuch"),
            "there is no UBI volume ubi0:nosuch; there are: ubi0_0 \"kernel\", ubi0_1 \"rootfs\""
        );
        assert_eq!(text("ubi7_0"), "there is no UBI volume ubi7_0; there are none at all");
    }

    #[test]
    fn mounts_and_block_devices_are_users() {
        let root = root();
        let (volume, _) = resolve(root.path(), "ubi0:rootfs").unwrap().unwrap();
        assert!(users(root.path(), &volume).is_empty());
        let proc = root.path().join("proc/12");
        std::fs::create_dir_all(&proc).unwrap();
        std::fs::write(proc.join("mountinfo"), "21 1 0:17 / /mnt rw - ubifs ubi0:rootfs rw\n").unwrap();
        // As the asking process sees itself.
        for name in ["self", "thread-self"] {
            let own = root.path().join("proc").join(name);
            std::fs::create_dir_all(own.join("fd")).unwrap();
            std::os::unix::fs::symlink("/dev/ubi0_1", own.join("fd/3")).unwrap();
        }
        std::fs::write(proc.join("comm"), "reader\n").unwrap();
        std::fs::create_dir_all(proc.join("fd")).unwrap();
        std::os::unix::fs::symlink("/dev/ubi0_1", proc.join("fd/3")).unwrap();
        std::fs::create_dir_all(root.path().join("sys/class/block/ubiblock0_1")).unwrap();
        assert_eq!(
            users(root.path(), &volume),
            [
                "block device ubiblock0_1 lies on it",
                "mounted at /mnt",
                "process 12 (reader) has /dev/ubi0_1 open"
            ]
        );
        let (other, _) = resolve(root.path(), "ubi0:kernel").unwrap().unwrap();
        assert!(users(root.path(), &other).is_empty());
    }
}
