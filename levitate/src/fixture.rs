//! A small old system in a directory, for tests: s6-svscan as PID 1, a shell, dropbear, root with a key.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use ramdisk::dir_sink::Owners;
use ramdisk::path::Root;

use crate::arming::{self, Event, LevitateError};
use crate::config::Config;
use crate::facts::SystemFacts;
use crate::manifest::Manifest;
use crate::run_mount::{Mounts, Remount};

/// A service to log in through, and root.
pub(crate) const CONFIG: &str = r#"
state_file = "/persist/state.json"
reserve = "1M"
[keep]
network = false
[services.sshd]
run = ["/usr/sbin/dropbear", "-F"]
"#;

pub(crate) const BOOT_ID: &str = "7f0b3a52-boot";

/// A program that can be started at once. Another thread's child that is about to be may hold what this process has open
/// for writing, and what is open for writing cannot be executed: so a child writes it.
pub(crate) fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
}

pub(crate) struct OldSystem {
    dir: tempfile::TempDir,
    pub(crate) mounts: RecordedMounts,
}

/// Remembers what was asked for; the nth request can be made to fail.
#[derive(Default)]
pub(crate) struct RecordedMounts {
    pub(crate) asked: Vec<Remount>,
    pub(crate) fail: bool,
    /// Everything else, one line each, without the directory that the system lies in.
    pub(crate) done: Vec<String>,
    /// What armed.json said at each of these moments.
    pub(crate) recorded: Vec<String>,
    /// Mount points that something is mounted on, the last mounted last.
    pub(crate) mounted: Vec<PathBuf>,
    /// The request for which this says true fails.
    pub(crate) refuse: Option<fn(&str) -> bool>,
    /// At this request, counted from 0 and after it is done, the process ends.
    pub(crate) killed_at: Option<usize>,
    /// This signal comes at the request that begins so.
    pub(crate) signal_at: Option<(Signal, &'static str)>,
    base: PathBuf,
}

impl RecordedMounts {
    /// The options of /run's mount after all that was asked for.
    pub(crate) fn options_now(&self) -> Vec<String> {
        let first = ["rw", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        self.asked.last().map_or(first, |last| last.options.clone())
    }

    /// To be called when the nth request is done.
    fn end_here(&mut self) {
        match &mut self.killed_at {
            Some(0) => panic!("killed"),
            Some(left) => *left -= 1,
            None => {}
        }
    }

    fn note(&mut self, line: &str) -> io::Result<()> {
        let line = line.replace(&self.base.display().to_string(), "");
        if let Some((signal, _)) = self.signal_at.take_if(|(_, at)| line.starts_with(*at)) {
            nix::sys::signal::raise(signal)?;
        }
        let refused = self.refuse.is_some_and(|refuse| refuse(&line));
        self.done.push(line);
        let record = fs::read_to_string(self.base.join("run/levitate/armed.json"));
        self.recorded.push(record.unwrap_or_default());
        if refused { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

/// Where the double keeps what something is mounted over.
fn hidden(point: &Path) -> PathBuf {
    point.with_extension("hidden")
}

/// Something empty shows at the directory.
fn show(point: &Path) -> io::Result<()> {
    fs::rename(point, hidden(point))?;
    fs::create_dir(point)
}

impl Mounts for RecordedMounts {
    fn remount(&mut self, change: &Remount) -> io::Result<()> {
        self.asked.push(change.clone());
        if self.fail {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.end_here();
        Ok(())
    }

    fn is_mounted(&self, point: &Path) -> io::Result<bool> {
        Ok(self.mounted.iter().any(|mounted| mounted == point))
    }

    fn bind(&mut self, what: &Path, over: &Path) -> io::Result<()> {
        self.note(&format!("bind {} {}", what.display(), over.display()))?;
        if self.mounted.iter().any(|filled| filled == what) {
            show(over)?;
            for link in fs::read_dir(what)? {
                let link = link?;
                std::os::unix::fs::symlink(fs::read_link(link.path())?, over.join(link.file_name()))?;
            }
        }
        self.mounted.push(over.to_owned());
        self.end_here();
        Ok(())
    }

    fn fill(&mut self, apart: &Path) -> io::Result<()> {
        self.note(&format!("fill {}", apart.display()))?;
        show(apart)?;
        self.mounted.push(apart.to_owned());
        self.end_here();
        Ok(())
    }

    fn unmount(&mut self, point: &Path) -> io::Result<()> {
        self.note(&format!("unmount {}", point.display()))?;
        self.mounted.retain(|mounted| mounted != point);
        if hidden(point).exists() {
            fs::remove_dir_all(point)?;
            fs::rename(hidden(point), point)?;
        }
        self.end_here();
        Ok(())
    }

    fn hang_up(&mut self) -> io::Result<()> {
        self.note("hang up")?;
        self.end_here();
        Ok(())
    }

    fn start(&mut self, name: &str) -> io::Result<()> {
        self.note(&format!("start {name}"))?;
        let proc = self.base.join("proc/77");
        fs::create_dir_all(&proc)?;
        fs::write(proc.join("cmdline"), format!("{name}\0"))?;
        self.end_here();
        Ok(())
    }

    fn end(&mut self, pid: i32) -> io::Result<()> {
        self.note(&format!("end {pid}"))?;
        fs::remove_dir_all(self.base.join(format!("proc/{pid}")))
    }
}

/// The header of a 64-bit ELF file without any segments: a program that needs nothing.
pub(crate) fn static_program() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64, 0);
    bytes[16] = 2; // ET_EXEC
    bytes[18] = 183; // EM_AARCH64
    bytes[20] = 1;
    bytes
}

impl OldSystem {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounts = RecordedMounts { base: dir.path().to_owned(), ..RecordedMounts::default() };
        let system = Self { dir, mounts };
        for program in ["/bin/busybox", "/usr/sbin/dropbear", "/sbin/levitate"] {
            system.program(program, &static_program());
        }
        system.link("/bin/sh", "busybox");
        system.link("/sbin/reboot", "../bin/busybox");
        system.link("/proc/1/exe", "/usr/bin/s6-svscan");
        system.link("/proc/1/cwd", "/run/service");
        system.link("/proc/self/exe", "../../sbin/levitate");
        system.file("/proc/1/comm", "s6-svscan\n");
        system.file("/proc/meminfo", "MemTotal: 131072 kB\nMemAvailable: 65536 kB\n");
        system.run_mounted_with("rw,nosuid,nodev,noexec");
        system.file("/proc/sys/kernel/random/boot_id", &format!("{BOOT_ID}\n"));
        let finish = "#!/bin/sh\nif [ -x /run/maintenance/exec ]; then exec /run/maintenance/exec; fi\n";
        system.program("/run/service/.s6-svscan/finish", finish.as_bytes());
        system.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100::/home/ann:/bin/false\n");
        system.file("/etc/group", "root:x:0:\nusers:x:100:\n");
        system.file("/etc/shadow", "root:*:19000::::::\nann:$6$salt$hash:19000::::::\n");
        system.file("/root/.ssh/authorized_keys", "ssh-ed25519 AAAA me@home\n");
        system.file("/persist/dropbear/dropbear_ed25519_host_key", "a host key");
        system.link("/etc/dropbear", "/persist/dropbear");
        system
    }

    pub(crate) fn root(&self) -> Root {
        Root::new(self.dir.path())
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        self.bytes(path, text.as_bytes());
    }

    fn bytes(&self, path: &str, bytes: &[u8]) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, bytes).unwrap();
    }

    pub(crate) fn program(&self, path: &str, bytes: &[u8]) {
        self.bytes(path, bytes);
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(target, at).unwrap();
    }

    pub(crate) fn run_mounted_with(&self, options: &str) {
        let line = format!("25 21 0:22 / /run {options} - tmpfs tmpfs rw,size=50000k\n");
        self.file("/proc/self/mountinfo", &line);
    }

    pub(crate) fn config(text: &str) -> Config {
        Config::parse(Path::new("/etc/levitate.toml"), text).unwrap()
    }

    pub(crate) fn facts(&self, config: &Config) -> SystemFacts {
        SystemFacts::read(&self.root(), config).unwrap()
    }

    /// `levitate` with this configuration; the events are told, too.
    pub(crate) fn levitate(&mut self, config: &str) -> Result<(Manifest, Vec<Event>), LevitateError> {
        let config = Self::config(config);
        let facts = self.facts(&config);
        self.levitate_with(&config, &facts)
    }

    pub(crate) fn levitate_with(
        &mut self,
        config: &Config,
        facts: &SystemFacts,
    ) -> Result<(Manifest, Vec<Event>), LevitateError> {
        let mut events = Vec::new();
        let tell = &mut |event| events.push(event);
        let manifest = arming::levitate(config, facts, &mut self.mounts, Owners::Mine, tell)?;
        Ok((manifest, events))
    }

    /// Every name below a directory, sorted; directories end in a slash.
    pub(crate) fn names(&self, below: &str) -> Vec<String> {
        fn walk(base: &Path, at: &Path, names: &mut Vec<String>) {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(base).unwrap().display().to_string();
                if path.is_dir() && !path.is_symlink() {
                    names.push(format!("{name}/"));
                    walk(base, &path, names);
                } else {
                    names.push(name);
                }
            }
        }
        let mut names = Vec::new();
        walk(&self.at(below), &self.at(below), &mut names);
        names.sort();
        names
    }

    /// That neither a staged root nor a half of one is there.
    pub(crate) fn assert_nothing_staged(&self) {
        let names = fs::read_dir(self.at("/run")).unwrap();
        let names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!names.iter().any(|n| n.starts_with("maintenance")), "{names:?}");
    }
}
