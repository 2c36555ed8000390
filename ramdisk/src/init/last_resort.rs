//! Which services let somebody in at the console: what a normal system starts when nothing else can be.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::service::{Kind, Program, ServiceSet};

/// Programs that let somebody in at a console.
const PROGRAMS: [&str; 6] = ["console-login", "getty", "agetty", "mgetty", "sulogin", "login"];
/// The most that is read of a script.
const MOST: u64 = 16 << 10;

/// The longruns that are named `console` or `getty` (perhaps with more after a `-`, `.` or `@`), or that execute one of
/// [`PROGRAMS`]. What only a controller starts is none of them.
pub(super) fn consoles(set: &ServiceSet) -> Vec<String> {
    let all = set.iter().filter(|service| service.controlled_by.is_none());
    let is_console = |service: &&crate::service::Service| match &service.kind {
        Kind::Longrun { run, .. } => is_consoles_name(&service.name) || lets_in(run),
        Kind::Oneshot { .. } | Kind::Bundle { .. } => false,
    };
    all.filter(is_console).map(|service| service.name.clone()).collect()
}

fn is_consoles_name(name: &str) -> bool {
    let first = name.split(['-', '.', '@']).next().unwrap_or_default();
    matches!(first, "console" | "getty")
}

fn lets_in(program: &Program) -> bool {
    match program {
        Program::Words(words) => words.iter().any(|word| is_one(&word.to_string_lossy())),
        Program::Script(text) => names_one(text),
        Program::File(path) => names_one(&beginning(path)),
    }
}

/// A script's text, or nothing of a program's.
fn beginning(path: &Path) -> String {
    let mut bytes = Vec::new();
    // One that cannot be read is none that could be started.
    let read = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    if read.is_ok() && bytes.starts_with(b"#!") {
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        String::new()
    }
}

fn names_one(script: &str) -> bool {
    let code = |line: &str| line.split_once(" #").map_or(line, |(code, _)| code).to_owned();
    let lines = script.lines().filter(|line| !line.trim_start().starts_with('#')).map(code);
    lines.into_iter().any(|line| line.split([' ', '\t', ';', '"', '\'']).any(is_one))
}

fn is_one(word: &str) -> bool {
    PROGRAMS.contains(&word.rsplit('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Service;

    #[test]
    fn a_console_is_known_by_its_name_or_its_program() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("run");
        std::fs::write(&script, "#!/bin/sh\n# the door\nexec /sbin/getty -L ttyS0 115200\n").unwrap();
        let words = |text: &str| Program::Words(text.split(' ').map(Into::into).collect());
        let longrun = |name: &str, run| Service::longrun(name, "/s", run);
        let set = ServiceSet::new([
            longrun("console", words("sh")),
            longrun("getty@ttyS0", words("sh")),
            longrun("consoled", words("sh")),
            longrun("door", Program::File(script)),
            longrun("gone", Program::File(dir.path().join("gone"))),
            longrun("usb", words("getty ttyUSB0")).controlled_by("plug"),
            longrun("script", Program::Script("exec console-login --without-password shell".into())),
            longrun("comment", Program::Script("# no getty\nexec web # nor login".into())),
            Service::oneshot("login", "/s", Some(words("login")), None),
        ]);
        assert_eq!(consoles(&set.unwrap()), ["console", "door", "getty@ttyS0", "script"]);
    }
}
