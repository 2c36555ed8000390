//! The way in from systemd, which has stopped, unmounted and pivoted before: what is so already is left alone.

use std::path::Path;

use levitate::handover::seam::{Attached, Ending};
use levitate::handover::watchdog::WatchdogFacts;
use levitate::state::State;

use crate::double::{Double, Fault};

#[test]
fn what_systemd_has_done_is_not_done_again_and_the_rest_is() {
    let done = Double::pivoted().hand_over_from_systemd("reboot");
    assert!(done.init_runs, "{:?}", done.said);
    for never in ["pivot_root", "chroot", "move ", "bind ", "read verb"] {
        assert!(!done.calls.iter().any(|call| call.starts_with(never)), "{never}: {:?}", done.calls);
    }
    let report = done.report.expect("a report");
    assert_eq!(report.unmounted, ["/dev/pts", "/run", "/proc", "/dev", "/"]);
    assert_eq!((report.still_mounted.len(), report.notes), (0, vec![]));
    let mut left: Vec<&Path> = done.table.iter().map(|mount| mount.point.as_path()).collect();
    left.sort();
    assert_eq!(left, ["/", "/dev", "/proc"].map(Path::new), "the old /run is given back");
}

#[test]
fn the_state_file_that_systemd_has_unmounted_is_mounted_once_to_say_that_it_was_left() {
    let done = Double::pivoted().hand_over_from_systemd("reboot");
    let states: Vec<(State, &Path)> =
        done.state.iter().map(|(path, record)| (record.state, path.as_path())).collect();
    assert_eq!(states, [(State::Left, Path::new("/run/levitate/state/state.json"))]);
    let mounted = "mount /dev/mtdblock4 jffs2 /run/levitate/state".to_owned();
    assert!(done.calls.contains(&mounted), "{:?}", done.calls);
}

#[test]
fn a_state_file_on_ubi_that_systemd_has_unmounted_is_mounted_all_the_same() {
    let mut double = Double::pivoted();
    double.manifest = double.manifest.replace("/dev/mtdblock4", "ubi0:data").replace("jffs2", "ubifs");
    double.attached = vec![Attached::Ubi { number: 0, mtd: Some(6) }];
    let done = double.hand_over_from_systemd("reboot");
    assert_eq!(done.last_state().state, State::Left);
    assert_eq!((done.attached.len(), done.report.expect("a report").notes), (0, vec![]));
}

#[test]
fn a_failure_is_recorded_there_as_well() {
    let mut double = Double::pivoted();
    double.init_mode = 0o644;
    let done = double.hand_over_from_systemd("reboot");
    assert_eq!(done.endings, [Ending::Reset]);
    assert_eq!(done.last_state().state, State::Failed);
    let failure = done.failure();
    assert!(failure.contains("staged init /sbin/init is not executable (mode 0644)"), "{failure}");
}

#[test]
fn every_other_verb_is_what_it_is_once_the_old_root_is_unmounted() {
    for (verb, ending) in [
        ("poweroff", Ending::Poweroff),
        ("halt", Ending::Halt),
        ("kexec", Ending::Kexec),
        ("exit", Ending::Reset),
    ] {
        let done = Double::pivoted().hand_over_from_systemd(verb);
        assert_eq!(done.endings, [ending], "{verb}");
        let unmounted = done.calls.iter().position(|call| call == "umount /oldroot").expect(verb);
        let end = done.calls.iter().position(|call| call.starts_with("end ")).expect(verb);
        assert!(unmounted < end, "{verb}: {:?}", done.calls);
    }
}

#[test]
fn the_watchdog_that_systemd_leaves_running_is_taken_before_anything_else() {
    let mut double = Double::pivoted();
    double.watchdog = WatchdogFacts { unknown: vec!["/dev/watchdog0".into()], ..WatchdogFacts::default() };
    let done = double.hand_over_from_systemd("reboot");
    let place = |word: &str| done.calls.iter().position(|call| call == word).expect(word);
    assert!(place("open /dev/watchdog0") < place("kill(-1) Term"));
    assert_eq!(done.report.expect("a report").watchdogs[0].device, "/dev/watchdog0");
}

#[test]
fn without_an_old_root_nothing_is_taken_for_one() {
    let mut double = Double::pivoted();
    double.table.retain(|mount| !mount.point.starts_with("/oldroot"));
    let done = double.hand_over_from_systemd("reboot");
    assert_eq!(done.endings, [Ending::Reset]);
    let failure = done.failure();
    assert!(failure.contains("expected the old root at /oldroot, found nothing mounted there"), "{failure}");
}

#[test]
fn a_watchdog_whose_feeder_the_init_has_ended_before_is_taken_too() {
    let mut double = Double::new();
    double.manifest =
        double.manifest.replace(r#""handover""#, r#""watchdogs":["/dev/watchdog0"],"handover""#);
    let done = double.hand_over();
    assert_eq!(done.report.expect("a report").watchdogs[0].device, "/dev/watchdog0");
}

#[test]
fn whatever_fails_once_systemd_has_pivoted_it_ends_in_the_maintenance_root_or_in_the_old_system() {
    let all = Double::pivoted().hand_over_from_systemd("reboot").fallible;
    for place in 0..all {
        for fault in [Fault::Only(place), Fault::From(place)] {
            let mut double = Double::pivoted();
            double.fault = fault;
            let done = double.hand_over_from_systemd("reboot");
            let failed = done.failed.first();
            assert!(done.init_runs != (done.endings == [Ending::Reset]), "{failed:?}: {:?}", done.endings);
            assert!(done.init_runs || done.failure().starts_with("hand-over failed at stage "), "{failed:?}");
        }
    }
}
