//! A tree as an archive. The same tree gives the same bytes: the order is the tree's, times are one number, and inode
//! numbers are counted.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::header::{ALIGN, DIRECTORY, Header, REGULAR, SYMLINK, TRAILER};
use crate::sink::{Content, Memory, Meta, Stored};
use crate::tree::Tree;

/// What archives are filled up to: a block of old tapes, which some readers still expect.
const BLOCK: u64 = 512;
/// What is copied at once.
const BUFFER: usize = 64 << 10;

/// An archive that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("write the archive")]
    Write(#[from] io::Error),
    /// The format has 32 bits for a length.
    #[error("{path} has {size} bytes: an archive holds files of less than 4 GiB")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The name means something else in an archive.
    #[error("{path}: no file in an archive can have this name")]
    Name {
        /// The name.
        path: PathBuf,
    },
}

/// Writes `tree` to `out`; every entry says that it was changed `mtime` seconds after 1970. Names of one file follow each
/// other's inode number, and the last of them carries the contents, as the kernel's own archives have it.
///
/// # Errors
///
/// A file to copy cannot be read or is too large; `out` fails.
pub fn write(tree: &Tree, mtime: u32, out: &mut dyn Write) -> Result<(), WriteError> {
    let mut memory = Memory::default();
    let Ok(()) = tree.write_to(&mut memory);
    let names = names(&memory);
    let mut inodes: HashMap<&Path, u32> = HashMap::new();
    let mut archive = Archive { out, at: 0, mtime, last: 0 };
    for path in &memory.order {
        let Some(stored) = memory.entries.get(path) else { continue };
        let name = path.as_os_str().as_bytes();
        if name == TRAILER.as_bytes() {
            return Err(WriteError::Name { path: path.clone() });
        }
        match stored {
            Stored::Directory(meta) => {
                let header = Header { mode: DIRECTORY | meta.mode, nlink: 2, ..archive.header(*meta) };
                archive.entry(header, name, &[])?;
            }
            Stored::Symlink(target) => {
                let target = target.as_os_str().as_bytes();
                let header = Header { mode: SYMLINK | 0o777, ..archive.header(Meta::root(0)) };
                archive.entry(header, name, target)?;
            }
            Stored::File(..) | Stored::HardLink(_) => {
                let first = if let Stored::HardLink(first) = stored { first } else { path };
                let Some(Stored::File(meta, content)) = memory.entries.get(first) else { continue };
                let all = names.get(first.as_path()).map_or(&[][..], Vec::as_slice);
                let new = archive.header(*meta);
                let ino = *inodes.entry(first).or_insert(new.ino);
                let nlink = u32::try_from(all.len().max(1)).unwrap_or(u32::MAX);
                let header = Header { ino, nlink, mode: REGULAR | meta.mode, ..new };
                if all.last().is_none_or(|last| *last == path) {
                    archive.file(header, name, first, content)?;
                } else {
                    archive.entry(header, name, &[])?;
                }
            }
        }
    }
    archive.entry(Header { nlink: 1, ..Header::default() }, TRAILER.as_bytes(), &[])?;
    archive.align(BLOCK)
}

/// All names of each file that has several, in the archive's order, by the first.
fn names(memory: &Memory) -> BTreeMap<&Path, Vec<&Path>> {
    let mut names: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    for path in &memory.order {
        if let Some(Stored::HardLink(first)) = memory.entries.get(path) {
            names.entry(first).or_insert_with(|| vec![first]).push(path);
        }
    }
    names
}

struct Archive<'a> {
    out: &'a mut dyn Write,
    /// Bytes written.
    at: u64,
    mtime: u32,
    /// The last inode number given.
    last: u32,
}

impl Archive<'_> {
    fn header(&mut self, meta: Meta) -> Header {
        self.last = self.last.wrapping_add(1);
        let (uid, gid, mtime) = (meta.uid, meta.gid, self.mtime);
        Header { ino: self.last, uid, gid, mtime, nlink: 1, ..Header::default() }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self, to: u64) -> Result<(), WriteError> {
        let short = usize::try_from(self.at.next_multiple_of(to) - self.at).unwrap_or(0);
        self.put([0; 512].get(..short).unwrap_or_default())
    }

    fn begin(&mut self, header: Header, name: &[u8]) -> Result<(), WriteError> {
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        self.put(Header { name_size, ..header }.format().as_bytes())?;
        self.put(name)?;
        self.put(&[0])?;
        self.align(ALIGN)
    }

    fn entry(&mut self, header: Header, name: &[u8], contents: &[u8]) -> Result<(), WriteError> {
        let size = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        self.begin(Header { size, ..header }, name)?;
        self.put(contents)?;
        self.align(ALIGN)
    }

    fn file(
        &mut self,
        header: Header,
        name: &[u8],
        path: &Path,
        content: &Content,
    ) -> Result<(), WriteError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| WriteError::Read { path, source }
        };
        let fits =
            |size: u64| u32::try_from(size).map_err(|_| WriteError::TooLarge { path: path.to_owned(), size });
        match content {
            Content::Bytes(bytes) => {
                fits(bytes.len() as u64)?;
                self.entry(header, name, bytes)
            }
            Content::CopyOf(host) => {
                let file = host.open().map_err(failed(host.path()))?;
                let size = file.metadata().map_err(failed(host.path()))?.len();
                self.begin(Header { size: fits(size)?, ..header }, name)?;
                self.copy(&file, 0, size).map_err(|e| e.unwrap_or_else(|e| failed(host.path())(e)))?;
                self.align(ALIGN)
            }
            Content::Part(part) => {
                self.begin(Header { size: fits(part.length)?, ..header }, name)?;
                let copied = self.copy(&part.file, part.offset, part.length);
                copied.map_err(|e| e.unwrap_or_else(|e| failed(path)(e)))?;
                self.align(ALIGN)
            }
        }
    }

    /// Copies exactly `length` bytes: the header has promised them. The inner error is the reader's.
    fn copy(&mut self, from: &File, offset: u64, length: u64) -> Result<(), Result<WriteError, io::Error>> {
        let mut buffer = vec![0; BUFFER];
        let mut done = 0;
        while done < length {
            let most = usize::try_from(length - done).unwrap_or(BUFFER).min(BUFFER);
            let part = buffer.get_mut(..most).unwrap_or_default();
            match from.read_at(part, offset + done) {
                // it was longer when it was looked at
                Ok(0) => return Err(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    done += count as u64;
                    self.put(buffer.get(..count).unwrap_or_default()).map_err(Ok)?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Err(e)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::path::Root;

    fn bytes(tree: &Tree, mtime: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(tree, mtime, &mut bytes).unwrap();
        bytes
    }

    /// A root as somebody unpacked it: files made in the order of `names`, in a folder of its own.
    fn unpacked(names: &[&str]) -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        for name in names {
            fs::write(dir.path().join("usr/bin").join(name), name.repeat(900)).unwrap();
        }
        let sh = dir.path().join("usr/bin/sh");
        fs::set_permissions(&sh, fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(&sh, dir.path().join("usr/bin/ash")).unwrap();
        symlink("usr/bin", dir.path().join("bin")).unwrap();
        let mut tree = Tree::of_root();
        tree.copy(&Root::new(dir.path()), Path::new("/usr")).unwrap();
        tree.copy(&Root::new(dir.path()), Path::new("/bin")).unwrap();
        tree.file(Path::new("etc/motd"), Meta { mode: 0o600, uid: 7, gid: 8 }, Content::Bytes(b"hi".into()))
            .unwrap();
        (dir, tree)
    }

    #[test]
    fn two_people_who_unpacked_the_same_root_get_the_same_bytes() {
        let (_one, first) = unpacked(&["sh", "awk", "zcat"]);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (_two, second) = unpacked(&["zcat", "sh", "awk"]);
        assert_eq!(bytes(&first, 0), bytes(&second, 0));
        assert_ne!(bytes(&first, 0), bytes(&first, 1_700_000_000));
        assert_eq!(bytes(&first, 0).len() % 512, 0);
    }

    #[test]
    fn the_header_of_every_entry_is_as_the_tree_has_it() {
        let (_dir, tree) = unpacked(&["sh"]);
        let bytes = bytes(&tree, 0x11);
        let text = String::from_utf8_lossy(&bytes);
        let header = |name: &str| {
            let at = text.find(&format!("{name}\0")).unwrap();
            text[at - 110..at].to_owned()
        };
        // ino, mode, uid, gid, nlink, mtime, filesize
        assert!(
            header("etc/motd").starts_with("07070100000003000081800000000700000008000000010000001100000002")
        );
        // two names of one file: the second carries the contents
        let (first, last) = (header("usr/bin/ash"), header("usr/bin/sh"));
        assert_eq!(first[..14], last[..14], "one inode");
        assert_eq!((&first[14..22], &first[38..46], &first[54..62]), ("000089ed", "00000002", "00000000"));
        assert_eq!((&last[14..22], &last[38..46], &last[54..62]), ("000089ed", "00000002", "00000708"));
        assert!(header("bin").contains("0000a1ff"));
    }

    #[test]
    fn a_file_that_shrinks_or_is_named_as_the_end_is_refused() {
        let (dir, tree) = unpacked(&["sh"]);
        fs::remove_file(dir.path().join("usr/bin/sh")).unwrap();
        fs::remove_file(dir.path().join("usr/bin/ash")).unwrap();
        let e = write(&tree, 0, &mut Vec::new()).unwrap_err();
        assert!(e.to_string().ends_with("usr/bin/ash"), "{e}");
        let mut tree = Tree::new();
        tree.file(Path::new(TRAILER), Meta::root(0o644), Content::Bytes(Vec::new())).unwrap();
        assert!(matches!(write(&tree, 0, &mut Vec::new()), Err(WriteError::Name { .. })));
    }
}
