//! `s6-rc`: what is up, and changing it.
//!
//! Exit codes are s6-rc's: 0 done, 1 a service did not get where it was told to go, 2 timed out, 3 unknown service,
//! 100 usage, 111 PID 1 cannot be asked. (4, an invalid database, is for `s6-rc-db` to say: PID 1 does not start with
//! one.)

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Context;
use super::ask::Live;
use super::graph::{Names, Way, below_none_of};
use super::options::{Parsed, parse};
use crate::init::control::{Change, Order, Wait};

pub(super) const HELP: &str = "\
s6-rc help
s6-rc [ -l live ] [ -a ] [ -u | -d ] list [ servicenames... ]
s6-rc [ -l live ] [ -a ] [ -u | -d ] listall [ servicenames... ]
s6-rc [ -l live ] diff
s6-rc [ -l live ] [ -a ] [ -u | -d | -D ] [ -p ] [ -v verbosity ] [ -t timeout ]
      [ -n dryrunthrottle ] change [ servicenames... ]
s6-rc [ ... ] start | stop [ servicenames... ]
";

/// Long names, s6-rc's.
const LONG: [(&str, char); 12] = [
    ("up", 'u'),
    ("down", 'd'),
    ("all-down", 'D'),
    ("prune", 'p'),
    ("add", 'a'),
    ("block", 'b'),
    ("with-essentials", 'E'),
    ("without-essentials", 'e'),
    ("verbosity", 'v'),
    ("dry-run", 'n'),
    ("timeout", 't'),
    ("livedir", 'l'),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prune {
    No,
    Yes,
}

/// How a change is made.
struct Manner {
    verbosity: u32,
    /// Milliseconds after each pretended step; none: it is done in truth.
    pretend: Option<u64>,
    by: Option<Instant>,
}

pub(super) fn run(context: &mut Context<'_>, words: Vec<String>) -> u8 {
    // -b waits for a lock and -e leaves out essential services: there is no lock, and no service is essential.
    context.with_options(parse(words, "udDpabEe", "vntl", &LONG), command)
}

fn number<N: std::str::FromStr>(
    context: &mut Context<'_>,
    parsed: &Parsed,
    letter: char,
) -> Result<Option<N>, u8> {
    let Some(text) = parsed.value(letter) else { return Ok(None) };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(context.usage(&format!("-{letter}: expected a number, found {text:?}"))),
    }
}

fn command(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8, u8> {
    let mut direction = match parsed.last_of(&['u', 'd', 'D']) {
        Some('d' | 'D') => Direction::Down,
        _ => Direction::Up,
    };
    let mut prune = if parsed.has('p') { Prune::Yes } else { Prune::No };
    let verbosity = number(context, parsed, 'v')?.unwrap_or(1);
    let pretend = number(context, parsed, 'n')?;
    let limit: Option<u64> = number(context, parsed, 't')?.filter(|ms| *ms > 0);
    let by = limit.map(|ms| Instant::now() + Duration::from_millis(ms));
    if let Some(live) = parsed.value('l') {
        context.socket = PathBuf::from(live).join("init.sock");
    }
    let Some((command, names)) = parsed.rest.split_first() else {
        return Err(context.usage("expected a command"));
    };
    match command.as_str() {
        "help" => return Ok(context.print(HELP.as_bytes())),
        // A process that gave up for good is marked down here, so both views are one.
        "diff" => return context.live().map(|_| 0),
        "list" | "listall" | "change" => {}
        "start" | "stop" => {
            direction = if command == "start" { Direction::Up } else { Direction::Down };
            prune = Prune::No;
        }
        other => return Err(context.usage(&format!("unknown command: {other}"))),
    }
    let live = context.live()?;
    let mut selection = live.graph.resolve(names).map_err(|unknown| context.unknown(&unknown))?;
    if parsed.has('a') {
        selection.extend(live.graph.atomics().into_iter().filter(|name| live.is_up(name)));
    }
    let way = if direction == Direction::Up { Way::Needs } else { Way::NeededBy };
    match command.as_str() {
        "list" if direction == Direction::Down => {
            Ok(context.lines(live.graph.atomics().difference(&selection)))
        }
        "list" => Ok(context.lines(&selection)),
        "listall" => Ok(context.lines(live.graph.closure(&selection, way))),
        _ => Ok(change(context, &live, &selection, direction, prune, &Manner { verbosity, pretend, by })),
    }
}

/// Down first, then up, as s6-rc does.
fn change(
    context: &mut Context<'_>,
    live: &Live,
    selection: &Names,
    direction: Direction,
    prune: Prune,
    manner: &Manner,
) -> u8 {
    let graph = &live.graph;
    let way = if direction == Direction::Up { Way::Needs } else { Way::NeededBy };
    let closed = graph.closure(selection, way);
    let others: Names = graph.atomics().difference(&closed).cloned().collect();
    let none = Names::new();
    let (down, up) = match (direction, prune) {
        (Direction::Up, Prune::No) => (none, closed),
        (Direction::Down, Prune::No) => (closed, none),
        (Direction::Up, Prune::Yes) => (others, closed),
        // What only a controller may start is not started by "everything else".
        (Direction::Down, Prune::Yes) => {
            let is_down = |name: &&String| {
                live.get(name).is_some_and(|entry| entry.controlled_by.is_some() && entry.state != "up")
            };
            let controlled = graph.atomics().iter().filter(is_down).cloned().collect();
            (closed, below_none_of(graph, &others, &controlled))
        }
    };
    let mut worst = 0;
    for (change, names, way) in [(Change::Down, down, Way::NeededBy), (Change::Up, up, Way::Needs)] {
        if names.is_empty() {
            continue;
        }
        let code = match manner.pretend {
            Some(pause) => pretend(context, live, change, &graph.ordered(&names, way), pause),
            // Who is there already is not waited for, but told to stay.
            None => in_truth(context, change, graph.ends(&names, way), manner),
        };
        match code {
            0 => {}
            1 => worst = 1,
            other => return other,
        }
    }
    worst
}

fn in_truth(context: &mut Context<'_>, change: Change, names: Vec<String>, manner: &Manner) -> u8 {
    let left = manner.by.map(|by| by.saturating_duration_since(Instant::now()));
    let wait =
        left.map_or(Wait::Forever, |left| Wait::For(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
    let code = context.order(Order { change, wait, by_controller: false, names }, manner.verbosity);
    if code == 2 { context.fatal(code, "timed out") } else { code }
}

fn pretend(context: &mut Context<'_>, live: &Live, change: Change, names: &[String], pause: u64) -> u8 {
    for name in names.iter().filter(|name| live.is_up(name) == (change == Change::Down)) {
        let code = context.lines([format!("{} {name}", change.word())]);
        if code != 0 {
            return code;
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    0
}
