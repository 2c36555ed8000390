//! What the running system says about itself, read once: everything that `select` and the budget decide upon.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ramdisk::network::{NetworkError, NetworkState, snapshot};
use ramdisk::path::{PathError, Root};
use ramdisk::users::{Accounts, UsersError};

use crate::arm::{self, ArmError, Init};
use crate::budget::Supply;
use crate::config::Config;
use crate::run_mount::{self, RunMount};
use crate::state::{self, StateError};

/// `MTD_WRITEABLE` of the kernel's mtd-abi.h.
const MTD_WRITEABLE: u64 = 0x400;

/// The running system.
#[derive(Clone, Debug)]
pub struct SystemFacts {
    /// `/`, but in tests.
    pub root: Root,
    /// The directories in which a program without a slash is looked up.
    pub path: Vec<PathBuf>,
    /// This boot's id.
    pub boot_id: String,
    /// passwd, group and shadow.
    pub accounts: Accounts,
    /// PID 1.
    pub init: Init,
    /// RAM and the room in /run.
    pub supply: Supply,
    /// The page size of /run, in bytes.
    pub page: u64,
    /// The mount of /run.
    pub run: RunMount,
    /// The flash.
    pub mtd: Vec<MtdPartition>,
    /// Links, addresses and routes; empty if the configuration does not keep them.
    pub network: NetworkState,
    /// What /etc/hosts holds, if the configuration keeps the network.
    pub hosts: Option<Vec<u8>>,
    /// The running program's own file.
    pub binary: PathBuf,
}

/// A partition as /proc/mtd and sysfs tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MtdPartition {
    /// `mtd5`.
    pub device: String,
    /// `firmware`.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// Whether the driver lets it be written.
    pub writeable: bool,
}

/// A fact that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// A file of /proc or /sys, or /run itself.
    #[error("read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// PID 1 is not told.
    #[error(transparent)]
    Arm(#[from] ArmError),
    /// passwd, group or shadow is malformed.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// One of them cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The boot's id is not told.
    #[error(transparent)]
    State(#[from] StateError),
    /// The kernel does not tell the network's settings.
    #[error("read the network's settings")]
    Network(#[from] NetworkError),
    /// /proc/meminfo says nothing about free memory.
    #[error("read /proc/meminfo: neither MemAvailable nor MemFree is there")]
    Memory,
}

impl SystemFacts {
    /// Reads them below `root`; only what `config` asks for of the network.
    ///
    /// # Errors
    ///
    /// The first that cannot be read. A system without flash, or without a shadow file, is no error.
    pub fn read(root: &Root, config: &Config) -> Result<Self, FactsError> {
        let at = |name: &str| root.dir().join(name);
        let failed = |path: PathBuf| move |source| FactsError::Io { path, source };
        let text = |path: &str| root.read_text(Path::new(path)).map(Option::unwrap_or_default);
        let accounts = Accounts::parse(&text("/etc/passwd")?, &text("/etc/group")?, &text("/etc/shadow")?)?;
        // with the others of /etc: small files lie together in flash, and are unpacked together
        let hosts = if config.keep.network { root.read(Path::new("/etc/hosts"))? } else { None };
        let run_host = root.host(&root.resolve(Path::new("/run"))?.real);
        let (space, page) = run_mount::space(&run_host).map_err(failed(run_host))?;
        let run = run_mount::read(root).map_err(failed(at("proc/self/mountinfo")))?;
        let mem_available = memory(root)?;
        Ok(Self {
            path: search_path(env::var("PATH").as_deref().unwrap_or_default()),
            boot_id: state::boot_id(root.dir())?,
            accounts,
            init: arm::detect(root)?,
            supply: Supply { mem_available, run: space },
            page,
            run,
            mtd: mtd_partitions(root),
            network: if config.keep.network { snapshot(root.dir())? } else { NetworkState::default() },
            hosts,
            binary: at("proc/self/exe"),
            root: root.clone(),
        })
    }
}

impl SystemFacts {
    /// What an unpacked root on a build machine tells: its users and programs. `binary` is the program that the image
    /// carries. Everything that only the running device knows is empty.
    ///
    /// # Errors
    ///
    /// passwd, group or shadow cannot be read, or is malformed.
    pub fn of_sysroot(root: &Root, binary: &Path) -> Result<Self, FactsError> {
        let text = |path: &str| root.read_text(Path::new(path)).map(Option::unwrap_or_default);
        Ok(Self {
            path: search_path(""),
            boot_id: String::new(),
            accounts: Accounts::parse(&text("/etc/passwd")?, &text("/etc/group")?, &text("/etc/shadow")?)?,
            init: Init::Unknown(String::new()),
            supply: Supply { mem_available: u64::MAX, run: None },
            page: 4096,
            run: RunMount { point: PathBuf::new(), fstype: String::new(), options: Vec::new() },
            mtd: Vec::new(),
            network: NetworkState::default(),
            hosts: None,
            binary: binary.to_owned(),
            root: root.clone(),
        })
    }
}

/// `MemAvailable` of the system below `root`, in bytes.
///
/// # Errors
///
/// /proc/meminfo cannot be read, or does not tell.
pub fn memory(root: &Root) -> Result<u64, FactsError> {
    let path = root.dir().join("proc/meminfo");
    let text = fs::read_to_string(&path).map_err(|source| FactsError::Io { path, source })?;
    mem_available(&text).ok_or(FactsError::Memory)
}

/// The directories of `PATH`, then the usual ones: a maintenance script may run with a short PATH.
fn search_path(path: &str) -> Vec<PathBuf> {
    let usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let mut all: Vec<PathBuf> = Vec::new();
    for dir in path.split(':').filter(|d| d.starts_with('/')).chain(usual) {
        if !all.iter().any(|known| known == Path::new(dir)) {
            all.push(dir.into());
        }
    }
    all
}

/// Kernels before 3.14 have no MemAvailable: MemFree and the page cache are the nearest to it.
fn mem_available(meminfo: &str) -> Option<u64> {
    let kib = |key: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let kib = kib("MemAvailable").or_else(|| Some(kib("MemFree")? + kib("Cached").unwrap_or(0)))?;
    kib.checked_mul(1024)
}

/// A line of /proc/mtd is `mtd3: 00f80000 00010000 "firmware"`, the numbers hexadecimal.
fn mtd_partitions(root: &Root) -> Vec<MtdPartition> {
    let text = fs::read_to_string(root.dir().join("proc/mtd")).unwrap_or_default();
    let partition = |line: &str| {
        let (device, rest) = line.split_once(": ")?;
        let size = u64::from_str_radix(rest.split(' ').next()?, 16).ok()?;
        let name = rest.split('"').nth(1)?.to_owned();
        let flags = root.dir().join("sys/class/mtd").join(device).join("flags");
        let flags = fs::read_to_string(flags).unwrap_or_default();
        let flags = u64::from_str_radix(flags.trim().trim_start_matches("0x"), 16).ok();
        // without sysfs: better to leave room for too much than for too little
        let writeable = flags.is_none_or(|f| f & MTD_WRITEABLE != 0);
        Some(MtdPartition { device: device.to_owned(), name, size, writeable })
    };
    text.lines().filter_map(partition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_on_old_kernels_too() {
        assert_eq!(mem_available("MemTotal: 9 kB\nMemAvailable:    51836 kB\n"), Some(51_836 * 1024));
        assert_eq!(mem_available("MemFree: 100 kB\nCached: 50 kB\n"), Some(150 * 1024));
        assert_eq!(mem_available(""), None);
    }

    #[test]
    fn partitions_are_read_with_what_sysfs_says_about_writing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        let text = "dev:    size   erasesize  name\nmtd0: 00030000 00010000 \"u-boot\"\nmtd3: 00f80000 00010000 \"firm ware\"\n";
        fs::write(dir.path().join("proc/mtd"), text).unwrap();
        for (device, flags) in [("mtd0", "0x0\n"), ("mtd3", "0xc00\n")] {
            let at = dir.path().join("sys/class/mtd").join(device);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("flags"), flags).unwrap();
        }
        let found = mtd_partitions(&Root::new(dir.path()));
        let partition = |device: &str, name: &str, size, writeable| MtdPartition {
            device: device.into(),
            name: name.into(),
            size,
            writeable,
        };
        assert_eq!(
            found,
            [partition("mtd0", "u-boot", 0x30000, false), partition("mtd3", "firm ware", 0xf8_0000, true)]
        );
    }

    #[test]
    fn the_usual_directories_are_searched_even_with_a_short_path() {
        let dirs = search_path("/nix/bin:relative:/bin");
        assert_eq!(dirs[..2], ["/nix/bin", "/bin"].map(PathBuf::from));
        assert_eq!(dirs.iter().filter(|d| *d == Path::new("/bin")).count(), 1);
        assert!(dirs.contains(&PathBuf::from("/usr/sbin")));
    }
}
