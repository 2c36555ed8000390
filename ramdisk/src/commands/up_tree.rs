//! `s6-rc-up-tree`: a service and all that depends on it, except what is below a controlled service that is down.

use super::Context;
use super::graph::{Names, Way, below_none_of};
use super::options::parse;
use crate::init::control::{Change, Order, Wait};

pub(super) const HELP: &str = "s6-rc-up-tree [ -t timeout ] servicename";

pub(super) fn run(context: &mut Context<'_>, words: Vec<String>) -> u8 {
    let parsed = parse(words, "", "t", &[]);
    let (limit, name) =
        match parsed.as_ref().map(|parsed| (parsed.value('t').map(str::parse::<u64>), &parsed.rest[..])) {
            Ok((None, [name])) => (None, name.clone()),
            Ok((Some(Ok(ms)), [name])) => (Some(ms).filter(|ms| *ms > 0), name.clone()),
            Err(why) => return context.usage(why),
            Ok((Some(Err(_)), _)) => return context.usage("-t: expected milliseconds"),
            _ => return context.usage("expected the name of one service or bundle"),
        };
    let live = match context.live() {
        Ok(live) => live,
        Err(code) => return code,
    };
    let graph = &live.graph;
    let asked_for = match graph.resolve(&[name]) {
        Ok(names) => names,
        Err(unknown) => return context.unknown(&unknown),
    };
    // Who asks for a controlled service by its name gets it.
    let closed: Names = live
        .entries
        .iter()
        .filter(|entry| {
            entry.controlled_by.is_some() && entry.state != "up" && !asked_for.contains(&entry.name)
        })
        .map(|entry| entry.name.clone())
        .collect();
    let open = below_none_of(graph, &graph.closure(&asked_for, Way::NeededBy), &closed);
    for name in asked_for.difference(&open) {
        let needs = graph.closure(&[name.clone()].into(), Way::Needs);
        let why = needs.intersection(&closed).next().map_or("", String::as_str);
        let _ = writeln!(
            context.err,
            "{}: warning: {name} is left alone: it needs {why}, which is controlled and not running",
            context.name
        );
    }
    if open.is_empty() {
        return 1;
    }
    let wait = limit.map_or(Wait::Forever, Wait::For);
    let names = graph.ends(&open, Way::Needs);
    let code = context.order(Order { change: Change::Up, wait, by_controller: false, names }, 1);
    match code {
        0 if !asked_for.is_subset(&open) => 1,
        2 => context.fatal(2, "timed out"),
        code => code,
    }
}
