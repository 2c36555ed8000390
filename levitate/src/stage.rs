//! Writes the planned root into /run and arms it, all or nothing: `/run/maintenance.new` is made whole, and one rename
//! makes it enterable. A power cut at any point leaves nothing, for /run is RAM.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ramdisk::dir_sink::{DirSink, DirSinkError, Owners};
use ramdisk::path::Root;
use ramdisk::sink::{Meta, Sink};
use ramdisk::tree::Tree;

/// The staged root's name in /run.
pub const STAGED: &str = "maintenance";
/// Its name until it is whole.
pub const UNFINISHED: &str = "maintenance.new";
/// The name of the root that it replaces, until that is removed.
pub const REPLACED: &str = "maintenance.old";

/// Why nothing was staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// An entry could not be written.
    #[error("write the maintenance root")]
    Write(#[from] DirSinkError),
    /// A directory could not be made, renamed or removed.
    #[error("{what} {path}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StageError {
    let path = path.to_owned();
    move |source| StageError::Io { what, path, source }
}

/// A root that is whole and not yet enterable.
#[derive(Debug)]
#[must_use = "it is removed unless it is armed"]
pub struct Unarmed {
    run: PathBuf,
    armed: bool,
}

/// Writes `tree` to `maintenance.new` in the directory `run`; what an earlier run left there is removed first.
///
/// # Errors
///
/// The first entry that cannot be written; nothing is left then.
pub fn write(tree: &Tree, run: &Path, owners: Owners) -> Result<Unarmed, StageError> {
    write_to(tree, run, |base| DirSink::new(base, owners))
}

/// As [`write`], through a sink that can be made to fail.
pub(crate) fn write_to<S>(
    tree: &Tree,
    run: &Path,
    sink: impl FnOnce(&Path) -> S,
) -> Result<Unarmed, StageError>
where
    S: Sink<Error = DirSinkError>,
{
    for left_over in [UNFINISHED, REPLACED] {
        remove(&run.join(left_over))?;
    }
    let new = run.join(UNFINISHED);
    // for nobody else while it is being made: a mode is set after what it protects is there
    DirBuilder::new().mode(0o700).create(&new).map_err(failed("make", &new))?;
    // from here on it is removed again unless it is armed
    let unarmed = Unarmed { run: run.to_owned(), armed: false };
    let mut sink = sink(&new);
    tree.write_to(&mut sink)?;
    // last, for it must stay writable until then
    sink.directory(Path::new(""), Meta::root(0o755))?;
    Ok(unarmed)
}

impl Unarmed {
    /// The root as it lies there, to be looked at.
    #[must_use]
    pub fn root(&self) -> Root {
        Root::new(self.run.join(UNFINISHED))
    }

    /// Makes it enterable, in place of one that was staged before.
    ///
    /// # Errors
    ///
    /// The rename failed: nothing is changed, and what was staged before still is.
    pub fn arm(mut self) -> Result<(), StageError> {
        let [new, staged, replaced] = [UNFINISHED, STAGED, REPLACED].map(|name| self.run.join(name));
        let is_replaced = match fs::rename(&staged, &replaced) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(failed("move away", &staged)(e)),
        };
        if let Err(e) = fs::rename(&new, &staged) {
            if is_replaced {
                fs::rename(&replaced, &staged).map_err(failed("move back", &replaced))?;
            }
            return Err(failed("put in place", &staged)(e));
        }
        self.armed = true;
        // it is armed whether or not the old one can be removed; the next run or abort tries again
        let _ = remove(&replaced);
        Ok(())
    }
}

impl Drop for Unarmed {
    fn drop(&mut self) {
        if !self.armed {
            // a failure here leaves RAM taken and nothing enterable; the next run removes it
            let _ = remove(&self.run.join(UNFINISHED));
        }
    }
}

/// Makes a staged root not enterable, then removes it and all leftovers. Returns whether there was one.
///
/// # Errors
///
/// It could not be moved away (it is still armed then), or not removed (it is not).
pub fn disarm(run: &Path) -> Result<bool, StageError> {
    let [new, staged, replaced] = [UNFINISHED, STAGED, REPLACED].map(|name| run.join(name));
    remove(&replaced)?;
    let was_staged = match fs::rename(&staged, &replaced) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(failed("move away", &staged)(e)),
    };
    remove(&replaced)?;
    remove(&new)?;
    Ok(was_staged)
}

/// Removes a tree; one that is not there is fine. Symlinks are not followed.
fn remove(tree: &Path) -> Result<(), StageError> {
    match fs::remove_dir_all(tree) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("remove", tree)(e)),
    }
}

#[cfg(test)]
mod tests {
    use ramdisk::sink::Content;

    use super::*;

    /// Fails at the nth entry, as a file system that has run full does.
    struct Faulty {
        inner: DirSink,
        left: usize,
    }

    impl Faulty {
        fn next(&mut self, path: &Path) -> Result<(), DirSinkError> {
            let full = || io::Error::from(io::ErrorKind::StorageFull);
            let error = || DirSinkError { what: "write", path: path.to_owned(), source: full() };
            self.left = self.left.checked_sub(1).ok_or_else(error)?;
            Ok(())
        }
    }

    impl Sink for Faulty {
        type Error = DirSinkError;

        fn directory(&mut self, path: &Path, meta: Meta) -> Result<(), DirSinkError> {
            self.next(path)?;
            self.inner.directory(path, meta)
        }

        fn file(&mut self, path: &Path, meta: Meta, content: &Content) -> Result<(), DirSinkError> {
            self.next(path)?;
            self.inner.file(path, meta, content)
        }

        fn symlink(&mut self, path: &Path, target: &Path) -> Result<(), DirSinkError> {
            self.next(path)?;
            self.inner.symlink(path, target)
        }

        fn hard_link(&mut self, path: &Path, existing: &Path) -> Result<(), DirSinkError> {
            self.next(path)?;
            self.inner.hard_link(path, existing)
        }
    }

    fn tree(text: &str) -> Tree {
        let mut tree = Tree::new();
        let bytes = Content::Bytes(text.into());
        tree.file(Path::new("sbin/levitate"), Meta::root(0o755), bytes).unwrap();
        tree.symlink(Path::new("exec"), Path::new("sbin/levitate")).unwrap();
        tree
    }

    fn names(run: &Path) -> Vec<String> {
        let entries = fs::read_dir(run).unwrap();
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_root_that_is_being_made_is_for_nobody_else() {
        use std::os::unix::fs::PermissionsExt;
        let run = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let mut seen = 0;
        let unarmed = write_to(&Tree::new(), run.path(), |base| {
            seen = mode(base);
            DirSink::new(base, Owners::Mine)
        });
        unarmed.unwrap().arm().unwrap();
        assert_eq!((seen, mode(&run.path().join(STAGED))), (0o700, 0o755));
    }

    #[test]
    fn nothing_is_enterable_until_it_is_armed_and_a_second_run_replaces_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let unarmed = write(&tree("one"), dir.path(), Owners::Mine).unwrap();
        assert_eq!(names(dir.path()), [UNFINISHED]);
        unarmed.arm().unwrap();
        assert_eq!(names(dir.path()), [STAGED]);
        let entry = dir.path().join(STAGED).join("exec");
        assert_eq!(fs::read_to_string(&entry).unwrap(), "one");
        write(&tree("two"), dir.path(), Owners::Mine).unwrap().arm().unwrap();
        assert_eq!(names(dir.path()), [STAGED]);
        assert_eq!(fs::read_to_string(&entry).unwrap(), "two");
    }

    #[test]
    fn a_failure_at_any_entry_leaves_nothing_or_what_was_staged_before() {
        let dir = tempfile::tempdir().unwrap();
        let (run, steps) = (dir.path(), 4);
        let attempt = |left| {
            let faulty = |base: &Path| Faulty { inner: DirSink::new(base, Owners::Mine), left };
            write_to(&tree("new"), run, faulty)
        };
        for left in 0..steps {
            assert!(attempt(left).is_err(), "{left}");
            assert_eq!(names(run), Vec::<String>::new(), "{left}");
        }
        write(&tree("old"), run, Owners::Mine).unwrap().arm().unwrap();
        for left in 0..steps {
            assert!(attempt(left).is_err(), "{left}");
            assert_eq!(names(run), [STAGED], "{left}");
            assert_eq!(fs::read_to_string(run.join(STAGED).join("exec")).unwrap(), "old", "{left}");
        }
        assert!(attempt(steps).is_ok(), "the count of steps above is right");
    }

    #[test]
    fn a_rename_that_fails_leaves_the_root_that_was_staged_before() {
        let dir = tempfile::tempdir().unwrap();
        write(&tree("old"), dir.path(), Owners::Mine).unwrap().arm().unwrap();
        let unarmed = write(&tree("new"), dir.path(), Owners::Mine).unwrap();
        fs::remove_dir_all(dir.path().join(UNFINISHED)).unwrap();
        assert!(unarmed.arm().is_err());
        assert_eq!(fs::read_to_string(dir.path().join(STAGED).join("exec")).unwrap(), "old");
    }

    #[test]
    fn what_an_earlier_run_left_half_done_is_removed_first() {
        let dir = tempfile::tempdir().unwrap();
        for left in [UNFINISHED, REPLACED] {
            fs::create_dir_all(dir.path().join(left).join("sbin")).unwrap();
            fs::write(dir.path().join(left).join("sbin/levitate"), "half").unwrap();
        }
        write(&tree("whole"), dir.path(), Owners::Mine).unwrap().arm().unwrap();
        assert_eq!(names(dir.path()), [STAGED]);
    }

    #[test]
    fn disarming_leaves_nothing_and_may_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        write(&tree("one"), dir.path(), Owners::Mine).unwrap().arm().unwrap();
        assert!(disarm(dir.path()).unwrap());
        assert_eq!(names(dir.path()), Vec::<String>::new());
        assert!(!disarm(dir.path()).unwrap());
    }
}
