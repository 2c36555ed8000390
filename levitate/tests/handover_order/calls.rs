//! The double as the kernel that the hand-over asks: each call is logged, may fail, and changes the double's tables.

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

use super::double::{Double, FLASHCP, STAGED, error, flash_record};

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
        if path == Path::new("/run/levitate/armed.json") {
            return self.armed.clone().ok_or_else(|| error(libc::ENOENT));
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
    fn hang_up(&mut self, pid: i32) -> io::Result<()> {
        self.call(format!("kill({pid}) Hangup"))?;
        self.processes.retain(|p| p.pid != pid || !self.shells.contains(&pid));
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
    fn move_mount(&mut self, from: &Path, to: &Path, limit: u64) -> io::Result<()> {
        self.call(format!("move {} {}", from.display(), to.display()))?;
        self.looks_at(from, limit)?;
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
    fn take_console(&mut self, dev: &Path, _limit: u64) -> io::Result<()> {
        self.call(format!("console {}", dev.display()))
    }
    fn close_others(&mut self, _limit: u64) -> io::Result<()> {
        self.call("close descriptors".into())
    }
    fn identity(&mut self, path: &Path) -> io::Result<Identity> {
        self.call(format!("identity {}", path.display()))?;
        Ok((8, 77))
    }
    fn sweep(&mut self, mount: &Mount, keep: Identity, skip: &[PathBuf], limit: u64) -> io::Result<()> {
        assert_eq!(keep, (8, 77));
        let dir = mount.point.as_path();
        let here = mounts::at(&self.table, dir).expect("a mount to sweep");
        assert_eq!(here, mount, "it does not show there");
        assert!(here.is_in_ram(), "{here:?} would be emptied");
        self.call(format!("sweep {}", dir.display()))?;
        // Of what is mounted below only that is not looked at which it is told to skip.
        let below = |m: &&Mount| m.point != dir && m.point.starts_with(dir) && !skip.contains(&m.point);
        let seen: Vec<PathBuf> = self.table.iter().filter(below).map(|m| m.point.clone()).collect();
        seen.iter().try_for_each(|point| self.looks_at(point, limit))?;
        self.looks_at(dir, limit)
    }
    fn mount(&mut self, source: &str, fstype: &str, at: &Path, _limit: u64) -> io::Result<()> {
        self.call(format!("mount {source} {fstype} {}", at.display()))?;
        // a volume that no device shows is not there
        if fstype == "ubifs" && !self.attached.iter().any(|device| device.holds(source)) {
            return Err(error(libc::ENODEV));
        }
        Ok(())
    }
    fn unmount(&mut self, path: &Path, limit: u64) -> io::Result<()> {
        self.call(format!("umount {}", path.display()))?;
        let Some(id) = self.id_at(path) else { return Err(error(libc::EINVAL)) };
        let has_more = self.table.iter().any(|m| m.parent == id);
        // It leaves the table first, and what keeps the kernel busy after that shows nowhere.
        if self.lingering.iter().any(|lingering| lingering == path) && !has_more {
            self.table.retain(|m| m.id != id);
            return self.blocks(limit);
        }
        if has_more || path == Path::new("/") || self.stuck.iter().any(|stuck| stuck == path) {
            return Err(error(libc::EBUSY));
        }
        self.table.retain(|m| m.id != id);
        if !self.table.iter().any(|m| m.fstype == "jffs2") {
            self.processes.retain(|p| !p.name.starts_with("jffs2_gcd"));
        }
        Ok(())
    }
    fn remount_read_only(&mut self, path: &Path, limit: u64) -> io::Result<()> {
        self.call(format!("read-only {}", path.display()))?;
        if let Some(here) = mounts::at(&self.table, path) {
            assert!(!here.is_in_ram(), "{here:?} may be the file system of the staged root");
        }
        self.looks_at(path, limit)
    }
    fn mounts_of_others(&mut self) -> io::Result<Vec<Mount>> {
        self.call("tables of others".into())?;
        Ok(Vec::new())
    }
    fn open_exclusively(&mut self, major: u32, minor: u32, _limit: u64) -> io::Result<()> {
        self.call(format!("exclusive {major}:{minor}"))?;
        if let Some(errno) = self.probe_error {
            return Err(error(errno));
        }
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
