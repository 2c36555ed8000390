use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new(CONFIG), text)
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn the_example_is_a_configuration() {
    let config = parse(include_str!("../../levitate.toml.example")).unwrap();
    assert_eq!(config.packages[0], Package::Table { program: "/bin/busybox".into(), links: true });
    assert_eq!(config.packages[1], Package::Name("mtd_debug".into()));
    assert_eq!(config.reserve, Some(32 << 20));
    assert_eq!(config.services["ready"].timeout_up, Some(Millis(5_000)));
    assert_eq!(config.users["root"].shell.as_deref(), Some(Path::new("/bin/sh")));
    assert_eq!(config.handover, HandoverLimits::default());
    assert!(config.banner.contains("LADIES AND GENTLEMEN WE ARE FLOATING IN SPACE\n"));
}

#[test]
fn nothing_at_all_keeps_root_and_the_network() {
    let config = parse("").unwrap();
    assert_eq!(config.users, BTreeMap::from([("root".to_owned(), User::default())]));
    assert!(config.keep.network && config.users["root"].keep);
    assert_eq!(config.lease_ms, Some(15 * 60_000));
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_the_keys_that_there_are() {
    let text = error("packages = []\nfile = []\n");
    assert!(
        text.starts_with(
            "/etc/levitate.toml, line 2: unknown field 'file', expected one of 'packages', 'files'"
        ),
        "{text}"
    );
    let text = error("[services.sshd]\nrun = [\"a\"]\nrestart = true\n");
    assert!(
        text.starts_with("/etc/levitate.toml, line 3: unknown field 'restart', expected one of 'source'"),
        "{text}"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_told_with_an_example_of_a_right_one() {
    let text = error("packages = [7]\n");
    assert_eq!(
        text,
        r#"/etc/levitate.toml, line 1: expected a program such as "/usr/sbin/dropbear" or "mtd_debug", or { program = "/bin/busybox", links = true }"#
    );
    let text = error("\n[services.a]\nrun = 1\n");
    assert!(text.starts_with("/etc/levitate.toml, line 3: expected a command such as ["), "{text}");
    let text = error("reserve = \"lots\"\n");
    assert!(text.contains("line 1") && text.contains(r#"a size such as "32M""#), "{text}");
    let text = error("\nlease = \"never\"\n");
    assert!(text.contains("line 2") && text.contains(r#"such as "15m", "90s", "2h", or "off""#), "{text}");
    assert_eq!(parse("lease = \"off\"").unwrap().lease_ms, None);
    let text = error("[users.root]\nauthorized_keys = 1\n");
    assert!(text.contains("line 2: expected a file such as"), "{text}");
    assert!(error("packages = [").starts_with("/etc/levitate.toml, line 1: "));
}

#[test]
fn keys_that_do_not_go_together_are_told() {
    let line = |text: &str| error(text).split_once(": ").unwrap().1.to_owned();
    assert_eq!(line("[services.a]\nlogin = true"), "service a: a longrun needs run (or source)");
    assert_eq!(
        line("[services.a]\nrun = [\"a\"]\nup = [\"b\"]"),
        "service a: a longrun has no up; it may have run, finish, notification-fd, down-signal, timeout-kill, type, dependencies, timeout-up, timeout-down"
    );
    assert_eq!(line("[services.a]\ntype = \"oneshot\""), "service a: a oneshot needs up or down (or source)");
    assert_eq!(line("[services.a]\ntype = \"bundle\""), "service a: a bundle needs contents");
    assert_eq!(line("[services.a]\nrun = []"), "service a: a command needs at least the program's name");
    assert_eq!(
        line("[services.a]\nsource = \"/s\"\nrun = [\"x\"]"),
        "service a: a service with a source has no run; it may have dependencies"
    );
    assert_eq!(line("files = [\"etc\"]"), "expected a path that begins with /, found \"etc\"");
    assert!(
        line("[services.\"a b\"]\nrun = [\"x\"]").starts_with("service a b: a service's name has no slash")
    );
    assert!(line("[services.a]\nrun = [\"x\"]\ndown-signal = \"NOPE\"").contains("expected a signal"));
    assert!(error("\n\n[services.a]\n").starts_with("/etc/levitate.toml, line 3: "));
}
