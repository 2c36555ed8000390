//! A `flashcp` of the old system: it is let finish, and what it leaves behind is known in the maintenance root.

use std::path::PathBuf;

use levitate::handover::seam::Ending;
use levitate::handover::watchdog::WatchdogFacts;

use crate::double::{Double, FLASHCP, flash_record, process};

/// One that is at work for 200 s more, which is longer than the hand-over may take.
fn at_work(ends_as: &'static str) -> Double {
    let mut double = Double::new();
    double.processes.push(process(FLASHCP, "flashcp", 'D', false));
    double.flash = Some(flash_record("changing"));
    double.flash_ends = Some((201_000, ends_as));
    double
}

fn place(done: &Double, call: &str) -> usize {
    let place = done.calls.iter().position(|c| c == call);
    place.unwrap_or_else(|| panic!("no call {call} in {:#?}", done.calls))
}

#[test]
fn who_changes_flash_is_waited_for_beyond_the_deadline_with_a_line_every_ten_seconds() {
    // The double does not let it be killed, nor the guard go off.
    let done = at_work("verified").hand_over();
    assert!(done.init_runs, "{:?}", done.said);
    let line = "waiting for flashcp (pid 123), on /dev/mtd5, which is changing flash";
    let lines = done.said.iter().filter(|(_, said)| said == line).count();
    assert!((19..=21).contains(&lines), "{lines}");
    let report = done.report.expect("a report");
    assert_eq!(report.notes, ["waited 200 s for a flashcp of the old system to finish"]);
    assert!(report.total_ms < 90_000, "{}", report.total_ms);
    assert_eq!(done.written, [], "flash is verified");
}

#[test]
fn neither_a_poweroff_nor_a_root_that_cannot_be_entered_ends_who_changes_flash() {
    let mut double = at_work("verified");
    double.verb = Some("poweroff".into());
    assert_eq!(double.hand_over().endings, [Ending::Poweroff]);
    let mut double = at_work("verified");
    double.init_mode = 0o644;
    assert_eq!(double.hand_over().endings, [Ending::Reset]);
    let mut double = at_work("verified");
    double.manifest = "{".into();
    assert_eq!(double.hand_over().endings, [Ending::Reset]);
}

#[test]
fn a_watchdog_that_runs_unfed_is_taken_before_the_wait() {
    let mut double = at_work("verified");
    double.watchdog = WatchdogFacts { active: vec!["/dev/watchdog0".into()], ..WatchdogFacts::default() };
    let done = double.hand_over();
    assert!(place(&done, "open /dev/watchdog0") < place(&done, "pause"));
}

#[test]
fn one_whose_feeder_ends_during_the_wait_is_taken_then() {
    let mut double = at_work("verified");
    double.watchdog =
        WatchdogFacts { holders: vec![(99, "/dev/watchdog".into())], ..WatchdogFacts::default() };
    let done = double.hand_over();
    assert!(place(&done, "open /dev/watchdog") < place(&done, "kill(-1) Term"));
}

#[test]
fn flash_that_is_not_known_to_be_right_is_known_in_the_maintenance_root() {
    let mut killed = Double::new();
    killed.flash = Some(flash_record("changing"));
    let mut odd = Double::new();
    odd.flash = Some("{".into());
    let scenes = [
        (at_work("unverified"), flash_record("unverified")),
        (killed, flash_record("changing")),
        (odd, "{".into()),
    ];
    for (double, record) in scenes {
        let done = double.hand_over();
        assert!(done.init_runs, "{:?}", done.said);
        assert_eq!(done.written, [(PathBuf::from("/run/levitate/flash.json"), record)]);
        let written = place(&done, "write /run/levitate/flash.json");
        assert!(place(&done, "umount /oldroot") < written && written < place(&done, "exec /sbin/init"));
        let notes = done.report.expect("a report").notes;
        assert!(
            notes.contains(&"flash was changed in the old system and not verified".to_owned()),
            "{notes:?}"
        );
    }
}

#[test]
fn a_record_that_cannot_be_read_for_a_moment_kills_nobody() {
    // The double does not let its writer be killed.
    let mut double = at_work("verified");
    double.flash_unread_until = 2_500;
    // by its name alone it would not be known
    double.processes.iter_mut().filter(|p| p.pid == FLASHCP).for_each(|p| p.name = "levitate".into());
    let done = double.hand_over();
    assert!(done.init_runs && done.written.is_empty(), "{:?}", done.said);
}

#[test]
fn flash_whose_record_can_never_be_read_is_known_in_the_maintenance_root() {
    let mut double = Double::new();
    double.flash_unread_until = u64::MAX;
    let done = double.hand_over();
    assert!(done.init_runs, "{:?}", done.said);
    let [(_, record)] = done.written.as_slice() else { panic!("{:?}", done.written) };
    assert!(record.contains("\"state\":\"unverified\"") && record.contains("cannot be read"), "{record}");
    let notes = done.report.expect("a report").notes;
    assert!(
        notes[0].starts_with("cannot understand the flash record /run/levitate/flash.json: "),
        "{notes:?}"
    );
}

#[test]
fn flash_that_was_verified_leaves_nothing_behind() {
    let mut double = Double::new();
    double.flash = Some(flash_record("verified"));
    let done = double.hand_over();
    assert!(done.init_runs && done.written.is_empty());
}
