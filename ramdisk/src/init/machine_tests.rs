use std::collections::VecDeque;
use std::time::Duration;

use super::super::interlock::Gate;
use super::super::kernel::LaunchError;
use super::super::log::LogLimits;
use super::super::supervisor::{Pid, StartProblem, Target};
use super::*;

/// A machine that does what the script says and writes down what it was asked for.
#[derive(Debug, Default)]
struct Script {
    now: u64,
    events: VecDeque<Event>,
    gate: Option<Gate>,
    alone: bool,
    cannot_spawn: bool,
    watchdog: Option<u64>,
    next_pid: Pid,
    done: Vec<String>,
}

impl Kernel for Script {
    fn now(&self) -> u64 {
        self.now
    }
    fn wall(&self) -> Duration {
        Duration::from_millis(self.now)
    }
    fn spawn(&mut self, launch: &Launch) -> Result<Pid, LaunchError> {
        if self.cannot_spawn {
            return Err(LaunchError { problem: StartProblem::Permanent, text: "cannot execute it".into() });
        }
        self.next_pid += 1;
        let argv: Vec<_> = launch.argv.iter().map(|arg| arg.to_string_lossy()).collect();
        self.done.push(format!("spawn {} in {}", argv.join(" "), launch.dir.display()));
        Ok(self.next_pid)
    }
    fn signal(&mut self, to: Target, signal: Signal) {
        if signal != Signal::SIGCONT {
            self.done.push(format!("{signal} to {to:?}"));
        }
    }
    fn signal_all(&mut self, signal: Signal) {
        self.done.push(format!("{signal} to all"));
    }
    fn is_alone(&mut self) -> bool {
        self.alone
    }
    fn next(&mut self, deadline: Option<u64>) -> Event {
        let event = self.events.pop_front();
        if event.is_none() {
            self.now = deadline.expect("nothing would ever happen again").max(self.now);
        }
        event.unwrap_or(Event::Tick)
    }
    fn answer(&mut self, to: Connection, line: &str) {
        self.done.push(format!("answer {to}: {line}"));
    }
    fn hang_up(&mut self, to: Connection) {
        self.done.push(format!("hang up {to}"));
    }
    fn report(&mut self, text: &str) {
        self.done.push(format!("report {text}"));
    }
    fn flash_gate(&mut self) -> Gate {
        self.gate.clone().unwrap_or(Gate::Open)
    }
    fn feed_watchdog(&mut self) -> Option<u64> {
        self.watchdog
    }
    fn settle_disks(&mut self) {
        self.done.push("settle disks".into());
    }
    fn end(&mut self, verb: Verb) -> String {
        self.done.push(format!("end: {}", verb.word()));
        "the kernel refused".into()
    }
}

fn set() -> ServiceSet {
    ServiceSet::new([
        Service::longrun("net", "/s/net", Program::File("/s/net/run".into())),
        Service::longrun("sshd", "/s/sshd", Program::File("/s/sshd/run".into())).after("net"),
        Service::bundle("default", "/s/default", ["sshd"]),
    ])
    .unwrap()
}

struct Stage {
    init: Init<Script>,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new(set: ServiceSet, script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), None, LogLimits::default());
        Self { init: Init::new(script, set, log, Limits::default()), dir }
    }

    /// One turn for each event.
    fn happen(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<String> {
        let events: VecDeque<Event> = events.into_iter().collect();
        let turns = events.len();
        self.init.kernel.events = events;
        for _ in 0..turns {
            self.init.turn();
        }
        self.done()
    }

    fn done(&mut self) -> Vec<String> {
        std::mem::take(&mut self.init.kernel.done)
    }

    fn request(&mut self, from: Connection, line: &str) -> Vec<String> {
        self.happen([Event::Request { from, line: line.into() }])
    }

    fn exit(&mut self, pid: Pid) -> Vec<String> {
        self.happen([Event::Exited { pid, outcome: Outcome::Signal(15) }])
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("current")).unwrap()
    }
}

fn started() -> Stage {
    let mut stage = Stage::new(set(), Script::default());
    stage.init.start();
    stage.done();
    stage
}

fn changing() -> Option<Gate> {
    Some(Gate::Wait { writer: "flashcp (pid 9), on /dev/mtd5".into() })
}

fn unverified() -> Option<Gate> {
    Some(Gate::Refuse { reason: vec!["run again: flashcp".into()] })
}

#[test]
fn the_default_bundle_is_started_in_order_each_in_its_directory() {
    let mut stage = Stage::new(set(), Script::default());
    stage.init.start();
    assert_eq!(stage.done(), ["spawn /s/net/run in /s/net", "spawn /s/sshd/run in /s/sshd"]);
}

#[test]
fn a_reboot_answers_stops_in_reverse_writes_back_and_ends() {
    let mut stage = started();
    assert_eq!(
        stage.request(7, "reboot"),
        ["report reboot: stopping services", "answer 7: exit 0", "hang up 7", "SIGTERM to Process(2)",]
    );
    assert_eq!(stage.exit(2), ["SIGTERM to Process(1)"]);
    assert_eq!(stage.exit(1), ["SIGTERM to all"]);
    stage.init.kernel.alone = true;
    assert_eq!(
        stage.happen([Event::Tick]),
        ["report reboot", "settle disks", "end: reboot", "report the kernel refused"]
    );
}

#[test]
fn while_flash_is_being_changed_nothing_is_stopped_and_every_asker_is_told() {
    let mut stage = started();
    stage.init.kernel.gate = changing();
    let told = "reboot: waiting, because flash is being changed by flashcp (pid 9), on /dev/mtd5; \
                it follows when that has ended (-f overrides)";
    assert_eq!(stage.request(1, "reboot"), [format!("report {told}"), format!("answer 1: {told}")]);
    let second = stage.request(2, "reboot");
    assert!(second.contains(&format!("answer 2: {told}")), "{second:?}");
    for _ in 0..1_000 {
        assert_eq!(stage.init.turn(), Turn::Again);
    }
    assert_eq!(stage.done(), [""; 0]);
    // The wait looks again four times a second: the clock went on by that much.
    assert_eq!(stage.init.kernel.now, 250_000);
    stage.init.kernel.gate = None;
    let done = stage.happen([Event::Tick]);
    assert_eq!(
        done[..5],
        [
            "report reboot: stopping services",
            "answer 1: exit 0",
            "hang up 1",
            "answer 2: exit 0",
            "hang up 2"
        ]
    );
}

#[test]
fn a_refused_reboot_answers_why_and_leaves_the_services_alone() {
    let mut stage = started();
    stage.init.kernel.gate = unverified();
    assert_eq!(
        stage.request(1, "poweroff"),
        [
            "report poweroff: refused",
            "answer 1: poweroff: refused",
            "report run again: flashcp",
            "answer 1: run again: flashcp",
            "answer 1: exit 1",
            "hang up 1",
        ]
    );
    let status = stage.request(2, "status");
    assert_eq!(
        status,
        ["answer 2: net up 1 0 0", "answer 2: sshd up 2 0 0", "answer 2: exit 0", "hang up 2"]
    );
    let forced = stage.request(3, "poweroff force");
    assert_eq!(forced[0], "report poweroff: stopping services");
}

#[test]
fn a_flash_that_fails_after_services_were_stopped_brings_them_back() {
    let mut stage = started();
    stage.request(1, "reboot");
    stage.init.kernel.gate = changing();
    stage.exit(2);
    let done = stage.exit(1);
    assert!(!done.iter().any(|line| line.contains("to all")), "{done:?}");
    stage.init.kernel.gate = unverified();
    stage.init.kernel.now += 5_000;
    let done = stage.happen([Event::Tick, Event::Tick]);
    assert!(done.contains(&"spawn /s/sshd/run in /s/sshd".to_owned()), "{done:?}");
    assert!(!done.iter().any(|line| line.starts_with("end")), "{done:?}");
}

#[test]
fn what_cannot_be_started_ends_in_the_old_system_after_it_was_told() {
    let scripts = [
        (set(), Script { cannot_spawn: true, ..Script::default() }),
        (ServiceSet::default(), Script::default()),
        (ServiceSet::new([Service::bundle("default", "/s", [""; 0])]).unwrap(), Script::default()),
    ];
    for (set, script) in scripts {
        let mut stage = Stage::new(set, Script { alone: true, ..script });
        stage.init.start();
        let mut turns = 0;
        while stage.init.turn() == Turn::Again {
            turns += 1;
            assert!(turns < 100, "{:?}", stage.done());
        }
        assert_eq!(stage.init.kernel.now, FAILED_BOOT_MS);
        let done = stage.done();
        assert!(done.iter().any(|line| line.starts_with("report no service can be started: ")), "{done:?}");
        assert!(done.contains(&"end: reboot".to_owned()), "{done:?}");
    }
}

#[test]
fn what_cannot_be_started_stays_if_flash_was_left_half_changed() {
    let script = Script { gate: unverified(), alone: true, watchdog: Some(20_000), ..Script::default() };
    let mut stage = Stage::new(ServiceSet::default(), script);
    stage.init.start();
    for _ in 0..1_000 {
        assert_eq!(stage.init.turn(), Turn::Again);
        stage.init.kernel.watchdog = Some(stage.init.kernel.now + 20_000);
    }
    let done = stage.done();
    assert!(done.contains(&"report reboot: refused".to_owned()), "{done:?}");
    assert!(!done.iter().any(|line| line.starts_with("end")), "{done:?}");
}

#[test]
fn a_loud_service_does_not_keep_timers_from_running() {
    let set = ServiceSet::new([
        Service::longrun("net", "/s/net", Program::File("/s/net/run".into())).notifying(3),
        Service::bundle("default", "/s/default", ["net"]),
    ])
    .unwrap();
    let mut stage = Stage::new(set, Script::default());
    stage.init.start();
    stage.done();
    stage.init.kernel.now = 20_000;
    let done = stage.happen([Event::Output { service: "net".into(), bytes: b"la\nla\nl".to_vec() }]);
    assert!(done.contains(&"report net: marked down: not ready in time".to_owned()), "{done:?}");
    assert!(done.contains(&"SIGTERM to Process(1)".to_owned()), "{done:?}");
    // What it left without a newline is written when it ends.
    stage.exit(1);
    assert!(stage.log().contains(" net l\n"), "{}", stage.log());
}

#[test]
fn a_request_that_is_none_is_answered() {
    assert_eq!(
        started().request(1, "dance"),
        [
            "answer 1: unknown request: expected status, reboot, poweroff or halt, found \"dance\"",
            "answer 1: exit 2",
            "hang up 1"
        ]
    );
}

#[test]
fn oneshots_and_finish_programs_get_their_words() {
    let words = Program::Words(vec!["ip".into(), "link".into()]);
    let oneshot = Service::oneshot("o", "/s/o", Some(words), None);
    let up = launch(&oneshot, What::Up).unwrap();
    assert_eq!((up.argv, up.dir), (vec!["ip".into(), "link".into()], "/".into()));
    assert_eq!(launch(&oneshot, What::Down), None);
    let mut longrun = Service::longrun("l", "/s/l", Program::File("/s/l/run".into()));
    if let Kind::Longrun { finish, .. } = &mut longrun.kind {
        *finish = Some(Program::File("/s/l/finish".into()));
    }
    let finish = launch(&longrun, What::Finish(Outcome::Signal(9))).unwrap();
    let expected: Vec<std::ffi::OsString> = ["/s/l/finish", "256", "9", "l"].map(Into::into).to_vec();
    assert_eq!((finish.argv, finish.dir), (expected, "/s/l".into()));
}

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
fn who_never_leaves_is_let_go_when_too_many_wait() {
    let mut stage = with_a_controller();
    for from in 1..=64 {
        stage.request(from, "up wait -- modem");
    }
    let done = stage.request(65, "up wait -- modem");
    assert_eq!(done, ["answer 1: too many wait: this one is let go", "answer 1: exit 1", "hang up 1"]);
}

#[test]
fn programs_are_told_everything_about_each_service() {
    let mut stage = with_a_controller();
    let done = stage.request(1, "services");
    let text = done[0].strip_prefix("answer 1: ").unwrap();
    let entries: Vec<super::super::snapshot::Entry> =
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
