//! The [`Kernel`] that PID 1 has in truth: poll(2) over signals, pipes and the control socket.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{pipe2, read};
use thiserror::Error;

use super::connections::{Connections, News};
use super::interlock::{self, Gate};
use super::kernel::{Connection, Event, Kernel, Launch, LaunchError};
use super::looks::Looks;
use super::options::Options;
use super::sessions::{self, Session};
use super::shutdown::Verb;
use super::supervisor::{Outcome, Pid, StartProblem, Target};
use super::watchdog::Watchdog;
use super::{console, disks, handover, script};
use crate::sys::process::{self, Child, Ended};

/// At most this much is read from one pipe in a turn, so that one loud service does not keep the others waiting.
const PIPE_TURN: usize = 4_096;
/// At most so many ended processes are waited for in a turn: a fork bomb's orphans take more than one.
const REAP_TURN: usize = 256;

/// PID 1's hands could not be made.
#[derive(Debug, Error)]
#[error("cannot {what}")]
pub(super) struct LinuxError {
    what: &'static str,
    source: io::Error,
}

/// A service's output; both ends are kept, so that it survives its processes.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// The real thing.
#[derive(Debug)]
pub(super) struct Linux {
    options: Options,
    start: Instant,
    signals: SignalFd,
    null: File,
    pipes: BTreeMap<String, Pipe>,
    /// Between longruns, by the consumer. Kept open here, so that what is in them outlives both ends' processes.
    links: BTreeMap<String, Pipe>,
    notifications: BTreeMap<Pid, OwnedFd>,
    /// Whose process it is: its last output is to be read before its end is told.
    services: BTreeMap<Pid, String>,
    connections: Connections,
    queue: VecDeque<Event>,
    watchdogs: Vec<Watchdog>,
    looks: Looks,
    /// The flash record that was there before any service was started.
    found_record: Option<interlock::Identity>,
}

impl Linux {
    /// Takes over the signals. The control socket is opened by [`Linux::listen`].
    ///
    /// # Errors
    /// If the kernel has no descriptors or memory left.
    pub(super) fn new(options: Options) -> Result<Self, LinuxError> {
        let failed = |what| move |source: io::Error| LinuxError { what, source };
        let all = SigSet::all();
        all.thread_set_mask().map_err(io::Error::from).map_err(failed("block signals"))?;
        let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(io::Error::from)
            .map_err(failed("receive signals"))?;
        let null =
            File::options().read(true).write(true).open("/dev/null").map_err(failed("open /dev/null"))?;
        Ok(Self {
            found_record: interlock::identity(&options.run),
            options,
            start: Instant::now(),
            signals,
            null,
            pipes: BTreeMap::new(),
            links: BTreeMap::new(),
            notifications: BTreeMap::new(),
            services: BTreeMap::new(),
            connections: Connections::default(),
            queue: VecDeque::new(),
            watchdogs: Vec::new(),
            looks: Looks::default(),
        })
    }

    /// Opens the control socket.
    ///
    /// # Errors
    /// Those of making its directory and of bind(2).
    pub(super) fn listen(&mut self) -> io::Result<()> {
        self.connections.listen(&self.options.run.join(super::control::SOCKET))
    }

    /// Gives it the watchdogs to feed.
    pub(super) fn guard(&mut self, watchdogs: Vec<Watchdog>) {
        self.watchdogs = watchdogs;
        // They were taken over by another clock.
        let now = self.now();
        self.watchdogs.iter_mut().for_each(|watchdog| watchdog.feed_now(now));
    }

    fn pipe_of(&mut self, service: &str) -> Result<(), Errno> {
        if !self.pipes.contains_key(service) {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            // Only PID 1's end must not block; the service's is an ordinary one.
            nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            self.pipes.insert(service.to_owned(), Pipe { read, write });
        }
        Ok(())
    }

    /// Makes the pipe into the consumer `name`, if it is not there yet. Its users block on it as on any pipe.
    fn link_of(&mut self, name: &str) -> Result<(), Errno> {
        if !self.links.contains_key(name) {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            self.links.insert(name.to_owned(), Pipe { read, write });
        }
        Ok(())
    }

    fn try_spawn(&mut self, launch: &Launch) -> Result<Pid, Errno> {
        let string = |bytes: &[u8]| process::c_string(bytes).map_err(|_| Errno::EINVAL);
        let words = script::runnable(&launch.argv);
        let argv = words.iter().map(|arg| string(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let program = string(&program_path(words.first().ok_or(Errno::ENOENT)?))?;
        let notification = launch.notification_fd.map(|_| pipe2(OFlag::O_CLOEXEC)).transpose()?;
        if let Some((read, _)) = &notification {
            nix::fcntl::fcntl(read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        self.pipe_of(&launch.service)?;
        if launch.reads_pipe {
            self.link_of(&launch.service)?;
        }
        if let Some(consumer) = &launch.writes_pipe_of {
            self.link_of(consumer)?;
        }
        let output = self.pipes.get(&launch.service).ok_or(Errno::EBADF)?;
        let input = self.links.get(&launch.service).filter(|_| launch.reads_pipe);
        let onwards = launch.writes_pipe_of.as_ref().and_then(|consumer| self.links.get(consumer));
        let extra = notification.as_ref().zip(launch.notification_fd);
        let pid = process::start(&Child {
            program,
            argv,
            env: process::clean_env(&launch.service),
            dir: string(launch.dir.as_os_str().as_bytes())?,
            stdin: input.map_or(self.null.as_fd(), |pipe| pipe.read.as_fd()),
            stdout: onwards.unwrap_or(output).write.as_fd(),
            stderr: output.write.as_fd(),
            extra: extra.map(|((_, write), number)| (write.as_fd(), i32::from(number))),
        })?;
        if let Some((read, _)) = notification {
            self.notifications.insert(pid, read);
        }
        self.services.insert(pid, launch.service.clone());
        Ok(pid)
    }

    /// Waits for something to be readable, or until the time is over.
    fn wait(&self, timeout: PollTimeout) {
        let fixed = [self.signals.as_fd()];
        let pipes = self.pipes.values().map(|pipe| pipe.read.as_fd());
        let notifications = self.notifications.values().map(AsFd::as_fd);
        let readable = fixed.into_iter().chain(pipes).chain(notifications).map(|fd| (fd, PollFlags::POLLIN));
        let all = readable.chain(self.connections.fds());
        let mut fds: Vec<PollFd<'_>> = all.map(|(fd, flags)| PollFd::new(fd, flags)).collect();
        // Interrupted or failed: the reads below find out what there is, and the loop asks again.
        let _ = poll(&mut fds, timeout);
    }

    /// Collects what there is, in the order that [`Kernel::next`] promises.
    fn collect(&mut self) {
        self.take_signals();
        self.take_notifications();
        let names: Vec<String> = self.pipes.keys().cloned().collect();
        for name in &names {
            self.take_output(name, PIPE_TURN);
        }
        self.reap();
        for news in self.connections.take(self.now()) {
            self.queue.push_back(match news {
                News::Request(from, line) => Event::Request { from, line },
                News::Gone(from) => Event::Gone { from },
            });
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            // What busybox's and sysvinit's tools send, and the kernel on ctrl-alt-del.
            let verb = match signal {
                Some(Signal::SIGTERM | Signal::SIGINT) => Verb::Reboot,
                Some(Signal::SIGUSR1) => Verb::Halt,
                Some(Signal::SIGUSR2) => Verb::Poweroff,
                _ => continue,
            };
            self.queue.push_back(Event::Asked(verb));
        }
    }

    fn take_notifications(&mut self) {
        let mut ready = Vec::new();
        self.notifications.retain(|pid, fd| {
            let mut bytes = [0; 256];
            match read(&*fd, &mut bytes) {
                Ok(0) => false,
                Ok(count) if bytes.iter().take(count).any(|byte| *byte == b'\n') => {
                    ready.push(*pid);
                    false
                }
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => true,
                Err(_) => false,
            }
        });
        for pid in ready {
            // What it said before it was ready stands in the log before it is called up.
            if let Some(service) = self.services.get(&pid).cloned() {
                self.take_output(&service, PIPE_TURN);
            }
            self.queue.push_back(Event::Ready { pid });
        }
    }

    fn take_output(&mut self, service: &str, limit: usize) {
        let Some(pipe) = self.pipes.get(service) else { return };
        let mut bytes = vec![0; limit];
        if let Ok(count) = read(&pipe.read, &mut bytes)
            && count > 0
        {
            bytes.truncate(count);
            self.queue.push_back(Event::Output { service: service.to_owned(), bytes });
        }
    }

    fn reap(&mut self) {
        for _ in 0..REAP_TURN {
            let Some((pid, ended)) = process::reap() else { return };
            let outcome = match ended {
                Ended::Code(code) => Outcome::Code(code),
                Ended::Signal(number) => Outcome::Signal(number),
            };
            self.take_notifications();
            self.notifications.remove(&pid);
            if let Some(service) = self.services.remove(&pid) {
                // A pipe holds 64 KiB unless somebody changed that.
                self.take_output(&service, 65_536);
            }
            self.queue.push_back(Event::Exited { pid, outcome });
        }
    }

    fn timeout_until(&self, deadline: Option<u64>) -> PollTimeout {
        let Some(deadline) = deadline else { return PollTimeout::NONE };
        let left = deadline.saturating_sub(self.now());
        PollTimeout::try_from(i32::try_from(left).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
    }
}

fn milliseconds_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Feeds those whose time it is, for whoever waits outside of the loop.
fn feeding(start: Instant, watchdogs: &mut [Watchdog]) -> impl FnMut() {
    move || {
        let now = milliseconds_since(start);
        for watchdog in &mut *watchdogs {
            watchdog.feed(now);
        }
    }
}

/// The path of a command: itself with a slash in it, otherwise the first executable file of that name in the services'
/// PATH. Not found, it stays as it is, and exec says so.
fn program_path(command: &OsStr) -> Vec<u8> {
    let name = command.as_bytes();
    let is_executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = || {
        let dirs = process::PATH.split(':');
        dirs.map(|dir| Path::new(dir).join(command)).find(is_executable)
    };
    match if name.contains(&b'/') { None } else { found() } {
        Some(path) => path.into_os_string().into_encoded_bytes(),
        None => name.to_vec(),
    }
}

impl Kernel for Linux {
    fn now(&self) -> u64 {
        milliseconds_since(self.start)
    }

    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn spawn(&mut self, launch: &Launch) -> Result<Pid, LaunchError> {
        self.try_spawn(launch).map_err(|errno| {
            let passing = [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::ETXTBSY];
            let program = launch.argv.first().map(|program| program.to_string_lossy().into_owned());
            LaunchError {
                problem: if passing.contains(&errno) {
                    StartProblem::Passing
                } else {
                    StartProblem::Permanent
                },
                text: format!("cannot execute {}: {}", program.unwrap_or_default(), errno.desc()),
            }
        })
    }

    fn signal(&mut self, to: Target, signal: Signal) {
        match to {
            // Never 0 or -1, which would mean others.
            Target::Process(pid) if pid > 1 => process::kill(pid, signal),
            Target::Group(pid) if pid > 1 => process::kill(-pid, signal),
            _ => {}
        }
    }

    fn signal_all(&mut self, signal: Signal) {
        process::kill(-1, signal);
        process::kill(-1, Signal::SIGCONT);
    }

    fn is_alone(&mut self) -> bool {
        // Whoever lost its parent became our child, so without children there is nobody; kernel threads are not ours.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::All, flags) == Err(Errno::ECHILD)
    }

    fn next(&mut self, deadline: Option<u64>) -> Event {
        if self.queue.is_empty() {
            let deadline = [deadline, self.connections.next_deadline()].into_iter().flatten().min();
            self.wait(self.timeout_until(deadline));
            self.collect();
        }
        self.queue.pop_front().unwrap_or(Event::Tick)
    }

    fn answer(&mut self, to: Connection, line: &str) {
        self.connections.answer(to, line);
    }

    fn hang_up(&mut self, to: Connection) {
        self.connections.hang_up(to);
    }

    fn report(&mut self, text: &str) {
        console::report(&self.options.console, text);
        console::wall(text);
        console::kernel_log(text);
    }

    fn flash_gate(&mut self) -> Gate {
        interlock::look(&self.options.run, Path::new("/proc"))
    }

    fn flash_record_was_found(&mut self) -> bool {
        self.found_record.is_some() && interlock::identity(&self.options.run) == self.found_record
    }

    fn sessions(&mut self, servers: &[Pid], others: &[Pid]) -> Vec<Session> {
        let (proc, now) = (Path::new("/proc"), self.now());
        let mut processes = sessions::table(proc);
        let pids = sessions::worth_a_look(&processes, servers, others);
        let feed = &mut feeding(self.start, &mut self.watchdogs);
        self.looks.fill(proc, &mut processes, &pids, now, feed);
        sessions::sessions(&processes, servers, others)
    }

    fn feed_watchdog(&mut self) -> Option<u64> {
        let now = self.now();
        self.watchdogs.iter_mut().map(|watchdog| watchdog.feed(now)).min()
    }

    fn hand_over(&mut self) -> Option<String> {
        let now = self.now();
        self.watchdogs.iter_mut().for_each(|watchdog| watchdog.feed_now(now));
        handover::execute(&self.options.run, &self.watchdogs)
    }

    fn settle_disks(&mut self) {
        let now = self.now();
        self.watchdogs.iter_mut().for_each(|watchdog| watchdog.feed_now(now));
        let in_time = disks::settle(&mut feeding(self.start, &mut self.watchdogs));
        if !in_time {
            self.report("could not write back and unmount everything in time");
        }
    }

    fn end(&mut self, verb: Verb) -> String {
        let now = self.now();
        let mode = match verb {
            Verb::Reboot => RebootMode::RB_AUTOBOOT,
            Verb::Poweroff => RebootMode::RB_POWER_OFF,
            Verb::Halt => RebootMode::RB_HALT_SYSTEM,
        };
        // Closed armed on a reboot, and fed no more: one that hangs, or that the kernel refuses, becomes a reset.
        for mut watchdog in self.watchdogs.drain(..) {
            match verb {
                Verb::Reboot => watchdog.feed_now(now),
                Verb::Poweroff | Verb::Halt => watchdog.disarm(),
            }
        }
        let Err(errno) = reboot(mode);
        format!("{}: the kernel refused: {}", verb.word(), errno.desc())
    }
}
