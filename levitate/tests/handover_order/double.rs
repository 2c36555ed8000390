//! A kernel that keeps a mount table, processes and a log of calls, and fails where it is told to.

use std::io;
use std::path::{Path, PathBuf};

use levitate::handover::journey::Journey;
use levitate::handover::mounts::{self, Mount};
use levitate::handover::processes::Process;
use levitate::handover::report::Report;
use levitate::handover::seam::{Attached, Ending, Weight};
use levitate::handover::watchdog::WatchdogFacts;
use levitate::state::StateRecord;

pub(crate) const STAGED: &str = "/run/maintenance";

/// Which of the calls that can fail do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    None,
    /// This one.
    Only(usize),
    /// This one and every one after it.
    From(usize),
}

pub(crate) struct Double {
    pub(crate) fault: Fault,
    /// Every call, as text, in order.
    pub(crate) calls: Vec<String>,
    /// How many of them could have failed.
    pub(crate) fallible: usize,
    /// Those that did.
    pub(crate) failed: Vec<String>,
    pub(crate) now: u64,
    pub(crate) table: Vec<Mount>,
    /// Mount points that say EBUSY for ever.
    pub(crate) stuck: Vec<PathBuf>,
    /// Mount points that nobody can look at and come back: the way there never ends.
    pub(crate) dead: Vec<PathBuf>,
    /// Mount points whose unmounting never ends, although they have left every table by then.
    pub(crate) lingering: Vec<PathBuf>,
    pub(crate) processes: Vec<Process>,
    /// From so many calls on they cannot be listed.
    pub(crate) unlisted_from: Option<usize>,
    /// Processes that TERM ends, and those that even KILL does not.
    pub(crate) polite: Vec<i32>,
    /// Those that ignore TERM and end by HUP.
    pub(crate) shells: Vec<i32>,
    pub(crate) undying: Vec<i32>,
    pub(crate) busy: Vec<(u32, u32)>,
    /// What every exclusive open of a block device says.
    pub(crate) probe_error: Option<i32>,
    pub(crate) verb: Option<String>,
    pub(crate) manifest: String,
    /// The record of arming, if there is one.
    pub(crate) armed: Option<String>,
    pub(crate) init_mode: u32,
    pub(crate) watchdog: WatchdogFacts,
    pub(crate) attached: Vec<Attached>,
    /// The flash record; when its writer ends, and in which state.
    pub(crate) flash: Option<String>,
    pub(crate) flash_ends: Option<(u64, &'static str)>,
    /// Until then the record cannot be read.
    pub(crate) flash_unread_until: u64,
    /// When the guard ends the system.
    pub(crate) guard_at: u64,
    pub(crate) written: Vec<(PathBuf, String)>,
    pub(crate) pivot_error: Option<i32>,
    /// Calls that take so long: the beginning of their text, and milliseconds.
    pub(crate) slow: Option<(&'static str, u64)>,
    /// As before, by the call's place among those that can fail.
    pub(crate) slow_at: Option<(usize, u64)>,
    /// What a call that fails says.
    pub(crate) says: fn() -> io::Error,
    pub(crate) state: Vec<(PathBuf, StateRecord)>,
    pub(crate) said: Vec<(Weight, String)>,
    pub(crate) resumed: Option<Journey>,
    pub(crate) report: Option<Report>,
    pub(crate) init_runs: bool,
    pub(crate) endings: Vec<Ending>,
    pub(crate) next_id: u32,
}

pub(crate) fn mount(
    id: u32,
    parent: u32,
    device: (u32, u32),
    point: &str,
    fstype: &str,
    source: &str,
) -> Mount {
    Mount {
        id,
        parent,
        major: device.0,
        minor: device.1,
        root: PathBuf::from("/"),
        point: PathBuf::from(point),
        fstype: fstype.into(),
        source: source.into(),
    }
}

/// The process that writes flash.
pub(crate) const FLASHCP: i32 = 123;

pub(crate) fn flash_record(state: &str) -> String {
    format!(
        r#"{{"version":1,"state":"{state}","pid":{FLASHCP},"command":["flashcp","fw","mtd5"],"device":"/dev/mtd5"}}"#
    )
}

pub(crate) fn process(pid: i32, name: &str, state: char, kernel: bool) -> Process {
    Process { pid, name: name.into(), state, kernel, wants_hangup: false }
}

impl Double {
    /// A device with a squashfs root, a jffs2 on /persist that holds the state file, and s6's usual company.
    pub(crate) fn new() -> Self {
        let manifest = r#"{"version":1,"staged_at":0,"boot_id":"b","services":[],"users":[],"files":1,"bytes":1,
            "state_file":"/persist/state.json",
            "handover":{"whole_ms":90000,"term_grace_ms":2000,"call_ms":10000}}"#;
        Self {
            fault: Fault::None,
            calls: Vec::new(),
            fallible: 0,
            failed: Vec::new(),
            now: 1_000,
            table: vec![
                mount(20, 1, (31, 3), "/", "squashfs", "/dev/root"),
                mount(21, 20, (0, 5), "/dev", "devtmpfs", "dev"),
                mount(22, 21, (0, 6), "/dev/pts", "devpts", "pts"),
                mount(23, 20, (0, 7), "/proc", "proc", "proc"),
                mount(24, 20, (0, 8), "/run", "tmpfs", "tmpfs"),
                mount(25, 20, (31, 4), "/persist", "jffs2", "/dev/mtdblock4"),
            ],
            stuck: Vec::new(),
            dead: Vec::new(),
            lingering: Vec::new(),
            processes: vec![
                process(1, "exec", 'R', false),
                process(2, "kthreadd", 'S', true),
                process(60, "jffs2_gcd_mtd4", 'S', true),
                process(100, "logger", 'S', false),
                process(101, "dd", 'R', false),
            ],
            unlisted_from: None,
            polite: vec![100],
            shells: Vec::new(),
            undying: Vec::new(),
            busy: Vec::new(),
            probe_error: None,
            verb: None,
            manifest: manifest.into(),
            armed: None,
            init_mode: 0o755,
            watchdog: WatchdogFacts::default(),
            attached: Vec::new(),
            flash: None,
            flash_ends: None,
            flash_unread_until: 0,
            guard_at: 0,
            written: Vec::new(),
            pivot_error: None,
            slow: None,
            slow_at: None,
            says: || error(libc::EIO),
            state: Vec::new(),
            said: Vec::new(),
            resumed: None,
            report: None,
            init_runs: false,
            endings: Vec::new(),
            next_id: 90,
        }
    }

    /// The same device as systemd leaves it: pivoted, /persist unmounted, /dev, /proc and /run bound into the new root.
    pub(crate) fn pivoted() -> Self {
        let mut double = Self::new();
        double.table = vec![
            mount(30, 1, (0, 8), "/", "tmpfs", "tmpfs"),
            mount(20, 30, (31, 3), "/oldroot", "squashfs", "/dev/root"),
            mount(21, 20, (0, 5), "/oldroot/dev", "devtmpfs", "dev"),
            mount(22, 21, (0, 6), "/oldroot/dev/pts", "devpts", "pts"),
            mount(23, 20, (0, 7), "/oldroot/proc", "proc", "proc"),
            mount(24, 20, (0, 8), "/oldroot/run", "tmpfs", "tmpfs"),
            mount(31, 30, (0, 5), "/dev", "devtmpfs", "dev"),
            mount(32, 30, (0, 7), "/proc", "proc", "proc"),
            mount(33, 30, (0, 8), "/run", "tmpfs", "tmpfs"),
        ];
        double.processes.retain(|p| (p.kernel || p.pid == 1) && !p.name.starts_with("jffs2"));
        let home =
            r#""state_home":{"source":"/dev/mtdblock4","fstype":"jffs2","file":"state.json"},"handover""#;
        double.manifest = double.manifest.replace(r#""handover""#, home);
        double
    }

    /// Both halves, from systemd's entry.
    pub(crate) fn hand_over_from_systemd(mut self, verb: &str) -> Self {
        levitate::handover::sequence::first_half_pivoted(&mut self, verb);
        self.second_half()
    }

    /// Both halves, as far as they go.
    pub(crate) fn hand_over(mut self) -> Self {
        levitate::handover::sequence::first_half(&mut self, Path::new(STAGED));
        self.second_half()
    }

    fn second_half(mut self) -> Self {
        if let Some(journey) = self.resumed.clone() {
            // Through text, as over the execve.
            let text = serde_json::to_string(&journey).unwrap();
            levitate::handover::sequence::second_half(&mut self, serde_json::from_str(&text).unwrap());
        }
        self
    }

    pub(crate) fn log(&mut self, text: String) {
        assert!(self.endings.is_empty(), "{text} after the end");
        assert!(!self.init_runs, "{text} after the new init was executed");
        assert!(self.calls.len() < 20_000, "no end in sight: {text}");
        self.now += 1;
        if let Some((which, ms)) = self.slow
            && text.starts_with(which)
        {
            self.now += ms;
        }
        self.calls.push(text);
    }

    /// Logs a call that can fail, and fails it if it is its turn.
    pub(crate) fn call(&mut self, text: String) -> io::Result<()> {
        self.log(text.clone());
        let place = self.fallible;
        self.fallible += 1;
        if let Some((_, ms)) = self.slow_at.take_if(|(which, _)| *which == place) {
            self.now += ms;
        }
        let fails = match self.fault {
            Fault::None => false,
            Fault::Only(which) => which == place,
            Fault::From(which) => which <= place,
        };
        if fails {
            self.failed.push(text);
            return Err((self.says)());
        }
        Ok(())
    }

    /// A look at a path: one that leads to a dead mount is given up at its limit.
    pub(crate) fn looks_at(&mut self, path: &Path, limit: u64) -> io::Result<()> {
        if self.dead.iter().any(|dead| path.starts_with(dead)) { self.blocks(limit) } else { Ok(()) }
    }

    /// A call that does not come back by itself.
    pub(crate) fn blocks(&mut self, limit: u64) -> io::Result<()> {
        self.now += limit;
        assert!(self.now < self.guard_at, "the guard has ended the system");
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("not done within {limit} ms")))
    }

    pub(crate) fn id_at(&self, point: &Path) -> Option<u32> {
        mounts::at(&self.table, point).map(|m| m.id)
    }

    /// Moves everything at or below one point to another.
    pub(crate) fn reroot(&mut self, from: &Path, to: &Path) {
        for mount in &mut self.table {
            if let Ok(rest) = mount.point.strip_prefix(from) {
                mount.point = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
    }

    pub(crate) fn last_state(&self) -> &StateRecord {
        &self.state.last().expect("a state record").1
    }

    pub(crate) fn failure(&self) -> &str {
        let failures: Vec<&String> =
            self.said.iter().filter(|(w, _)| *w == Weight::Failure).map(|(_, line)| line).collect();
        assert_eq!(failures.len(), 1, "{:?}", self.said);
        failures[0]
    }
}

pub(crate) fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
