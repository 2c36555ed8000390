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
    if waits_for.as_deref().is_some_and(|wait| !["u", "U", "d", "D", "r", "R"].contains(&wait)) {
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
        let code = order(context, change, Wait::No, &name);
        if code != 0 {
            return code;
        }
    }
    let wait = limit.map_or(Wait::Forever, Wait::For);
    match waits_for.as_deref() {
        Some("u" | "U") => order(context, Change::Up, wait, &name),
        Some("d" | "D") => order(context, Change::Down, wait, &name),
        Some(_) => wait_for_restart(context, &name, before, by),
        None => 0,
    }
}

fn order(context: &mut Context<'_>, change: Change, wait: Wait, name: &str) -> u8 {
    let names = vec![name.to_owned()];
    match context.order(Order { change, wait, by_controller: false, names }, 1) {
        2 => context.fatal(TIMED_OUT, "timed out"),
        // For s6-svc a service that is not there is a wrong argument.
        3 => USAGE,
        code => code,
    }
}

/// Waits for another process than `before`.
fn wait_for_restart(context: &mut Context<'_>, name: &str, before: Option<i32>, by: Option<Instant>) -> u8 {
    loop {
        let live = match context.live() {
            Ok(live) => live,
            Err(code) => return code,
        };
        match live.get(name) {
            Some(entry) if entry.pid.is_some() && entry.pid != before && entry.state == "up" => return 0,
            Some(entry) if !entry.wanted => return 1,
            Some(_) => {}
            None => return USAGE,
        }
        if by.is_some_and(|by| by <= Instant::now()) {
            return context.fatal(TIMED_OUT, "timed out");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
