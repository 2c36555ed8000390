//! The old system: a root of its own with mounts, processes that do not want to go, and a staged root.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::RawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use levitate::manifest::{HandoverLimits, MANIFEST, Manifest};
use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;

use crate::machine::DEAD;

/// Everything that ignores being asked, or is born while others are killed.
const STRAYS: [&str; 5] = ["polite", "stubborn", "feeder", "second-feeder", "forker"];

/// Bytes that the old /run holds, in the file system that the staged root keeps alive.
pub(crate) const BALLAST: usize = 32 << 20;

#[expect(clippy::zombie_processes, reason = "ending and reaping them is what is tested")]
pub(crate) fn run(dir: &Path, scenario: &str) -> ! {
    assert_eq!(std::process::id(), 1, "only as PID 1 of a namespace");
    let old = dir.join("old");
    tmpfs(&old, MsFlags::empty());
    for name in ["bin", "etc", "proc", "dev", "run", "persist", "sys", "tmp", "mnt"] {
        fs::create_dir(old.join(name)).unwrap();
    }
    fs::write(old.join("etc/held"), "x").unwrap();
    for name in ["lib", "lib64"] {
        symlink(format!("run/maintenance/{name}"), old.join(name)).unwrap();
    }
    fs::copy("/proc/self/exe", old.join("bin/stray")).unwrap();
    tmpfs(&old.join("run"), MsFlags::MS_NODEV | MsFlags::MS_NOSUID);
    bind(&dir.join("shared/dev"), &old.join("dev"));
    bind(&dir.join("shared/persist"), &old.join("persist"));
    let deep = old.join("persist/deep down");
    fs::create_dir_all(&deep).unwrap();
    tmpfs(&deep, MsFlags::empty());
    fs::write(deep.join("file"), "x").unwrap();
    let read_only = MsFlags::MS_RDONLY;
    mount(Some("proc"), &old.join("proc"), Some("proc"), read_only, None::<&str>).unwrap();
    stage(&old.join("run/maintenance"), scenario);
    if scenario == "hang-behind-the-pivot" {
        never_answers(&old.join("run/maintenance/sys"));
    }
    enter(&old);
    // What pivot_root does not want to see, and most systems have.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>).unwrap();

    fs::create_dir_all("/run/levitate").unwrap();
    match scenario {
        "poweroff" => fs::write("/run/levitate/verb", "poweroff\n").unwrap(),
        "unknown-verb" => fs::write("/run/levitate/verb", "exit\n").unwrap(),
        _ => fs::write("/run/levitate/verb", "reboot\n").unwrap(),
    }
    if scenario == "hang" {
        never_answers(Path::new("/sys"));
    }
    match scenario {
        "dead-below-run" => mount_dead("/run/media/dead"),
        "dead-over-run" => {
            fs::create_dir_all("/mnt/inner/deep").unwrap();
            bind(Path::new("/run"), Path::new("/mnt/inner/deep"));
            mount_dead("/mnt/inner");
        }
        _ => {}
    }
    fs::create_dir("/run/ready").unwrap();
    fs::write("/run/ready/ballast", vec![1; BALLAST]).unwrap();
    for kind in STRAYS {
        Command::new("/bin/stray").args(["stray", kind]).spawn().unwrap();
    }
    wait_for(|| STRAYS.iter().all(|kind| Path::new("/run/ready").join(kind).exists()));
    fs::write("/dev/ready", "").unwrap();
    wait_for(|| Path::new("/dev/go").exists());

    // An fd far up, as sysvinit leaves one, and all signals blocked, as it does too.
    let held = File::open("/etc/held").unwrap();
    fcntl(&held, FcntlArg::F_DUPFD(300)).unwrap();
    SigSet::all().thread_block().unwrap();
    std::env::set_current_dir("/persist").unwrap();
    let error = Command::new("/run/maintenance/exec").exec();
    panic!("execute the hand-over: {error}");
}

pub(crate) fn stray(kind: &str) -> ! {
    let mut kept: Vec<File> = Vec::new();
    match kind {
        "stubborn" => {
            let mut term = SigSet::empty();
            term.add(Signal::SIGTERM);
            term.thread_block().unwrap();
            std::env::set_current_dir("/persist/deep down").unwrap();
            kept.push(OpenOptions::new().append(true).open("file").unwrap());
        }
        "feeder" => kept.push(OpenOptions::new().append(true).open("/dev/watchdog").unwrap()),
        "second-feeder" => kept.push(OpenOptions::new().append(true).open("/dev/watchdog1").unwrap()),
        _ => {}
    }
    fs::write(Path::new("/run/ready").join(kind), "").unwrap();
    if kind == "forker" {
        // Each generation lives for a moment and leaves the next one behind, an orphan.
        std::thread::sleep(Duration::from_millis(2));
        let _ = Command::new("/bin/stray").args(["stray", "forker"]).spawn();
        std::process::exit(0);
    }
    loop {
        std::thread::sleep(Duration::from_secs(1));
        drop(kept.iter().map(File::sync_all).collect::<Vec<_>>());
    }
}

fn stage(staged: &Path, scenario: &str) {
    for name in
        ["sbin", "dev", "proc", "sys", "run", "tmp", "root", "oldroot", "etc/levitate", "lib", "lib64"]
    {
        fs::create_dir_all(staged.join(name)).unwrap();
    }
    let program = staged.join("sbin/levitate");
    fs::copy("/proc/self/exe", &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    symlink("sbin/levitate", staged.join("exec")).unwrap();
    for library in libraries() {
        for directory in ["lib", "lib64"] {
            fs::copy(&library, staged.join(directory).join(library.file_name().unwrap())).unwrap();
        }
    }
    let init = staged.join("sbin/init");
    fs::write(&init, "#!/sbin/levitate init\n").unwrap();
    let mode = if scenario == "init-not-executable" { 0o644 } else { 0o755 };
    fs::set_permissions(&init, Permissions::from_mode(mode)).unwrap();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let whole_ms = match scenario {
        "too-slow" => 1,
        "hang" | "hang-behind-the-pivot" => 1_000,
        // with the guard's margin less than the test waits
        "dead-below-run" | "dead-over-run" => 10_000,
        _ => 60_000,
    };
    let manifest = Manifest {
        version: 1,
        staged_at: 0,
        boot_id: if scenario == "not-armed" { "another".into() } else { boot_id.trim().into() },
        services: vec![],
        users: vec![],
        files: 0,
        bytes: 0,
        state_home: None,
        watchdogs: vec![],
        state_file: Some("/persist/state.json".into()),
        lease_ms: None,
        lease_unverified_ms: None,
        ways_in: vec![],
        handover: HandoverLimits {
            whole_ms,
            term_grace_ms: 300,
            call_ms: 1_000,
            ..HandoverLimits::default()
        },
    };
    fs::write(staged.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

/// The shared objects that this program runs with: none if it is static.
fn libraries() -> BTreeSet<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    paths.filter(|path| path.contains(".so")).map(PathBuf::from).collect()
}

fn enter(old: &Path) {
    std::env::set_current_dir(old).unwrap();
    nix::unistd::pivot_root(".", "mnt").unwrap();
    nix::unistd::chroot(".").unwrap();
    std::env::set_current_dir("/").unwrap();
    umount2("/mnt", MntFlags::MNT_DETACH).unwrap();
}

pub(crate) fn tmpfs(at: &Path, flags: MsFlags) {
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("mode=755")).unwrap();
}

/// A driver whose attribute is never answered, as seen from PID 1.
fn never_answers(sys: &Path) {
    let directory = sys.join("block/loop0/loop");
    fs::create_dir_all(&directory).unwrap();
    nix::unistd::mkfifo(&directory.join("backing_file"), Mode::S_IRUSR).unwrap();
}

/// A file system whose daemon never answers: whoever so much as looks at it sleeps, and no signal but a deadly one
/// wakes him.
fn mount_dead(at: &str) {
    fs::create_dir_all(at).unwrap();
    let daemon: RawFd = std::env::var(DEAD).unwrap().parse().unwrap();
    let options = format!("fd={daemon},rootmode=40000,user_id=0,group_id=0");
    mount(Some("dead"), at, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
}

fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

pub(crate) fn wait_for(mut seen: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if seen() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited for 30 s in vain");
}
