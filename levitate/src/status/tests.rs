use super::*;
use crate::fixture::{BOOT_ID, CONFIG, OldSystem};

const MOMENT: u64 = 1_700_000_000;
/// No init listens in these roots.
const NO_INIT: &str = "lease: not known: process 1 does not listen at /run/levitate/init.sock: it is not the levitate init \
     (use the running system's own command)\n";

fn status(system: &OldSystem) -> String {
    let config = OldSystem::config(CONFIG);
    let text = read(&system.root(), config.state_file.as_deref()).unwrap().to_string();
    text.replace(&system.root().dir().display().to_string(), "")
}

fn record(state: State, boot_id: &str, stage: Option<&str>, reason: Option<&str>) -> StateRecord {
    StateRecord { at: MOMENT, ..StateRecord::now(state, boot_id, stage, reason) }
}

fn told(record: &StateRecord) -> String {
    last(Some(record), BOOT_ID).to_string()
}

#[test]
fn before_anything_is_staged_reboot_is_a_normal_reboot() {
    assert_eq!(
        status(&OldSystem::new()),
        "init: s6-svscan in /run/service\n\
         staged: nothing\n\
         reboot: a normal reboot; `levitate` prepares maintenance mode\n\
         last hand-over: none is recorded\n"
    );
}

#[test]
fn what_is_staged_is_told_with_what_reboot_will_do() {
    let mut system = OldSystem::new();
    let (manifest, _) = system.levitate(CONFIG).unwrap();
    let when = crate::when::utc(manifest.staged_at);
    let size = format!("{} files, {} KiB, at {when}", manifest.files, manifest.bytes.div_ceil(1024));
    let text = status(&system);
    let expected = format!(
        "init: s6-svscan in /run/service\n\
         staged: {size}\n  services: sshd\n  users who can log in: root\n\
         reboot: enters maintenance mode; `levitate abort` undoes this\n\
         warning: "
    );
    // the fixture's own poweroff is not there, so no warning is told
    assert_eq!(text, expected.trim_end_matches("warning: "));
}

#[test]
fn a_staged_root_that_the_hand_over_would_refuse_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let mut system = OldSystem::new();
    system.levitate(CONFIG).unwrap();
    let init = system.at("/run/maintenance/sbin/init");
    fs::set_permissions(init, fs::Permissions::from_mode(0o644)).unwrap();
    let text = status(&system);
    assert!(
        text.contains("staged: a maintenance root that cannot be entered: /sbin/init is not executable\n"),
        "{text}"
    );
    assert!(text.contains("reboot: the hand-over will fail and reboot into this system;"), "{text}");
}

#[test]
fn a_hook_that_is_not_wired_is_told_without_anything_staged() {
    let system = OldSystem::new();
    fs::remove_file(system.at("/run/service/.s6-svscan/finish")).unwrap();
    let text = status(&system);
    assert!(
        text.contains(
            "reboot: a normal reboot; `levitate` would be refused: /run/service/.s6-svscan/finish does not exist"
        ),
        "{text}"
    );
}

#[test]
fn after_a_failed_hand_over_the_old_system_says_at_which_stage_and_why() {
    let failed = record(State::Failed, "earlier", Some("check"), Some("/sbin/init is not executable"));
    assert_eq!(
        told(&failed),
        "last hand-over failed at stage \"check\": /sbin/init is not executable (2023-11-14 22:13:20 UTC)\n"
    );
}

#[test]
fn every_other_end_of_a_hand_over_has_its_own_text() {
    assert_eq!(told(&record(State::Armed, BOOT_ID, None, None)), "");
    assert_eq!(
        told(&record(State::Armed, "earlier", None, None)),
        "last hand-over: the maintenance root staged at 2023-11-14 22:13:20 UTC was never entered: \
         reboot did not reach the hand-over, or the power was lost before\n"
    );
    assert_eq!(
        told(&record(State::Entering, "earlier", Some("pivot"), None)),
        "last hand-over was cut off at stage \"pivot\" (2023-11-14 22:13:20 UTC): \
         the power was lost, or the board hung and was reset\n"
    );
    assert_eq!(
        told(&record(State::Left, "earlier", Some("unmount"), None)),
        "last hand-over left this system at 2023-11-14 22:13:20 UTC; what came after is not recorded here\n"
    );
    assert_eq!(last(None, BOOT_ID).to_string(), "last hand-over: none is recorded\n");
    assert!(Last::NotRecorded.to_string().contains("no state_file is configured"));
}

#[test]
fn a_damaged_state_file_is_told_and_hides_nothing_else() {
    let system = OldSystem::new();
    system.file("/persist/state.json", "{");
    let text = status(&system);
    assert!(text.contains("staged: nothing\n"), "{text}");
    assert!(
        text.contains("last hand-over: not known: read /persist/state.json: not a state record"),
        "{text}"
    );
}

/// A maintenance root as it was staged; its hand-over reported `found`.
fn inside(found: &str) -> OldSystem {
    let mut system = OldSystem::new();
    system.levitate(CONFIG).unwrap();
    let manifest = fs::read_to_string(system.at("/run/maintenance/etc/levitate/manifest.json")).unwrap();
    let inside = OldSystem::new();
    inside.file("/etc/levitate/manifest.json", &manifest);
    let head = r#""version":1,"handed_over_at":1700000000,"total_ms":480,"stages":[]"#;
    inside.file("/run/levitate/handover.json", &format!("{{{head},{found}}}"));
    inside
}

#[test]
fn in_the_maintenance_root_it_tells_how_it_was_entered_and_what_flashcp_did() {
    let inside = inside(
        r#""unmounted":["/persist","/"],"survivors":[{"pid":7,"name":"dd","state":"D"}],
            "still_mounted":[{"path":"/mnt","source":"/dev/sda1","fstype":"ext4","reason":"EBUSY","read_only":true}],
            "notes":["swapoff /dev/zram0: no such device"],"watchdogs":[{"device":"/dev/watchdog0","timeout_s":60},{"device":"/dev/watchdog1","timeout_s":null}]"#,
    );
    let head = "maintenance mode since 2023-11-14 22:13:20 UTC (the hand-over took 480 ms)\n\
         unmounted: /persist, /\n\
         STILL MOUNTED: /mnt (ext4 on /dev/sda1, read-only): EBUSY\n\
         still alive: process 7 \"dd\", state D\n\
         note: swapoff /dev/zram0: no such device\n\
         watchdog: /dev/watchdog0, 60 s\n\
         watchdog: /dev/watchdog1\n\
         services: sshd\n";
    let foot = format!("{NO_INIT}reboot: leaves maintenance mode\n");
    assert_eq!(status(&inside), format!("{head}flash: not touched by flashcp since then\n{foot}"));
    inside.file(
        "/run/levitate/flash.json",
        r#"{"version":1,"state":"verified","pid":123,"command":["flashcp"],"device":"/dev/mtd5","name":"firmware","image":"firmware.bin","finished":1700000042,"error":null}"#,
    );
    let flash = "flash: verified, /dev/mtd5 \"firmware\", from firmware.bin, at 2023-11-14 22:14:02 UTC\n";
    assert_eq!(status(&inside), format!("{head}{flash}{foot}"));
    let root = inside.root();
    let e = crate::abort::abort(&root, None, &mut crate::arming::KernelMounts).unwrap_err();
    assert_eq!(e.to_string(), "this is the maintenance root: reboot leaves it");
}

/// A maintenance root in which flashcp has begun.
fn flashing() -> OldSystem {
    let inside = inside(r#""unmounted":[],"survivors":[],"still_mounted":[],"notes":[],"watchdogs":[]"#);
    inside.file(
        "/run/levitate/flash.json",
        r#"{"version":1,"state":"changing","pid":123,"command":["flashcp","-v","firmware.bin","mtd:firmware"],
            "device":"/dev/mtd5","name":"firmware","image":"firmware.bin","bytes_done":0,"bytes_total":16777216}"#,
    );
    inside
}

fn last_lines(system: &OldSystem) -> String {
    let text = status(system);
    text.get(text.find("flash: ").unwrap()..).unwrap().replace(NO_INIT, "")
}

#[test]
fn a_dead_writer_is_told_as_unverified_with_the_command_that_reboot_asks_for() {
    let system = flashing();
    assert_eq!(
        last_lines(&system),
        "flash: unverified (its writer is gone), /dev/mtd5 \"firmware\", from firmware.bin\n\
         reboot: refuses: /dev/mtd5 (firmware) was changed and not verified: the device may not boot from it; run again:\n    \
         flashcp -v firmware.bin mtd:firmware\n\
         (-f overrides)\n"
    );
    let json = serde_json::to_value(read(&system.root(), None).unwrap()).unwrap();
    assert_eq!(json["flash"]["state"], "unverified");
    assert_eq!(json["writer_is_gone"], true);
    assert_eq!(json["reboot"]["does"], "refuses");
    assert_eq!(json["reboot"]["reason"][1], "    flashcp -v firmware.bin mtd:firmware");
}

#[test]
fn while_flash_is_being_changed_status_says_for_whom_reboot_waits() {
    let system = flashing();
    system.file("/proc/123/stat", "123 (flashcp) S 1 1");
    assert_eq!(
        last_lines(&system),
        "flash: changing, /dev/mtd5 \"firmware\", from firmware.bin, 0 of 16384 KiB\n\
         reboot: waits, because flash is being changed by flashcp (pid 123), on /dev/mtd5 (firmware) (-f overrides)\n"
    );
    let json = serde_json::to_value(read(&system.root(), None).unwrap()).unwrap();
    assert_eq!(json["flash"]["state"], "changing");
    assert_eq!(json["writer_is_gone"], false);
    assert_eq!(json["reboot"]["does"], "waits");
}

#[test]
fn a_flash_record_that_cannot_be_understood_hides_nothing_else() {
    let system = flashing();
    system.file("/run/levitate/flash.json", "{");
    let text = last_lines(&system);
    assert!(
        text.starts_with("flash: not known\nreboot: refuses: cannot understand the flash record "),
        "{text}"
    );
}

#[test]
fn an_archive_that_was_booted_by_itself_is_a_maintenance_root_without_a_hand_over() {
    let system = OldSystem::new();
    system.file(
        "/etc/levitate/manifest.json",
        r#"{"version":1,"staged_at":0,"boot_id":"","services":["sshd"],"users":[],"files":1,"bytes":1,
            "state_file":null,"handover":{"whole_ms":1,"term_grace_ms":1,"call_ms":1}}"#,
    );
    system.file("/proc/uptime", "100.25 200.00\n");
    let text = status(&system);
    assert!(text.starts_with("maintenance mode since 2"), "{text}");
    let rest = " (booted as an initramfs, without a hand-over)\nservices: sshd\nflash: not touched by flashcp since then\n";
    assert!(text.contains(rest), "{text}");
    assert!(text.ends_with("reboot: leaves maintenance mode\n"), "{text}");
    let json = serde_json::to_value(read(&system.root(), None).unwrap()).unwrap();
    assert_eq!((&json["system"], &json["handover"]), (&"maintenance".into(), &serde_json::Value::Null));
    let since = crate::state::seconds_since_1970() - json["booted_at"].as_u64().unwrap();
    assert!((100..200).contains(&since), "{since}");
    let error = crate::abort::abort(&system.root(), None, &mut crate::arming::KernelMounts).unwrap_err();
    assert_eq!(error.to_string(), "this is the maintenance root: reboot leaves it");

    // one that was staged and that no hand-over has entered is not where this program runs
    let manifest = std::fs::read_to_string(system.at("/etc/levitate/manifest.json")).unwrap();
    system.file("/etc/levitate/manifest.json", &manifest.replace(r#""boot_id":"""#, r#""boot_id":"b""#));
    assert!(status(&system).starts_with("init: "));
}

#[test]
fn without_a_configuration_the_state_file_is_the_one_that_the_staged_root_names() {
    let mut system = OldSystem::new();
    let last = |system: &OldSystem, named: Option<&Path>| match read(&system.root(), named).unwrap() {
        Status::Old(old) => old.last,
        Status::Maintenance(_) => panic!("this is no maintenance root"),
    };
    system.levitate(CONFIG).unwrap();
    assert_eq!(last(&system, None), Last::ToCome);
    system.file("/run/maintenance/etc/levitate/manifest.json", "{");
    assert_eq!(last(&system, None), Last::ToCome, "the record of arming names it as well");
    // the next boot knows neither, but whoever asks may
    std::fs::remove_dir_all(system.at("/run/maintenance")).unwrap();
    assert_eq!(last(&system, None), Last::NotRecorded);
    assert_eq!(last(&system, Some(Path::new("/persist/state.json"))), Last::ToCome);
}

#[test]
fn the_json_says_in_which_system_it_was_asked() {
    let status = read(&OldSystem::new().root(), None).unwrap();
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["system"], "old");
    assert_eq!(json["staged"]["is"], "nothing");
    assert_eq!(json["reboot"], "normal");
    assert_eq!(json["last"]["is"], "not_recorded");
}
