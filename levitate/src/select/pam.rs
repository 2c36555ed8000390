//! What PAM reads for one service (pam.d(5)): its file, what that includes, the modules that these name, and what the
//! modules read. A module that is not there refuses, and so does one without its settings (pam_limits).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ramdisk::path::Root;

/// The directories that hold a file for each service, the administrator's first.
const DIRECTORIES: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"];
/// Everything in one file: read where the first directory does not exist.
const ONE_FILE: &str = "/etc/pam.conf";
/// The service whose lines stand in for those that a service has not.
const OTHER: &str = "other";
/// What modules read without being told.
const SETTINGS: [&str; 3] = ["/etc/security", "/etc/environment", "/etc/login.defs"];
/// Includes in includes; Linux-PAM's own limit is 32.
const DEPTH: usize = 32;
/// What lies there is not carried over.
const PASSING: [&str; 5] = ["/dev", "/proc", "/sys", "/run", "/tmp"];

/// A module that a line names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Module {
    /// A file name, or a path.
    pub(super) name: String,
    /// Whether PAM goes on without it.
    pub(super) is_optional: bool,
}

/// What is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Files, and one directory.
    pub(super) files: BTreeSet<PathBuf>,
    /// The modules.
    pub(super) modules: BTreeSet<Module>,
}

/// What a line of a service says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line<'a> {
    Include(&'a str),
    Module { module: Module, arguments: Vec<&'a str> },
}

/// What PAM reads for `service` in the system below `root`.
pub(super) fn look(root: &Root, service: &str) -> Found {
    let mut found = Found::default();
    if root.resolve(Path::new("/etc/pam.d")).is_ok() {
        for name in [service, OTHER] {
            found.service(root, name, 0);
        }
    } else if let Ok(Some(text)) = root.read_text(Path::new(ONE_FILE)) {
        found.files.insert(ONE_FILE.into());
        for line in joined(&text).lines() {
            let (name, rest) = line.trim_start().split_once([' ', '\t']).unwrap_or_default();
            if [service, OTHER].contains(&name) {
                found.line(root, rest, 0);
            }
        }
    }
    let settings = SETTINGS.iter().map(PathBuf::from);
    found.files.extend(settings.filter(|path| root.resolve(path).is_ok()));
    found
}

impl Found {
    fn service(&mut self, root: &Root, name: &str, depth: usize) {
        let in_each = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
        // an absolute name replaces the directory
        for path in in_each {
            let Ok(Some(text)) = root.read_text(&path) else { continue };
            if self.files.insert(path) {
                for line in joined(&text).lines() {
                    self.line(root, line, depth);
                }
            }
            return;
        }
    }

    fn line(&mut self, root: &Root, line: &str, depth: usize) {
        match parse(line) {
            Some(Line::Include(name)) if depth < DEPTH => self.service(root, name, depth + 1),
            Some(Line::Module { module, arguments }) => {
                self.modules.insert(module);
                let values = arguments.into_iter().map(|word| word.split_once('=').map_or(word, |two| two.1));
                let files = values.map(Path::new).filter(|path| {
                    let passes = PASSING.iter().any(|directory| path.starts_with(directory));
                    let found = || root.resolve(path).is_ok_and(|found| root.host(&found.real).is_file());
                    path.is_absolute() && !passes && found()
                });
                self.files.extend(files.map(Path::to_owned));
            }
            _ => {}
        }
    }
}

/// Lines that end in a backslash go on in the next.
fn joined(text: &str) -> String {
    text.replace("\\\n", " ")
}

/// `type control module arguments`, where the control can be a list in brackets; or an include of one of three kinds.
fn parse(line: &str) -> Option<Line<'_>> {
    let line = line.split('#').next()?.trim();
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    if kind == "@include" {
        return rest.split_whitespace().next().map(Line::Include);
    }
    let (control, rest) = match rest.strip_prefix('[') {
        Some(list) => list.split_once(']')?,
        None => rest.split_once(char::is_whitespace)?,
    };
    let mut words = rest.split_whitespace();
    let name = words.next()?;
    if ["include", "substack"].contains(&control) {
        return Some(Line::Include(name));
    }
    let is_optional =
        kind.starts_with('-') || control == "optional" || control.contains("module_unknown=ignore");
    let module = Module { name: name.to_owned(), is_optional };
    Some(Line::Module { module, arguments: words.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(line: &str) -> (String, bool) {
        match parse(line) {
            Some(Line::Module { module, .. }) => (module.name, module.is_optional),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_line_names_a_module_behind_a_word_or_a_list_in_brackets_and_says_whether_it_must_be_there() {
        let name = |name: &str, optional| (name.to_owned(), optional);
        assert_eq!(module("auth required pam_unix.so nullok"), name("pam_unix.so", false));
        let listed =
            "session [success=ok ignore=ignore module_unknown=ignore default=bad]\tpam_selinux.so close";
        assert_eq!(module(listed), name("pam_selinux.so", true));
        assert_eq!(
            module("account [success=1 default=ignore] /opt/pam_x.so # [1]"),
            name("/opt/pam_x.so", false)
        );
        assert_eq!(module("-session\toptional pam_systemd.so"), name("pam_systemd.so", true));
        assert_eq!(parse("@include common-auth"), Some(Line::Include("common-auth")));
        assert_eq!(parse("password substack system-auth"), Some(Line::Include("system-auth")));
        for nothing in ["", "# auth required pam_x.so", "auth", "auth required", "auth [success=1 pam_x.so"] {
            assert_eq!(parse(nothing), None, "{nothing}");
        }
    }
}
