//! What was secret in the old system is secret in the staged root, and no name leads out of it.

mod old_system;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use nix::sys::stat::{Mode, umask};
use old_system::{CONFIG, OldSystem};

fn with(line: &str) -> String {
    format!("{line}\n{CONFIG}")
}

#[test]
fn secrets_keep_their_modes_whatever_the_umask_is() {
    // for the whole process; every test here wants to hold under it
    umask(Mode::empty());
    let system = OldSystem::new();
    system.levitate(CONFIG).unwrap();
    for (path, mode) in [
        ("", 0o755),
        ("etc", 0o755),
        ("etc/shadow", 0o600),
        ("etc/passwd", 0o644),
        ("etc/dropbear/dropbear_ed25519_host_key", 0o600),
        ("root", 0o700),
        ("root/.ssh", 0o700),
        ("root/.ssh/authorized_keys", 0o600),
        ("home/ann", 0o700),
        // what a service's script says may be a secret, too
        ("etc/levitate/services", 0o700),
        ("sbin/levitate", 0o755),
        ("sbin/init", 0o755),
        ("tmp", 0o1777),
    ] {
        assert_eq!(system.staged_mode(path), mode, "{path}");
    }
}

#[test]
fn what_lies_in_a_directory_that_is_not_for_everybody_stays_there() {
    let system = OldSystem::new();
    system.file("/opt/private/bin/tool", "#!/bin/sh\n", 0o755);
    system.mode("/opt/private", 0o700);
    system.file("/srv/half/secret", "x", 0o640);
    system.mode("/srv/half", 0o710);
    system.levitate(&with("packages = [\"/opt/private/bin/tool\"]\nfiles = [\"/srv/half/secret\"]")).unwrap();
    assert_eq!(system.staged_mode("opt/private"), 0o700);
    assert_eq!(system.staged_mode("opt/private/bin/tool"), 0o755);
    assert_eq!(system.staged_mode("srv/half"), 0o710);
    assert_eq!(system.staged_mode("srv/half/secret"), 0o640);
}

#[test]
fn set_user_id_bits_are_kept_as_they_are_and_none_is_added() {
    let system = OldSystem::new();
    system.file("/bin/su", "#!/bin/sh\n", 0o4755);
    system.file("/bin/write", "#!/bin/sh\n", 0o2755);
    system.levitate(&with("packages = [\"/bin/su\", \"/bin/write\"]")).unwrap();
    assert_eq!((system.staged_mode("bin/su"), system.staged_mode("bin/write")), (0o4755, 0o2755));
    assert_eq!(system.staged_mode("usr/sbin/dropbear"), 0o755);
}

#[test]
fn a_system_user_whose_home_is_a_directory_of_programs_does_not_get_it() {
    let system = OldSystem::new();
    system.levitate(&format!("{CONFIG}[users.daemon]\n")).unwrap();
    assert_eq!(
        system.staged_mode("usr/sbin"),
        fs::metadata(system.at("/usr/sbin")).unwrap().permissions().mode() & 0o7777
    );
}

#[test]
fn no_name_from_the_configuration_leaves_the_staged_root() {
    let system = OldSystem::new();
    system.file("/data/file", "x", 0o644);
    system.file("/data/deep/file", "y", 0o644);
    system.link("/data/absolute", "/etc/shadow");
    system.link("/data/climbs", "../../../../../../etc/shadow");
    system.link("/etc/alias", "/data/deep");
    let files = "files = [\"/data\", \"/etc/alias/file\", \"/../../data/../data/file\"]";
    system.levitate(&with(files)).unwrap();
    let staged = system.at("/run/maintenance");
    for name in ["data/absolute", "data/climbs", "etc/alias"] {
        let target = fs::read_link(staged.join(name)).unwrap();
        assert!(!target.is_absolute(), "{name} -> {target:?}");
        let leads = fs::canonicalize(staged.join(name)).unwrap();
        assert!(leads.starts_with(fs::canonicalize(&staged).unwrap()), "{name} leads to {leads:?}");
    }
    assert_eq!(system.staged_text("etc/alias/file"), "y");
    for bad in
        ["files = [\"etc\"]", "packages = [{ directory = \"../x\" }]", "[services.\"../x\"]\nrun = [\"a\"]"]
    {
        let parsed = levitate::config::Config::parse(std::path::Path::new("/c"), bad);
        assert!(parsed.is_err(), "{bad}");
    }
}

#[test]
fn a_home_that_climbs_is_staged_inside() {
    let system = OldSystem::new();
    system.file(
        "/etc/passwd",
        "root:x:0:0::/root:/bin/sh\nann:x:1000:100::/../../home/../home/ann:\n",
        0o644,
    );
    system.levitate(CONFIG).unwrap();
    assert_eq!(system.staged_mode("home/ann"), 0o700);
}

#[test]
fn symlinks_that_were_planted_in_run_are_not_followed() {
    let system = OldSystem::new();
    system.file("/elsewhere/precious", "x", 0o644);
    for name in ["maintenance", "maintenance.new", "maintenance.old"] {
        system.link(&format!("/run/{name}"), "../elsewhere");
    }
    system.levitate(CONFIG).unwrap();
    assert!(system.at("/elsewhere/precious").exists());
    assert_eq!(fs::read_dir(system.at("/elsewhere")).unwrap().count(), 1);
    assert!(!fs::symlink_metadata(system.at("/run/maintenance")).unwrap().is_symlink());
    assert_eq!(system.staged_mode("etc/shadow"), 0o600);
}

#[test]
fn the_state_file_is_not_written_through_a_planted_symlink() {
    let system = OldSystem::new();
    system.file("/etc/precious", "x", 0o644);
    system.link("/persist/state.json.new", "../etc/precious");
    system.levitate(&with("state_file = \"/persist/state.json\"")).unwrap();
    assert_eq!(fs::read_to_string(system.at("/etc/precious")).unwrap(), "x");
    assert!(fs::read_to_string(system.at("/persist/state.json")).unwrap().contains("armed"));
}

/// Past libtest's capture, and on the stream that `cargo test-all` counts such lines on.
fn did_not_run(what: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("\nDID NOT RUN: {what}\n").as_bytes());
}

#[test]
fn a_user_cannot_have_a_file_of_roots_copied_by_a_symlink_in_the_place_of_the_keys() {
    let system = OldSystem::new();
    system.link("/home/ann/.ssh/authorized_keys", "/etc/shadow");
    // who may not give files away cannot make what is tested here, nor can ann then
    let given = [system.at("/home/ann"), system.at("/home/ann/.ssh")]
        .iter()
        .all(|dir| chown(dir, Some(1000), Some(100)).is_ok());
    let done = system.levitate(CONFIG);
    if !given {
        did_not_run("a symlink in the place of a user's keys: files cannot be given to other users");
        return done.unwrap();
    }
    let text = done.unwrap_err().to_string();
    assert!(
        text.starts_with("authorized_keys of user ann: /home/ann/.ssh/authorized_keys leads to /etc/shadow"),
        "{text}"
    );
    fs::remove_file(system.at("/home/ann/.ssh/authorized_keys")).unwrap();
    system.file("/home/ann/.ssh/authorized_keys", "ssh-ed25519 AAAA ann\n", 0o600);
    chown(system.at("/home/ann/.ssh/authorized_keys"), Some(1000), Some(100)).unwrap();
    system.levitate(CONFIG).unwrap();
    assert_eq!(system.staged_text("home/ann/.ssh/authorized_keys"), "ssh-ed25519 AAAA ann\n");
}
