//! Everything that programs need to run in another root: their interpreters and libraries, and the libraries of those.

pub mod elf;
#[cfg(test)]
pub(crate) mod fixture;
mod named;
mod search;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::path::{Link, PathError, Resolved, Root};
use elf::{Elf, ElfError, Kind, Program};
pub use named::Missing;
use search::{Linker, Place, Search};

/// How deep scripts may be interpreted by scripts, as in the kernel (`fs/exec.c`).
const MAX_SCRIPTS: usize = 5;

/// The files and symlinks that a set of programs needs, the programs themselves among them. All names are inside the
/// root that was searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// Regular files, by their real names.
    pub files: BTreeSet<PathBuf>,
    /// Every symlink on the way to them.
    pub links: BTreeSet<Link>,
}

/// Why a program cannot be carried over.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// It does not exist.
    #[error("{program}: no such program{}", ByWhom(.needed_by))]
    NoProgram {
        /// As it was named.
        program: PathBuf,
        /// The script that names it as its interpreter.
        needed_by: Option<PathBuf>,
    },
    /// A name without a slash that none of the directories has.
    #[error("{name}: no such program in {}{}", Places(.searched), ByWhom(.needed_by))]
    NotInPath {
        /// As it was named.
        name: String,
        /// The directories.
        searched: Vec<PathBuf>,
        /// The script that names it.
        needed_by: Option<PathBuf>,
    },
    /// The file is there, and cannot be executed.
    #[error("{program}: expected a program, found {found}")]
    NotAProgram {
        /// The file.
        program: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A program's dynamic linker is missing.
    #[error("{program}: its dynamic linker {interpreter} does not exist")]
    NoInterpreter {
        /// The program.
        program: PathBuf,
        /// As the program names it.
        interpreter: PathBuf,
    },
    /// A library is missing.
    #[error("{program}: library {library}, needed by {needed_by}, not found in {}", Places(.searched))]
    NoLibrary {
        /// The program that could not run.
        program: PathBuf,
        /// The library's name, as the file that needs it says it.
        library: String,
        /// The file that needs it: the program, or another library.
        needed_by: PathBuf,
        /// The directories searched, in the linker's order.
        searched: Vec<PathBuf>,
    },
    /// A library that programs open by name is nowhere, or none that one of them could load.
    #[error("library {library}: not found in {}", Places(.searched))]
    NoNamedLibrary {
        /// As it was named.
        library: String,
        /// The directories searched, in the linker's order.
        searched: Vec<PathBuf>,
    },
    /// Scripts that interpret each other.
    #[error("{program}: more than {MAX_SCRIPTS} scripts interpret each other")]
    Scripts {
        /// The first of them.
        program: PathBuf,
    },
    /// A file cannot be read, or is damaged.
    #[error("{file}")]
    Elf {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: ElfError,
    },
    /// A name leads nowhere.
    #[error(transparent)]
    Path(#[from] PathError),
}

struct Places<'a>(&'a [PathBuf]);

impl fmt::Display for Places<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any directory");
        }
        let names: Vec<_> = self.0.iter().map(|p| p.display().to_string()).collect();
        f.write_str(&names.join(", "))
    }
}

struct ByWhom<'a>(&'a Option<PathBuf>);

impl fmt::Display for ByWhom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |script| write!(f, " (needed by {})", script.display()))
    }
}

/// Finds `name`: as it is if it has a slash, else in the directories of `path`.
///
/// # Errors
///
/// No such file; it is not looked at any closer.
pub fn find_program(root: &Root, name: &str, path: &[PathBuf]) -> Result<PathBuf, ClosureError> {
    if name.contains('/') {
        return match root.resolve(Path::new(name)) {
            Ok(_) => Ok(name.into()),
            Err(PathError::NotFound { .. }) => {
                Err(ClosureError::NoProgram { program: name.into(), needed_by: None })
            }
            Err(e) => Err(e.into()),
        };
    }
    let candidates = path.iter().map(|dir| dir.join(name));
    let mut found = candidates.filter(|c| {
        let real = root.resolve(c).map(|r| root.host(&r.real));
        real.is_ok_and(|host| {
            fs::metadata(host).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
    });
    found.next().ok_or_else(|| ClosureError::NotInPath {
        name: name.to_owned(),
        searched: path.to_vec(),
        needed_by: None,
    })
}

impl Closure {
    /// Finds all that `programs` need. `path` are the directories for scripts that say `#!/usr/bin/env NAME`.
    ///
    /// # Errors
    ///
    /// The first program that could not run, and why.
    pub fn resolve(root: &Root, programs: &[PathBuf], path: &[PathBuf]) -> Result<Self, ClosureError> {
        Closures::of(root, path)?.resolve(programs)
    }
}

/// A library: the name by which the linker found it, and what it asks for.
struct Found {
    path: PathBuf,
    elf: Elf,
}

/// Closures of one root, one after the other: what was read for one need not be read for the next. The root must not
/// change meanwhile.
pub struct Closures<'a> {
    root: &'a Root,
    path: &'a [PathBuf],
    search: Search,
    parsed: BTreeMap<PathBuf, Program>,
    /// The one that is being found.
    closure: Closure,
}

/// A file of the process: where it was found, what it asks for, and the RPATHs of those that asked for it.
struct Object {
    path: PathBuf,
    elf: Elf,
    inherited: Vec<PathBuf>,
}

impl<'a> Closures<'a> {
    /// Of `root`. `path` are the directories for scripts that say `#!/usr/bin/env NAME`.
    ///
    /// # Errors
    ///
    /// The dynamic linker's configuration cannot be read.
    pub fn of(root: &'a Root, path: &'a [PathBuf]) -> Result<Self, ClosureError> {
        let search = Search::new(root)?;
        Ok(Self { root, path, search, parsed: BTreeMap::new(), closure: Closure::default() })
    }

    /// As [`Closure::resolve`].
    ///
    /// # Errors
    ///
    /// The first program that could not run, and why.
    pub fn resolve(&mut self, programs: &[PathBuf]) -> Result<Closure, ClosureError> {
        self.closure = Closure::default();
        for program in programs {
            self.program(program, None, 0)?;
        }
        Ok(std::mem::take(&mut self.closure))
    }

    fn program(
        &mut self,
        program: &Path,
        needed_by: Option<&Path>,
        scripts: usize,
    ) -> Result<(), ClosureError> {
        if scripts > MAX_SCRIPTS {
            return Err(ClosureError::Scripts { program: program.to_owned() });
        }
        let missing = || ClosureError::NoProgram {
            program: program.to_owned(),
            needed_by: needed_by.map(Path::to_owned),
        };
        let found = self.find(program)?.ok_or_else(missing)?;
        let host = self.root.host(&found.real);
        let meta = fs::metadata(&host).map_err(|source| PathError::Io { path: host.clone(), source })?;
        let not = |found| ClosureError::NotAProgram { program: program.to_owned(), found };
        if !meta.is_file() {
            return Err(not(if meta.is_dir() { "a directory" } else { "a special file" }));
        }
        if meta.permissions().mode() & 0o111 == 0 {
            return Err(not("a file that is not executable"));
        }
        let parsed = self.parse(&found.real)?;
        let real = found.real.clone();
        self.take(found);
        match parsed {
            Program::Elf(elf) => self.elf(program, &real, elf),
            Program::Other => Err(not("neither ELF nor a script with #!")),
            Program::Script(words) => {
                let Some(interpreter) = words.first() else { return Err(not("a script with an empty #!")) };
                self.program(Path::new(interpreter), Some(program), scripts + 1)?;
                match by_env(&words) {
                    None => Ok(()),
                    Some(name) => {
                        let found = find_program(self.root, name, self.path).map_err(|e| match e {
                            ClosureError::NotInPath { name, searched, .. } => {
                                ClosureError::NotInPath { name, searched, needed_by: Some(program.into()) }
                            }
                            other => other,
                        })?;
                        self.program(&found, Some(program), scripts + 1)
                    }
                }
            }
        }
    }

    fn elf(&mut self, program: &Path, real: &Path, elf: Elf) -> Result<(), ClosureError> {
        let mut loaded = BTreeSet::new();
        let linker = match &elf.interpreter {
            None => search::linker(self.root, None)?,
            Some(asked) => {
                let asked = Path::new(asked);
                let found = self.find(asked)?.ok_or_else(|| ClosureError::NoInterpreter {
                    program: program.to_owned(),
                    interpreter: asked.to_owned(),
                })?;
                loaded.extend(asked.file_name().map(|n| n.to_string_lossy().into_owned()));
                let linker = search::linker(self.root, Some((asked, &found.real)))?;
                self.take(found);
                linker
            }
        };
        if let Linker::Musl { path_file: Some(file), .. } = &linker {
            self.optional(file)?;
        }
        self.needed(program, Object { path: real.to_owned(), elf, inherited: Vec::new() }, &linker, loaded)
    }

    /// What `first` needs, and what that needs, as the linker would load it for `program`.
    fn needed(
        &mut self,
        program: &Path,
        first: Object,
        linker: &Linker,
        mut loaded: BTreeSet<String>,
    ) -> Result<(), ClosureError> {
        let kind = first.elf.kind;
        let musl = matches!(linker, Linker::Musl { .. });
        let mut queue = VecDeque::from([first]);
        while let Some(object) = queue.pop_front() {
            let provided =
                |library: &String| loaded.contains(library) || (musl && search::provided_by_musl(library));
            let wanted: Vec<String> = object.elf.needed.iter().filter(|l| !provided(l)).cloned().collect();
            if wanted.is_empty() {
                continue;
            }
            let places = self.search.places(self.root, linker, &object.path, &object.elf, &object.inherited);
            for library in wanted {
                if !loaded.insert(library.clone()) {
                    continue;
                }
                let Some(Found { path, elf }) = self.library(&library, &places, kind)? else {
                    return Err(ClosureError::NoLibrary {
                        program: program.to_owned(),
                        library,
                        needed_by: object.path.clone(),
                        searched: places.into_iter().map(|p| p.directory).collect(),
                    });
                };
                let expand = |paths| self.search.expand(paths, &object.path, kind);
                let mut inherited = expand(&object.elf.rpath);
                if musl {
                    inherited.extend(expand(&object.elf.runpath));
                }
                inherited.extend(object.inherited.iter().cloned());
                queue.push_back(Object { path, elf, inherited });
            }
        }
        Ok(())
    }

    /// Takes the first library of that name that a process of `kind` can load; the others are passed over, as the linker
    /// does. Where the linker finds it by its cache, it may take one of the variants for better processors instead.
    fn library(&mut self, name: &str, places: &[Place], kind: Kind) -> Result<Option<Found>, ClosureError> {
        let mut candidates: Vec<(PathBuf, bool)> = Vec::new();
        if name.contains('/') {
            candidates.push((PathBuf::from(name), false));
        } else {
            candidates.extend(places.iter().map(|p| (p.directory.join(name), p.from_conf)));
            for place in places {
                let variants = search::variants(self.root, &place.directory, name)?;
                candidates.extend(variants.into_iter().map(|path| (path, place.from_conf)));
            }
        }
        for (candidate, from_conf) in candidates {
            let Some((resolved, elf)) = self.loadable(&candidate, kind)? else { continue };
            self.take(resolved);
            if from_conf {
                self.optional(Path::new("/etc/ld.so.cache"))?;
                let directory = candidate.parent().unwrap_or(Path::new("/"));
                for variant in search::variants(self.root, directory, name)? {
                    if let Some((resolved, _)) = self.loadable(&variant, kind)? {
                        self.take(resolved);
                    }
                }
            }
            return Ok(Some(Found { path: candidate, elf }));
        }
        Ok(None)
    }

    fn loadable(&mut self, path: &Path, kind: Kind) -> Result<Option<(Resolved, Elf)>, ClosureError> {
        let Some(resolved) = self.find(path)? else { return Ok(None) };
        if !self.root.host(&resolved.real).is_file() {
            return Ok(None);
        }
        match self.parse(&resolved.real)? {
            Program::Elf(elf) if elf.kind == kind => Ok(Some((resolved, elf))),
            _ => Ok(None),
        }
    }

    fn find(&self, path: &Path) -> Result<Option<Resolved>, PathError> {
        match self.root.resolve(path) {
            Ok(found) => Ok(Some(found)),
            Err(PathError::NotFound { .. } | PathError::NotADirectory { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn optional(&mut self, path: &Path) -> Result<(), PathError> {
        if let Some(found) = self.find(path)? {
            self.take(found);
        }
        Ok(())
    }

    fn take(&mut self, found: Resolved) {
        self.closure.files.insert(found.real);
        self.closure.links.extend(found.links);
    }

    fn parse(&mut self, real: &Path) -> Result<Program, ClosureError> {
        if let Some(known) = self.parsed.get(real) {
            return Ok(known.clone());
        }
        let host = self.root.host(real);
        let parsed =
            elf::read(&host).map_err(|source| ClosureError::Elf { file: real.to_owned(), source })?;
        self.parsed.insert(real.to_owned(), parsed.clone());
        Ok(parsed)
    }
}

/// The program that `#!/usr/bin/env [-S] [NAME=VALUE] PROGRAM` runs.
fn by_env(words: &[String]) -> Option<&str> {
    let (interpreter, rest) = words.split_first()?;
    if Path::new(interpreter).file_name()? != "env" {
        return None;
    }
    rest.iter().map(String::as_str).find(|w| !w.starts_with('-') && !w.contains('='))
}
