//! The control protocol: one request line, answer lines, then `exit N`.
//!
//! | request | answer |
//! |---|---|
//! | `reboot`, `poweroff`, `halt`, each perhaps followed by `force` | what holds it up, then `exit 0` when it has begun or `exit 1` when it is refused |
//! | `services` | a JSON object per service and bundle, see [`Entry`](super::snapshot::Entry), then `exit 0` |
//! | `up`, `down`, `once`, `restart`, or a signal's name, then options and names, see [`Order`] | lines about each service on the way if it waits, then `exit N` as s6-rc's |
//! | `hold`, perhaps followed by milliseconds; `release` | what became of the lease |
//! | `lease` | how the lease stands, as one line of JSON: [`super::lease::LeaseStatus`] |
//! | `status` | a line per service: name, state, pid, seconds in that state, restarts, then why it is marked down |

use thiserror::Error;

pub use super::order::{Change, Order, Wait};
use super::shutdown::{Force, Verb};
use super::supervisor::{Phase, Status};

/// Where the control socket lies, below the run directory.
pub const SOCKET: &str = "levitate/init.sock";
/// The longest request line, in bytes with its newline.
pub const MAX_REQUEST: usize = 16_384;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// End the system.
    End(Verb, Force),
    /// Show the services.
    Status,
    /// Show the services with what they need, for programs.
    Services,
    /// Change services.
    Order(Order),
    /// Show the lease.
    Lease,
    /// Stop the lease, for so many milliseconds or until it is released.
    Hold(Option<u64>),
    /// Let the lease run again.
    Release,
}

/// A line that is no request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadRequest {
    /// An unknown first word.
    #[error("unknown request: expected {expected} or a signal's name, found {0:?}", expected = WORDS.map(Word::text).join(", "))]
    Unknown(String),
    /// A line longer than [`MAX_REQUEST`].
    #[error("the request is too long: expected at most {MAX_REQUEST} bytes with its newline")]
    TooLong,
    /// A word too many.
    #[error("{request}: unknown word {word:?}")]
    Word {
        /// The request.
        request: String,
        /// The word.
        word: String,
    },
    /// An order about nobody.
    #[error("{0}: expected the names of services after --")]
    NoNames(&'static str),
}

/// A request's first word.
#[derive(Clone, Copy, Debug)]
enum Word {
    Status,
    Services,
    Lease,
    Hold,
    Release,
    Change(Change),
    End(Verb),
}

/// All of them but the signals' names.
const WORDS: [Word; 12] = [
    Word::Status,
    Word::Services,
    Word::Change(Change::Up),
    Word::Change(Change::Down),
    Word::Change(Change::Once),
    Word::Change(Change::Restart),
    Word::Lease,
    Word::Hold,
    Word::Release,
    Word::End(Verb::Reboot),
    Word::End(Verb::Poweroff),
    Word::End(Verb::Halt),
];

impl Word {
    fn text(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Services => "services",
            Self::Lease => "lease",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Change(change) => change.word(),
            Self::End(verb) => verb.word(),
        }
    }

    fn parse(text: &str) -> Result<Self, BadRequest> {
        let listed = WORDS.into_iter().find(|word| word.text() == text);
        let signal = || Change::signal(text).map(Word::Change);
        listed.or_else(signal).ok_or_else(|| BadRequest::Unknown(text.chars().take(80).collect()))
    }
}

/// Understands a request line.
///
/// # Errors
/// [`BadRequest`] for everything that is not one.
pub fn parse_request(line: &str) -> Result<Request, BadRequest> {
    let mut words = line.split_ascii_whitespace();
    let first = words.next().unwrap_or_default();
    let mut rest = words.peekable();
    let request = match Word::parse(first)? {
        Word::Status => Request::Status,
        Word::Services => Request::Services,
        Word::Change(change) => return Ok(Request::Order(Order::parse(change, rest)?)),
        Word::Lease => Request::Lease,
        Word::Release => Request::Release,
        Word::Hold => {
            let time = rest.peek().and_then(|word| word.parse().ok());
            if time.is_some() {
                rest.next();
            }
            Request::Hold(time)
        }
        Word::End(verb) => {
            let force = if rest.next_if_eq(&"force").is_some() { Force::Yes } else { Force::No };
            Request::End(verb, force)
        }
    };
    match rest.next() {
        None => Ok(request),
        Some(word) => {
            Err(BadRequest::Word { request: first.to_owned(), word: word.chars().take(80).collect() })
        }
    }
}

/// The request's line, without its newline.
#[must_use]
pub fn request_line(request: &Request) -> String {
    match request {
        Request::Status => "status".to_owned(),
        Request::Services => "services".to_owned(),
        Request::Order(order) => order.line(),
        Request::Lease => "lease".to_owned(),
        Request::Hold(None) => "hold".to_owned(),
        Request::Hold(Some(time)) => format!("hold {time}"),
        Request::Release => "release".to_owned(),
        // PID 1 alone decides what flash was when it was found
        Request::End(verb, Force::No | Force::AsFound) => verb.word().to_owned(),
        Request::End(verb, Force::Yes) => format!("{} force", verb.word()),
    }
}

/// The word for a service's state: up, starting, stopping, waiting (for what it needs), failed or down.
#[must_use]
pub fn state_word(status: &Status) -> &'static str {
    match (status.phase, status.wanted) {
        (Phase::Up, _) => "up",
        (Phase::Starting, _) => "starting",
        (Phase::Stopping, _) => "stopping",
        (Phase::Down, true) => "waiting",
        (Phase::Down, false) if status.failure.is_some() => "failed",
        (Phase::Down, false) => "down",
    }
}

/// The line that `status` shows for a service at the time `now` (milliseconds).
#[must_use]
pub fn status_line(status: &Status, now: u64) -> String {
    let state = state_word(status);
    let pid = status.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let seconds = now.saturating_sub(status.since) / 1000;
    let mut line = format!("{} {state} {pid} {seconds} {}", status.name, status.restarts);
    if let Some(failure) = &status.failure {
        line.push_str(&format!(" {failure}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::super::supervisor::Failure;
    use super::*;

    #[test]
    fn every_request_is_understood_as_it_is_written() {
        let mut requests = vec![Request::Status, Request::Services, Request::Lease, Request::Release];
        requests.extend([Request::Hold(None), Request::Hold(Some(u64::MAX))]);
        let changes =
            [Change::Up, Change::Down, Change::Once, Change::Restart, Change::Signal(Signal::SIGHUP)];
        for (n, change) in changes.into_iter().enumerate() {
            let wait = [Wait::No, Wait::Forever, Wait::For(7)][n % 3];
            let names = vec!["-a".to_owned(), "wait".to_owned()];
            requests.push(Request::Order(Order { change, wait, by_controller: n % 2 == 0, names }));
        }
        for verb in [Verb::Reboot, Verb::Poweroff, Verb::Halt] {
            requests.extend([Request::End(verb, Force::No), Request::End(verb, Force::Yes)]);
        }
        for request in requests {
            assert_eq!(parse_request(&request_line(&request)), Ok(request));
        }
    }

    #[test]
    fn what_is_no_request_is_answered_with_what_one_is() {
        let error = |line| parse_request(line).unwrap_err().to_string();
        let expected = "unknown request: expected status, services, up, down, once, restart, lease, hold, release, \
                        reboot, poweroff, halt or a signal's name, found ";
        assert_eq!(error("rebot"), format!("{expected}\"rebot\""));
        assert_eq!(error(""), format!("{expected}\"\""));
        // All that it names is understood, but for what belongs to it.
        for word in WORDS.map(Word::text) {
            assert!(!matches!(parse_request(word), Err(BadRequest::Unknown(_))), "{word}");
        }
        assert_eq!(error("reboot now"), "reboot: unknown word \"now\"");
        assert_eq!(error("hold 5m"), "hold: unknown word \"5m\"");
        assert_eq!(error("hold 5 6"), "hold: unknown word \"6\"");
        assert_eq!(error("status force"), "status: unknown word \"force\"");
        assert_eq!(error("up sshd"), "up: unknown word \"sshd\"");
        assert_eq!(error("down wait --"), "down: expected the names of services after --");
        assert_eq!(error("SIGNOPE -- x"), format!("{expected}\"SIGNOPE\""));
    }

    #[test]
    fn a_status_line_has_name_state_pid_seconds_restarts_and_why() {
        let mut status = Status {
            name: "sshd".into(),
            phase: Phase::Up,
            wanted: true,
            pid: Some(42),
            since: 1_000,
            restarts: 3,
            last: None,
            failure: None,
        };
        assert_eq!(status_line(&status, 9_999), "sshd up 42 8 3");
        status = Status {
            phase: Phase::Down,
            wanted: false,
            pid: None,
            failure: Some(Failure::TimedOut),
            ..status
        };
        assert_eq!(status_line(&status, 9_999), "sshd failed - 8 3 not ready in time");
    }
}
