//! Every test there is: those of `cargo test`, then the boards, several side by side, and one closing line for all.

mod boards;
mod cargo;
pub(crate) mod failure;
pub(crate) mod one;
pub(crate) mod report;
mod tally;

use std::time::Duration;

use crate::assets::{self, Assets};
use crate::scenarios;

pub(crate) use failure::Failure;
use tally::Tally;

/// One test on an emulated board. Each runs in a process of its own, several side by side.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// The promise that it keeps, as a sentence with underscores.
    pub(crate) name: &'static str,
    /// What it runs on.
    pub(crate) board: Board,
    /// After this it is killed, with everything it started, and counted as a failure of the harness.
    pub(crate) limit: Duration,
    /// The test. Files named `*.console` in [`Assets::scratch`] become part of the report when it fails.
    pub(crate) run: fn(&Assets) -> Result<(), Failure>,
}

/// A board that is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Board {
    /// `virt`: the device with its firmware.
    Virt,
    /// The same, and beside it a binary whose hand-over fails on request, made only for a test that needs it.
    VirtWithFaults,
    /// `ast2600-evb`: true NOR physics, a rescue root. Its parts are made only for a test that needs them.
    Ast2600,
}

/// What a name that no test has ends with: a slip in a script's filter must not look like success.
const USAGE: u8 = 2;

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// What a day's work needs.
    Usual,
    /// Further seeds of the same promises, too.
    Long,
}

impl Length {
    /// As the command line says.
    pub(crate) fn of(long: bool) -> Self {
        if long { Self::Long } else { Self::Usual }
    }
}

/// The board tests whose name contains `filter`.
fn matching(filter: Option<&str>, length: Length) -> Vec<Scenario> {
    let more = if length == Length::Long { scenarios::long() } else { Vec::new() };
    more.into_iter()
        .chain(scenarios::all())
        .filter(|scenario| filter.is_none_or(|part| scenario.name.contains(part)))
        .collect()
}

/// Makes the parts of every board that is needed; scenarios whose board cannot be had are taken out and told of.
fn with_boards(
    mut assets: Assets,
    scenarios: &mut Vec<Scenario>,
    tally: &mut Tally,
    problems: &mut Vec<String>,
) -> Assets {
    let mut make = |board, name: &str, make: &mut dyn FnMut() -> assets::error::Result<()>| {
        let without = scenarios.iter().filter(|scenario| scenario.board == board).count();
        if without > 0
            && let Err(error) = make()
        {
            eprintln!("error: {error}");
            problems.push(format!("{without} tests {name} could not run: {error}"));
            scenarios.retain(|scenario| scenario.board != board);
            tally.skipped += without as u64;
        }
    };
    make(Board::Ast2600, "on the board ast2600-evb", &mut || assets.with_armhf());
    make(Board::VirtWithFaults, "with injected faults", &mut || assets.with_faults());
    assets
}

/// A line above the closing one: what `--long` holds, whether it was run or not.
fn about_long(filter: Option<&str>, length: Length) -> String {
    let count = matching(filter, Length::Long).len() - matching(filter, Length::Usual).len();
    match (count, length) {
        (0, _) => String::new(),
        (count, Length::Usual) => format!("--long: {count} board tests more, not run\n"),
        (count, Length::Long) => format!("--long: {count} board tests more, run\n"),
    }
}

/// Prints the names of all tests, set-up not needed. Returns the exit code.
pub(crate) fn list(filter: Option<&str>, length: Length) -> u8 {
    match cargo::list(filter) {
        Ok(names) => {
            let boards = matching(filter, length).into_iter().map(|scenario| scenario.name.to_owned());
            for name in names.into_iter().chain(boards) {
                println!("{name}: test");
            }
            0
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

/// Runs all tests whose name contains `filter`. Returns the exit code; the last line on standard output is
/// `N passed, N failed`, with what could not run.
pub(crate) fn run(filter: Option<&str>, length: Length) -> u8 {
    let mut scenarios = matching(filter, length);
    let mut problems = Vec::new();
    // a unit test's name needs no board
    let assets = if scenarios.is_empty() { None } else { Some(assets::prepare()) };
    let assets = match assets {
        Some(Err(error)) => {
            eprintln!("error: {error}");
            eprintln!("the tests that need no board run nevertheless");
            problems.push(format!("{} board tests could not run: {error}", scenarios.len()));
            None
        }
        Some(Ok(assets)) => Some(assets),
        None => None,
    };
    let mut tally = Tally::default();
    let assets = assets.map(|assets| with_boards(assets, &mut scenarios, &mut tally, &mut problems));
    match cargo::run(filter, &mut tally) {
        Ok(()) => {}
        Err(failure) => problems.push(failure.to_string()),
    }
    match &assets {
        Some(assets) => boards::run(assets, &scenarios, &mut tally, &mut problems),
        None => tally.skipped += scenarios.len() as u64,
    }
    if let Some(assets) = assets.filter(|_| tally.failed == 0) {
        assets.tidy();
    }
    for problem in &problems {
        eprintln!("harness: {problem}");
    }
    if let Some(part) = filter.filter(|_| tally == Tally::default()) {
        eprintln!("no test's name contains `{part}`; `cargo test-all --list` lists them all");
        println!("\n{tally}");
        return USAGE;
    }
    println!("\n{}{tally}", about_long(filter, length));
    tally.exit_code(&problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_long_runs_is_counted_whether_it_runs_or_not() {
        let long = scenarios::long().len();
        assert!(long > 0);
        assert_eq!(matching(None, Length::Long).len(), matching(None, Length::Usual).len() + long);
        assert_eq!(about_long(None, Length::Usual), format!("--long: {long} board tests more, not run\n"));
        assert_eq!(about_long(None, Length::Long), format!("--long: {long} board tests more, run\n"));
        assert_eq!(about_long(Some("no such test"), Length::Long), "");
    }
}
