//! Which partition a name on the command line means.

use std::fmt;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

pub mod ubi;

/// The major number of MTD character devices; minor 2N is mtdN, 2N + 1 mtdNro.
pub const MTD_CHAR_MAJOR: u64 = 90;

/// The major number of mtdblock devices; minor N is mtdblockN.
pub(crate) const MTD_BLOCK_MAJOR: u64 = 31;

/// What a node in /dev stands for. Its name is only what somebody has called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A character device with its numbers.
    Char {
        /// The major number.
        major: u64,
        /// The minor number.
        minor: u64,
    },
    /// A block device with its numbers.
    Block {
        /// The major number.
        major: u64,
        /// The minor number.
        minor: u64,
    },
    /// No device at all.
    None,
}

impl Node {
    /// What stat(2) or fstat(2) says.
    #[must_use]
    pub fn of(meta: &std::fs::Metadata) -> Self {
        let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
        match meta.file_type() {
            kind if kind.is_char_device() => Self::Char { major, minor },
            kind if kind.is_block_device() => Self::Block { major, minor },
            _ => Self::None,
        }
    }

    /// The character device of mtd`number`, the one that can be written.
    #[must_use]
    pub fn mtd(number: u32) -> Self {
        Self::Char { major: MTD_CHAR_MAJOR, minor: 2 * u64::from(number) }
    }

    /// The block device of mtd`number`.
    #[must_use]
    pub fn mtd_block(number: u32) -> Self {
        Self::Block { major: MTD_BLOCK_MAJOR, minor: number.into() }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Char { major, minor } => write!(f, "character device {major}:{minor}"),
            Self::Block { major, minor } => write!(f, "block device {major}:{minor}"),
            Self::None => f.write_str("no device"),
        }
    }
}

/// One line of /proc/mtd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// N of mtdN.
    pub number: u32,
    /// The partition's name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// The size of its erase blocks in bytes.
    pub erase_size: u64,
}

impl Target {
    /// The character device.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        PathBuf::from(format!("/dev/mtd{}", self.number))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mtd{} \"{}\"", self.number, self.name)
    }
}

/// Why a name means no partition.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// /proc/mtd could not be read.
    #[error("cannot read the list of flash partitions {}: {source}", path.display())]
    List {
        /// The list's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such partition.
    #[error("there is no flash partition {wanted}; {}", all(found))]
    Unknown {
        /// The name as it was given.
        wanted: String,
        /// Every partition there is.
        found: Vec<Target>,
    },
    /// Several partitions have the name.
    #[error("the name {wanted} is not unique: {}; say which one by its number", list(found))]
    Ambiguous {
        /// The name as it was given.
        wanted: String,
        /// Every partition of that name.
        found: Vec<Target>,
    },
    /// There is no such UBI volume.
    #[error("there is no UBI volume {wanted}; {}", all(found))]
    NoVolume {
        /// The name as it was given.
        wanted: String,
        /// Every volume of that UBI device.
        found: Vec<ubi::UbiVolume>,
    },
    /// The name is that of another kind of thing.
    #[error("{wanted} is {what}: a flash partition is named /dev/mtdN, mtdN or mtd:NAME")]
    NotAPartition {
        /// The name as it was given.
        wanted: String,
        /// What it is, with its article.
        what: &'static str,
    },
}

fn list<T: fmt::Display>(found: &[T]) -> String {
    found.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn all<T: fmt::Display>(found: &[T]) -> String {
    if found.is_empty() { "there are none at all".to_owned() } else { format!("there are: {}", list(found)) }
}

/// Every partition of /proc/mtd below `root`, in the order of its lines.
///
/// # Errors
/// [`TargetError::List`]. Lines that are no partition are passed over.
pub fn partitions(root: &Path) -> Result<Vec<Target>, TargetError> {
    let path = root.join("proc/mtd");
    let text = std::fs::read(&path).map_err(|source| TargetError::List { path, source })?;
    Ok(list_of(&text))
}

/// Every partition in the text of /proc/mtd, in the order of its lines. Lines that are no partition are passed over.
#[must_use]
pub fn list_of(text: &[u8]) -> Vec<Target> {
    String::from_utf8_lossy(text).lines().filter_map(line).collect()
}

/// `mtd3: 01800000 00040000 "rootfs"`
fn line(text: &str) -> Option<Target> {
    let (device, rest) = text.split_once(':')?;
    let number = device.strip_prefix("mtd")?.parse().ok()?;
    let (sizes, name) = rest.split_once('"')?;
    let (name, _) = name.rsplit_once('"')?;
    let mut sizes = sizes.split_whitespace().map(|size| u64::from_str_radix(size, 16));
    let (size, erase_size) = (sizes.next()?.ok()?, sizes.next()?.ok()?);
    Some(Target { number, name: name.to_owned(), size, erase_size })
}

/// The partition that `wanted` means: `/dev/mtdN`, `mtdN`, `mtd:NAME` (the exact name), or the path of a node that is
/// mtdN's under another name. /proc and /dev are looked for below `root`.
///
/// # Errors
/// [`TargetError`].
pub fn resolve(root: &Path, wanted: &str) -> Result<Target, TargetError> {
    let found = partitions(root)?;
    if let Some(name) = wanted.strip_prefix("mtd:") {
        let mut named: Vec<_> = found.iter().filter(|target| target.name == name).cloned().collect();
        return match (named.len(), named.pop()) {
            (1, Some(target)) => Ok(target),
            (_, Some(last)) => {
                named.push(last);
                Err(TargetError::Ambiguous { wanted: name.to_owned(), found: named })
            }
            (_, None) => Err(TargetError::Unknown { wanted: wanted.to_owned(), found }),
        };
    }
    let number = number(root, wanted)?;
    match found.iter().find(|target| Some(target.number) == number) {
        Some(target) => Ok(target.clone()),
        None => Err(TargetError::Unknown { wanted: wanted.to_owned(), found }),
    }
}

fn number(root: &Path, wanted: &str) -> Result<Option<u32>, TargetError> {
    let not = |what| TargetError::NotAPartition { wanted: wanted.to_owned(), what };
    let short = wanted.strip_prefix("/dev/").unwrap_or(wanted);
    if let Some(number) = short.strip_prefix("mtd") {
        if let Ok(number) = number.parse() {
            return Ok(Some(number));
        }
        if number.strip_prefix("block").is_some_and(|rest| rest.parse::<u32>().is_ok()) {
            return Err(not("a block device"));
        }
        if number.strip_suffix("ro").is_some_and(|rest| rest.parse::<u32>().is_ok()) {
            return Err(not("a read-only node"));
        }
    }
    if !wanted.starts_with('/') {
        return Ok(None);
    }
    let Ok(meta) = std::fs::metadata(root.join(wanted.trim_start_matches('/'))) else {
        return Ok(None);
    };
    let kind = meta.file_type();
    if kind.is_char_device() && nix::sys::stat::major(meta.rdev()) == MTD_CHAR_MAJOR {
        let minor = nix::sys::stat::minor(meta.rdev());
        return if minor.is_multiple_of(2) {
            Ok(u32::try_from(minor / 2).ok())
        } else {
            Err(not("a read-only node"))
        };
    }
    Err(not(match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_block_device() => "a block device",
        () if kind.is_char_device() => "another kind of device",
        () => "a file",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "dev:    size   erasesize  name\n\
        mtd0: 04000000 00040000 \"boot0\"\n\
        mtd1: 00040000 00040000 \"env\"\n\
        mtd5: 02000000 00040000 \"firmware\"\n\
        mtd6: 02000000 00040000 \"a \"odd\" name\"\n\
        mtd7: 00010000 00001000 \"env\"\n\
        mtd8 is no partition\n";

    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc")).unwrap();
        std::fs::create_dir_all(dir.path().join("dev")).unwrap();
        std::fs::write(dir.path().join("proc/mtd"), LIST).unwrap();
        std::fs::write(dir.path().join("dev/file"), "").unwrap();
        dir
    }

    fn refused(wanted: &str) -> String {
        resolve(root().path(), wanted).unwrap_err().to_string()
    }

    #[test]
    fn a_partition_has_three_names() {
        let root = root();
        for name in ["/dev/mtd5", "mtd5", "mtd:firmware"] {
            let target = resolve(root.path(), name).unwrap();
            assert_eq!((target.number, target.size, target.erase_size), (5, 0x200_0000, 0x4_0000), "{name}");
        }
        assert_eq!(resolve(root.path(), "mtd:a \"odd\" name").unwrap().number, 6);
    }

    #[test]
    fn a_name_that_two_partitions_have_is_refused_with_both() {
        assert_eq!(
            refused("mtd:env"),
            "the name env is not unique: mtd1 \"env\", mtd7 \"env\"; say which one by its number"
        );
    }

    #[test]
    fn an_unknown_name_is_refused_with_what_there_is() {
        let all = "there are: mtd0 \"boot0\", mtd1 \"env\", mtd5 \"firmware\", mtd6 \"a \"odd\" name\", mtd7 \"env\"";
        for name in ["mtd:nosuch", "mtd:Firmware", "mtd9", "/dev/mtd9", "firmware", "/dev/nosuch"] {
            assert_eq!(refused(name), format!("there is no flash partition {name}; {all}"));
        }
    }

    #[test]
    fn other_kinds_of_things_are_called_what_they_are() {
        let rest = ": a flash partition is named /dev/mtdN, mtdN or mtd:NAME";
        for (name, what) in [
            ("/dev/mtdblock5", "a block device"),
            ("/dev/mtd5ro", "a read-only node"),
            ("/dev", "a directory"),
            ("/dev/file", "a file"),
        ] {
            assert_eq!(refused(name), format!("{name} is {what}{rest}"));
        }
    }

    #[test]
    fn a_system_without_flash_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = resolve(dir.path(), "mtd0").unwrap_err().to_string();
        assert!(error.starts_with("cannot read the list of flash partitions "), "{error}");
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        std::fs::write(dir.path().join("proc/mtd"), "dev:    size   erasesize  name\n").unwrap();
        let error = resolve(dir.path(), "mtd0").unwrap_err().to_string();
        assert_eq!(error, "there is no flash partition mtd0; there are none at all");
    }

    proptest::proptest! {
        #[test]
        fn no_line_of_the_list_is_too_odd_to_be_read(text in "(mtd[0-9]{0,3}:)?[0-9a-f \"é]{0,40}") {
            let _ = line(&text);
        }
    }
}
