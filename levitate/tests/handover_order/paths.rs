//! The less common ways: other verbs, survivors, watchdogs, an initramfs, file systems that stay.

use std::path::{Path, PathBuf};

use levitate::handover::report::Watchdog;
use levitate::handover::seam::{Attached, Ending};
use levitate::handover::watchdog::WatchdogFacts;
use levitate::state::State;

use crate::double::{Double, mount, process};

fn place(done: &Double, call: &str) -> usize {
    let place = done.calls.iter().position(|c| c == call);
    place.unwrap_or_else(|| panic!("no call {call} in {:#?}", done.calls))
}

#[test]
fn poweroff_and_halt_end_everybody_and_leave_clean_disks() {
    for (word, ending) in [("poweroff", Ending::Poweroff), ("halt", Ending::Halt)] {
        let mut double = Double::new();
        double.verb = Some(word.into());
        let done = double.hand_over();
        assert_eq!(done.endings, [ending]);
        let calls = ["kill(-1) Term", "kill(-1) Kill", "sync", "umount /persist", "read-only /"];
        let places: Vec<usize> = calls.iter().map(|call| place(&done, call)).collect();
        assert!(places.is_sorted(), "{:?}", done.calls);
        assert_eq!(done.state.len(), 0, "nothing failed");
    }
}

#[test]
fn a_poweroff_that_takes_too_long_does_not_become_a_reboot() {
    for (word, guard) in [("poweroff", "guard Poweroff"), ("halt", "guard Halt")] {
        let mut double = Double::new();
        double.verb = Some(word.into());
        let done = double.hand_over();
        let guards: Vec<&String> = done.calls.iter().filter(|call| call.starts_with("guard")).collect();
        assert_eq!(guards.last(), Some(&&guard.to_owned()));
        assert!(place(&done, guard) < place(&done, "kill(-1) Term"));
    }
}

#[test]
fn a_poweroff_is_one_even_if_the_staged_root_is_broken() {
    let mut double = Double::new();
    double.verb = Some("poweroff".into());
    double.manifest = "{".into();
    assert_eq!(double.hand_over().endings, [Ending::Poweroff]);
}

#[test]
fn an_init_that_cannot_be_executed_is_recorded_before_the_disks_are_left_clean() {
    let mut double = Double::new();
    double.init_mode = 0o644;
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    let record = done.last_state();
    assert_eq!((record.state, record.stage.as_deref()), (State::Failed, Some("check")));
    assert_eq!(
        record.reason.as_deref(),
        Some("staged init /run/maintenance/sbin/init is not executable (mode 0644)")
    );
    assert!(place(&done, "state failed check") < place(&done, "kill(-1) Term"));
    assert!(place(&done, "kill(-1) Term") < place(&done, "umount /persist"));
}

#[test]
fn a_process_that_does_not_die_is_named_and_does_not_hold_up_the_rest() {
    let mut double = Double::new();
    double.processes.push(process(77, "dd", 'D', false));
    double.undying.push(77);
    let done = double.hand_over();
    assert!(done.init_runs);
    let survivors = done.report.expect("a report").survivors;
    assert_eq!(survivors.len(), 1);
    assert_eq!((survivors[0].pid, survivors[0].name.as_str(), survivors[0].state), (77, "dd", 'D'));
}

#[test]
fn the_grace_ends_as_soon_as_everybody_is_gone() {
    let waits = |done: &Double| {
        done.calls[place(done, "kill(-1) Term")..place(done, "kill(-1) Kill")]
            .iter()
            .filter(|call| *call == "pause")
            .count()
    };
    let mut double = Double::new();
    double.polite = vec![100, 101];
    assert_eq!(waits(&double.hand_over()), 0);
    assert!(waits(&Double::new().hand_over()) > 50);
    // who does nothing on TERM: nobody waits two seconds for it
    let mut double = Double::new();
    double.shells = vec![101];
    let done = double.hand_over();
    assert!(waits(&done) < 20, "{}", waits(&done));
    assert!(place(&done, "kill(-1) Term") < place(&done, "kill(-1) Hangup"));
    // a shell at a terminal ignores TERM and says so: nobody waits at all
    let mut double = Double::new();
    (double.polite, double.shells) = (vec![100], vec![101]);
    double.processes.iter_mut().for_each(|process| process.wants_hangup = process.pid == 101);
    let done = double.hand_over();
    assert!(waits(&done) <= 1, "{}", waits(&done));
    assert!(place(&done, "kill(-1) Term") < place(&done, "kill(101) Hangup"));
    assert!(!done.calls.iter().any(|call| call == "kill(100) Hangup"));
}

#[test]
fn an_old_root_that_a_survivor_holds_is_a_reset_that_names_it() {
    let mut double = Double::new();
    double.processes.push(process(77, "dd", 'D', false));
    double.undying.push(77);
    double.stuck.push("/oldroot".into());
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    assert!(
        done.failure().contains("unmount the old root (squashfs on /dev/root): Device or resource busy"),
        "{}",
        done.failure()
    );
    assert!(done.failure().contains("; still alive: 77 (dd, state D);"), "{}", done.failure());
}

#[test]
fn a_failure_after_the_state_files_file_system_is_gone_is_still_recorded_there() {
    let mut double = Double::new();
    double.busy.push((31, 3));
    let done = double.hand_over();
    let mounted = place(&done, "mount /dev/mtdblock4 jffs2 /run/levitate/state");
    assert!(place(&done, "umount /oldroot/persist") < mounted);
    let (path, record) = done.state.last().expect("a record");
    assert_eq!(path, &PathBuf::from("/run/levitate/state/state.json"));
    assert_eq!((record.state, record.stage.as_deref()), (State::Failed, Some("prove")));
    assert!(mounted < place(&done, "umount /run/levitate/state"));
}

#[test]
fn an_old_root_whose_device_stays_busy_is_a_reset_although_its_unmount_succeeded() {
    let mut double = Double::new();
    double.busy.push((31, 3));
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    assert!(
        done.failure().starts_with("hand-over failed at stage prove: the old root"),
        "{}",
        done.failure()
    );
}

#[test]
fn a_proof_that_cannot_be_made_holds_for_nothing() {
    let mut double = Double::new();
    double.probe_error = Some(libc::EACCES);
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    let why = "the old root (squashfs on /dev/root) is not proved to be gone: \
        whether its block device is in use cannot be asked: Permission denied";
    assert!(done.failure().contains(why), "{}", done.failure());
    assert!(done.calls.iter().filter(|call| *call == "exclusive 31:3").count() > 50, "it was tried again");
    for nothing_there in [libc::ENXIO, libc::ENODEV, libc::ENOENT] {
        let mut double = Double::new();
        double.probe_error = Some(nothing_there);
        assert!(double.hand_over().init_runs);
    }
}

#[test]
fn a_data_file_system_that_stays_is_set_aside_read_only_and_reported() {
    let mut double = Double::new();
    double.stuck.push("/oldroot/persist".into());
    let done = double.hand_over();
    assert!(done.init_runs);
    let moved = place(&done, "move /oldroot/persist /run/levitate/held/0");
    assert!(moved < place(&done, "read-only /run/levitate/held/0"));
    assert!(moved < place(&done, "umount /oldroot"));
    let report = done.report.expect("a report");
    assert_eq!(report.still_mounted.len(), 1, "{report:?}");
    let still = &report.still_mounted[0];
    assert_eq!((still.path.as_str(), still.source.as_str()), ("/persist", "/dev/mtdblock4"));
    assert!(still.read_only);
    assert_eq!(report.unmounted, ["/run", "/"]);
}

/// With a network file system below /run whose server is gone.
fn with_dead_server(at: &str) -> Double {
    let mut double = Double::new();
    let parent = if at.starts_with("/run/") { 24 } else { 20 };
    double.table.push(mount(40, parent, (0, 40), at, "nfs", "server:/x"));
    double.dead = vec![at.into(), format!("/oldroot{at}").into()];
    double
}

#[test]
fn a_mount_below_run_whose_server_is_gone_is_unmounted_without_a_look_at_it() {
    let done = with_dead_server("/run/media/x").hand_over();
    assert!(done.init_runs, "{:?}", done.said);
    let report = done.report.expect("a report");
    assert_eq!(report.unmounted, ["/run/media/x", "/persist", "/run", "/"]);
    assert_eq!((report.still_mounted, report.notes), (vec![], vec![]));
}

#[test]
fn a_dead_mount_that_cannot_be_moved_away_either_costs_one_call_and_is_a_reset_with_the_reason() {
    let mut double = with_dead_server("/mnt");
    double.stuck.push("/oldroot/mnt".into());
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    let note = "move /oldroot/mnt out of the old root: not done within 10000 ms";
    assert!(done.said.iter().any(|(_, line)| line == note), "{:?}", done.said);
    assert!(done.failure().contains("at stage unmount: unmount the old root"), "{}", done.failure());
}

#[test]
fn an_old_run_that_never_answers_is_not_emptied_and_holds_up_nothing() {
    let mut double = Double::new();
    double.dead.push("/oldroot/run".into());
    let done = double.hand_over();
    assert!(done.init_runs, "{:?}", done.said);
    assert_eq!(done.report.expect("a report").notes, ["empty /oldroot/run: not done within 10000 ms"]);
}

#[test]
fn what_covers_a_part_of_the_old_run_is_never_emptied_in_its_place() {
    let mut double = Double::new();
    double.table.push(mount(41, 20, (0, 8), "/var/lock", "tmpfs", "tmpfs"));
    double.table.push(mount(42, 41, (31, 5), "/var/lock", "jffs2", "/dev/mtdblock5"));
    double.table.push(mount(43, 20, (0, 8), "/var/run", "tmpfs", "tmpfs"));
    let done = double.hand_over();
    assert!(done.init_runs, "{:?}", done.said);
    let swept: Vec<&String> = done.calls.iter().filter(|call| call.starts_with("sweep ")).collect();
    assert_eq!(swept, ["sweep /oldroot/run", "sweep /oldroot/var/run"]);
}

#[test]
fn an_old_run_that_stays_is_set_aside_and_never_made_read_only_because_the_staged_root_lies_in_it() {
    let mut double = Double::new();
    double.stuck.push("/oldroot/run".into());
    let done = double.hand_over();
    assert!(done.init_runs, "{:?}", done.said);
    place(&done, "move /oldroot/run /run/levitate/held/0");
    let still = done.report.expect("a report").still_mounted;
    assert_eq!((still[0].path.as_str(), still[0].read_only), ("/run", false));
}

#[test]
fn an_unmounting_that_does_not_come_back_is_reported_although_every_table_says_that_it_is_done() {
    let mut double = Double::new();
    double.lingering.push("/oldroot/persist".into());
    // KILL ends the only thread that could betray it
    double.processes.retain(|p| !p.name.starts_with("jffs2"));
    let done = double.hand_over();
    assert!(done.init_runs, "{:?}", done.said);
    let still = done.report.expect("a report").still_mounted;
    assert_eq!(still.len(), 1, "{still:?}");
    assert_eq!((still[0].path.as_str(), still[0].fstype.as_str()), ("/persist", "jffs2"));
    assert_eq!(still[0].reason, "not done within 10000 ms");
    assert_eq!(still[0].device.as_deref(), Some("31:4"));
}

#[test]
fn what_an_overlay_that_stays_may_lie_on_is_reported_with_it() {
    let mut double = Double::new();
    double.table.push(mount(44, 20, (0, 44), "/etc", "overlay", "overlay"));
    double.stuck.push("/oldroot/etc".into());
    let done = double.hand_over();
    assert!(done.init_runs, "{:?}", done.said);
    let still = done.report.expect("a report").still_mounted;
    let paths: Vec<&str> = still.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths, ["/etc", "/persist"], "no table shows the jffs2 any more");
    assert_eq!(still[1].device.as_deref(), Some("31:4"));
}

#[test]
fn a_watchdog_is_opened_when_its_feeder_is_gone_and_passed_on() {
    let mut double = Double::new();
    double.watchdog =
        WatchdogFacts { holders: vec![(100, "/dev/watchdog".into())], ..WatchdogFacts::default() };
    let done = double.hand_over();
    let opened = place(&done, "open /dev/watchdog");
    assert!(place(&done, "kill(-1) Term") < opened && opened < place(&done, "kill(-1) Kill"));
    let resumed = done.resumed.expect("a second half").watchdogs;
    assert_eq!(resumed, [Watchdog { device: "/dev/watchdog".into(), timeout_s: Some(60) }]);
    assert_eq!(done.report.expect("a report").watchdogs, resumed);
}

#[test]
fn every_watchdog_is_taken_as_soon_as_its_own_feeder_is_gone() {
    let mut double = Double::new();
    double.watchdog = WatchdogFacts {
        own: vec![(5, "/dev/watchdog0".into())],
        holders: vec![(101, "/dev/watchdog1".into()), (100, "/dev/watchdog2".into())],
        active: vec!["/dev/watchdog3".into()],
        ..WatchdogFacts::default()
    };
    let done = double.hand_over();
    let calls = [
        "adopt /dev/watchdog0 5",
        "open /dev/watchdog3",
        "kill(-1) Term",
        // its feeder is polite
        "open /dev/watchdog2",
        "kill(-1) Kill",
        "open /dev/watchdog1",
        "exec /run/maintenance/sbin/levitate",
    ];
    let places: Vec<usize> = calls.iter().map(|call| place(&done, call)).collect();
    assert!(places.is_sorted(), "{:#?}", done.calls);
    let report = done.report.expect("a report");
    let devices: Vec<&str> = report.watchdogs.iter().map(|watchdog| watchdog.device.as_str()).collect();
    assert_eq!(devices, ["/dev/watchdog0", "/dev/watchdog3", "/dev/watchdog2", "/dev/watchdog1"]);
    assert_eq!(report.notes, Vec::<String>::new());
}

#[test]
fn a_watchdog_that_nobody_had_running_is_never_opened() {
    let done = Double::new().hand_over();
    assert!(!done.calls.iter().any(|call| call.contains("/dev/watchdog")), "{:?}", done.calls);
}

#[test]
fn a_watchdog_that_runs_unfed_is_taken_before_anybody_is_killed() {
    let mut double = Double::new();
    double.watchdog = WatchdogFacts { active: vec!["/dev/watchdog0".into()], ..WatchdogFacts::default() };
    let done = double.hand_over();
    assert!(place(&done, "open /dev/watchdog0") < place(&done, "kill(-1) Term"));
}

#[test]
fn out_of_an_initramfs_the_staged_root_is_moved_onto_the_first_root() {
    let mut double = Double::new();
    double.pivot_error = Some(libc::EINVAL);
    double.table[0] = mount(20, 20, (0, 2), "/", "rootfs", "rootfs");
    let done = double.hand_over();
    assert!(done.init_runs, "{:?}", done.said);
    let calls = [
        "pivot_root . oldroot",
        "state left pivot",
        "close descriptors",
        "umount /persist",
        "sweep /run",
        "move . /",
        "chroot .",
        "exec /sbin/init",
    ];
    let places: Vec<usize> = calls.iter().map(|call| place(&done, call)).collect();
    assert!(places.is_sorted(), "{:#?}", done.calls);
    assert!(place(&done, "sweep /") < place(&done, "move . /"));
    assert_eq!(done.report.expect("a report").unmounted, ["/persist"]);
}

#[test]
fn a_root_that_cannot_be_pivoted_from_is_never_just_covered() {
    let mut double = Double::new();
    double.pivot_error = Some(libc::EINVAL);
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    assert!(!done.calls.iter().any(|call| call.starts_with("move . ")), "{:?}", done.calls);
}

#[test]
fn flash_that_stays_mounted_in_an_initramfs_is_a_reset() {
    let mut double = Double::new();
    double.pivot_error = Some(libc::EINVAL);
    double.table[0] = mount(20, 20, (0, 2), "/", "rootfs", "rootfs");
    double.stuck.push("/persist".into());
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    assert!(done.failure().contains("unmount /persist (jffs2 on /dev/mtdblock4)"), "{}", done.failure());
}

#[test]
fn what_is_already_so_is_success() {
    let mut double = Double::new();
    // A second half that runs again after its mounts were moved, and a /dev that is no mount at all.
    double.table.push(mount(80, 24, (0, 8), "/run/maintenance", "tmpfs", "tmpfs"));
    double.table.push(mount(81, 80, (0, 7), "/run/maintenance/proc", "proc", "proc"));
    double.table.retain(|m| !m.point.starts_with("/dev"));
    let done = double.hand_over();
    assert!(done.init_runs, "{:?}", done.said);
    assert!(!done.calls.iter().any(|call| call.starts_with("bind ") || call.starts_with("move ")));
}

/// The places of a call.
fn places(done: &Double, call: &str) -> Vec<usize> {
    (0..done.calls.len()).filter(|i| done.calls[*i] == call).collect()
}

#[test]
fn ubi_is_detached_once_its_file_systems_are_gone() {
    let mut double = Double::new();
    double.table.push(mount(30, 20, (0, 30), "/ubi", "ubifs", "ubi0:data"));
    double.attached = vec![Attached::Ubi { number: 0, mtd: Some(6) }];
    let done = double.hand_over();
    assert!(done.init_runs);
    let tries = places(&done, "detach /dev/ubi0");
    assert_eq!(tries.len(), 2);
    assert!(
        tries[0] < place(&done, "bind /run/maintenance") && tries[1] > place(&done, "umount /oldroot/ubi")
    );
    assert_eq!(done.report.expect("a report").still_mounted, []);
}

/// With the state file on a UBI volume.
fn with_state_on_ubi() -> Double {
    let mut double = Double::new();
    double.table.retain(|m| m.point != Path::new("/persist"));
    double.processes.retain(|p| !p.name.starts_with("jffs2"));
    double.table.push(mount(30, 20, (0, 30), "/persist", "ubifs", "ubi1:data"));
    double.attached =
        vec![Attached::Ubi { number: 0, mtd: Some(6) }, Attached::Ubi { number: 1, mtd: Some(7) }];
    double
}

#[test]
fn a_failure_is_recorded_on_ubi_as_well_whose_device_goes_last_of_all() {
    let mut double = with_state_on_ubi();
    double.busy.push((31, 3));
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    assert_eq!((done.last_state().state, done.last_state().stage.as_deref()), (State::Failed, Some("prove")));
    let done = with_state_on_ubi().hand_over();
    let [detached] = places(&done, "detach /dev/ubi1")[1..] else { panic!("{:#?}", done.calls) };
    assert!(place(&done, "exclusive 31:3") < detached);
    assert!(detached < place(&done, "report /run/levitate/handover.json"));
    let other = places(&done, "detach /dev/ubi0");
    assert!(other.iter().all(|detached| *detached < place(&done, "exclusive 31:3")), "{:#?}", done.calls);
    assert_eq!(done.report.expect("a report").still_mounted, []);
}

#[test]
fn a_ubi_device_that_cannot_be_detached_is_reported_once() {
    let mut double = with_state_on_ubi();
    double.stuck.push("/oldroot/persist".into());
    let done = double.hand_over();
    let paths: Vec<String> =
        done.report.expect("a report").still_mounted.into_iter().map(|m| m.path).collect();
    assert_eq!(paths, ["/persist", "/dev/ubi0", "/dev/ubi1"]);
}

#[test]
fn the_descriptors_path_is_the_staged_one_until_the_pivot() {
    let done = Double::new().hand_over();
    let journey = done.resumed.expect("a second half");
    assert_eq!(journey.staged, PathBuf::from("/run/maintenance"));
    assert_eq!(journey.root_mount.expect("the old root").source, "/dev/root");
    assert_eq!(journey.flash.len(), 2);
}
