use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::abort::{self, Undone};
use crate::fixture::{BOOT_ID, CONFIG, OldSystem};
use crate::state::State;
use crate::status::with_sources;

fn refused(system: &mut OldSystem, config: &str) -> String {
    with_sources(&system.levitate(config).unwrap_err())
}

fn mode(system: &OldSystem, name: &str) -> u32 {
    let at = system.at("/run/maintenance").join(name);
    fs::symlink_metadata(&at).unwrap_or_else(|e| panic!("{name}: {e}")).permissions().mode() & 0o7777
}

#[test]
fn the_staged_root_is_what_the_contract_says() {
    let mut system = OldSystem::new();
    let (manifest, _) = system.levitate(CONFIG).unwrap();
    let text = |name: &str| fs::read_to_string(system.at("/run/maintenance").join(name)).unwrap();
    assert_eq!(
        system.names("/run/maintenance"),
        [
            "bin/",
            "bin/busybox",
            "bin/sh",
            "dev/",
            "etc/",
            "etc/banner",
            "etc/dropbear",
            "etc/group",
            "etc/levitate/",
            "etc/levitate/manifest.json",
            "etc/levitate/services/",
            "etc/levitate/services/default/",
            "etc/levitate/services/default/contents.d/",
            "etc/levitate/services/default/contents.d/sshd",
            "etc/levitate/services/default/type",
            "etc/levitate/services/sshd/",
            "etc/levitate/services/sshd/run",
            "etc/levitate/services/sshd/type",
            "etc/nsswitch.conf",
            "etc/passwd",
            "etc/profile",
            "etc/shadow",
            "etc/shells",
            "exec",
            "oldroot/",
            "persist/",
            "persist/dropbear/",
            "persist/dropbear/dropbear_ed25519_host_key",
            "proc/",
            "root/",
            "root/.ssh/",
            "root/.ssh/authorized_keys",
            "run/",
            "sbin/",
            "sbin/console-login",
            "sbin/flashcp",
            "sbin/halt",
            "sbin/health-check",
            "sbin/init",
            "sbin/levitate",
            "sbin/poweroff",
            "sbin/reboot",
            "sbin/round-robin",
            "sbin/s6-rc",
            "sbin/s6-rc-db",
            "sbin/s6-rc-up-tree",
            "sbin/s6-svc",
            "sbin/s6-svstat",
            "sbin/s6-tai64nlocal",
            "sbin/uevent-rule",
            "sbin/upgraded",
            "shutdown",
            "sys/",
            "tmp/",
            "usr/",
            "usr/sbin/",
            "usr/sbin/dropbear",
        ]
    );
    for (name, expected) in [
        ("", 0o755),
        ("sbin/levitate", 0o755),
        ("sbin/init", 0o755),
        ("etc/shadow", 0o600),
        ("persist/dropbear/dropbear_ed25519_host_key", 0o600),
        ("root", 0o700),
        ("root/.ssh", 0o700),
        ("root/.ssh/authorized_keys", 0o600),
        ("tmp", 0o1777),
        ("etc/levitate/services/sshd/run", 0o755),
    ] {
        assert_eq!(mode(&system, name), expected, "{name}");
    }
    assert_eq!(text("sbin/init"), "#!/sbin/levitate init\n");
    assert_eq!(fs::read_link(system.at("/run/maintenance/exec")).unwrap(), Path::new("sbin/levitate"));
    assert_eq!(fs::read_link(system.at("/run/maintenance/sbin/reboot")).unwrap(), Path::new("levitate"));
    assert_eq!(fs::read(system.at("/run/maintenance/exec")).unwrap(), crate::fixture::static_program());
    assert_eq!(
        fs::read_link(system.at("/run/maintenance/etc/dropbear")).unwrap(),
        Path::new("../persist/dropbear")
    );
    assert_eq!(text("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
    assert_eq!(text("etc/shells"), "/bin/sh\n");
    assert_eq!(text("etc/levitate/services/sshd/run"), "#!/bin/sh\nexec '/usr/sbin/dropbear' '-F'\n");
    assert!(text("etc/banner").contains("LADIES AND GENTLEMEN WE ARE FLOATING IN SPACE"));
    let staged: Manifest = serde_json::from_str(&text("etc/levitate/manifest.json")).unwrap();
    assert_eq!(staged, manifest);
    assert_eq!(
        (staged.boot_id.as_str(), staged.services, staged.users),
        (BOOT_ID, vec!["sshd".into()], vec!["root".into()])
    );
    let services = ramdisk::service::read_services_dir(&system.at("/run/maintenance/etc/levitate/services"));
    services.unwrap().check().unwrap();
}

#[test]
fn our_commands_win_over_applets_and_programs_of_the_same_name_wherever_they_are() {
    let mut system = OldSystem::new();
    system.link("/bin/poweroff", "busybox");
    system.program("/usr/sbin/flashcp", &crate::fixture::static_program());
    let packages = r#"packages = [{ program = "/bin/busybox", links = true }, "/usr/sbin/flashcp"]"#;
    let (_, events) = system.levitate(&format!("{packages}\n{CONFIG}")).unwrap();
    for name in ["bin/poweroff", "usr/sbin/flashcp"] {
        let target = fs::read_link(system.at("/run/maintenance").join(name)).unwrap();
        assert_eq!(target, Path::new("/sbin/levitate"), "{name}");
    }
    let target = fs::read_link(system.at("/run/maintenance/sbin/reboot")).unwrap();
    assert_eq!(target, Path::new("levitate"));
    let warning = "/usr/sbin/flashcp gives way to levitate's own command".to_owned();
    assert!(events.contains(&Event::Warning(warning)), "{events:?}");
}

#[test]
fn a_file_that_a_service_names_and_that_stays_behind_is_warned_about() {
    let mut system = OldSystem::new();
    system.file("/etc/web.conf", "");
    system.program("/bin/helper", &crate::fixture::static_program());
    let services = r#"
[services.web]
run = ["/bin/busybox", "httpd", "-c", "/etc/web.conf", "-h", "/www", "-b", "/etc/banner"]
[services.ready]
type = "oneshot"
up = "exec '/bin/helper' > /dev/null # not /bin/busybox"
"#;
    let (_, events) = system.levitate(&format!("{CONFIG}{services}")).unwrap();
    let warnings: Vec<_> = events.iter().filter(|e| matches!(e, Event::Warning(_))).cloned().collect();
    let warning = |service: &str, file: &str| {
        let text =
            format!("service {service} names {file}, which is not staged: name it in packages or files");
        Event::Warning(text)
    };
    assert_eq!(warnings, [warning("ready", "/bin/helper"), warning("web", "/etc/web.conf")]);
}

#[test]
fn what_our_own_program_needs_comes_along() {
    let mut system = OldSystem::new();
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    system.program("/sbin/levitate", &own);
    let text = refused(&mut system, CONFIG);
    assert!(text.contains("/sbin/levitate: its dynamic linker /lib"), "{text}");
    system.assert_nothing_staged();
}

#[test]
fn where_usr_is_merged_everything_lies_behind_the_symlinks() {
    let mut system = OldSystem::new();
    fs::remove_dir_all(system.at("/bin")).unwrap();
    fs::remove_dir_all(system.at("/sbin")).unwrap();
    fs::remove_file(system.at("/proc/self/exe")).unwrap();
    for (name, target) in [("/bin", "usr/bin"), ("/sbin", "/usr/sbin")] {
        system.link(name, target);
    }
    for program in ["/usr/bin/sh", "/usr/sbin/levitate"] {
        system.program(program, &crate::fixture::static_program());
    }
    system.link("/proc/self/exe", "../../usr/sbin/levitate");
    system.levitate(&format!("packages = [\"/sbin/dropbear\"]\n{CONFIG}")).unwrap();
    let link = |name: &str| fs::read_link(system.at("/run/maintenance").join(name)).unwrap();
    assert_eq!(link("bin"), Path::new("usr/bin"));
    assert_eq!(link("sbin"), Path::new("usr/sbin"), "absolute links would lead out of it before the pivot");
    assert_eq!(mode(&system, "usr/sbin/init"), 0o755);
    assert!(system.at("/run/maintenance/exec").is_file());
}

#[test]
fn arming_is_recorded_and_a_noexec_run_is_remounted_and_abort_undoes_all_of_it() {
    let mut system = OldSystem::new();
    let before = (system.names("/"), fs::read_to_string(system.at("/proc/self/mountinfo")).unwrap());
    system.levitate(CONFIG).unwrap();
    assert_eq!(system.mounts.asked.len(), 1);
    assert_eq!(system.mounts.asked[0].options, ["rw", "nosuid"]);
    let state_file = system.at("/persist/state.json");
    let record = state::read(&state_file).unwrap().unwrap();
    assert_eq!((record.state, record.boot_id.as_str()), (State::Armed, BOOT_ID));

    // the hand-over looks there if the staged root's manifest is damaged by then
    let armed = fs::read_to_string(system.at("/run/levitate/armed.json")).unwrap();
    let named = super::record::state_at(&armed).map(|state| state.file);
    assert_eq!(named.as_deref(), Some(Path::new("/persist/state.json")));
    system.file("/run/maintenance/etc/levitate/manifest.json", "{");

    let root = system.root();
    let undone = abort::abort(&root, None, &mut system.mounts).unwrap();
    assert_eq!(undone, Undone { staged: true, remounted: true, disarmed: false, recorded: true });
    assert_eq!(system.mounts.asked[1].options, ["rw", "nosuid", "nodev", "noexec"]);
    let mut after = system.names("/");
    after.retain(|name| !name.starts_with("run/levitate/"));
    assert_eq!(after, before.0);

    let again = abort::abort(&root, None, &mut system.mounts).unwrap();
    assert_eq!(again, Undone::default());
}

#[test]
fn a_second_levitate_replaces_the_first_and_abort_goes_back_to_before_both() {
    let mut system = OldSystem::new();
    system.levitate(CONFIG).unwrap();
    system.run_mounted_with("rw,nosuid");
    system.levitate(&format!("banner = \"second\"\n{CONFIG}")).unwrap();
    assert_eq!(fs::read_to_string(system.at("/run/maintenance/etc/banner")).unwrap(), "second");
    assert_eq!(system.mounts.asked.len(), 1, "the second finds /run executable");
    let root = system.root();
    abort::abort(&root, None, &mut system.mounts).unwrap();
    assert_eq!(system.mounts.asked[1].options, ["rw", "nosuid", "nodev", "noexec"]);
}

#[test]
fn too_little_memory_is_refused_with_the_numbers_and_nothing_is_staged() {
    let mut system = OldSystem::new();
    let text = refused(&mut system, &CONFIG.replace("1M", "1G"));
    assert!(text.starts_with("not enough memory: "), "{text}");
    assert!(text.contains("1048576 KiB for the image to come (reserve in the configuration)"), "{text}");
    assert!(text.ends_with("but only 65536 KiB are available (MemAvailable)"), "{text}");
    system.assert_nothing_staged();
    assert!(system.mounts.asked.is_empty());
}

#[test]
fn every_other_refusal_stages_nothing_either() {
    let mut system = OldSystem::new();
    assert!(refused(&mut system, &format!("packages = [\"wombat\"]\n{CONFIG}")).contains("wombat"));
    system.assert_nothing_staged();
    assert!(refused(&mut system, "keep = { network = false }").contains("nobody could log in"));
    system.assert_nothing_staged();
    system.program("/run/service/.s6-svscan/finish", b"#!/bin/sh\nreboot -f\n");
    let text = refused(&mut system, CONFIG);
    assert!(text.starts_with("reboot would not enter the maintenance root: /run/service"), "{text}");
    system.assert_nothing_staged();
    assert!(!system.at("/persist/state.json").exists());
}

#[test]
fn a_run_that_lies_on_flash_is_refused() {
    let mut system = OldSystem::new();
    system.file("/proc/self/mountinfo", "21 1 31:3 / / rw - jffs2 /dev/root rw\n");
    let text = refused(&mut system, CONFIG);
    assert_eq!(text, "stage into /run: expected a file system in RAM, found jffs2 (mounted at /)");
    system.assert_nothing_staged();
}

#[test]
fn a_failure_after_the_remount_puts_everything_back() {
    let mut system = OldSystem::new();
    // a file in the place of what was staged before: it cannot be removed as a tree
    system.file("/run/maintenance.old", "");
    let state_file = system.at("/persist/state.json");
    let text = refused(&mut system, CONFIG);
    assert!(text.starts_with("remove "), "{text}");
    fs::remove_file(system.at("/run/maintenance.old")).unwrap();
    system.assert_nothing_staged();
    assert!(!state_file.exists());
    let options: Vec<_> = system.mounts.asked.iter().map(|r| r.options.join(",")).collect();
    assert_eq!(options, ["rw,nosuid", "rw,nosuid,nodev,noexec"]);
    assert!(!system.at("/run/levitate/armed.json").exists());
}

#[test]
fn a_remount_that_fails_is_told_and_nothing_is_staged() {
    let mut system = OldSystem::new();
    system.mounts.fail = true;
    let text = refused(&mut system, CONFIG);
    assert!(text.starts_with("remount /run: permission denied"), "{text}");
    system.assert_nothing_staged();
    assert!(!system.at("/run/levitate/armed.json").exists());
}

#[test]
fn a_failed_attempt_keeps_the_record_of_an_earlier_hand_over() {
    let mut system = OldSystem::new();
    let failed = StateRecord::now(State::Failed, "earlier", Some("check"), Some("no init"));
    let state_file = system.at("/persist/state.json");
    state::write_durably(&state_file, &failed).unwrap();
    refused(&mut system, &format!("packages = [\"wombat\"]\n{CONFIG}"));
    assert_eq!(state::read(&state_file).unwrap(), Some(failed.clone()));
    let root = system.root();
    let configured = Path::new("/persist/state.json");
    abort::abort(&root, Some(configured), &mut system.mounts).unwrap();
    assert_eq!(state::read(&state_file).unwrap(), Some(failed), "abort removes its own record only");
}

#[test]
fn an_abort_puts_back_the_reason_of_the_last_failed_hand_over() {
    let mut system = OldSystem::new();
    let failed = StateRecord::now(State::Failed, "earlier", Some("check"), Some("no init"));
    let state_file = system.at("/persist/state.json");
    state::write_durably(&state_file, &failed).unwrap();
    system.levitate(CONFIG).unwrap();
    system.run_mounted_with("rw,nosuid");
    system.levitate(CONFIG).unwrap();
    assert_eq!(state::read(&state_file).unwrap().unwrap().state, State::Armed);
    let root = system.root();
    let undone = abort::abort(&root, None, &mut system.mounts).unwrap();
    assert!(undone.recorded);
    assert_eq!(state::read(&state_file).unwrap(), Some(failed));
}

#[test]
fn a_state_file_that_cannot_be_written_is_warned_about_and_stops_nothing() {
    let mut system = OldSystem::new();
    let config = CONFIG.replace("/persist/state.json", "/nowhere/state.json");
    let (_, events) = system.levitate(&config).unwrap();
    assert!(system.at("/run/maintenance/exec").is_file());
    let expected = format!(
        "that a root is staged is not recorded: create {}.new: No such file or directory (os error 2)",
        system.at("/nowhere/state.json").display()
    );
    assert!(events.contains(&Event::Warning(expected)), "{events:?}");
}

fn flash_record(state: &str) -> String {
    format!(
        r#"{{"version":1,"state":"{state}","pid":123,"command":["flashcp","fw.bin","mtd5"],"device":"/dev/mtd5","name":"firmware"}}"#
    )
}

#[test]
fn while_a_flashcp_changes_flash_nothing_is_staged_and_it_is_named() {
    let mut system = OldSystem::new();
    system.file("/run/levitate/flash.json", &flash_record("changing"));
    system.file("/proc/123/stat", "123 (flashcp) D 1 123 123 0 -1 4194560 0 0");
    assert_eq!(
        refused(&mut system, CONFIG),
        "stage a maintenance root: flashcp (pid 123), on /dev/mtd5 (firmware) is changing flash; wait until it has ended"
    );
    system.assert_nothing_staged();
    system.file("/run/levitate/flash.json", &flash_record("verified"));
    system.levitate(CONFIG).unwrap();
}

#[test]
fn flash_that_is_not_verified_is_warned_about_with_the_command_to_run_again() {
    // of the second one the writer is gone
    for state in ["unverified", "changing"] {
        let mut system = OldSystem::new();
        system.file("/run/levitate/flash.json", &flash_record(state));
        let (_, events) = system.levitate(CONFIG).unwrap();
        let text = "/dev/mtd5 (firmware) was changed and not verified: the device may not boot from it; run again: flashcp fw.bin mtd5";
        assert!(events.contains(&Event::Warning(text.into())), "{events:?}");
    }
}

#[test]
fn two_at_once_do_not_get_in_each_others_way() {
    let mut system = OldSystem::new();
    let held = lock(&system.at("/run")).unwrap();
    assert!(refused(&mut system, CONFIG).starts_with("another levitate is at work"));
    drop(held);
    system.levitate(CONFIG).unwrap();
}

#[test]
fn what_several_packages_share_is_staged_once_whatever_name_each_has_for_it() {
    let staged = |packages: &str| {
        let mut system = OldSystem::new();
        system.program("/opt/tools/start", b"#!/opt/lib/interpreter\n");
        system.program("/opt/tools/again", b"#!/opt/interpreter\n");
        system
            .program("/opt/lib/interpreter", &[&crate::fixture::static_program()[..], &[7; 50_000]].concat());
        system.link("/opt/interpreter", "lib/interpreter");
        fs::hard_link(system.at("/opt/lib/interpreter"), system.at("/opt/lib/other-name")).unwrap();
        system.link("/usr/opt", "/opt");
        let (manifest, _) = system.levitate(&format!("packages = [{packages}]\n{CONFIG}")).unwrap();
        let inode = |name: &str| fs::metadata(system.at("/run/maintenance").join(name)).unwrap().ino();
        assert_eq!(inode("opt/lib/interpreter"), inode("opt/lib/other-name"));
        (manifest.files, manifest.bytes)
    };
    let once = staged(r#"{ directory = "/opt" }"#);
    let often = r#"{ directory = "/opt" }, "/opt/tools/start", { directory = "/usr/opt/lib" }, "/opt/interpreter",
        { directory = "/opt/tools" }, "/opt/lib/other-name", "/usr/opt/tools/again""#;
    assert_eq!(staged(often), once);
}
