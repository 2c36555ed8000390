use super::*;

const OPEN: Gate = Gate::Open;

fn facts(gate: Gate, services_are_down: bool, is_alone: bool) -> Facts {
    Facts { gate, flash_is_as_found: false, services_are_down, is_alone }
}

fn changing() -> Gate {
    Gate::Wait { writer: "flashcp (pid 7), on /dev/mtd5".into() }
}

fn unverified() -> Gate {
    Gate::Refuse { reason: vec!["run again:".into(), "    flashcp x mtd:firmware".into()] }
}

fn reboot(force: Force) -> Shutdown {
    Shutdown::new(Verb::Reboot, force, Limits::default())
}

#[test]
fn services_go_first_then_everybody_is_asked_then_made_to_end() {
    let mut wish = reboot(Force::No);
    assert_eq!(wish.step(0, &facts(OPEN, false, false)), [Step::StopServices]);
    assert_eq!(wish.step(100, &facts(OPEN, false, false)), []);
    assert_eq!(wish.step(200, &facts(OPEN, true, false)), [Step::TermAll]);
    assert_eq!(wish.deadline(200), 3_200);
    assert_eq!(wish.step(3_199, &facts(OPEN, true, false)), []);
    assert_eq!(wish.step(3_200, &facts(OPEN, true, false)), [Step::KillAll]);
    assert_eq!(wish.step(3_300, &facts(OPEN, true, true)), [Step::Finish(Verb::Reboot)]);
    // A kernel that refused to end is asked again.
    assert_eq!(wish.step(3_301, &facts(OPEN, true, true)), [Step::Finish(Verb::Reboot)]);
}

#[test]
fn where_nobody_is_left_nobody_is_waited_for() {
    let mut wish = Shutdown::new(Verb::Poweroff, Force::No, Limits::default());
    assert_eq!(wish.step(0, &facts(OPEN, false, false)), [Step::StopServices]);
    assert_eq!(wish.step(50, &facts(OPEN, true, true)), [Step::Finish(Verb::Poweroff)]);
}

#[test]
fn services_and_processes_that_will_not_end_do_not_keep_the_system_up() {
    let mut wish = reboot(Force::No);
    let stuck = facts(OPEN, false, false);
    wish.step(0, &stuck);
    assert_eq!(wish.step(20_000, &stuck), [Step::TermAll]);
    assert_eq!(wish.step(23_000, &stuck), [Step::KillAll]);
    assert_eq!(wish.step(25_999, &stuck), []);
    assert_eq!(wish.step(26_000, &stuck), [Step::Finish(Verb::Reboot)]);
}

#[test]
fn while_flash_is_being_changed_nothing_happens_and_the_writer_is_named_once() {
    let mut wish = reboot(Force::No);
    let wait = facts(changing(), false, false);
    let told = wish.step(0, &wait);
    assert_eq!(
        told,
        [Step::Tell(
            "reboot: waiting, because flash is being changed by flashcp (pid 7), on /dev/mtd5; it follows when that has ended (-f overrides)"
                .into()
        )]
    );
    for now in [250, 60_000, 86_400_000] {
        assert_eq!(wish.step(now, &wait), []);
        assert_eq!(wish.deadline(now), now + 250);
    }
    assert_eq!(wish.step(86_400_001, &facts(OPEN, false, false)), [Step::StopServices]);
}

#[test]
fn a_flash_that_ends_badly_turns_the_wait_into_a_refusal() {
    let mut wish = reboot(Force::No);
    wish.step(0, &facts(changing(), false, false));
    let lines = ["reboot: refused", "run again:", "    flashcp x mtd:firmware"].map(str::to_owned).to_vec();
    assert_eq!(wish.step(9, &facts(unverified(), false, false)), [Step::Refuse(lines)]);
    assert_eq!(wish.step(10, &facts(OPEN, true, true)), []);
}

#[test]
fn a_flash_that_begins_while_services_stop_is_neither_killed_nor_cut_off() {
    let mut wish = reboot(Force::No);
    wish.step(0, &facts(OPEN, false, false));
    let stopped = facts(changing(), true, false);
    assert!(matches!(wish.step(10, &stopped)[..], [Step::Tell(_)]));
    for now in [20_000, 40_000, 400_000] {
        assert_eq!(wish.step(now, &stopped), [], "at {now}");
    }
    assert_eq!(wish.step(400_001, &facts(OPEN, true, false)), [Step::TermAll]);
}

#[test]
fn force_overrides_flash_in_either_state() {
    for gate in [changing(), unverified()] {
        let mut wish = reboot(Force::Yes);
        assert_eq!(wish.step(0, &facts(gate, false, false)), [Step::StopServices]);
    }
    // Also when it comes later.
    let mut wish = reboot(Force::No);
    wish.step(0, &facts(changing(), false, false));
    wish.again(Verb::Halt, Force::Yes);
    assert_eq!(wish.step(1, &facts(changing(), false, false)), [Step::StopServices]);
    assert_eq!(wish.verb(), Verb::Halt);
}

#[test]
fn what_flash_was_when_it_was_found_stops_a_person_and_not_the_lease() {
    let found = Facts { flash_is_as_found: true, ..facts(unverified(), false, false) };
    assert!(matches!(reboot(Force::No).step(0, &found)[..], [Step::Refuse(_)]));
    let mut lease = reboot(Force::AsFound);
    assert_eq!(lease.step(0, &found), [Step::StopServices]);
    // somebody has changed flash since
    assert!(matches!(lease.step(10, &facts(unverified(), true, true))[..], [Step::Refuse(_)]));
    // a writer is waited for, whichever record that is
    let mut lease = reboot(Force::AsFound);
    let writing = Facts { flash_is_as_found: true, ..facts(changing(), false, false) };
    assert!(matches!(lease.step(0, &writing)[..], [Step::Tell(_)]));
    // -f goes on with all of it
    lease.again(Verb::Reboot, Force::Yes);
    assert_eq!(lease.step(20, &writing), [Step::StopServices]);
}
