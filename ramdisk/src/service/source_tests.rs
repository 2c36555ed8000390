use std::os::unix::fs::PermissionsExt;

use super::*;

fn write(dir: &Path, path: &str, mode: u32, text: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn write_all(dir: &Path, files: &[SourceFile]) {
    for file in files {
        write(dir, file.path.to_str().unwrap(), file.mode, std::str::from_utf8(&file.bytes).unwrap());
    }
}

#[test]
fn a_longrun_is_read_with_everything_it_says() {
    let dir = tempfile::tempdir().unwrap();
    for (path, mode, text) in [
        ("sshd/type", 0o644, "longrun\n"),
        ("sshd/run", 0o755, "#!/bin/sh\nexec sshd -D\n"),
        ("sshd/finish", 0o755, "#!/bin/sh\n"),
        ("sshd/dependencies.d/net", 0o644, ""),
        ("sshd/dependencies", 0o644, "# older form\nkeys\n\n"),
        ("sshd/notification-fd", 0o644, "3\n"),
        ("sshd/timeout-up", 0o644, "5000"),
        ("sshd/timeout-down", 0o644, "0\n"),
        ("sshd/timeout-kill", 0o644, "700\n"),
        ("sshd/down-signal", 0o644, "SIGHUP\n"),
        ("sshd/controlled-by", 0o644, "plug\n"),
        ("sshd/producer-for", 0o644, "seclog\n"),
        ("sshd/consumer-for", 0o644, "# both\na\n b\n"),
        ("sshd/pipeline-name", 0o644, "chain"),
        ("sshd/.hidden", 0o644, "?"),
    ] {
        write(dir.path(), path, mode, text);
    }
    let set = read_services_dir(dir.path()).unwrap();
    let origin = dir.path().join("sshd");
    let expected = Service {
        name: "sshd".into(),
        dependencies: ["keys".to_owned(), "net".to_owned()].into(),
        timeout_up: Timeout::After(5000),
        timeout_down: Timeout::Never,
        controlled_by: Some("plug".into()),
        pipeline: Pipeline {
            producer_for: Some("seclog".into()),
            consumer_for: ["a".to_owned(), "b".to_owned()].into(),
            name: Some("chain".into()),
        },
        kind: Kind::Longrun {
            run: Program::File(origin.join("run")),
            finish: Some(Program::File(origin.join("finish"))),
            notification_fd: Some(3),
            down_signal: Signal::SIGHUP,
            timeout_kill: Timeout::After(700),
        },
        origin,
    };
    assert_eq!(set.get("sshd"), Some(&expected));
}

#[test]
fn absent_limits_mean_twenty_seconds_where_there_is_readiness_and_none_where_there_is_not() {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("a/type", "longrun"),
        ("a/run", ""),
        ("a/notification-fd", "4"),
        ("b/type", "longrun"),
        ("b/run", ""),
    ] {
        write(dir.path(), path, 0o755, text);
    }
    let set = read_services_dir(dir.path()).unwrap();
    assert_eq!(set.get("a").unwrap().timeout_up, Timeout::After(20_000));
    assert_eq!(set.get("b").unwrap().timeout_up, Timeout::Never);
    assert_eq!(set.get("b").unwrap().timeout_down, Timeout::After(10_000));
}

#[test]
fn a_oneshots_up_is_executed_if_it_is_a_program_and_split_into_words_if_not() {
    let dir = tempfile::tempdir().unwrap();
    for (path, mode, text) in [
        ("x/type", 0o644, "oneshot"),
        ("x/up", 0o644, "# why\nip link set 'my lan' up \"\"\n"),
        ("x/down", 0o644, "#!/bin/sh\ntrue\n"),
        ("y/type", 0o644, "oneshot"),
        ("y/up", 0o755, "\u{7f}ELF"),
        ("z/type", 0o644, "oneshot"),
        ("z/up", 0o644, "\n"),
    ] {
        write(dir.path(), path, mode, text);
    }
    let set = read_services_dir(dir.path()).unwrap();
    let kind = |name: &str| set.get(name).unwrap().kind.clone();
    let words = ["ip", "link", "set", "my lan", "up", ""].map(OsString::from).to_vec();
    assert_eq!(
        kind("x"),
        Kind::Oneshot {
            up: Some(Program::Words(words)),
            down: Some(Program::File(dir.path().join("x/down")))
        }
    );
    assert_eq!(kind("y"), Kind::Oneshot { up: Some(Program::File(dir.path().join("y/up"))), down: None });
    assert_eq!(kind("z"), Kind::Oneshot { up: None, down: None });
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_the_file_and_the_service() {
    let cases = [
        (vec![("a/run", "")], "service a: DIR/a/type is missing: a service needs it"),
        (
            vec![("a/type", "daemon\n")],
            "service a: DIR/a/type: expected longrun, oneshot or bundle, found \"daemon\"",
        ),
        (vec![("a/type", "longrun")], "service a: DIR/a/run is missing: a longrun needs it"),
        (vec![("a/type", "oneshot")], "service a: DIR/a/up is missing: a oneshot needs it"),
        (
            vec![("a/type", "longrun"), ("a/run", ""), ("a/timeout-up", "5s")],
            "service a: DIR/a/timeout-up: expected a number, found \"5s\"",
        ),
        (
            vec![("a/type", "longrun"), ("a/run", ""), ("a/down-signal", "STOPPED")],
            "service a: DIR/a/down-signal: expected a signal's name or number, found \"STOPPED\"",
        ),
        (
            vec![("a/type", "longrun"), ("a/run", ""), ("a/producer-for", "x y\n")],
            "service a: DIR/a/producer-for: expected the name of one service, found \"x y\"",
        ),
    ];
    for (files, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            write(dir.path(), path, 0o644, text);
        }
        let error = read_services_dir(dir.path()).unwrap_err().to_string();
        assert_eq!(error.replace(dir.path().to_str().unwrap(), "DIR"), expected);
    }
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/type", 0o644, "longrun");
    write(dir.path(), "a/run/oops", 0o644, "");
    let error = read_services_dir(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("/a/run: expected a regular file, found \"something else\""), "{error}");
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/type", 0o644, "oneshot");
    write(dir.path(), "a/up", 0o644, "echo 'open");
    let error = read_services_dir(dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("expected a command line with its quotes closed, found \"echo 'open\""),
        "{error}"
    );
}

#[test]
fn an_inline_service_written_and_read_again_is_the_same_service() {
    let dir = tempfile::tempdir().unwrap();
    let mut service =
        Service::longrun("web", dir.path().join("web"), Program::Script("exec httpd -f".into()))
            .after("net")
            .notifying(5);
    service.timeout_down = Timeout::After(1);
    service.controlled_by = Some("plug".into());
    service.pipeline.producer_for = Some("log".into());
    service.pipeline.consumer_for = ["a".to_owned(), "b".to_owned()].into();
    service.pipeline.name = Some("chain".into());
    let files = write_source_dir(&service).unwrap();
    let run = files.iter().find(|file| file.path == Path::new("web/run")).unwrap();
    assert_eq!((run.mode, run.bytes.as_slice()), (0o755, b"#!/bin/sh\nexec httpd -f\n".as_slice()));
    write_all(dir.path(), &files);
    let Kind::Longrun { run, .. } = &mut service.kind else { unreachable!() };
    *run = Program::File(dir.path().join("web/run"));
    assert_eq!(read_services_dir(dir.path()).unwrap().get("web"), Some(&service));

    // And what was read is written again byte for byte.
    assert_eq!(write_source_dir(&service).unwrap(), files);
}

#[test]
fn a_bundle_and_a_oneshot_survive_the_way_to_disk_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let words = vec![OsString::from("echo"), OsString::from("it's")];
    let up = Service::oneshot("hello", dir.path().join("hello"), Some(Program::Words(words)), None);
    let bundle = Service::bundle("default", dir.path().join("default"), ["hello"]);
    for service in [&up, &bundle] {
        write_all(dir.path(), &write_source_dir(service).unwrap());
    }
    let set = read_services_dir(dir.path()).unwrap();
    assert_eq!(set.get("default"), Some(&bundle));
    let output = std::process::Command::new(dir.path().join("hello/up")).output().unwrap();
    assert_eq!(output.stdout, b"it's\n");
}
