//! Arming the inits that need something done for it, and taking it back, on a small system in a directory.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use ramdisk::dir_sink::Owners;

use super::{Event, record};
use crate::abort;
use crate::fixture::{CONFIG, OldSystem, static_program};
use crate::status::with_sources;

const DEBIAN: &str = "id:2:initdefault:\nl6:6:wait:/etc/init.d/rc 6\nz6:6:respawn:/sbin/sulogin\n";

fn with_init(exe: &str, comm: &str) -> OldSystem {
    let system = OldSystem::new();
    fs::remove_file(system.at("/proc/1/exe")).unwrap();
    system.link("/proc/1/exe", exe);
    system.file("/proc/1/comm", &format!("{comm}\n"));
    system
}

fn busybox() -> OldSystem {
    let system = with_init("/bin/busybox", "init");
    system.file("/etc/inittab", "::respawn:/bin/sh\n::restart:/sbin/init\n");
    let words = b"BusyBox v1.35.0 \0init\0linuxrc\0reboot\0";
    system.program("/bin/busybox", &[&static_program()[..], words].concat());
    system
}

/// Its `reboot` is covered by one of our own.
fn busybox_without_linuxrc() -> OldSystem {
    let system = busybox();
    let words = b"BusyBox v1.35.0 \0init\0reboot\0";
    system.program("/bin/busybox", &[&static_program()[..], words].concat());
    system.link("/sbin/ip", "../bin/busybox");
    system
}

fn sysvinit() -> OldSystem {
    let system = with_init("/sbin/init", "init");
    system.program("/sbin/init", b"\x7fELF sysvinit");
    system.file("/etc/inittab", DEBIAN);
    system
}

fn systemd() -> OldSystem {
    let system = with_init("/usr/lib/systemd/systemd", "systemd");
    system.file("/run/initramfs/fsck.log", "clean\n");
    system
}

fn state(system: &OldSystem) -> (Vec<String>, Vec<PathBuf>) {
    (system.names("/"), system.mounts.mounted.clone())
}

#[test]
fn each_init_is_armed_and_abort_leaves_no_trace() {
    for (mut system, made) in [
        (systemd(), vec!["link /run/initramfs"]),
        (sysvinit(), vec!["bind /run/levitate/arm/inittab /etc/inittab", "hang up"]),
        (busybox(), vec!["bind /run/levitate/arm/inittab /etc/inittab", "hang up", "start linuxrc"]),
        (
            busybox_without_linuxrc(),
            vec![
                "bind /run/levitate/arm/inittab /etc/inittab",
                "hang up",
                "bind /sbin /run/levitate/arm/own-0",
                "fill /run/levitate/arm/cover-0",
                "bind /run/levitate/arm/cover-0 /sbin",
                "unmount /run/levitate/arm/cover-0",
                "start linuxrc",
            ],
        ),
    ] {
        system.file("/run/levitate/verb", "");
        let before = state(&system);
        system.levitate(CONFIG).unwrap_or_else(|e| panic!("{made:?}: {}", with_sources(&e)));
        if made[0].starts_with("link") {
            let target = fs::read_link(system.at("/run/initramfs")).unwrap();
            assert_eq!(target, PathBuf::from("maintenance"));
            assert!(system.at("/run/initramfs/shutdown").is_file(), "systemd executes it");
        } else {
            assert_eq!(system.mounts.done, made);
        }
        let root = system.root();
        let undone = abort::abort(&root, None, &mut system.mounts).unwrap();
        assert!(undone.disarmed && undone.staged && undone.remounted, "{undone:?}");
        assert_eq!(state(&system), before);
    }
}

#[test]
fn a_failure_at_any_step_leaves_the_system_as_it_was() {
    for refuse in [
        |line: &str| line.starts_with("bind"),
        |line: &str| line == "hang up",
        |line: &str| line == "start linuxrc",
    ] {
        let mut system = busybox();
        system.file("/run/levitate/verb", "");
        let before = state(&system);
        system.mounts.refuse = Some(refuse);
        let error = with_sources(&system.levitate(CONFIG).unwrap_err());
        assert!(error.ends_with("permission denied"), "{error}");
        // what undoes it may be refused as well, and is then still to be done
        let root = system.root();
        system.mounts.refuse = None;
        abort::abort(&root, None, &mut system.mounts).unwrap();
        assert_eq!(state(&system), before, "{error}");
    }
}

#[test]
fn who_is_interrupted_amid_arming_takes_everything_back_and_says_so() {
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        for at in ["bind", "fill", "start"] {
            let mut system = busybox_without_linuxrc();
            system.file("/run/levitate/verb", "");
            let before = state(&system);
            system.mounts.signal_at = Some((signal, at));
            let error = with_sources(&system.levitate(CONFIG).unwrap_err());
            assert_eq!(error, format!("stage a maintenance root: interrupted by {signal}"), "{at}");
            assert_eq!(state(&system), before, "{signal} at {at}");
        }
    }
}

#[test]
fn an_abort_that_is_interrupted_goes_on_to_its_end() {
    let mut system = busybox_without_linuxrc();
    system.file("/run/levitate/verb", "");
    let before = state(&system);
    system.levitate(CONFIG).unwrap();
    system.mounts.signal_at = Some((Signal::SIGHUP, "end 77"));
    let root = system.root();
    abort::abort(&root, None, &mut system.mounts).unwrap();
    assert_eq!((state(&system), system.mounts.signal_at), (before, None));
}

#[test]
fn nobody_is_told_anything_between_the_first_change_and_the_last() {
    let mut system = busybox_without_linuxrc();
    let config = OldSystem::config(CONFIG);
    let facts = system.facts(&config);
    let (run, entry) = (system.at("/run"), system.at("/run/maintenance/exec"));
    let mut told = Vec::new();
    let tell = &mut |event: Event| {
        // whoever listens may take for ever: then everything is as it was or as it shall be, and nobody is kept out
        let free = super::lock(&run).is_ok();
        told.push((matches!(event, Event::Remounting(_) | Event::Arming(_)), entry.exists(), free));
    };
    super::levitate(&config, &facts, &mut system.mounts, Owners::Mine, tell).unwrap();
    assert!(told.iter().any(|(of_a_change, ..)| *of_a_change));
    for (of_a_change, staged, free) in told {
        assert_eq!((of_a_change, free), (staged, true));
    }
}

/// As if it was killed at the nth thing that it asks of the kernel: whatever is under way stays as it is.
fn killed_at(system: &mut OldSystem, nth: usize) -> bool {
    system.mounts.killed_at = Some(nth);
    let died =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(system.levitate(CONFIG)))).is_err();
    system.mounts.killed_at = None;
    if died {
        // a process that is killed tidies nothing up
        system.file("/run/maintenance.new/sbin/levitate", "half of it");
    }
    died
}

#[test]
fn an_abort_after_levitate_was_killed_at_any_moment_leaves_no_trace() {
    let inits: [fn() -> OldSystem; 4] = [systemd, sysvinit, busybox, busybox_without_linuxrc];
    let mut moments = 0;
    for init in inits {
        for nth in 0.. {
            let mut system = init();
            system.file("/run/levitate/verb", "");
            let before = state(&system);
            let died = killed_at(&mut system, nth);
            for name in ["/sbin/reboot", "/sbin/levitate"] {
                let there = fs::symlink_metadata(system.at(name)).is_ok();
                assert!(there, "{name} is gone after a kill at call {nth} of the kernel");
            }
            let root = system.root();
            abort::abort(&root, None, &mut system.mounts).unwrap();
            assert_eq!(state(&system), before, "killed at call {nth} of the kernel");
            assert_eq!(system.mounts.options_now(), ["rw", "nosuid", "nodev", "noexec"], "at {nth}");
            if !died {
                break;
            }
            moments += 1;
        }
    }
    assert!(moments >= 16, "{moments}");
}

#[test]
fn each_step_is_recorded_before_it_is_done() {
    let mut system = busybox();
    system.levitate(CONFIG).unwrap();
    assert_eq!(system.mounts.done[0], "bind /run/levitate/arm/inittab /etc/inittab");
    assert!(system.mounts.recorded[0].contains(r#""step":"bind""#), "{}", system.mounts.recorded[0]);
    assert_eq!(system.mounts.done[2], "start linuxrc");
    assert!(system.mounts.recorded[2].contains(r#""step":"start""#), "{}", system.mounts.recorded[2]);
}

#[test]
fn a_second_levitate_arms_nothing_twice_and_abort_undoes_the_first() {
    let mut system = systemd();
    system.file("/run/levitate/verb", "");
    let before = state(&system);
    system.levitate(CONFIG).unwrap();
    let first = record::read(&system.root()).unwrap().unwrap();
    system.run_mounted_with("rw,nosuid");
    system.levitate(&format!("banner = \"second\"\n{CONFIG}")).unwrap();
    assert_eq!(record::read(&system.root()).unwrap(), Some(first));
    assert_eq!(fs::read_to_string(system.at("/run/initramfs/etc/banner")).unwrap(), "second");
    let root = system.root();
    abort::abort(&root, None, &mut system.mounts).unwrap();
    assert_eq!(state(&system), before);
}

#[test]
fn what_was_recorded_and_never_done_is_undone_without_an_error() {
    let mut system = busybox();
    let before = state(&system);
    system.levitate(CONFIG).unwrap();
    // a power cut cannot do this, a kill in mid-arming can
    system.mounts.mounted.clear();
    fs::remove_dir_all(system.at("/proc/77")).unwrap();
    for name in ["inittab", "restart"] {
        fs::remove_file(system.at("/run/levitate/arm").join(name)).unwrap();
    }
    let root = system.root();
    abort::abort(&root, None, &mut system.mounts).unwrap();
    let mut after = state(&system);
    after.0.retain(|name| !before.0.contains(name));
    assert_eq!(after.0, Vec::<String>::new());
}

#[test]
fn something_of_others_in_the_way_is_not_hidden() {
    let mut system = busybox();
    let inittab = system.at("/etc/inittab");
    system.mounts.mounted.push(inittab.clone());
    let error = with_sources(&system.levitate(CONFIG).unwrap_err());
    assert!(error.contains("it would hide or replace something that is there already"), "{error}");
    assert_eq!(system.mounts.mounted, [inittab], "the mount of others stays");
}

/// A root that can be logged in to without any shell: the server is a program of its own, and so is root's shell.
const SHELLLESS: &str = r#"
reserve = "1M"
[keep]
network = false
[users.root]
shell = "/usr/sbin/dropbear"
[services.sshd]
source = "/etc/s6/sshd"
"#;

#[test]
fn where_finalrd_would_write_over_it_a_root_without_a_shell_is_refused() {
    let spoilt = || {
        let system = systemd();
        system.file("/usr/lib/systemd/system/finalrd.service", "");
        system.file("/usr/lib/systemd/system/sysinit.target.wants/finalrd.service", "");
        system.file("/etc/s6/sshd/type", "longrun\n");
        system.program("/etc/s6/sshd/run", &static_program());
        system
    };
    let mut system = spoilt();
    let config = format!("{SHELLLESS}login = true\n");
    let error = with_sources(&system.levitate(&config).unwrap_err());
    assert_eq!(
        error,
        "reboot would not enter the maintenance root: finalrd.service would put its own root at /run/initramfs while the \
         system goes down, because the staged root has no /bin/sh; name /bin/sh in packages"
    );
    system.assert_nothing_staged();
    spoilt().levitate(&format!("packages = [\"/bin/sh\"]\n{config}")).unwrap();
    fs::remove_file(system.at("/usr/lib/systemd/system/finalrd.service")).unwrap();
    system.levitate(&config).unwrap();
}
