//! A file of the running system that is to be copied later: it is remembered which one it was when its mode and owner
//! were looked at, and only that one is read. Whoever may change a directory on the way could otherwise put another
//! file into its place in between (somebody else's secret, which would get this file's owner) or a pipe that never
//! ends.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    path: PathBuf,
    /// Whether the name may be a symlink.
    follow: bool,
    known: Known,
}

/// What must not have changed when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    device: u64,
    inode: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Known {
    fn of(meta: &Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino(), mode: meta.mode(), uid: meta.uid(), gid: meta.gid() }
    }
}

impl Original {
    /// The regular file `path`, which is no symlink.
    ///
    /// # Errors
    ///
    /// It cannot be looked at, or is something else.
    pub fn look(path: &Path) -> io::Result<Self> {
        Self::of(path, &fs::symlink_metadata(path)?)
    }

    /// The regular file that `path` leads to, such as `/proc/self/exe`: for names that only root can change.
    ///
    /// # Errors
    ///
    /// As [`Original::look`].
    pub fn follow(path: &Path) -> io::Result<Self> {
        Ok(Self { follow: true, ..Self::of(path, &fs::metadata(path)?)? })
    }

    /// The regular file `path`, which was looked at: `meta` is what was seen.
    ///
    /// # Errors
    ///
    /// It is no regular file.
    pub fn of(path: &Path, meta: &Metadata) -> io::Result<Self> {
        if !meta.is_file() {
            return Err(io::Error::other("expected a regular file, found something else"));
        }
        Ok(Self { path: path.to_owned(), follow: false, known: Known::of(meta) })
    }

    /// Its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode: two of the same are one file with two names.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        (self.known.device, self.known.inode)
    }

    /// What is to be known of it now.
    ///
    /// # Errors
    ///
    /// It is gone, or another file is there.
    pub fn metadata(&self) -> io::Result<Metadata> {
        let meta = if self.follow { fs::metadata(&self.path) } else { fs::symlink_metadata(&self.path) }?;
        self.is_the_same(&meta)?;
        Ok(meta)
    }

    /// Opens it for reading. Never waits for the other end of a pipe.
    ///
    /// # Errors
    ///
    /// It is gone, may not be read, or another file is there.
    pub fn open(&self) -> io::Result<File> {
        // a device in its place must not even be opened
        self.metadata()?;
        let no_link = if self.follow { 0 } else { libc::O_NOFOLLOW };
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | no_link).open(&self.path)?;
        self.is_the_same(&file.metadata()?)?;
        Ok(file)
    }

    fn is_the_same(&self, meta: &Metadata) -> io::Result<()> {
        if Known::of(meta) == self.known {
            return Ok(());
        }
        Err(io::Error::other("it is not the file any more that was looked at before; try again"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::Mode;

    use super::*;

    fn text(original: &Original) -> io::Result<String> {
        let mut text = String::new();
        original.open()?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn what_was_put_in_its_place_since_is_not_read_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let [file, secret, aside] = ["file", "secret", "aside"].map(|name| dir.path().join(name));
        fs::write(&file, "mine").unwrap();
        fs::write(&secret, "somebody else's").unwrap();
        let original = Original::look(&file).unwrap();
        assert_eq!(text(&original).unwrap(), "mine");
        fs::rename(&file, &aside).unwrap();
        let put: [fn(&Path, &Path); 5] = [
            |file, secret| symlink(secret, file).unwrap(),
            |file, secret| fs::hard_link(secret, file).unwrap(),
            |file, _| nix::unistd::mkfifo(file, Mode::S_IRWXU).unwrap(),
            |file, _| symlink("aside", file).unwrap(),
            |_, _| {},
        ];
        for put in put {
            put(&file, &secret);
            assert!(original.open().is_err() && original.metadata().is_err());
            let _ = fs::remove_file(&file);
        }
        fs::rename(&aside, &file).unwrap();
        assert_eq!(text(&original).unwrap(), "mine");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(text(&original).is_err(), "its copy would get the mode that it had");
    }

    #[test]
    fn a_name_that_is_followed_may_be_a_link_and_still_has_to_lead_to_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, link] = ["one", "two", "link"].map(|name| dir.path().join(name));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        symlink(&one, &link).unwrap();
        assert!(Original::look(&link).is_err());
        let original = Original::follow(&link).unwrap();
        assert_eq!(text(&original).unwrap(), "1");
        fs::remove_file(&link).unwrap();
        symlink(&two, &link).unwrap();
        assert!(text(&original).is_err());
        assert!(Original::follow(Path::new("/proc/self/exe")).unwrap().open().is_ok());
        assert!(Original::look(dir.path()).is_err());
    }
}
