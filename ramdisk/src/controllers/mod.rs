//! Controllers: programs that run as services and start and stop other services as things outside demand.
//!
//! What they control says so in its `controlled-by`. PID 1 takes their orders only as long as they shall be up
//! themselves, so that a controller that hears of its service's end during a stop cannot start it again.

mod health_check;
mod orders;
mod round_robin;
mod sysfs;
mod uevent;
mod uevent_rule;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::init::control::SOCKET;

/// The names that [`run`] knows.
pub const NAMES: [&str; 3] = ["uevent-rule", "round-robin", "health-check"];

/// Wrong usage, as in every program of s6.
const USAGE: u8 = 100;
/// A system call failed, or PID 1 does not answer.
const SYSTEM: u8 = 111;

/// Runs the controller `name` with the arguments after it, until it is ended; none if it is not one of [`NAMES`]. The
/// answer is its exit code: 100 for wrong usage, 111 if it could not go on (PID 1 starts it again).
pub fn run(name: &str, args: impl Iterator<Item = OsString>) -> Option<u8> {
    let name = *NAMES.iter().find(|known| **known == name)?;
    let words: Result<Vec<String>, OsString> = args.map(OsString::into_string).collect();
    let socket = PathBuf::from("/run").join(SOCKET);
    let ended = match (name, words) {
        (_, Err(word)) => Err(Failure::Usage(format!("the argument {word:?} is not UTF-8"))),
        ("uevent-rule", Ok(words)) => uevent_rule::run(&socket, words),
        ("round-robin", Ok(words)) => round_robin::run(&socket, words),
        (_, Ok(words)) => health_check::run(&socket, words),
    };
    Some(match ended {
        Ok(()) => 0,
        Err(failure) => {
            let (code, text) = match failure {
                Failure::Usage(text) => (USAGE, text),
                Failure::System(text) => (SYSTEM, text),
            };
            say(&format!("{name}: fatal: {text}"));
            code
        }
    })
}

/// Why a controller ends.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// Its command line.
    Usage(String),
    /// The system.
    System(String),
}

/// A line for the log.
fn say(text: &str) {
    // Nothing can be done about a log that cannot be written.
    let _ = writeln!(io::stderr(), "{text}");
}
