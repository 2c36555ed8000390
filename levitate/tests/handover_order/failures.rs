//! A failure at each call: it ends in the old system, or it was one that nothing depends on. Never in between.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use levitate::handover::seam::{Ending, Weight};
use levitate::handover::stage::Stage;
use levitate::state::State;

use crate::double::{Double, Fault, error};

/// The calls without which the hand-over is still whole, by the beginning of their text.
const TOLERATED: [&str; 17] = [
    "reset signals",
    "forbid ctrl-alt-del",
    "panic timeout",
    "state ",
    "kill(-1)",
    "swaps",
    "swapoff",
    "plain flags",
    "identity",
    "sweep",
    "read /run/levitate/flash.json",
    "writable",
    // Tried again.
    "umount",
    "processes",
    "tables of others",
    "exclusive",
    "report",
];

#[test]
fn a_failure_at_any_call_ends_in_the_old_system_with_the_reason_or_matters_to_nothing() {
    each_call_fails(|| error(libc::EIO));
}

#[test]
fn a_call_that_is_given_up_at_its_deadline_is_a_failure_like_any_other() {
    each_call_fails(|| io::Error::new(io::ErrorKind::TimedOut, "not done within 10000 ms"));
}

fn each_call_fails(says: fn() -> io::Error) {
    let all = Double::new().hand_over().fallible;
    assert!(all > 60, "{all} calls");
    for place in 0..all {
        let mut double = Double::new();
        double.fault = Fault::Only(place);
        double.says = says;
        let done = double.hand_over();
        let [failed] = done.failed.as_slice() else { panic!("{:?}", done.failed) };
        // what is stuck in the kernel is stuck for good
        let hopeless = says().kind() == io::ErrorKind::TimedOut && failed == "umount /oldroot";
        if !hopeless && TOLERATED.iter().any(|word| failed.starts_with(word)) {
            assert!(done.init_runs && done.endings.is_empty(), "{failed}: {:?}", done.said);
            continue;
        }
        // Looking at what to sweep is the one look at the mount table that may fail; the proof looks again.
        if done.init_runs {
            assert_eq!(failed, "mounts");
            let notes = done.report.expect("a report").notes;
            let mut last = done.calls.iter().skip_while(|call| *call != "umount /oldroot");
            let again = last.any(|call| call == "pause");
            assert!(
                again != notes.iter().any(|n| n.contains("what is left of the old /run stays")),
                "{notes:?}"
            );
            continue;
        }
        assert_eq!(done.endings, [Ending::Reset], "{failed}");
        assert!(done.calls.last().is_some_and(|last| last == "end Reset"), "{failed}");
        let failure = done.failure();
        assert!(failure.starts_with("hand-over failed at stage "), "{failure}");
        assert!(failure.ends_with("; resetting into the old system"), "{failure}");
        if done.state.iter().all(|(_, record)| record.state != State::Left) && !done.state.is_empty() {
            assert_eq!(done.last_state().state, State::Failed, "{failed}");
            let reason = done.last_state().reason.as_deref().expect("a reason");
            assert!(failure.contains(reason), "{failure} / {reason}");
        }
    }
}

#[test]
fn processes_that_can_never_be_listed_are_a_reset_and_not_nobody() {
    let mut double = Double::new();
    double.unlisted_from = Some(0);
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    assert!(done.failure().contains("at stage end_processes: list the processes: "), "{}", done.failure());
    let kills = done.calls.iter().filter(|call| *call == "kill(-1) Kill").count();
    assert!(kills > 100, "{kills}: whoever cannot be looked at may be there");
    // from the second half on: the proof alone asks
    let mut double = Double::new();
    double.unlisted_from = Some(Double::new().hand_over().calls.len() - 20);
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    assert!(done.failure().contains("at stage prove: list the kernel's threads: "), "{}", done.failure());
}

/// The hand-over, unless the guard resets the board before it comes to an end: the double panics then.
fn until_the_guard(double: Double) -> Option<Double> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| double.hand_over())).ok()
}

/// The stage at which the hand-over says that it failed.
fn failed_stage(done: &Double) -> Option<Stage> {
    let line = done.said.iter().find(|(weight, _)| *weight == Weight::Failure)?;
    let name = line.1.strip_prefix("hand-over failed at stage ")?.split(':').next()?;
    Stage::from_name(name)
}

#[test]
fn each_of_the_ten_stages_can_fail_and_is_then_named() {
    let all = Double::new().hand_over().fallible;
    let mut stages = BTreeSet::new();
    for place in 0..all {
        for fault in [Fault::Only(place), Fault::From(place)] {
            let mut double = Double::new();
            double.fault = fault;
            stages.extend(failed_stage(&double.hand_over()));
        }
        let mut double = Double::new();
        double.slow_at = Some((place, 91_000));
        stages.extend(until_the_guard(double).as_ref().and_then(failed_stage));
    }
    assert_eq!(stages, BTreeSet::from(Stage::ALL));
}

#[test]
fn a_call_that_takes_all_the_time_there_is_leaves_the_rest_to_the_old_system() {
    let all = Double::new().hand_over().fallible;
    let last_stage = fallible_place("report /run/levitate/handover.json");
    for place in 0..all {
        let mut double = Double::new();
        // the deadline is at 90 s, and the guard at 93 s
        double.slow_at = Some((place, 91_000));
        let Some(done) = until_the_guard(double) else { continue };
        if done.init_runs {
            // in the last stage nobody looks at the clock any more
            assert!(place >= last_stage, "call {place}: {:?}", done.calls);
            continue;
        }
        assert_eq!(done.endings, [Ending::Reset], "call {place}");
        assert!(failed_stage(&done).is_some(), "call {place}: {:?}", done.said);
    }
}

#[test]
fn when_everything_fails_from_some_call_on_it_still_ends_in_the_old_system() {
    let all = Double::new().hand_over().fallible;
    for place in 0..all {
        let mut double = Double::new();
        double.fault = Fault::From(place);
        let done = double.hand_over();
        assert!(!done.init_runs);
        assert_eq!(done.endings, [Ending::Reset], "from {place}: {:?}", done.failed.first());
        assert!(done.said.iter().any(|(weight, _)| *weight == Weight::Failure));
    }
}

#[test]
fn a_state_file_that_cannot_be_written_is_not_tried_at_every_stage() {
    let mut double = Double::new();
    let first = Double::new().hand_over().calls.iter().filter(|c| c.starts_with("state ")).count();
    assert_eq!(first, 8);
    // Slow in itself, and then failing, as a dying disk is.
    double.slow = Some(("state ", 100));
    double.fault = Fault::Only(fallible_place("state entering check"));
    let done = double.hand_over();
    assert_eq!(done.calls.iter().filter(|c| c.starts_with("state ")).count(), 1);
    assert!(done.init_runs);
}

#[test]
fn a_state_file_that_could_not_be_written_once_still_gets_the_reason_of_a_failure() {
    let mut double = Double::new();
    double.fault = Fault::Only(fallible_place("state entering check"));
    double.init_mode = 0o644;
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    assert_eq!(done.state.len(), 1);
    assert_eq!((done.last_state().state, done.last_state().stage.as_deref()), (State::Failed, Some("check")));
    assert!(done.last_state().reason.as_deref().is_some_and(|reason| reason.contains("(mode 0644)")));
}

fn fallible_place(call: &str) -> usize {
    let all = Double::new().hand_over().fallible;
    (0..all)
        .find(|place| {
            let mut double = Double::new();
            double.fault = Fault::Only(*place);
            double.hand_over().failed == [call]
        })
        .expect("a call of that text")
}

#[test]
fn past_its_deadline_the_hand_over_goes_no_further() {
    let mut double = Double::new();
    double.slow = Some(("swapoff", 95_000));
    let done = double.hand_over();
    assert_eq!(done.endings, [Ending::Reset]);
    assert_eq!(done.last_state().reason.as_deref(), Some("not done within 90000 ms"));
    assert!(!done.calls.iter().any(|call| call.starts_with("bind")));
}

#[test]
fn the_guard_is_set_before_anything_else_in_both_halves() {
    let done = Double::new().hand_over();
    assert_eq!(done.calls.first().map(String::as_str), Some("guard Reset"));
    let resumed = done.calls.iter().position(|call| call == "exec /run/maintenance/sbin/levitate");
    let after = resumed.and_then(|place| done.calls.get(place + 1)).map(String::as_str);
    assert_eq!(after, Some("guard Reset"));
}

#[test]
fn a_damaged_manifest_is_told_in_the_state_file_that_the_record_of_arming_names() {
    let armed = r#"{"version":2,"run":null,"steps":[],"state":{"file":"/persist/state.json",
        "home":{"source":"/dev/mtdblock4","fstype":"jffs2","file":"state.json"}}}"#;
    let reason = "read /run/maintenance/etc/levitate/manifest.json: ";
    for manifest in ["{", r#"{"version":1}"#, ""] {
        let mut double = Double::new();
        (double.manifest, double.armed) = (manifest.into(), Some(armed.into()));
        let done = double.hand_over();
        assert_eq!(done.endings, [Ending::Reset]);
        let (path, record) = done.state.last().expect("a record");
        assert_eq!(path, Path::new("/persist/state.json"));
        assert_eq!((record.state, record.boot_id.as_str()), (State::Failed, "b"));
        assert!(record.reason.as_deref().unwrap().starts_with(reason), "{record:?}");
    }
    // one of another boot or another version as well
    let mut double = Double::new();
    double.manifest = double.manifest.replace(r#""boot_id":"b""#, r#""boot_id":"a""#);
    double.armed = Some(armed.into());
    assert_eq!(double.hand_over().last_state().state, State::Failed);

    // systemd has unmounted the state file's file system: it is mounted once more
    let mut double = Double::pivoted();
    (double.manifest, double.armed) = ("{".into(), Some(armed.into()));
    let done = double.hand_over_from_systemd("reboot");
    let (path, record) = done.state.last().expect("a record");
    assert_eq!((path.as_path(), record.state), (Path::new("/run/levitate/state/state.json"), State::Failed));
}

#[test]
fn without_a_record_of_arming_a_damaged_manifest_still_ends_in_a_reset() {
    for armed in [None, Some("{".to_owned()), Some(r#"{"version":2,"run":null,"steps":[]}"#.to_owned())] {
        let mut double = Double::new();
        (double.manifest, double.armed) = ("{".into(), armed);
        let done = double.hand_over();
        assert_eq!((done.endings.as_slice(), done.state.len()), (&[Ending::Reset][..], 0));
        assert!(done.failure().contains("manifest.json"), "{}", done.failure());
    }
}
