//! What comes along with OpenSSH's server, and whom it would turn away.

use std::path::Path;

use super::tests::{names, refused, selected};
use super::*;
use crate::fixture::{CONFIG, OldSystem, static_program};

/// Debian's, but for the comments.
const DEBIAN: &str = "Include /etc/ssh/sshd_config.d/*.conf\nKbdInteractiveAuthentication no\nUsePAM yes\n\
    X11Forwarding yes\nPrintMotd no\nAcceptEnv LANG LC_*\nSubsystem\tsftp\t/usr/lib/openssh/sftp-server\n";

fn sshd() -> String {
    CONFIG.replace("\"/usr/sbin/dropbear\", \"-F\"", "\"/usr/sbin/sshd\", \"-D\", \"-e\"")
}

/// A system whose server is OpenSSH with `settings`, as Debian has it.
fn with_openssh(settings: &str) -> OldSystem {
    let system = OldSystem::new();
    system.program("/usr/sbin/sshd", &static_program());
    system.file("/etc/ssh/sshd_config", settings);
    system.file("/etc/ssh/ssh_host_ed25519_key", "a host key");
    let passwd = std::fs::read_to_string(system.at("/etc/passwd")).unwrap();
    system.file("/etc/passwd", &format!("{passwd}sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"));
    std::fs::create_dir_all(system.at("/run/sshd")).unwrap();
    system
}

#[test]
fn what_openssh_opens_by_name_comes_without_being_named() {
    let system = with_openssh(DEBIAN);
    system.file("/etc/ssh/sshd_config.d/10-site.conf", "RevokedKeys /etc/ssh/revoked\nBanner none\n");
    system.file("/etc/ssh/revoked", "");
    system.file("/etc/hosts.deny", "ALL: 192.0.2.0/24\n");
    system.program("/usr/lib/openssh/sshd-session", &static_program());
    system.file(
        "/etc/pam.d/sshd",
        "@include common-auth\nauth required pam_env.so envfile=/etc/default/locale\n",
    );
    system.file("/etc/pam.d/common-auth", "auth sufficient pam_unix.so \\\n nullok\n");
    system.file("/etc/pam.d/other", "auth required pam_deny.so\n");
    system.file("/etc/pam.d/login", "auth required pam_securetty.so\n");
    system.file("/etc/security/limits.conf", "");
    system.file("/etc/default/locale", "LANG=C\n");
    let found = selected(&system, &sshd());
    assert_eq!(
        names(&found.files),
        [
            "/etc/default/locale",
            "/etc/hosts.deny",
            "/etc/pam.d/common-auth",
            "/etc/pam.d/other",
            "/etc/pam.d/sshd",
            "/etc/security",
            "/etc/ssh/revoked",
            "/etc/ssh/sshd_config",
            "/etc/ssh/sshd_config.d/10-site.conf",
        ]
    );
    assert!(names(&found.closure.files).contains(&"/usr/lib/openssh/sshd-session"));
    assert_eq!(names(&found.empty), ["/run/sshd"]);
    assert_eq!(
        names(&found.host_keys),
        ["/etc/dropbear/dropbear_ed25519_host_key", "/etc/ssh/ssh_host_ed25519_key"]
    );
    let users: Vec<_> = found.accounts.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(users, ["root", "sshd"]);
    assert_eq!(found.can_log_in, ["root"]);
    // this system's programs are static and have no modules
    let missing =
        |name: &str| found.warnings.iter().any(|w| w.starts_with(&format!("PAM's module {name}, ")));
    assert!(missing("pam_unix.so") && missing("pam_deny.so") && !missing("pam_securetty.so"));
}

#[test]
fn without_pam_and_with_another_server_none_of_it_comes() {
    let system = with_openssh("UsePAM no\n");
    system.file("/etc/pam.d/sshd", "auth required pam_unix.so\n");
    assert_eq!(names(&selected(&system, &sshd()).files), ["/etc/ssh/sshd_config"]);
    let other = selected(&system, CONFIG);
    assert!(other.files.is_empty() && other.empty.is_empty() && other.accounts.user("sshd").is_none());
}

#[test]
fn the_empty_directory_is_roots_although_it_is_the_home_of_a_user() {
    let system = with_openssh(DEBIAN);
    // as on a build machine, where nothing has made it
    std::fs::remove_dir(system.at("/run/sshd")).unwrap();
    for users in ["", "[users.root]\n[users.sshd]\n"] {
        let config = OldSystem::config(&format!("{}{users}", sshd()));
        let facts = system.facts(&config);
        let found = select(&config, &facts).unwrap();
        let plan = crate::plan::plan(&config, &facts, &found).unwrap();
        let Some(ramdisk::tree::Node::Directory(meta)) = plan.tree.get(Path::new("/run/sshd")) else {
            panic!("{users}: no directory /run/sshd");
        };
        assert_eq!((meta.uid, meta.gid, meta.mode), (0, 0, 0o755), "{users}");
    }
}

#[test]
fn a_server_that_would_not_start_is_refused() {
    let system = with_openssh(DEBIAN);
    let text = refused(&system, &sshd().replace("/usr/sbin/sshd", "sshd"));
    assert!(text.starts_with("nobody could log in: service sshd starts sshd by its name alone"), "{text}");
    let text = refused(&system, &sshd().replace("\"-e\"", "\"-f\", \"/data/sshd_config\""));
    assert_eq!(text, "nobody could log in: the settings of service sshd do not exist: /data/sshd_config");
    // dropbear's key is none of OpenSSH's
    std::fs::remove_file(system.at("/etc/ssh/ssh_host_ed25519_key")).unwrap();
    let text = refused(&system, &sshd());
    assert!(text.starts_with("cannot stage service sshd: of the host keys that its ssh server"), "{text}");
    assert!(text.ends_with("/etc/ssh/ssh_host_ecdsa_key, /etc/ssh/ssh_host_ed25519_key"), "{text}");
}

#[test]
fn a_key_is_no_way_in_where_sshd_is_set_to_look_elsewhere_or_at_nobodys() {
    let reason = |settings: &str| {
        let text = refused(&with_openssh(settings), &sshd());
        let start = "nobody could log in: user root has an authorized key, but service sshd ";
        text.strip_prefix(start).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert_eq!(reason("PubkeyAuthentication no\n"), "takes no keys (PubkeyAuthentication no)");
    assert_eq!(
        reason("AuthorizedKeysFile /etc/ssh/keys/%u\n"),
        "looks for keys in /etc/ssh/keys/%u and not in ~/.ssh/authorized_keys, where they are staged \
         (AuthorizedKeysFile)"
    );
    assert_eq!(reason("PermitRootLogin no\n"), "does not let root in (PermitRootLogin no)");
    assert_eq!(
        reason("AllowUsers ann\nAllowUsers bob@10.*\n"),
        "does not let root in (AllowUsers ann bob@10.*)"
    );
    assert_eq!(reason("DenyUsers r*t\n"), "does not let root in (DenyUsers r*t)");
    assert_eq!(reason("AllowGroups users\n"), "does not let root in (AllowGroups users)");
    for open in [
        "AuthorizedKeysFile .ssh/keys %h/.ssh/authorized_keys\n",
        "AllowUsers root@192.168.*\nAllowGroups root\nDenyUsers root@10.0.0.1\n",
        "PubkeyAuthentication yes\n",
    ] {
        assert_eq!(selected(&with_openssh(open), &sshd()).can_log_in, ["root"], "{open}");
    }
}

#[test]
fn a_locked_account_is_let_in_by_pam_alone() {
    let locked = |settings: &str| {
        let system = with_openssh(settings);
        system.file("/etc/shadow", "root:!:19000::::::\n");
        system
    };
    let text = refused(&locked("UsePAM no\n"), &sshd());
    assert!(
        text.contains("does not let root in, whose password is locked by a ! (without UsePAM yes)"),
        "{text}"
    );
    assert_eq!(selected(&locked(DEBIAN), &sshd()).can_log_in, ["root"]);
    // dropbear does not ask
    assert_eq!(selected(&locked(""), CONFIG).can_log_in, ["root"]);
}

#[test]
fn a_server_with_its_sftp_built_in_needs_no_program_for_it() {
    let sftp = sshd().replace("network = false", "network = false\nsftp = true");
    let text = refused(&with_openssh(DEBIAN), &sftp);
    assert!(text.starts_with("cannot stage the sftp server: it is none of "), "{text}");
    selected(&with_openssh("Subsystem sftp internal-sftp\n"), &sftp);
}

#[test]
fn what_a_match_includes_is_staged_and_says_nothing_about_everybody() {
    let system = with_openssh("Match User ann\nInclude /etc/ssh/ann.conf\nPermitRootLogin no\n");
    system.file("/etc/ssh/ann.conf", "PubkeyAuthentication no\n");
    let found = selected(&system, &sshd());
    assert_eq!(names(&found.files), ["/etc/ssh/ann.conf", "/etc/ssh/sshd_config"]);
    assert_eq!(found.can_log_in, ["root"]);
}
