//! `round-robin`: runs services in turn, the next when the process of the one before has ended.
//!
//! A member is run once: PID 1 itself says when its process is over, whatever files the service leaves or does not.

use std::path::Path;
use std::time::Duration;

use super::orders::{Done, entries, order};
use super::{Failure, say};
use crate::init::control::{Change, Wait};
use crate::init::snapshot::Entry;

/// Between two members, so that a list of broken ones does not keep the processor busy: s6's second.
const PAUSE: Duration = Duration::from_secs(1);
const HELP: &str = "usage: round-robin SERVICE...";

/// Runs until it is ended.
///
/// # Errors
/// A command line without members or with unknown ones, or a PID 1 that does not answer.
pub(super) fn run(socket: &Path, members: Vec<String>) -> Result<(), Failure> {
    if members.is_empty() || members.iter().any(|word| word.starts_with('-')) {
        return Err(Failure::Usage(HELP.to_owned()));
    }
    let all = entries(socket)?;
    if let Some(why) = misfit(&members, &all) {
        return Err(Failure::Usage(why));
    }
    let mut turn = first(&members, &all);
    for name in members.iter().filter(|name| Some(*name) != members.get(turn)) {
        order(socket, Change::Down, Wait::Forever, std::slice::from_ref(name))?;
    }
    loop {
        let Some(member) = members.get(turn) else { return Err(Failure::Usage(HELP.to_owned())) };
        say(&format!("{member}: its turn"));
        if order(socket, Change::Once, Wait::Forever, std::slice::from_ref(member))? == Done::No {
            say(&format!("{member}: could not be run"));
        }
        turn = next(turn, members.len());
        std::thread::sleep(PAUSE);
    }
}

/// The member that runs already (this controller itself was started again), or the first.
fn first(members: &[String], entries: &[Entry]) -> usize {
    let runs = |name: &String| entries.iter().any(|entry| entry.name == *name && entry.wanted);
    members.iter().position(runs).unwrap_or(0)
}

/// Why one of them cannot be a member: only a longrun has a process whose end is a turn's end.
fn misfit(members: &[String], entries: &[Entry]) -> Option<String> {
    let entry = |name: &String| entries.iter().find(|entry| entry.name == *name);
    members.iter().find_map(|name| match entry(name) {
        None => Some(format!("there is no service named {name}")),
        Some(entry) if entry.kind != "longrun" => {
            Some(format!("{name} is a {}: expected a longrun, whose process ends a turn", entry.kind))
        }
        Some(_) => None,
    })
}

fn next(turn: usize, count: usize) -> usize {
    if turn + 1 >= count { 0 } else { turn + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_turn_goes_round_and_begins_with_the_one_that_runs() {
        let members = ["a", "b", "c"].map(str::to_owned);
        let entry = |name: &str, wanted| Entry { name: name.into(), wanted, ..Entry::default() };
        assert_eq!(first(&members, &[entry("a", false), entry("b", true)]), 1);
        assert_eq!(first(&members, &[]), 0);
        let turns: Vec<usize> = std::iter::successors(Some(0), |turn| Some(next(*turn, 3))).take(5).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn a_member_without_a_process_to_end_is_refused() {
        let entry =
            |name: &str, kind: &str| Entry { name: name.into(), kind: kind.into(), ..Entry::default() };
        let all = [entry("wan", "longrun"), entry("dial", "oneshot")];
        let misfit = |name: &str| misfit(&["wan".into(), name.into()], &all);
        assert_eq!(misfit("wan"), None);
        assert_eq!(
            misfit("dial").unwrap(),
            "dial is a oneshot: expected a longrun, whose process ends a turn"
        );
        assert_eq!(misfit("lan").unwrap(), "there is no service named lan");
    }

    #[test]
    fn without_members_it_says_how_it_is_used() {
        for words in [vec![], vec!["--help".to_owned()]] {
            assert_eq!(run(Path::new("/none"), words), Err(Failure::Usage(HELP.into())));
        }
    }
}
