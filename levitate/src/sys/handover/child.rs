//! A call that can block runs in a child with a deadline: PID 1 itself never waits without one.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, clone};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// The longest nap between two looks at the child.
const NAP: Duration = Duration::from_millis(10);

/// Runs `job` in a child and answers with its errno. Past the deadline the child is killed, which a child stuck in the
/// kernel survives, and the answer is [`io::ErrorKind::TimedOut`]. `feed` is called all the while.
pub(super) fn run(
    limit: Duration,
    feed: &mut dyn FnMut(),
    job: impl FnOnce() -> nix::Result<()>,
) -> io::Result<()> {
    match start(job) {
        Ok(child) => wait_for(child, limit, feed),
        Err(e) => Err(io::Error::other(format!("fork: {e}"))),
    }
}

/// So often a job that closes descriptors is begun again.
const TRIES: u32 = 3;

/// Runs `job` in a child whose descriptors are this process's own: what it opens and closes is opened and closed here.
///
/// Closing can block: of a file on the network, the last data are written then. The number is free before that, so a
/// job that stuck at one descriptor is begun again for the rest.
pub(super) fn run_on_our_descriptors(
    limit: Duration,
    feed: &mut dyn FnMut(),
    job: &dyn Fn() -> nix::Result<()>,
) -> io::Result<()> {
    let mut tries = 1;
    loop {
        let child = match start_on_our_descriptors(job) {
            Ok(child) => child,
            Err(e) => return Err(io::Error::other(format!("clone: {e}"))),
        };
        match wait_for(child, limit, feed) {
            Err(e) if e.kind() == io::ErrorKind::TimedOut && tries < TRIES => tries += 1,
            answer => return answer,
        }
    }
}

fn wait_for(child: Pid, limit: Duration, feed: &mut dyn FnMut()) -> io::Result<()> {
    let started = Instant::now();
    let mut nap = Duration::from_micros(200);
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
            Ok(WaitStatus::Exited(_, errno)) => return Err(Errno::from_raw(errno).into()),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Err(io::Error::other(format!("its child died of {signal}")));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        if started.elapsed() >= limit {
            // A child that has died since is as well.
            let _ = kill(child, Signal::SIGKILL);
            let text = format!("not done within {} ms", limit.as_millis());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        feed();
        std::thread::sleep(nap);
        nap = (nap * 2).min(NAP);
    }
}

#[allow(unsafe_code)]
fn start(job: impl FnOnce() -> nix::Result<()>) -> nix::Result<Pid> {
    // SAFETY: the hand-over has one thread, so the child finds no lock held by a thread that it does not have.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => exit_with(job()),
    }
}

#[allow(unsafe_code)]
fn start_on_our_descriptors(job: &dyn Fn() -> nix::Result<()>) -> nix::Result<Pid> {
    // Without CLONE_VM this is the child's copy, as all of the memory is.
    let mut stack = vec![0; STACK];
    let child = Box::new(|| exit_with(job()));
    // SAFETY: as for fork: the memory is a copy, and no thread holds a lock. The stack is large enough for the job, which
    // owns none of the descriptors that it closes.
    unsafe { clone(child, &mut stack, CloneFlags::CLONE_FILES, Some(libc::SIGCHLD)) }
}

/// Bytes of stack for a job: as much as any PID 1 has.
const STACK: usize = 256 * 1024;

#[allow(unsafe_code)]
fn exit_with(answer: nix::Result<()>) -> ! {
    let code = match answer {
        Ok(()) => 0,
        // An exit status has 8 bits; some of MIPS's error numbers are larger.
        Err(e) => u8::try_from(e as i32).unwrap_or(5).max(1),
    };
    // SAFETY: _exit ends the child without running what belongs to the parent.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Reaps whoever has died.
pub(super) fn reap_all() {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return,
            Err(Errno::ECHILD) => return,
            // EINVAL is nix's word for one that a realtime signal ended: it is reaped all the same.
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_errno_is_the_answer() {
        let limit = Duration::from_secs(20);
        assert!(run(limit, &mut || (), || Ok(())).is_ok());
        let busy = run(limit, &mut || (), || Err(Errno::EBUSY)).unwrap_err();
        assert_eq!(busy.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn a_child_that_blocks_is_given_up_at_its_deadline_and_the_watchdog_is_fed_meanwhile() {
        let mut fed = 0;
        let blocked = run(Duration::from_millis(30), &mut || fed += 1, || {
            nix::unistd::pause();
            Ok(())
        });
        assert_eq!(blocked.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(fed > 0);
    }

    #[test]
    fn a_descriptor_that_never_closes_keeps_none_of_the_others_open() {
        use std::os::fd::{IntoRawFd, RawFd};
        let open = || std::fs::File::open("/dev/null").unwrap().into_raw_fd();
        let is_open = |fd: RawFd| std::path::Path::new(&format!("/proc/self/fd/{fd}")).is_symlink();
        let (stuck, other) = (open(), open());
        assert!(is_open(stuck) && is_open(other));
        // As the kernel does it: the number is free, and then it waits.
        let job = || {
            if nix::unistd::close(stuck).is_ok() {
                nix::unistd::pause();
            }
            nix::unistd::close(other)
        };
        run_on_our_descriptors(Duration::from_millis(200), &mut || (), &job).unwrap();
        assert!(!is_open(stuck) && !is_open(other));
        let late = run_on_our_descriptors(Duration::from_millis(10), &mut || (), &|| {
            nix::unistd::pause();
            Ok(())
        });
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
