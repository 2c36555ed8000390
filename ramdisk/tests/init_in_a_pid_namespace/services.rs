//! Services under a real PID 1 for longer than a moment: orders, pipelines, restarts by the thousand.

use super::*;

/// Anonymous memory of process 1, in KiB: what it has allocated. The rest is the program's file.
fn memory(init: &Housed) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", init.pid_of_init())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The restarts of all services. Asking costs more than most of them, so not all the time.
fn restarts(init: &Housed) -> u64 {
    std::thread::sleep(Duration::from_millis(200));
    let status = init.answer("status");
    status.lines().filter_map(|line| line.split(' ').nth(4)).filter_map(|n| n.parse::<u64>().ok()).sum()
}

#[test]
fn the_memory_of_process_1_stays_flat_over_ten_thousand_restarts() {
    if !is_permitted() {
        return;
    }
    // Each is started again once a second, so it takes many.
    const SERVICES: u64 = 300;
    let names: Vec<String> = (0..SERVICES).map(|n| format!("s{n}")).collect();
    let mut files = vec![("default/type".to_owned(), "bundle\n".to_owned())];
    for name in &names {
        files.push((format!("default/contents.d/{name}"), String::new()));
        files.push((format!("{name}/type"), "longrun\n".to_owned()));
        files.push((format!("{name}/run"), "#!/bin/true\n".to_owned()));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let mut init = Housed::start(&files);
    init.wait_until("the socket", |s| s.path("run/levitate/init.sock").exists());
    init.wait_until("a first thousand restarts", |s| restarts(s) > 1_000);
    let before = memory(&init);
    init.wait_until("ten thousand more", |s| restarts(s) > 11_000);
    let (after, count) = (memory(&init), restarts(&init));
    let mut terminal = std::io::stdout();
    let _ =
        writeln!(terminal, "PID 1 after {count} restarts: {before} KiB of memory before, {after} KiB after");
    assert!(after <= before + 64, "from {before} KiB to {after} KiB");
    // And it is there for others all the while.
    assert!(init.answer("reboot").ends_with("exit 0\n"));
    assert_eq!(init.ended_by(), RESTARTED);
}

#[test]
fn orders_over_the_socket_move_services_and_a_pipe_keeps_what_its_reader_missed() {
    if !is_permitted() {
        return;
    }
    let files = [
        ("default/type", "bundle\n"),
        ("default/contents.d/talker", ""),
        ("talker/type", "longrun\n"),
        ("talker/run", "#!/bin/sh\necho one; echo two; echo aside >&2; exec sleep 1000\n"),
        ("talker/producer-for", "scribe\n"),
        ("scribe/type", "longrun\n"),
        // The first life reads one line (byte by byte, as a shell does) and dies; the second one reads on.
        (
            "scribe/run",
            "#!/bin/sh\nread line; echo \"got $line\"\n[ -e DIR/second ] && exec sleep 1000\n: > DIR/second\n",
        ),
        ("scribe/consumer-for", "talker\n"),
        ("scribe/pipeline-name", "talk\n"),
        ("late/type", "oneshot\n"),
        ("late/up", "#!/bin/sh\necho $RC_NAME\nexit 3\n"),
    ];
    // A directory is read as it is: a script that is not executable still says what runs it.
    let mut init = Housed::start_with(&files, |run| {
        let script = run.with_file_name("services/late/up");
        fs::set_permissions(script, fs::Permissions::from_mode(0o644)).unwrap();
    });
    init.wait_for_log("scribe got one");
    init.wait_for_log("scribe got two");
    init.wait_for_log("talker aside");
    assert!(!init.log().contains("talker one"), "{}", init.log());

    assert_eq!(init.answer("down wait -- scribe"), "info talker: down\ninfo scribe: down\nexit 0\n");
    assert_eq!(init.answer("up wait -- talk"), "info scribe: up\ninfo talker: up\nexit 0\n");
    let failed = init.answer("up wait=60000 -- late");
    assert_eq!(failed, "warning late: marked down: up ended with exit code 3\nexit 1\n");
    init.wait_for_log("late late");
    assert_eq!(init.answer("up -- nobody"), "there is no service named nobody\nexit 3\n");
    assert_eq!(init.answer("SIGKILL -- talker"), "exit 0\n");
    init.wait_for_log("init talker: process ended with signal SIGKILL, starting it again");
    let snapshot = init.answer("services");
    assert_eq!(snapshot.lines().count(), 6, "{snapshot}");
    assert!(snapshot.lines().all(|line| line.starts_with('{') || line == "exit 0"), "{snapshot}");
}
