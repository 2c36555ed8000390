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
    assert_eq!(config.packages[0], Package::Program { program: "/bin/busybox".into(), links: true });
    assert_eq!(config.packages[1], Package::Program { program: "mtd_debug".into(), links: false });
    assert_eq!(config.packages[2], Package::Directory("/opt/tools".into()));
    assert_eq!(config.packages[3], Package::Closure("/etc/nix-store-paths".into()));
    assert_eq!((config.libraries[0].as_str(), config.lease), ("pam_unix.so", Some(900_000)));
    assert_eq!(config.lease_unverified, Some(86_400_000));
    assert!(config.groups["dialout"].keep && config.keep.sftp && !config.keep.scp);
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
    assert_eq!((config.lease, config.lease_unverified), (Some(15 * 60_000), Some(24 * 60 * 60_000)));
    let shorter = parse("lease_unverified = \"1h\"\n").unwrap();
    assert_eq!((shorter.lease, shorter.lease_unverified), (Some(15 * 60_000), Some(60 * 60_000)));
    assert_eq!(parse("lease_unverified = \"off\"\n").unwrap().lease_unverified, None);
}

#[test]
fn an_unknown_key_is_told_with_its_line_the_nearest_key_and_the_keys_that_there_are() {
    assert_eq!(
        error("packages = []\nfile = []\n"),
        "/etc/levitate.toml, line 2: unknown key \"file\", did you mean \"files\"?; known here: packages, libraries, \
         files, banner, reserve, state_file, lease, lease_unverified, services, users, groups, keep, handover"
    );
    for (text, line, words) in [
        (
            "[services.sshd]\nrun = [\"a\"]\nrestart = true\n",
            3,
            "unknown key \"restart\"; known here: source",
        ),
        ("[services.sshd]\nrun = [\"a\"]\nnotification_fd = 3\n", 3, "did you mean \"notification-fd\"?"),
        ("[services.sshd]\ntype = \"longrum\"\n", 2, "did you mean \"longrun\"?"),
        ("[user.root]\n", 1, "did you mean \"users\"?"),
        (
            "[users.root]\npasswd = true\n",
            2,
            "unknown key \"passwd\"; known here: keep, authorized_keys, shell",
        ),
        ("[groups.a]\nkep = true\n", 2, "did you mean \"keep\"?"),
        ("[keep]\nhost-keys = []\n", 2, "did you mean \"host_keys\"?"),
        ("[handover]\nterm_grace = 1\n", 2, "did you mean \"term-grace\"?"),
        ("packages = [\n  \"a\",\n  { program = \"b\", link = true },\n]\n", 3, "did you mean \"links\"?"),
    ] {
        let told = error(text);
        assert!(told.starts_with(&format!("/etc/levitate.toml, line {line}: ")), "{told}");
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn deadlines_that_no_hand_over_could_keep_are_refused_with_their_line() {
    // a number without a unit is one of milliseconds
    assert_eq!(
        error("[handover]\nwhole = 90\n"),
        "/etc/levitate.toml, line 2: whole: expected at least 10000 ms, found 90 ms"
    );
    assert_eq!(
        error("[handover]\nwhole = \"20s\"\n\nterm-grace = \"15s\"\n"),
        "/etc/levitate.toml, line 4: term-grace: expected at least 0 ms and at most 10000 ms, found 15000 ms"
    );
    for call in ["20", "\"91s\""] {
        let text = error(&format!("[handover]\ncall = {call}\n"));
        assert!(
            text.starts_with("/etc/levitate.toml, line 2: call: expected at least 100 ms and at most"),
            "{text}"
        );
    }
    let short = parse("[handover]\nwhole = \"10s\"\nterm-grace = \"500ms\"\n").unwrap().handover;
    assert_eq!((short.whole_ms, short.term_grace_ms, short.call_ms), (10_000, 500, 10_000));
    assert_eq!(short.shutdown_ms, 300_000);
    assert_eq!(parse("[handover]\nshutdown = \"20m\"\n").unwrap().handover.shutdown_ms, 1_200_000);
    assert_eq!(
        error("[handover]\nshutdown = \"1s\"\n"),
        "/etc/levitate.toml, line 2: shutdown: expected at least 5000 ms, found 1000 ms"
    );
}

#[test]
fn controllers_and_the_ends_of_pipes_are_looked_up_and_told_where_they_are_written() {
    let with = |of_a: &str, of_b: &str| {
        parse(&format!("[services.app]\nrun = [\"app\"]\n{of_a}\n[services.logger]\n{of_b}\n")).map(drop)
    };
    let log = "run = [\"x\"]\nconsumer-for = [\"app\"]";
    assert!(with("producer-for = \"logger\"", log).is_ok());
    assert!(with("controlled-by = \"logger\"", "run = [\"x\"]").is_ok());
    // what a source directory says is looked at when it is read
    assert!(with("producer-for = \"logger\"", "source = \"/etc/s6/logger\"").is_ok());
    assert!(with("consumer-for = [\"logger\"]", "source = \"/etc/s6/logger\"").is_ok());
    for (of_a, of_b, line, words) in [
        (
            "controlled-by = \"loger\"",
            "run = [\"x\"]",
            3,
            r#"service app names "loger" in controlled-by, which is not defined, did you mean "logger"?"#,
        ),
        (
            "dependencies = [\"logger\"]\nproducer-for = \"logge\"",
            "run = [\"x\"]",
            4,
            r#"service app names "logge" in producer-for, which is not defined, did you mean "logger"?"#,
        ),
        (
            "consumer-for = [\n  \"nobody\",\n]",
            "run = [\"x\"]",
            4,
            r#"service app names "nobody" in consumer-for, which is not defined"#,
        ),
        (
            "controlled-by = \"logger\"",
            "type = \"oneshot\"\nup = [\"x\"]",
            3,
            r#"service app names "logger" in controlled-by: expected a longrun, found a oneshot"#,
        ),
        (
            "dependencies = [\"logger\"]\nproducer-for = \"logger\"",
            "run = [\"x\"]",
            4,
            r#"service app names "logger" in producer-for, and logger does not name it: its consumer-for is to say "app""#,
        ),
        (
            "controlled-by = \"logger\"",
            "run = [\"x\"]\ndependencies = [\"app\"]",
            3,
            "service app waits for itself: app -> logger -> app; take one of these dependencies away",
        ),
        (
            "controlled-by = \"logger\"",
            "run = [\"x\"]\n[services.default]\ntype = \"bundle\"\ncontents = [\"app\"]",
            3,
            "service app is started by logger alone, and the bundle default reaches it: default -> app; \
             take one of these names out",
        ),
        (
            "producer-for = \"logger\"\n",
            "run = [\"x\"]\nconsumer-for = [\"app\"]\npipeline-name = \"app\"",
            8,
            r#"pipeline-name = "app": another service has that name"#,
        ),
    ] {
        let told = with(of_a, of_b).unwrap_err().to_string();
        assert_eq!(told, format!("/etc/levitate.toml, line {line}: {words}"));
    }
}

#[test]
fn a_dependency_that_is_not_there_and_a_cycle_are_told_where_they_are_written() {
    let with = |a: &str, b: &str| {
        let service = |name: &str, needs: &str| {
            format!("[services.{name}]\nrun = [\"x\"]\n# needs\ndependencies = [{needs}]\n")
        };
        service("wombat", a) + &service("dingo", b)
    };
    assert!(parse(&with("\"dingo\"", "")).is_ok());
    assert_eq!(
        error(&with("", "\"womabt\"")),
        "/etc/levitate.toml, line 8: service dingo names \"womabt\" in dependencies, which is not defined, did you mean \"wombat\"?"
    );
    assert_eq!(
        error(&with("\"dingo\"", "\"wombat\"")),
        "/etc/levitate.toml, line 8: service dingo waits for itself: dingo -> wombat -> dingo; \
         take one of these dependencies away"
    );
    let text = error("[services.all]\ntype = \"bundle\"\ncontents = [\"all\"]\n");
    assert_eq!(
        text,
        "/etc/levitate.toml, line 3: bundle all contains itself: all -> all; take one of these names out"
    );
    let text = error("[services.all]\ntype = \"bundle\"\ncontents = [\n'emu']\n");
    assert_eq!(
        text,
        "/etc/levitate.toml, line 4: service all names \"emu\" in contents, which is not defined"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_told_with_an_example_of_a_right_one() {
    let text = error("packages = [7]\n");
    assert_eq!(
        text,
        "/etc/levitate.toml, line 1: invalid type: integer '7', expected a program such as \"/usr/sbin/dropbear\" or \
         \"mtd_debug\", { program = \"/bin/busybox\", links = true }, { directory = \"/opt/tools\" } or \
         { closure = \"/etc/nix-store-paths\" }"
    );
    for table in [
        "{}",
        "{ links = true }",
        "{ program = \"a\", closure = \"/b\" }",
        "{ directory = \"/a\", links = true }",
    ] {
        let text = error(&format!("packages = [\n{table}]\n"));
        assert!(
            text.starts_with("/etc/levitate.toml, line 2: expected a program such as"),
            "{table}: {text}"
        );
    }
    let text = error("packages = [{ directory = \"opt\" }]\n");
    assert_eq!(text, "/etc/levitate.toml, line 1: expected a path that begins with /, found \"opt\"");
    let text = error("\n[services.a]\nrun = 1\n");
    assert!(text.starts_with("/etc/levitate.toml, line 3: expected a command such as ["), "{text}");
    let text = error("reserve = \"lots\"\n");
    assert!(text.contains("line 1") && text.contains(r#"a size such as "32M""#), "{text}");
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
        "service a: a longrun has no up; it may have run, finish, notification-fd, down-signal, timeout-kill, type, dependencies, controlled-by, timeout-up, timeout-down, producer-for, consumer-for, pipeline-name"
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
