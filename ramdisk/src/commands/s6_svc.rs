//! `s6-svc`: a command to the process of one service.
//!
//! Exit codes are s6-svc's: 0, 1 the service failed while it was waited for, 99 timed out, 100 usage or no such
//! service, 111 system call.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::options::parse;
use super::{Context, USAGE};
use crate::init::control::{Change, Order, Wait};
use crate::init::snapshot::Entry;
use crate::service::definition::parse_signal;

const TIMED_OUT: u8 = 99;
pub(super) const HELP: &str = "s6-svc [ -wu | -wU | -wd | -wD | -wr | -wR ] [ -T timeout ] [ -s signal | -abqhkti12pcy ] [ -o | -u | -d | -r ] service";
/// Between two looks while a restart is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

fn signal(letter: char) -> Option<Signal> {
    Some(match letter {
        'a' => Signal::SIGALRM,
        'b' => Signal::SIGABRT,
        'q' => Signal::SIGQUIT,
        'h' => Signal::SIGHUP,
        'k' => Signal::SIGKILL,
        't' => Signal::SIGTERM,
        'i' => Signal::SIGINT,
        '1' => Signal::SIGUSR1,
        '2' => Signal::SIGUSR2,
        'p' => Signal::SIGSTOP,
        'c' => Signal::SIGCONT,
        'y' => Signal::SIGWINCH,
        _ => return None,
    })
}

/// A service is named as such, or by a directory of its name.
pub(super) fn service_name(word: &str) -> &str {
    Path::new(word).file_name().and_then(|name| name.to_str()).unwrap_or(word)
}

pub(super) fn run(context: &mut Context<'_>, words: Vec<String>) -> u8 {
    let parsed = match parse(words, "abqhkti12pcyroud", "wTs", &[]) {
        Ok(parsed) => parsed,
        Err(why) => return context.usage(&why),
    };
    let limit = match parsed.value('T').map(str::parse::<u64>) {
        None => None,
        Some(Ok(ms)) => Some(ms).filter(|ms| *ms > 0),
        Some(Err(_)) => return context.usage("-T: expected milliseconds"),
    };
    let [word] = parsed.rest.as_slice() else { return context.usage("expected the name of one service") };
    let name = service_name(word).to_owned();
    let waits_for = parsed.value('w').map(str::to_owned);
    if waits_for.as_deref().is_some_and(|wait| Awaited::parse(wait).is_none()) {
        return context.usage("-w: expected u, U, d, D, r or R");
    }
    let mut changes = Vec::new();
    for (letter, value) in &parsed.options {
        let change = match letter {
            'w' | 'T' => continue,
            'u' => Change::Up,
            'd' => Change::Down,
            'o' => Change::Once,
            'r' => Change::Restart,
            's' => match parse_signal(value) {
                Some(signal) => Change::Signal(signal),
                None => return context.usage(&format!("-s: expected a signal, found {value:?}")),
            },
            letter => match signal(*letter) {
                Some(signal) => Change::Signal(signal),
                None => continue,
            },
        };
        changes.push(change);
    }
    let before = match context.live() {
        Ok(live) => live.get(&name).and_then(|entry| entry.pid),
        Err(code) => return code,
    };
    let by = limit.map(|ms| Instant::now() + Duration::from_millis(ms));
    for change in changes {
        let code = order(context, change, &name);
        if code != 0 {
            return code;
        }
    }
    match waits_for.as_deref().and_then(Awaited::parse) {
        Some(awaited) => wait_for(context, &name, awaited, before, by),
        None => 0,
    }
}

fn order(context: &mut Context<'_>, change: Change, name: &str) -> u8 {
    let names = vec![name.to_owned()];
    match context.order(Order { change, wait: Wait::No, by_controller: false, names }, 1) {
        // For s6-svc a service that is not there is a wrong argument.
        3 => USAGE,
        code => code,
    }
}

/// What `-w` waits for. It orders nothing: that is for the other options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// A process.
    Up,
    /// One that is ready.
    Ready,
    /// No process, or another one than before.
    Down,
    /// Another process than before, up.
    Restart,
}

impl Awaited {
    /// The option's value. `D` and `R` wait for `finish` and for readiness, too; here `d` and `r` do that already.
    fn parse(value: &str) -> Option<Self> {
        Some(match value {
            "u" => Self::Up,
            "U" => Self::Ready,
            "d" | "D" => Self::Down,
            "r" | "R" => Self::Restart,
            _ => return None,
        })
    }

    /// The exit code if the wait is over: what was awaited is there, or it will not come by itself any more.
    fn is_over(self, before: Option<i32>, entry: &Entry) -> Option<u8> {
        let is_settled_down = ["down", "failed"].contains(&entry.state.as_str());
        let is_up = entry.state == "up" && (entry.pid.is_some() || entry.kind == "oneshot");
        let is_another = entry.pid.is_some() && entry.pid != before;
        let is_there = match self {
            Self::Up => is_up || (entry.state == "starting" && entry.pid.is_some()),
            Self::Ready => is_up,
            // What shall be up is started again: its being down may have passed unseen.
            Self::Down => is_settled_down || (entry.wanted && before.is_some() && entry.pid != before),
            Self::Restart => is_up && is_another,
        };
        let has_failed = match self {
            Self::Up | Self::Ready => entry.state == "failed",
            Self::Restart => !entry.wanted && is_settled_down,
            Self::Down => false,
        };
        if is_there { Some(0) } else { has_failed.then_some(1) }
    }
}

fn wait_for(
    context: &mut Context<'_>,
    name: &str,
    awaited: Awaited,
    before: Option<i32>,
    by: Option<Instant>,
) -> u8 {
    loop {
        let live = match context.live() {
            Ok(live) => live,
            Err(code) => return code,
        };
        let Some(entry) = live.get(name).filter(|entry| entry.kind != "bundle") else {
            return context.fatal(USAGE, &format!("there is no longrun or oneshot named {name}"));
        };
        match awaited.is_over(before, entry) {
            Some(0) => return 0,
            Some(code) => {
                let why = entry.failure.as_deref().unwrap_or("it is down and nobody wants it up");
                return context.fatal(code, &format!("{name}: {why}"));
            }
            None if by.is_some_and(|by| by <= Instant::now()) => {
                return context.fatal(TIMED_OUT, "timed out");
            }
            None => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_over_when_what_was_awaited_happened_and_not_before() {
        let entry = |state: &str, wanted, pid| Entry {
            kind: "longrun".into(),
            state: state.into(),
            wanted,
            pid,
            ..Entry::default()
        };
        let (up, other) = (entry("up", true, Some(7)), entry("up", true, Some(8)));
        let between = entry("up", true, None);
        let starting = entry("starting", true, Some(8));
        let (stopping, down) = (entry("stopping", false, Some(7)), entry("down", false, None));
        let failed = entry("failed", false, None);
        let is_over = |word: &str, entry: &Entry| Awaited::parse(word).unwrap().is_over(Some(7), entry);
        for (word, codes) in [
            ("u", [Some(0), Some(0), None, Some(0), None, None, Some(1)]),
            ("U", [Some(0), Some(0), None, None, None, None, Some(1)]),
            ("d", [None, Some(0), Some(0), Some(0), None, Some(0), Some(0)]),
            ("r", [None, Some(0), None, None, None, Some(1), Some(1)]),
        ] {
            let all = [&up, &other, &between, &starting, &stopping, &down, &failed];
            assert_eq!(all.map(|entry| is_over(word, entry)), codes, "{word}");
        }
        // Nothing ran before: nothing can have ended.
        assert_eq!(Awaited::Down.is_over(None, &up), None);
        assert_eq!(Awaited::parse("x"), None);
    }
}
