//! A small old system in a directory: s6-svscan as PID 1, a shell, dropbear, root and ann with keys.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use levitate::arming::{self, LevitateError};
use levitate::config::Config;
use levitate::facts::SystemFacts;
use levitate::run_mount::{Mounts, Remount};
use ramdisk::dir_sink::Owners;
use ramdisk::path::Root;

pub(crate) const CONFIG: &str = r#"
[keep]
network = false
[services.sshd]
run = ["/usr/sbin/dropbear", "-F"]
[users.root]
[users.ann]
shell = "/bin/sh"
"#;

pub(crate) struct OldSystem(tempfile::TempDir);

struct NoMounts;

impl Mounts for NoMounts {
    fn remount(&mut self, _: &Remount) -> io::Result<()> {
        Ok(())
    }
    fn is_mounted(&self, _: &Path) -> io::Result<bool> {
        Ok(false)
    }
    fn bind(&mut self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn fill(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn unmount(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn hang_up(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn start(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn end(&mut self, _: i32) -> io::Result<()> {
        Ok(())
    }
}

impl OldSystem {
    pub(crate) fn new() -> Self {
        let system = Self(tempfile::tempdir().unwrap());
        for program in ["/bin/sh", "/usr/sbin/dropbear", "/sbin/levitate"] {
            system.file(program, "#!/bin/sh\n", 0o755);
        }
        // a program that needs nothing
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        (elf[16], elf[18], elf[20]) = (2, 183, 1);
        fs::write(system.at("/bin/sh"), elf).unwrap();
        for (at, target) in [
            ("/proc/1/exe", "/usr/bin/s6-svscan"),
            ("/proc/1/cwd", "/run/service"),
            ("/proc/self/exe", "../../sbin/levitate"),
        ] {
            system.link(at, target);
        }
        let finish = "#!/bin/sh\nif [ -x /run/maintenance/exec ]; then exec /run/maintenance/exec; fi\n";
        for (at, text, mode) in [
            ("/proc/1/comm", "s6-svscan\n", 0o644),
            ("/proc/meminfo", "MemAvailable: 65536 kB\n", 0o644),
            ("/proc/self/mountinfo", "25 21 0:22 / /run rw - tmpfs tmpfs rw,size=50000k\n", 0o644),
            ("/proc/sys/kernel/random/boot_id", "boot\n", 0o644),
            ("/run/service/.s6-svscan/finish", finish, 0o755),
            (
                "/etc/passwd",
                "root:x:0:0::/root:/bin/sh\nann:x:1000:100::/home/ann:\ndaemon:x:2:2::/usr/sbin:\n",
                0o644,
            ),
            ("/etc/group", "root:x:0:\nusers:x:100:\n", 0o644),
            ("/etc/shadow", "root:$6$secret:1::::::\nann:*:1::::::\n", 0o600),
            ("/root/.ssh/authorized_keys", "ssh-ed25519 AAAA me\n", 0o600),
            ("/etc/dropbear/dropbear_ed25519_host_key", "a host key", 0o600),
        ] {
            system.file(at, text, mode);
        }
        system
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn file(&self, path: &str, text: &str, mode: u32) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, text).unwrap();
        self.mode(path, mode);
    }

    pub(crate) fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn link(&self, at: &str, target: &str) {
        fs::create_dir_all(self.at(at).parent().unwrap()).unwrap();
        symlink(target, self.at(at)).unwrap();
    }

    pub(crate) fn levitate(&self, config: &str) -> Result<(), LevitateError> {
        let config = Config::parse(Path::new("/etc/levitate.toml"), config).unwrap();
        let facts = SystemFacts::read(&Root::new(self.0.path()), &config).unwrap();
        arming::levitate(&config, &facts, &mut NoMounts, Owners::Mine, &mut |_| {}).map(drop)
    }

    /// The permission bits of what was staged at this name, symlinks not followed.
    pub(crate) fn staged_mode(&self, path: &str) -> u32 {
        let at = self.at("/run/maintenance").join(path.trim_start_matches('/'));
        let meta = fs::symlink_metadata(&at).unwrap_or_else(|e| panic!("{path}: {e}"));
        meta.permissions().mode() & 0o7777
    }

    pub(crate) fn staged_text(&self, path: &str) -> String {
        fs::read_to_string(self.at("/run/maintenance").join(path.trim_start_matches('/'))).unwrap()
    }
}
