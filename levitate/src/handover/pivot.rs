//! Stage 6: the staged root becomes /.

use std::io;
use std::path::{Path, PathBuf};

use super::journey::{OLD_ROOT, Run, Step, Stop};
use super::mounts::{self, Mount};
use super::seam::HandoverSys;
use crate::state::State;

impl<S: HandoverSys> Run<'_, S> {
    pub(crate) fn pivot(&mut self) -> Step {
        let mounts = self.mounts()?;
        if self.journey.is_pivoted() && mounts::at(&mounts, Path::new(OLD_ROOT)).is_some() {
            return self.sys.chdir(Path::new("/")).map_err(|e| Stop::because("chdir to the new root", &e));
        }
        let staged = self.journey.staged.clone();
        let put_old = staged.join("oldroot");
        self.sys
            .make_dir(&put_old)
            .map_err(|e| Stop::because(format!("create {}", put_old.display()), &e))?;
        self.sys.chdir(&staged).map_err(|e| Stop::because(format!("chdir to {}", staged.display()), &e))?;
        match self.sys.pivot_root(Path::new("."), Path::new("oldroot")) {
            Ok(()) => self.journey.old_root = PathBuf::from(OLD_ROOT),
            // The kernel's own first root has no parent and cannot be pivoted from. Anywhere else EINVAL is a failure:
            // on a real root moving and chroot would only hide the old root, which stays alive.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && is_first_root(&mounts) => {
                self.move_onto_first_root()?;
            }
            Err(e) => return Err(Stop::because("pivot_root", &e)),
        }
        self.journey.staged = PathBuf::from("/");
        self.sys.chroot(Path::new(".")).map_err(|e| Stop::because("chroot to the new root", &e))?;
        self.sys.chdir(Path::new("/")).map_err(|e| Stop::because("chdir to the new root", &e))
    }

    /// The way out of an initramfs: everything else is unmounted, its RAM is given back, the staged root is moved onto
    /// it. What could not be unmounted would become invisible, so flash among it ends the hand-over.
    fn move_onto_first_root(&mut self) -> Step {
        let staged = self.journey.staged.clone();
        self.record_progress(State::Left);
        // What these descriptors keep busy could not be unmounted.
        self.close_descriptors(&staged.join("dev"))?;
        let goes = |m: &Mount| !m.point.starts_with(&staged) && !staged.starts_with(&m.point);
        for (mount, e) in self.unmount_patiently(Path::new("/"), &goes)? {
            let what = format!("unmount {} ({} on {})", mount.point.display(), mount.fstype, mount.source);
            if mount.keeps_data() || mount.is_on_flash() {
                return Err(Stop::because(what, &e));
            }
            self.note(format!("{what}: {e}"));
        }
        self.sweep_ram_below(Path::new("/"));
        self.sys.chdir(&staged).map_err(|e| Stop::because(format!("chdir to {}", staged.display()), &e))?;
        let limit = self.limit();
        let moved = self.sys.move_mount(Path::new("."), Path::new("/"), limit);
        moved.map_err(|e: io::Error| Stop::because(format!("move {} to /", staged.display()), &e))?;
        self.journey.old_root = PathBuf::from(OLD_ROOT);
        Ok(())
    }
}

fn is_first_root(mounts: &[Mount]) -> bool {
    mounts::at(mounts, Path::new("/")).is_some_and(|root| root.fstype == "rootfs")
}
