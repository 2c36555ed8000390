//! What the old init's table runs at its end: one line after the other, with one deadline for all of them.

use std::ffi::OsString;
use std::io;

use ramdisk::init::interlock::Gate;

use super::patience::{self, Leaving, Told};

/// Between two looks at the process of a line, in milliseconds.
const LOOK_MS: u64 = 50;

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// What the shell is told.
    command: OsString,
    /// Whether the next one begins only when this one has ended.
    waits: bool,
}

/// Of `wait COMMAND` and `once COMMAND`, again and again; none if it is anything else.
pub(super) fn parse(words: &[OsString]) -> Option<Vec<Line>> {
    let line = |pair: &[OsString]| match pair {
        [action, command] if action == "wait" || action == "once" => {
            Some(Line { command: command.clone(), waits: action == "wait" })
        }
        _ => None,
    };
    words.chunks(2).map(line).collect()
}

/// Runs them. Before each one, who changes flash is waited for: any of them may end everybody. That time does not count;
/// past `limit_ms` of the rest it is gone on without what has not ended, but never while somebody changes flash.
///
/// # Errors
///
/// The first one could not be started: nothing was done.
pub(super) fn run(sys: &mut impl Leaving, lines: &[Line], limit_ms: u64) -> io::Result<()> {
    let mut spent = 0;
    for (place, line) in lines.iter().enumerate() {
        patience::let_flash_be(sys);
        let command = line.command.to_string_lossy().into_owned();
        match sys.begin(&line.command) {
            Ok(()) => {}
            Err(e) if place == 0 => return Err(e),
            Err(e) => {
                sys.say(&format!("{command}: {e}"));
                continue;
            }
        }
        if !line.waits {
            continue;
        }
        let began = sys.now_ms();
        match wait(sys, limit_ms.saturating_sub(spent)) {
            Some(Ok(())) => {}
            Some(Err(e)) => sys.say(&format!("{command}: {e}")),
            None => {
                sys.say(&format!("{command}: not done within {limit_ms} ms; handing over without it"));
                return Ok(());
            }
        }
        spent = spent.saturating_add(sys.now_ms().saturating_sub(began));
    }
    sys.say("everything is stopped; handing over");
    Ok(())
}

/// How the line that was begun last has ended; none if it did not in time.
fn wait(sys: &mut impl Leaving, limit_ms: u64) -> Option<io::Result<()>> {
    let began = sys.now_ms();
    let mut told = Told::default();
    loop {
        if let Some(ended) = sys.ended() {
            return Some(ended);
        }
        if sys.now_ms().saturating_sub(began) >= limit_ms {
            match sys.gate() {
                Gate::Wait { writer } => told.waiting(sys, &writer),
                Gate::Open | Gate::Refuse { .. } => return None,
            }
        }
        sys.pause(LOOK_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::super::patience::double::Double;
    use super::*;

    /// As Buildroot has them.
    fn buildroot() -> Vec<Line> {
        let words =
            ["wait", "rcK", "wait", "swapoff -a", "once", "beep", "wait", "umount -a -r", "wait", "reboot"];
        parse(&words.map(OsString::from)).unwrap()
    }

    #[test]
    fn lines_run_in_their_order_and_only_those_that_wait_are_waited_for() {
        let mut sys =
            Double { takes: vec![("rcK", 2_000), ("umount", 300), ("beep", 9_000)], ..Double::default() };
        run(&mut sys, &buildroot(), 60_000).unwrap();
        let begun: Vec<(u64, &str)> = sys.begun.iter().map(|(at, command)| (*at, command.as_str())).collect();
        let order =
            [(0, "rcK"), (2_000, "swapoff -a"), (2_000, "beep"), (2_000, "umount -a -r"), (2_300, "reboot")];
        assert_eq!(begun, order);
        assert_eq!(sys.said, ["everything is stopped; handing over"]);
    }

    #[test]
    fn who_changes_flash_is_waited_for_before_the_first_line_and_before_every_other() {
        let mut sys = Double { writer_ends_at: Some(600_000), ..Double::default() };
        run(&mut sys, &buildroot(), 5_000).unwrap();
        assert_eq!(sys.begun[0], (600_000, "rcK".into()));
        // begun in the middle: rcK has not ended everybody
        let mut sys = Double { takes: vec![("rcK", 2_000)], ..Double::default() };
        sys.writer_begins_at = 1_000;
        sys.writer_ends_at = Some(700_000);
        run(&mut sys, &buildroot(), 5_000).unwrap();
        assert_eq!(sys.begun[1], (700_000, "swapoff -a".into()));
        assert_eq!(sys.begun.len(), 5, "the time of waiting does not count");
    }

    #[test]
    fn lines_that_never_end_are_left_at_the_deadline_of_all_of_them() {
        let mut sys = Double { takes: vec![("rcK", 40_000), ("umount", u64::MAX)], ..Double::default() };
        run(&mut sys, &buildroot(), 60_000).unwrap();
        assert_eq!((sys.now, sys.begun.len()), (60_000, 4));
        assert_eq!(sys.said, ["umount -a -r: not done within 60000 ms; handing over without it"]);
    }

    #[test]
    fn a_deadline_is_none_while_somebody_changes_flash() {
        let mut sys = Double { takes: vec![("rcK", u64::MAX)], ..Double::default() };
        sys.writer_begins_at = 1_000;
        sys.writer_ends_at = Some(600_000);
        run(&mut sys, &buildroot(), 5_000).unwrap();
        assert_eq!(sys.now, 600_000);
    }

    #[test]
    fn a_line_that_fails_is_told_and_the_next_one_runs_and_if_none_can_be_started_nothing_was_done() {
        let mut sys = Double { fails: vec!["swapoff", "reboot"], ..Double::default() };
        run(&mut sys, &buildroot(), 5_000).unwrap();
        assert_eq!(sys.begun.len(), 5);
        assert_eq!(
            sys.said,
            ["swapoff -a: exit status: 1", "reboot: exit status: 1", "everything is stopped; handing over"]
        );
        let mut sys = Double { cannot_begin: true, ..Double::default() };
        run(&mut sys, &buildroot(), 5_000).unwrap_err();
        assert_eq!((sys.now, sys.said.len()), (0, 0));
    }

    #[test]
    fn words_that_are_no_lines_are_none() {
        for words in [&["wait"][..], &["wait", "x", "once"], &["never", "x"]] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(parse(&words), None, "{words:?}");
        }
    }
}
