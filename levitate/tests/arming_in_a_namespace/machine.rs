//! In the namespace: `levitate`'s steps are done by a process that is killed after its nth call of the kernel, and undone.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use levitate::arm::{self, Hook, Init};
use levitate::arming::{self, Doing, KernelMounts};
use levitate::run_mount::{Mounts, Remount};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, raise};
use ramdisk::path::Root;

use crate::system::{self, APPLETS, FRONT};

pub(crate) fn run(dir: &Path, layout: &str, propagation: &str) -> ! {
    if propagation == "shared" {
        let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).unwrap();
    }
    let folder = system::make(dir, layout);
    let before = system::look(dir);
    let mut moments = 0;
    for nth in 0.. {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let ended = command.arg("arm").arg(dir).arg(nth.to_string()).status().unwrap();
        let killed = ended.signal() == Some(Signal::SIGKILL as i32);
        assert!(killed || ended.success(), "{nth}: {ended}");
        let covered = every_applet_can_be_run(dir, &folder);
        assert!(covered || killed, "in the end its reboot is ours");
        arming::undo(&Root::new(dir), &mut Quiet { left: None }).unwrap();
        assert_eq!(system::look(dir), before, "after an abort of what was killed at call {nth}");
        if !killed {
            break;
        }
        moments += 1;
    }
    // inittab, perhaps the folder's other name, fill, bind, unmount
    assert!(moments >= 4, "{moments}");
    std::process::exit(0)
}

/// Whether `reboot` leads to ours.
fn every_applet_can_be_run(dir: &Path, folder: &Path) -> bool {
    let root = Root::new(dir);
    for applet in APPLETS {
        let found = root.resolve(&folder.join(applet)).unwrap_or_else(|e| panic!("{applet} is gone: {e}"));
        let real = if found.real == Path::new(FRONT) && applet == "reboot" {
            root.resolve(Path::new("/bin/busybox")).unwrap().real
        } else {
            found.real
        };
        let text = std::fs::read(root.host(&real)).unwrap();
        assert!(text.starts_with(b"\x7fELF BusyBox"), "{applet} leads to {}", real.display());
    }
    root.resolve(&folder.join("reboot")).unwrap().real == Path::new(FRONT)
}

/// What `levitate` does for such an init.
pub(crate) fn arm(dir: &Path, killed_at: usize) -> ! {
    let root = Root::new(dir);
    let init = Init::Busybox { program: "/usr/bin/busybox".into() };
    let Hook::Wired { steps, .. } = arm::hook(&root, &init) else { panic!("not wired") };
    let mut doing = Doing::begin(&root).unwrap();
    doing.carry_out(&mut Quiet { left: Some(killed_at) }, &steps).unwrap();
    std::process::exit(0)
}

/// The kernel's mounts; nobody is signalled or started. The process ends after so many calls.
struct Quiet {
    left: Option<usize>,
}

impl Quiet {
    fn after(&mut self, done: io::Result<()>) -> io::Result<()> {
        match &mut self.left {
            Some(0) => raise(Signal::SIGKILL)?,
            Some(left) => *left -= 1,
            None => {}
        }
        done
    }
}

impl Mounts for Quiet {
    fn remount(&mut self, change: &Remount) -> io::Result<()> {
        KernelMounts.remount(change)
    }
    fn is_mounted(&self, point: &Path) -> io::Result<bool> {
        KernelMounts.is_mounted(point)
    }
    fn bind(&mut self, what: &Path, over: &Path) -> io::Result<()> {
        let done = KernelMounts.bind(what, over);
        self.after(done)
    }
    fn fill(&mut self, apart: &Path) -> io::Result<()> {
        let done = KernelMounts.fill(apart);
        self.after(done)
    }
    fn unmount(&mut self, point: &Path) -> io::Result<()> {
        let done = KernelMounts.unmount(point);
        self.after(done)
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
