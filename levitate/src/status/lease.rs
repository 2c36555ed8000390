//! The lease of the maintenance root, as its init tells it over the control socket.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::Path;
use std::time::Duration;

use ramdisk::init::client;
use ramdisk::init::control::{Request, SOCKET};
use ramdisk::init::lease::{LeaseState, LeaseStatus, lasting};
use serde::Serialize;

/// PID 1 answers in milliseconds; one that hangs must not hang whoever asks.
const LIMIT: Duration = Duration::from_secs(5);

/// The lease, or why it is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Lease {
    /// What the init says.
    Known(LeaseStatus),
    /// It could not be asked.
    Unknown {
        /// Why.
        not_known: String,
    },
}

impl Lease {
    /// Asks the init whose run directory is `run`.
    #[must_use]
    pub fn ask(run: &Path) -> Self {
        let known = request(run, Request::Lease).and_then(|text| {
            serde_json::from_str(&text).map_err(|e| format!("the init's answer is no lease: {e}"))
        });
        known.map_or_else(|not_known| Self::Unknown { not_known }, Self::Known)
    }
}

/// Makes a request about the lease; the answer's text.
///
/// # Errors
///
/// The init cannot be asked, or says no.
pub fn request(run: &Path, request: Request) -> Result<String, String> {
    let socket = run.join(SOCKET);
    let mut text = Vec::new();
    let code = client::ask(&socket, &request, Some(LIMIT), &mut text).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("process 1 did not answer at {} within {} s", socket.display(), LIMIT.as_secs())
        }
        _ => client::explain(&socket, &e),
    })?;
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    if code == client::DONE { Ok(text) } else { Err(text) }
}

impl Display for Lease {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = match self {
            Self::Unknown { not_known } => return write!(f, "lease: not known: {not_known}"),
            Self::Known(status) => status,
        };
        let length = status.lease_ms.map(lasting).unwrap_or_default();
        match &status.state {
            LeaseState::Off => write!(f, "lease: off; maintenance mode stays until `reboot`"),
            LeaseState::Runs { left_ms } => {
                write!(f, "lease: reboot in {} unless somebody logs in", lasting(*left_ms))
            }
            LeaseState::Held { left_ms: None } => {
                write!(f, "lease: held until `levitate release` or `reboot`")
            }
            LeaseState::Held { left_ms: Some(ms) } => {
                write!(f, "lease: held for {} more, then {length}", lasting(*ms))
            }
            LeaseState::LoggedIn { sessions } => {
                let who: Vec<String> = sessions.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "lease: {length} from the end of the last session; `levitate hold` stops it; logged in: {}",
                    who.join(", ")
                )
            }
            LeaseState::Flash => {
                write!(f, "lease: ended by the change of flash; {length} from when it is verified")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use ramdisk::init::sessions::Session;

    use super::*;

    fn line(state: LeaseState) -> String {
        Lease::Known(LeaseStatus { state, lease_ms: Some(900_000) }).to_string()
    }

    #[test]
    fn every_state_has_its_line() {
        let root = Session { user: "root".into(), pid: 91, program: "sh".into() };
        assert_eq!(
            Lease::Known(LeaseStatus { state: LeaseState::Off, lease_ms: None }).to_string(),
            "lease: off; maintenance mode stays until `reboot`"
        );
        assert_eq!(
            line(LeaseState::Runs { left_ms: 61_000 }),
            "lease: reboot in 61 s unless somebody logs in"
        );
        assert_eq!(
            line(LeaseState::Held { left_ms: None }),
            "lease: held until `levitate release` or `reboot`"
        );
        assert_eq!(
            line(LeaseState::Held { left_ms: Some(7_200_000) }),
            "lease: held for 2 h more, then 15 min"
        );
        assert_eq!(
            line(LeaseState::LoggedIn { sessions: vec![root] }),
            "lease: 15 min from the end of the last session; `levitate hold` stops it; logged in: root (sh, pid 91)"
        );
        assert_eq!(
            line(LeaseState::Flash),
            "lease: ended by the change of flash; 15 min from when it is verified"
        );
    }

    #[test]
    fn an_init_that_does_not_answer_is_told_and_nothing_else_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let text = Lease::ask(dir.path()).to_string();
        assert!(text.starts_with("lease: not known: process 1 does not listen at "), "{text}");
    }

    #[test]
    fn the_inits_answer_is_the_lease() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("levitate")).unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let answers = [
            "{\"state\":\"runs\",\"left_ms\":1000,\"lease_ms\":900000}\nexit 0\n",
            "nonsense\nexit 0\n",
            "there is no lease here\nexit 1\n",
        ];
        let server = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 6];
                stream.read_exact(&mut asked).unwrap();
                assert_eq!(&asked, b"lease\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(Lease::ask(dir.path()).to_string(), "lease: reboot in 1 s unless somebody logs in");
        assert!(Lease::ask(dir.path()).to_string().contains("the init's answer is no lease"));
        assert_eq!(Lease::ask(dir.path()).to_string(), "lease: not known: there is no lease here");
        server.join().unwrap();
    }
}
