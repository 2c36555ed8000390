//! The lease over a real /proc.

use super::*;

/// A server that lets somebody in as soon as it is told to, as ssh servers do: a process of its own for the connection,
/// and below it one with a login's environment.
const SERVER: &[(&str, &str)] = &[
    ("default/type", "bundle\n"),
    ("default/contents.d/sshd", ""),
    ("sshd/type", "longrun\n"),
    (
        "sshd/run",
        "#!/bin/sh\nwhile [ ! -e DIR/knock ]; do sleep 0.02; done\n\
         (while [ ! -e DIR/key ]; do sleep 0.02; done\n\
         LOGNAME=ann sh -c 'echo in; while [ ! -e DIR/bye ]; do sleep 0.02; done'; echo out) &\nexec sleep 1000\n",
    ),
];

fn with_lease(files: &[(&str, &str)], lease_ms: u64) -> Housed {
    let manifest = format!(
        r#"{{"version":1,"lease_ms":{lease_ms},"lease_unverified_ms":{lease_ms},"ways_in":["sshd"]}}"#
    );
    Housed::start_with(files, |run| write(&run.with_file_name("manifest.json"), 0o644, &manifest))
}

#[test]
fn a_real_session_stops_the_lease_and_without_one_the_system_restarts() {
    if !is_permitted() {
        return;
    }
    let mut init = with_lease(SERVER, 3_000);
    // A connection that knocks and says nothing more does not count.
    write(&init.path("knock"), 0o644, "");
    assert_eq!(init.ended_by(), RESTARTED);
    assert!(init.log().contains("init the lease is over: nobody was logged in for 3 s;"), "{}", init.log());
    assert!(init.read("console").contains("nobody is logged in: rebooting"), "{}", init.read("console"));

    // long enough for a machine that is busy; that it comes to its end was seen above
    let mut init = with_lease(SERVER, 60_000);
    write(&init.path("knock"), 0o644, "");
    write(&init.path("key"), 0o644, "");
    init.wait_until("ann is seen", |s| s.log().contains("init lease: stopped: logged in: ann (sh, pid "));
    let lease = init.answer("lease");
    assert!(lease.starts_with(r#"{"state":"logged_in","sessions":[{"user":"ann","pid":"#), "{lease}");
    write(&init.path("bye"), 0o644, "");
    init.wait_for_log("sshd out");
    init.wait_until("the lease runs again", |s| s.log().matches("init lease: runs;").count() >= 2);
    assert!(init.answer("reboot").ends_with("exit 0\n"));
    assert_eq!(init.ended_by(), RESTARTED);
}

#[test]
fn the_record_that_lay_there_first_lets_the_lease_run_and_one_that_is_made_here_ends_it() {
    if !is_permitted() {
        return;
    }
    let record = FLASH.replace("STATE", "unverified").replace("PID", "9999999");
    let mut init = Housed::start_with(SERVER, |run| {
        write(
            &run.with_file_name("manifest.json"),
            0o644,
            r#"{"version":1,"lease_ms":3600000,"ways_in":["sshd"]}"#,
        );
        write(&run.join("levitate/flash.json"), 0o644, &record);
    });
    init.wait_for_log("init sshd: up");
    assert!(init.answer("lease").starts_with(r#"{"state":"runs""#), "{}", init.answer("lease"));
    assert!(init.answer("reboot").contains("reboot: refused"), "a person is refused all the same");
    // as a flashcp of this root does
    write(&init.path("run/levitate/flash.json.new"), 0o644, &record);
    fs::rename(init.path("run/levitate/flash.json.new"), init.path("run/levitate/flash.json")).unwrap();
    assert!(init.answer("lease").starts_with(r#"{"state":"flash""#), "{}", init.answer("lease"));
}

#[test]
fn looking_after_the_lease_costs_no_memory_however_long() {
    if !is_permitted() {
        return;
    }
    let mut init = with_lease(SERVER, 3_600_000);
    init.wait_for_log("init sshd: up");
    let memory = |init: &Housed| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", init.pid_of_init())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmData:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let look = |init: &Housed, times: u32| {
        for _ in 0..times {
            assert!(init.answer("lease").starts_with(r#"{"state":"runs""#));
            init.answer("hold 1000");
            init.answer("release");
        }
    };
    look(&init, 100);
    let before = memory(&init);
    look(&init, 1_000);
    let after = memory(&init);
    // An allocator may take one more step; a leak of a process table each time would be megabytes.
    assert!(after <= before + 256, "{before} KiB of data, then {after}");
    assert!(fs::read_dir(format!("/proc/{}/fd", init.pid_of_init())).unwrap().count() < 20);
}
