//! systemd as PID 1: `systemd-shutdown` makes `/run/initramfs` the root and executes `/shutdown VERB` there, as PID 1,
//! after everything is stopped, killed and unmounted, if `/run/initramfs/shutdown` is executable
//! (systemd-shutdown(8), <https://systemd.io/INITRD_INTERFACE>). The staged root is such a place; a link leads there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ramdisk::path::Root;

use super::{ARM, Hook, Step};
use crate::manifest::STAGED_ROOT;
use crate::stage::STAGED;

/// Where systemd looks.
pub(super) const PLACE: &str = "/run/initramfs";

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum There {
    /// Nothing.
    Nothing,
    /// A link, and where it leads.
    Link(PathBuf),
    /// A directory: what an initramfs left.
    Directory,
    /// Something else.
    Other,
}

pub(super) fn hook(root: &Root) -> Hook {
    let mounts = fs::read(root.dir().join("proc/self/mountinfo")).unwrap_or_default();
    let mounts = crate::handover::mounts::parse(&mounts);
    let mounted = mounts.into_iter().map(|m| m.point).find(|point| point.starts_with(PLACE));
    match look(root) {
        Ok(there) => decide(&there, mounted.as_deref()),
        Err(e) => Hook::not(format!("{PLACE} cannot be read: {e}")),
    }
}

fn look(root: &Root) -> io::Result<There> {
    let at = root.host(Path::new(PLACE));
    let found = match fs::symlink_metadata(&at) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        found => found?,
    };
    Ok(if found.is_symlink() {
        There::Link(fs::read_link(&at)?)
    } else if found.is_dir() {
        There::Directory
    } else {
        There::Other
    })
}

/// `mounted` is a mount at [`PLACE`] or below it.
fn decide(there: &There, mounted: Option<&Path>) -> Hook {
    let link = Step::Symlink { path: PLACE.into(), target: STAGED.into() };
    let steps = match there {
        There::Link(target) if target == Path::new(STAGED) || target == Path::new(STAGED_ROOT) => vec![],
        There::Nothing => vec![link],
        // initramfs-tools leaves the log of its fsck there
        There::Directory if mounted.is_none() => vec![
            Step::Directory { path: ARM.into() },
            Step::MoveAway { from: PLACE.into(), to: Path::new(ARM).join("initramfs") },
            link,
        ],
        There::Directory => {
            let point = mounted.unwrap_or(Path::new(PLACE)).display();
            return Hook::NotWired {
                reason: format!(
                    "systemd looks for the staged root at {PLACE}, and something is mounted at {point}"
                ),
                remedy: Some(format!("unmount {point}, if nothing needs it")),
            };
        }
        There::Link(_) | There::Other => {
            return Hook::NotWired {
                reason: format!("systemd looks for the staged root at {PLACE}, which is something else"),
                remedy: Some(format!("remove {PLACE}, if nothing needs it")),
            };
        }
    };
    Hook::Wired { by: PLACE.into(), steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(hook: Hook) -> Vec<String> {
        match hook {
            Hook::Wired { steps, .. } => steps.iter().map(ToString::to_string).collect(),
            Hook::NotWired { reason, .. } => panic!("{reason}"),
        }
    }

    #[test]
    fn a_link_is_made_and_what_an_initramfs_left_is_moved_aside() {
        let link = "link /run/initramfs to maintenance";
        assert_eq!(steps(decide(&There::Nothing, None)), [link]);
        assert_eq!(
            steps(decide(&There::Directory, None)),
            [
                "make the directory /run/levitate/arm",
                "move /run/initramfs to /run/levitate/arm/initramfs",
                link
            ]
        );
    }

    #[test]
    fn a_second_levitate_finds_its_link_and_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("run")).unwrap();
        let root = Root::new(dir.path());
        assert_eq!(look(&root).unwrap(), There::Nothing);
        std::os::unix::fs::symlink("maintenance", dir.path().join("run/initramfs")).unwrap();
        assert_eq!(steps(hook(&root)), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_moved_aside_is_refused_with_what_to_do() {
        let live = Path::new("/run/initramfs/live");
        for (there, mounted, remedy) in [
            (There::Directory, Some(live), "unmount /run/initramfs/live, if nothing needs it"),
            (There::Link("elsewhere".into()), None, "remove /run/initramfs, if nothing needs it"),
            (There::Other, None, "remove /run/initramfs, if nothing needs it"),
        ] {
            match decide(&there, mounted) {
                Hook::NotWired { remedy: Some(said), .. } => assert_eq!(said, remedy),
                other => panic!("{there:?}: {other:?}"),
            }
        }
    }
}
