//! The rules as stories.

use super::double::{World, bundle, longrun, oneshot, with_finish};
use super::*;
use crate::service::Kind;

const OK: Outcome = Outcome::Code(0);
const TERMINATED: Outcome = Outcome::Signal(15);
const KILLED: Outcome = Outcome::Signal(9);

#[test]
fn independent_services_start_at_once_and_a_dependent_waits_for_readiness() {
    let mut w = World::new([
        longrun("net").notifying(3),
        longrun("clock"),
        longrun("sshd").after("net"),
        bundle("default", ["sshd", "clock"]),
    ]);
    w.start("default");
    assert_eq!(w.told(), ["run clock", "run net", "clock: up"]);
    w.wait_until(19_999);
    assert_eq!(w.told(), [""; 0]);
    w.ready("net");
    assert_eq!(w.told(), ["net: up", "run sshd", "sshd: up"]);
    assert!(w.supervisor.is_settled());
    assert_eq!(w.supervisor.next_deadline(), None);
}

#[test]
fn not_ready_in_time_means_terminated_and_marked_down_with_all_that_waited() {
    let mut w =
        World::new([longrun("net").notifying(3), longrun("sshd").after("net"), longrun("web").after("sshd")]);
    w.start("web");
    w.wait_until(20_000);
    assert_eq!(
        w.told(),
        [
            "run net",
            "net: marked down: not ready in time",
            "sshd: marked down: it needs net, which is marked down",
            "web: marked down: it needs net, which is marked down",
            "SIGTERM to net",
        ]
    );
    w.exit("net", TERMINATED);
    assert_eq!(w.failure("net"), Some(Failure::TimedOut));
    assert_eq!(w.failure("web"), Some(Failure::Needs("net".into())));
    w.assert_over();
}

#[test]
fn one_that_dies_before_it_was_ready_is_started_again_until_the_time_is_over() {
    let mut w = World::new([longrun("net").notifying(3)]);
    w.start("net");
    for second in 0..20 {
        w.wait_until(second * 1_000 + 10);
        w.exit("net", Outcome::Code(1));
    }
    let starts = w.told().iter().filter(|line| *line == "run net").count();
    assert_eq!(starts, 20);
    w.wait_until(100_000);
    assert_eq!(w.told(), ["net: marked down: not ready in time"]);
    w.assert_over();
}

#[test]
fn a_process_that_dies_is_started_again_at_most_once_a_second_and_stays_up() {
    let mut w = World::new([longrun("net"), longrun("sshd").after("net")]);
    w.start("sshd");
    w.told();
    w.wait_until(300);
    w.exit("net", Outcome::Signal(11));
    assert_eq!(w.phase("net"), Phase::Up);
    assert_eq!(w.told(), ["net: process ended with signal SIGSEGV, starting it again"]);
    w.wait_until(999);
    assert_eq!(w.told(), [""; 0]);
    w.wait_until(1_000);
    assert_eq!(w.told(), ["run net"]);
    // One that has lived longer is started again at once.
    w.wait_until(50_000);
    w.exit("net", OK);
    assert_eq!(w.told(), ["net: process ended with exit code 0, starting it again", "run net"]);
    assert_eq!(w.supervisor.status()[0].restarts, 2);
    assert_eq!(w.phase("sshd"), Phase::Up);
}

#[test]
fn readiness_of_a_process_that_is_gone_means_nothing() {
    let mut w = World::new([longrun("net").notifying(3)]);
    w.start("net");
    let old = w.pid("net");
    w.exit("net", OK);
    w.wait_until(1_000);
    w.input(&Input::Ready { pid: old });
    assert_eq!(w.phase("net"), Phase::Starting);
    w.ready("net");
    assert_eq!(w.phase("net"), Phase::Up);
}

#[test]
fn services_stop_in_reverse_order_and_each_waits_for_the_last_that_needs_it() {
    let mut w = World::new([
        longrun("net"),
        longrun("sshd").after("net"),
        longrun("web").after("net"),
        longrun("clock"),
    ]);
    for name in ["sshd", "web", "clock"] {
        w.start(name);
    }
    w.told();
    w.stop_all();
    assert_eq!(w.told(), ["SIGTERM to clock", "SIGTERM to sshd", "SIGTERM to web"]);
    w.exit("sshd", TERMINATED);
    assert_eq!(w.told(), ["sshd: down"]);
    w.exit("web", TERMINATED);
    assert_eq!(w.told(), ["web: down", "SIGTERM to net"]);
    w.exit("net", TERMINATED);
    w.exit("clock", TERMINATED);
    assert_eq!(w.told(), ["net: down", "clock: down"]);
    assert!(w.supervisor.is_all_down());
    w.assert_over();
}

#[test]
fn one_that_ignores_term_is_killed_after_its_limit() {
    let mut service = longrun("deaf");
    if let Kind::Longrun { timeout_kill, down_signal, .. } = &mut service.kind {
        *timeout_kill = Timeout::After(700);
        *down_signal = Signal::SIGHUP;
    }
    let mut w = World::new([service, longrun("plain")]);
    w.start("deaf");
    w.start("plain");
    w.told();
    w.stop_all();
    assert_eq!(w.told(), ["SIGHUP to deaf", "SIGTERM to plain"]);
    w.wait_until(700);
    assert_eq!(w.told(), ["deaf: did not end in time, killed", "SIGKILL to deaf"]);
    // Without a limit of its own the limit of the stop counts.
    w.wait_until(10_000);
    assert_eq!(w.told(), ["plain: did not end in time, killed", "SIGKILL to plain"]);
    w.exit("deaf", KILLED);
    w.exit("plain", KILLED);
    w.assert_over();
}

#[test]
fn a_stop_before_readiness_terminates_and_a_start_in_the_middle_of_a_stop_comes_up_again() {
    let mut w = World::new([longrun("net").notifying(3)]);
    w.start("net");
    w.stop("net");
    assert_eq!(w.told(), ["run net", "SIGTERM to net"]);
    w.start("net");
    assert_eq!(w.told(), [""; 0]);
    w.wait_until(500);
    w.exit("net", TERMINATED);
    assert_eq!(w.told(), ["net: down"]);
    w.wait_until(1_000);
    assert_eq!(w.told(), ["run net"]);
    w.ready("net");
    assert_eq!(w.told(), ["net: up"]);
}

#[test]
fn a_stop_that_overtakes_the_start_terminates_the_process_as_soon_as_it_runs() {
    let mut w = World::new([longrun("net")]);
    w.input(&Input::Start(vec!["net".into()]));
    w.input(&Input::StopAll);
    assert_eq!(w.told(), ["run net"]);
    w.start("net");
    w.stop_all();
    assert_eq!(w.told(), ["SIGTERM to net"]);
}

#[test]
fn a_oneshot_is_up_when_its_up_succeeds_and_runs_its_down_on_the_way_down() {
    let mut w = World::new([oneshot("mount"), longrun("web").after("mount")]);
    w.start("web");
    assert_eq!(w.told(), ["up mount"]);
    w.exit("mount", OK);
    assert_eq!(w.told(), ["mount: up", "run web", "web: up"]);
    w.stop("mount");
    assert_eq!(w.told(), ["SIGTERM to web"]);
    w.exit("web", TERMINATED);
    assert_eq!(w.told(), ["web: down", "down mount"]);
    w.exit("mount", Outcome::Code(1));
    assert_eq!(w.told(), ["mount: down"]);
    w.assert_over();
}

#[test]
fn a_oneshot_that_fails_is_marked_down_and_not_run_again() {
    let mut w = World::new([oneshot("mount"), longrun("web").after("mount"), longrun("sshd")]);
    w.start("web");
    w.start("sshd");
    w.told();
    w.exit("mount", Outcome::Code(32));
    assert_eq!(
        w.told(),
        [
            "mount: marked down: up ended with exit code 32",
            "web: marked down: it needs mount, which is marked down"
        ]
    );
    w.wait_until(100_000);
    assert_eq!(w.told(), [""; 0]);
    assert_eq!(w.phase("sshd"), Phase::Up);
    // Asked for again it is tried again.
    w.start("web");
    assert_eq!(w.told(), ["up mount"]);
}

#[test]
fn a_oneshot_that_hangs_is_ended_with_its_helpers() {
    let mut service = oneshot("mount");
    service.timeout_up = Timeout::After(5_000);
    service.timeout_down = Timeout::After(300);
    let mut w = World::new([service]);
    w.start("mount");
    w.wait_until(5_300);
    assert_eq!(
        w.told(),
        [
            "up mount",
            "mount: marked down: not ready in time",
            "SIGTERM to group of mount",
            "mount: did not end in time, killed",
            "SIGKILL to group of mount",
        ]
    );
    w.exit("mount", KILLED);
    w.assert_over();
}

#[test]
fn a_program_that_cannot_be_executed_is_marked_down_at_once_and_lack_of_memory_is_waited_out() {
    let mut w = World::new([longrun("net"), longrun("sshd")]);
    w.input(&Input::Start(vec!["net".into(), "sshd".into()]));
    w.fail_start("net", StartProblem::Permanent);
    assert_eq!(w.told(), ["run net", "run sshd", "net: marked down: its program cannot be executed"]);
    w.fail_start("sshd", StartProblem::Passing);
    assert_eq!(w.phase("sshd"), Phase::Starting);
    w.wait_until(1_000);
    assert_eq!(w.told(), ["run sshd", "sshd: up"]);
}

#[test]
fn finish_runs_between_two_lives_and_125_means_no_more() {
    let mut w = World::new([with_finish(longrun("net")), longrun("sshd").after("net")]);
    w.start("sshd");
    w.told();
    w.wait_until(2_000);
    w.exit("net", Outcome::Code(7));
    assert_eq!(
        w.told(),
        ["finish (exit code 7) net", "net: process ended with exit code 7, starting it again"]
    );
    w.wait_until(4_000);
    w.exit("net", OK);
    assert_eq!(w.told(), ["run net"]);
    w.wait_until(6_000);
    w.exit("net", OK);
    w.exit("net", Outcome::Code(125));
    assert_eq!(
        w.told(),
        [
            "finish (exit code 0) net",
            "net: process ended with exit code 0, starting it again",
            "net: marked down: its finish program asked not to start it again",
            "sshd: marked down: it needs net, which is marked down",
            "SIGTERM to sshd",
        ]
    );
    w.exit("sshd", TERMINATED);
    assert_eq!(w.phase("net"), Phase::Down);
    w.assert_over();
}

#[test]
fn a_finish_that_hangs_is_killed_and_does_not_keep_a_stop_from_ending() {
    let mut w = World::new([with_finish(longrun("net"))]);
    w.start("net");
    w.stop("net");
    w.exit("net", TERMINATED);
    assert_eq!(w.told(), ["run net", "net: up", "SIGTERM to net", "finish (signal SIGTERM) net"]);
    w.wait_until(5_000);
    assert_eq!(w.told(), ["net: did not end in time, killed", "SIGKILL to net"]);
    w.exit("net", KILLED);
    assert_eq!(w.told(), ["net: down"]);
    w.assert_over();
}

#[test]
fn a_service_without_anything_to_run_goes_up_and_down_by_itself() {
    let mut w = World::new([
        crate::service::Service::oneshot("marker", "/s", None, None),
        longrun("x").after("marker"),
    ]);
    w.start("x");
    assert_eq!(w.told(), ["marker: up", "run x", "x: up"]);
    w.stop("x");
    w.exit("x", TERMINATED);
    w.stop("marker");
    assert_eq!(w.told(), ["SIGTERM to x", "x: down", "marker: down"]);
    w.assert_over();
}

#[test]
fn a_restart_waits_its_second_also_after_a_stop() {
    let mut w = World::new([longrun("x")]);
    w.start("x");
    w.wait_until(100);
    w.stop("x");
    w.exit("x", TERMINATED);
    w.start("x");
    w.told();
    assert_eq!(w.supervisor.next_deadline(), Some(1_000));
    w.wait_until(1_000);
    assert_eq!(w.told(), ["run x", "x: up"]);
}

#[test]
fn one_that_runs_once_is_down_when_its_process_ends_and_what_it_needs_stays_up() {
    let mut w =
        World::new([longrun("net"), with_finish(longrun("link")).after("net"), longrun("vpn").after("link")]);
    w.once("link");
    w.start("vpn");
    w.told();
    w.exit("link", Outcome::Code(1));
    assert_eq!(
        w.told(),
        [
            "finish (exit code 1) link",
            "link: marked down: its process ended with exit code 1, it was to run once",
            "vpn: marked down: it needs link, which is marked down",
            "SIGTERM to vpn",
        ]
    );
    w.exit("vpn", TERMINATED);
    w.exit("link", OK);
    assert_eq!(w.phase("link"), Phase::Down);
    assert_eq!(w.phase("net"), Phase::Up);
    // Asked for in the usual way it is kept alive again.
    w.wait_until(2_000);
    w.start("vpn");
    w.exit("link", Outcome::Code(1));
    w.exit("link", OK);
    assert_eq!(w.phase("link"), Phase::Up);
    w.wait_until(3_000);
    assert_eq!(w.pid("link"), w.supervisor.status()[0].pid.unwrap());
}

#[test]
fn a_restart_on_request_ends_the_process_and_leaves_what_needs_it_alone() {
    let mut service = longrun("net");
    service.timeout_down = Timeout::After(500);
    let mut w = World::new([service, longrun("sshd").after("net"), oneshot("once")]);
    w.start("sshd");
    w.start("once");
    w.exit("once", OK);
    w.told();
    w.wait_until(5_000);
    w.restart("net");
    w.restart("once");
    assert_eq!(w.told(), ["SIGTERM to net"]);
    w.wait_until(5_500);
    assert_eq!(w.told(), ["net: did not end in time, killed", "SIGKILL to net"]);
    w.exit("net", KILLED);
    assert_eq!(w.told(), ["net: process ended with signal SIGKILL, starting it again", "run net"]);
    assert_eq!(w.phase("sshd"), Phase::Up);
    assert_eq!(w.supervisor.next_deadline(), None);
}

#[test]
fn one_restart_after_the_other_does_not_put_the_kill_off() {
    let mut service = longrun("net");
    service.timeout_down = Timeout::After(500);
    let mut w = World::new([service]);
    w.start("net");
    w.told();
    for now in [1_000, 1_300, 1_499] {
        w.wait_until(now);
        w.restart("net");
    }
    w.wait_until(1_500);
    assert_eq!(
        w.told(),
        [
            "SIGTERM to net",
            "SIGTERM to net",
            "SIGTERM to net",
            "net: did not end in time, killed",
            "SIGKILL to net"
        ]
    );
    w.exit("net", KILLED);
    assert_eq!(w.supervisor.next_deadline(), None);
}

#[test]
fn a_stop_makes_what_was_marked_down_simply_down() {
    let mut w = World::new([oneshot("mount"), longrun("web").after("mount"), longrun("net").notifying(3)]);
    w.start("web");
    w.exit("mount", Outcome::Code(1));
    w.start("net");
    w.wait_until(20_000);
    assert_eq!(w.failure("net"), Some(Failure::TimedOut));
    w.told();
    // The last one is still on its way down.
    w.stop("mount");
    w.stop("net");
    w.exit("net", TERMINATED);
    assert_eq!(w.told(), ["net: down"]);
    for name in ["mount", "web", "net"] {
        assert_eq!((w.phase(name), w.failure(name)), (Phase::Down, None), "{name}");
    }
    w.assert_over();
}

#[test]
fn a_oneshot_that_lacks_memory_is_tried_again_each_second_until_its_time_is_over() {
    let mut limited = oneshot("limited");
    limited.timeout_up = Timeout::After(2_500);
    let mut w = World::new([oneshot("mount"), limited]);
    w.input(&Input::Start(vec!["mount".into(), "limited".into()]));
    for now in [0, 1_000, 2_000] {
        assert_eq!(w.told(), ["up limited", "up mount"], "at {now}");
        w.now = now;
        w.fail_start("limited", StartProblem::Passing);
        w.fail_start("mount", StartProblem::Passing);
        assert_eq!((w.phase("mount"), w.phase("limited")), (Phase::Starting, Phase::Starting));
        let next = now + if now == 2_000 { 500 } else { 1_000 };
        assert_eq!(w.supervisor.next_deadline(), Some(next));
        w.now = next;
        w.input(&Input::Tick);
    }
    assert_eq!(w.told(), ["limited: marked down: not ready in time"]);
    // Without a limit of its own: until there is memory, or half a minute has gone by.
    w.wait_until(3_000);
    assert_eq!(w.told(), ["up mount"]);
    w.exit("mount", OK);
    assert_eq!(w.phase("mount"), Phase::Up);
    w.stop_all();
    w.exit("mount", OK);
    w.told();
    w.input(&Input::Start(vec!["mount".into()]));
    let mut tries = 0;
    while w.asked.iter().any(|(name, _)| name == "mount") {
        tries += 1;
        w.fail_start("mount", StartProblem::Passing);
        if let Some(at) = w.supervisor.next_deadline() {
            w.now = at;
            w.input(&Input::Tick);
        }
    }
    assert_eq!(tries, 30);
    assert_eq!(w.failure("mount"), Some(Failure::CannotStart));
    w.assert_over();
}
