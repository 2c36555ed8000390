//! The promises.

use std::fs::File;
use std::process::Command;

use levitate::handover::report::Report as Handover;
use levitate::state::{State, StateRecord};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::machine::{INNER, Remains};
use crate::new_init::Report;
use crate::old_system::BALLAST;

pub(crate) fn run() -> ! {
    let arguments = Arguments::from_args();
    let possible = Command::new("unshare").args(INNER).args(["--", "true"]).output();
    let possible = possible.is_ok_and(|output| output.status.success());
    if !possible && !arguments.list {
        eprintln!(
            "DID NOT RUN: the hand-over in a namespace: `unshare {}` is not permitted or not there",
            INNER.join(" ")
        );
    }
    let trial = |name: &str, scenario: &'static str, check: fn(&Remains)| {
        let body = move || -> Result<(), Failed> {
            let remains = boot(scenario)?;
            let checked = std::panic::catch_unwind(|| check(&remains));
            checked.map_err(|_| Failed::from(format!("what was left: {remains:#?}")))
        };
        Trial::test(name, body).with_ignored_flag(!possible)
    };
    let has_fuse = File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if possible && !has_fuse && !arguments.list {
        eprintln!("DID NOT RUN: a mount that never answers: /dev/fuse cannot be opened");
    }
    let dead = |name: &str, scenario: &'static str, check: fn(&Remains)| {
        trial(name, scenario, check).with_ignored_flag(!possible || !has_fuse)
    };
    let trials = vec![
        trial("the_new_init_runs_from_ram_and_nothing_of_the_old_root_is_left", "good", all_of_it),
        trial("an_init_that_cannot_be_executed_is_a_recorded_reset", "init-not-executable", |it| {
            reset_at(it, "check", "staged init /run/maintenance/sbin/init is not executable (mode 0644)");
        }),
        trial("a_root_staged_in_another_boot_is_never_entered", "not-armed", |it| {
            assert_eq!((it.ended_by, it.report.as_str()), (Some(1), ""));
            assert!(it.console.contains("was staged in boot another"), "{}", it.console);
        }),
        trial("a_poweroff_stays_a_poweroff", "poweroff", |it| {
            assert_eq!((it.ended_by, it.report.as_str()), (Some(2), ""));
            assert_eq!(it.state, "", "nothing failed");
        }),
        trial("a_verb_that_nobody_knows_is_a_recorded_reset", "unknown-verb", |it| {
            reset_at(it, "check", "the verb \"exit\" is none of reboot, poweroff, halt, kexec");
        }),
        trial("a_hand_over_past_its_deadline_is_a_recorded_reset", "too-slow", |it| {
            assert_eq!((it.ended_by, it.report.as_str()), (Some(1), ""));
            assert!(it.console.contains("not done within 1 ms"), "{}", it.console);
        }),
        trial("a_pid_1_that_hangs_is_reset_by_its_guard", "hang", |it| {
            ended_by_the_guard(it, State::Entering, "swap_and_loops");
        }),
        trial(
            "one_that_hangs_in_the_second_image_behind_the_pivot_is_as_well",
            "hang-behind-the-pivot",
            |it| {
                ended_by_the_guard(it, State::Left, "unmount");
            },
        ),
        dead("a_mount_below_run_that_never_answers_is_left_without_a_look_at_it", "dead-below-run", |it| {
            let (_, handover) = arrived(it);
            assert_eq!((handover.still_mounted.len(), looks(&handover)), (0, vec![]));
            assert!(handover.unmounted.contains(&"/run/media/dead".to_owned()), "{:?}", handover.unmounted);
        }),
        dead(
            "a_look_that_never_comes_to_an_end_holds_up_pid_1_no_longer_than_its_limit",
            "dead-over-run",
            |it| {
                let (_, handover) = arrived(it);
                assert_eq!(looks(&handover), ["empty /oldroot/mnt/inner/deep: not done within 1000 ms"]);
                assert_eq!(handover.still_mounted, []);
                let place = |name: &str| handover.unmounted.iter().position(|at| at == name);
                assert!(place("/mnt/inner").is_some() && place("/mnt/inner") < place("/mnt/inner/deep"));
            },
        ),
        trial("an_old_root_that_cannot_be_let_go_is_a_reset", "root-held", |it| {
            assert_eq!((it.ended_by, it.report.as_str()), (Some(1), ""));
            let why = "hand-over failed at stage unmount: unmount the old root (tmpfs on tmpfs): ";
            for told in [&it.console, &it.kernel_log, &it.messages] {
                assert!(told.contains(why), "{told}");
            }
            let state: StateRecord = serde_json::from_str(&it.state).unwrap();
            assert_eq!((state.state, state.stage.as_deref()), (State::Left, Some("unmount")));
        }),
        trial("a_data_file_system_that_cannot_be_let_go_is_set_aside_and_reported", "data-held", |it| {
            let (_, handover) = arrived(it);
            let still: Vec<&str> = handover.still_mounted.iter().map(|m| m.path.as_str()).collect();
            assert_eq!(still, ["/persist/deep down", "/persist"]);
            assert!(handover.unmounted.contains(&"/".to_owned()), "{handover:?}");
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit()
}

fn boot(scenario: &str) -> Result<Remains, Failed> {
    let dir = tempfile::tempdir()?;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe()?)
        .arg("machine")
        .arg(dir.path())
        .arg(scenario)
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).map_err(|e| Failed::from(format!("{e}\n{error}")))
}

fn arrived(it: &Remains) -> (Report, Handover) {
    assert_eq!(it.ended_by, Some(2), "the new init powers off");
    let report: Report = serde_json::from_str(&it.report).expect("the new init's report");
    let handover = serde_json::from_str(&report.handover).expect("handover.json");
    (report, handover)
}

/// What could not be looked at to empty it.
fn looks(handover: &Handover) -> Vec<&str> {
    handover.notes.iter().map(String::as_str).filter(|note| note.starts_with("empty ")).collect()
}

fn ended_by_the_guard(it: &Remains, state: State, stage: &str) {
    assert_eq!((it.ended_by, it.report.as_str()), (Some(1), ""));
    let why = "<3>levitate: hand-over failed: its deadline has passed; resetting into the old system\n";
    assert!(it.kernel_log.ends_with(why) && it.messages.ends_with(why), "{}", it.kernel_log);
    let record: StateRecord = serde_json::from_str(&it.state).unwrap();
    assert_eq!((record.state, record.stage.as_deref()), (state, Some(stage)));
}

fn reset_at(it: &Remains, stage: &str, reason: &str) {
    assert_eq!((it.ended_by, it.report.as_str()), (Some(1), ""));
    let state: StateRecord = serde_json::from_str(&it.state).expect("a state record");
    assert_eq!(state.state, State::Failed);
    assert_eq!((state.stage.as_deref(), state.reason.as_deref()), (Some(stage), Some(reason)));
    let line = format!("hand-over failed at stage {stage}: {reason}; resetting into the old system\n");
    assert!(it.console.contains(&format!("levitate: {line}")), "{}", it.console);
    assert!(it.kernel_log.contains(&format!("<3>levitate: {line}")), "{}", it.kernel_log);
    assert!(it.messages.contains(&format!("<3>levitate: {line}")), "{}", it.messages);
}

fn all_of_it(it: &Remains) {
    let (report, handover) = arrived(it);
    let mounts: Vec<Vec<&str>> =
        report.mountinfo.lines().map(|line| line.split(' ').collect::<Vec<_>>()).collect();
    let mut points: Vec<&str> = mounts.iter().map(|fields| fields[4]).collect();
    points.sort_unstable();
    assert_eq!(points, ["/", "/dev", "/proc"]);
    let root = mounts.iter().find(|fields| fields[4] == "/").unwrap();
    assert_eq!(root[3], "/maintenance", "the staged directory itself");
    assert!(!root[5].contains("nodev") && !root[5].contains("nosuid"), "{root:?}");

    assert_eq!((report.pid, report.cwd.as_str()), (1, "/"));
    assert_eq!(report.processes, ["1"]);
    assert_eq!(report.old_root, Vec::<String>::new());
    assert_eq!(report.alarm_left, None);
    let (used, visible) = report.bytes;
    let ballast = u64::try_from(BALLAST).unwrap();
    assert!(used < visible + ballast / 2, "the old /run still takes {} bytes", used - visible);
    assert_eq!(u64::from_str_radix(&report.blocked, 16), Ok(0));
    // The runtime of this test program ignores SIGPIPE by itself.
    assert_eq!(u64::from_str_radix(&report.ignored, 16).map(|set| set & !(1 << 12)), Ok(0));

    let list = report.environment.get("LEVITATE_WATCHDOG_FD").expect("the watchdogs are passed on");
    let mut names: Vec<&str> = report.environment.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["LEVITATE_WATCHDOG_FD", "PATH", "TERM"]);
    let watchdogs: Vec<&str> = list.split(',').collect();
    let mut devices: Vec<&str> = watchdogs.iter().map(|fd| report.descriptors[*fd].as_str()).collect();
    devices.sort_unstable();
    assert_eq!(devices, ["/dev/watchdog", "/dev/watchdog1"]);
    assert!(it.watchdog_bytes.iter().all(|bytes| *bytes > 0), "both are fed: {:?}", it.watchdog_bytes);
    for (fd, link) in report.descriptors.iter().filter(|(fd, _)| !watchdogs.contains(&fd.as_str())) {
        // The one above 2 is the directory that was just read.
        assert!(link == "/dev/console" || link.starts_with("/proc/"), "{fd} is {link}");
    }

    let place = |name: &str| handover.unmounted.iter().position(|at| at == name);
    assert_eq!(handover.unmounted.len(), 4, "{:?}", handover.unmounted);
    assert!(place("/persist/deep down") < place("/persist") && place("/run").is_some());
    assert_eq!(place("/"), Some(3));
    assert_eq!((handover.survivors.len(), handover.still_mounted.len()), (0, 0));
    assert_eq!(handover.watchdogs.len(), 2, "{:?}", handover.watchdogs);
    let stages: Vec<&str> = handover.stages.iter().map(|s| s.stage.name()).collect();
    assert_eq!(
        stages,
        [
            "check",
            "end_processes",
            "swap_and_loops",
            "bind",
            "move_mounts",
            "pivot",
            "let_go",
            "unmount",
            "prove"
        ]
    );
    assert!(it.console.contains("levitate: stage 10/10: starting the maintenance init\n"), "{}", it.console);
    let state: StateRecord = serde_json::from_str(&it.state).expect("a state record");
    assert_eq!((state.state, state.stage.as_deref()), (State::Left, Some("unmount")));
}
