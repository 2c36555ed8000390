//! Child processes: each with a log of all it says, a time limit, and no survivors.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{Result, SetupError};

/// How often a caller hears that time passes, even when the child says nothing.
const TICK: Duration = Duration::from_millis(250);
/// So long its last words are read after its end.
const AFTER: Duration = Duration::from_secs(10);
/// Lines of a failed child's log that are shown.
const TAIL: usize = 15;

/// One child process.
pub(crate) struct Job {
    /// What it is for; stands in errors.
    pub(crate) what: String,
    /// The command line.
    pub(crate) command: Command,
    /// Where everything it says is appended.
    pub(crate) log: PathBuf,
    /// After this it is killed, with everything it started.
    pub(crate) limit: Duration,
}

enum Said {
    Out(String),
    Err(String),
}

impl Job {
    /// Runs it to its end and returns what it wrote to its standard output. `tick` hears every line (of both
    /// streams), and `None` when time passes.
    ///
    /// # Errors
    /// It could not be started, ended with another status than 0, or broke its limit.
    pub(crate) fn run(mut self, tick: &mut dyn FnMut(Option<&str>)) -> Result<String> {
        if let Some(folder) = self.log.parent() {
            fs::create_dir_all(folder).map_err(SetupError::io("create", folder))?;
        }
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(SetupError::io("open", &self.log))?;
        let _ = writeln!(log, "$ {:?}", self.command);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().map_err(|source| SetupError::Start {
            what: self.what.clone(),
            program: self.command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take(), sender.clone(), Said::Out);
        forward(child.stderr.take(), sender, Said::Err);

        let end = Instant::now() + self.limit;
        let mut heard = Heard::default();
        let status = loop {
            match lines.recv_timeout(TICK) {
                Ok(said) => heard.take(said, &mut log, tick),
                Err(RecvTimeoutError::Timeout) => tick(None),
                // both streams are closed: it ends now, or has ended
                Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(5)),
            }
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < end => {}
                Ok(None) | Err(_) => {
                    kill_tree(&mut child);
                    break None;
                }
            }
        };
        // a grandchild may hold the streams open for ever: what is there by now is all that is waited for
        let last = Instant::now() + AFTER;
        while Instant::now() < last
            && let Ok(said) = lines.recv_timeout(Duration::from_millis(500))
        {
            heard.take(said, &mut log, tick);
        }
        match status {
            Some(status) if status.success() => Ok(heard.out),
            Some(status) => Err(self.failed(status.to_string(), &heard)),
            None => Err(self.failed(format!("ended after the limit of {} s", self.limit.as_secs()), &heard)),
        }
    }

    /// The same for a child whose progress interests nobody.
    pub(crate) fn run_quietly(self) -> Result<String> {
        self.run(&mut |_| {})
    }

    fn failed(&self, how: String, heard: &Heard) -> SetupError {
        let tail = heard.tail.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
        SetupError::Program { what: self.what.clone(), how, log: self.log.clone(), tail }
    }
}

#[derive(Default)]
struct Heard {
    out: String,
    tail: VecDeque<String>,
}

impl Heard {
    fn take(&mut self, said: Said, log: &mut File, tick: &mut dyn FnMut(Option<&str>)) {
        let line = match said {
            Said::Out(line) => {
                self.out.push_str(&line);
                self.out.push('\n');
                line
            }
            Said::Err(line) => line,
        };
        // a full disk must not hide the child's own failure
        let _ = writeln!(log, "{line}");
        tick(Some(&line));
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

fn forward(stream: Option<impl Read + Send + 'static>, sender: Sender<Said>, kind: fn(String) -> Said) {
    let Some(stream) = stream else { return };
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
            bytes.clear();
            if sender.send(kind(line)).is_err() {
                return;
            }
        }
    });
}

/// Kills a child and everything below it, then reaps the child. They stay in this process' group, so that the
/// terminal's interrupt reaches them all.
pub(crate) fn kill_tree(child: &mut Child) {
    let below = i32::try_from(child.id()).map(|pid| descendants(&parents(Path::new("/proc")), pid));
    let _ = child.kill();
    for pid in below.unwrap_or_default() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
}

/// Every process as (pid, parent).
fn parents(proc: &Path) -> Vec<(i32, i32)> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // the name in brackets may hold anything, closing brackets too
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect()
}

fn descendants(parents: &[(i32, i32)], top: i32) -> Vec<i32> {
    let mut found = vec![top];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(folder: &Path, script: &str, limit: Duration) -> Job {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Job { what: "the script".into(), command, log: folder.join("log/child.log"), limit }
    }

    #[test]
    fn a_child_that_breaks_its_limit_is_killed_with_everything_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; echo started; wait", pid_file.display());
        let error =
            job(folder.path(), &script, Duration::from_millis(700)).run_quietly().unwrap_err().to_string();
        assert!(error.contains("the script: ended after the limit of 0 s"), "{error}");
        assert!(error.contains("started"), "{error}");
        let pid: i32 = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        // the signal is sent by now; dying takes the system a moment
        let dead = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        for _ in 0..1000 {
            if dead() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("process {pid} survived");
    }

    #[test]
    fn what_a_child_says_is_returned_heard_and_logged() {
        let folder = tempfile::tempdir().unwrap();
        let mut heard = Vec::new();
        let out = job(folder.path(), "echo one; echo two >&2", Duration::from_secs(20))
            .run(&mut |line| heard.extend(line.map(str::to_owned)))
            .unwrap();
        assert_eq!(out, "one\n");
        heard.sort();
        assert_eq!(heard, ["one", "two"]);
        let log = fs::read_to_string(folder.path().join("log/child.log")).unwrap();
        assert!(log.contains("one\n") && log.contains("two\n"), "{log}");
    }

    #[test]
    fn descendants_are_found_through_every_generation() {
        assert_eq!(descendants(&[(2, 1), (3, 2), (4, 3), (5, 1), (6, 9)], 2), [3, 4]);
    }
}
