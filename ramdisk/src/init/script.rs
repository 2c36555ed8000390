//! Scripts that are not executable, run by the program that their first line names, as the kernel would do it.
//!
//! Staging makes every service's program executable. A directory that is read as it is may hold one that is not, and its
//! `#!` says as clearly what it is.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The longest first line that is looked at; the kernel's limit is 256 bytes.
const MOST: u64 = 256;

/// The words to put before the path of `program`, which are none for one that is executable or no script.
pub(super) fn interpreter(program: &Path) -> Vec<OsString> {
    let Ok(file) = File::open(program) else { return Vec::new() };
    let is_plain = file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 == 0);
    let mut head = Vec::new();
    if !is_plain || file.take(MOST).read_to_end(&mut head).is_err() {
        return Vec::new();
    }
    words(&head)
}

/// The interpreter, and all that follows it as one word.
fn words(head: &[u8]) -> Vec<OsString> {
    let Some((line, _)) = head.strip_prefix(b"#!").and_then(|rest| {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        rest.split_at_checked(end)
    }) else {
        return Vec::new();
    };
    let line = line.trim_ascii();
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (program, rest) = line.split_at_checked(end).unwrap_or((line, b""));
    let words = [program, rest.trim_ascii()].into_iter().filter(|word| !word.is_empty());
    words.map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// The command with what runs its script, if it is one that is not executable.
pub(super) fn runnable(argv: &[OsString]) -> Vec<OsString> {
    let is_path = |word: &&OsString| word.as_bytes().contains(&b'/');
    let mut words = argv.first().filter(is_path).map(|word| interpreter(Path::new(word))).unwrap_or_default();
    words.extend(argv.iter().cloned());
    words
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_script_that_is_not_executable_is_run_by_what_its_first_line_names() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("up");
        let command = [script.clone().into_os_string(), "word".into()];
        let with = |line: &str, mode: u32| {
            fs::write(&script, line).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(mode)).unwrap();
            let all = runnable(&command);
            assert!(all.ends_with(&command));
            all[..all.len() - 2].iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(with("#!/bin/sh\ntrue\n", 0o644), ["/bin/sh"]);
        assert_eq!(with("#! /usr/bin/env  sh -e \ntrue\n", 0o600), ["/usr/bin/env", "sh -e"]);
        assert_eq!(with("#!/bin/sh\ntrue\n", 0o755), [""; 0]);
        for none in ["", "#!", "#!\n", "true\n", "\x7fELF"] {
            assert_eq!(with(none, 0o644), [""; 0], "{none:?}");
        }
        assert_eq!(runnable(&["ip".into()]), ["ip"]);
        assert_eq!(runnable(&[dir.path().into()]), [dir.path()]);
    }
}
