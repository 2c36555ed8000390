//! Stage 8's second half: no superblock that lies on flash may be alive. An unmount that returned 0 is not enough, because
//! another mount namespace, or an earlier lazy unmount, keeps a superblock alive without a trace in our mount table.

use std::io;
use std::path::Path;

use super::journey::{Run, Step, Stop};
use super::mounts::{self, MTD_BLOCK_MAJOR, Mount, OldMount};
use super::report::StillMounted;
use super::seam::HandoverSys;

/// Between two looks, in milliseconds, and how long to look: the kernel frees a superblock a moment after the unmount.
const LOOK_MS: u64 = 20;
const PATIENCE_MS: u64 = 2_000;

/// What the kernel shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Mounts, our own and those of all other processes.
    pub mounts: Vec<Mount>,
    /// Names of kernel threads.
    pub threads: Vec<String>,
    /// The mount point of an overlay that lives still: it keeps the file systems of its layers alive, in no table.
    pub overlay: Option<String>,
    /// Block devices that an exclusive open did not find free: major and minor number, and why.
    pub not_free: Vec<((u32, u32), String)>,
}

/// What an exclusive open of a block device tells: none if nothing uses it, otherwise why that is not known to be so.
#[must_use]
pub fn sign_of_use(opened: &io::Result<()>) -> Option<String> {
    let Err(error) = opened else { return None };
    match error.raw_os_error() {
        // no driver, or no device: nothing that could be in use
        Some(libc::ENXIO | libc::ENODEV | libc::ENOENT) => None,
        Some(libc::EBUSY) => Some("its block device is in use".to_owned()),
        // nobody was asked, so nothing is proved
        _ => Some(format!("whether its block device is in use cannot be asked: {error}")),
    }
}

/// What follows from that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Why the old root is not known to be gone.
    pub old_root: Option<String>,
    /// What else on flash is not.
    pub others: Vec<StillMounted>,
}

/// Decides what is alive. `flash` is what lay on flash before the hand-over.
#[must_use]
pub fn judge(facts: &Facts, root: Option<&OldMount>, flash: &[OldMount]) -> Proof {
    let mut proof = Proof::default();
    if let Some(root) = root {
        proof.old_root = sign_of_life(facts, root);
    }
    let not_root =
        |old: &&OldMount| root.is_none_or(|root| (root.major, root.minor) != (old.major, old.minor));
    for old in flash.iter().filter(not_root) {
        if let Some(reason) = sign_of_life(facts, old) {
            proof.others.push(still(
                &old.path,
                &old.source,
                &old.fstype,
                reason,
                Some((old.major, old.minor)),
            ));
        }
    }
    // What nobody had noted: mounted in another namespace only, or attached behind our back.
    for mount in facts.mounts.iter().filter(|mount| mount.is_on_flash()) {
        let known = root.into_iter().chain(flash).any(|old| same(old, mount));
        if !known {
            let path = mount.point.to_string_lossy();
            let reason = "in a mount table".to_owned();
            let device = Some((mount.major, mount.minor));
            proof.others.push(still(&path, &mount.source, &mount.fstype, reason, device));
        }
    }
    for thread in &facts.threads {
        let Some(number) = thread.strip_prefix("jffs2_gcd_mtd").and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let known =
            root.into_iter().chain(flash).any(|old| (old.major, old.minor) == (MTD_BLOCK_MAJOR, number));
        if !known {
            let device = format!("/dev/mtd{number}");
            let reason = format!("thread {thread}");
            proof.others.push(still(&device, &device, "jffs2", reason, Some((MTD_BLOCK_MAJOR, number))));
        }
    }
    proof
}

fn still(path: &str, source: &str, fstype: &str, reason: String, device: Option<(u32, u32)>) -> StillMounted {
    StillMounted {
        path: path.to_owned(),
        source: source.to_owned(),
        fstype: fstype.to_owned(),
        reason,
        read_only: false,
        device: device.map(|(major, minor)| format!("{major}:{minor}")),
    }
}

/// Device numbers without a device are given out again, so that the same number with another source is another one.
fn same(old: &OldMount, mount: &Mount) -> bool {
    (old.major, old.minor) == (mount.major, mount.minor)
        && (old.major != 0 || (old.source == mount.source && old.fstype == mount.fstype))
}

fn sign_of_life(facts: &Facts, old: &OldMount) -> Option<String> {
    if let Some(mount) = facts.mounts.iter().find(|mount| same(old, mount)) {
        return Some(format!("mounted at {}", mount.point.display()));
    }
    let not_free = facts.not_free.iter().find(|(device, _)| *device == (old.major, old.minor));
    if let Some((_, reason)) = not_free.filter(|_| old.major != 0) {
        return Some(reason.clone());
    }
    let thread = match old.fstype.as_str() {
        "jffs2" => {
            let name = format!("jffs2_gcd_mtd{}", old.minor);
            // Its thread ends by KILL and it holds no block device: nobody can be asked.
            if let (false, Some(overlay)) = (facts.threads.contains(&name), &facts.overlay) {
                return Some(format!("the overlay {overlay} lives, and may lie on it"));
            }
            facts.threads.iter().find(|thread| **thread == name)
        }
        "ubifs" => {
            // `ubi0:data` and `ubi0_1` are both on device 0, whose threads are named ubifs_bgt0_VOLUME.
            let number: String =
                old.source.trim_start_matches("/dev/").trim_start_matches("ubi").chars().collect();
            let number: String = number.chars().take_while(char::is_ascii_digit).collect();
            let prefix = format!("ubifs_bgt{number}_");
            facts.threads.iter().find(|name| name.starts_with(&prefix))
        }
        _ => None,
    };
    thread.map(|name| format!("its thread {name} runs"))
}

impl<S: HandoverSys> Run<'_, S> {
    pub(crate) fn prove(&mut self) -> Step {
        let root = self.old_root_to_prove()?;
        let flash = self.journey.flash.clone();
        let started = self.sys.now_ms();
        let proof = loop {
            let facts = self.facts(root.as_ref(), &flash);
            let proof = facts.map(|facts| judge(&facts, root.as_ref(), &flash));
            let proved = proof.as_ref().is_ok_and(|proof| *proof == Proof::default());
            if proved || self.sys.now_ms().saturating_sub(started) >= PATIENCE_MS {
                // To the last not to be able to look is no proof.
                break proof?;
            }
            self.sys.pause(LOOK_MS);
        };
        for other in proof.others {
            if !self.journey.still_mounted.iter().any(|known| known.source == other.source) {
                self.note(format!(
                    "{} ({} on {}) is not proved to be gone: {}",
                    other.path, other.fstype, other.source, other.reason
                ));
                self.journey.still_mounted.push(other);
            }
        }
        match (proof.old_root, root) {
            (Some(sign), Some(root)) => {
                let held = self.name_survivors();
                Err(Stop::Failed(format!(
                    "the old root ({} on {}) is not proved to be gone: {sign}{held}",
                    root.fstype, root.source
                )))
            }
            _ => Ok(()),
        }
    }

    /// The old root, unless it was in RAM and we live in the same file system.
    fn old_root_to_prove(&mut self) -> Result<Option<OldMount>, Stop> {
        let table = self.mounts()?;
        let here = mounts::at(&table, Path::new("/")).map(|m| (m.major, m.minor));
        let old = self.journey.root_mount.clone();
        Ok(old.filter(|old| Some((old.major, old.minor)) != here && old.fstype != "rootfs"))
    }

    fn facts(&mut self, root: Option<&OldMount>, flash: &[OldMount]) -> Result<Facts, Stop> {
        let mut mounts = self.mounts()?;
        let others = self.sys.mounts_of_others();
        mounts.extend(others.map_err(|e| Stop::because("read the mount tables of other processes", &e))?);
        let processes = self.sys.processes().map_err(|e| Stop::because("list the kernel's threads", &e))?;
        let threads = processes
            .into_iter()
            .filter(|p| p.kernel && !matches!(p.state, 'Z' | 'X'))
            .map(|p| p.name)
            .collect();
        let in_table = mounts.iter().find(|m| m.fstype == "overlay").map(|m| m.point.display().to_string());
        let told = self.journey.still_mounted.iter().find(|m| m.fstype == "overlay").map(|m| m.path.clone());
        let overlay = told.or(in_table);
        let mut devices: Vec<(u32, u32)> =
            root.into_iter().chain(flash).map(|old| (old.major, old.minor)).filter(|d| d.0 != 0).collect();
        devices.sort_unstable();
        devices.dedup();
        let mut not_free = Vec::new();
        for (major, minor) in devices {
            let limit = self.limit();
            let opened = self.sys.open_exclusively(major, minor, limit);
            not_free.extend(sign_of_use(&opened).map(|reason| ((major, minor), reason)));
        }
        Ok(Facts { mounts, threads, overlay, not_free })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn old(path: &str, minor: u32, fstype: &str, source: &str) -> OldMount {
        let major = if fstype == "ubifs" { 0 } else { MTD_BLOCK_MAJOR };
        OldMount { path: path.into(), source: source.into(), fstype: fstype.into(), major, minor }
    }

    fn root() -> OldMount {
        old("/", 3, "squashfs", "/dev/mtdblock3")
    }

    fn flash() -> Vec<OldMount> {
        vec![root(), old("/persist", 4, "jffs2", "/dev/mtdblock4"), old("/ubi", 40, "ubifs", "ubi1:data")]
    }

    #[test]
    fn with_no_sign_of_life_everything_is_proved() {
        let facts = Facts { threads: vec!["kthreadd".into(), "ubifs_bgt0_1".into()], ..Facts::default() };
        assert_eq!(judge(&facts, Some(&root()), &flash()), Proof::default());
    }

    #[test]
    fn an_old_root_whose_block_device_is_busy_is_alive_although_no_table_shows_it() {
        let facts =
            Facts { not_free: vec![((31, 3), "its block device is in use".into())], ..Facts::default() };
        let proof = judge(&facts, Some(&root()), &flash());
        assert_eq!(proof.old_root.as_deref(), Some("its block device is in use"));
        assert_eq!(proof.others, []);
    }

    #[test]
    fn only_an_answer_that_there_is_nothing_to_use_is_as_good_as_an_open() {
        let failed = |errno| Err(io::Error::from_raw_os_error(errno));
        for free in [Ok(()), failed(libc::ENXIO), failed(libc::ENODEV), failed(libc::ENOENT)] {
            assert_eq!(sign_of_use(&free), None, "{free:?}");
        }
        assert_eq!(sign_of_use(&failed(libc::EBUSY)).unwrap(), "its block device is in use");
        for errno in [libc::EACCES, libc::ENOMEM, libc::EIO, libc::EMFILE] {
            let reason = sign_of_use(&failed(errno)).unwrap();
            assert!(reason.starts_with("whether its block device is in use cannot be asked: "), "{reason}");
        }
        let late = Err(io::Error::new(io::ErrorKind::TimedOut, "not done within 9 ms"));
        assert!(sign_of_use(&late).unwrap().ends_with(": not done within 9 ms"));
    }

    #[test]
    fn a_jffs2_that_only_its_thread_betrays_is_found() {
        let facts =
            Facts { threads: vec!["jffs2_gcd_mtd4".into(), "jffs2_gcd_mtd9".into()], ..Facts::default() };
        let found: Vec<(String, String)> = judge(&facts, Some(&root()), &flash())
            .others
            .into_iter()
            .map(|other| (other.path, other.reason))
            .collect();
        assert_eq!(
            found,
            [
                ("/persist".into(), "its thread jffs2_gcd_mtd4 runs".into()),
                ("/dev/mtd9".into(), "thread jffs2_gcd_mtd9".into())
            ]
        );
    }

    #[test]
    fn a_jffs2_that_an_overlay_may_keep_alive_is_not_proved_to_be_gone() {
        let facts = Facts { overlay: Some("/etc".into()), ..Facts::default() };
        let proof = judge(&facts, Some(&root()), &flash());
        assert_eq!(proof.old_root, None, "the kernel can be asked about a squashfs");
        let [jffs2] = proof.others.as_slice() else { panic!("{:?}", proof.others) };
        assert_eq!((jffs2.path.as_str(), jffs2.device.as_deref()), ("/persist", Some("31:4")));
        assert_eq!(jffs2.reason, "the overlay /etc lives, and may lie on it");
        assert!(judge(&facts, Some(&flash()[1]), &flash()).old_root.is_some());
    }

    #[test]
    fn a_ubifs_is_found_by_its_devices_thread() {
        let facts = Facts { threads: vec!["ubifs_bgt1_0".into()], ..Facts::default() };
        assert_eq!(judge(&facts, None, &flash()).others[0].path, "/ubi");
    }

    #[test]
    fn another_namespaces_mount_is_a_sign_of_life_even_if_we_never_saw_it() {
        let mount = |minor, point: &str| Mount {
            id: 1,
            parent: 0,
            major: 31,
            minor,
            root: PathBuf::from("/"),
            point: PathBuf::from(point),
            fstype: "squashfs".into(),
            source: format!("/dev/mtdblock{minor}"),
        };
        let facts = Facts { mounts: vec![mount(3, "/x"), mount(7, "/y")], ..Facts::default() };
        let proof = judge(&facts, Some(&root()), &flash());
        assert_eq!(proof.old_root.as_deref(), Some("mounted at /x"));
        assert_eq!(proof.others[0].path, "/y");
    }

    #[test]
    fn a_reused_number_without_a_device_is_no_sign_of_life() {
        let overlay = OldMount { major: 0, ..old("/", 20, "overlay", "overlay") };
        let tmpfs = Mount {
            id: 1,
            parent: 0,
            major: 0,
            minor: 20,
            root: PathBuf::from("/"),
            point: PathBuf::from("/run"),
            fstype: "tmpfs".into(),
            source: "tmpfs".into(),
        };
        let facts = Facts { mounts: vec![tmpfs], ..Facts::default() };
        assert_eq!(judge(&facts, Some(&overlay), &[]).old_root, None);
    }
}
