//! Whether each staged program could run, tried without running any: the kernel loads it and stops before its first
//! instruction, and its dynamic linker lists what it would load. What a program does once it runs is not tried; a
//! `reboot` among them would do its work.

use std::io;
use std::path::{Path, PathBuf};

use ramdisk::closure::elf::{self, Program};
use ramdisk::path::Root;
use ramdisk::tree::Tree;
use serde::Serialize;

use crate::select::Selection;

/// A program to try, by its name in the staged root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub program: PathBuf,
    /// Its dynamic linker, as the program names it; none for static programs and scripts.
    pub linker: Option<PathBuf>,
}

/// What is known of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// The kernel loads it. It needs no library, or (a script) its interpreter is tried as a program of its own.
    Loads,
    /// The kernel loads it, and its dynamic linker finds every library and every version that it needs.
    Links,
    /// It cannot run.
    Fails {
        /// What the kernel or the dynamic linker said.
        reason: String,
    },
    /// Not known.
    NotTried {
        /// Why not.
        reason: String,
    },
}

/// A program and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// Its name in the staged root.
    pub program: PathBuf,
    /// What is known.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Trying programs in a copy of the staged root that nobody else sees; a double stands in for it in tests.
pub trait Trials {
    /// Tries each candidate in a root that is `tree`, which takes `bytes` of RAM meanwhile. Nothing is left of it.
    ///
    /// # Errors
    ///
    /// There could be no such root: none of the candidates is tried.
    fn attempt(&mut self, tree: &Tree, bytes: u64, candidates: &[Candidate]) -> io::Result<Vec<Outcome>>;
}

/// What is to be tried of a selection: whatever will be executed, dynamic linkers and libraries left out.
pub(super) fn candidates(root: &Root, selected: &Selection) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = ["/sbin/levitate", "/sbin/init"].map(plain).to_vec();
    for file in &selected.closure.files {
        let asked = selected.programs.contains(file);
        let is_library = file.file_name().is_some_and(|n| n.to_string_lossy().contains(".so"));
        let linker = match elf::read(&root.host(file)) {
            Ok(Program::Elf(elf)) => elf.interpreter.map(PathBuf::from),
            Ok(Program::Script(_)) => None,
            _ => continue,
        };
        if asked || (linker.is_some() && !is_library) {
            found.push(Candidate { program: file.clone(), linker });
        }
    }
    found
}

fn plain(program: &str) -> Candidate {
    Candidate { program: program.into(), linker: None }
}

/// What the kernel's refusal to load a program means.
pub(crate) fn refused(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => {
            "the kernel does not know its format: it is for another processor, or damaged".to_owned()
        }
        Some(libc::ENOENT) => "its interpreter is not there".to_owned(),
        Some(libc::ELIBBAD) => "its dynamic linker is for another processor, or damaged".to_owned(),
        _ => format!("the kernel does not load it: {error}"),
    }
}

/// What a dynamic linker's `--list` says: glibc's and musl's words for what is missing.
pub(crate) fn linked(code: Option<i32>, output: &str, linker: &Path) -> Outcome {
    let complains = |line: &&str| {
        ["not found", "Error ", "error while loading", "cannot open", "wrong ELF class"]
            .iter()
            .any(|w| line.contains(w))
    };
    let complaints: Vec<&str> = output.lines().filter(complains).map(str::trim).take(3).collect();
    if !complaints.is_empty() {
        return Outcome::Fails { reason: complaints.join("; ") };
    }
    if code == Some(0) {
        return Outcome::Links;
    }
    let said: String = output.lines().next().unwrap_or("nothing").chars().take(80).collect();
    Outcome::NotTried { reason: format!("{} --list said: {said}", linker.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_both_dynamic_linkers_for_what_is_missing_are_understood() {
        let linker = Path::new("/lib/ld.so");
        let fails = |output: &str| match linked(Some(0), output, linker) {
            Outcome::Fails { reason } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            fails("\tlibz.so.1 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x1)\n"),
            "libz.so.1 => not found"
        );
        let version = "/bin/x: /lib/libc.so.6: version `GLIBC_2.38' not found (required by /bin/x)";
        assert_eq!(fails(version), version);
        let musl = "Error loading shared library libz.so.1: No such file or directory (needed by /bin/x)";
        assert_eq!(fails(musl), musl);
        assert_eq!(linked(Some(0), "\tlibc.so.6 => /lib/libc.so.6 (0x1)\n", linker), Outcome::Links);
        assert_eq!(
            linked(Some(1), "usage: ld.so PROGRAM\n", linker),
            Outcome::NotTried { reason: "/lib/ld.so --list said: usage: ld.so PROGRAM".into() }
        );
    }

    #[test]
    fn the_kernels_refusals_are_told_in_words() {
        let told = |errno| refused(&io::Error::from_raw_os_error(errno));
        assert!(told(libc::ENOEXEC).contains("another processor"));
        assert_eq!(told(libc::ENOENT), "its interpreter is not there");
        assert!(told(libc::EACCES).starts_with("the kernel does not load it: "));
    }
}
