//! The hand-over's order of calls, and what becomes of it when any of them fails, in a double of the kernel.

mod calls;
mod double;
mod failures;
mod flash;
mod paths;
mod systemd;

use std::path::Path;

use double::Double;
use levitate::handover::report::REPORT;

#[test]
fn the_calls_come_in_the_order_of_the_design() {
    let done = Double::new().hand_over();
    let noise = |call: &&String| {
        !["mounts", "processes", "pause", "guard", "look at", "head", "read ", "identity"]
            .iter()
            .any(|word| call.starts_with(word))
    };
    let calls: Vec<&str> = done.calls.iter().filter(noise).map(String::as_str).collect();
    assert_eq!(
        calls,
        [
            "reset signals",
            "forbid ctrl-alt-del",
            "need /proc",
            "panic timeout 10",
            "watchdog facts",
            "state entering check",
            "state entering end_processes",
            "kill(-1) Term",
            "kill(-1) Hangup",
            "kill(-1) Kill",
            "state entering swap_and_loops",
            "swaps",
            "swapoff /dev/zram0",
            "state entering bind",
            "private / All",
            "writable /run/maintenance /run",
            "bind /run/maintenance",
            "private /run/maintenance One",
            "plain flags /run/maintenance",
            "exec /run/maintenance/sbin/levitate",
            "reset signals",
            "state entering move_mounts",
            "mkdir /run/maintenance/dev",
            "move /dev /run/maintenance/dev",
            "mkdir /run/maintenance/proc",
            "move /proc /run/maintenance/proc",
            "writable /run/maintenance/dev /run/maintenance/dev",
            "state entering pivot",
            "mkdir /run/maintenance/oldroot",
            "chdir /run/maintenance",
            "pivot_root . oldroot",
            "chroot .",
            "chdir /",
            "state entering let_go",
            "console /dev",
            "close descriptors",
            "sweep /oldroot/run",
            "state left unmount",
            "umount /oldroot/persist",
            "umount /oldroot/run",
            "umount /oldroot",
            "tables of others",
            "exclusive 31:3",
            "exclusive 31:4",
            "report /run/levitate/handover.json",
            "exec /sbin/init",
        ]
    );
    assert!(done.init_runs);
    assert_eq!(REPORT, "/run/levitate/handover.json");
    let report = done.report.expect("a report");
    assert_eq!(report.unmounted, ["/persist", "/run", "/"]);
    assert_eq!((report.still_mounted.len(), report.notes.len()), (0, 0));
    assert_eq!(report.stages.len(), 9);
    let spent: u64 = report.stages.iter().map(|stage| stage.ms).sum();
    assert!(spent <= report.total_ms, "{report:?}");
}

#[test]
fn the_state_file_is_written_where_it_can_be_found_at_that_moment() {
    let done = Double::new().hand_over();
    let paths: Vec<(&str, &Path)> =
        done.state.iter().map(|(path, record)| (record.stage.as_deref().unwrap(), path.as_path())).collect();
    let (before, after) = (Path::new("/persist/state.json"), Path::new("/oldroot/persist/state.json"));
    assert_eq!(
        paths,
        [
            ("check", before),
            ("end_processes", before),
            ("swap_and_loops", before),
            ("bind", before),
            ("move_mounts", before),
            ("pivot", before),
            ("let_go", after),
            ("unmount", after),
        ]
    );
    assert!(done.state.iter().all(|(_, record)| record.boot_id == "b"));
}
