//! Keys that are carried over: those that open accounts, and those by which clients recognise the device.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ramdisk::path::{PathError, Root};
use ramdisk::users::User as Account;

use crate::config::{AuthorizedKeys, User};

/// More are no keys of one user, in bytes.
const MOST_KEYS: u64 = 1 << 20;

/// OpenWrt's dropbear looks here for root's keys.
pub const DROPBEAR_ROOT_KEYS: &str = "/etc/dropbear/authorized_keys";

/// Keys that could not be carried over.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file named in the configuration does not exist.
    #[error("{what} {path} does not exist")]
    Missing {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A user has put in the place of the keys what somebody else owns.
    #[error(
        "authorized_keys of user {user}: {path} leads to {real}, which is not the user's own; \
         name the file in authorized_keys if it is meant"
    )]
    NotTheirs {
        /// The user.
        user: String,
        /// Where keys were looked for.
        path: PathBuf,
        /// Where that leads.
        real: PathBuf,
    },
    /// A file cannot be read.
    #[error("read keys")]
    Path(#[from] PathError),
}

/// The lines of authorized_keys for `account`: what the configuration says, else what lies in its home.
///
/// # Errors
///
/// A file named in the configuration is missing, or a file cannot be read.
pub fn authorized_keys(root: &Root, account: &Account, config: &User) -> Result<Vec<String>, KeysError> {
    let lines = |text: &str| -> Vec<String> {
        let line = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        line.map(str::to_owned).collect()
    };
    match &config.authorized_keys {
        Some(AuthorizedKeys::Keys(keys)) => Ok(lines(&keys.join("\n"))),
        Some(AuthorizedKeys::File(path)) => {
            let missing = || KeysError::Missing { what: "authorized_keys", path: path.clone() };
            let found = match root.resolve(path) {
                Err(PathError::NotFound { .. }) => return Err(missing()),
                found => found?,
            };
            let host = root.host(&found.real);
            let (_, text) = read(&host)
                .map_err(|source| KeysError::Path(PathError::Io { path: host.clone(), source }))?;
            Ok(lines(&text))
        }
        None if !config.keep => Ok(Vec::new()),
        None => {
            let mut text = their_own(root, account, &account.home.join(".ssh/authorized_keys"))?;
            if account.uid == 0 {
                text.push('\n');
                text.push_str(&root.read_text(Path::new(DROPBEAR_ROOT_KEYS))?.unwrap_or_default());
            }
            Ok(lines(&text))
        }
    }
}

/// The text of a file in a user's home. Its copy will belong to the user, so it has to be the user's own already, or lie
/// where the user can put nothing: else a symlink to /etc/shadow would make a copy of that for its owner to read.
fn their_own(root: &Root, account: &Account, path: &Path) -> Result<String, KeysError> {
    let found = match root.resolve(path) {
        Ok(found) => found,
        Err(PathError::NotFound { .. }) => return Ok(String::new()),
        Err(e) => return Err(e.into()),
    };
    let host = root.host(&found.real);
    let failed = |source| KeysError::Path(PathError::Io { path: host.clone(), source });
    let (owner, text) = read(&host).map_err(failed)?;
    let on_the_way = found.links.iter().map(|link| &link.at).chain([&found.real]);
    if owner != account.uid && !on_the_way.into_iter().all(|at| is_out_of_reach(root, at)) {
        let (user, path) = (account.name.clone(), path.to_owned());
        return Err(KeysError::NotTheirs { user, path, real: found.real });
    }
    Ok(text)
}

/// The owner and the text of a file that a user may have put there: a pipe would never end, and neither would a file of
/// any length.
fn read(host: &Path) -> io::Result<(u32, String)> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(host)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("expected a file with keys, found something else"));
    }
    let mut text = Vec::new();
    file.take(MOST_KEYS + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST_KEYS {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {} KiB of keys", MOST_KEYS / 1024),
        ));
    }
    Ok((meta.uid(), String::from_utf8_lossy(&text).into_owned()))
}

/// Whether only root (or whoever runs this) can change what this name leads to.
fn is_out_of_reach(root: &Root, at: &Path) -> bool {
    let me = nix::unistd::geteuid().as_raw();
    at.ancestors().skip(1).all(|directory| {
        fs::symlink_metadata(root.host(directory)).is_ok_and(|m| {
            let others_write = m.mode() & 0o022 != 0 && m.mode() & 0o1000 == 0;
            (m.uid() == 0 || m.uid() == me) && !others_write
        })
    })
}

/// The host keys: those named, else all that dropbear and OpenSSH have made.
///
/// # Errors
///
/// A named one does not exist, or a directory cannot be read.
pub fn host_keys(root: &Root, named: Option<&[PathBuf]>) -> Result<BTreeSet<PathBuf>, KeysError> {
    if let Some(named) = named {
        let missing = |path: &PathBuf| match root.resolve(path) {
            Err(PathError::NotFound { .. }) => {
                Some(KeysError::Missing { what: "host key", path: path.clone() })
            }
            other => other.err().map(KeysError::from),
        };
        return match named.iter().find_map(missing) {
            Some(e) => Err(e),
            None => Ok(named.iter().cloned().collect()),
        };
    }
    let mut found = BTreeSet::new();
    let is_dropbears = |name: &str| name.ends_with("_host_key");
    let is_opensshs =
        |name: &str| name.starts_with("ssh_host_") && (name.ends_with("_key") || name.ends_with("_key.pub"));
    for (directory, is_key) in
        [("/etc/dropbear", &is_dropbears as &dyn Fn(&str) -> bool), ("/etc/ssh", &is_opensshs)]
    {
        let directory = Path::new(directory);
        let Ok(resolved) = root.resolve(directory) else { continue };
        let host = root.host(&resolved.real);
        let failed = |source| PathError::Io { path: host.clone(), source };
        for entry in fs::read_dir(&host).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let path = directory.join(&name);
            // a key that is not made yet may be a symlink to nowhere
            if is_key(&name.to_string_lossy()) && root.resolve(&path).is_ok() {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn account() -> Account {
        ramdisk::users::Accounts::parse("root:x:0:0::/root:/bin/sh\n", "", "").unwrap().users.remove(0)
    }

    #[test]
    fn keys_come_from_the_home_unless_the_configuration_names_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert!(authorized_keys(&root, &account(), &User::default()).unwrap().is_empty());
        fs::create_dir_all(dir.path().join("root/.ssh")).unwrap();
        fs::write(dir.path().join("root/.ssh/authorized_keys"), "# mine\nssh-ed25519 A me\n\n").unwrap();
        fs::create_dir_all(dir.path().join("etc/dropbear")).unwrap();
        fs::write(dir.path().join("etc/dropbear/authorized_keys"), "ssh-ed25519 B you\n").unwrap();
        let keys = |user: &User| authorized_keys(&root, &account(), user).unwrap();
        assert_eq!(keys(&User::default()), ["ssh-ed25519 A me", "ssh-ed25519 B you"]);
        assert!(keys(&User { keep: false, ..User::default() }).is_empty());
        let named = AuthorizedKeys::Keys(vec!["ssh-ed25519 C her".into()]);
        assert_eq!(keys(&User { authorized_keys: Some(named), ..User::default() }), ["ssh-ed25519 C her"]);
        let file = AuthorizedKeys::File("/etc/keys".into());
        let user = User { authorized_keys: Some(file), ..User::default() };
        let e = authorized_keys(&root, &account(), &user).unwrap_err();
        assert_eq!(e.to_string(), "authorized_keys /etc/keys does not exist");
    }

    #[test]
    fn a_pipe_and_a_file_without_an_end_in_a_home_are_told_and_hold_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let keys = dir.path().join("root/.ssh/authorized_keys");
        fs::create_dir_all(keys.parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&keys, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = || {
            let e = authorized_keys(&root, &account(), &User::default()).unwrap_err();
            crate::status::with_sources(&e)
        };
        assert!(error().ends_with("expected a file with keys, found something else"), "{}", error());
        fs::remove_file(&keys).unwrap();
        // a hole takes no room
        fs::File::create(&keys).unwrap().set_len(1 << 40).unwrap();
        assert!(error().ends_with("more than 1024 KiB of keys"), "{}", error());
    }

    #[test]
    fn a_file_that_becomes_a_symlink_once_it_was_looked_up_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, keys) = (dir.path().join("secret"), dir.path().join("authorized_keys"));
        fs::write(&secret, "ssh-ed25519 AAAA\n").unwrap();
        assert_eq!(read(&secret).unwrap().1, "ssh-ed25519 AAAA\n");
        std::os::unix::fs::symlink(&secret, &keys).unwrap();
        assert_eq!(read(&keys).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn host_keys_are_found_where_the_servers_put_them_also_behind_a_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert!(host_keys(&root, None).unwrap().is_empty());
        fs::create_dir_all(dir.path().join("persist/dropbear")).unwrap();
        fs::create_dir_all(dir.path().join("etc/ssh")).unwrap();
        symlink("/persist/dropbear", dir.path().join("etc/dropbear")).unwrap();
        for name in
            ["persist/dropbear/dropbear_ed25519_host_key", "persist/dropbear/other", "etc/ssh/ssh_config"]
        {
            fs::write(dir.path().join(name), "").unwrap();
        }
        for name in ["etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        symlink("nowhere", dir.path().join("persist/dropbear/dropbear_rsa_host_key")).unwrap();
        let names: Vec<_> = host_keys(&root, None).unwrap().iter().map(|p| p.display().to_string()).collect();
        assert_eq!(
            names,
            [
                "/etc/dropbear/dropbear_ed25519_host_key",
                "/etc/ssh/ssh_host_ed25519_key",
                "/etc/ssh/ssh_host_ed25519_key.pub"
            ]
        );
        let e = host_keys(&root, Some(&["/etc/dropbear/none".into()])).unwrap_err();
        assert_eq!(e.to_string(), "host key /etc/dropbear/none does not exist");
    }
}
