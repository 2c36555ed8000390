//! The seam between PID 1's decisions and the machine: everything the loop asks of the kernel, so that a scripted
//! double can stand in for it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::interlock::Gate;
use super::sessions::Session;
use super::shutdown::Verb;
use super::supervisor::{Outcome, Pid, StartProblem, Target};

/// A connection to the control socket.
pub type Connection = u64;

/// A process to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The service: its log lines and its notification are told apart by this.
    pub service: String,
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// The working directory.
    pub dir: PathBuf,
    /// The descriptor for its notification, if it has one.
    pub notification_fd: Option<u16>,
    /// True if its input is the end of a pipeline's pipe, which bears its name; otherwise it is empty.
    pub reads_pipe: bool,
    /// The consumer whose pipe is its output; otherwise that is the log. The error output always is.
    pub writes_pipe_of: Option<String>,
}

/// A process that could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchError {
    /// Whether trying again can help.
    pub problem: StartProblem,
    /// What was attempted and what the kernel said.
    pub text: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process ended and was waited for, an orphan perhaps.
    Exited {
        /// Which.
        pid: Pid,
        /// How.
        outcome: Outcome,
    },
    /// A service wrote something.
    Output {
        /// Which service.
        service: String,
        /// A piece of it, not always whole lines.
        bytes: Vec<u8>,
    },
    /// A newline came on the notification descriptor.
    Ready {
        /// Of this process.
        pid: Pid,
    },
    /// A signal to PID 1 that asks for the end.
    Asked(Verb),
    /// A line from root on the control socket.
    Request {
        /// Who asks.
        from: Connection,
        /// What.
        line: String,
    },
    /// Whoever asked is no longer there: nobody waits for the answer.
    Gone {
        /// Who.
        from: Connection,
    },
    /// The deadline came, or nothing of interest happened.
    Tick,
}

/// What PID 1 asks of the machine. Nothing here waits without a limit.
pub trait Kernel {
    /// Milliseconds of a clock that never goes backwards.
    fn now(&self) -> u64;
    /// The wall clock: time since 1970. It may jump.
    fn wall(&self) -> Duration;
    /// Starts a process: clean environment, own session, no blocked or ignored signals, its output into the log.
    ///
    /// # Errors
    /// What failed, and whether trying again can help.
    fn spawn(&mut self, launch: &Launch) -> Result<Pid, LaunchError>;
    /// Sends a signal; a process that is gone already is no error.
    fn signal(&mut self, to: Target, signal: Signal);
    /// Sends a signal to every process but this one.
    fn signal_all(&mut self, signal: Signal);
    /// True if no other process is left (kernel threads do not count).
    fn is_alone(&mut self) -> bool;
    /// Waits for the next event until `deadline` (of [`Kernel::now`]; none: until something happens). Readiness comes
    /// before the exit of the same process, and so does its last output.
    fn next(&mut self, deadline: Option<u64>) -> Event;
    /// Sends a line to who asked. One who does not read is let go.
    fn answer(&mut self, to: Connection, line: &str);
    /// Ends a connection, what was answered is still delivered.
    fn hang_up(&mut self, to: Connection);
    /// Tells whoever can see the console or the kernel's log.
    fn report(&mut self, text: &str);
    /// Whether flash allows an end now.
    fn flash_gate(&mut self) -> Gate;
    /// Whether the flash record is the one that lay there when this program was started. In a maintenance root that is
    /// one of the old system's, which did run with it.
    fn flash_record_was_found(&mut self) -> bool;
    /// Who is logged in through one of the processes `servers`; `others` are services that let nobody in.
    fn sessions(&mut self, servers: &[Pid], others: &[Pid]) -> Vec<Session>;
    /// Feeds the watchdogs, if there are any and it is time; answers the time (of [`Kernel::now`], no span) at which the next
    /// of them wants to be fed again.
    fn feed_watchdog(&mut self) -> Option<u64>;
    /// Executes what is staged to be entered by a reboot, in place of this program. Returns only if nothing is (none), or
    /// if that failed, with the reason.
    fn hand_over(&mut self) -> Option<String>;
    /// Writes back and unmounts what can be, within a limit of its own.
    fn settle_disks(&mut self);
    /// Ends the system. Returns only if the kernel refused, with its reason.
    fn end(&mut self, verb: Verb) -> String;
}
