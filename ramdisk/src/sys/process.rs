//! Starting processes, and what else PID 1 does with them.
//!
//! The standard library's `Command` is not used for services: a notification descriptor may be any number, the one of
//! `Command`'s own error pipe too, and then a failed start would look like a started one.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

/// How long a child may take from fork to exec; past it, it is taken as started.
const EXEC_LIMIT_MS: u16 = 5_000;

/// A child process to be.
#[derive(Debug)]
pub(crate) struct Child<'a> {
    /// The program's path.
    pub(crate) program: CString,
    /// Its arguments, the first is its name.
    pub(crate) argv: Vec<CString>,
    /// Its whole environment.
    pub(crate) env: Vec<CString>,
    /// Its working directory.
    pub(crate) dir: CString,
    /// Its input.
    pub(crate) stdin: BorrowedFd<'a>,
    /// Its output.
    pub(crate) stdout: BorrowedFd<'a>,
    /// Its error output.
    pub(crate) stderr: BorrowedFd<'a>,
    /// A descriptor to have under a number of 3 or more.
    pub(crate) extra: Option<(BorrowedFd<'a>, RawFd)>,
}

/// Starts `child` in a session of its own, with every signal at its default and none blocked. The answer is its number.
///
/// # Errors
/// What fork, chdir or exec said.
#[allow(unsafe_code)]
pub(crate) fn start(child: &Child<'_>) -> Result<i32, Errno> {
    let argv = pointers(&child.argv);
    let env = pointers(&child.env);
    let first_free = child.extra.map_or(3, |(_, number)| number.saturating_add(1));
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // Above the number that the child asked for, so that nothing is put over it.
    // SAFETY: fcntl on an open descriptor; the new one is owned here and nowhere else.
    let report = unsafe {
        let number = Errno::result(libc::fcntl(write.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first_free))?;
        OwnedFd::from_raw_fd(number)
    };
    drop(write);

    // SAFETY: this process has one thread; the child calls only functions that are safe between fork and exec, on
    // memory that was prepared before, and ends in exec or _exit.
    match unsafe { libc::fork() } {
        -1 => Err(Errno::last()),
        0 => {
            // SAFETY: see above; all pointers are to live, terminated arrays.
            unsafe {
                let errno = become_program(child, &argv, &env);
                let bytes = errno.to_ne_bytes();
                libc::write(report.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
                libc::_exit(127)
            }
        }
        pid => {
            drop(report);
            match start_error(&read) {
                None => Ok(pid),
                Some(errno) => {
                    // It is about to exit; waiting here keeps its end from looking like a service's.
                    // SAFETY: waitpid on our own child, no status wanted.
                    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                    Err(errno)
                }
            }
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Runs in the child; answers only if something failed, with its number.
#[allow(unsafe_code)]
unsafe fn become_program(
    child: &Child<'_>,
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
) -> i32 {
    // SAFETY: the caller is between fork and exec; every call below is async-signal-safe.
    unsafe {
        if libc::setsid() < 0
            || libc::dup2(child.stdin.as_raw_fd(), 0) < 0
            || libc::dup2(child.stdout.as_raw_fd(), 1) < 0
            || libc::dup2(child.stderr.as_raw_fd(), 2) < 0
        {
            return *libc::__errno_location();
        }
        if let Some((fd, number)) = child.extra {
            let failed = if fd.as_raw_fd() == number {
                // dup2 on itself would leave it to be closed by exec.
                libc::fcntl(number, libc::F_SETFD, 0)
            } else {
                libc::dup2(fd.as_raw_fd(), number)
            };
            if failed < 0 {
                return *libc::__errno_location();
            }
        }
        if libc::chdir(child.dir.as_ptr()) < 0 {
            return *libc::__errno_location();
        }
        default_signals();
        libc::execve(child.program.as_ptr(), argv.as_ptr(), env.as_ptr());
        *libc::__errno_location()
    }
}

/// Every signal at its default, none blocked. exec keeps what is ignored or blocked, and whoever started PID 1 may have
/// left anything (sysvinit: nearly all of both).
#[allow(unsafe_code)]
pub(crate) fn default_signals() {
    // The kernel's `struct sigaction` differs from processor to processor, but all zero it means the default, no flags
    // and an empty mask on each. The C library's own signal(2) refuses the two numbers that it keeps for itself.
    const DEFAULT: [u64; 20] = [0; 20];
    const MASK_BYTES: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 16 } else { 8 };
    // SAFETY: the new action is read from a live buffer larger than any processor's structure, nothing is written;
    // signals that cannot be set say so and stay.
    unsafe {
        for number in 1..=127 {
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), none, MASK_BYTES);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// The number the child sent, or nothing if exec closed the pipe.
fn start_error(read: &OwnedFd) -> Option<Errno> {
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::from(EXEC_LIMIT_MS)) {
            Err(Errno::EINTR) => {}
            Err(_) | Ok(0) => return None,
            Ok(_) => break,
        }
    }
    let mut bytes = [0; 4];
    loop {
        match nix::unistd::read(read, &mut bytes) {
            Err(Errno::EINTR) => {}
            Ok(4) => return Some(Errno::from_raw(i32::from_ne_bytes(bytes))),
            _ => return None,
        }
    }
}

/// Sends a signal to a process (`pid` > 0), a process group (< -1) or everybody else (-1). One that is gone is no error.
#[allow(unsafe_code)]
pub(crate) fn kill(pid: i32, signal: Signal) {
    // SAFETY: kill(2) takes no memory.
    unsafe { libc::kill(pid, signal as i32) };
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It exited with this code.
    Code(i32),
    /// A signal of this number ended it, a realtime one perhaps (nix's waitpid reaps such a process and then answers
    /// an error, so nobody would learn of its end).
    Signal(i32),
}

/// Waits for one child that has ended, if there is one; its number and how it ended.
#[allow(unsafe_code)]
pub(crate) fn reap() -> Option<(i32, Ended)> {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int, to a live one.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if pid <= 0 {
            return None;
        }
        // Without WUNTRACED and WCONTINUED there is no other kind of news, but then it is none of an end.
        if let Some(ended) = ended(status) {
            return Some((pid, ended));
        }
    }
}

fn ended(status: i32) -> Option<Ended> {
    if libc::WIFEXITED(status) {
        Some(Ended::Code(libc::WEXITSTATUS(status)))
    } else if libc::WIFSIGNALED(status) {
        Some(Ended::Signal(libc::WTERMSIG(status)))
    } else {
        None
    }
}

/// Keeps every descriptor from 3 on away from children.
#[allow(unsafe_code)]
pub(crate) fn close_on_exec_from_3() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(number) = number.filter(|number| *number > 2) {
            // SAFETY: F_SETFD works on any number; one that is closed meanwhile says so.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Runs `work` in a child, for calls that may block for ever, and waits for it until `limit` is over; past it the child
/// gets KILL and is left alone. Meanwhile `meanwhile` is called a hundred times a second. True if it ended by itself.
#[allow(unsafe_code)]
pub(crate) fn run_in_child(limit: Duration, meanwhile: &mut dyn FnMut(), work: impl FnOnce()) -> bool {
    // SAFETY: this process has one thread, so the child may do anything; it never returns from here.
    match unsafe { libc::fork() } {
        -1 => false,
        0 => {
            work();
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        pid => {
            let end = std::time::Instant::now() + limit;
            loop {
                // SAFETY: waitpid on our own child, no status wanted.
                let waited = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
                if waited != 0 {
                    return true;
                }
                if std::time::Instant::now() >= end {
                    kill(pid, Signal::SIGKILL);
                    return false;
                }
                meanwhile();
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// What a child said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Everything that came before the limit.
    pub(crate) bytes: Vec<u8>,
    /// True if it said all that it had to say.
    pub(crate) is_whole: bool,
}

/// Runs `work` in a child, for calls that may block for ever, and collects what it writes until it ends or `limit` is over;
/// past it the child gets KILL and is left alone. Meanwhile `meanwhile` is called ten times a second.
#[allow(unsafe_code)]
pub(crate) fn ask_child(
    limit: Duration,
    meanwhile: &mut dyn FnMut(),
    work: impl FnOnce(&mut std::fs::File),
) -> Answer {
    // Nothing was asked, so nothing is left open.
    let none = Answer { bytes: Vec::new(), is_whole: true };
    let Ok((read, write)) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC) else { return none };
    // SAFETY: as in `run_in_child`: one thread, and the child never returns from here.
    let pid = match unsafe { libc::fork() } {
        -1 => return none,
        0 => {
            drop(read);
            work(&mut std::fs::File::from(write));
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        pid => pid,
    };
    drop(write);
    let answer = collect(&read, limit, meanwhile);
    if !answer.is_whole {
        kill(pid, Signal::SIGKILL);
    }
    // It has closed its end, which is all but the last that it does; one that got KILL and cannot end is an orphan that
    // is reaped when it does.
    for _ in 0..10 {
        // SAFETY: waitpid on our own child, no status wanted.
        if unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) } != 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    answer
}

fn collect(read: &OwnedFd, limit: Duration, meanwhile: &mut dyn FnMut()) -> Answer {
    use std::os::fd::AsFd;
    let end = std::time::Instant::now() + limit;
    let mut answer = Answer { bytes: Vec::new(), is_whole: false };
    let mut buffer = [0; 4_096];
    while std::time::Instant::now() < end {
        let left = end.saturating_duration_since(std::time::Instant::now()).as_millis().clamp(1, 100);
        let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) {
            Ok(0) | Err(Errno::EINTR) => meanwhile(),
            Err(_) => break,
            Ok(_) => match nix::unistd::read(read, &mut buffer) {
                Ok(0) => return Answer { is_whole: true, ..answer },
                Ok(count) => answer.bytes.extend(buffer.iter().take(count)),
                Err(Errno::EINTR) => {}
                Err(_) => break,
            },
        }
    }
    answer
}

/// A C string of bytes; a zero byte among them is an error.
///
/// # Errors
/// `InvalidInput`.
pub(crate) fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a zero byte in a string"))
}

/// Where services look for programs.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The only environment that services have; `RC_NAME` is s6-rc's way to tell a oneshot its name.
pub(crate) fn clean_env(service: &str) -> Vec<CString> {
    [format!("PATH={PATH}"), "HOME=/".to_owned(), format!("RC_NAME={service}")]
        .into_iter()
        .filter_map(|text| CString::new(text).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    fn run(program: &str, args: &[&str], extra: Option<RawFd>) -> Result<(String, String), Errno> {
        let null = File::open("/dev/null").unwrap();
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let (ready, notify) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let pid = start(&Child {
            program: c_string(program.as_bytes()).unwrap(),
            argv: [&[program], args].concat().iter().map(|arg| c_string(arg.as_bytes()).unwrap()).collect(),
            env: clean_env("x"),
            dir: c"/".to_owned(),
            stdin: null.as_fd(),
            stdout: write.as_fd(),
            stderr: write.as_fd(),
            extra: extra.map(|number| (notify.as_fd(), number)),
        });
        drop((write, notify));
        let pid = nix::unistd::Pid::from_raw(pid?);
        let (mut output, mut notified) = (String::new(), String::new());
        File::from(read).read_to_string(&mut output).unwrap();
        File::from(ready).read_to_string(&mut notified).unwrap();
        nix::sys::wait::waitpid(pid, None).unwrap();
        Ok((output, notified))
    }

    #[test]
    fn a_child_has_a_clean_environment_and_a_session_of_its_own() {
        let script = "pwd; /usr/bin/env | sort | grep -v -e ^PWD -e ^_ -e ^SHLVL -e ^OLDPWD; \
                      test \"$(cut -d' ' -f6 /proc/$$/stat)\" = $$ && echo leader; grep SigIgn /proc/$$/status";
        let (output, _) = run("/bin/sh", &["-c", script], None).unwrap();
        assert_eq!(
            output,
            "/\nHOME=/\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nRC_NAME=x\nleader\n\
             SigIgn:\t0000000000000000\n"
        );
    }

    #[test]
    fn the_notification_descriptor_has_the_number_asked_for_whatever_it_is() {
        for number in 3..40 {
            let script = format!("echo ready >&{number}");
            // dash knows only one digit.
            let script = if number > 9 { format!("echo ready > /proc/self/fd/{number}") } else { script };
            let (_, notified) = run("/bin/sh", &["-c", &script], Some(number)).unwrap();
            assert_eq!(notified, "ready\n", "descriptor {number}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_told_whatever_the_notification_descriptor() {
        for number in 3..40 {
            assert_eq!(run("/nonexistent", &[], Some(number)), Err(Errno::ENOENT), "descriptor {number}");
        }
    }

    #[test]
    fn an_end_by_a_realtime_signal_is_an_end_too() {
        let status = |script: &str| {
            use std::os::unix::process::ExitStatusExt;
            let status = std::process::Command::new("/bin/sh").args(["-c", script]).status().unwrap();
            ended(status.into_raw())
        };
        assert_eq!(status("exit 3"), Some(Ended::Code(3)));
        assert_eq!(status("kill -9 $$"), Some(Ended::Signal(9)));
        assert_eq!(status("kill -40 $$"), Some(Ended::Signal(40)));
    }

    #[test]
    fn work_that_hangs_is_left_alone_at_its_limit() {
        assert!(run_in_child(Duration::from_secs(60), &mut || {}, || {}));
        let mut times = 0;
        let forever = || loop {
            std::thread::park();
        };
        assert!(!run_in_child(Duration::from_millis(1), &mut || times += 1, forever));
        assert!(times > 0, "nothing was done meanwhile");
    }
}
