//! Who is logged in: decided from a table of all processes. There is no utmp in such a small root, and dropbear would not
//! write one.
//!
//! Services begin with a clean environment (`PATH` and `HOME`, nothing else). Whoever lets a person in (dropbear, sshd,
//! tinysshd, login for telnetd and getty) sets `LOGNAME` for the program that it starts then, and not before: a
//! connection that has not yet authenticated is a process that only inherited the server's environment, or has
//! none of it (`sshd: [net]`). So a session is a process with a login's environment below a login service's process. What a
//! session has left behind (`nohup something &`) is an orphan without a server above it, and no session. A shell that a
//! console has without a login (`getty -n -l /bin/sh`) is none either: nobody need be there.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A process, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its parent's number.
    pub parent: i32,
    /// Its name, as the kernel has it (at most 15 bytes).
    pub name: String,
    /// The program's file; none where it cannot be told.
    pub program: Option<PathBuf>,
    /// `LOGNAME` of the environment that it was executed with.
    pub logname: Option<String>,
}

/// All processes by number; those that have ended are left out.
pub type Processes = BTreeMap<i32, Process>;

/// Somebody who is logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The user's name.
    pub user: String,
    /// The number of the first process that is theirs.
    pub pid: i32,
    /// Its name.
    pub program: String,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, pid {})", self.user, self.program, self.pid)
    }
}

/// The sessions among `processes`, given the numbers of the login services' own processes.
#[must_use]
pub fn sessions(processes: &Processes, servers: &[i32]) -> Vec<Session> {
    processes.iter().filter_map(|(pid, process)| session(processes, servers, *pid, process)).collect()
}

fn session(processes: &Processes, servers: &[i32], pid: i32, process: &Process) -> Option<Session> {
    let user = process.logname.as_ref()?;
    // Only the outermost process of a session stands for it.
    let is_inner = !servers.contains(&pid)
        && processes.get(&process.parent).is_some_and(|parent| parent.logname.is_some());
    let is_one = !is_inner && is_below_a_server(processes, servers, pid, process);
    is_one.then(|| Session { user: user.clone(), pid, program: process.name.clone() })
}

/// Goes up to the process whose parent is PID 1. A server that died leaves its connections alive: they are known by the
/// program that they share with the server that was started in its place.
fn is_below_a_server(processes: &Processes, servers: &[i32], pid: i32, process: &Process) -> bool {
    let (mut pid, mut process) = (pid, process);
    // A table read while processes come and go could have a ring in it.
    for _ in 0..processes.len() {
        if servers.contains(&pid) {
            return true;
        }
        match processes.get(&process.parent) {
            Some(parent) if process.parent > 1 => (pid, process) = (process.parent, parent),
            _ => break,
        }
    }
    let mut programs = servers.iter().filter_map(|server| processes.get(server)?.program.as_ref());
    process.logname.is_none() && programs.any(|program| process.program.as_ref() == Some(program))
}

/// Reads the table from `proc`. A process that ends meanwhile is left out.
#[must_use]
pub fn read(proc: &Path) -> Processes {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter_map(|pid| Some((pid, read_one(&proc.join(pid.to_string()))?))).collect()
}

/// The most that is read of an environment: `LOGNAME` is among the first few.
const ENVIRONMENT: u64 = 64 << 10;

fn read_one(dir: &Path) -> Option<Process> {
    let stat = fs::read(dir.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // "123 (a name) S 1 ...": the name may contain anything, the last parenthesis ends it.
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent: i32 = fields.next()?.parse().ok()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    let mut process = Process { parent, name: name.to_owned(), ..Process::default() };
    // Reading the memory of a process that is stuck in the kernel can wait for it.
    if state != "D" {
        process.program = fs::read_link(dir.join("exe")).ok();
        process.logname = logname(&dir.join("environ"));
    }
    Some(process)
}

fn logname(environ: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(environ).ok()?.take(ENVIRONMENT).read_to_end(&mut bytes).ok()?;
    let name = bytes.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"LOGNAME="))?;
    Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
