use std::collections::VecDeque;
use std::time::Duration;

use super::super::interlock::Gate;
use super::super::kernel::LaunchError;
use super::super::lease::Terms;
use super::super::log::LogLimits;
use super::super::sessions::Session;
use super::super::supervisor::{Pid, StartProblem, Target};
use super::*;

/// A machine that does what the script says and writes down what it was asked for.
#[derive(Debug, Default)]
struct Script {
    now: u64,
    events: VecDeque<Event>,
    gate: Option<Gate>,
    /// Whether the record was there from the beginning.
    as_found: bool,
    alone: bool,
    cannot_spawn: bool,
    watchdog: Option<u64>,
    feeds: u32,
    others: Vec<Pid>,
    next_pid: Pid,
    /// A staged root, and why it cannot be entered.
    staged: Option<&'static str>,
    logged_in: bool,
    /// How often the processes were looked at.
    looks: u32,
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
    fn flash_record_was_found(&mut self) -> bool {
        self.as_found
    }
    fn sessions(&mut self, servers: &[Pid], others: &[Pid]) -> Vec<Session> {
        self.others = others.to_vec();
        self.looks += 1;
        let session = |pid: &Pid| Session { user: "root".into(), pid: pid + 100, program: "sh".into() };
        servers.iter().filter(|_| self.logged_in).map(session).collect()
    }
    fn feed_watchdog(&mut self) -> Option<u64> {
        self.feeds += 1;
        self.watchdog
    }
    fn hand_over(&mut self) -> Option<String> {
        let staged = self.staged?;
        self.done.push("hand over".into());
        Some(staged.into())
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

    fn with_lease(self, ms: u64) -> Self {
        let terms = Terms { lease_ms: Some(ms), lease_unverified_ms: Some(ms), ways_in: vec!["sshd".into()] };
        Self { init: self.init.with_lease(terms), ..self }
    }

    /// Turns until the clock says `until`.
    fn pass(&mut self, until: u64) {
        while self.init.kernel.now < until {
            self.init.turn();
        }
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
fn the_watchdog_is_fed_between_one_start_and_the_next() {
    let mut stage = Stage::new(set(), Script::default());
    stage.init.start();
    assert_eq!(stage.init.kernel.feeds, 2);
}

#[test]
fn a_staged_root_is_entered_by_a_reboot_alone_and_one_that_cannot_be_is_a_normal_reboot() {
    for (verb, expected) in [
        ("reboot", &["report reboot", "hand over", "report no program", "settle disks", "end: reboot"][..]),
        ("poweroff", &["report poweroff", "settle disks", "end: poweroff"]),
        ("halt", &["report halt", "settle disks", "end: halt"]),
    ] {
        let mut stage = started();
        stage.init.kernel.staged = Some("no program");
        stage.request(7, verb);
        stage.exit(2);
        stage.exit(1);
        stage.init.kernel.alone = true;
        let done = stage.happen([Event::Tick]);
        assert_eq!(done[..expected.len()], *expected, "{verb}");
    }
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
        let mut stage = Stage::new(set, Script { alone: true, ..script }).with_lease(900_000);
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
fn a_normal_system_without_services_is_not_left_and_its_console_is_started() {
    let script = || Script { alone: true, watchdog: Some(u64::MAX), ..Script::default() };
    let words = |words: &str| Program::Words(words.split(' ').map(Into::into).collect());
    let door = Service::longrun("door", "/s/door", words("/sbin/getty -L ttyS0"));
    let default = Service::bundle("default", "/s/default", ["net"]);
    let net = Service::oneshot("net", "/s/net", Some(words("false")), None);
    let why = "every service of the bundle default is marked down, or it is empty";
    for (set, why, console) in [
        (ServiceSet::default(), "there is no service or bundle named default", None),
        (
            ServiceSet::new([door.clone()]).unwrap(),
            "there is no service or bundle named default",
            Some("door"),
        ),
        (ServiceSet::new([net.clone(), default.clone()]).unwrap(), why, None),
        (ServiceSet::new([net, default, door]).unwrap(), why, Some("door")),
    ] {
        let mut stage = Stage::new(set, script());
        stage.init.start();
        stage.happen([Event::Exited { pid: 1, outcome: Outcome::Code(1) }; 1]);
        for _ in 0..1_000 {
            assert_eq!(stage.init.turn(), Turn::Again);
        }
        let log = stage.log();
        assert!(log.contains(&format!(" init no service can be started: {why}\n")), "{log}");
        assert!(!log.contains("rebooting"), "{log}");
        let said = match console {
            Some(name) => format!(
                " init this is no maintenance root, so it is not left; starting for the console: {name}\n"
            ),
            None => " init this is no maintenance root, so it is not left; no service is for the console\n"
                .to_owned(),
        };
        assert!(log.contains(&said), "{log}");
        assert_eq!(log.contains(" init door: up\n"), console.is_some(), "{log}");
    }
}

#[test]
fn what_cannot_be_started_stays_if_flash_was_left_half_changed() {
    let script = Script { gate: unverified(), alone: true, watchdog: Some(20_000), ..Script::default() };
    let mut stage = Stage::new(ServiceSet::default(), script).with_lease(900_000);
    stage.init.start();
    for _ in 0..1_000 {
        assert_eq!(stage.init.turn(), Turn::Again);
        stage.init.kernel.watchdog = Some(stage.init.kernel.now + 20_000);
    }
    let done = stage.done();
    assert!(done.contains(&"report reboot: refused".to_owned()), "{done:?}");
    assert!(!done.iter().any(|line| line.starts_with("end")), "{done:?}");
    let said =
        "report flash is not verified, so this root is not left; no service is for the console".to_owned();
    assert_eq!(done.iter().filter(|line| **line == said).count(), 1, "{done:?}");
}

#[test]
fn what_cannot_be_started_goes_back_to_the_system_that_left_its_flash_half_changed() {
    let script = Script { gate: unverified(), as_found: true, alone: true, ..Script::default() };
    let mut stage = Stage::new(ServiceSet::default(), script).with_lease(900_000);
    stage.init.start();
    while stage.init.turn() == Turn::Again {}
    assert_eq!(stage.init.kernel.now, FAILED_BOOT_MS);
    let done = stage.done();
    assert!(done.contains(&"end: reboot".to_owned()), "{done:?}");
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
            "answer 1: unknown request: expected status, services, up, down, once, restart, lease, hold, release, \
             reboot, poweroff, halt or a signal's name, found \"dance\"",
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

#[path = "machine_lease_tests.rs"]
mod lease;
#[path = "machine_order_tests.rs"]
mod orders;
