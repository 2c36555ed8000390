//! A copy of the staged root in a mount namespace of its own, and programs that are loaded there and never run.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use ramdisk::dir_sink::{DirSink, Owners};
use ramdisk::sink::{Meta, Sink};
use ramdisk::tree::Tree;

use crate::check::trial::{Candidate, Outcome, Trials, linked, refused};
use crate::status::with_sources;

/// For the copy and all programs. A squashfs that must be unpacked from a slow chip takes its time.
const LIMIT: Duration = Duration::from_secs(120);
/// For one dynamic linker.
const LINKER_LIMIT: Duration = Duration::from_secs(10);
/// For a file that was just written to be nobody's to write any more.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
/// The copy hides this directory from itself alone: nothing that can be staged lies there.
const PLACE: &str = "/sys";
/// Room beyond the counted pages, for the file system's own needs.
const SLACK: u64 = 1 << 20;
/// The errno by which the child says that it may not be traced; execve has no use for it.
const NOT_TRACED: i32 = libc::EUSERS;

/// The running kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KernelTrials;

impl Trials for KernelTrials {
    /// A thread of its own has the mount namespace and the changed root, so that both are gone with it. Past the limit
    /// it is left behind; the process's end ends it.
    fn attempt(&mut self, tree: &Tree, bytes: u64, candidates: &[Candidate]) -> io::Result<Vec<Outcome>> {
        let (tree, candidates) = (tree.clone(), candidates.to_vec());
        let (tell, told) = mpsc::channel();
        let thread = thread::Builder::new().name("trial".to_owned()).spawn(move || {
            // nobody listens any more past the limit
            let _ = tell.send(in_a_namespace(&tree, bytes, &candidates));
        })?;
        match told.recv_timeout(LIMIT) {
            Ok(done) => {
                // it has nothing left to do but to let its namespace go
                let _ = thread.join();
                done
            }
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("not done within {} s", LIMIT.as_secs())))
            }
        }
    }
}

fn in_a_namespace(tree: &Tree, bytes: u64, candidates: &[Candidate]) -> io::Result<Vec<Outcome>> {
    let place = Path::new(PLACE);
    let null = File::open("/dev/null")?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let everything = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, everything, None::<&str>)?;
    let options = format!("mode=0700,size={}", bytes.saturating_add(SLACK));
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))?;
    let mut sink = DirSink::new(place, Owners::Set);
    tree.write_to(&mut sink)
        .and_then(|()| sink.directory(Path::new(""), Meta::root(0o755)))
        .map_err(|e| io::Error::other(with_sources(&e)))?;
    // dynamic linkers look there for their own name; without it most do, too
    let _ = mount(Some("/proc"), &place.join("proc"), None::<&str>, MsFlags::MS_BIND, None::<&str>);
    nix::unistd::chroot(place)?;
    nix::unistd::chdir("/")?;
    Ok(candidates.iter().map(|candidate| attempt(candidate, &null)).collect())
}

fn attempt(candidate: &Candidate, null: &File) -> Outcome {
    let outcome = load(&candidate.program, null);
    match &candidate.linker {
        Some(linker) if outcome == Outcome::Loads => list(linker, &candidate.program, null),
        _ => outcome,
    }
}

fn quiet(program: &Path, null: &File) -> io::Result<Command> {
    let mut command = Command::new(program);
    command.env_clear().stdin(null.try_clone()?);
    Ok(command)
}

/// Starts it. What was just written is busy as long as another thread's child, not executed yet, holds its descriptor.
fn spawn(command: &mut Command) -> io::Result<Child> {
    let end_at = Instant::now() + BUSY_LIMIT;
    loop {
        match command.spawn() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < end_at => {
                thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

/// Executes it as a traced process, which the kernel stops before its first instruction, and kills it there.
fn load(program: &Path, null: &File) -> Outcome {
    let spawned = quiet(program, null).and_then(|mut command| {
        command.stdout(null.try_clone()?).stderr(null.try_clone()?);
        spawn(traced(&mut command, CString::new(program.as_os_str().as_bytes())?))
    });
    match spawned {
        Ok(child) => {
            end(&child);
            Outcome::Loads
        }
        Err(e) if e.raw_os_error() == Some(NOT_TRACED) => Outcome::NotTried {
            reason: "the kernel does not let a program be stopped before it runs".to_owned(),
        },
        Err(e) => Outcome::Fails { reason: refused(&e) },
    }
}

/// The child executes the program itself: std's way would, with some C libraries, hand a file of unknown format to a shell.
#[allow(unsafe_code)]
fn traced(command: &mut Command, program: CString) -> &mut Command {
    let stop = move || {
        ptrace::traceme().map_err(|_| io::Error::from_raw_os_error(NOT_TRACED))?;
        let arguments = [program.as_ptr(), ptr::null()];
        let environment = [ptr::null()];
        // SAFETY: both lists end in a null pointer, and outlive the call with all that they point to.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        Err(io::Error::last_os_error())
    };
    // SAFETY: between fork and execve it makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(stop) }
}

/// Kills a process and reaps it; std's own wait would take its stop for its end.
fn end(child: &Child) {
    let Ok(pid) = i32::try_from(child.id()).map(Pid::from_raw) else { return };
    // one that has ended is as good
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    while let Ok(WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..)) = waitpid(pid, None) {}
}

/// `--list`, which glibc's and musl's dynamic linkers know, and which never starts the program. (The environment
/// variable for it would: musl does not know that.)
fn list(linker: &Path, program: &Path, null: &File) -> Outcome {
    let run = || -> io::Result<Outcome> {
        let (mut from, to) = io::pipe()?;
        let mut command = quiet(linker, null)?;
        command.arg("--list").arg(program).stdout(to.try_clone()?).stderr(Stdio::from(to));
        let mut child = spawn(&mut command)?;
        // else the pipe has a writer for ever
        drop(command);
        let end_at = Instant::now() + LINKER_LIMIT;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                // also where it says more than a pipe holds, which no sane one does
                None if Instant::now() >= end_at => {
                    end(&child);
                    let reason =
                        format!("its dynamic linker was not done within {} s", LINKER_LIMIT.as_secs());
                    return Ok(Outcome::Fails { reason });
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        };
        let mut said = Vec::new();
        from.read_to_end(&mut said)?;
        Ok(linked(status.code(), &String::from_utf8_lossy(&said), linker))
    };
    run().unwrap_or_else(|e| Outcome::Fails {
        reason: format!("its dynamic linker {}: {}", linker.display(), refused(&e)),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ramdisk::closure::Closure;
    use ramdisk::closure::elf::{self, Program};
    use ramdisk::path::Root;
    use ramdisk::sink::Content;

    use super::*;

    /// Past libtest's capture, and on the stream that `cargo test-all` counts such lines on.
    fn did_not_run() {
        let text = "\nDID NOT RUN: programs in a root of their own: no permission for mounts\n";
        let _ = io::Write::write_all(&mut io::stdout(), text.as_bytes());
    }

    fn mounts() -> String {
        std::fs::read_to_string("/proc/self/mountinfo").unwrap()
    }

    #[test]
    fn programs_are_loaded_in_a_root_of_their_own_none_of_them_runs_and_no_mount_is_left() {
        let root = Root::new("/");
        let shell = std::fs::canonicalize("/bin/sh").unwrap();
        let Ok(Program::Elf(elf)) = elf::read(&shell) else { panic!("{shell:?} is a script") };
        let linker = elf.interpreter.map(PathBuf::from);
        let closure = Closure::resolve(&root, std::slice::from_ref(&shell), &[]).unwrap();
        let mut tree = Tree::new();
        tree.links(&closure.links).unwrap();
        closure.files.iter().for_each(|file| tree.copy_real(&root, file).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("ran");
        let mut put = |name: &str, text: String| {
            tree.file(Path::new(name), Meta::root(0o755), Content::Bytes(text.into())).unwrap();
            Candidate { program: Path::new("/").join(name), linker: None }
        };
        let candidates = [
            Candidate { program: shell.clone(), linker: linker.clone() },
            // out of its own root, if it ran
            put(
                "runs",
                format!("#!{}\n: > /proc/{}/root{}\n", shell.display(), std::process::id(), mark.display()),
            ),
            put("lost", "#!/no/such/shell\n".into()),
            put("other", "\x7fELF for nobody".into()),
        ];
        tree.directory(Path::new("proc"), Meta::root(0o755)).unwrap();
        let before = mounts();
        let done = KernelTrials.attempt(&tree, 64 << 20, &candidates);
        assert_eq!(before, mounts());
        assert!(!mark.exists(), "a program was run");
        // without privilege there is no such root, and that is said
        let Ok(outcomes) = done else {
            let e = done.unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::PermissionDenied, "{e}");
            return did_not_run();
        };
        let links = if linker.is_some() { Outcome::Links } else { Outcome::Loads };
        assert_eq!(outcomes[..2], [links, Outcome::Loads]);
        assert_eq!(outcomes[2], Outcome::Fails { reason: "its interpreter is not there".into() });
        let Outcome::Fails { reason } = &outcomes[3] else { panic!("{outcomes:?}") };
        assert!(reason.contains("another processor"), "{reason}");
    }

    #[test]
    fn a_missing_library_is_named() {
        let Ok(Program::Elf(elf)) = elf::read(Path::new("/proc/self/exe")) else { panic!("no ELF") };
        let Some(linker) = elf.interpreter.map(PathBuf::from) else { return };
        let own = std::env::current_exe().unwrap();
        let mut tree = Tree::new();
        let root = Root::new("/");
        // the linker itself, and no library
        let found = root.resolve(&linker).unwrap();
        tree.links(&found.links).unwrap();
        tree.copy_real(&root, &found.real).unwrap();
        tree.file(
            Path::new("tool"),
            Meta::root(0o755),
            Content::CopyOf(ramdisk::original::Original::look(&own).unwrap()),
        )
        .unwrap();
        tree.directory(Path::new("proc"), Meta::root(0o755)).unwrap();
        let candidate = Candidate { program: "/tool".into(), linker: Some(linker) };
        let Ok(outcomes) = KernelTrials.attempt(&tree, 512 << 20, &[candidate]) else {
            return did_not_run();
        };
        let [Outcome::Fails { reason }] = outcomes.as_slice() else { panic!("{outcomes:?}") };
        assert!(reason.contains("lib"), "{reason}");
    }
}
