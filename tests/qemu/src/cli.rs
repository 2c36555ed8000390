//! The command line of `cargo demo` and `cargo test-all`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::assets::places;
use crate::demo::Place;
use crate::firmware::System;

/// The QEMU harness: set-up, the demonstration, and every test there is.
#[derive(Debug, Parser)]
#[command(name = "levitate-qemu", after_help = variables())]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Set everything up, then run the main job on an emulated device and show it live
    #[command(after_help = variables())]
    Demo {
        /// Print the result as one JSON object on standard output
        #[arg(long, conflicts_with = "shell")]
        json: bool,
        /// Only set up, then print where each part lies
        #[arg(long, conflicts_with = "shell")]
        setup_only: bool,
        /// Boot a device and leave me in an ssh session on it
        #[arg(long, value_name = "WHERE")]
        shell: Option<Place>,
        /// What runs as process 1 of that device
        #[arg(long, value_name = "INIT", requires = "shell", default_value = "s6")]
        init: System,
    },
    /// Set everything up, then run every test: unit tests, simulations, emulated devices
    #[command(after_help = variables())]
    TestAll {
        /// Run the tests whose name contains this
        name: Option<String>,
        /// List the tests instead of running them; nothing is set up
        #[arg(long)]
        list: bool,
        /// Cut the power at further moments, too
        #[arg(long)]
        long: bool,
    },
    /// Set everything up, then count what upgrades cost on an emulated chip, beside Debian's flashcp
    #[command(after_help = variables())]
    BenchFlash {
        /// Print one JSON object per run
        #[arg(long)]
        json: bool,
    },
    /// Set everything up, then measure levitate beside `cp -a`, and its restart beside a full reboot
    #[command(after_help = variables())]
    BenchLevitate {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// One board test, in a process of its own
    #[command(hide = true)]
    Scenario {
        /// The parts, as JSON
        assets: PathBuf,
        /// The test's name
        name: String,
    },
}

fn variables() -> String {
    let width = places::variables().keys().map(|name| name.len()).max().unwrap_or_default();
    let lines = places::variables().into_iter().map(|(name, text)| format!("\n  {name:width$}  {text}"));
    format!("Environment:{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Action {
        Arguments::try_parse_from(line.split(' ')).unwrap().command
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_name_is_understood_with_and_without_the_two_dashes() {
        for line in ["x test-all -- guard", "x test-all guard"] {
            assert!(
                matches!(parse(line), Action::TestAll { name: Some(name), list: false, long: false } if name == "guard")
            );
        }
        assert!(matches!(parse("x test-all --list"), Action::TestAll { name: None, list: true, .. }));
        assert!(matches!(
            parse("x test-all --long"),
            Action::TestAll { name: None, list: false, long: true }
        ));
        assert!(matches!(parse("x demo --shell v1"), Action::Demo { shell: Some(Place::V1), .. }));
        assert!(Arguments::try_parse_from(["x", "demo", "--shell", "v9"]).is_err());
    }

    #[test]
    fn every_variable_is_told_by_help() {
        let help = Arguments::command().render_long_help().to_string();
        for name in places::variables().keys() {
            assert!(help.contains(name), "{name}");
        }
    }
}
