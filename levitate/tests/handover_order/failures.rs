//! A failure at each call: it ends in the old system, or it was one that nothing depends on. Never in between.

use levitate::handover::seam::{Ending, Weight};
use levitate::state::State;

use crate::double::{Double, Fault};

/// The calls without which the hand-over is still whole, by the beginning of their text.
const TOLERATED: [&str; 15] = [
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
    "exclusive",
    "report",
];

#[test]
fn a_failure_at_any_call_ends_in_the_old_system_with_the_reason_or_matters_to_nothing() {
    let all = Double::new().hand_over().fallible;
    assert!(all > 60, "{all} calls");
    for place in 0..all {
        let mut double = Double::new();
        double.fault = Fault::Only(place);
        let done = double.hand_over();
        let [failed] = done.failed.as_slice() else { panic!("{:?}", done.failed) };
        if TOLERATED.iter().any(|word| failed.starts_with(word)) {
            assert!(done.init_runs && done.endings.is_empty(), "{failed}: {:?}", done.said);
            continue;
        }
        // Looking at what to sweep is the one look at the mount table that may fail.
        if done.init_runs {
            assert_eq!(failed, "mounts");
            let notes = done.report.expect("a report").notes;
            assert!(notes[0].contains("what is left of the old /run stays"), "{notes:?}");
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
