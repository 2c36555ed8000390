//! The log on a tmpfs that is full, or smaller than one of its files.

use super::*;

/// With a service that says 3000 lines, between what its script does `before` and `after`, and `size` for the log.
fn start_loud(before: &str, after: &str, size: &str) -> Housed {
    let lines = "i=0; while [ $i -lt 3000 ]; do echo line $i of many that do not fit; i=$((i+1)); done";
    let run = format!("#!/bin/sh\n{before}{lines}\n{after}exec sleep 1000\n");
    let files = [
        ("default/type", "bundle\n"),
        ("default/contents.d/loud", ""),
        ("loud/type", "longrun\n"),
        ("loud/run", &run),
    ];
    Housed::start_with_small_run(&files, size)
}

#[test]
fn a_log_that_has_no_room_stops_no_service_and_tells_how_much_was_lost() {
    if !is_permitted() {
        return;
    }
    let before = "dd if=/dev/zero of=DIR/run/filler bs=4k 2>/dev/null\n";
    let after =
        "touch DIR/through\nwhile [ ! -e DIR/go ]; do sleep 0.02; done\nrm DIR/run/filler\necho room again\n";
    let mut init = start_loud(before, after, "512k");
    // Its pipe holds less than it wrote, so some of it was read when there was no room.
    init.wait_until("the loud service", |s| s.path("through").exists());
    write(&init.path("go"), 0o644, "");
    init.wait_for_log("loud room again");
    let log = init.log();
    // Every line is there or counted, and what came once there was room is there.
    let kept = log.lines().filter(|line| line.starts_with("loud line ")).count();
    let lost = log.lines().filter_map(|line| line.strip_prefix("init ")?.strip_suffix(" log lines lost"));
    let lost: Vec<usize> = lost.map(|count| count.parse().unwrap()).collect();
    assert!(
        !lost.is_empty() && kept + lost.iter().sum::<usize>() == 3000,
        "{kept} kept, {lost:?} lost: {log}"
    );
    assert!(init.answer("status").starts_with("loud up "));
    assert!(init.answer("reboot").ends_with("exit 0\n"));
    assert_eq!(init.ended_by(), RESTARTED);
}

#[test]
fn a_log_with_less_room_than_one_file_keeps_the_newest_lines() {
    if !is_permitted() {
        return;
    }
    let mut init = start_loud("", "", "64k");
    init.wait_for_log("loud line 2999 of many that do not fit");
    let log = init.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("loud ")).collect();
    assert!(lines.len() > 300, "{log}");
    let first = 3000 - lines.len();
    assert_eq!(lines[0], format!("loud line {first} of many that do not fit"), "{log}");
}
