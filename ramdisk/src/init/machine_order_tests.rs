//! Orders from the control socket, as stories.

use super::*;

/// `plug` controls `modem`, which `wan` needs; only `plug` is started at boot.
fn with_a_controller() -> Stage {
    let longrun = |name: &str| Service::longrun(name, "/s", Program::Words(vec![name.into()]));
    let set = ServiceSet::new([
        longrun("plug"),
        longrun("modem").controlled_by("plug").notifying(3),
        longrun("wan").after("modem"),
        Service::bundle("default", "/s/default", ["plug"]),
    ])
    .unwrap();
    set.check().unwrap();
    let mut stage = Stage::new(set, Script::default());
    stage.init.start();
    assert_eq!(stage.done(), ["spawn plug in /"]);
    stage
}

#[test]
fn an_order_that_waits_is_answered_when_all_it_needs_is_up() {
    let mut stage = with_a_controller();
    assert_eq!(stage.request(1, "up wait -- wan"), ["spawn modem in /"]);
    let done = stage.happen([Event::Ready { pid: 2 }]);
    assert_eq!(
        done,
        [
            "answer 1: info modem: up",
            "spawn wan in /",
            "answer 1: info wan: up",
            "answer 1: exit 0",
            "hang up 1"
        ]
    );
    // Already so: answered at once.
    assert_eq!(stage.request(2, "up wait -- wan"), ["answer 2: exit 0", "hang up 2"]);
    let done = stage.request(3, "down wait=500 -- modem");
    assert_eq!(done, ["SIGTERM to Process(3)"]);
    let done = stage.exit(3);
    assert_eq!(done, ["answer 3: info wan: down", "SIGTERM to Process(2)"]);
    stage.init.kernel.now = 499;
    assert_eq!(stage.happen([Event::Tick]), [""; 0]);
    assert_eq!(stage.init.deadline(), Some(500));
    stage.init.kernel.now = 500;
    assert_eq!(stage.happen([Event::Tick]), ["answer 3: exit 2", "hang up 3"]);
}

#[test]
fn an_order_that_cannot_be_done_is_answered_with_what_went_wrong() {
    let mut stage = with_a_controller();
    assert_eq!(
        stage.request(1, "up wait -- wan lan"),
        ["answer 1: there is no service named lan", "answer 1: exit 3", "hang up 1"]
    );
    stage.request(2, "up wait -- wan");
    stage.init.kernel.now = 20_000;
    let done = stage.happen([Event::Tick]);
    assert!(done.contains(&"answer 2: warning modem: marked down: not ready in time".to_owned()), "{done:?}");
    assert!(
        done.contains(&"answer 2: warning wan: marked down: it needs modem, which is marked down".to_owned()),
        "{done:?}"
    );
    let done = stage.exit(2);
    assert_eq!(done, ["answer 2: exit 1", "hang up 2"]);
}

#[test]
fn a_controllers_order_starts_nothing_once_the_controller_is_to_go_down() {
    let mut stage = with_a_controller();
    assert_eq!(stage.request(1, "once wait by-controller -- modem"), ["spawn modem in /"]);
    stage.happen([Event::Ready { pid: 2 }]);
    assert_eq!(stage.request(2, "down -- plug"), ["SIGTERM to Process(2)", "answer 2: exit 0", "hang up 2"]);
    // The controller still runs, hears of it, and would start the next one: the stop would never end.
    let done = stage.exit(2);
    assert_eq!(
        done,
        ["answer 1: info modem: down", "SIGTERM to Process(1)", "answer 1: exit 0", "hang up 1"]
    );
    assert_eq!(
        stage.request(3, "once wait by-controller -- modem"),
        ["answer 3: the controller of modem is going down", "answer 3: exit 1", "hang up 3"]
    );
    assert_eq!(
        stage.request(4, "up by-controller -- wan")[0],
        "answer 4: wan has no controlled-by: only people start it"
    );
    stage.exit(1);
    assert!(stage.init.supervisor.is_all_down());
}

#[test]
fn nothing_is_started_while_the_system_ends_and_signals_reach_the_process() {
    let mut stage = with_a_controller();
    assert_eq!(
        stage.request(1, "SIGHUP -- default"),
        ["SIGHUP to Process(1)", "answer 1: exit 0", "hang up 1"]
    );
    assert_eq!(
        stage.request(2, "restart -- plug"),
        ["SIGTERM to Process(1)", "answer 2: exit 0", "hang up 2"]
    );
    stage.request(3, "reboot");
    let done = stage.request(4, "up -- modem");
    assert_eq!(done[0], "answer 4: the system is about to end: nothing is started");
}

#[test]
fn one_who_waits_too_many_is_told_and_one_who_left_makes_room() {
    let mut stage = with_a_controller();
    for from in 1..=32 {
        stage.request(from, "up wait -- modem");
    }
    let full = "answer 33: 32 orders are waited for already: nothing was done";
    assert_eq!(stage.request(33, "down wait -- plug"), [full, "answer 33: exit 1", "hang up 33"]);
    // Who does not wait is served.
    assert_eq!(stage.request(34, "SIGHUP -- plug")[0], "SIGHUP to Process(1)");
    assert_eq!(stage.happen([Event::Gone { from: 7 }]), [""; 0]);
    assert_eq!(stage.request(33, "up wait -- modem"), [""; 0]);
    let done = stage.happen([Event::Ready { pid: 2 }]);
    assert!(done.contains(&"answer 33: exit 0".to_owned()), "{done:?}");
    assert!(!done.iter().any(|line| line.starts_with("answer 7:")), "{done:?}");
}

#[test]
fn many_who_ask_for_the_end_are_bounded_and_the_end_is_still_wanted() {
    let mut stage = with_a_controller();
    stage.init.kernel.gate = changing();
    for from in 1..=16 {
        stage.request(from, "reboot");
    }
    stage.happen([Event::Gone { from: 2 }]);
    assert!(!stage.request(17, "reboot").iter().any(|line| line.starts_with("hang up")));
    let done = stage.request(18, "reboot");
    assert!(done.contains(&"hang up 1".to_owned()), "{done:?}");
    stage.init.kernel.gate = None;
    let done = stage.happen([Event::Tick]);
    assert_eq!(done.iter().filter(|line| line.ends_with(": exit 0")).count(), 16, "{done:?}");
    assert!(!done.contains(&"answer 2: exit 0".to_owned()), "{done:?}");
}

#[test]
fn programs_are_told_everything_about_each_service() {
    let mut stage = with_a_controller();
    let done = stage.request(1, "services");
    let text = done[0].strip_prefix("answer 1: ").unwrap();
    let entries: Vec<crate::init::snapshot::Entry> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["default", "modem", "plug", "wan"]);
    assert_eq!(entries[0].members, ["plug"]);
    assert_eq!((entries[1].state.as_str(), entries[1].at_boot), ("down", false));
    assert_eq!(entries[1].controlled_by.as_deref(), Some("plug"));
    assert_eq!(entries[1].needs, ["plug"]);
    assert_eq!((entries[2].pid, entries[2].wanted, entries[2].at_boot), (Some(1), true, true));
    assert_eq!(&done[1..], ["answer 1: exit 0", "hang up 1"]);
}

#[test]
fn a_producers_output_is_its_consumers_input() {
    let mut service = Service::longrun("web", "/s", Program::Words(vec!["web".into()]));
    service.pipeline.producer_for = Some("web-log".into());
    service.pipeline.consumer_for = ["cgi".to_owned()].into();
    let run = launch(&service, What::Run).unwrap();
    assert_eq!((run.reads_pipe, run.writes_pipe_of.as_deref()), (true, Some("web-log")));
}

#[test]
fn a_oneshot_that_is_to_run_once_is_done_when_it_is_up_and_what_could_not_run_has_failed() {
    let longrun = |name: &str| Service::longrun(name, "/s", Program::Words(vec![name.into()]));
    let oneshot = |name: &str| Service::oneshot(name, "/s", Some(Program::Words(vec![name.into()])), None);
    let set = ServiceSet::new([
        longrun("plug"),
        oneshot("setup").controlled_by("plug"),
        longrun("link").after("setup"),
        Service::bundle("default", "/s/default", ["plug"]),
    ])
    .unwrap();
    let mut stage = Stage::new(set, Script::default());
    stage.init.start();
    stage.request(1, "once wait -- setup");
    assert_eq!(
        stage.happen([Event::Exited { pid: 2, outcome: Outcome::Code(0) }]),
        ["answer 1: info setup: up", "answer 1: exit 0", "hang up 1"]
    );
    stage.request(2, "once wait -- link");
    let done = stage.exit(3);
    assert_eq!(done.last().unwrap(), "hang up 2");
    assert!(done.contains(&"answer 2: exit 0".to_owned()), "{done:?}");
    stage.request(3, "down wait -- setup");
    stage.request(4, "once wait -- link");
    let done = stage.happen([Event::Exited { pid: 4, outcome: Outcome::Code(1) }]);
    assert_eq!(
        done,
        [
            "report setup: marked down: up ended with exit code 1",
            "answer 4: warning link: marked down: it needs setup, which is marked down",
            "report link: marked down: it needs setup, which is marked down",
            "answer 4: exit 1",
            "hang up 4"
        ]
    );
}
