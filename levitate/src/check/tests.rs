use std::fs;
use std::io;

use ramdisk::tree::Tree;

use super::trial::Candidate;
use super::*;
use crate::fixture::{CONFIG, OldSystem};

/// Answers what it is told, and remembers what it was asked.
#[derive(Default)]
pub(super) struct Told {
    asked: Vec<PathBuf>,
    fails: Option<&'static str>,
    refuses: bool,
}

impl Trials for Told {
    fn attempt(&mut self, _: &Tree, _: u64, candidates: &[Candidate]) -> io::Result<Vec<Outcome>> {
        if self.refuses {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.asked = candidates.iter().map(|c| c.program.clone()).collect();
        let outcome = |c: &Candidate| match self.fails {
            Some(name) if c.program == Path::new(name) => {
                Outcome::Fails { reason: "it is for a toaster".into() }
            }
            _ => Outcome::Loads,
        };
        Ok(candidates.iter().map(outcome).collect())
    }
}

pub(super) fn checked(system: &OldSystem, config: &str, told: &mut Told) -> Report {
    let config = Config::parse(Path::new("/etc/levitate.toml"), config);
    let watchdog = WatchdogFacts {
        holders: vec![(91, "/dev/watchdog".into()), (92, "/dev/watchdog1".into())],
        ..WatchdogFacts::default()
    };
    check(&system.root(), &config, Hands { trials: told, mounts: &system.mounts, watchdog })
}

/// The report's text without what differs from one machine to the next.
fn text(system: &OldSystem, report: &Report) -> String {
    let text = report.to_string().replace(&system.root().dir().display().to_string(), "");
    let number = |line: &str, before: &str, after: &str| -> String {
        let (Some(a), Some(b)) = (line.find(before), line.find(after)) else { return line.to_owned() };
        format!("{}{before}N{}", &line[..a], &line[b..])
    };
    text.lines()
        .map(|line| number(line, "memory: ", " KiB to stage"))
        .map(|l| number(&l, "files, ", " KiB; ssh") + "\n")
        .collect()
}

#[test]
fn a_system_on_which_levitate_would_work_is_described_from_its_init_to_its_reboot() {
    let system = OldSystem::new();
    let mut told = Told::default();
    let report = checked(&system, CONFIG, &mut told);
    assert_eq!(
        text(&system, &report),
        "init: s6-svscan in /run/service\n\
         hook: wired by /run/service/.s6-svscan/finish\n\
         staging: 18 files, N KiB; ssh host keys: 1\n\
         services: sshd\n\
         users who could log in: root (1 key)\n\
         programs: 4 of 4 can be loaded in a copy of the staged root, 0 of them with their libraries \
         (what they do when they run was not tried)\n\
         memory: N KiB to stage, 1024 KiB for the image (reserve in the configuration), 8192 KiB to work in; \
         65536 KiB available: fits\n\
         flash: nothing uses it\n\
         watchdog: /dev/watchdog (process 91); the hand-over takes it over when its holders have ended, and feeds it\n\
         watchdog: /dev/watchdog1 (process 92); the hand-over takes it over when its holders have ended, and feeds it\n\
         lease: 15 min without a login, then back into this system\n\
         reboot: now a normal reboot\n\
         reboot: after `levitate` enters maintenance mode\n\
         warning: levitate would remount /run so that programs and devices work there\n\
         `levitate` would work\n"
    );
    let asked: Vec<_> = told.asked.iter().map(|p| p.to_str().unwrap()).collect();
    assert_eq!(asked, ["/sbin/levitate", "/sbin/init", "/bin/busybox", "/usr/sbin/dropbear"]);
    system.assert_nothing_staged();
}

#[test]
fn every_reason_is_told_and_not_the_first_alone() {
    let system = OldSystem::new();
    fs::remove_file(system.at("/run/service/.s6-svscan/finish")).unwrap();
    system.file("/proc/meminfo", "MemTotal: 131072 kB\nMemAvailable: 5000 kB\n");
    system.file("/proc/self/mountinfo", "25 21 0:22 / /run rw - ext4 /dev/sda1 rw\n");
    let report = checked(&system, CONFIG, &mut Told::default());
    assert!(!report.works);
    let starts = [
        "reboot would not enter the maintenance root: /run/service/.s6-svscan/finish does not exist",
        "stage into /run: expected a file system in RAM, found ext4 (mounted at /run)",
        "not enough memory: ",
    ];
    assert_eq!(report.reasons.len(), starts.len(), "{:?}", report.reasons);
    for (reason, start) in report.reasons.iter().zip(starts) {
        assert!(reason.starts_with(start), "{reason}");
    }
    let text = text(&system, &report);
    assert!(text.contains("programs: not tried: there is not enough memory for a copy\n"), "{text}");
    assert!(
        text.ends_with("are available (MemAvailable)\n")
            && text.contains("\n`levitate` would not work:\n  - ")
    );
    assert!(!text.contains("after `levitate`"), "{text}");
}

#[test]
fn a_broken_configuration_hides_nothing_of_the_rest() {
    let system = OldSystem::new();
    let report = checked(&system, "fils = []\n", &mut Told::default());
    let text = text(&system, &report);
    for line in [
        "hook: wired by /run/service/.s6-svscan/finish\n",
        "staging: not known\n",
        "programs: not tried: what would be staged is not known\n",
        "watchdog: /dev/watchdog (process 91); ",
        "reboot: now a normal reboot\n",
        "  - /etc/levitate.toml, line 1: unknown key \"fils\", did you mean \"files\"?; ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn a_program_that_cannot_run_is_a_reason_and_is_named() {
    let system = OldSystem::new();
    let mut told = Told { fails: Some("/usr/sbin/dropbear"), ..Told::default() };
    let report = checked(&system, CONFIG, &mut told);
    assert_eq!(report.reasons, ["/usr/sbin/dropbear cannot run: it is for a toaster"]);
    let text = text(&system, &report);
    assert!(text.contains("programs: 3 of 4 can be loaded"), "{text}");
    assert!(text.contains("  /usr/sbin/dropbear: FAILS: it is for a toaster\n"), "{text}");
}

#[test]
fn where_nothing_can_be_tried_that_is_said_and_is_no_reason() {
    let system = OldSystem::new();
    let report = checked(&system, CONFIG, &mut Told { refuses: true, ..Told::default() });
    assert!(report.works);
    let why = "a copy of the root cannot be made: permission denied";
    assert_eq!(report.not_tried.as_deref(), Some(why));
}

#[test]
fn who_changes_flash_now_is_waited_for() {
    let system = OldSystem::new();
    system.file(
        "/run/levitate/flash.json",
        r#"{"version":1,"state":"changing","pid":123,"command":["flashcp"],"device":"/dev/mtd5"}"#,
    );
    system.file("/proc/123/stat", "123 (flashcp) S 1 1");
    let report = checked(&system, CONFIG, &mut Told::default());
    let writer = "flashcp (pid 123), on /dev/mtd5";
    assert_eq!(report.flash.changing.as_deref(), Some(writer));
    assert_eq!(
        report.reasons,
        [format!("stage a maintenance root: {writer} is changing flash; wait until it has ended")]
    );
}

#[test]
fn what_is_staged_already_is_told_as_what_reboot_does_now() {
    let mut system = OldSystem::new();
    system.levitate(CONFIG).unwrap();
    let before = system.names("/run");
    let report = checked(&system, CONFIG, &mut Told::default());
    assert_eq!(report.reboot.now, Some(Reboot::Maintenance));
    assert_eq!(before, system.names("/run"));
}

#[test]
fn flash_is_told_by_partition_with_its_mounts_and_a_count_of_processes() {
    let system = OldSystem::new();
    system.file("/proc/mtd", "dev:    size   erasesize  name\nmtd3: 00f80000 00010000 \"rootfs\"\n");
    system.file("/sys/class/mtd/mtd3/name", "rootfs\n");
    system.file("/sys/class/mtd/mtd3/size", "16252928\n");
    system.file("/sys/class/mtd/mtd3/erasesize", "65536\n");
    system.file(
        "/proc/self/mountinfo",
        "20 1 31:3 / / ro - squashfs /dev/mtdblock3 ro\n25 20 0:22 / /run rw - tmpfs tmpfs rw,size=50000k\n",
    );
    let mounts = fs::read_to_string(system.at("/proc/self/mountinfo")).unwrap();
    system.file("/proc/1/mountinfo", &mounts);
    let report = checked(&system, CONFIG, &mut Told::default());
    let text = text(&system, &report);
    assert!(text.contains("flash: mtd3 \"rootfs\": mounted at / (squashfs)"), "{text}");
}

/// Services that belong with one another: a controller, what it starts, a pipe.
const CONNECTED: &str = r#"
[services.plug]
run = ["uevent-rule"]
[services.modem]
run = ["/bin/busybox"]
controlled-by = "plug"
[services.app]
run = ["/bin/busybox"]
producer-for = "logger"
[services.logger]
run = ["/bin/busybox"]
consumer-for = ["app"]
"#;

#[test]
fn controllers_and_pipes_are_told_with_the_services_that_they_connect() {
    let system = OldSystem::new();
    let report = checked(&system, &format!("{CONFIG}{CONNECTED}"), &mut Told::default());
    let text = text(&system, &report);
    let lines = "services: app, logger, modem, plug, sshd\n  app: writes to logger\n  logger: reads from app\n  \
                 modem: started and stopped by plug\n";
    assert!(text.contains(lines), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    let modem = &json["staging"]["connections"][2];
    assert_eq!((&modem["service"], &modem["controlled_by"]), (&"modem".into(), &"plug".into()));
}

#[test]
fn a_name_that_only_a_source_directory_says_is_looked_up_as_well() {
    let system = OldSystem::new();
    for (file, text) in [("type", "longrun\n"), ("controlled-by", "nobody\n")] {
        system.file(&format!("/etc/s6/modem/{file}"), text);
    }
    system.program("/etc/s6/modem/run", b"#!/bin/sh\nexec sleep 9\n");
    let config = format!("{CONFIG}[services.modem]\nsource = \"/etc/s6/modem\"\n");
    let report = checked(&system, &config, &mut Told::default());
    assert_eq!(report.reasons.len(), 1, "{report}");
    assert!(report.reasons[0].ends_with("controlled-by names nobody, which does not exist"), "{report}");
}

#[test]
fn the_steps_of_arming_are_told_before_they_are_taken() {
    let system = OldSystem::new();
    fs::remove_file(system.at("/proc/1/exe")).unwrap();
    system.link("/proc/1/exe", "/usr/lib/systemd/systemd");
    system.file("/proc/1/comm", "systemd\n");
    let report = checked(&system, CONFIG, &mut Told::default());
    let text = text(&system, &report);
    let lines = "hook: wired by /run/initramfs\narming would link /run/initramfs to maintenance\n";
    assert!(text.contains(lines), "{text}");
}

#[test]
fn the_json_has_the_keys_that_its_page_describes() {
    let system = OldSystem::new();
    let mut told = Told { fails: Some("/sbin/init"), ..Told::default() };
    let report = checked(&system, &format!("{CONFIG}{CONNECTED}"), &mut told);
    let json = serde_json::to_value(report).unwrap();
    assert_eq!((&json["version"], &json["works"]), (&1.into(), &false.into()));
    assert_eq!(json["programs"][1]["result"], "fails");
    assert_eq!(json["reboot"]["now"], "normal");
    let page = include_str!("../../../docs/check.md");
    fn keys(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
                found.push(key.clone());
                keys(value, found);
            }),
            serde_json::Value::Array(all) => all.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    keys(&json, &mut found);
    assert!(found.len() > 30, "{found:?}");
    for key in found {
        assert!(page.contains(&format!("`{key}`")), "docs/check.md does not describe {key}");
    }
}
