//! What `levitate` refuses, `levitate check` tells in the same words, and the other way round.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::tests::{Told, checked};
use crate::arming::LevitateError;
use crate::config::Config;
use crate::facts::SystemFacts;
use crate::fixture::{CONFIG, OldSystem};
use crate::status::with_sources;

/// A system on which `levitate` is refused, and the configuration to try it with.
type Spoil = fn(&OldSystem) -> String;

fn unchanged() -> String {
    CONFIG.to_owned()
}

fn locked(system: &OldSystem) {
    let run = fs::metadata(system.at("/run")).unwrap();
    let (major, minor) = (nix::sys::stat::major(run.dev()), nix::sys::stat::minor(run.dev()));
    let line = format!("1: FLOCK  ADVISORY  WRITE 1187 {major:02x}:{minor:02x}:{} 0 EOF\n", run.ino());
    system.file("/proc/locks", &line);
}

/// Each refusal that can come before anything is changed. Those of [`name`] that are not among them come later.
const REFUSALS: &[(&str, Spoil)] = &[
    ("configuration", |_| "fils = []\n".to_owned()),
    ("facts", |system| {
        fs::remove_dir_all(system.at("/proc/1")).unwrap();
        unchanged()
    }),
    ("facts", |system| {
        fs::remove_file(system.at("/proc/self/mountinfo")).unwrap();
        unchanged()
    }),
    ("facts", |system| {
        system.file("/etc/passwd", "root:x\n");
        unchanged()
    }),
    ("facts", |system| {
        fs::remove_dir_all(system.at("/run")).unwrap();
        unchanged()
    }),
    ("not wired", |system| {
        fs::remove_file(system.at("/run/service/.s6-svscan/finish")).unwrap();
        unchanged()
    }),
    ("not wired", |system| {
        fs::remove_file(system.at("/proc/1/exe")).unwrap();
        system.link("/proc/1/exe", "/usr/lib/systemd/systemd");
        system.file("/proc/1/comm", "systemd\n");
        system.file("/lib/systemd/system/finalrd.service", "");
        system.file("/lib/systemd/system/sysinit.target.wants/finalrd.service", "");
        system.file("/etc/s6/sshd/type", "longrun\n");
        system.program("/etc/s6/sshd/run", &crate::fixture::static_program());
        let users = "[keep]\nnetwork = false\n[users.root]\nshell = \"/usr/sbin/dropbear\"\n";
        format!("reserve = \"1M\"\n{users}[services.sshd]\nlogin = true\nsource = \"/etc/s6/sshd\"\n")
    }),
    ("not in RAM", |system| {
        system.file("/proc/self/mountinfo", "25 21 0:22 / /run rw - ext4 /dev/sda1 rw\n");
        unchanged()
    }),
    ("flash is changing", |system| {
        let record =
            r#"{"version":1,"state":"changing","pid":123,"command":["flashcp"],"device":"/dev/mtd5"}"#;
        system.file("/run/levitate/flash.json", record);
        system.file("/proc/123/stat", "123 (flashcp) S 1 1");
        unchanged()
    }),
    ("select", |_| format!("packages = [\"wombat\"]\n{CONFIG}")),
    ("select", |_| "keep = { network = false }".to_owned()),
    ("plan", |system| {
        system.file("/etc/banner/of/old", "");
        format!("files = [\"/etc/banner\"]\n{CONFIG}")
    }),
    ("budget", |_| CONFIG.replace("1M", "1G")),
    ("busy", |system| {
        locked(system);
        unchanged()
    }),
    ("record", |system| {
        system.file("/run/levitate/armed.json", r#"{"version":3}"#);
        unchanged()
    }),
    ("arm", |system| {
        // a file in the place of an armed link's target directory, under systemd
        fs::remove_file(system.at("/proc/1/exe")).unwrap();
        system.link("/proc/1/exe", "/usr/lib/systemd/systemd");
        system.file("/proc/1/comm", "systemd\n");
        system.file("/run/initramfs/fsck.log", "clean\n");
        system.file("/run/levitate/arm/initramfs", "in the way");
        unchanged()
    }),
];

/// A variant that is added has to be placed here, and be tried above if it can come before the first change.
fn name(why: &LevitateError) -> &'static str {
    match why {
        LevitateError::NotWired { .. } => "not wired",
        LevitateError::NotInRam { .. } => "not in RAM",
        LevitateError::FlashIsChanging { .. } => "flash is changing",
        LevitateError::Select(_) => "select",
        LevitateError::Plan(_) => "plan",
        LevitateError::Budget(_) => "budget",
        LevitateError::Busy(_) => "busy",
        LevitateError::Record(_) => "record",
        LevitateError::Arm(_) => "arm",
        // an archive's, a file that vanished since it was planned, and the work itself
        LevitateError::Image(_)
        | LevitateError::Measure(_)
        | LevitateError::Stage(_)
        | LevitateError::Path(_)
        | LevitateError::Interrupted { .. }
        | LevitateError::Io { .. } => "later",
    }
}

/// What `levitate` says, as the command does it; none if it stages.
fn refused(system: &mut OldSystem, config: &str) -> Option<(&'static str, String)> {
    let config = match Config::parse(Path::new("/etc/levitate.toml"), config) {
        Ok(config) => config,
        Err(e) => return Some(("configuration", with_sources(&e))),
    };
    let facts = match SystemFacts::read(&system.root(), &config) {
        Ok(facts) => facts,
        Err(e) => return Some(("facts", with_sources(&e))),
    };
    let done = system.levitate_with(&config, &facts);
    done.err().map(|e| (name(&e), with_sources(&e)))
}

#[test]
fn every_refusal_of_levitate_is_told_by_check_in_the_same_words() {
    for (expected, spoil) in REFUSALS {
        let mut system = OldSystem::new();
        let config = spoil(&system);
        let report = checked(&system, &config, &mut Told::default());
        let (kind, why) = refused(&mut system, &config).unwrap_or_else(|| panic!("{expected}: it staged"));
        assert_eq!(kind, *expected, "{why}");
        assert_eq!(report.reasons, [why], "{expected}");
        assert!(!report.works);
        assert!(system.mounts.asked.is_empty() && system.mounts.done.is_empty(), "{expected}: it began");
        if system.at("/run").exists() {
            system.assert_nothing_staged();
        }
    }
}

#[test]
fn where_check_sees_nothing_against_it_levitate_stages_and_arms_by_the_steps_that_were_told() {
    let mut system = OldSystem::new();
    let report = checked(&system, CONFIG, &mut Told::default());
    assert!(report.works && report.init.steps.is_empty(), "{report}");
    assert_eq!(refused(&mut system, CONFIG), None);

    let mut system = OldSystem::new();
    fs::remove_file(system.at("/proc/1/exe")).unwrap();
    system.link("/proc/1/exe", "/usr/lib/systemd/systemd");
    system.file("/proc/1/comm", "systemd\n");
    system.file("/run/initramfs/fsck.log", "clean\n");
    let report = checked(&system, CONFIG, &mut Told::default());
    let (_, events) = system.levitate(CONFIG).unwrap();
    let armed: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            crate::arming::Event::Arming(step) => Some(step.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(report.init.steps, armed);
    assert_eq!(armed.len(), 3, "{armed:?}");
}
