//! The root to come, as a plan: what lies where, with which mode and owner. It can be measured before anything is
//! written, and is written to any [`Sink`] in an order that depends on nothing but its content.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::copy;
use crate::original::Original;
use crate::path::{Link, PathError, Resolved, Root, relative_target};
use crate::sink::{Content, Meta, Part, Sink};

/// As many symlinks as the kernel follows in one name.
const MAX_LINKS: usize = 40;

/// An entry of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory(Meta),
    /// A regular file.
    File(Meta, Content),
    /// A symlink with its target.
    Symlink(PathBuf),
}

/// The root to come. Names may be given with or without a leading `/`; a symlink that is already in the tree is
/// followed, inside the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Node>,
    /// Directories that nobody put: they came with what is in them, and their modes are guesses.
    implied: BTreeSet<PathBuf>,
    copies: Copies,
}

/// To whom copies belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Copies {
    /// To whom the file that was copied belongs.
    #[default]
    AsFound,
    /// To root: an unpacked root on a build machine belongs to whoever unpacked it.
    Roots,
}

/// What is one file under several names: links, that is, of the same mode and owner.
type Identity = (FileId, Meta);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum FileId {
    /// Device and inode number.
    Host(u64, u64),
    /// Which archive, and where in it.
    Part(usize, u64),
}

/// What a tree takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Regular files; several hard links are one file.
    pub files: u64,
    /// Bytes in those files.
    pub bytes: u64,
    /// Bytes in whole pages of the size asked for: what a file system in RAM takes for them.
    pub page_bytes: u64,
    /// Files, directories and symlinks: the inodes that it takes.
    pub inodes: u64,
}

/// Why something has no place in the tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Something of another kind is there already.
    #[error("put {want} at {path}: {have} is there already")]
    Conflict {
        /// The name inside the tree.
        path: PathBuf,
        /// What was to be put there.
        want: &'static str,
        /// What is there.
        have: &'static str,
    },
    /// The tree's own symlinks form a loop.
    #[error("place {0} in the tree: more than {MAX_LINKS} symbolic links")]
    Loop(PathBuf),
    /// The name to copy leads nowhere.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The file to copy cannot be looked at.
    #[error("look at {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Node {
    fn kind(&self) -> &'static str {
        match self {
            Self::Directory(_) => "a directory",
            Self::File(..) => "a file",
            Self::Symlink(_) => "a symlink",
        }
    }
}

impl Tree {
    /// An empty tree: a root directory and nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty tree in which everything that is copied belongs to root.
    pub fn of_root() -> Self {
        Self { copies: Copies::Roots, ..Self::default() }
    }

    /// The entries by their names, without a leading `/`; a directory is before what it holds.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.entries.iter().map(|(path, node)| (path.as_path(), node))
    }

    /// The node a name leads to, with symlinks followed; `None` if nothing is there.
    pub fn get(&self, path: &Path) -> Option<&Node> {
        self.entries.get(&self.place(path, true).ok()?)
    }

    /// Puts a directory, or changes the mode and owner of the one that is there.
    ///
    /// # Errors
    ///
    /// A file is there.
    pub fn directory(&mut self, path: &Path, meta: Meta) -> Result<(), TreeError> {
        let at = self.place(path, true)?;
        self.parents(&at)?;
        self.implied.remove(&at);
        match self.entries.get_mut(&at) {
            Some(Node::Directory(old)) => *old = meta,
            Some(other) => return Err(conflict(&at, "a directory", other)),
            None => drop(self.entries.insert(at, Node::Directory(meta))),
        }
        Ok(())
    }

    /// Puts a file; one that is there, or a symlink of that name, is replaced.
    ///
    /// # Errors
    ///
    /// A directory is there.
    pub fn file(&mut self, path: &Path, meta: Meta, content: Content) -> Result<(), TreeError> {
        self.leaf(path, Node::File(meta, content))
    }

    /// Puts a symlink; a file or symlink that is there is replaced.
    ///
    /// # Errors
    ///
    /// A directory is there.
    pub fn symlink(&mut self, path: &Path, target: &Path) -> Result<(), TreeError> {
        self.leaf(path, Node::Symlink(target.to_owned()))
    }

    /// Takes a file or symlink out of the tree, if it is there; a directory stays.
    pub fn remove(&mut self, path: &Path) {
        if let Ok(at) = self.place(path, false)
            && !matches!(self.entries.get(&at), Some(Node::Directory(_)))
        {
            self.entries.remove(&at);
        }
    }

    /// Puts the symlinks passed in another root, so that its names lead to the same files here. Targets are made
    /// relative: the staged root reads the same from outside of it.
    ///
    /// # Errors
    ///
    /// A directory is where a link should be.
    pub fn links<'a>(&mut self, links: impl IntoIterator<Item = &'a Link>) -> Result<(), TreeError> {
        links
            .into_iter()
            .try_for_each(|l| self.symlink(&l.at, &within(&l.at, &relative_target(&l.at, &l.target))))
    }

    /// Puts a copy of what `path` is in `root`: a file, or a directory with all that is in it (symlinks in it stay
    /// symlinks; sockets, pipes and devices are left out), and the symlinks on the way. Returns its real name.
    ///
    /// # Errors
    ///
    /// It does not exist, or is in the way of something else.
    pub fn copy(&mut self, root: &Root, path: &Path) -> Result<PathBuf, TreeError> {
        let Resolved { real, links } = root.resolve(path)?;
        self.copy_real(root, &real)?;
        self.links(&links)?;
        Ok(real)
    }

    /// As [`Tree::copy`], for a name that holds no symlinks.
    ///
    /// # Errors
    ///
    /// As [`Tree::copy`].
    pub fn copy_real(&mut self, root: &Root, real: &Path) -> Result<(), TreeError> {
        let host = root.host(real);
        let failed = |source| TreeError::Io { path: host.clone(), source };
        let stat = fs::symlink_metadata(&host).map_err(failed)?;
        let meta = self.meta(&stat);
        if stat.is_symlink() {
            let target = fs::read_link(&host).map_err(failed)?;
            return self.symlink(real, &within(real, &relative_target(real, &target)));
        }
        if stat.is_file() {
            return self.file(real, meta, Content::CopyOf(Original::of(&host, &stat).map_err(failed)?));
        }
        if !stat.is_dir() {
            return Ok(());
        }
        self.directory(real, meta)?;
        for entry in fs::read_dir(&host).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            self.copy_real(root, &real.join(name))?;
        }
        Ok(())
    }

    /// Gives directories that nobody put, but that `root` has, the mode and owner that they have there: what lies in a
    /// directory that is not for everybody stays that way. To be called when everything is in the tree.
    ///
    /// # Errors
    ///
    /// One of them cannot be looked at.
    pub fn adopt_parents(&mut self, root: &Root) -> Result<(), TreeError> {
        for at in std::mem::take(&mut self.implied) {
            let host = root.host(&at);
            let stat = match fs::symlink_metadata(&host) {
                Ok(stat) if stat.is_dir() => stat,
                Ok(_) => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(TreeError::Io { path: host, source }),
            };
            let meta = self.meta(&stat);
            self.entries.insert(at, Node::Directory(meta));
        }
        Ok(())
    }

    fn meta(&self, stat: &fs::Metadata) -> Meta {
        let mode = stat.mode() & 0o7777;
        match self.copies {
            Copies::AsFound => Meta { mode, uid: stat.uid(), gid: stat.gid() },
            Copies::Roots => Meta::root(mode),
        }
    }

    /// What the tree takes up in pages of `page` bytes.
    ///
    /// # Errors
    ///
    /// A file to copy cannot be looked at.
    pub fn size(&self, page: u64) -> Result<Size, TreeError> {
        let mut size = Size { inodes: 1, ..Size::default() };
        let mut seen = HashSet::new();
        for node in self.entries.values() {
            let Node::File(meta, content) = node else {
                size.inodes += 1;
                continue;
            };
            let (bytes, taken) = match content {
                Content::Bytes(bytes) => (bytes.len() as u64, bytes.len() as u64),
                Content::CopyOf(host) => {
                    if !seen.insert((FileId::of_original(host), *meta)) {
                        continue;
                    }
                    let stat = stat(host)?;
                    (stat.len(), copy::data(host.path(), &stat).unwrap_or(stat.len()))
                }
                Content::Part(part) => {
                    if !seen.insert((FileId::of_part(part), *meta)) {
                        continue;
                    }
                    (part.length, part.length)
                }
            };
            size.inodes += 1;
            size.files += 1;
            size.bytes += bytes;
            size.page_bytes += taken.next_multiple_of(page.max(1));
        }
        Ok(size)
    }

    /// Writes the tree. Names of one file to copy become hard links again.
    ///
    /// # Errors
    ///
    /// The first entry that the sink refuses; what was written before it stays.
    pub fn write_to<S: Sink>(&self, sink: &mut S) -> Result<(), S::Error> {
        let mut first: HashMap<Identity, &Path> = HashMap::new();
        for (path, node) in &self.entries {
            match node {
                Node::Directory(meta) => sink.directory(path, *meta)?,
                Node::Symlink(target) => sink.symlink(path, target)?,
                Node::File(meta, content) => {
                    let id = match content {
                        Content::CopyOf(host) => Some(FileId::of_original(host)),
                        Content::Part(part) => Some(FileId::of_part(part)),
                        Content::Bytes(_) => None,
                    };
                    // a link has the mode and owner of what it links to
                    let identity = id.map(|id| (id, *meta));
                    match identity.and_then(|id| first.get(&id)) {
                        Some(existing) => sink.hard_link(path, existing)?,
                        None => {
                            sink.file(path, *meta, content)?;
                            first.extend(identity.map(|id| (id, path.as_path())));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What the file holds that a name leads to; `None` if it leads to no file.
    ///
    /// # Errors
    ///
    /// It has more than `most` bytes, or cannot be read.
    pub fn read(&self, path: &Path, most: u64) -> Result<Option<Vec<u8>>, TreeError> {
        let failed = |source| TreeError::Io { path: path.to_owned(), source };
        let too_large =
            || failed(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {most} bytes")));
        match self.get(path) {
            Some(Node::File(_, Content::Bytes(bytes))) => Ok(Some(bytes.clone())),
            Some(Node::File(_, Content::CopyOf(host))) => {
                if stat(host)?.len() > most {
                    return Err(too_large());
                }
                let mut bytes = Vec::new();
                let read = host.open().and_then(|file| file.take(most).read_to_end(&mut bytes));
                read.map(|_| Some(bytes)).map_err(failed)
            }
            Some(Node::File(_, Content::Part(part))) => {
                let length = usize::try_from(part.length).ok().filter(|_| part.length <= most);
                let mut bytes = vec![0; length.ok_or_else(too_large)?];
                part.file.read_exact_at(&mut bytes, part.offset).map_err(failed)?;
                Ok(Some(bytes))
            }
            Some(Node::Directory(_) | Node::Symlink(_)) | None => Ok(None),
        }
    }

    fn leaf(&mut self, path: &Path, node: Node) -> Result<(), TreeError> {
        let at = self.place(path, false)?;
        self.parents(&at)?;
        if let Some(there @ Node::Directory(_)) = self.entries.get(&at) {
            return Err(conflict(&at, node.kind(), there));
        }
        self.entries.insert(at, node);
        Ok(())
    }

    fn parents(&mut self, at: &Path) -> Result<(), TreeError> {
        // a directory that is there has its own there, too
        if at.parent().is_some_and(|p| matches!(self.entries.get(p), Some(Node::Directory(_)))) {
            return Ok(());
        }
        for parent in at.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
            let implied = &mut self.implied;
            let there = self.entries.entry(parent.to_owned()).or_insert_with(|| {
                implied.insert(parent.to_owned());
                Node::Directory(Meta::root(0o755))
            });
            if !matches!(there, Node::Directory(_)) {
                return Err(conflict(parent, "a directory", there));
            }
        }
        Ok(())
    }

    /// The name without symlinks, `.` and `..`; the last component is followed only if `last` says so.
    fn place(&self, path: &Path, last: bool) -> Result<PathBuf, TreeError> {
        let mut todo: Vec<Component<'_>> = path.components().rev().collect();
        let mut real = PathBuf::new();
        let mut passed = 0;
        while let Some(part) = todo.pop() {
            match part {
                Component::Prefix(_) | Component::CurDir => {}
                Component::RootDir => real = PathBuf::new(),
                Component::ParentDir => drop(real.pop()),
                Component::Normal(name) => {
                    let at = real.join(name);
                    match self.entries.get(&at) {
                        Some(Node::Symlink(target)) if last || !todo.is_empty() => {
                            passed += 1;
                            if passed > MAX_LINKS {
                                return Err(TreeError::Loop(path.to_owned()));
                            }
                            todo.extend(target.components().rev());
                        }
                        _ => real = at,
                    }
                }
            }
        }
        Ok(real)
    }
}

impl FileId {
    fn of_original(original: &Original) -> Self {
        let (device, inode) = original.identity();
        Self::Host(device, inode)
    }

    fn of_part(part: &Part) -> Self {
        Self::Part(Arc::<File>::as_ptr(&part.file).addr(), part.offset)
    }
}

/// A relative target for a link at `at` that climbs no higher than its root: `/..` is `/`, but outside of the root it is
/// not.
fn within(at: &Path, target: &Path) -> PathBuf {
    let depth = at.components().filter(|c| matches!(c, Component::Normal(_))).count().saturating_sub(1);
    let climbs = target.components().take_while(|c| *c == Component::ParentDir).count();
    let skipped: PathBuf = target.components().skip(climbs.saturating_sub(depth)).collect();
    if skipped.as_os_str().is_empty() { PathBuf::from(".") } else { skipped }
}

fn stat(host: &Original) -> Result<fs::Metadata, TreeError> {
    host.metadata().map_err(|source| TreeError::Io { path: host.path().to_owned(), source })
}

fn conflict(path: &Path, want: &'static str, have: &Node) -> TreeError {
    TreeError::Conflict { path: path.to_owned(), want, have: have.kind() }
}

#[cfg(test)]
mod tests;
