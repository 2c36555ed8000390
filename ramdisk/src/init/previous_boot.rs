//! What the boot before this one left in pstore: the last log lines, a dying kernel's words.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// Where the kernel shows pstore.
pub(super) const PSTORE: &str = "/sys/fs/pstore";
/// At most so much is kept of all files together, in bytes: it lies in RAM.
const MAX_BYTES: u64 = 1 << 20;

/// Mounts pstore, where the kernel has one and nobody did it yet.
///
/// # Errors
/// What mount(2) said.
pub(super) fn mount_pstore() -> Result<(), Errno> {
    if crate::mount_table::has(PSTORE) || !Path::new(PSTORE).is_dir() {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("pstore"), PSTORE, Some("pstore"), flags, None::<&str>)
}

/// Copies what is in `pstore` to the folder `to`, which is made if there is anything. The originals stay: they are not
/// only ours. The answer is how many files were copied.
///
/// # Errors
/// The first thing that could not be written; what cannot be read is left out.
pub(super) fn keep(pstore: &Path, to: &Path) -> io::Result<usize> {
    let mut names: Vec<_> =
        fs::read_dir(pstore).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let (mut left, mut copied) = (MAX_BYTES, 0);
    for name in names {
        let Ok(file) = File::open(pstore.join(&name)) else { continue };
        let mut bytes = Vec::new();
        if file.take(left).read_to_end(&mut bytes).is_err() || bytes.is_empty() {
            continue;
        }
        left = left.saturating_sub(bytes.len() as u64);
        fs::create_dir_all(to)?;
        fs::write(to.join(&name), &bytes)?;
        copied += 1;
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_last_boot_left_is_copied_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (pstore, to) = (dir.path().join("pstore"), dir.path().join("log/previous-boot"));
        assert_eq!(keep(&pstore, &to).unwrap(), 0);
        fs::create_dir(&pstore).unwrap();
        assert_eq!(keep(&pstore, &to).unwrap(), 0);
        assert!(!to.exists());
        fs::write(pstore.join("dmesg-ramoops-0"), "Oops\n").unwrap();
        fs::write(pstore.join("pmsg-ramoops-0"), vec![b'x'; 2 << 20]).unwrap();
        assert_eq!(keep(&pstore, &to).unwrap(), 2);
        assert_eq!(fs::read_to_string(to.join("dmesg-ramoops-0")).unwrap(), "Oops\n");
        assert_eq!(fs::metadata(to.join("pmsg-ramoops-0")).unwrap().len(), MAX_BYTES - 5);
        assert!(pstore.join("pmsg-ramoops-0").exists());
    }
}
