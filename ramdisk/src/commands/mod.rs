//! The commands with which people and scripts speak to the services, by s6-rc's and s6's names: one program, many
//! names. They keep no state: what they know they ask of PID 1, or read from the service directories.

mod ask;
mod console_login;
mod graph;
mod options;
mod s6_rc;
mod s6_rc_db;
mod s6_svc;
mod s6_svstat;
mod tai64nlocal;
mod tree;
mod up_tree;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use self::options::Parsed;
use crate::init::control::SOCKET;

/// The names that [`run`] knows.
pub const NAMES: [&str; 7] =
    ["console-login", "s6-rc", "s6-rc-db", "s6-rc-up-tree", "s6-svc", "s6-svstat", "s6-tai64nlocal"];

/// Wrong usage, in every program of s6 and s6-rc.
const USAGE: u8 = 100;
/// A system call failed, PID 1's socket for one.
const SYSTEM: u8 = 111;

/// Where a command looks, and where it says what it found.
struct Context<'a> {
    /// The command's name, before each error.
    name: &'static str,
    /// PID 1's socket.
    socket: PathBuf,
    /// The service source directories.
    services: PathBuf,
    /// Its forms, one a line; one that goes on is indented.
    help: &'static str,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl Context<'_> {
    /// Tells an error as s6's programs do, and answers its code.
    fn fatal(&mut self, code: u8, text: &str) -> u8 {
        // Nothing can be done about an error output that cannot be written.
        let _ = writeln!(self.err, "{}: fatal: {text}", self.name);
        code
    }

    /// Tells what was not understood, and how the command is used.
    fn usage(&mut self, why: &str) -> u8 {
        let usage = usage(self.help);
        self.fatal(USAGE, &format!("{why}\n{}", usage.trim_end()))
    }

    /// Does `then` with what was parsed; either way the answer is the exit code.
    fn with_options(
        &mut self,
        parsed: Result<Parsed, String>,
        then: fn(&mut Self, &Parsed) -> Result<u8, u8>,
    ) -> u8 {
        match parsed {
            Ok(parsed) => then(self, &parsed).unwrap_or_else(|code| code),
            Err(why) => self.usage(&why),
        }
    }

    /// Prints lines; the answer is the exit code.
    fn lines<S: AsRef<str>>(&mut self, lines: impl IntoIterator<Item = S>) -> u8 {
        let mut text = String::new();
        for line in lines {
            text.push_str(line.as_ref());
            text.push('\n');
        }
        self.print(text.as_bytes())
    }

    fn print(&mut self, bytes: &[u8]) -> u8 {
        match self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            Ok(()) => 0,
            Err(error) => self.fatal(SYSTEM, &format!("cannot write to standard output: {error}")),
        }
    }
}

/// Runs the command `name` with the arguments after it; none if it is not one of [`NAMES`]. The answer is its exit
/// code, as s6-rc's or s6's program of that name has them (see `docs/services.md`).
pub fn run(name: &str, args: impl Iterator<Item = OsString>) -> Option<u8> {
    let name = *NAMES.iter().find(|known| **known == name)?;
    Some(run_at(name, args, &mut io::stdout().lock(), &mut io::stderr()))
}

/// Runs `levitate services`: everything about every service, as a tree for people. The answer is its exit code: 0, or 1
/// if PID 1 cannot be asked.
pub fn show_tree(out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    tree::run(&mut context("levitate services", out, err))
}

fn context<'a>(name: &'static str, out: &'a mut dyn Write, err: &'a mut dyn Write) -> Context<'a> {
    let socket = PathBuf::from("/run").join(SOCKET);
    Context { name, socket, services: "/etc/levitate/services".into(), help: "", out, err }
}

fn run_at(
    name: &'static str,
    args: impl Iterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let mut context = context(name, out, err);
    let mut words = Vec::new();
    for arg in args {
        match arg.into_string() {
            Ok(word) => words.push(word),
            Err(arg) => return context.fatal(USAGE, &format!("the argument {arg:?} is not UTF-8")),
        }
    }
    dispatch(&mut context, words)
}

fn dispatch(context: &mut Context<'_>, words: Vec<String>) -> u8 {
    let (help, run): (_, fn(&mut Context<'_>, Vec<String>) -> u8) = match context.name {
        "console-login" => (console_login::HELP, console_login::run),
        "s6-rc" => (s6_rc::HELP, s6_rc::run),
        "s6-rc-db" => (s6_rc_db::HELP, s6_rc_db::run),
        "s6-rc-up-tree" => (up_tree::HELP, up_tree::run),
        "s6-svc" => (s6_svc::HELP, s6_svc::run),
        "s6-svstat" => (s6_svstat::HELP, s6_svstat::run),
        _ => (tai64nlocal::HELP, |context, words| tai64nlocal::run(context, words, &mut io::stdin().lock())),
    };
    context.help = help;
    if words == ["--help"] { context.print(usage(help).as_bytes()) } else { run(context, words) }
}

fn usage(help: &str) -> String {
    let lines: Vec<&str> = help.lines().collect();
    format!("usage: {}\n", lines.join("\n       "))
}

#[cfg(test)]
mod tests;
