//! The real init as process 1 of a new pid, mount, network and host name namespace, with real services.
//!
//! reboot(2) in such a namespace ends its process 1 by a signal: SIGHUP for a restart, SIGINT for power-off and halt
//! (`kernel/pid_namespace.c`), which is how these tests see the verb.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RESTARTED: i32 = 1;
const POWERED_OFF: i32 = 2;
/// For what normally takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The init, housed in a namespace of its own.
struct Housed {
    dir: tempfile::TempDir,
    unshare: Child,
    /// True if its run directory is a file system of the namespace's own.
    has_own_run: bool,
}

/// `unshare` with the namespaces that a test needs; for one who is not root, with one of users in which he is.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::Uid::effective().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--mount", "--net", "--uts", "--fork", "--mount-proc"]);
    command
}

/// Says loudly that a test did not run.
fn is_permitted() -> bool {
    let tried = unshare().arg("true").output();
    match tried {
        Ok(output) if output.status.success() => true,
        other => {
            // Past libtest's capture, and on the stream that `cargo test-all` counts such lines on.
            let mut terminal = std::io::stdout();
            let _ = writeln!(terminal, "\nDID NOT RUN: no permission for namespaces of its own: {other:?}");
            false
        }
    }
}

/// The example beside this test's binary: cargo builds it before it runs all tests, and for one of them if it is asked
/// by `--examples`.
fn init_binary() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples/init");
    assert!(path.exists(), "{} was not built", path.display());
    path
}

fn write(path: &Path, mode: u32, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Housed {
    /// Starts the init over files given as path below the services folder and text.
    fn start(files: &[(&str, &str)]) -> Self {
        Self::start_with(files, |_| {})
    }

    fn start_with(files: &[(&str, &str)], before: impl Fn(&Path)) -> Self {
        let dir = Self::start_dir(files);
        before(&dir.path().join("run"));
        Self::spawn(dir, "")
    }

    fn start_dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("console"), "").unwrap();
        for (path, text) in files {
            let text = text.replace("DIR", dir.path().to_str().unwrap());
            let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
            write(&dir.path().join("services").join(path), mode, &text);
        }
        fs::create_dir(dir.path().join("run")).unwrap();
        dir
    }

    /// Starts the init with a run directory that holds no more than `size` (of `mount -o size=`).
    fn start_with_small_run(files: &[(&str, &str)], size: &str) -> Self {
        let dir = Self::start_dir(files);
        let run = dir.path().join("run");
        let mount = format!("mount -t tmpfs -o size={size} tmpfs {};", run.display());
        Self::spawn(dir, &mount)
    }

    fn spawn(dir: tempfile::TempDir, before: &str) -> Self {
        let unshare = unshare()
            .args(["sh", "-c", &format!("{before} exec \"$@\""), "sh"])
            .arg(init_binary())
            .arg("--services")
            .arg(dir.path().join("services"))
            .arg("--run")
            .arg(dir.path().join("run"))
            .arg("--console")
            .arg(dir.path().join("console"))
            .arg("--network")
            .arg(dir.path().join("network.json"))
            .arg("--manifest")
            .arg(dir.path().join("manifest.json"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { dir, unshare, has_own_run: !before.is_empty() }
    }

    fn path(&self, name: &str) -> PathBuf {
        if self.has_own_run && name.starts_with("run") {
            let root = PathBuf::from(format!("/proc/{}/root", self.pid_of_init()));
            return root.join(self.dir.path().strip_prefix("/").unwrap()).join(name);
        }
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The log without stamps, with what was archived of it.
    fn log(&self) -> String {
        let entries = fs::read_dir(self.path("run/log")).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.ends_with(".s"));
        names.sort();
        names.push("current".to_owned());
        let log: String = names.iter().map(|name| self.read(&format!("run/log/{name}"))).collect();
        log.lines().filter_map(|line| line.split_once(' ')).map(|(_, rest)| format!("{rest}\n")).collect()
    }

    fn wait_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            let over = self.unshare.try_wait().unwrap();
            if over.is_some() || Instant::now() > end {
                panic!("{what}: not seen; ended: {over:?}; log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_for_log(&mut self, line: &str) {
        self.wait_until(line, |s| s.log().lines().any(|have| have == line));
    }

    fn ask(&self, request: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.path("run/levitate/init.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{request}").unwrap();
        stream
    }

    fn answer(&self, request: &str) -> String {
        let mut text = String::new();
        self.ask(request).read_to_string(&mut text).unwrap();
        text
    }

    /// The signal that ended the namespace, as unshare passes it on.
    fn ended_by(&mut self) -> i32 {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.unshare.try_wait().unwrap() {
                return status.signal().or(status.code().map(|code| code - 128)).unwrap();
            }
            assert!(Instant::now() < end, "the namespace did not end; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The init's number outside of its namespace.
    fn pid_of_init(&self) -> i32 {
        let children = format!("/proc/{0}/task/{0}/children", self.unshare.id());
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(pid) = fs::read_to_string(&children).unwrap_or_default().trim().parse() {
                return pid;
            }
            assert!(Instant::now() < end, "the namespace did not begin");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Housed {
    fn drop(&mut self) {
        // The namespace ends with its first process, and that with its parent's signal.
        if self.unshare.try_wait().is_ok_and(|status| status.is_none()) {
            let pid = nix::unistd::Pid::from_raw(self.pid_of_init());
            // Its number is still its own: its parent has not ended.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let _ = self.unshare.wait();
        }
    }
}

const SERVICES: &[(&str, &str)] = &[
    ("default/type", "bundle\n"),
    ("default/contents.d/web", ""),
    ("default/contents.d/setup", ""),
    ("default/contents.d/line", ""),
    ("line/type", "oneshot\n"),
    ("line/up", "echo a 'command  line'\n"),
    ("setup/type", "oneshot\n"),
    ("setup/up", "#!/bin/sh\necho \"setup in $(pwd)\"\n"),
    ("setup/down", "#!/bin/sh\necho taken down\n"),
    ("net/type", "longrun\n"),
    ("net/run", "#!/bin/sh\necho started\necho >&4\nexec sleep 1000\n"),
    ("net/notification-fd", "4\n"),
    ("web/type", "longrun\n"),
    ("web/run", "#!/bin/sh\ntrap 'echo bye; exit 0' TERM\necho up\nwhile :; do sleep 1000 & wait $!; done\n"),
    ("web/dependencies.d/net", ""),
];

#[test]
fn services_start_in_order_are_logged_and_stop_in_reverse_before_the_reboot() {
    if !is_permitted() {
        return;
    }
    let mut init = Housed::start(SERVICES);
    init.wait_for_log("init web: up");
    init.wait_for_log("init setup: up");
    init.wait_for_log("init line: up");
    init.wait_for_log("web up");
    let status = init.answer("status");
    let names: Vec<String> =
        status.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(names, ["line up", "net up", "setup up", "web up", "exit 0"], "{status}");

    assert_eq!(init.answer("reboot"), "exit 0\n");
    assert_eq!(init.ended_by(), RESTARTED);
    let log = init.log();
    let at = |line: &str| {
        log.lines().position(|have| have == line).unwrap_or_else(|| panic!("no {line:?} in\n{log}"))
    };
    assert!(at("net started") < at("init net: up"), "{log}");
    assert!(at("init net: up") < at("web up"), "{log}");
    at("setup setup in /");
    at("line a command  line");
    assert!(at("init reboot: stopping services") < at("web bye"), "{log}");
    assert!(at("web bye") < at("init web: down"), "{log}");
    assert!(at("init web: down") < at("init net: down"), "{log}");
    at("setup taken down");
    assert_eq!(init.read("run/uncaught-logs/current"), init.read("run/log/current"));
    assert!(init.read("console").contains("init: reboot: stopping services"), "{}", init.read("console"));
}

#[test]
fn poweroff_and_the_signals_of_other_systems_tools_end_it_by_their_verb() {
    if !is_permitted() {
        return;
    }
    use nix::sys::signal::Signal::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    for (signal, expected) in
        [(SIGTERM, RESTARTED), (SIGINT, RESTARTED), (SIGUSR1, POWERED_OFF), (SIGUSR2, POWERED_OFF)]
    {
        let mut init = Housed::start(SERVICES);
        init.wait_for_log("init web: up");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(init.pid_of_init()), signal).unwrap();
        assert_eq!(init.ended_by(), expected, "{signal}");
    }
    let mut init = Housed::start(SERVICES);
    init.wait_for_log("init web: up");
    assert_eq!(init.answer("poweroff"), "exit 0\n");
    assert_eq!(init.ended_by(), POWERED_OFF);
}

#[test]
fn a_process_that_dies_is_started_again_and_orphans_are_reaped() {
    if !is_permitted() {
        return;
    }
    let mut init = Housed::start(&[
        ("default/type", "bundle\n"),
        ("default/contents.d/x", ""),
        ("x/type", "longrun\n"),
        // Each life leaves an orphan that ends after its parent.
        (
            "x/run",
            "#!/bin/sh\n(sleep 0.05; echo orphan) &\necho life $$\n[ -e DIR/second ] && exit 3\n: > DIR/second\nkill -40 $$\n",
        ),
        ("x/finish", "#!/bin/sh\necho finish $1 $2 $3\n"),
    ]);
    init.wait_until("three lives", |s| s.log().matches("x life ").count() >= 3);
    let log = init.log();
    assert!(log.contains("init x: process ended with signal 40, starting it again\n"), "{log}");
    assert!(log.contains("init x: process ended with exit code 3, starting it again\n"), "{log}");
    assert!(log.contains("x finish 256 40 x\n"), "{log}");
    assert!(log.contains("x finish 3 0 x\n"), "{log}");
    init.wait_until("orphans end", |s| s.log().matches("x orphan").count() >= 2);
    let status = init.answer("status");
    assert!(status.starts_with("x up "), "{status}");
    // Nothing that ended is left as a zombie for longer than it takes to look.
    let pid = init.pid_of_init();
    init.wait_until("no zombies", |_| {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().all(|child| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            !stat.contains(") Z ")
        })
    });
}

const FLASH: &str = r#"{ "version": 1, "state": "STATE", "pid": PID, "command": ["flashcp", "-v", "f.bin", "mtd:firmware"],
  "device": "/dev/mtd5", "name": "firmware", "chip": null, "start": 0, "end": 1, "image": "f.bin", "image_bytes": 1,
  "bytes_done": 0, "bytes_total": 1, "started": 1, "finished": null,
  "operations": {"erases": 0, "programmed": 0, "read": 0}, "retries": 0,
  "image_sha256": null, "range_sha256": null, "exit_code": null, "error": null }"#;

#[test]
fn reboot_waits_for_the_writer_of_flash_and_names_it() {
    if !is_permitted() {
        return;
    }
    // A service stands for the login in which flashcp runs: it is told to end only by the test.
    let mut init = Housed::start(&[
        ("default/type", "bundle\n"),
        ("default/contents.d/flash", ""),
        ("flash/type", "longrun\n"),
        (
            "flash/run",
            "#!/bin/sh\nprintf flashcp > /proc/self/comm\necho $$ > DIR/pid\n\
             trap 'echo killed while changing' TERM\nwhile [ ! -e DIR/go ]; do sleep 0.02; done\n\
             sed s/changing/verified/ DIR/run/levitate/flash.json > DIR/run/levitate/new\n\
             mv DIR/run/levitate/new DIR/run/levitate/flash.json\nexec sleep 1000\n",
        ),
    ]);
    init.wait_until("the writer", |s| s.read("pid").ends_with('\n'));
    let pid = init.read("pid").trim().to_owned();
    let record = FLASH.replace("STATE", "changing").replace("PID", &pid);
    write(&init.path("run/levitate/flash.json"), 0o644, &record);

    let mut answer = BufReader::new(init.ask("reboot"));
    let mut line = String::new();
    answer.read_line(&mut line).unwrap();
    assert_eq!(
        line,
        format!(
            "reboot: waiting, because flash is being changed by flashcp (pid {pid}), on /dev/mtd5 (firmware); \
             it follows when that has ended (-f overrides)\n"
        )
    );
    // A second wish, by signal, is no reason either.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init.pid_of_init()), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    init.wait_for_log("init reboot: asked for by a signal");
    assert!(init.answer("status").starts_with("flash up "));
    write(&init.path("go"), 0o644, "");
    line.clear();
    answer.read_to_string(&mut line).unwrap();
    assert!(line.ends_with("exit 0\n"), "{line}");
    assert_eq!(init.ended_by(), RESTARTED);
    assert!(!init.log().contains("killed while changing"), "{}", init.log());
}

#[test]
fn reboot_refuses_after_an_unverified_change_and_force_overrides() {
    if !is_permitted() {
        return;
    }
    let record = FLASH.replace("STATE", "unverified").replace("PID", "999999");
    let mut init =
        Housed::start_with(SERVICES, |run| write(&run.join("levitate/flash.json"), 0o644, &record));
    init.wait_for_log("init web: up");
    let refusal = "reboot: refused\n\
        /dev/mtd5 (firmware) was changed and not verified: the device may not boot from it; run again:\n\
        \x20   flashcp -v f.bin mtd:firmware\n(-f overrides)\nexit 1\n";
    assert_eq!(init.answer("reboot"), refusal);
    assert!(init.answer("status").contains("web up "));
    assert_eq!(init.answer("reboot force"), "exit 0\n");
    assert_eq!(init.ended_by(), RESTARTED);
}

#[test]
fn without_services_it_says_so_and_goes_back_to_the_old_system() {
    if !is_permitted() {
        return;
    }
    let files = [
        ("default/type", "bundle\n"),
        ("default/contents.d/x", ""),
        ("x/type", "longrun\n"),
        ("x/run", "#!/nonexistent\n"),
    ];
    let maintenance = |run: &Path| write(&run.with_file_name("manifest.json"), 0o644, "{}");
    let mut init = Housed::start_with(&files, maintenance);
    assert_eq!(init.ended_by(), RESTARTED);
    let log = init.log();
    assert!(log.contains("init x: cannot execute "), "{log}");
    assert!(log.contains("init x: marked down: its program cannot be executed\n"), "{log}");
    assert!(log.contains("init no service can be started: "), "{log}");
    assert!(init.read("console").contains("no service can be started"));
}

#[test]
fn a_normal_system_starts_what_is_valid_and_its_console_if_nothing_else_can_be() {
    if !is_permitted() {
        return;
    }
    let mut init = Housed::start(&[
        ("default/type", "bundle\n"),
        ("default/contents.d/bad", ""),
        ("default/contents.d/broken", ""),
        ("bad/type", "longrn\n"),
        ("broken/type", "oneshot\n"),
        ("broken/up", "false\n"),
        ("console/type", "longrun\n"),
        ("console/run", "#!/bin/sh\necho here is a shell\nexec sleep 1000\n"),
    ]);
    init.wait_for_log("console here is a shell");
    let log = init.log();
    let said = [
        "bad/type: expected longrun, oneshot or bundle, found \"longrn\"",
        "contents.d/bad names bad, which does not exist",
        "init broken: marked down: up ended with exit code 1",
        "starting for the console: console",
    ];
    for text in said {
        assert!(log.lines().any(|line| line.starts_with("init ") && line.ends_with(text)), "{text}: {log}");
    }
    assert!(!log.contains("rebooting"), "{log}");
    assert_eq!(init.answer("reboot"), "exit 0\n");
    assert_eq!(init.ended_by(), RESTARTED);
}

#[path = "init_in_a_pid_namespace/lease.rs"]
mod lease;
#[path = "init_in_a_pid_namespace/log.rs"]
mod log;
#[path = "init_in_a_pid_namespace/services.rs"]
mod services;
