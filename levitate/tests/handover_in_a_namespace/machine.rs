//! The machine around it: a mount namespace whose tmpfs outlives the inner namespaces, so that what was written to the
//! console and to /persist can be read when they are gone.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::MsFlags;
use serde::{Deserialize, Serialize};

use crate::old_system::{tmpfs, wait_for};

/// What is left when the machine has gone down.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Remains {
    /// The signal by which the kernel ends a PID namespace: 1 for a reset, 2 for a poweroff or halt.
    pub(crate) ended_by: Option<i32>,
    pub(crate) console: String,
    pub(crate) kernel_log: String,
    pub(crate) messages: String,
    pub(crate) state: String,
    pub(crate) watchdog_bytes: [u64; 2],
    /// The new init's report; empty if it was never started.
    pub(crate) report: String,
}

pub(crate) const INNER: [&str; 6] =
    ["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"];

pub(crate) fn run(dir: &Path, scenario: &str) -> ! {
    let shared = dir.join("shared");
    for name in ["shared", "old"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    tmpfs(&shared, MsFlags::empty());
    let (dev, persist) = (shared.join("dev"), shared.join("persist"));
    fs::create_dir(&dev).unwrap();
    fs::create_dir(&persist).unwrap();
    for device in ["console", "kmsg", "pmsg0", "watchdog", "watchdog1"] {
        fs::write(dev.join(device), "").unwrap();
    }
    let dead = dead_daemon(scenario);
    let mut inner = Command::new("unshare");
    if let Some(dead) = &dead {
        inner.env(DEAD, dead.as_raw_fd().to_string());
    }
    let inner = inner
        .args(INNER)
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["old-system"])
        .arg(dir)
        .arg(scenario)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut inner = Ended(inner);
    wait_for(|| dev.join("ready").exists() || inner.0.try_wait().unwrap().is_some());
    let held = hold(&inner.0, scenario);
    fs::write(dev.join("go"), "").unwrap();
    let mut ended = None;
    wait_for(|| {
        ended = inner.0.try_wait().unwrap();
        ended.is_some()
    });
    drop((held, dead));
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let remains = Remains {
        ended_by: ended.and_then(|status| status.signal().or(status.code().map(|code| code - 128))),
        console: text(&dev.join("console")),
        kernel_log: text(&dev.join("kmsg")),
        messages: text(&dev.join("pmsg0")),
        state: text(&persist.join("state.json")),
        watchdog_bytes: ["watchdog", "watchdog1"].map(|name| fs::metadata(dev.join(name)).unwrap().len()),
        report: text(&dev.join("report.json")),
    };
    println!("{}", serde_json::to_string(&remains).unwrap());
    std::process::exit(0)
}

/// Ends the namespaces with the test, even where PID 1 sleeps in the kernel: a signal from outside reaches it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It has ended, as it should.
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// The variable that tells the old system which descriptor it mounts its dead file system by.
pub(crate) const DEAD: &str = "DEAD_DAEMON";

/// The daemon of a file system that never answers, and that nothing inside the namespaces can end.
fn dead_daemon(scenario: &str) -> Option<File> {
    if !scenario.starts_with("dead-") {
        return None;
    }
    let fuse = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    fcntl(&fuse, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    Some(fuse)
}

/// Opens a file of the old system from outside, where no signal of the hand-over reaches: what a process stuck in the
/// kernel does to it.
fn hold(inner: &Child, scenario: &str) -> Option<File> {
    let path = match scenario {
        "root-held" => "etc/held",
        "data-held" => "persist/deep down/file",
        _ => return None,
    };
    let children = format!("/proc/{0}/task/{0}/children", inner.id());
    let pid = fs::read_to_string(children).unwrap();
    Some(File::open(Path::new("/proc").join(pid.trim()).join("root").join(path)).unwrap())
}
