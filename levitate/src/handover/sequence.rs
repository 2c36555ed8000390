//! The stages in their order. The first half runs in the image that the old system executed, the second in the staged
//! copy of the same program, which keeps nothing of the old /run busy.

use std::path::{Path, PathBuf};

use super::check::{self, FLASH, Verb};
use super::journey::{Journey, OLD_ROOT, Run, StateHome, Step, Stop};
use super::mounts::{self, Mount, OldMount};
use super::report::{REPORT, StillMounted};
use super::seam::{Attached, Ending, HandoverSys, Reach};
use super::stage::Stage;
use super::watchdog::{self, Pending, Plan};
use crate::arming::record;
use crate::manifest::{MANIFEST, Manifest};

/// What is taken along, in this order: each with what is mounted on it.
const TAKEN_ALONG: [&str; 3] = ["dev", "proc", "sys"];
/// After so many seconds a kernel panic resets the board.
const PANIC_TIMEOUT_S: u32 = 10;
/// The guard fires so long after the deadline that the sequence keeps itself, so that the reason can still be recorded.
const GUARD_MARGIN_MS: u64 = 3_000;

/// From the old system's last instruction to the execve of the staged copy. Outside a test double it does not return.
pub fn first_half<S: HandoverSys>(sys: &mut S, staged: &Path) {
    let now = sys.now_ms();
    let mut run = Run { sys, journey: Journey::begin(now, staged) };
    if let Err(stop) = run.first_half() {
        run.finish(stop);
    }
}

/// The same where the old system's PID 1 has made the staged root / already, and says the verb.
pub fn first_half_pivoted<S: HandoverSys>(sys: &mut S, verb: &str) {
    let now = sys.now_ms();
    let mut run = Run { sys, journey: Journey::begin_pivoted(now, verb) };
    if let Err(stop) = run.first_half() {
        run.finish(stop);
    }
}

/// From there to the execve of the new init. Outside a test double it does not return.
pub fn second_half<S: HandoverSys>(sys: &mut S, journey: Journey) {
    let mut run = Run { sys, journey };
    if let Err(stop) = run.second_half() {
        run.finish(stop);
    }
}

impl<S: HandoverSys> Run<'_, S> {
    fn first_half(&mut self) -> Step {
        self.arm_guard();
        let watchdogs = self.check()?;
        self.enter(Stage::EndProcesses)?;
        self.end_everybody(watchdogs)?;
        self.keep_flash_record();
        self.enter(Stage::SwapAndLoops)?;
        self.swap_off();
        self.detach_devices();
        self.enter(Stage::Bind)?;
        self.bind()?;
        let program = self.journey.staged.join("sbin/levitate");
        self.sys.exec_self(&program, &self.journey).map_err(|e| Stop::because(execute(&program), &e))
    }

    fn second_half(&mut self) -> Step {
        self.arm_guard();
        let signals = self.sys.reset_signals();
        self.tolerate("reset the signals", signals);
        self.staged_root_is_a_mount()?;
        self.enter(Stage::MoveMounts)?;
        self.move_mounts()?;
        self.enter(Stage::Pivot)?;
        self.pivot()?;
        self.enter(Stage::LetGo)?;
        self.let_go()?;
        self.enter(Stage::Unmount)?;
        self.unmount_old_root()?;
        self.enter(Stage::Prove)?;
        self.prove()?;
        self.enter(Stage::Execute)?;
        self.execute()
    }

    pub(crate) fn arm_guard(&mut self) {
        let now = self.sys.now_ms();
        let ms = self.remaining(now).saturating_add(GUARD_MARGIN_MS);
        self.sys.guard(ms, Ending::Reset);
    }

    fn check(&mut self) -> Result<Vec<Pending>, Stop> {
        let signals = self.sys.reset_signals();
        self.tolerate("reset the signals", signals);
        let forbidden = self.sys.forbid_ctrl_alt_del();
        self.tolerate("forbid ctrl-alt-del", forbidden);
        self.sys.need_proc().map_err(|e| Stop::because("mount /proc", &e))?;
        let panic = self.sys.panic_timeout(PANIC_TIMEOUT_S);
        self.tolerate("set /proc/sys/kernel/panic", panic);

        let manifest = self.read_manifest();
        match &manifest {
            Ok(manifest) => {
                self.journey.limits = manifest.handover;
                self.journey.state_file.clone_from(&manifest.state_file);
                self.arm_guard();
                self.look_for_state_file(manifest.state_home.clone());
            }
            Err(_) => self.ask_the_record_of_arming(),
        }
        // Before anything that can end in a reset or a poweroff. Who fed a watchdog may be gone, so that comes first.
        let mut watchdogs = self.take_watchdogs(manifest.as_ref().ok());
        self.let_flash_writer_finish(&mut watchdogs);
        let verb = match self.journey.verb.clone() {
            Some(verb) => Some(verb),
            None => self.sys.read_verb().map_err(|e| Stop::because("read the verb", &e))?,
        };
        match Verb::parse(verb.as_deref()) {
            Verb::Reboot => {}
            Verb::Poweroff => return Err(Stop::NotAsked(Ending::Poweroff)),
            Verb::Halt => return Err(Stop::NotAsked(Ending::Halt)),
            Verb::Kexec => return Err(Stop::NotAsked(Ending::Kexec)),
            Verb::Unknown(word) => {
                return Err(Stop::Failed(format!(
                    "the verb {word:?} is none of reboot, poweroff, halt, kexec"
                )));
            }
        }
        manifest.map_err(Stop::Failed)?;
        self.enter(Stage::Check)?;
        self.staged_root_is_whole()?;

        let mounts = self.mounts()?;
        let old_root = self.journey.old_root.clone();
        self.journey.root_mount =
            mounts::at(&mounts, &old_root).map(|mount| OldMount::of(mount, Path::new("/")));
        if self.journey.is_pivoted() && self.journey.root_mount.is_none() {
            return Err(Stop::Failed(format!(
                "expected the old root at {OLD_ROOT}, found nothing mounted there"
            )));
        }
        self.journey.flash = mounts
            .iter()
            .filter(|m| m.is_on_flash())
            .map(|m| OldMount::of(m, &mounts::old_name(&m.point, &old_root)))
            .collect();
        Ok(watchdogs)
    }

    /// Some inits unmount everything before they execute the hand-over. `home` is where the state file lay when the root
    /// was staged.
    fn look_for_state_file(&mut self, home: Option<StateHome>) {
        let Some(home) = home else { return };
        let Ok(mounts) = self.sys.mounts() else { return };
        let is_there = |m: &Mount| m.source == home.source && m.fstype == home.fstype;
        if !mounts.iter().any(is_there) {
            self.journey.state_file = None;
            self.journey.state_home = Some(home);
        }
    }

    /// A manifest that cannot be used says nothing about the state file, and that is where the reason has to go.
    fn ask_the_record_of_arming(&mut self) {
        let text = self.sys.read_text(&Path::new("/").join(record::ARMED)).unwrap_or_default();
        if let Some(state) = record::state_at(&text) {
            self.journey.state_file = Some(state.file);
            self.look_for_state_file(state.home);
        }
    }

    /// Takes over every watchdog that can be had now; answers those that somebody else still holds.
    fn take_watchdogs(&mut self, manifest: Option<&Manifest>) -> Vec<Pending> {
        let facts = self.sys.watchdog_facts();
        // systemd starts the first one for the way down, and leaves it running
        let of_systemd = facts.unknown.first().filter(|_| self.journey.is_pivoted());
        let staged = manifest.map(|manifest| manifest.watchdogs.as_slice()).unwrap_or_default();
        let left: Vec<String> = of_systemd.into_iter().chain(staged).cloned().collect();
        let mut pending = Vec::new();
        for plan in watchdog::plan(&facts, &left) {
            match plan {
                Plan::Adopt { fd, device } => match self.sys.adopt_watchdog(fd, &device) {
                    Ok(watchdog) => self.journey.watchdogs.push(watchdog),
                    Err(e) => self.note(format!("take over {device}: {e}")),
                },
                Plan::TakeNow { device } => {
                    if !self.take_watchdog(&device) {
                        pending.push(Pending { device, holders: Vec::new() });
                    }
                }
                Plan::TakeWhenFree(held) => pending.push(held),
            }
        }
        pending
    }

    /// The manifest, or the sentence that says why it is none.
    fn read_manifest(&mut self) -> Result<Manifest, String> {
        let boot_id = Path::new("/proc/sys/kernel/random/boot_id");
        let read = |path: &Path, e: std::io::Error| format!("read {}: {e}", path.display());
        let boot_id = self.sys.read_text(boot_id).map_err(|e| read(boot_id, e))?;
        boot_id.trim().clone_into(&mut self.journey.boot_id);
        let path = self.journey.staged.join(MANIFEST);
        let text = self.sys.read_text(&path).map_err(|e| read(&path, e))?;
        check::manifest(&text, &self.journey.boot_id, &path)
    }

    fn staged_root_is_whole(&mut self) -> Step {
        let staged = self.journey.staged.clone();
        let init = staged.join("sbin/init");
        self.is_executable("staged init", &init)?;
        let head =
            self.sys.read_head(&init).map_err(|e| Stop::because(format!("read {}", init.display()), &e))?;
        if let Some(program) = check::interpreter(&head, &init, &staged).map_err(Stop::Failed)? {
            self.is_executable("the staged init's interpreter", &program)?;
        }
        self.is_executable("staged program", &staged.join("sbin/levitate"))
    }

    fn is_executable(&mut self, what: &str, path: &Path) -> Step {
        let facts =
            self.sys.look_at(path).map_err(|e| Stop::because(format!("{what} {}", path.display()), &e))?;
        check::executable(what, path, facts).map_err(Stop::Failed)
    }

    fn swap_off(&mut self) {
        match self.sys.swaps() {
            Ok(swaps) => {
                for swap in swaps {
                    let limit = self.limit();
                    let off = self.sys.swapoff(&swap, limit);
                    self.tolerate(format!("swapoff {}", swap.display()), off);
                }
            }
            Err(e) => self.note(format!("read /proc/swaps: {e}")),
        }
    }

    /// Detaches what can be detached but for what the state file lies on, which is let go last of all: a failure's
    /// reason has still to be written there. What is busy still gets its second chance when the file systems are gone.
    pub(crate) fn detach_devices(&mut self) {
        let source = self.journey.state_home.as_ref().map(|home| home.source.clone());
        let goes = |device: &Attached| !source.as_ref().is_some_and(|source| device.holds(source));
        self.detach(&goes);
    }

    /// Detaches those; answers what would not go.
    fn detach(&mut self, goes: &dyn Fn(&Attached) -> bool) -> Vec<(Attached, String)> {
        let mut busy = Vec::new();
        for device in self.sys.attached().into_iter().filter(goes) {
            let limit = self.limit();
            if let Err(e) = self.sys.detach(&device, limit) {
                busy.push((device, e.to_string()));
            }
        }
        busy
    }

    /// Detaches what is left, and reports what cannot be: `flashcp` refuses the flash below it.
    fn detach_the_last(&mut self) {
        for (device, e) in self.detach(&|_| true) {
            match device {
                Attached::Ubi { number, mtd } => self.journey.still_mounted.push(StillMounted {
                    path: format!("/dev/ubi{number}"),
                    source: mtd.map_or_else(|| "mtd".to_owned(), |n| format!("/dev/mtd{n}")),
                    fstype: "ubi".to_owned(),
                    reason: e,
                    read_only: false,
                    device: None,
                }),
                Attached::Loop { .. } => self.note(format!("detach {device}: {e}")),
            }
        }
    }

    fn bind(&mut self) -> Step {
        let root = Path::new("/");
        self.sys.make_private(root, Reach::All).map_err(|e| Stop::because("make all mounts private", &e))?;
        let staged = self.journey.staged.clone();
        let mounts = self.mounts()?;
        if let Some(mount) = mounts::holding(&mounts, &staged) {
            // `umount -a -r`, the last thing that some systems do, makes it read-only where it is busy
            let writable = self.sys.need_writable(&staged, &mount.point);
            self.tolerate(format!("make {} writable", mount.point.display()), writable);
        }
        if mounts::at(&mounts, &staged).is_none() {
            let bound = self.sys.bind_on_itself(&staged);
            bound.map_err(|e| Stop::because(format!("bind {} on itself", staged.display()), &e))?;
        }
        let private = self.sys.make_private(&staged, Reach::One);
        private.map_err(|e| Stop::because(format!("make {} private", staged.display()), &e))?;
        let flags = self.sys.plain_flags(&staged);
        self.tolerate(format!("allow programs and devices in {}", staged.display()), flags);
        Ok(())
    }

    /// A second half that was not reached through the bind would chroot at best, and hide the old root underneath.
    fn staged_root_is_a_mount(&mut self) -> Step {
        let mounts = self.mounts()?;
        match mounts::at(&mounts, &self.journey.staged) {
            Some(_) => Ok(()),
            None => Err(Stop::Failed(format!("{} is not a mount", self.journey.staged.display()))),
        }
    }

    fn move_mounts(&mut self) -> Step {
        let mounts = self.mounts()?;
        for name in TAKEN_ALONG {
            let from = self.journey.old_root.join(name);
            let to = self.journey.staged.join(name);
            if mounts::at(&mounts, &from).is_none() || mounts::at(&mounts, &to).is_some() {
                continue;
            }
            let what = format!("move {} to {}", from.display(), to.display());
            self.sys.make_dir(&to).map_err(|e| Stop::because(format!("create {}", to.display()), &e))?;
            let limit = self.limit();
            self.sys.move_mount(&from, &to, limit).map_err(|e| Stop::because(what, &e))?;
        }
        // `umount -a -r` again: devices that turn up later need a node
        let dev = self.journey.staged.join("dev");
        let writable = self.sys.need_writable(&dev, &dev);
        self.tolerate(format!("make {} writable", dev.display()), writable);
        Ok(())
    }

    fn let_go(&mut self) -> Step {
        self.close_descriptors(Path::new("/dev"))?;
        self.give_back_run()?;
        let old_root = self.journey.old_root.clone();
        self.sweep_ram_below(&old_root);
        Ok(())
    }

    /// Lets go of every descriptor of the old system, but for the console of `dev` and the watchdogs.
    pub(crate) fn close_descriptors(&mut self, dev: &Path) -> Step {
        let limit = self.limit();
        self.sys.take_console(dev, limit).map_err(|e| Stop::because("open the console", &e))?;
        let limit = self.limit();
        self.sys.close_others(limit).map_err(|e| Stop::because("close the old system's descriptors", &e))
    }

    /// systemd binds the old /run into the new root. What was needed of it is read by now.
    fn give_back_run(&mut self) -> Step {
        let mounts = self.mounts()?;
        let run = Path::new("/run");
        if mounts::at(&mounts, run).is_some() {
            let limit = self.limit();
            let gone = self.sys.unmount(run, limit);
            self.tolerate("unmount the old /run", gone);
        }
        Ok(())
    }

    /// Removes what shares the staged root's file system but is not the staged root: unmounting the old /run frees none
    /// of it, because the staged root keeps the file system alive.
    pub(crate) fn sweep_ram_below(&mut self, old_root: &Path) {
        let staged = self.journey.staged.clone();
        let (Ok(keep), Ok(mounts)) = (self.sys.identity(&staged), self.sys.mounts()) else {
            self.note(format!("look at {}: what is left of the old /run stays", staged.display()));
            return;
        };
        let Some((major, minor)) = mounts::at(&mounts, &staged).map(|m| (m.major, m.minor)) else { return };
        let points: Vec<PathBuf> = mounts.iter().map(|m| m.point.clone()).collect();
        // The initramfs's own root is never a pivot's old root; it is emptied as well where the staged root replaces it.
        let ours =
            |m: &&Mount| m.is_in_ram() && ((m.major, m.minor) == (major, minor) || m.fstype == "rootfs");
        for mount in mounts.iter().filter(ours) {
            // What is covered cannot be reached, and what covers it is not ours to empty.
            let shows = mounts::at(&mounts, &mount.point).is_some_and(|top| top.id == mount.id);
            if shows && mount.point.starts_with(old_root) && mount.point != staged {
                let limit = self.limit();
                let swept = self.sys.sweep(mount, keep, &points, limit);
                self.tolerate(format!("empty {}", mount.point.display()), swept);
            }
        }
    }

    fn execute(&mut self) -> Step {
        self.detach_the_last();
        if let Some(record) = self.journey.flash_record.take() {
            let written = self.sys.write_text(Path::new(FLASH), &record);
            self.tolerate(format!("write {FLASH}"), written);
        }
        let now = self.sys.now_ms();
        let seconds = self.sys.unix_seconds();
        let report = self.journey.report(now, seconds);
        let written = self.sys.write_report(Path::new(REPORT), &report);
        self.tolerate(format!("write {REPORT}"), written);
        let init = Path::new("/sbin/init");
        self.sys.exec_init(init).map_err(|e| Stop::because(execute(init), &e))
    }
}

fn execute(program: &Path) -> String {
    format!("execute {}", program.display())
}
