//! The lease in PID 1's loop, as stories.

use super::*;

fn leased() -> Stage {
    let mut stage = Stage::new(set(), Script::default()).with_lease(8_000);
    stage.init.start();
    stage.done();
    stage
}

fn ends(stage: &mut Stage) -> Vec<String> {
    stage.done().into_iter().filter(|line| line.contains("reboot")).collect()
}

#[test]
fn a_lease_that_nobody_renews_warns_everybody_and_reboots() {
    let mut stage = leased();
    stage.pass(7_200);
    assert_eq!(
        stage.done(),
        [
            "report nobody is logged in: rebooting into the system on flash in 4 s (log in, or `levitate hold`, to stay)"
        ]
    );
    stage.pass(8_000);
    assert_eq!(
        ends(&mut stage),
        [
            "report the lease is over: nobody was logged in for 8 s; rebooting into the system on flash",
            "report reboot: stopping services"
        ]
    );
    assert!(stage.log().contains("lease: runs; reboot in 8 s unless somebody logs in"), "{}", stage.log());
}

#[test]
fn a_session_of_the_login_service_stops_the_lease_and_its_end_starts_it_again() {
    let mut stage = leased();
    stage.init.kernel.logged_in = true;
    stage.pass(60_000);
    assert_eq!(ends(&mut stage), [""; 0]);
    let lease = stage.request(1, "lease");
    assert_eq!(
        lease[0],
        r#"answer 1: {"state":"logged_in","sessions":[{"user":"root","pid":102,"program":"sh"}],"lease_ms":8000}"#
    );
    assert_eq!(stage.init.kernel.others, [1], "net lets nobody in");
    stage.init.kernel.logged_in = false;
    stage.request(1, "lease");
    stage.pass(67_000);
    assert!(!ends(&mut stage).iter().any(|line| line.contains("stopping")));
    stage.pass(69_000);
    assert!(ends(&mut stage).contains(&"report reboot: stopping services".to_owned()));
}

#[test]
fn hold_and_release_are_answered_and_obeyed() {
    let mut stage = leased();
    assert_eq!(
        stage.request(1, "hold")[..2],
        ["answer 1: the lease is held until `levitate release` or the reboot", "answer 1: exit 0"]
    );
    stage.pass(100_000);
    assert_eq!(ends(&mut stage), [""; 0]);
    assert_eq!(stage.request(1, "release")[0], "answer 1: the lease is no longer held");
    assert_eq!(stage.request(1, "release")[0], "answer 1: the lease was not held");
    assert_eq!(stage.request(1, "hold 20000")[0], "answer 1: the lease is held for 20 s, then it runs again");
    stage.pass(127_000);
    assert!(!ends(&mut stage).iter().any(|line| line.contains("stopping")));
    stage.pass(130_000);
    assert!(ends(&mut stage).contains(&"report reboot: stopping services".to_owned()));
}

#[test]
fn while_flash_is_at_risk_the_lease_never_ends_and_no_process_is_looked_at() {
    for gate in [changing(), unverified()] {
        let mut stage = leased();
        stage.init.kernel.gate = gate;
        stage.pass(1_000_000);
        assert_eq!((ends(&mut stage), stage.init.kernel.looks), (vec![], 0));
        stage.init.kernel.gate = None;
        stage.pass(1_020_000);
        assert!(ends(&mut stage).contains(&"report reboot: stopping services".to_owned()));
    }
}

#[test]
fn a_record_of_the_old_systems_keeps_the_device_only_once_somebody_was_there() {
    let carried = || {
        let mut stage = leased();
        stage.init.kernel.gate = unverified();
        stage.init.kernel.as_found = true;
        stage
    };
    let mut nobody = carried();
    nobody.pass(9_000);
    let ended = ends(&mut nobody);
    assert!(ended.contains(&"report reboot: stopping services".to_owned()), "{ended:?}");
    assert!(ended.iter().any(|line| line.ends_with("and did run with that)")), "{ended:?}");

    // a person is refused as ever
    let mut person = carried();
    let said = person.request(1, "reboot");
    assert!(said.contains(&"answer 1: reboot: refused".to_owned()), "{said:?}");

    let mut visited = carried();
    visited.init.kernel.logged_in = true;
    visited.pass(2_000);
    visited.init.kernel.logged_in = false;
    visited.pass(1_000_000);
    assert_eq!(ends(&mut visited), [""; 0]);
}

#[test]
fn without_terms_there_is_no_lease_and_off_is_off() {
    let mut stage = started();
    for request in ["lease", "hold", "release"] {
        let said = stage.request(1, request);
        assert_eq!(
            said,
            [
                "answer 1: there is no lease here: this is no maintenance root",
                "answer 1: exit 1",
                "hang up 1"
            ]
        );
    }
    let terms = Terms { lease_ms: None, ..Terms::default() };
    let mut stage = Stage::new(set(), Script { watchdog: Some(9_000_000), ..Script::default() });
    stage.init = stage.init.with_lease(terms);
    stage.init.start();
    stage.pass(9_000_000);
    assert_eq!((ends(&mut stage), stage.init.kernel.looks), (vec![], 0));
    assert_eq!(stage.request(1, "hold")[0], "answer 1: the lease is off: there is nothing to hold");
    assert_eq!(stage.request(1, "lease")[0], r#"answer 1: {"state":"off","lease_ms":null}"#);
}

#[test]
fn what_the_ssh_server_says_makes_the_lease_look_at_once() {
    let mut stage = Stage::new(set(), Script::default()).with_lease(900_000);
    stage.init.start();
    stage.pass(2_000);
    let before = stage.init.kernel.looks;
    stage.happen([Event::Output { service: "sshd".into(), bytes: b"auth succeeded\n".to_vec() }]);
    stage.pass(3_000);
    assert_eq!(stage.init.kernel.looks - before, 10);
    stage.happen([Event::Output { service: "net".into(), bytes: b"hello\n".to_vec() }]);
    let before = stage.init.kernel.looks;
    stage.pass(5_000);
    assert_eq!(stage.init.kernel.looks - before, 1);
}
