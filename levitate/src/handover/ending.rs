//! Ending everybody, but not who changes flash: that one is let finish. TERM, HUP for shells, a grace that ends early,
//! KILL until nobody is left. And the end of the journey itself where
//! it does not reach the new init: failure, poweroff and halt.

use std::path::Path;

use ramdisk::init::interlock::Reading;

use super::check::{self, FLASH};
use super::journey::{OLD_ROOT, Run, Stop};
use super::mounts::{self, Mount};
use super::processes::Process;
use super::report::Survivor;
use super::seam::{Ending, Everybody, HandoverSys, Weight};
use super::stage::Stage;
use super::watchdog::Pending;

/// Between two looks at who is left, in milliseconds.
const LOOK_MS: u64 = 10;
/// From TERM to HUP for everybody who is left, in milliseconds. Shells at a terminal ignore TERM, and their supervisors
/// wait for them: they get it at once. This is for those whose handler of TERM does nothing.
const HANGUP_AFTER_MS: u64 = 100;
/// Between two looks at a writer of flash, in milliseconds: it has minutes to go, and needs the processor.
const FLASH_LOOK_MS: u64 = 250;
/// Between two lines that say who is waited for, in milliseconds.
const TELL_MS: u64 = 10_000;
/// So often a flash record that cannot be read is tried.
const RECORD_TRIES: u32 = 8;
/// A longer flash record is none of `flashcp`'s, and would not fit into the arguments of the second image, in bytes.
const LONGEST_RECORD: usize = 32 * 1024;
/// At most this long for one unmount or remount on the way to a reset, in milliseconds: it is a courtesy by then.
const COURTESY_MS: u64 = 2_000;

impl<S: HandoverSys> Run<'_, S> {
    /// Waits for a `flashcp` of the old system, however long it lives: to kill it, and a reset kills it too, is to leave
    /// flash half written. Its time is not counted as the hand-over's. `watchdogs` are as for [`Run::end_everybody`].
    pub(crate) fn let_flash_writer_finish(&mut self, watchdogs: &mut Vec<Pending>) {
        let began = self.sys.now_ms();
        let spent = began.saturating_sub(self.journey.started_ms);
        let mut told = None;
        while let Some(writer) = self.flash_writer(watchdogs) {
            let now = self.sys.now_ms();
            self.journey.started_ms = now.saturating_sub(spent);
            self.arm_guard();
            if told.is_none_or(|told| now.saturating_sub(told) >= TELL_MS) {
                self.sys.say(Weight::Progress, &format!("waiting for {writer}, which is changing flash"));
                told = Some(now);
            }
            self.sys.pause(FLASH_LOOK_MS);
        }
        if told.is_some() {
            let now = self.sys.now_ms();
            self.journey.started_ms = now.saturating_sub(spent);
            self.arm_guard();
            let seconds = now.saturating_sub(began) / 1_000;
            self.note(format!("waited {seconds} s for a flashcp of the old system to finish"));
        }
    }

    /// Who is changing flash, for a sentence.
    fn flash_writer(&mut self, watchdogs: &mut Vec<Pending>) -> Option<String> {
        let (reading, _) = self.read_flash_record();
        if reading == Reading::Absent {
            return None;
        }
        let alive = self.look(watchdogs).ok();
        check::flash_writer(&reading, alive.as_deref())
    }

    /// The record and its text. One that cannot be read is looked at again: too little memory for a moment, perhaps.
    fn read_flash_record(&mut self) -> (Reading, Option<String>) {
        let path = Path::new(FLASH);
        let mut tries = 1;
        loop {
            let read = self.sys.read_text(path);
            let text = read.as_ref().ok().cloned();
            let reading = Reading::of(path, read);
            if text.is_some() || reading == Reading::Absent || tries >= RECORD_TRIES {
                return (reading, text);
            }
            tries += 1;
            self.sys.pause(FLASH_LOOK_MS);
        }
    }

    /// Takes the flash record along unless all is well, so that `reboot` in the maintenance root knows that flash is
    /// half written. Nobody is left to change it by now. One that cannot be understood comes along as well.
    pub(crate) fn keep_flash_record(&mut self) {
        let (reading, text) = self.read_flash_record();
        let Some(record) = check::record_to_keep(&reading, text.as_deref(), LONGEST_RECORD) else { return };
        if let Reading::Unknown(why) = reading {
            self.note(why);
        }
        self.note("flash was changed in the old system and not verified".to_owned());
        self.journey.flash_record = Some(record);
    }

    /// Ends every process but this one; `watchdogs` are those to be taken over while their holders go. Survivors go into
    /// the report: a process that is stuck in the kernel must not hold up PID 1, and if it holds the old root, the
    /// unmounting finds out.
    pub(crate) fn end_everybody(&mut self, mut watchdogs: Vec<Pending>) -> Result<(), Stop> {
        self.signal(Everybody::Term);
        let started = self.sys.now_ms();
        let grace = self.journey.limits.term_grace_ms.min(self.remaining(started));
        let mut left = self.look(&mut watchdogs);
        for process in left.iter().flatten().filter(|process| process.wants_hangup) {
            // who has just ended needs none, and everybody who is left gets one later
            let _ = self.sys.hang_up(process.pid);
        }
        let mut hung_up = false;
        // Whoever cannot be looked at may be there.
        while left.as_ref().map_or(true, |left| !left.is_empty())
            && self.sys.now_ms().saturating_sub(started) < grace
        {
            if !hung_up && self.sys.now_ms().saturating_sub(started) >= HANGUP_AFTER_MS {
                self.signal(Everybody::Hangup);
                hung_up = true;
            }
            self.sys.pause(LOOK_MS);
            left = self.look(&mut watchdogs);
        }
        // Also when nobody is seen: a process may have been born behind the reader of /proc.
        let started = self.sys.now_ms();
        let patience = self.limit();
        loop {
            self.signal(Everybody::Kill);
            self.sys.pause(LOOK_MS);
            left = self.look(&mut watchdogs);
            let nobody = left.as_ref().is_ok_and(Vec::is_empty);
            if nobody || self.sys.now_ms().saturating_sub(started) >= patience {
                break;
            }
        }
        for process in left? {
            let Process { pid, name, state, .. } = process;
            self.note(format!("process {pid} ({name}) did not die, its state is {state}"));
            self.journey.survivors.push(Survivor { pid, name, state });
        }
        for Pending { device, .. } in watchdogs {
            self.note(format!("{device} was not taken over: somebody still holds it"));
        }
        Ok(())
    }

    fn signal(&mut self, signal: Everybody) {
        // ESRCH: nobody is there to be signalled.
        if let Err(e) = self.sys.signal_everybody(signal)
            && e.raw_os_error() != Some(libc::ESRCH)
        {
            self.note(format!("send {signal:?} to all processes: {e}"));
        }
    }

    /// Who must still end; takes a watchdog in the moment it is free.
    fn look(&mut self, watchdogs: &mut Vec<Pending>) -> Result<Vec<Process>, Stop> {
        let mut left = self.sys.processes().map_err(|e| Stop::because("list the processes", &e))?;
        left.retain(Process::must_end);
        let is_held = |pending: &Pending| left.iter().any(|process| pending.holders.contains(&process.pid));
        watchdogs.retain(|pending| is_held(pending) || !self.take_watchdog(&pending.device));
        Ok(left)
    }

    /// Opens a watchdog that runs. `false` if it is held still, and worth another try.
    pub(crate) fn take_watchdog(&mut self, device: &str) -> bool {
        match self.sys.open_watchdog(device) {
            Ok(watchdog) => self.journey.watchdogs.push(watchdog),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => return false,
            Err(e) => self.note(format!("open {device}: {e}")),
        }
        true
    }

    /// Ends the journey with reboot(2): says and records why, then leaves the disks in as good a state as can be had in
    /// bounded time. Never returns outside a test double.
    pub(crate) fn finish(&mut self, stop: Stop) {
        let limits = self.journey.limits;
        // Whatever blocks from here on, the end comes, and it is the one that was asked for.
        let ending = match &stop {
            Stop::NotAsked(ending) => *ending,
            Stop::Failed(_) => Ending::Reset,
        };
        let courtesy = limits.term_grace_ms.saturating_add(limits.call_ms.saturating_mul(2));
        self.sys.guard(courtesy.saturating_add(1_000), ending);
        if let Stop::Failed(reason) = stop {
            let stage = self.journey.stage;
            self.sys.say(
                Weight::Failure,
                &format!("hand-over failed at stage {stage}: {reason}; resetting into the old system"),
            );
            if let Err(e) = self.record_failure(&reason) {
                self.sys.say(Weight::Note, &format!("write the state file: {e}"));
            }
        }
        self.leave_disks_clean();
        self.sys.end(ending);
    }

    /// Ends who still lives, syncs, unmounts or makes read-only what keeps data. Nothing here can fail the reset.
    fn leave_disks_clean(&mut self) {
        // The whole's deadline may be what brought us here: courtesy has its own time, bounded by the guard.
        let now = self.sys.now_ms();
        self.journey.started_ms = now;
        if self.journey.stage <= Stage::EndProcesses {
            // Past the look at the processes the answer is of no use any more.
            let _ = self.end_everybody(Vec::new());
        }
        let limit = self.limit();
        if let Err(e) = self.sys.sync(limit) {
            self.sys.say(Weight::Note, &format!("sync: {e}"));
            return;
        }
        let Ok(table) = self.sys.mounts() else { return };
        let goes = |m: &Mount| m.keeps_data() || m.point.starts_with(OLD_ROOT);
        for mount in mounts::unmount_order(&table, Path::new("/")).into_iter().filter(goes) {
            let limit = self.limit().min(COURTESY_MS);
            if self.sys.unmount(&mount.point, limit).is_err() {
                let limit = self.limit().min(COURTESY_MS);
                // A root that cannot be unmounted is the rule here, and its journal copes with what is left.
                let _ = self.sys.remount_read_only(&mount.point, limit);
            }
        }
    }
}
