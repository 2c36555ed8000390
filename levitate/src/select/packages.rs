//! `packages`, `libraries` and the helpers of ssh: what of the old system's programs is to come along.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ramdisk::closure::elf::{self, Program};
use ramdisk::closure::{Closure, ClosureError, Closures, Missing, find_program};
use ramdisk::path::{PathError, Root};

use super::{SelectError, join};
use crate::config::{Config, Package};
use crate::status::with_sources;

/// Where ssh servers have `sftp-server` built in, by Debian, OpenWrt, Buildroot, Fedora and Alpine.
const SFTP: [&str; 6] = [
    "/usr/lib/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/gesftpserver",
];

/// What the configuration asks for, found.
#[derive(Debug, Default)]
pub(super) struct Packages {
    /// Programs that must be able to run.
    pub(super) programs: Vec<PathBuf>,
    /// Those of them, by their real names, whose symlinks come along.
    pub(super) with_links: Vec<PathBuf>,
    /// Directories and files to copy as they are.
    pub(super) trees: Vec<PathBuf>,
}

impl Packages {
    /// Finds them below `root`; `path` are the directories for names without a slash. A server that has its sftp built in
    /// needs no program for it.
    pub(super) fn find(
        config: &Config,
        root: &Root,
        path: &[PathBuf],
        sftp_is_built_in: bool,
    ) -> Result<Self, SelectError> {
        let mut found = Self::default();
        for package in &config.packages {
            match package {
                Package::Program { program, links } => {
                    let program = find_program(root, program, path)?;
                    if *links {
                        found.with_links.push(root.resolve(&program)?.real);
                    }
                    found.programs.push(program);
                }
                Package::Directory(directory) => {
                    let real = root.resolve(directory)?.real;
                    if !root.host(&real).is_dir() {
                        return Err(SelectError::NoDirectory { path: directory.clone() });
                    }
                    found.trees.push(directory.clone());
                }
                Package::Closure(list) => found.trees.extend(listed(root, list)?),
            }
        }
        if config.keep.sftp {
            let there: Vec<PathBuf> =
                SFTP.iter().map(PathBuf::from).filter(|p| root.resolve(p).is_ok()).collect();
            if there.is_empty() && !sftp_is_built_in {
                let searched = SFTP.map(str::to_owned).to_vec();
                return Err(SelectError::NoHelper { what: "the sftp server", searched });
            }
            found.programs.extend(there);
        }
        if config.keep.scp {
            found.programs.push(find_program(root, "scp", path)?);
        }
        Ok(found)
    }
}

/// The paths that a file lists, one to a line.
fn listed(root: &Root, list: &Path) -> Result<Vec<PathBuf>, SelectError> {
    let nothing = |what| SelectError::List { list: list.to_owned(), what };
    let text = root.read_text(list)?.ok_or_else(|| nothing("does not exist"))?;
    let mut paths = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if !line.starts_with('/') {
            let found = line.chars().take(80).collect();
            return Err(SelectError::ListLine { list: list.to_owned(), line: n + 1, found });
        }
        paths.push(PathBuf::from(line));
    }
    if paths.is_empty() { Err(nothing("names no path")) } else { Ok(paths) }
}

/// Adds what the programs and libraries in `trees` need from elsewhere. One that could not run is a warning: a
/// directory is taken for what it is used for, and may hold more than that.
pub(super) fn contents(
    closure: &mut Closure,
    programs: &mut Vec<PathBuf>,
    trees: &[PathBuf],
    root: &Root,
    closures: &mut Closures<'_>,
) -> Result<Vec<String>, SelectError> {
    let mut warnings = Vec::new();
    let (mut found, mut libraries) = (Vec::new(), Vec::new());
    for tree in trees {
        walk(root, &root.resolve(tree)?.real, &mut found, &mut libraries)?;
    }
    for program in found {
        match closures.resolve(std::slice::from_ref(&program)) {
            Ok(more) => {
                join(closure, more);
                programs.push(program);
            }
            Err(e) => warnings.push(cannot_run(&e)),
        }
    }
    // every program of the tree tells which C library its plugins are for
    for library in libraries {
        let name = [library.display().to_string()];
        match closures.libraries(programs, &name, Missing::Refuse) {
            Ok(more) => join(closure, more),
            // for another processor, or for nobody: nothing that is staged would open it
            Err(ClosureError::NoNamedLibrary { .. }) => {}
            Err(e) => warnings.push(cannot_run(&e)),
        }
    }
    Ok(warnings)
}

fn cannot_run(e: &ClosureError) -> String {
    format!("{}: it will not run in the maintenance root", with_sources(e))
}

/// The executable files below a name without symlinks, and the other ELF files.
fn walk(
    root: &Root,
    real: &Path,
    programs: &mut Vec<PathBuf>,
    libraries: &mut Vec<PathBuf>,
) -> Result<(), PathError> {
    let host = root.host(real);
    let failed = |source| PathError::Io { path: host.clone(), source };
    let meta = fs::symlink_metadata(&host).map_err(failed)?;
    if meta.is_dir() {
        for entry in fs::read_dir(&host).map_err(failed)? {
            walk(root, &real.join(entry.map_err(failed)?.file_name()), programs, libraries)?;
        }
    } else if meta.is_file() {
        let executable = meta.permissions().mode() & 0o111 != 0;
        match elf::read(&host) {
            Ok(Program::Elf(elf)) if elf.interpreter.is_none() && !elf.needed.is_empty() => {
                libraries.push(real.to_owned());
            }
            Ok(Program::Elf(_) | Program::Script(_)) if executable => programs.push(real.to_owned()),
            // what is damaged is copied as it is, too
            _ => {}
        }
    }
    Ok(())
}
