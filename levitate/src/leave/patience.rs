//! What `leave` waits for, and when it gives up: who changes flash has all the time it takes, PID 1 has seconds.

use std::ffi::OsStr;
use std::io;

use ramdisk::init::interlock::Gate;

/// PID 1 does what it is told within seconds, if it does it at all. In milliseconds.
pub(super) const PATIENCE_MS: u64 = 30_000;
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
    /// Starts a command that may not reset the board; answers before it is loaded.
    fn begin(&mut self, command: &OsStr) -> io::Result<()>;
    /// How what was started last has ended; none if it has not.
    fn ended(&mut self) -> Option<io::Result<()>>;
    /// Whether PID 1 is the hand-over by now.
    fn handed_over(&mut self) -> bool;
    /// Asks PID 1 for a reboot as it knows it.
    fn ask_again(&mut self);
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
#[derive(Default)]
pub(super) struct Told(Option<u64>);

impl Told {
    pub(super) fn waiting(&mut self, sys: &mut impl Leaving, writer: &str) {
        let now = sys.now_ms();
        if self.0.is_none_or(|told| now.saturating_sub(told) >= TELL_MS) {
            sys.say(&format!("waiting for {writer}, which is changing flash"));
            self.0 = Some(now);
        }
    }
}

/// Waits for who changes flash, however long that takes, before anything is begun that ends processes.
pub(super) fn let_flash_be(sys: &mut impl Leaving) {
    let mut lines = Told::default();
    while let Gate::Wait { writer } = sys.gate() {
        lines.waiting(sys, &writer);
        sys.pause(LOOK_MS);
    }
}

/// Waits until what was started has ended.
///
/// # Errors
///
/// It ended badly, or not in time.
pub(super) fn wait_for_the_end(sys: &mut impl Leaving, limit_ms: u64) -> io::Result<()> {
    let began = sys.now_ms();
    loop {
        if let Some(ended) = sys.ended() {
            return ended;
        }
        if sys.now_ms().saturating_sub(began) >= limit_ms {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("not done within {limit_ms} ms")));
        }
        sys.pause(LOOK_MS);
    }
}

/// After PID 1 was told to execute the hand-over, or could not be told: ends once it does. Where it does not within
/// `patience_ms`, the board is reset, but never while somebody changes flash. One that has more time than it should need
/// for what it was told is asked for a plain reboot in between: perhaps its table was replaced, and it did not understand.
/// Answers the exit code: 0 if PID 1 has taken over.
pub(super) fn see_to_the_end(sys: &mut impl Leaving, told: io::Result<()>, patience_ms: u64) -> u8 {
    let patience = if told.is_ok() { patience_ms } else { 0 };
    let mut ask_again = patience > PATIENCE_MS;
    let began = sys.now_ms();
    let mut lines = Told::default();
    loop {
        let waited = sys.now_ms().saturating_sub(began);
        let (handed_over, gate) = (sys.handed_over(), sys.gate());
        match next(handed_over, gate, waited, patience) {
            Next::End => return 0,
            Next::Wait if ask_again && waited >= PATIENCE_MS => {
                sys.ask_again();
                ask_again = false;
            }
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
pub(super) mod double {
    use super::*;

    /// PID 1 takes over at a time, a writer of flash begins and ends at a time, commands take their time.
    #[derive(Default)]
    pub(in crate::leave) struct Double {
        pub(in crate::leave) now: u64,
        pub(in crate::leave) takes_over_at: Option<u64>,
        pub(in crate::leave) writer_begins_at: u64,
        pub(in crate::leave) writer_ends_at: Option<u64>,
        pub(in crate::leave) disk_is_dead: bool,
        /// How commands begin, and how many milliseconds each of them takes.
        pub(in crate::leave) takes: Vec<(&'static str, u64)>,
        pub(in crate::leave) fails: Vec<&'static str>,
        pub(in crate::leave) cannot_begin: bool,
        pub(in crate::leave) begun: Vec<(u64, String)>,
        pub(in crate::leave) asked_again_at: Vec<u64>,
        pub(in crate::leave) said: Vec<String>,
        pub(in crate::leave) reset_at: Option<u64>,
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
                Some(at) if (self.writer_begins_at..at).contains(&self.now) => {
                    Gate::Wait { writer: "flashcp (pid 7), on /dev/mtd5".into() }
                }
                _ => Gate::Open,
            }
        }
        fn begin(&mut self, command: &OsStr) -> io::Result<()> {
            if self.cannot_begin {
                return Err(io::ErrorKind::NotFound.into());
            }
            self.begun.push((self.now, command.to_string_lossy().into_owned()));
            Ok(())
        }
        fn ended(&mut self) -> Option<io::Result<()>> {
            let (began, command) = self.begun.last()?;
            let takes =
                self.takes.iter().find(|(name, _)| command.starts_with(name)).map_or(0, |(_, ms)| *ms);
            if self.now < began.saturating_add(takes) {
                return None;
            }
            let fails = self.fails.iter().any(|name| command.starts_with(name));
            Some(if fails { Err(io::Error::other("exit status: 1")) } else { Ok(()) })
        }
        fn handed_over(&mut self) -> bool {
            self.takes_over_at.is_some_and(|at| self.now >= at)
        }
        fn ask_again(&mut self) {
            self.asked_again_at.push(self.now);
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
}

#[cfg(test)]
mod tests {
    use super::double::Double;
    use super::*;

    #[test]
    fn once_pid_1_is_the_hand_over_nothing_is_reset_however_long_it_waits_for_a_writer_of_flash() {
        let mut sys =
            Double { takes_over_at: Some(1_000), writer_ends_at: Some(600_000), ..Double::default() };
        assert_eq!(see_to_the_end(&mut sys, Ok(()), PATIENCE_MS), 0);
        assert_eq!((sys.reset_at, sys.now), (None, 1_000));
    }

    #[test]
    fn a_pid_1_that_does_not_take_over_is_a_reset_but_not_while_flash_is_changed() {
        let mut sys = Double::default();
        assert_eq!(see_to_the_end(&mut sys, Ok(()), PATIENCE_MS), 1);
        assert_eq!(sys.reset_at, Some(30_000));
        for told in [Ok(()), Err(io::Error::other("bind: no"))] {
            let mut sys = Double { writer_ends_at: Some(600_000), ..Double::default() };
            see_to_the_end(&mut sys, told, PATIENCE_MS);
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
        see_to_the_end(&mut sys, Err(io::Error::other("x")), PATIENCE_MS);
        assert_eq!(sys.reset_at, Some(SYNC_MS));
        assert_eq!(sys.said[1], "sync: timed out");
    }

    #[test]
    fn a_pid_1_that_cannot_be_told_is_a_reset_at_once_with_the_reason() {
        let mut sys = Double::default();
        see_to_the_end(&mut sys, Err(io::Error::other("bind a over b: no")), PATIENCE_MS);
        assert_eq!(sys.reset_at, Some(0));
        assert_eq!(sys.said[0], "hand-over failed: bind a over b: no; resetting into the old system");
    }

    #[test]
    fn a_shutdown_that_hangs_is_reset_at_its_own_limit_but_not_while_flash_is_changed() {
        let mut sys = Double::default();
        assert_eq!(see_to_the_end(&mut sys, Ok(()), 300_000), 1);
        assert_eq!((sys.asked_again_at, sys.reset_at), (vec![PATIENCE_MS], Some(300_000)));
        let mut sys = Double { writer_ends_at: Some(600_000), ..Double::default() };
        see_to_the_end(&mut sys, Ok(()), 300_000);
        assert_eq!(sys.reset_at, Some(600_000));
        // one that is to take no longer than an answer gets no second word
        let mut sys = Double::default();
        see_to_the_end(&mut sys, Ok(()), 5_000);
        assert_eq!((sys.asked_again_at.len(), sys.reset_at), (0, Some(5_000)));
    }

    #[test]
    fn a_program_that_never_ends_is_waited_for_in_vain_only_so_long() {
        let mut sys = Double { takes: vec![("telinit", u64::MAX)], ..Double::default() };
        sys.begin("telinit u".as_ref()).unwrap();
        assert_eq!(wait_for_the_end(&mut sys, 30_000).unwrap_err().to_string(), "not done within 30000 ms");
        assert_eq!(sys.now, 30_000);
        let mut sys = Double { fails: vec!["telinit"], ..Double::default() };
        sys.begin("telinit u".as_ref()).unwrap();
        assert_eq!(wait_for_the_end(&mut sys, 30_000).unwrap_err().to_string(), "exit status: 1");
    }
}
