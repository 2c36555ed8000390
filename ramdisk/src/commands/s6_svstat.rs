//! `s6-svstat`: the state of one service, for people or field by field.
//!
//! Exit codes are s6-svstat's: 0, 1 no such service, 100 usage, 111 system call.

use nix::sys::signal::Signal;

use super::Context;
use super::options::parse;
use super::s6_svc::service_name;
use crate::init::snapshot::Entry;
use crate::process_stat::Stat;

pub(super) const HELP: &str = "\
s6-svstat [ -uwNrpgest | -o FIELD,... ] [ -n ] service
  fields: up, wantedup, normallyup, ready, paused, pid, pgid, exitcode, signal, signum, updownfor, readyfor
";

pub(super) fn run(context: &mut Context<'_>, words: Vec<String>) -> u8 {
    let parsed = match parse(words, "uwNrpgestn", "o", &[]) {
        Ok(parsed) => parsed,
        Err(why) => return context.usage(&why),
    };
    let [word] = parsed.rest.as_slice() else { return context.usage("expected the name of one service") };
    let name = service_name(word).to_owned();
    let live = match context.live() {
        Ok(live) => live,
        Err(code) => return code,
    };
    let Some(entry) = live.get(&name).filter(|entry| entry.kind != "bundle") else {
        return context.fatal(1, &format!("there is no longrun or oneshot named {name}"));
    };
    let mut fields = Vec::new();
    for (letter, value) in &parsed.options {
        match letter {
            'o' => fields.extend(value.split(',').map(str::to_owned)),
            'n' => {}
            letter => fields.extend(shorthand(*letter).map(str::to_owned)),
        }
    }
    if fields.is_empty() {
        return context.lines([for_people(entry, parsed.has('n'))]);
    }
    let mut values = Vec::new();
    for name in &fields {
        match field(entry, name) {
            Some(value) => values.push(value),
            None => return context.usage(&format!("unknown field {name}")),
        }
    }
    context.lines([values.join(" ")])
}

fn shorthand(letter: char) -> Option<&'static str> {
    let all = [
        ('u', "up"),
        ('w', "wantedup"),
        ('N', "normallyup"),
        ('r', "ready"),
        ('p', "pid"),
        ('g', "pgid"),
        ('e', "exitcode"),
        ('s', "signal"),
        ('t', "updownfor"),
    ];
    all.iter().find(|(known, _)| *known == letter).map(|(_, field)| *field)
}

fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("SIG{number}"), |signal| signal.as_str().to_owned())
}

/// A process runs, whether or not it is ready.
fn is_running(entry: &Entry) -> bool {
    entry.pid.is_some() || (entry.kind == "oneshot" && entry.state == "up")
}

fn field(entry: &Entry, name: &str) -> Option<String> {
    let number = |number: Option<i32>| number.unwrap_or(-1).to_string();
    let when_down = |value: Option<i32>| value.filter(|_| !is_running(entry));
    let is_up = entry.state == "up";
    Some(match name {
        "up" => is_running(entry).to_string(),
        "wantedup" => entry.wanted.to_string(),
        "normallyup" => entry.at_boot.to_string(),
        // Without a notification there is no readiness, as in s6; what is down can be started.
        "ready" => ((is_up && entry.notifies) || !is_running(entry)).to_string(),
        "paused" => is_stopped(entry.pid).to_string(),
        // Each process is started in a session of its own.
        "pid" | "pgid" => number(entry.pid),
        "exitcode" => number(when_down(entry.exit_code)),
        "signum" => number(when_down(entry.signal)),
        "signal" => when_down(entry.signal).map_or_else(|| "NA".to_owned(), signal_name),
        "updownfor" | "readyfor" => entry.seconds.to_string(),
        _ => return None,
    })
}

fn is_stopped(pid: Option<i32>) -> bool {
    let stat = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    stat.is_some_and(|stat| Stat::parse(&stat).is_some_and(|stat| stat.state == 'T'))
}

/// s6-svstat's own sentence.
fn for_people(entry: &Entry, numbers: bool) -> String {
    let running = is_running(entry);
    let mut text = match (entry.pid, entry.exit_code, entry.signal) {
        (Some(pid), ..) => format!("up (pid {pid} pgid {pid})"),
        _ if running => "up".to_owned(),
        (None, Some(code), _) => format!("down (exitcode {code})"),
        (None, None, Some(signal)) if numbers => format!("down (signal {signal})"),
        (None, None, Some(signal)) => format!("down (signal {})", signal_name(signal)),
        _ => "down".to_owned(),
    };
    text.push_str(&format!(" {} seconds", entry.seconds));
    if running && !entry.at_boot {
        text.push_str(", normally down");
    }
    if !running && entry.at_boot {
        text.push_str(", normally up");
    }
    if is_stopped(entry.pid) {
        text.push_str(", paused");
    }
    match (running, entry.wanted) {
        (true, false) => text.push_str(", want down"),
        (false, true) => text.push_str(", want up"),
        _ => {}
    }
    if (entry.state == "up" && entry.notifies) || !running {
        text.push_str(&format!(", ready {} seconds", entry.seconds));
    }
    text
}
