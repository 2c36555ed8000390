//! A small system in a directory, with a busybox that knows no linuxrc; and a look at all of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

/// How a `reboot` in front of busybox's is known.
pub(crate) const FRONT: &str = "/run/levitate/arm/reboot-0";

pub(crate) const APPLETS: [&str; 4] = ["halt", "ip", "poweroff", "reboot"];

/// Makes it. `links`: the applets lie in /sbin, busybox elsewhere; `merged`: all are in /usr/bin. Answers the folder of
/// the applets.
pub(crate) fn make(dir: &Path, layout: &str) -> PathBuf {
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    for name in ["etc", "proc", "run", "usr/bin", "usr/sbin"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    mount(Some("tmpfs"), &dir.join("run"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    fs::create_dir(dir.join("run/levitate")).unwrap();
    // what others have there stays
    fs::write(dir.join("run/levitate/verb"), "").unwrap();
    fs::write(dir.join("etc/inittab"), "::respawn:/bin/sh\n").unwrap();
    for (name, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin")] {
        symlink(target, dir.join(name)).unwrap();
    }
    let busybox = dir.join("usr/bin/busybox");
    fs::write(&busybox, b"\x7fELF BusyBox v1.35.0 \0init\0reboot\0").unwrap();
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
    let (folder, target) =
        if layout == "merged" { ("usr/bin", "busybox") } else { ("usr/sbin", "../bin/busybox") };
    for applet in APPLETS {
        symlink(target, dir.join(folder).join(applet)).unwrap();
    }
    PathBuf::from("/").join(folder)
}

/// Every mount below the directory, and every name with what it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Look {
    mounts: Vec<String>,
    names: BTreeMap<PathBuf, String>,
}

pub(crate) fn look(dir: &Path) -> Look {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    // the first words are numbers of mounts, which are given anew
    let mounts = table.lines().map(|line| line.split(' ').skip(3).collect::<Vec<_>>().join(" "));
    let mounts = mounts.filter(|line| line.contains(dir.to_str().unwrap())).collect();
    let mut names = BTreeMap::new();
    walk(dir, &mut names);
    Look { mounts, names }
}

fn walk(dir: &Path, names: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        let what = if kind.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_dir() {
            walk(&path, names);
            "directory".to_owned()
        } else {
            format!("{:o} {:?}", kind.permissions().mode(), fs::read(&path).unwrap())
        };
        names.insert(path, what);
    }
}
