//! Where the dynamic linker looks for a library: ld.so(8) for glibc, the path file for musl. The linker itself is
//! never run, so this works for another processor's root just as for the running one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::elf::{self, Elf, Kind};
use crate::path::{PathError, Root};
use crate::wildcard;

/// Which C library's rules hold; told by the interpreter's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Linker {
    /// glibc, and all that behave alike. With the directory its interpreter really lies in.
    Glibc {
        /// Where the interpreter's file lies; Debian keeps the libraries beside it.
        beside: Option<PathBuf>,
    },
    /// musl: one list of directories for all.
    Musl {
        /// From the path file, or the built-in ones.
        directories: Vec<PathBuf>,
        /// The path file, if it exists: the linker wants it at run time too.
        path_file: Option<PathBuf>,
    },
}

/// A directory to look into, and what makes the linker look there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    /// Whether `/etc/ld.so.cache` is needed to find it at run time.
    pub(crate) from_conf: bool,
}

/// What is the same for all programs of one root.
#[derive(Debug)]
pub(crate) struct Search {
    conf: Vec<PathBuf>,
    multiarch: Vec<PathBuf>,
}

impl Search {
    /// Reads `/etc/ld.so.conf` with its includes, and lists the multiarch directories.
    pub(crate) fn new(root: &Root) -> Result<Self, PathError> {
        let mut conf = Vec::new();
        read_conf(root, Path::new("/etc/ld.so.conf"), &mut BTreeSet::new(), &mut conf)?;
        let mut multiarch = Vec::new();
        for parent in ["/lib", "/usr/lib"] {
            let names = list(root, Path::new(parent))?;
            multiarch
                .extend(names.iter().filter(|n| n.contains("-linux-")).map(|n| Path::new(parent).join(n)));
        }
        Ok(Self { conf, multiarch })
    }

    /// The existing directories, in the linker's order, for a library that `elf`, found at `path`, needs.
    /// `inherited` are the RPATHs of those that needed `elf` (none count if it has a RUNPATH).
    pub(crate) fn places(
        &self,
        root: &Root,
        linker: &Linker,
        path: &Path,
        elf: &Elf,
        inherited: &[PathBuf],
    ) -> Vec<Place> {
        let mut all: Vec<(PathBuf, bool)> = Vec::new();
        let mut add = |paths: Vec<PathBuf>, conf| all.extend(paths.into_iter().map(|p| (p, conf)));
        let runpath = self.expand(&elf.runpath, path, elf.kind);
        match linker {
            Linker::Glibc { beside } => {
                if runpath.is_empty() {
                    add(self.expand(&elf.rpath, path, elf.kind), false);
                    add(inherited.to_vec(), false);
                }
                add(runpath, false);
                add(self.conf.clone(), true);
                add(beside.iter().cloned().collect(), false);
                add(self.multiarch.clone(), false);
                let wide = ["/lib64", "/usr/lib64", "/lib32", "/usr/lib32"].map(PathBuf::from);
                add(["/lib", "/usr/lib"].map(PathBuf::from).to_vec(), false);
                add(wide.to_vec(), false);
            }
            Linker::Musl { directories, .. } => {
                // musl makes no difference between the two, and both are inherited
                add(runpath, false);
                add(self.expand(&elf.rpath, path, elf.kind), false);
                add(inherited.to_vec(), false);
                add(directories.clone(), false);
            }
        }
        let mut places: Vec<Place> = Vec::new();
        for (directory, from_conf) in all {
            let is_new = places.iter().all(|p| p.directory != directory);
            if is_new && root.resolve(&directory).is_ok() {
                places.push(Place { directory, from_conf });
            }
        }
        places
    }

    /// The directories of an RPATH or RUNPATH. `$ORIGIN` is the directory of the file that says it; `$LIB` and
    /// `$PLATFORM` are whatever they can be: which one the dynamic linker takes is known on the device alone.
    pub(crate) fn expand(&self, paths: &[String], of: &Path, kind: Kind) -> Vec<PathBuf> {
        let origin = of.parent().unwrap_or(Path::new("/")).to_string_lossy();
        // Debian's $LIB is lib/TRIPLET
        let triplets = self.multiarch.iter().filter_map(|dir| dir.file_name()?.to_str());
        let mut libs: Vec<String> = triplets.map(|triplet| format!("lib/{triplet}")).collect();
        libs.extend(["lib", "lib64", "lib32"].map(str::to_owned));
        libs.dedup();
        let platforms: Vec<String> = platforms(kind).iter().map(|p| (*p).to_owned()).collect();
        let mut expanded = Vec::new();
        for path in paths {
            let path = replaced(vec![path.clone()], "ORIGIN", &[origin.to_string()]);
            let path = replaced(replaced(path, "LIB", &libs), "PLATFORM", &platforms);
            expanded.extend(
                path.into_iter().filter(|p| p.starts_with('/') && !p.contains('$')).map(PathBuf::from),
            );
        }
        expanded
    }
}

/// Which linker's rules hold for a program with this interpreter, whose real name is `real`.
pub(crate) fn linker(root: &Root, interpreter: Option<(&Path, &Path)>) -> Result<Linker, PathError> {
    let Some((asked, real)) = interpreter else { return Ok(Linker::Glibc { beside: None }) };
    let name = asked.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = real.parent().map(Path::to_owned);
    let Some(arch) = name.strip_prefix("ld-musl-").and_then(|n| n.split('.').next()) else {
        return Ok(Linker::Glibc { beside });
    };
    // musl's rule: PREFIX/lib/ld-musl-ARCH.so.1 reads PREFIX/etc/ld-musl-ARCH.path
    let prefix = asked.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let path_file = prefix.join("etc").join(format!("ld-musl-{arch}.path"));
    let text = root.read_text(&path_file)?;
    let listed = text.as_deref().unwrap_or("/lib:/usr/local/lib:/usr/lib");
    let mut directories: Vec<PathBuf> =
        listed.split([':', '\n']).map(str::trim).filter(|d| !d.is_empty()).map(PathBuf::from).collect();
    directories.extend(beside);
    Ok(Linker::Musl { directories, path_file: text.map(|_| path_file) })
}

/// musl's linker provides these itself, under whatever name a program asks.
pub(crate) fn provided_by_musl(library: &str) -> bool {
    let reserved = ["c", "pthread", "rt", "m", "dl", "util", "xnet"];
    let stem = library.strip_prefix("lib").and_then(|rest| rest.split('.').next());
    stem.is_some_and(|s| reserved.contains(&s))
}

/// Each of `paths` with each of `values` for the token, written `$NAME` or `${NAME}`.
fn replaced(paths: Vec<String>, token: &str, values: &[String]) -> Vec<String> {
    let (short, long) = (format!("${token}"), format!("${{{token}}}"));
    let mut all = Vec::new();
    for path in paths {
        if !path.contains(&short) && !path.contains(&long) {
            all.push(path);
            continue;
        }
        all.extend(values.iter().map(|value| path.replace(&long, value).replace(&short, value)));
    }
    all
}

/// What the kernel may say in AT_PLATFORM, by `e_machine`.
fn platforms(kind: Kind) -> &'static [&'static str] {
    match kind.machine {
        elf::EM_AARCH64 => &["aarch64"],
        elf::EM_ARM => &["v7l", "v6l", "v5l", "v8l", "v4l"],
        elf::EM_X86_64 => &["x86_64", "haswell", "xeon_phi"],
        elf::EM_386 => &["i686", "i586", "i486", "i386"],
        elf::EM_MIPS => &["mips", "mips32", "mips32r2", "mips64", "24kc", "74kc"],
        _ => &[],
    }
}

/// The library's variants for better processors: below `glibc-hwcaps` of the directory, in the order of their names.
pub(crate) fn variants(root: &Root, directory: &Path, name: &str) -> Result<Vec<PathBuf>, PathError> {
    let hwcaps = directory.join("glibc-hwcaps");
    let names = list(root, &hwcaps)?;
    Ok(names.iter().map(|n| hwcaps.join(n).join(name)).filter(|path| root.resolve(path).is_ok()).collect())
}

fn read_conf(
    root: &Root,
    file: &Path,
    seen: &mut BTreeSet<PathBuf>,
    directories: &mut Vec<PathBuf>,
) -> Result<(), PathError> {
    if !seen.insert(file.to_owned()) {
        return Ok(());
    }
    let Some(text) = root.read_text(file)? else { return Ok(()) };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(patterns) = line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t'])) {
            for pattern in patterns.split_whitespace() {
                let pattern = file.parent().unwrap_or(Path::new("/")).join(pattern);
                for included in matches(root, &pattern)? {
                    read_conf(root, &included, seen, directories)?;
                }
            }
        } else if line.starts_with('/') {
            directories
                .extend(line.split([':', ',', ' ', '\t']).filter(|d| !d.is_empty()).map(PathBuf::from));
        }
    }
    Ok(())
}

/// The files that a pattern names, wildcards in its last component only, in the order of their names.
fn matches(root: &Root, pattern: &Path) -> Result<Vec<PathBuf>, PathError> {
    let (Some(parent), Some(name)) = (pattern.parent(), pattern.file_name()) else { return Ok(Vec::new()) };
    let name = name.to_string_lossy();
    let names = list(root, parent)?;
    Ok(names.iter().filter(|n| wildcard::matches(&name, n)).map(|n| parent.join(n)).collect())
}

/// The names in a directory, sorted; none if it does not exist.
fn list(root: &Root, directory: &Path) -> Result<BTreeSet<String>, PathError> {
    let real = match root.resolve(directory) {
        Ok(found) => found.real,
        Err(PathError::NotFound { .. } | PathError::NotADirectory { .. }) => return Ok(BTreeSet::new()),
        Err(e) => return Err(e),
    };
    let host = root.host(&real);
    let failed = |source| PathError::Io { path: host.clone(), source };
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&host).map_err(failed)? {
        names.insert(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_files_of_ld_so_conf_are_read_in_order_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc/ld.so.conf.d");
        fs::create_dir_all(&etc).unwrap();
        let conf = "# local\n/opt/first\ninclude ld.so.conf.d/*.conf\ninclude /etc/ld.so.conf\n/opt/last\n";
        fs::write(dir.path().join("etc/ld.so.conf"), conf).unwrap();
        fs::write(etc.join("b.conf"), "/opt/b # the second\n").unwrap();
        fs::write(etc.join("a.conf"), "/opt/a\n").unwrap();
        fs::write(etc.join("not-this"), "/opt/no\n").unwrap();
        let search = Search::new(&Root::new(dir.path())).unwrap();
        let expected = ["/opt/first", "/opt/a", "/opt/b", "/opt/last"].map(PathBuf::from);
        assert_eq!(search.conf, expected);
    }

    #[test]
    fn the_tokens_of_a_run_path_stand_for_all_that_they_can_be() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib/aarch64-linux-gnu")).unwrap();
        let search = Search::new(&Root::new(dir.path())).unwrap();
        let kind = Kind { is_64: true, is_big_endian: false, machine: elf::EM_AARCH64 };
        let expand = |path: &str| {
            let found = search.expand(&[path.to_owned()], Path::new("/opt/bin/tool"), kind);
            found.iter().map(|p| p.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(expand("$ORIGIN/../lib"), ["/opt/bin/../lib"]);
        assert_eq!(expand("${ORIGIN}"), ["/opt/bin"]);
        assert_eq!(expand("/x/$LIB"), ["/x/lib/aarch64-linux-gnu", "/x/lib", "/x/lib64", "/x/lib32"]);
        assert_eq!(expand("/p/${PLATFORM}/x"), ["/p/aarch64/x"]);
        assert_eq!(expand("relative"), Vec::<String>::new());
        assert_eq!(expand("/p/$OTHER"), Vec::<String>::new());
    }

    #[test]
    fn musl_takes_its_directories_from_its_path_file() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        let interpreter = Path::new("/lib/ld-musl-mips-sf.so.1");
        let built_in = linker(&root, Some((interpreter, interpreter))).unwrap();
        let names = |linker: &Linker| match linker {
            Linker::Musl { directories, .. } => directories.iter().map(|d| d.display().to_string()).collect(),
            Linker::Glibc { .. } => Vec::new(),
        };
        assert_eq!(names(&built_in), ["/lib", "/usr/local/lib", "/usr/lib", "/lib"]);
        fs::write(dir.path().join("etc/ld-musl-mips-sf.path"), "/opt/lib:/lib\n/more\n").unwrap();
        let configured = linker(&root, Some((interpreter, interpreter))).unwrap();
        assert_eq!(names(&configured), ["/opt/lib", "/lib", "/more", "/lib"]);
        assert!(provided_by_musl("libc.musl-mips-sf.so.1") && provided_by_musl("libc.so"));
        assert!(!provided_by_musl("libcrypto.so.3"));
    }
}
