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

impl UbiVolume {
    /// Its kind and size, in words.
    pub(crate) fn shape(&self) -> String {
        let kind = if self.kind == VolumeKind::Static { "static" } else { "dynamic" };
        format!("{kind} with {} blocks", self.blocks)
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// The volume that a mount's source means to UBIFS, as `open_ubi` of the kernel's `fs/ubifs/super.c` reads it where it
/// is no device node: `ubi:NAME`, `ubiV` (both of device 0), `ubiN_V` or `ubiN:NAME`, with `!` for `:` as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source<'a> {
    /// N of ubiN.
    pub(crate) ubi: u32,
    volume: Rest<'a>,
}

impl<'a> Source<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let name = |rest: &'a str| rest.strip_prefix([':', '!']).filter(|name| !name.is_empty());
        let rest = text.strip_prefix("ubi")?;
        if let Some(name) = name(rest) {
            return Some(Self { ubi: 0, volume: Rest::Name(name) });
        }
        let (first, rest) = leading_number(rest)?;
        if rest.is_empty() {
            return Some(Self { ubi: 0, volume: Rest::Number(first) });
        }
        if let Some(name) = name(rest) {
            return Some(Self { ubi: first, volume: Rest::Name(name) });
        }
        let (number, rest) = leading_number(rest.strip_prefix('_')?)?;
        rest.is_empty().then_some(Self { ubi: first, volume: Rest::Number(number) })
    }

    fn is(self, volume: &UbiVolume) -> bool {
        let same = match self.volume {
            Rest::Number(number) => number == volume.number,
            Rest::Name(name) => name == volume.name,
        };
        same && self.ubi == volume.ubi
    }
}

/// A number as the kernel's `simple_strtoul` takes it from the front: 0x and 0 make it hexadecimal and octal.
fn leading_number(text: &str) -> Option<(u32, &str)> {
    let (radix, digits) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => (16, hex),
        _ if text.starts_with('0') => (8, text),
        _ => (10, text),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (number, rest) = digits.split_at_checked(end)?;
    Some((u32::from_str_radix(number, radix).ok()?, rest))
}

/// Who uses a volume, in words: mounts of UBIFS in any mount namespace, a UBIFS that is mounted nowhere any more, a block
/// device on top of it, and processes that have it open. The kernel's own exclusive opening is asked by whoever writes.
#[must_use]
pub fn users(root: &Path, volume: &UbiVolume) -> Vec<String> {
    let short = format!("ubi{}_{}", volume.ubi, volume.number);
    let mut users = Vec::new();
    let own = std::fs::read_link(root.join("proc/self")).ok();
    // The kernel keeps these as long as the file system lives; read-only ones have no thread.
    let places = ["sys/fs/ubifs", "sys/kernel/debug/ubifs"];
    let mut lives = places.iter().any(|place| root.join(place).join(&short).exists());
    let mut mounted = false;
    for process in std::fs::read_dir(root.join("proc")).into_iter().flatten().flatten() {
        // `self` and `thread-self` are there as well.
        let is_process = process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        let comm = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        lives |= comm.trim().strip_prefix("ubifs_bgt") == short.strip_prefix("ubi");
        if own.as_deref() != Some(Path::new(&process.file_name())) && has_open(root, &process.path(), volume)
        {
            let pid = process.file_name().to_string_lossy().into_owned();
            users.push(format!("process {pid} ({}) has /dev/{short} open", comm.trim()));
        }
        let Ok(table) = std::fs::read(process.path().join("mountinfo")) else { continue };
        for mount in mounts_of(&table).into_iter().filter(|mount| mount.fs_type == "ubifs") {
            let node = Path::new(&mount.source);
            let by_node = || is_node(root, &process.path().join("root"), node, volume);
            if Source::parse(&mount.source).is_some_and(|source| source.is(volume)) || by_node() {
                mounted = true;
                users.push(format!("mounted at {}", mount.mount_point));
            }
        }
    }
    if lives && !mounted {
        users.push("a UBIFS on it is alive, though no mount shows it".to_owned());
    }
    let block = format!("ubiblock{}_{}", volume.ubi, volume.number);
    if root.join("sys/class/block").join(&block).exists() {
        users.push(format!("block device {block} lies on it"));
    }
    users.sort();
    users.dedup();
    users
}

/// Whether a path, as the process sees it, is the volume's node: by the device's numbers, or by its name where these
/// cannot be had.
fn is_node(root: &Path, view: &Path, path: &Path, volume: &UbiVolume) -> bool {
    let relative = path.strip_prefix("/").unwrap_or(path);
    path == volume.node() || has_numbers(root, &view.join(relative), volume)
}

fn has_numbers(root: &Path, path: &Path, volume: &UbiVolume) -> bool {
    let class = root.join(format!("sys/class/ubi/ubi{}_{}/dev", volume.ubi, volume.number));
    let numbers = std::fs::read_to_string(class).unwrap_or_default();
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.file_type().is_char_device() && dev(meta.rdev()) == numbers.trim())
}

fn has_open(root: &Path, process: &Path, volume: &UbiVolume) -> bool {
    let node = volume.node();
    let descriptors = std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors.into_iter().any(|descriptor| {
        has_numbers(root, &descriptor.path(), volume)
            || std::fs::read_link(descriptor.path()).is_ok_and(|link| link == node)
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

    /// What mount(8) was told stays in the table as it is.
    #[test]
    fn a_mount_is_a_user_however_its_volume_was_named() {
        let root = root();
        let proc = root.path().join("proc/12");
        std::fs::create_dir_all(&proc).unwrap();
        let of = |name: &str| resolve(root.path(), name).unwrap().unwrap().0;
        for source in [
            "ubi0:rootfs",
            "ubi0!rootfs",
            "ubi:rootfs",
            "ubi!rootfs",
            "ubi1",
            "ubi0_1",
            "ubi0x0_01",
            "/dev/ubi0_1",
        ] {
            let line = format!("21 1 0:17 / /mnt ro - ubifs {source} ro\n");
            std::fs::write(proc.join("mountinfo"), line).unwrap();
            assert_eq!(users(root.path(), &of("ubi0:rootfs")), ["mounted at /mnt"], "{source}");
            assert!(users(root.path(), &of("ubi0:kernel")).is_empty(), "{source}");
        }
        for source in
            ["ubi", "ubi:", "ubi0:", "ubi0_", "ubi0_1x", "ubi1:rootfs", "ubi1_1", "rootfs", "ubi08", "ubi-1"]
        {
            let line = format!("21 1 0:17 / /mnt ro - ubifs {source} ro\n");
            std::fs::write(proc.join("mountinfo"), line).unwrap();
            assert!(users(root.path(), &of("ubi0:rootfs")).is_empty(), "{source}");
        }
    }

    #[test]
    fn a_ubifs_that_no_table_shows_is_a_user_as_long_as_it_lives() {
        let root = root();
        let (volume, _) = resolve(root.path(), "ubi0:rootfs").unwrap().unwrap();
        let lives = ["a UBIFS on it is alive, though no mount shows it"];
        for place in ["sys/fs/ubifs/ubi0_1", "sys/kernel/debug/ubifs/ubi0_1"] {
            std::fs::create_dir_all(root.path().join(place)).unwrap();
            assert_eq!(users(root.path(), &volume), lives, "{place}");
            std::fs::remove_dir(root.path().join(place)).unwrap();
        }
        let proc = root.path().join("proc/12");
        std::fs::create_dir_all(&proc).unwrap();
        std::fs::write(proc.join("comm"), "ubifs_bgt0_1\n").unwrap();
        assert_eq!(users(root.path(), &volume), lives);
        let (other, _) = resolve(root.path(), "ubi0:kernel").unwrap().unwrap();
        assert!(users(root.path(), &other).is_empty());
    }
}
