//! Names inside a root that is not (necessarily) ours: every component is looked up by hand, so that a symlink never
//! leads out of it, and every symlink that was passed is told, so that a copy can be given the same names.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// As many symlinks as the kernel follows in one name (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A directory that is taken as `/`.
#[derive(Clone, Debug)]
pub struct Root {
    dir: PathBuf,
    /// What was seen already, by its name inside the root; none: everything is looked at anew.
    seen: Option<Arc<Mutex<HashMap<OsString, Kind>>>>,
}

/// What a name without symlinks in its directory part is.
#[derive(Clone, Debug)]
enum Kind {
    Directory,
    Symlink(PathBuf),
    Other,
    Absent,
}

/// Roots are equal if they are the same directory, whatever they remember.
impl PartialEq for Root {
    fn eq(&self, other: &Self) -> bool {
        self.dir == other.dir
    }
}

impl Eq for Root {}

/// A symlink that was passed on the way, named inside the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Where it lies; the directory part holds no symlink.
    pub at: PathBuf,
    /// What it says, unchanged.
    pub target: PathBuf,
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The absolute name inside the root, without symlinks, `.` or `..`.
    pub real: PathBuf,
    /// The symlinks passed, in order.
    pub links: Vec<Link>,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Part of the name does not exist.
    #[error("{path}: {missing} does not exist")]
    NotFound {
        /// The name looked for.
        path: PathBuf,
        /// The first part of it that is not there.
        missing: PathBuf,
    },
    /// Too many symlinks: they form a loop.
    #[error("{path}: more than {MAX_LINKS} symbolic links, the last one {last}")]
    Loop {
        /// The name looked for.
        path: PathBuf,
        /// The link at which the limit was reached.
        last: PathBuf,
    },
    /// A component before the last is no directory.
    #[error("{path}: {part} is not a directory")]
    NotADirectory {
        /// The name looked for.
        path: PathBuf,
        /// The component.
        part: PathBuf,
    },
    /// The kernel refused a look.
    #[error("look up {path}")]
    Io {
        /// What was looked at.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Root {
    /// Takes `dir` as the root; `/` for the running system.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), seen: None }
    }

    /// The same root, which looks at each name once: for a while in which nothing in it changes. A closure asks for the
    /// same few directories hundreds of times.
    #[must_use]
    pub fn remembering(&self) -> Self {
        Self { dir: self.dir.clone(), seen: Some(Arc::default()) }
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name by which this process reaches `inside`, which must hold no symlinks (see [`Resolved::real`]).
    pub fn host(&self, inside: &Path) -> PathBuf {
        let mut path = self.dir.clone();
        path.extend(inside.components().filter(|c| matches!(c, Component::Normal(_))));
        path
    }

    /// Follows `path` inside the root. A relative name starts at the root, `..` at the root stays there.
    ///
    /// # Errors
    ///
    /// The name, or a symlink's target, does not exist; a loop; a file in the middle of the name.
    pub fn resolve(&self, path: &Path) -> Result<Resolved, PathError> {
        let mut todo: VecDeque<OsString> = parts(path);
        let mut real = PathBuf::from("/");
        let mut links = Vec::new();
        while let Some(part) = todo.pop_front() {
            if part == ".." {
                real.pop();
                continue;
            }
            let at = real.join(&part);
            match self.look(&at)? {
                Kind::Absent => return Err(PathError::NotFound { path: path.to_owned(), missing: at }),
                Kind::Symlink(_) if links.len() == MAX_LINKS => {
                    return Err(PathError::Loop { path: path.to_owned(), last: at });
                }
                Kind::Symlink(target) => {
                    if target.is_absolute() {
                        real = PathBuf::from("/");
                    }
                    for part in parts(&target).into_iter().rev() {
                        todo.push_front(part);
                    }
                    links.push(Link { at, target });
                }
                Kind::Other if !todo.is_empty() => {
                    return Err(PathError::NotADirectory { path: path.to_owned(), part: at });
                }
                Kind::Directory | Kind::Other => real = at,
            }
        }
        Ok(Resolved { real, links })
    }

    /// What `at` is, by memory if there is one.
    fn look(&self, at: &Path) -> Result<Kind, PathError> {
        let Some(seen) = &self.seen else { return self.see(at) };
        // nothing can panic while it is held
        let known = || seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kind) = known().get(at.as_os_str()) {
            return Ok(kind.clone());
        }
        let kind = self.see(at)?;
        known().insert(at.into(), kind.clone());
        Ok(kind)
    }

    fn see(&self, at: &Path) -> Result<Kind, PathError> {
        let host = self.host(at);
        match fs::symlink_metadata(&host) {
            Ok(meta) if meta.is_dir() => Ok(Kind::Directory),
            Ok(meta) if meta.is_symlink() => match fs::read_link(&host) {
                Ok(target) => Ok(Kind::Symlink(target)),
                Err(source) => Err(PathError::Io { path: host, source }),
            },
            Ok(_) => Ok(Kind::Other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Kind::Absent),
            Err(source) => Err(PathError::Io { path: host, source }),
        }
    }

    /// Follows `path` and reads the file there; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Root::resolve`], but for a missing file; or it cannot be read.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, PathError> {
        let real = match self.resolve(path) {
            Ok(resolved) => resolved.real,
            Err(PathError::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        let host = self.host(&real);
        fs::read(&host).map(Some).map_err(|source| PathError::Io { path: host, source })
    }

    /// As [`Root::read`], as text; bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    ///
    /// As [`Root::read`].
    pub fn read_text(&self, path: &Path) -> Result<Option<String>, PathError> {
        Ok(self.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// The target that means `target` for a link at `at` and does not begin with `/`: the copy then reads the same from
/// outside of its root. `at`'s directory must hold no symlinks.
pub fn relative_target(at: &Path, target: &Path) -> PathBuf {
    if !target.is_absolute() {
        return target.to_owned();
    }
    let depth = parts(at).len().saturating_sub(1);
    let mut relative: PathBuf = std::iter::repeat_n("..", depth).collect();
    relative.extend(parts(target));
    if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        fs::write(dir.path().join("usr/lib/libc.so.6"), "libc").unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    fn real(root: &Root, path: &str) -> PathBuf {
        root.resolve(Path::new(path)).unwrap().real
    }

    #[test]
    fn every_symlink_on_the_way_is_told() {
        let (dir, root) = root();
        symlink("usr/lib", dir.path().join("lib")).unwrap();
        symlink("libc.so.6", dir.path().join("usr/lib/libc.so")).unwrap();
        let found = root.resolve(Path::new("/lib/libc.so")).unwrap();
        assert_eq!(found.real, Path::new("/usr/lib/libc.so.6"));
        let links: Vec<_> = found.links.iter().map(|l| (l.at.to_str(), l.target.to_str())).collect();
        assert_eq!(links, [(Some("/lib"), Some("usr/lib")), (Some("/usr/lib/libc.so"), Some("libc.so.6"))]);
    }

    #[test]
    fn no_name_leaves_the_root() {
        let (dir, root) = root();
        symlink("/usr/lib/libc.so.6", dir.path().join("usr/absolute")).unwrap();
        symlink("../../../../../usr/lib/libc.so.6", dir.path().join("usr/climbs")).unwrap();
        symlink("/etc", dir.path().join("etc-of-the-host")).unwrap();
        let libc = Path::new("/usr/lib/libc.so.6");
        assert_eq!(real(&root, "/usr/absolute"), libc);
        assert_eq!(real(&root, "/usr/climbs"), libc);
        assert_eq!(real(&root, "/../../usr/./lib/../lib/libc.so.6"), libc);
        let lost = root.resolve(Path::new("/etc-of-the-host/passwd"));
        assert!(matches!(lost, Err(PathError::NotFound { missing, .. }) if missing == Path::new("/etc")));
    }

    #[test]
    fn a_loop_is_an_error_and_not_an_endless_walk() {
        let (dir, root) = root();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(matches!(root.resolve(Path::new("/a")), Err(PathError::Loop { .. })));
    }

    #[test]
    fn a_file_in_the_middle_of_a_name_is_named() {
        let (_dir, root) = root();
        let e = root.resolve(Path::new("/usr/lib/libc.so.6/x")).unwrap_err();
        assert_eq!(e.to_string(), "/usr/lib/libc.so.6/x: /usr/lib/libc.so.6 is not a directory");
    }

    #[test]
    fn an_absolute_target_becomes_one_that_reads_the_same_from_outside() {
        let relative = |at: &str, target: &str| relative_target(Path::new(at), Path::new(target));
        assert_eq!(relative("/sbin", "/usr/sbin"), Path::new("usr/sbin"));
        assert_eq!(relative("/etc/dropbear", "/persist/dropbear"), Path::new("../persist/dropbear"));
        assert_eq!(relative("/a/b/c", "/"), Path::new("../.."));
        assert_eq!(relative("/a", "/"), Path::new("."));
        assert_eq!(relative("/a/b", "c"), Path::new("c"));
    }

    #[test]
    fn a_root_that_remembers_looks_once_and_one_that_does_not_looks_anew() {
        let (dir, root) = root();
        let name = Path::new("/made-later");
        let remembering = root.remembering();
        assert!(root.resolve(name).is_err() && remembering.resolve(name).is_err());
        fs::write(dir.path().join("made-later"), "").unwrap();
        assert_eq!(root.resolve(name).unwrap().real, name);
        assert!(remembering.resolve(name).is_err());
        // what it remembers is its own
        assert_eq!(root.remembering().resolve(name).unwrap().real, name);
        assert_eq!(root, remembering);
    }
}
