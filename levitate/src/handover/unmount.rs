//! Stage 8: everything of the old root is unmounted, plainly: a lazy unmount would only hide what lives on.

use std::io;
use std::path::{Path, PathBuf};

use super::journey::{OLD_ROOT, Run, StateHome, Step, Stop};
use super::mounts::{self, Mount};
use super::report::StillMounted;
use super::seam::HandoverSys;

/// Between two tries, in milliseconds: a process that was killed lets go of its files a little later.
const AGAIN_MS: u64 = 50;
/// Where a file system goes that cannot be unmounted, so that the old root can.
const HELD: &str = "/run/levitate/held";

impl<S: HandoverSys> Run<'_, S> {
    pub(crate) fn unmount_old_root(&mut self) -> Step {
        let old = PathBuf::from(OLD_ROOT);
        let stuck = self.unmount_patiently(&old, &|m| m.point != old)?;
        self.detach_devices();
        self.hold_aside(&old, stuck)?;
        if let Some((root, e)) = self.unmount_patiently(&old, &|_| true)?.pop() {
            let held = self.name_survivors();
            return Err(Stop::Failed(format!(
                "unmount the old root ({} on {}): {e}{held}",
                root.fstype, root.source
            )));
        }
        self.detach_devices();
        Ok(())
    }

    /// Unmounts what `goes` says of everything at or below `root`, as often as it takes, and answers what would not go.
    pub(crate) fn unmount_patiently(
        &mut self,
        root: &Path,
        goes: &dyn Fn(&Mount) -> bool,
    ) -> Result<Vec<(Mount, io::Error)>, Stop> {
        let started = self.sys.now_ms();
        let patience = self.limit();
        loop {
            let table = self.mounts()?;
            let order = mounts::unmount_order(&table, root);
            let state_mount = self.state_mount(&table);
            let mut stuck = Vec::new();
            let mut timed_out = false;
            for mount in order.into_iter().filter(goes) {
                let limit = self.limit();
                match self.sys.unmount(&mount.point, limit) {
                    Ok(()) => {
                        if Some(mount.id) == state_mount {
                            self.state_file_is_gone(&mount);
                        }
                        let name = mounts::old_name(&mount.point, &self.journey.old_root);
                        self.journey.unmounted.push(name.to_string_lossy().into_owned());
                    }
                    Err(e) => {
                        timed_out |= e.kind() == io::ErrorKind::TimedOut;
                        stuck.push((mount, e));
                    }
                }
            }
            let waited = self.sys.now_ms().saturating_sub(started);
            if stuck.is_empty() || timed_out || waited >= patience {
                return Ok(stuck);
            }
            self.sys.pause(AGAIN_MS);
        }
    }

    /// From here on the path would name a file of whatever lies below.
    fn state_file_is_gone(&mut self, mount: &Mount) {
        let Some(file) = self.journey.state_file.take() else { return };
        let path = mounts::below(&self.journey.old_root, &file);
        if let Ok(file) = path.strip_prefix(&mount.point)
            && mount.keeps_data()
            && mount.root == Path::new("/")
        {
            let (source, fstype, file) = (mount.source.clone(), mount.fstype.clone(), file.to_owned());
            self.journey.state_home = Some(StateHome { source, fstype, file });
        }
    }

    fn state_mount(&self, table: &[Mount]) -> Option<u32> {
        let file = self.journey.state_file.as_ref()?;
        let path = mounts::below(&self.journey.old_root, file);
        mounts::holding(table, &path).map(|mount| mount.id)
    }

    /// Moves what cannot be unmounted out of the old root and makes it read-only. A file system that is not the root is
    /// no reason to give up: `flashcp` refuses its range, and everything else can be flashed.
    fn hold_aside(&mut self, old: &Path, stuck: Vec<(Mount, io::Error)>) -> Step {
        if stuck.is_empty() {
            return Ok(());
        }
        let table = self.mounts()?;
        let root = mounts::at(&table, old).map(|mount| mount.id);
        let mut aside: Vec<(PathBuf, PathBuf)> = Vec::new();
        // An unmounting that has not come back has taken its mount out of the table first.
        let is_there = |mount: &Mount| table.iter().any(|other| other.id == mount.id);
        let moves = |mount: &Mount| Some(mount.parent) == root && is_there(mount);
        for (place, (mount, _)) in stuck.iter().enumerate().filter(|(_, (m, _))| moves(m)) {
            let to = Path::new(HELD).join(place.to_string());
            let limit = self.limit();
            let made = self.sys.make_dir(&to);
            let moved = made.and_then(|()| self.sys.move_mount(&mount.point, &to, limit));
            match moved {
                Ok(()) => aside.push((mount.point.clone(), to)),
                Err(e) => self.note(format!("move {} out of the old root: {e}", mount.point.display())),
            }
        }
        for (mount, e) in stuck {
            let now_at = aside
                .iter()
                .find_map(|(from, to)| Some(mounts::below(to, mount.point.strip_prefix(from).ok()?)))
                .unwrap_or_else(|| mount.point.clone());
            let limit = self.limit();
            // Of a file system in RAM this would stop our own root, which can be a part of it.
            let can_be = mount.keeps_data() && is_there(&mount);
            let read_only = can_be && self.sys.remount_read_only(&now_at, limit).is_ok();
            let path = mounts::old_name(&mount.point, &self.journey.old_root).to_string_lossy().into_owned();
            self.note(format!("{path} ({} on {}) stays mounted: {e}", mount.fstype, mount.source));
            self.journey.still_mounted.push(StillMounted {
                path,
                source: mount.source,
                fstype: mount.fstype,
                reason: e.to_string(),
                read_only,
                device: Some(format!("{}:{}", mount.major, mount.minor)),
            });
        }
        Ok(())
    }

    /// Who may be holding it: as the end of a sentence, or nothing.
    pub(crate) fn name_survivors(&self) -> String {
        let names: Vec<String> = self
            .journey
            .survivors
            .iter()
            .map(|s| format!("{} ({}, state {})", s.pid, s.name, s.state))
            .collect();
        if names.is_empty() { String::new() } else { format!("; still alive: {}", names.join(", ")) }
    }
}
