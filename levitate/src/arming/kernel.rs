//! The running kernel, as arming changes it.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::handover::mounts;
use crate::run_mount::{Mounts, Remount};
use crate::sys::signals;

/// How long a process that was killed may take.
const LONGEST_END: Duration = Duration::from_secs(5);

/// The running kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelMounts;

impl Mounts for KernelMounts {
    fn remount(&mut self, change: &Remount) -> io::Result<()> {
        let mut flags = MsFlags::MS_REMOUNT;
        for option in &change.options {
            flags |= match option.as_str() {
                "ro" => MsFlags::MS_RDONLY,
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                // the times' options stay as they are if none of them is given
                _ => MsFlags::empty(),
            };
        }
        let size = change.size.map(|s| format!("size={s}"));
        let inodes = change.inodes.filter(|n| *n > 0).map(|n| format!("nr_inodes={n}"));
        let data: Vec<String> = size.into_iter().chain(inodes).collect();
        mount(None::<&str>, &change.point, None::<&str>, flags, Some(data.join(",").as_str()))?;
        Ok(())
    }

    fn is_mounted(&self, point: &Path) -> io::Result<bool> {
        let table = mounts::parse(&fs::read("/proc/self/mountinfo")?);
        Ok(mounts::at(&table, point).is_some())
    }

    fn bind(&mut self, what: &Path, over: &Path) -> io::Result<()> {
        mount(Some(what), over, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        // Where mounts are shared it would also get what is mounted over its original, which it is to keep reachable.
        Ok(mount(None::<&str>, over, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?)
    }

    fn fill(&mut self, apart: &Path) -> io::Result<()> {
        Ok(mount(Some("levitate"), apart, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?)
    }

    fn unmount(&mut self, point: &Path) -> io::Result<()> {
        match umount(point) {
            // it shares its file system with one that stays mounted, or holds nothing but links
            Err(Errno::EBUSY) => umount2(point, MntFlags::MNT_DETACH)?,
            done => done?,
        }
        Ok(())
    }

    fn hang_up(&mut self) -> io::Result<()> {
        Ok(kill(Pid::from_raw(1), Signal::SIGHUP)?)
    }

    fn start(&mut self, name: &str) -> io::Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(name).env_clear().current_dir("/run");
        // it must not keep the session's terminal, or the pipe of a remote command
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        signals::unblocked(&mut command);
        command.spawn().map(drop)
    }

    fn end(&mut self, pid: i32) -> io::Result<()> {
        // not SIGTERM: that is a wish to reboot
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Err(Errno::ESRCH) => return Ok(()),
            sent => sent?,
        }
        let started = Instant::now();
        // an own child stays as a zombie, which holds nothing
        while fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()) {
            if started.elapsed() > LONGEST_END {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {pid} does not end")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
