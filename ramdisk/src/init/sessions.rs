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

use crate::process_stat::Stat;

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
    /// True if it sleeps in the kernel and no signal reaches it.
    pub is_stuck: bool,
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

/// The sessions among `processes`, given the numbers of the login services' own processes and of the other services'.
#[must_use]
pub fn sessions(processes: &Processes, servers: &[i32], others: &[i32]) -> Vec<Session> {
    let session = |(pid, process): (&i32, &Process)| {
        let user = process.logname.as_ref()?;
        // Only the outermost process of a session stands for it.
        let is_inner = !servers.contains(pid)
            && processes.get(&process.parent).is_some_and(|parent| parent.logname.is_some());
        let is_one = !is_inner && is_below_a_server(processes, servers, others, *pid);
        is_one.then(|| Session { user: user.clone(), pid: *pid, program: process.name.clone() })
    };
    processes.iter().filter_map(session).collect()
}

enum Top {
    Server,
    /// The process whose parent is PID 1, or nobody that is known.
    Other(i32),
}

/// Goes up to a server, or to the process whose parent is PID 1.
fn climb(processes: &Processes, servers: &[i32], pid: i32) -> Top {
    let mut pid = pid;
    // A table read while processes come and go could have a ring in it.
    for _ in 0..processes.len() {
        if servers.contains(&pid) {
            return Top::Server;
        }
        match processes.get(&pid).map(|process| process.parent) {
            Some(parent) if parent > 1 && processes.contains_key(&parent) => pid = parent,
            _ => break,
        }
    }
    Top::Other(pid)
}

/// A server that died leaves its connections alive: they are known by the program that they share with the server that
/// was started in its place. Another service can be the same program, where one has many names: it is known by its number.
fn is_below_a_server(processes: &Processes, servers: &[i32], others: &[i32], pid: i32) -> bool {
    let top = match climb(processes, servers, pid) {
        Top::Server => return true,
        Top::Other(top) => top,
    };
    let Some(process) = processes.get(&top).filter(|_| !others.contains(&top)) else { return false };
    let mut programs = servers.iter().filter_map(|server| processes.get(server)?.program.as_ref());
    process.logname.is_none() && programs.any(|program| process.program.as_ref() == Some(program))
}

/// Reads the table from `proc`, without what would need the memory of the processes (program and `LOGNAME`): nothing here
/// can wait for one of them. Those that have ended are left out.
#[must_use]
pub fn table(proc: &Path) -> Processes {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let read = |pid: i32| {
        let stat = fs::read(proc.join(pid.to_string()).join("stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let stat = Stat::parse(&stat).filter(|stat| !stat.is_over())?;
        let (parent, name) = (stat.parent, stat.name.to_owned());
        Some((pid, Process { parent, name, is_stuck: stat.state == 'D', ..Process::default() }))
    };
    numbers.filter_map(read).collect()
}

/// Those of whom more has to be known: who is below a server, and who lost the process that was above. Who is below
/// another service, or a thread of the kernel, is nobody's session.
pub(super) fn worth_a_look(processes: &Processes, servers: &[i32], others: &[i32]) -> Vec<i32> {
    let is_one = |pid: &i32| match climb(processes, servers, *pid) {
        Top::Server => true,
        Top::Other(pid) => {
            let parent = processes.get(&pid).map_or(0, |process| process.parent);
            parent != 0 && !others.contains(&pid)
        }
    };
    processes.keys().copied().filter(is_one).collect()
}

/// The most that is read of an environment: `LOGNAME` is among the first few.
const ENVIRONMENT: u64 = 64 << 10;

/// What takes the memory of a process to find out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Look {
    pub(super) pid: i32,
    pub(super) program: Option<PathBuf>,
    pub(super) logname: Option<String>,
}

/// Looks at one process. This waits for it if it is stuck in the kernel, or one of its threads is.
pub(super) fn look(proc: &Path, pid: i32) -> Look {
    let dir = proc.join(pid.to_string());
    Look { pid, program: fs::read_link(dir.join("exe")).ok(), logname: logname(&dir.join("environ")) }
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
