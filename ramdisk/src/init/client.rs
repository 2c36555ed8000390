//! The commands `reboot`, `poweroff` and `halt`: they ask PID 1 over its socket and show what it answers.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub use super::shutdown::Verb;

use super::control::{Request, SOCKET, request_line};
use super::shutdown::Force;

/// Done.
pub const DONE: u8 = 0;
/// Refused, or PID 1 could not be asked.
pub const FAILED: u8 = 1;
/// The command line was not understood.
pub const USAGE: u8 = 2;

/// Runs the command `verb` with the arguments after its name; the answer is its exit code: 0 it has begun, 1 refused or
/// not possible, 2 the command line was not understood.
///
/// Waits as long as PID 1 waits for flash: interrupting the command does not take the wish back.
pub fn run(verb: Verb, args: impl Iterator<Item = OsString>) -> u8 {
    run_at(&Path::new("/run").join(SOCKET), verb, args, &mut io::stdout(), &mut io::stderr())
}

/// The same with the socket, the output and the error output given.
pub fn run_at(
    socket: &Path,
    verb: Verb,
    args: impl Iterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let name = verb.word();
    let mut force = Force::No;
    for arg in args {
        match arg.to_str() {
            Some("-f" | "--force") => force = Force::Yes,
            Some("-h" | "--help") => {
                return if out.write_all(help(verb).as_bytes()).is_ok() { DONE } else { FAILED };
            }
            _ => {
                // Nothing can be done about an error output that cannot be written.
                let _ = writeln!(err, "{name}: unknown argument {arg:?}; see {name} --help");
                return USAGE;
            }
        }
    }
    match ask(socket, &Request::End(verb, force), None, out) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(err, "{name}: {}", explain(socket, &error));
            FAILED
        }
    }
}

fn help(verb: Verb) -> String {
    let name = verb.word();
    let does = match verb {
        Verb::Reboot => "Stop all services, write everything back and start the system again.",
        Verb::Poweroff => "Stop all services, write everything back and switch the power off.",
        Verb::Halt => "Stop all services, write everything back and stop the processor.",
    };
    format!(
        "Usage: {name} [-f]\n\n{does}\n\n\
         While flash is being changed it waits, and names the writer. After a change that\n\
         was not verified it refuses, and says which command to run again.\n\n\
         \x20 -f, --force  do it all the same\n\
         \x20 -h, --help   show this\n\n\
         Exit codes: 0 begun, 1 refused or not possible, 2 usage.\n"
    )
}

/// Why PID 1 could not be asked, for people.
#[must_use]
pub fn explain(socket: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "process 1 does not listen at {}: it is not the levitate init (use the running system's own command)",
            socket.display()
        ),
        io::ErrorKind::PermissionDenied => {
            format!("cannot ask process 1 at {}: only root may", socket.display())
        }
        _ => format!("cannot ask process 1 at {}: {error}", socket.display()),
    }
}

/// Sends a request, copies the answer's lines to `out`, and answers its exit code. Without a limit it waits as long as
/// PID 1 does, which for an end of the system is as long as flash is being changed.
///
/// # Errors
/// Those of the connection, `WouldBlock` when a line did not come within `limit`, and `UnexpectedEof` if the answer ended
/// without an exit line.
pub fn ask(socket: &Path, request: &Request, limit: Option<Duration>, out: &mut dyn Write) -> io::Result<u8> {
    ask_lines(socket, request, limit, &mut |line| {
        out.write_all(line)?;
        out.write_all(b"\n")?;
        out.flush()
    })
}

/// The same, handing each line over as it comes.
///
/// # Errors
/// As [`ask`]; the first error of `take` ends it.
pub fn ask_lines(
    socket: &Path,
    request: &Request,
    limit: Option<Duration>,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u8> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    // One write: a request in pieces would be one turn of PID 1 each.
    stream.write_all(format!("{}\n", request_line(request)).as_bytes())?;
    for line in BufReader::new(stream).split(b'\n') {
        let line = line?;
        if let Some(code) = line.strip_prefix(b"exit ") {
            let code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
            return code
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the exit line has no number"));
        }
        take(&line)?;
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended without an exit line"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn run_with(args: &[&str], answer: Option<&'static [u8]>) -> (u8, String, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("init.sock");
        let server = answer.map(|answer| {
            let listener = UnixListener::bind(&socket).unwrap();
            std::thread::spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                (&stream).write_all(answer).unwrap();
                line
            })
        });
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run_at(&socket, Verb::Reboot, args.iter().map(OsString::from), &mut out, &mut err);
        let request = server.map(|server| server.join().unwrap()).unwrap_or_default();
        let err = String::from_utf8(err).unwrap().replace(dir.path().to_str().unwrap(), "DIR");
        (code, request, String::from_utf8(out).unwrap(), err)
    }

    #[test]
    fn the_answer_is_shown_and_its_exit_code_is_the_commands() {
        let (code, request, out, err) = run_with(&[], Some(b"reboot: waiting\nexit 0\n"));
        assert_eq!(
            (code, request.as_str(), out.as_str(), err.as_str()),
            (0, "reboot\n", "reboot: waiting\n", "")
        );
        let (code, request, out, _) = run_with(&["-f"], Some(b"no\nexit 1\n"));
        assert_eq!((code, request.as_str(), out.as_str()), (1, "reboot force\n", "no\n"));
    }

    #[test]
    fn a_process_1_that_is_not_ours_is_a_clear_error() {
        let (code, _, _, err) = run_with(&[], None);
        assert_eq!(code, FAILED);
        assert_eq!(
            err,
            "reboot: process 1 does not listen at DIR/init.sock: it is not the levitate init (use the running system's own command)\n"
        );
    }

    #[test]
    fn an_answer_that_breaks_off_is_a_failure() {
        let (code, _, out, err) = run_with(&[], Some(b"reboot: waiting\n"));
        assert_eq!((code, out.as_str()), (FAILED, "reboot: waiting\n"));
        assert!(err.ends_with("the answer ended without an exit line\n"), "{err}");
    }

    #[test]
    fn help_fits_a_terminal_and_an_unknown_argument_is_usage() {
        let (code, _, out, _) = run_with(&["--help"], None);
        assert_eq!(code, DONE);
        assert!(out.lines().all(|line| line.chars().count() <= 80));
        let (code, _, _, err) = run_with(&["now"], None);
        assert_eq!((code, err.as_str()), (USAGE, "reboot: unknown argument \"now\"; see reboot --help\n"));
    }
}
