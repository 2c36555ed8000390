//! Root file systems of the device: Debian's programs for its processor with merged /usr, and the files of `device/` laid over.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::assets::Assets;
use crate::suite::Failure;

use super::system::{Parts, System};
use super::{DEVICE, libraries};

/// Which root.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A firmware: its PID 1, services, levitate.
    System {
        /// `@VERSION@` in its files.
        version: &'static str,
        /// What its PID 1 is.
        system: System,
    },
    /// Root of a rescue boot: a shell, ssh and flashcp.
    Rescue,
}

/// Where the programs of a root come from, and what is particular to their processor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Programs<'a> {
    /// Unpacked Debian packages.
    pub(super) packages: &'a Path,
    /// `levitate` for this processor.
    pub(super) device_binary: &'a Path,
    /// Debian's name of the folders that hold this processor's libraries.
    pub(super) triplet: &'a str,
    /// The loader's file name, which is fixed in every program.
    pub(super) loader: &'a str,
}

impl<'a> Programs<'a> {
    /// Of the `virt` board.
    pub(super) fn arm64(assets: &'a Assets) -> Self {
        Self {
            packages: &assets.guest_root,
            device_binary: &assets.device_binary,
            triplet: "aarch64-linux-gnu",
            loader: "ld-linux-aarch64.so.1",
        }
    }
}

/// Names by which busybox is called. Its own list cannot be asked for: it is built for another processor.
const APPLETS: &[&str] = &[
    "[",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chown",
    "chroot",
    "clear",
    "cmp",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "diff",
    "dirname",
    "dmesg",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "fuser",
    "getty",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "hostname",
    "id",
    "ifconfig",
    "insmod",
    "ip",
    "kill",
    "killall",
    "less",
    "ln",
    "login",
    "losetup",
    "ls",
    "lsmod",
    "lsof",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "more",
    "mount",
    "mountpoint",
    "mv",
    "nc",
    "netstat",
    "nohup",
    "od",
    "passwd",
    "pgrep",
    "pidof",
    "ping",
    "pkill",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "reset",
    "rm",
    "rmdir",
    "rmmod",
    "route",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "strings",
    "stty",
    "sync",
    "sysctl",
    "tail",
    "tar",
    "tee",
    "test",
    "time",
    "timeout",
    "top",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "usleep",
    "vi",
    "watchdog",
    "wc",
    "wget",
    "which",
    "xargs",
    "yes",
    "zcat",
];

/// Programs and folders from Debian's packages, below /usr after the merge.
const PROGRAMS: &[&str] = &["usr/sbin/dropbear", "usr/bin/dropbearkey", "usr/sbin/flash_erase"];
const RESCUE_PROGRAMS: &[&str] = &["usr/sbin/nanddump"];
/// Puts the root together below the empty folder `root`. Modes are set explicitly: a checkout's depend on the umask.
pub(super) fn assemble(
    programs: Programs<'_>,
    kind: Kind,
    ssh_key: &Path,
    root: &Path,
) -> Result<(), Failure> {
    let Programs { packages: guest, device_binary, triplet, loader } = programs;
    folders(root, triplet)?;
    copy(&guest.join("bin/busybox"), &root.join("usr/bin/busybox"), 0o755)?;
    for applet in APPLETS {
        link("busybox", &root.join("usr/bin").join(applet))?;
    }
    let rescue =
        Parts { folders: &["rescue"], init: "/init", programs: RESCUE_PROGRAMS, files: &[], links: &[] };
    let (parts, version) = match kind {
        Kind::System { version, system } => (system.parts(), version),
        Kind::Rescue => (rescue, ""),
    };
    let wanted: Vec<&str> = PROGRAMS.iter().chain(parts.programs).copied().collect();
    for program in &wanted {
        take(guest, Path::new(program), root, 0o755)?;
    }
    for library in libraries::of(guest, &wanted, triplet)? {
        take(guest, &library, root, 0o644)?;
    }
    for file in parts.files {
        take(guest, Path::new(file), root, 0o644)?;
    }
    set_mode(&root.join("usr/lib").join(triplet).join(loader), 0o755)?;
    link(&format!("{triplet}/{loader}"), &root.join("usr/lib").join(loader))?;

    copy(device_binary, &root.join("usr/sbin/levitate"), 0o755)?;
    link("levitate", &root.join("usr/sbin/flashcp"))?;

    for layer in layers(kind) {
        lay_over(&Path::new(DEVICE).join(layer), root, version)?;
    }
    if matches!(kind, Kind::System { .. }) {
        link("/run/resolv.conf", &root.join("etc/resolv.conf"))?;
    }
    for (path, target) in parts.links {
        let path = root.join(path);
        if let Some(folder) = path.parent() {
            super::make_folder(folder)?;
        }
        // busybox has some of the names already
        let _ = fs::remove_file(&path);
        link(target, &path)?;
    }
    let public = ssh_key.with_extension("pub");
    copy(&public, &root.join("root/.ssh/authorized_keys"), 0o600)?;
    open_folders(root)?;
    for (path, mode) in [("etc/shadow", 0o600), ("root", 0o700), ("root/.ssh", 0o700), ("tmp", 0o1777)] {
        set_mode(&root.join(path), mode)?;
    }
    Ok(())
}

/// The folders of `device/` that are laid over the packages, in their order.
pub(super) fn layers(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::System { system, .. } => [&["common", "system"], system.parts().folders].concat(),
        Kind::Rescue => vec!["common", "rescue"],
    }
}

/// Packs the root as squashfs (xz, as small devices have it) in blocks of `block`, so that two firmwares of nearly the
/// same files differ in nearly all bytes; every file belongs to root.
pub(super) fn squash(assets: &Assets, root: &Path, block: &str, out: &Path) -> Result<(), Failure> {
    let mut mksquashfs = assets.tool("mksquashfs");
    // it refuses this variable together with the options that say the same
    mksquashfs.env_remove("SOURCE_DATE_EPOCH");
    mksquashfs.arg(root).arg(out).args([
        "-all-root",
        "-comp",
        "xz",
        "-b",
        block,
        "-noappend",
        "-no-progress",
        "-quiet",
    ]);
    mksquashfs.args(["-all-time", "1767225600", "-mkfs-time", "1767225600"]);
    super::run_tool(mksquashfs)
}

/// Every file of the overlays with its mode, in a fixed order: part of the firmware's key.
pub(super) fn overlay_files(folder: &Path) -> Result<Vec<(PathBuf, u32)>, Failure> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|e| Failure::file("list", folder, e))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(overlay_files(&path)?);
        } else {
            let mode = path.metadata().map_err(|e| Failure::file("look at", &path, e))?.permissions().mode();
            found.push((path, mode & 0o111));
        }
    }
    Ok(found)
}

fn folders(root: &Path, triplet: &str) -> Result<(), Failure> {
    set_mode(root, 0o755)?;
    for folder in [
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "etc",
        "root/.ssh",
        "persist",
        "mnt",
        "rom",
        "overlay",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "var",
    ] {
        super::make_folder(&root.join(folder))?;
    }
    super::make_folder(&root.join("usr/lib").join(triplet))?;
    for name in ["bin", "sbin", "lib"] {
        link(&format!("usr/{name}"), &root.join(name))?;
    }
    link("/run", &root.join("var/run"))
}

/// Copies a file, or a symbolic link, of the packages to its place after the merge of /usr.
fn take(packages: &Path, path: &Path, root: &Path, mode: u32) -> Result<(), Failure> {
    let from = packages.join(path);
    let stays = path.starts_with("usr") || path.starts_with("etc");
    let to = if stays { root.join(path) } else { root.join("usr").join(path) };
    if let Some(folder) = to.parent() {
        super::make_folder(folder)?;
    }
    // an applet's link would lead the copy into busybox itself
    let _ = fs::remove_file(&to);
    match fs::read_link(&from) {
        Ok(target) => link(&target.to_string_lossy(), &to),
        Err(_) => copy(&from, &to, mode),
    }
}

/// Gives every folder the mode that a distribution's has: they were made under the umask of whoever runs the harness.
fn open_folders(folder: &Path) -> Result<(), Failure> {
    set_mode(folder, 0o755)?;
    for entry in fs::read_dir(folder).map_err(|e| Failure::file("list", folder, e))? {
        let entry = entry.map_err(|e| Failure::file("list", folder, e))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

fn lay_over(layer: &Path, root: &Path, version: &str) -> Result<(), Failure> {
    for (path, executable) in overlay_files(layer)? {
        let to = root.join(path.strip_prefix(layer).map_err(Failure::harness)?);
        if let Some(folder) = to.parent() {
            super::make_folder(folder)?;
        }
        let text = fs::read_to_string(&path).map_err(|e| Failure::file("read", &path, e))?;
        super::write(&to, text.replace("@VERSION@", version).as_bytes())?;
        set_mode(&to, if executable == 0 { 0o644 } else { 0o755 })?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), Failure> {
    fs::copy(from, to).map_err(|e| Failure::file("copy", from, e))?;
    set_mode(to, mode)
}

fn link(target: &str, path: &Path) -> Result<(), Failure> {
    symlink(target, path).map_err(|e| Failure::file("link", path, e))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|e| Failure::file("set the mode of", path, e))
}
