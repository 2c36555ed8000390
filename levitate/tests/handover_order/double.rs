//! A kernel that keeps a mount table, processes and a log of calls, and fails where it is told to.

use std::io;
use std::path::{Path, PathBuf};

use levitate::handover::journey::Journey;
use levitate::handover::mounts::{self, Mount};
use levitate::handover::processes::Process;
use levitate::handover::report::{Report, Watchdog};
use levitate::handover::seam::{
    Attached, Ending, Everybody, FileFacts, HandoverSys, Identity, Reach, Weight,
};
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
    pub(crate) processes: Vec<Process>,
    /// From so many calls on they cannot be listed.
    pub(crate) unlisted_from: Option<usize>,
    /// Processes that TERM ends, and those that even KILL does not.
    pub(crate) polite: Vec<i32>,
    /// Those that ignore TERM and end by HUP.
    pub(crate) shells: Vec<i32>,
    pub(crate) undying: Vec<i32>,
    pub(crate) busy: Vec<(u32, u32)>,
    pub(crate) verb: Option<String>,
    pub(crate) manifest: String,
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
    next_id: u32,
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
    Process { pid, name: name.into(), state, kernel }
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
            verb: None,
            manifest: manifest.into(),
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

    fn log(&mut self, text: String) {
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
    fn call(&mut self, text: String) -> io::Result<()> {
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

    fn id_at(&self, point: &Path) -> Option<u32> {
        mounts::at(&self.table, point).map(|m| m.id)
    }

    /// Moves everything at or below one point to another.
    fn reroot(&mut self, from: &Path, to: &Path) {
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

impl HandoverSys for Double {
    fn now_ms(&mut self) -> u64 {
        self.now
    }
    fn unix_seconds(&mut self) -> u64 {
        1_700_000_000
    }
    fn pause(&mut self, ms: u64) {
        self.now += ms.max(1);
        self.log("pause".into());
        assert!(self.now < self.guard_at, "the guard has ended the system");
        if let Some((_, state)) = self.flash_ends.take_if(|(at, _)| self.now >= *at) {
            self.processes.retain(|p| p.pid != FLASHCP);
            self.flash = Some(flash_record(state));
        }
    }
    fn guard(&mut self, ms: u64, ending: Ending) {
        assert!(ms > 0);
        self.guard_at = self.now + ms;
        self.log(format!("guard {ending:?}"));
    }
    fn say(&mut self, weight: Weight, line: &str) {
        self.said.push((weight, line.into()));
    }
    fn write_state(&mut self, path: &Path, record: &StateRecord, _limit: u64) -> io::Result<()> {
        let state = serde_json::to_value(record.state).unwrap();
        let stage = record.stage.clone().unwrap_or_default();
        self.call(format!("state {} {stage}", state.as_str().unwrap()))?;
        self.state.push((path.into(), record.clone()));
        Ok(())
    }
    fn reset_signals(&mut self) -> io::Result<()> {
        self.call("reset signals".into())
    }
    fn forbid_ctrl_alt_del(&mut self) -> io::Result<()> {
        self.call("forbid ctrl-alt-del".into())
    }
    fn panic_timeout(&mut self, seconds: u32) -> io::Result<()> {
        self.call(format!("panic timeout {seconds}"))
    }
    fn need_proc(&mut self) -> io::Result<()> {
        self.call("need /proc".into())
    }
    fn read_verb(&mut self) -> io::Result<Option<String>> {
        self.call("read verb".into())?;
        Ok(self.verb.clone())
    }
    fn read_text(&mut self, path: &Path) -> io::Result<String> {
        self.call(format!("read {}", path.display()))?;
        if path.ends_with("flash.json") {
            if self.now < self.flash_unread_until {
                return Err(error(libc::ENOMEM));
            }
            return self.flash.clone().ok_or_else(|| error(libc::ENOENT));
        }
        Ok(if path.ends_with("boot_id") { "b\n".into() } else { self.manifest.clone() })
    }
    fn read_head(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.call(format!("head {}", path.display()))?;
        Ok(b"#!/sbin/levitate init\n".to_vec())
    }
    fn look_at(&mut self, path: &Path) -> io::Result<FileFacts> {
        self.call(format!("look at {}", path.display()))?;
        Ok(FileFacts { regular: true, mode: if path.ends_with("init") { self.init_mode } else { 0o755 } })
    }
    fn mounts(&mut self) -> io::Result<Vec<Mount>> {
        self.call("mounts".into())?;
        Ok(self.table.clone())
    }
    fn watchdog_facts(&mut self) -> WatchdogFacts {
        self.log("watchdog facts".into());
        self.watchdog.clone()
    }
    fn adopt_watchdog(&mut self, fd: i32, device: &str) -> io::Result<Watchdog> {
        self.call(format!("adopt {device} {fd}"))?;
        Ok(Watchdog { device: device.into(), timeout_s: Some(60) })
    }
    fn open_watchdog(&mut self, device: &str) -> io::Result<Watchdog> {
        self.call(format!("open {device}"))?;
        Ok(Watchdog { device: device.into(), timeout_s: Some(60) })
    }
    fn signal_everybody(&mut self, signal: Everybody) -> io::Result<()> {
        self.call(format!("kill(-1) {signal:?}"))?;
        assert_eq!(self.flash_ends, None, "a process that changes flash is killed");
        let (polite, undying) = (self.polite.clone(), self.undying.clone());
        let shells = self.shells.clone();
        self.processes.retain(|p| {
            let ends = match signal {
                Everybody::Term => polite.contains(&p.pid),
                Everybody::Hangup => shells.contains(&p.pid),
                Everybody::Kill => !undying.contains(&p.pid),
            };
            !p.must_end() || !ends
        });
        Ok(())
    }
    fn processes(&mut self) -> io::Result<Vec<Process>> {
        self.call("processes".into())?;
        if self.unlisted_from.is_some_and(|from| self.calls.len() > from) {
            return Err(error(libc::ENOMEM));
        }
        Ok(self.processes.clone())
    }
    fn swaps(&mut self) -> io::Result<Vec<PathBuf>> {
        self.call("swaps".into())?;
        Ok(vec!["/dev/zram0".into()])
    }
    fn swapoff(&mut self, path: &Path, _limit: u64) -> io::Result<()> {
        self.call(format!("swapoff {}", path.display()))
    }
    fn attached(&mut self) -> Vec<Attached> {
        self.attached.clone()
    }
    fn detach(&mut self, device: &Attached, _limit: u64) -> io::Result<()> {
        self.call(format!("detach {device}"))?;
        // Busy until what lies on it is unmounted.
        if self.table.iter().any(|m| m.fstype == "ubifs") {
            return Err(error(libc::EBUSY));
        }
        self.attached.retain(|other| other != device);
        Ok(())
    }
    fn make_private(&mut self, path: &Path, reach: Reach) -> io::Result<()> {
        self.call(format!("private {} {reach:?}", path.display()))
    }
    fn bind_on_itself(&mut self, path: &Path) -> io::Result<()> {
        self.call(format!("bind {}", path.display()))?;
        let below = mounts::holding(&self.table, path).cloned().expect("a mount above");
        self.next_id += 1;
        let bind = Mount { id: self.next_id, parent: below.id, point: path.into(), ..below };
        self.table.push(bind);
        Ok(())
    }
    fn need_writable(&mut self, path: &Path, point: &Path) -> io::Result<()> {
        self.call(format!("writable {} {}", path.display(), point.display()))
    }
    fn plain_flags(&mut self, path: &Path) -> io::Result<()> {
        self.call(format!("plain flags {}", path.display()))
    }
    fn exec_self(&mut self, program: &Path, journey: &Journey) -> io::Result<()> {
        self.call(format!("exec {}", program.display()))?;
        self.resumed = Some(journey.clone());
        Ok(())
    }
    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        self.call(format!("mkdir {}", path.display()))
    }
    fn move_mount(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(format!("move {} {}", from.display(), to.display()))?;
        if from == Path::new(".") {
            // What was / is covered, and no longer shows.
            self.table.retain(|m| m.point.starts_with(STAGED));
            self.reroot(Path::new(STAGED), Path::new("/"));
            return Ok(());
        }
        let parent = mounts::holding(&self.table, to).map(|m| m.id);
        let moved = self.id_at(from).expect("a mount to move");
        for mount in self.table.iter_mut().filter(|m| m.id == moved) {
            mount.parent = parent.expect("a mount to move it to");
        }
        self.reroot(from, to);
        Ok(())
    }
    fn chdir(&mut self, path: &Path) -> io::Result<()> {
        self.call(format!("chdir {}", path.display()))
    }
    fn pivot_root(&mut self, new: &Path, old: &Path) -> io::Result<()> {
        self.call(format!("pivot_root {} {}", new.display(), old.display()))?;
        if let Some(errno) = self.pivot_error {
            return Err(error(errno));
        }
        let root = self.id_at(Path::new("/")).expect("a root");
        let staged = self.id_at(Path::new(STAGED)).expect("the bind");
        for mount in &mut self.table {
            mount.point = match mount.point.strip_prefix(STAGED) {
                Ok(rest) => Path::new("/").join(rest),
                Err(_) => mounts::below(Path::new("/oldroot"), &mount.point),
            };
            match mount.id {
                id if id == root => (mount.parent, mount.point) = (staged, "/oldroot".into()),
                id if id == staged => mount.parent = 1,
                _ => {}
            }
        }
        Ok(())
    }
    fn chroot(&mut self, path: &Path) -> io::Result<()> {
        self.call(format!("chroot {}", path.display()))
    }
    fn take_console(&mut self, dev: &Path) -> io::Result<()> {
        self.call(format!("console {}", dev.display()))
    }
    fn close_others(&mut self) -> io::Result<()> {
        self.call("close descriptors".into())
    }
    fn identity(&mut self, path: &Path) -> io::Result<Identity> {
        self.call(format!("identity {}", path.display()))?;
        Ok((8, 77))
    }
    fn sweep(&mut self, dir: &Path, keep: Identity, _skip: &[PathBuf]) -> io::Result<u64> {
        assert_eq!(keep, (8, 77));
        let here = mounts::at(&self.table, dir).expect("a mount to sweep");
        assert!(here.is_in_ram(), "{here:?} would be emptied");
        self.call(format!("sweep {}", dir.display()))?;
        Ok(1)
    }
    fn mount(&mut self, source: &str, fstype: &str, at: &Path, _limit: u64) -> io::Result<()> {
        self.call(format!("mount {source} {fstype} {}", at.display()))
    }
    fn unmount(&mut self, path: &Path, _limit: u64) -> io::Result<()> {
        self.call(format!("umount {}", path.display()))?;
        let Some(id) = self.id_at(path) else { return Err(error(libc::EINVAL)) };
        let has_more = self.table.iter().any(|m| m.parent == id);
        if has_more || path == Path::new("/") || self.stuck.iter().any(|stuck| stuck == path) {
            return Err(error(libc::EBUSY));
        }
        self.table.retain(|m| m.id != id);
        if !self.table.iter().any(|m| m.fstype == "jffs2") {
            self.processes.retain(|p| !p.name.starts_with("jffs2_gcd"));
        }
        Ok(())
    }
    fn remount_read_only(&mut self, path: &Path, _limit: u64) -> io::Result<()> {
        self.call(format!("read-only {}", path.display()))
    }
    fn mounts_of_others(&mut self) -> io::Result<Vec<Mount>> {
        self.call("tables of others".into())?;
        Ok(Vec::new())
    }
    fn open_exclusively(&mut self, major: u32, minor: u32, _limit: u64) -> io::Result<()> {
        self.call(format!("exclusive {major}:{minor}"))?;
        if self.busy.contains(&(major, minor)) { Err(error(libc::EBUSY)) } else { Ok(()) }
    }
    fn write_text(&mut self, path: &Path, text: &str) -> io::Result<()> {
        self.call(format!("write {}", path.display()))?;
        self.written.push((path.into(), text.into()));
        Ok(())
    }
    fn write_report(&mut self, path: &Path, report: &Report) -> io::Result<()> {
        self.call(format!("report {}", path.display()))?;
        self.report = Some(report.clone());
        Ok(())
    }
    fn exec_init(&mut self, init: &Path) -> io::Result<()> {
        self.call(format!("exec {}", init.display()))?;
        self.init_runs = true;
        Ok(())
    }
    fn sync(&mut self, _limit: u64) -> io::Result<()> {
        self.call("sync".into())
    }
    fn end(&mut self, ending: Ending) {
        self.log(format!("end {ending:?}"));
        self.endings.push(ending);
    }
}
