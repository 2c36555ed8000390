//! What `leave` waits for, and when it gives up: who changes flash has all the time it takes, PID 1 has seconds.

use std::io;

use ramdisk::init::interlock::Gate;

/// PID 1 does what it is told within seconds, if it does it at all. In milliseconds.
const PATIENCE_MS: u64 = 30_000;
/// Between two looks, in milliseconds.
const LOOK_MS: u64 = 250;
/// Between two lines that say who is waited for, in milliseconds.
const TELL_MS: u64 = 10_000;
/// For what is still to be written to disks before the last reset: a disk that answers no more must not keep the board
/// from it. In milliseconds.
const SYNC_MS: u64 = 5_000;

/// What is asked of the system, so that the order can be tested without a board.
pub(super) trait Leaving {
    /// Milliseconds on a clock that only goes forward.
    fn now_ms(&mut self) -> u64;
    /// Waits.
    fn pause(&mut self, ms: u64);
    /// One line for whoever is there.
    fn say(&mut self, line: &str);
    /// What the flash record allows.
    fn gate(&mut self) -> Gate;
    /// Whether PID 1 is the hand-over by now.
    fn handed_over(&mut self) -> bool;
    /// Writes back what disks have not got yet, for at most so long.
    fn sync(&mut self, limit_ms: u64) -> io::Result<()>;
    /// Resets the board. Answers only why that failed.
    fn reset(&mut self) -> io::Error;
}

/// What to do next, after PID 1 was told.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing any more: PID 1 is the hand-over, and whatever comes is its decision.
    End,
    /// Wait.
    Wait,
    /// Wait for who changes flash, however long that takes: a reset would leave it half written.
    WaitFor(String),
    /// Reset into the old system.
    Reset,
}

fn next(handed_over: bool, gate: Gate, waited_ms: u64, patience_ms: u64) -> Next {
    match gate {
        _ if handed_over => Next::End,
        Gate::Wait { writer } => Next::WaitFor(writer),
        _ if waited_ms < patience_ms => Next::Wait,
        // flash that nobody changes any more is not made worse by a reset
        Gate::Open | Gate::Refuse { .. } => Next::Reset,
    }
}

/// Lines that are not said at every look.
struct Told(Option<u64>);

impl Told {
    fn waiting(&mut self, sys: &mut impl Leaving, writer: &str) {
        let now = sys.now_ms();
        if self.0.is_none_or(|told| now.saturating_sub(told) >= TELL_MS) {
            sys.say(&format!("waiting for {writer}, which is changing flash"));
            self.0 = Some(now);
        }
    }
}

/// Waits for who changes flash, however long that takes, before anything is begun that ends processes.
pub(super) fn let_flash_be(sys: &mut impl Leaving) {
    let mut lines = Told(None);
    while let Gate::Wait { writer } = sys.gate() {
        lines.waiting(sys, &writer);
        sys.pause(LOOK_MS);
    }
}

/// After PID 1 was told to execute the hand-over, or could not be told: ends once it does. Where it does not, the board is
/// reset, but never while somebody changes flash. Answers the exit code: 0 if PID 1 has taken over.
pub(super) fn see_to_the_end(sys: &mut impl Leaving, told: io::Result<()>) -> u8 {
    let patience = if told.is_ok() { PATIENCE_MS } else { 0 };
    let began = sys.now_ms();
    let mut lines = Told(None);
    loop {
        let waited = sys.now_ms().saturating_sub(began);
        let (handed_over, gate) = (sys.handed_over(), sys.gate());
        match next(handed_over, gate, waited, patience) {
            Next::End => return 0,
            Next::Wait => {}
            Next::WaitFor(writer) => lines.waiting(sys, &writer),
            Next::Reset => break,
        }
        sys.pause(LOOK_MS);
    }
    let why = told.err().map_or_else(|| "PID 1 did not execute the hand-over".to_owned(), |e| e.to_string());
    sys.say(&format!("hand-over failed: {why}; resetting into the old system"));
    if let Err(e) = sys.sync(SYNC_MS) {
        sys.say(&format!("sync: {e}"));
    }
    let error = sys.reset();
    sys.say(&format!("reset: {error}"));
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PID 1 takes over at a time, a writer of flash ends at a time.
    #[derive(Default)]
    struct Double {
        now: u64,
        takes_over_at: Option<u64>,
        writer_ends_at: Option<u64>,
        disk_is_dead: bool,
        said: Vec<String>,
        reset_at: Option<u64>,
    }

    impl Leaving for Double {
        fn now_ms(&mut self) -> u64 {
            self.now
        }
        fn pause(&mut self, ms: u64) {
            self.now += ms;
            assert!(self.now < 10_000_000, "no end in sight");
        }
        fn say(&mut self, line: &str) {
            self.said.push(line.to_owned());
        }
        fn gate(&mut self) -> Gate {
            match self.writer_ends_at {
                Some(at) if self.now < at => Gate::Wait { writer: "flashcp (pid 7), on /dev/mtd5".into() },
                _ => Gate::Open,
            }
        }
        fn handed_over(&mut self) -> bool {
            self.takes_over_at.is_some_and(|at| self.now >= at)
        }
        fn sync(&mut self, limit_ms: u64) -> io::Result<()> {
            if self.disk_is_dead {
                self.now += limit_ms;
                return Err(io::ErrorKind::TimedOut.into());
            }
            Ok(())
        }
        fn reset(&mut self) -> io::Error {
            self.reset_at = Some(self.now);
            io::Error::other("this is a test")
        }
    }

    #[test]
    fn once_pid_1_is_the_hand_over_nothing_is_reset_however_long_it_waits_for_a_writer_of_flash() {
        let mut sys =
            Double { takes_over_at: Some(1_000), writer_ends_at: Some(600_000), ..Double::default() };
        assert_eq!(see_to_the_end(&mut sys, Ok(())), 0);
        assert_eq!((sys.reset_at, sys.now), (None, 1_000));
    }

    #[test]
    fn a_pid_1_that_does_not_take_over_is_a_reset_but_not_while_flash_is_changed() {
        let mut sys = Double::default();
        assert_eq!(see_to_the_end(&mut sys, Ok(())), 1);
        assert_eq!(sys.reset_at, Some(30_000));
        for told in [Ok(()), Err(io::Error::other("bind: no"))] {
            let mut sys = Double { writer_ends_at: Some(600_000), ..Double::default() };
            see_to_the_end(&mut sys, told);
            assert_eq!(sys.reset_at, Some(600_000));
            let line = "waiting for flashcp (pid 7), on /dev/mtd5, which is changing flash";
            assert_eq!(sys.said.iter().filter(|said| *said == line).count(), 60);
        }
    }

    #[test]
    fn who_changes_flash_is_waited_for_before_anybody_is_ended_and_nobody_else_is() {
        let mut sys = Double { writer_ends_at: Some(600_000), ..Double::default() };
        let_flash_be(&mut sys);
        assert_eq!((sys.now, sys.said.len()), (600_000, 60));
        let mut sys = Double::default();
        let_flash_be(&mut sys);
        assert_eq!((sys.now, sys.said.len()), (0, 0));
    }

    #[test]
    fn a_disk_that_answers_no_more_does_not_keep_the_board_from_its_last_reset() {
        let mut sys = Double { disk_is_dead: true, ..Double::default() };
        see_to_the_end(&mut sys, Err(io::Error::other("x")));
        assert_eq!(sys.reset_at, Some(SYNC_MS));
        assert_eq!(sys.said[1], "sync: timed out");
    }

    #[test]
    fn a_pid_1_that_cannot_be_told_is_a_reset_at_once_with_the_reason() {
        let mut sys = Double::default();
        see_to_the_end(&mut sys, Err(io::Error::other("bind a over b: no")));
        assert_eq!(sys.reset_at, Some(0));
        assert_eq!(sys.said[0], "hand-over failed: bind a over b: no; resetting into the old system");
    }
}
