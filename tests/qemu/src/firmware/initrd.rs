//! A folder as a newc archive, for the kernel to unpack into RAM.

use std::fs::{self, File};
use std::io::{self, BufWriter, Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cpio::newc::{Builder, ModeFileType};

use crate::suite::Failure;

/// Writes everything below `root` to `out`; every file belongs to root. Device nodes are not needed: the kernel's own
/// first archive holds /dev/console, and `/init` mounts devtmpfs.
pub(crate) fn write(root: &Path, out: &Path) -> Result<(), Failure> {
    let file = File::create(out).map_err(|e| Failure::file("create", out, e))?;
    let mut paths = Vec::new();
    walk(root, &mut paths).map_err(|e| Failure::file("list", root, e))?;
    let entries = paths
        .iter()
        .enumerate()
        .map(|(number, path)| entry(root, path, number))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|e| Failure::file("read", root, e))?;
    cpio::write_cpio(entries.into_iter(), BufWriter::new(file))
        .map_err(|e| Failure::file("write", out, e))?;
    Ok(())
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        let is_folder = path.symlink_metadata()?.is_dir();
        found.push(path.clone());
        if is_folder {
            walk(&path, found)?;
        }
    }
    Ok(())
}

fn entry(root: &Path, path: &Path, number: usize) -> io::Result<(Builder, Cursor<Vec<u8>>)> {
    let meta = path.symlink_metadata()?;
    let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    let mut bytes = Vec::new();
    let kind = if meta.is_dir() {
        ModeFileType::Directory
    } else if meta.is_symlink() {
        bytes = fs::read_link(path)?.to_string_lossy().into_owned().into_bytes();
        ModeFileType::Symlink
    } else {
        File::open(path)?.read_to_end(&mut bytes)?;
        ModeFileType::Regular
    };
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let builder = Builder::new(&name)
        .ino(number)
        .nlink(1)
        .mode(meta.permissions().mode() & 0o7777)
        .set_mode_file_type(kind);
    Ok((builder, Cursor::new(bytes)))
}
