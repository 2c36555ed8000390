use super::*;
use crate::fixture::{CONFIG, OldSystem, static_program};
use crate::status::with_sources;

pub(super) fn selected(system: &OldSystem, config: &str) -> Selection {
    let config = OldSystem::config(config);
    select(&config, &system.facts(&config)).unwrap()
}

pub(super) fn refused(system: &OldSystem, config: &str) -> String {
    let config = OldSystem::config(config);
    with_sources(&select(&config, &system.facts(&config)).unwrap_err())
}

pub(super) fn names<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<&'a str> {
    paths.into_iter().map(|p| p.to_str().unwrap()).collect()
}

#[test]
fn a_services_program_its_shell_and_the_host_key_come_without_being_named() {
    let selected = selected(&OldSystem::new(), CONFIG);
    assert_eq!(names(&selected.closure.files), ["/bin/busybox", "/usr/sbin/dropbear"]);
    assert_eq!(names(selected.closure.links.iter().map(|l| &l.at)), ["/bin/sh"]);
    assert_eq!(names(&selected.host_keys), ["/etc/dropbear/dropbear_ed25519_host_key"]);
    assert_eq!(selected.can_log_in, ["root"]);
    assert_eq!(names(&selected.shells), ["/bin/sh"]);
    let services: Vec<_> = selected.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(services, ["sshd", "default"]);
}

#[test]
fn applets_come_along_only_where_they_are_asked_for() {
    let system = OldSystem::new();
    system.link("/usr/bin/vi", "/bin/busybox");
    system.link("/usr/bin/other", "/usr/sbin/dropbear");
    assert!(selected(&system, CONFIG).applets.is_empty());
    let with = format!("packages = [{{ program = \"/bin/busybox\", links = true }}]\n{CONFIG}");
    let selected = selected(&system, &with);
    assert_eq!(names(selected.applets.iter().map(|l| &l.at)), ["/bin/sh", "/sbin/reboot", "/usr/bin/vi"]);
}

#[test]
fn a_missing_program_is_refused_by_name_and_with_the_service_that_wants_it() {
    let system = OldSystem::new();
    let with = |line: &str| format!("{line}\n{CONFIG}");
    let text = refused(&system, &with("packages = [\"wombat\"]"));
    assert!(text.starts_with("cannot stage a program: wombat: no such program in "), "{text}");
    let text = refused(&system, &with("packages = [\"/sbin/wombat\"]"));
    assert_eq!(text, "cannot stage a program: /sbin/wombat: no such program");
    let text = refused(&system, &format!("{CONFIG}[services.web]\nrun = [\"/bin/webd\"]"));
    assert_eq!(text, "cannot stage service web: /bin/webd: no such program");
    let text = refused(&system, &format!("{CONFIG}[services.web]\nrun = \"#!/bin/bash\\n\""));
    assert_eq!(text, "cannot stage service web: /bin/bash: no such program");
    let text = refused(&system, &format!("{CONFIG}[users.root]\nshell = \"/bin/zsh\""));
    assert_eq!(text, "cannot stage the shell of user root: /bin/zsh: no such program");
}

#[test]
fn a_missing_library_is_refused_by_name() {
    let system = OldSystem::new();
    // this test's own program is linked dynamically
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    system.program("/usr/sbin/dynamic", &own);
    let text = refused(&system, &format!("packages = [\"dynamic\"]\n{CONFIG}"));
    assert!(text.contains("/usr/sbin/dynamic: its dynamic linker /lib"), "{text}");
    let linker = text.split(' ').find(|w| w.starts_with("/lib")).unwrap();
    system.program(linker, &static_program());
    let text = refused(&system, &format!("packages = [\"dynamic\"]\n{CONFIG}"));
    assert!(text.contains("/usr/sbin/dynamic: library lib"), "{text}");
    assert!(text.contains("needed by /usr/sbin/dynamic, not found in /lib"), "{text}");
}

#[test]
fn a_root_that_nobody_could_log_into_is_refused_with_the_reason() {
    let system = OldSystem::new();
    let text = refused(&system, "keep = { network = false }");
    assert!(text.starts_with("nobody could log in: no service is configured; add"), "{text}");
    let ntpd = "[keep]\nnetwork = false\n[services.ntpd]\nrun = [\"/bin/busybox\"]\n";
    let text = refused(&system, ntpd);
    assert!(text.starts_with("nobody could log in: none of the services (ntpd) is one to log in"), "{text}");
    let text = refused(&system, &format!("{CONFIG}login = false\n"));
    assert!(text.contains("none of the services (sshd)"), "{text}");
    assert_eq!(selected(&system, &format!("{ntpd}login = true\n")).can_log_in, ["root"]);

    let text = refused(&system, &format!("{CONFIG}[users.ann]\n"));
    assert_eq!(text, "nobody could log in: user ann has the shell /bin/false");
    assert_eq!(selected(&system, &format!("{CONFIG}[users.ann]\nshell = \"/bin/sh\"\n")).can_log_in, ["ann"]);
    let text = refused(&system, &format!("{CONFIG}[users.root]\nkeep = false\n"));
    assert_eq!(text, "nobody could log in: user root has neither an authorized key nor a password");
    std::fs::remove_file(system.at("/root/.ssh/authorized_keys")).unwrap();
    assert_eq!(refused(&system, CONFIG), text);
    let keyed = format!("{CONFIG}[users.root]\nauthorized_keys = [\"ssh-ed25519 AAAA me\"]\n");
    assert_eq!(selected(&system, &keyed).can_log_in, ["root"]);
    let text = refused(&system, &format!("{CONFIG}[users]\n"));
    assert_eq!(text, "nobody could log in: no user is kept");
    assert_eq!(refused(&system, &format!("{CONFIG}[users.bob]\n")), "user bob: no such user in /etc/passwd");
}

#[test]
fn a_login_service_that_is_not_started_is_no_way_in() {
    let text = refused(
        &OldSystem::new(),
        &format!("{CONFIG}[services.default]\ntype = \"bundle\"\ncontents = []\n"),
    );
    assert!(text.contains("none of the services (default, sshd)"), "{text}");
}

#[test]
fn an_ssh_server_without_a_host_key_is_refused_unless_it_makes_one() {
    let system = OldSystem::new();
    std::fs::remove_file(system.at("/persist/dropbear/dropbear_ed25519_host_key")).unwrap();
    let text = refused(&system, CONFIG);
    assert!(
        text.starts_with("nobody could log in: service sshd has no host key: none is in /etc/dropbear"),
        "{text}"
    );
    let makes_one = CONFIG.replace("\"-F\"", "\"-F\", \"-R\"");
    assert!(selected(&system, &makes_one).host_keys.is_empty());
    system.file("/data/key", "key");
    let named = CONFIG.replace("\"-F\"", "\"-F\", \"-r\", \"/data/key\"");
    assert_eq!(names(&selected(&system, &named).host_keys), ["/data/key"]);
}

#[test]
fn services_that_do_not_fit_together_are_refused_with_the_file() {
    let text =
        refused(&OldSystem::new(), &format!("{CONFIG}[services.ntpd]\nsource = \"/etc/s6-rc/ntpd\"\n"));
    assert_eq!(text, "cannot stage service ntpd: its source /etc/s6-rc/ntpd does not exist");
}

#[test]
fn a_service_of_the_old_system_brings_its_interpreter() {
    let system = OldSystem::new();
    system.program("/usr/bin/execlineb", &static_program());
    system.file("/etc/s6-rc/ntpd/type", "longrun\n");
    system.file("/etc/s6-rc/ntpd/run", "#!/usr/bin/execlineb -P\nntpd\n");
    system.file("/etc/s6-rc/ntpd/dependencies", "mounts\n");
    let ntpd = format!("{CONFIG}[services.ntpd]\nsource = \"/etc/s6-rc/ntpd\"\n");
    assert!(refused(&system, &ntpd).contains("names mounts, which does not exist"));
    let selected = selected(&system, &format!("{ntpd}dependencies = []\n"));
    assert!(names(&selected.closure.files).contains(&"/usr/bin/execlineb"));
}

#[test]
fn files_that_the_maintenance_root_would_hide_are_refused() {
    let system = OldSystem::new();
    system.file("/proc/config", "");
    let text = refused(&system, &format!("files = [\"/proc/config\"]\n{CONFIG}"));
    assert_eq!(text, "cannot stage /proc/config: /proc is made anew in the maintenance root");
    let text = refused(&system, &format!("files = [\"/etc/none\"]\n{CONFIG}"));
    assert_eq!(text, "/etc/none: /etc/none does not exist");
}

#[test]
fn the_reserve_is_the_largest_partition_that_can_be_written() {
    let system = OldSystem::new();
    let without = CONFIG.replace("reserve = \"1M\"\n", "");
    assert_eq!(selected(&system, &without).reserve.bytes, 0);
    system.file("/proc/mtd", "dev:    size   erasesize  name\nmtd0: 00900000 00010000 \"boot\"\nmtd3: 00800000 00010000 \"firmware\"\n");
    system.file("/sys/class/mtd/mtd0/flags", "0x0\n");
    system.file("/sys/class/mtd/mtd3/flags", "0xc00\n");
    let reserve = selected(&system, &without).reserve;
    assert_eq!(reserve, Reserve { bytes: 8 << 20, from: "the size of mtd3 \"firmware\"".into() });
}

#[test]
fn of_equally_large_partitions_the_first_names_the_reserve() {
    let system = OldSystem::new();
    system.file("/proc/mtd", "dev:    size   erasesize  name\nmtd2: 00800000 00010000 \"firmware\"\nmtd5: 00800000 00010000 \"data\"\n");
    for device in ["mtd2", "mtd5"] {
        system.file(&format!("/sys/class/mtd/{device}/flags"), "0xc00\n");
    }
    let without = CONFIG.replace("reserve = \"1M\"\n", "");
    assert_eq!(selected(&system, &without).reserve.from, "the size of mtd2 \"firmware\"");
}

#[test]
fn an_ssh_server_that_would_go_into_the_background_is_warned_about() {
    let warnings = selected(&OldSystem::new(), &CONFIG.replace("\"-F\"", "\"-E\"")).warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("service sshd: its ssh server goes into the background"), "{warnings:?}");
}

/// Root with a password and no key.
fn with_a_password() -> OldSystem {
    let system = OldSystem::new();
    std::fs::remove_file(system.at("/root/.ssh/authorized_keys")).unwrap();
    system.file("/etc/shadow", "root:$6$salt$hash:19000::::::\nann:$6$salt$hash:19000::::::\n");
    system
}

fn dropbear(options: &str) -> String {
    let words: Vec<String> = options.split(' ').map(|o| format!("\"{o}\"")).collect();
    CONFIG.replace("\"-F\"", &words.join(", "))
}

#[test]
fn a_password_is_no_way_in_where_the_ssh_server_takes_none() {
    let system = with_a_password();
    assert_eq!(selected(&system, &dropbear("-F")).can_log_in, ["root"]);
    let reason =
        "nobody could log in: user root has a password and no authorized key, but service sshd takes no";
    for options in ["-F -s", "-FEs", "-Fp 22 -s"] {
        let text = refused(&system, &dropbear(options));
        assert_eq!(text, format!("{reason} passwords (-s)"), "{options}");
    }
    assert_eq!(refused(&system, &dropbear("-FEg")), format!("{reason} password from root (-g)"));
    // the value of another option is none
    assert_eq!(selected(&system, &dropbear("-F -P/run/sgw")).can_log_in, ["root"]);
    let script = CONFIG.replace(
        "[\"/usr/sbin/dropbear\", \"-F\"]",
        "\"#!/bin/sh\\n[ -s /etc/dropbear ] || exit\\nexec dropbear -F\\n\"",
    );
    assert_eq!(selected(&system, &script).can_log_in, ["root"]);
    let ann = "[users.root]\n[users.ann]\nshell = \"/bin/sh\"\n";
    assert_eq!(selected(&system, &format!("{}{ann}", dropbear("-Fg"))).can_log_in, ["ann"]);
    let console = "[services.console]\nrun = [\"/sbin/getty\", \"115200\"]\n";
    system.program("/sbin/getty", &static_program());
    assert_eq!(selected(&system, &format!("{}{console}", dropbear("-Fs"))).can_log_in, ["root"]);
}

#[test]
fn root_is_not_let_in_by_a_dropbear_without_root_logins_whatever_keys_it_has() {
    let text = refused(&OldSystem::new(), &dropbear("-Fw"));
    assert_eq!(
        text,
        "nobody could log in: user root has an authorized key, but service sshd does not let root in (-w)"
    );
    assert_eq!(selected(&OldSystem::new(), &dropbear("-Fsg")).can_log_in, ["root"]);
}

#[test]
fn a_password_is_no_way_in_where_sshd_is_set_to_take_none() {
    let system = with_a_password();
    system.program("/usr/sbin/sshd", &static_program());
    system.file("/etc/ssh/ssh_host_ed25519_key", "key");
    system.file("/etc/ssh/sshd_config", "");
    let sshd = |more: &str| {
        CONFIG.replace("\"/usr/sbin/dropbear\", \"-F\"", &format!("\"/usr/sbin/sshd\", \"-D\"{more}"))
    };
    let reason =
        "nobody could log in: user root has a password and no authorized key, but service sshd takes no";
    // OpenSSH's default
    let text = refused(&system, &sshd(""));
    assert_eq!(text, format!("{reason} password from root (PermitRootLogin prohibit-password)"));
    system.file("/etc/ssh/sshd_config", "Include sshd_config.d/*.conf\nPermitRootLogin=yes\n");
    assert_eq!(selected(&system, &sshd("")).can_log_in, ["root"]);
    let none = format!("{reason} passwords (PasswordAuthentication no)");
    assert_eq!(refused(&system, &sshd(", \"-o\", \"PasswordAuthentication=no\"")), none);
    assert_eq!(refused(&system, &sshd(", \"-oPasswordAuthentication no\"")), none);
    system.file("/etc/ssh/sshd_config.d/10-keys.conf", "# keys only\npasswordauthentication \"no\"\n");
    assert_eq!(refused(&system, &sshd("")), none);
    // asked through PAM, or for some connections only
    system.file("/etc/ssh/sshd_config.d/20.conf", "UsePAM yes\n");
    assert_eq!(selected(&system, &sshd("")).can_log_in, ["root"]);
    system.file("/etc/ssh/sshd_config.d/20.conf", "Match Address 10.0.0.0/8\nPasswordAuthentication yes\n");
    assert_eq!(selected(&system, &sshd("")).can_log_in, ["root"]);
}

#[test]
fn a_server_whose_named_host_keys_are_all_missing_is_refused_although_others_exist() {
    let system = OldSystem::new();
    let text = refused(&system, &dropbear("-F -r /data/a -r/data/b"));
    assert_eq!(
        text,
        "cannot stage service sshd: of the host keys that its ssh server is told to use none exists: /data/a, /data/b"
    );
    selected(&system, &dropbear("-FRr /data/a"));
    system.file("/data/b", "key");
    assert!(names(&selected(&system, &dropbear("-F -r /data/a -r/data/b")).host_keys).contains(&"/data/b"));
    system.program("/usr/sbin/sshd", &static_program());
    system.file("/etc/ssh/sshd_config", "");
    let sshd = CONFIG.replace("\"/usr/sbin/dropbear\", \"-F\"", "\"/usr/sbin/sshd\", \"-Dh\", \"/data/c\"");
    assert!(refused(&system, &sshd).ends_with("none exists: /data/c"));
    system.file("/etc/ssh/sshd_config", "HostKey /data/d\n");
    assert!(refused(&system, &sshd).ends_with("none exists: /data/c, /data/d"));
    let made = "[services.keys]\ntype = \"oneshot\"\nup = \"dropbearkey -t ed25519 -f /data/a\"\n";
    selected(&system, &format!("{}{made}", dropbear("-F -r /data/a")));
}

#[test]
fn the_login_services_are_named_for_the_lease_and_one_that_is_off_or_short_is_warned_of() {
    let with = |lease: &str| {
        let text = format!(
            "{lease}{CONFIG}[services.clock]\nrun = [\"/usr/sbin/dropbear\"]\nlogin = false\n\
                     [services.door]\nrun = [\"console-login\"]\n"
        );
        selected(&OldSystem::new(), &text)
    };
    let lease = |text: &str| {
        let found = with(text);
        assert_eq!(found.ways_in, ["door", "sshd"]);
        found.warnings.iter().find(|w| w.starts_with("the lease is")).cloned()
    };
    assert_eq!(lease(""), None);
    assert_eq!(
        lease("lease = \"off\"\n").unwrap(),
        "the lease is off: a maintenance root into which nobody gets stays until the power is cut"
    );
    assert_eq!(
        lease("lease = \"20s\"\n").unwrap(),
        "the lease is 20 s: that is all the time there is to log in"
    );
}

#[test]
fn whole_directories_and_listed_store_paths_come_with_what_their_programs_need_from_elsewhere() {
    let system = OldSystem::new();
    system.program("/nix/store/a-tool/bin/tool", b"#!/nix/store/b-shell/bin/sh\n");
    system.program("/nix/store/b-shell/bin/sh", &static_program());
    system.file("/nix/store/b-shell/share/notes", "plain");
    system.file("/etc/nix-store-paths", "/nix/store/a-tool\n\n/nix/store/b-shell\n");
    system.program("/opt/tools/start", b"#!/usr/bin/python9\n");
    system.program("/usr/bin/python9", &static_program());
    system.program("/opt/tools/broken", b"#!/usr/bin/nosuch\n");
    let packages = "packages = [{ closure = \"/etc/nix-store-paths\" }, { directory = \"/opt/tools\" }]\n";
    let selected = selected(&system, &format!("{packages}{CONFIG}"));
    assert_eq!(names(&selected.files), ["/nix/store/a-tool", "/nix/store/b-shell", "/opt/tools"]);
    let programs = names(&selected.programs);
    for name in
        ["/nix/store/a-tool/bin/tool", "/nix/store/b-shell/bin/sh", "/opt/tools/start", "/bin/busybox"]
    {
        assert!(programs.contains(&name), "{name}: {programs:?}");
    }
    assert!(names(&selected.closure.files).contains(&"/usr/bin/python9"));
    assert_eq!(
        selected.warnings,
        [
            "/usr/bin/nosuch: no such program (needed by /opt/tools/broken): it will not run in the maintenance root"
        ]
    );

    system.file("/etc/nix-store-paths", "/nix/store/a-tool\nnix/store/b-shell\n");
    assert_eq!(
        refused(&system, &format!("{packages}{CONFIG}")),
        "/etc/nix-store-paths, line 2: expected a path that begins with /, found \"nix/store/b-shell\""
    );
    system.file("/etc/nix-store-paths", "\n");
    assert_eq!(
        refused(&system, &format!("{packages}{CONFIG}")),
        "cannot stage the closure that /etc/nix-store-paths lists: it names no path"
    );
    let text = refused(&system, &format!("packages = [{{ directory = \"/opt/tools/start\" }}]\n{CONFIG}"));
    assert_eq!(text, "cannot stage /opt/tools/start as a directory: it is a file");
}

#[test]
fn groups_the_sftp_server_and_scp_come_when_they_are_asked_for() {
    let system = OldSystem::new();
    system.file("/etc/group", "root:x:0:\nusers:x:100:\ndialout:x:20:ann\nwheel:x:10:root\n");
    let plain = CONFIG.replace("network = false", "network = false\nsftp = true");
    let text = refused(&system, &plain);
    assert!(text.starts_with("cannot stage the sftp server: it is none of /usr/lib/sftp-server, "), "{text}");
    system.program("/usr/lib/openssh/sftp-server", &static_program());
    system.link("/usr/lib/sftp-server", "openssh/sftp-server");
    let found = selected(&system, &plain);
    assert!(names(&found.programs).contains(&"/usr/lib/openssh/sftp-server"));
    assert!(found.closure.links.iter().any(|l| l.at == Path::new("/usr/lib/sftp-server")));
    assert_eq!(found.accounts.group_text(), "root:x:0:\nwheel:x:10:root\n");

    let scp = CONFIG.replace("network = false", "network = false\nscp = true");
    assert!(refused(&system, &scp).starts_with("cannot stage a program: scp: no such program in "));
    system.program("/usr/bin/scp", &static_program());
    assert!(names(&selected(&system, &scp).programs).contains(&"/usr/bin/scp"));

    let groups = format!("{CONFIG}[groups.dialout]\n[groups.wheel]\nkeep = false\n");
    assert_eq!(selected(&system, &groups).accounts.group_text(), "root:x:0:\ndialout:x:20:\n");
    let text = refused(&system, &format!("{CONFIG}[groups.emus]\n"));
    assert_eq!(text, "group emus: no such group in /etc/group");
}

#[test]
fn a_library_that_is_opened_by_name_is_staged_or_refused_by_name() {
    let system = OldSystem::new();
    let text = refused(&system, &format!("libraries = [\"pam_none.so\"]\n{CONFIG}"));
    assert!(
        text.starts_with(
            "cannot stage a library of the configuration's list: library pam_none.so: not found in "
        ),
        "{text}"
    );
}

#[test]
fn what_a_controller_starts_and_what_needs_that_is_not_started_at_boot() {
    let controlled = format!(
        "{CONFIG}[services.plug]\nrun = [\"uevent-rule\", \"--service\", \"modem\", \"subsystem=tty\"]\n\
         [services.modem]\nrun = \"exec busybox sleep 1\"\ncontrolled-by = \"plug\"\n\
         [services.wan]\nrun = \"exec busybox sleep 1\"\ndependencies = [\"modem\"]\n"
    );
    let selected = selected(&OldSystem::new(), &controlled);
    let default = selected.services.iter().find(|service| service.name == "default").unwrap();
    let ramdisk::service::Kind::Bundle { contents } = &default.kind else { panic!("{default:?}") };
    assert_eq!(contents.iter().map(String::as_str).collect::<Vec<_>>(), ["plug", "sshd"]);
    // The controllers come with levitate itself: none is looked for in the old system.
    assert!(!names(&selected.closure.files).iter().any(|file| file.contains("uevent")));
}
