//! The seam's methods.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::voice::Voice;
use super::{Kernel, child, descriptors, devices, files, guard, image, proc, sweep, watchdog};
use crate::handover::journey::Journey;
use crate::handover::mounts::Mount;
use crate::handover::processes::Process;
use crate::handover::report::{Report, Watchdog};
use crate::handover::seam::{Attached, Ending, Everybody, FileFacts, HandoverSys, Identity, Reach, Weight};
use crate::handover::watchdog::WatchdogFacts;
use crate::state::{self, StateRecord};

/// At most so long asleep without a look at who died, in milliseconds.
const NAP_MS: u64 = 10;

impl HandoverSys for Kernel {
    fn now_ms(&mut self) -> u64 {
        image::now_ms()
    }

    fn unix_seconds(&mut self) -> u64 {
        state::seconds_since_1970()
    }

    fn pause(&mut self, ms: u64) {
        let end = image::now_ms().saturating_add(ms);
        loop {
            child::reap_all();
            self.feed();
            let left = end.saturating_sub(image::now_ms());
            if left == 0 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(left.min(NAP_MS)));
        }
    }

    fn guard(&mut self, ms: u64, ending: Ending) {
        guard::arm(ms, ending);
    }

    fn say(&mut self, weight: Weight, line: &str) {
        self.feed();
        self.voice.say(weight, line);
    }

    fn write_state(&mut self, path: &Path, record: &StateRecord, limit: u64) -> io::Result<()> {
        self.in_child(limit, || files::write_state(path, record))
    }

    fn reset_signals(&mut self) -> io::Result<()> {
        guard::reset_signals()
    }

    fn forbid_ctrl_alt_del(&mut self) -> io::Result<()> {
        Ok(nix::sys::reboot::set_cad_enabled(false)?)
    }

    fn panic_timeout(&mut self, seconds: u32) -> io::Result<()> {
        files::panic_timeout(seconds)
    }

    fn need_proc(&mut self) -> io::Result<()> {
        if proc::directory(&self.staged).is_some() {
            return Ok(());
        }
        Ok(mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?)
    }

    fn read_verb(&mut self) -> io::Result<Option<String>> {
        files::read_verb()
    }

    fn read_text(&mut self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn read_head(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        files::read_head(path)
    }

    fn look_at(&mut self, path: &Path) -> io::Result<FileFacts> {
        files::look_at(path)
    }

    fn mounts(&mut self) -> io::Result<Vec<Mount>> {
        proc::mounts(&self.staged)
    }

    fn watchdog_facts(&mut self) -> WatchdogFacts {
        watchdog::facts(Path::new("/"))
    }

    fn adopt_watchdog(&mut self, fd: i32, device: &str) -> io::Result<Watchdog> {
        // Our own init names it in the environment as well: it is held already.
        if let Some(held) = self.watchdogs.iter().find(|held| held.number() == fd) {
            return Ok(held.describe());
        }
        Ok(self.hold(watchdog::Held::adopt(fd, device)?))
    }

    fn open_watchdog(&mut self, device: &str) -> io::Result<Watchdog> {
        Ok(self.hold(watchdog::Held::open(device)?))
    }

    fn signal_everybody(&mut self, signal: Everybody) -> io::Result<()> {
        let everybody = Pid::from_raw(-1);
        match signal {
            Everybody::Term => {
                kill(everybody, Signal::SIGTERM)?;
                kill(everybody, Signal::SIGCONT)?;
            }
            Everybody::Hangup => {
                kill(everybody, Signal::SIGHUP)?;
                kill(everybody, Signal::SIGCONT)?;
            }
            Everybody::Kill => kill(everybody, Signal::SIGKILL)?,
        }
        Ok(())
    }

    fn hang_up(&mut self, pid: i32) -> io::Result<()> {
        kill(Pid::from_raw(pid), Signal::SIGHUP)?;
        Ok(kill(Pid::from_raw(pid), Signal::SIGCONT)?)
    }

    fn processes(&mut self) -> io::Result<Vec<Process>> {
        proc::processes(&self.staged)
    }

    fn swaps(&mut self) -> io::Result<Vec<PathBuf>> {
        devices::swaps()
    }

    fn swapoff(&mut self, path: &Path, limit: u64) -> io::Result<()> {
        self.in_child(limit, || devices::swapoff(path))
    }

    fn attached(&mut self) -> Vec<Attached> {
        devices::attached()
    }

    fn detach(&mut self, device: &Attached, limit: u64) -> io::Result<()> {
        self.in_child(limit, || devices::detach(device))
    }

    fn make_private(&mut self, path: &Path, reach: Reach) -> io::Result<()> {
        let flags = match reach {
            Reach::One => MsFlags::MS_PRIVATE,
            Reach::All => MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        };
        Ok(mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?)
    }

    fn bind_on_itself(&mut self, path: &Path) -> io::Result<()> {
        Ok(mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    }

    fn need_writable(&mut self, path: &Path, point: &Path) -> io::Result<()> {
        if nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok() {
            return Ok(());
        }
        Ok(mount(None::<&str>, point, None::<&str>, MsFlags::MS_REMOUNT, None::<&str>)?)
    }

    fn plain_flags(&mut self, path: &Path) -> io::Result<()> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        Ok(mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?)
    }

    fn exec_self(&mut self, program: &Path, journey: &Journey) -> io::Result<()> {
        Err(image::exec_self(program, journey, &self.watchdogs))
    }

    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn move_mount(&mut self, from: &Path, to: &Path, limit: u64) -> io::Result<()> {
        self.in_child(limit, || mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>))
    }

    fn chdir(&mut self, path: &Path) -> io::Result<()> {
        Ok(nix::unistd::chdir(path)?)
    }

    fn pivot_root(&mut self, new: &Path, old: &Path) -> io::Result<()> {
        Ok(nix::unistd::pivot_root(new, old)?)
    }

    fn chroot(&mut self, path: &Path) -> io::Result<()> {
        Ok(nix::unistd::chroot(path)?)
    }

    fn take_console(&mut self, dev: &Path, limit: u64) -> io::Result<()> {
        self.on_our_descriptors(limit, &|| descriptors::take_console(dev))?;
        // The old descriptors of the voice are closed here, before all others are: they are owned by these objects.
        self.voice = Voice::open(dev);
        Ok(())
    }

    fn close_others(&mut self, limit: u64) -> io::Result<()> {
        let dev = self.voice.close();
        let kept: Vec<i32> = self.watchdogs.iter().map(watchdog::Held::number).collect();
        let closed = self.on_our_descriptors(limit, &|| descriptors::close_others(&kept));
        self.voice = Voice::open(&dev);
        closed
    }

    fn identity(&mut self, path: &Path) -> io::Result<Identity> {
        sweep::identity(path)
    }

    fn sweep(&mut self, mount: &Mount, keep: Identity, skip: &[PathBuf], limit: u64) -> io::Result<()> {
        let device = sweep::device(mount);
        self.in_child(limit, || {
            let swept = sweep::sweep(&mount.point, device, keep, skip);
            swept.map(drop).map_err(|e| devices::errno(&e))
        })
    }

    fn mount(&mut self, source: &str, fstype: &str, at: &Path, limit: u64) -> io::Result<()> {
        self.in_child(limit, || mount(Some(source), at, Some(fstype), MsFlags::empty(), None::<&str>))
    }

    fn unmount(&mut self, path: &Path, limit: u64) -> io::Result<()> {
        self.in_child(limit, || nix::mount::umount(path))
    }

    fn remount_read_only(&mut self, path: &Path, limit: u64) -> io::Result<()> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        self.in_child(limit, || mount(None::<&str>, path, None::<&str>, flags, None::<&str>))
    }

    fn mounts_of_others(&mut self) -> io::Result<Vec<Mount>> {
        proc::mounts_of_others(&self.staged)
    }

    fn open_exclusively(&mut self, major: u32, minor: u32, limit: u64) -> io::Result<()> {
        self.in_child(limit, || devices::open_exclusively(major, minor))
    }

    fn write_text(&mut self, path: &Path, text: &str) -> io::Result<()> {
        files::write_text(path, text.as_bytes())
    }

    fn write_report(&mut self, path: &Path, report: &Report) -> io::Result<()> {
        files::write_report(path, report)
    }

    fn exec_init(&mut self, init: &Path) -> io::Result<()> {
        Err(image::exec_init(init, &self.watchdogs))
    }

    fn sync(&mut self, limit: u64) -> io::Result<()> {
        self.in_child(limit, || {
            nix::unistd::sync();
            Ok(())
        })
    }

    fn end(&mut self, ending: Ending) {
        guard::end(ending)
    }
}
