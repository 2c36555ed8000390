//! Which init is PID 1, and whether its `reboot` will get to the hand-over.

mod step;

mod front;
mod inittab;
pub(crate) mod processes;

mod busybox;
mod dinit;
mod procd;
mod rivals;
mod s6;
mod systemd;
mod sysvinit;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ramdisk::path::Root;

pub use self::step::Step;

/// What PID 1 executes to hand over.
pub const ENTRY: &str = "/run/maintenance/exec";
/// Where arming keeps files of its own.
pub const ARM: &str = "/run/levitate/arm";

/// The name by which others know that a root is no empty place.
const SHELL: &str = "/bin/sh";

/// PID 1 of the running system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// s6-svscan.
    S6 {
        /// Its scan directory.
        scandir: PathBuf,
    },
    /// systemd.
    Systemd,
    /// sysvinit.
    Sysvinit {
        /// Its program, links resolved.
        program: PathBuf,
    },
    /// busybox's init.
    Busybox {
        /// Its program, links resolved.
        program: PathBuf,
    },
    /// Our own init, as the system's PID 1.
    Own,
    /// Our own init, in the maintenance root.
    Maintenance,
    /// OpenWrt's procd.
    Procd,
    /// dinit.
    Dinit,
    /// One that this program knows by name and cannot arm.
    Other(&'static str),
    /// One that it does not know.
    Unknown(String),
}

/// Whether `reboot` will get to the hand-over once a root is staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// It will.
    Wired {
        /// The file that makes it so.
        by: PathBuf,
        /// What arming still has to do for it, in this order; empty if it is so already.
        steps: Vec<Step>,
    },
    /// It will not.
    NotWired {
        /// Why not.
        reason: String,
        /// What would make it so, if anything would.
        remedy: Option<String>,
    },
}

impl Hook {
    fn not(reason: String) -> Self {
        Self::NotWired { reason, remedy: None }
    }
}

/// PID 1 could not be identified.
#[derive(Debug, thiserror::Error)]
#[error("find out which init is running: read {path}")]
pub struct ArmError {
    /// The file of /proc.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S6 { scandir } => write!(f, "s6-svscan in {}", scandir.display()),
            Self::Systemd => f.write_str("systemd"),
            Self::Sysvinit { .. } => f.write_str("sysvinit"),
            Self::Busybox { .. } => f.write_str("busybox init"),
            Self::Own => f.write_str("levitate's own init"),
            Self::Maintenance => f.write_str("the maintenance init"),
            Self::Procd => f.write_str("procd"),
            Self::Dinit => f.write_str("dinit"),
            Self::Other(name) => f.write_str(name),
            Self::Unknown(name) => write!(f, "\"{name}\""),
        }
    }
}

/// Identifies PID 1 by what /proc below `root` says.
///
/// # Errors
///
/// /proc is not mounted, or may not be read (this needs root).
pub fn detect(root: &Root) -> Result<Init, ArmError> {
    let proc = root.dir().join("proc/1");
    let at = |name: &str| proc.join(name);
    let failed = |path: PathBuf| move |source| ArmError { path, source };
    let comm = fs::read_to_string(at("comm")).map_err(failed(at("comm")))?;
    let exe = fs::read_link(at("exe")).map_err(failed(at("exe")))?;
    // the file may have been replaced while it runs
    let exe = exe.to_string_lossy();
    let exe = Path::new(exe.trim_end_matches(" (deleted)"));
    let program = exe.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    let program = program.as_ref();
    let comm = comm.trim();
    let is_or_begins =
        |word| program.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    Ok(match (program, comm) {
        ("s6-svscan", _) | (_, "s6-svscan") => {
            let scandir = fs::read_link(at("cwd")).map_err(failed(at("cwd")))?;
            Init::S6 { scandir }
        }
        ("levitate", _) if in_maintenance(root) => Init::Maintenance,
        ("levitate", _) => Init::Own,
        ("systemd", _) | (_, "systemd") => Init::Systemd,
        // Yocto splits it: its init is busybox.nosuid
        (name, _) if name == "linuxrc" || is_or_begins("busybox") => {
            Init::Busybox { program: exe.to_owned() }
        }
        ("procd", _) => Init::Procd,
        ("dinit", _) => Init::Dinit,
        ("runit" | "runit-init", _) => Init::Other("runit"),
        ("openrc-init", _) => Init::Other("openrc-init"),
        // Yocto keeps several side by side
        ("init" | "init.sysvinit", _) => Init::Sysvinit { program: exe.to_owned() },
        _ => Init::Unknown(if program.is_empty() { comm } else { program }.to_owned()),
    })
}

/// Whether `reboot` will get to the hand-over under this init, and what has to be done for it. Nothing is changed.
pub fn hook(root: &Root, init: &Init) -> Hook {
    match init {
        Init::S6 { scandir } => s6::hook(root, scandir),
        Init::Systemd => systemd::hook(root),
        Init::Sysvinit { program } => sysvinit::hook(root, program),
        Init::Busybox { program } => busybox::hook(root, program),
        // it looks for the staged root itself
        Init::Own => Hook::Wired { by: ENTRY.into(), steps: vec![] },
        Init::Procd => procd::hook(root),
        Init::Dinit => dinit::hook(root),
        Init::Maintenance => Hook::not("already in the maintenance root".to_owned()),
        Init::Other("runit") => Hook::NotWired {
            reason: "init runit resets the board itself after /etc/runit/3 and executes nothing else"
                .to_owned(),
            remedy: Some("none is known: use another init".to_owned()),
        },
        other => Hook::not(format!("init {other}: its reboot has no place that is known to hand over from")),
    }
}

/// What of this system makes some way to reboot, power off or halt do something else than what was meant.
pub fn warnings(root: &Root, init: &Init) -> Vec<String> {
    match init {
        Init::Systemd => rivals::warnings(root, systemd::PLACE),
        // the others tell the verbs apart themselves
        Init::S6 { scandir } => {
            verb_warnings(root).into_iter().chain(s6::signal_warning(root, scandir)).collect()
        }
        _ => Vec::new(),
    }
}

/// Why a staged root without a shell would not be entered; none if it would. Answers the program that it needs, too.
pub fn needs_shell(root: &Root, init: &Init) -> Option<(&'static str, String)> {
    let unit = rivals::writes_over(root).filter(|_| *init == Init::Systemd)?;
    let reason = format!(
        "{unit} would put its own root at {} while the system goes down, because the staged root has no {SHELL}",
        systemd::PLACE
    );
    Some((SHELL, reason))
}

/// What of the system's own commands does not say which verb it was: after `levitate` it would enter the maintenance
/// root where it should not.
fn verb_warnings(root: &Root) -> Vec<String> {
    let says_the_verb = |command: &str| {
        let found =
            front::DIRECTORIES.iter().find_map(|dir| root.resolve(&Path::new(dir).join(command)).ok())?;
        let bytes = fs::read(root.host(&found.real)).ok()?;
        let verb = b"/run/levitate/verb";
        let says = bytes.windows(verb.len()).any(|w| w == verb);
        (!says).then_some(found.real)
    };
    ["poweroff", "halt"]
        .into_iter()
        .filter_map(|command| Some((command, says_the_verb(command)?)))
        .map(|(command, file)| {
            format!(
                "{command} ({}) does not write its name to /run/levitate/verb: \
                 after levitate it enters maintenance mode, as reboot does",
                file.display()
            )
        })
        .collect()
}

/// Whether this is a maintenance root: one that was staged and entered by a hand-over, or an archive of `levitate build`
/// that was booted as an initramfs (nobody has staged that one, so it knows no boot).
pub fn in_maintenance(root: &Root) -> bool {
    #[derive(serde::Deserialize)]
    struct Staged {
        boot_id: String,
    }
    let Ok(manifest) = fs::read(root.dir().join(crate::manifest::MANIFEST)) else { return false };
    let was_never_staged =
        || serde_json::from_slice::<Staged>(&manifest).is_ok_and(|manifest| manifest.boot_id.is_empty());
    root.dir().join("run/levitate/handover.json").exists() || was_never_staged()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root_with_pid_1(comm: &str, exe: &str) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/1")).unwrap();
        fs::write(dir.path().join("proc/1/comm"), format!("{comm}\n")).unwrap();
        symlink(exe, dir.path().join("proc/1/exe")).unwrap();
        symlink("/run/service", dir.path().join("proc/1/cwd")).unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    #[test]
    fn every_init_is_known_by_its_program_and_not_by_the_name_it_goes_by() {
        let scandir = || PathBuf::from("/run/service");
        for (comm, exe, init) in [
            ("s6-svscan", "/usr/bin/s6-svscan", Init::S6 { scandir: scandir() }),
            ("s6-svscan", "/bin/s6", Init::S6 { scandir: scandir() }),
            ("systemd", "/usr/lib/systemd/systemd", Init::Systemd),
            ("init", "/usr/lib/systemd/systemd", Init::Systemd),
            ("init", "/bin/busybox", Init::Busybox { program: "/bin/busybox".into() }),
            ("init", "/bin/busybox.nosuid", Init::Busybox { program: "/bin/busybox.nosuid".into() }),
            ("init", "/bin/busybox.static", Init::Busybox { program: "/bin/busybox.static".into() }),
            ("linuxrc", "/linuxrc", Init::Busybox { program: "/linuxrc".into() }),
            ("init", "/bin/busyboxes", Init::Unknown("busyboxes".into())),
            ("init", "/sbin/init.sysvinit", Init::Sysvinit { program: "/sbin/init.sysvinit".into() }),
            ("init", "/usr/sbin/init", Init::Sysvinit { program: "/usr/sbin/init".into() }),
            ("init", "/sbin/init (deleted)", Init::Sysvinit { program: "/sbin/init".into() }),
            ("procd", "/sbin/procd", Init::Procd),
            ("runit", "/sbin/runit", Init::Other("runit")),
            ("dinit", "/sbin/dinit", Init::Dinit),
            ("init", "/sbin/levitate", Init::Own),
            ("sh", "/usr/bin/dash", Init::Unknown("dash".into())),
        ] {
            let (_dir, root) = root_with_pid_1(comm, exe);
            assert_eq!(detect(&root).unwrap(), init, "{comm} {exe}");
        }
    }

    #[test]
    fn another_init_is_refused_by_name() {
        let (dir, root) = root_with_pid_1("runit", "/usr/bin/runit");
        let reason = |root: &Root| match hook(root, &detect(root).unwrap()) {
            Hook::NotWired { reason, .. } => reason,
            Hook::Wired { by, .. } => panic!("wired by {by:?}"),
        };
        assert_eq!(
            reason(&root),
            "init runit resets the board itself after /etc/runit/3 and executes nothing else"
        );
        fs::remove_file(dir.path().join("proc/1/exe")).unwrap();
        symlink("/sbin/levitate", dir.path().join("proc/1/exe")).unwrap();
        fs::write(dir.path().join("proc/1/comm"), "init\n").unwrap();
        fs::create_dir_all(dir.path().join("etc/levitate")).unwrap();
        fs::create_dir_all(dir.path().join("run/levitate")).unwrap();
        fs::write(dir.path().join("etc/levitate/manifest.json"), "{}").unwrap();
        fs::write(dir.path().join("run/levitate/handover.json"), "{}").unwrap();
        assert_eq!(reason(&root), "already in the maintenance root");
    }

    #[test]
    fn a_poweroff_that_does_not_say_so_is_warned_about() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir_all(dir.path().join("sbin")).unwrap();
        assert_eq!(verb_warnings(&root), Vec::<String>::new());
        fs::write(dir.path().join("sbin/poweroff"), "#!/bin/sh\ns6-svscanctl -b /run/service\n").unwrap();
        fs::write(dir.path().join("sbin/halt"), "#!/bin/sh\necho halt > /run/levitate/verb\n").unwrap();
        let warnings = verb_warnings(&root);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("poweroff (/sbin/poweroff) does not write"), "{warnings:?}");
    }
}
