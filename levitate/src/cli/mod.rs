//! The `levitate` command: parses, calls the library, prints, and maps errors to exit codes.

mod render;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use ramdisk::dir_sink::Owners;
use ramdisk::path::Root;

use crate::abort::{self, Undone};
use crate::arming;
use crate::check;
use crate::config::{CONFIG, Config};
use crate::facts::SystemFacts;
use crate::manifest::STAGED_ROOT;
use crate::run_mount::KernelMounts;
use crate::status::{self, with_sources};

/// Done.
const DONE: u8 = 0;
/// Refused or failed; nothing is staged that was not staged before.
const FAILED: u8 = 1;
/// The command line was not understood.
const USAGE: u8 = 2;

/// Stage a small root in RAM for the next `reboot` to enter, to rewrite the flash.
#[derive(Debug, Parser)]
#[command(
    name = "levitate",
    version,
    after_help = "Nothing is changed on flash but the state file, if there is one. Until\n\
        `reboot` everything can be undone by `levitate abort`; after it, by another\n\
        `reboot`.\n\n\
        Exit codes: 0 done; 1 refused or failed, nothing staged; 2 usage."
)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stage the maintenance root and arm it (the default).
    Stage,
    /// Tell what is staged, what `reboot` does now, how the last try went.
    Status {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Tell whether `levitate` would work, and what it would do.
    #[command(after_help = "Nothing is changed. Each program that would be staged is loaded in a\n\
        copy of the staged root that nobody else sees, and stopped before its first\n\
        instruction; its dynamic linker lists what it would load. What a program\n\
        does once it runs is not tried.\n\n\
        Exit codes: 0 it would work; 1 it would not, each reason is told; 2 usage.")]
    Check {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Remove the staged root: `reboot` is a normal reboot again.
    Abort,
}

/// Runs the command with `arguments`, the program's name first, and returns its exit code: 0 done, 1 refused or failed
/// with nothing staged, 2 usage.
pub fn run(arguments: impl Iterator<Item = OsString>) -> u8 {
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(e) => {
            // to standard output for --help, to standard error for errors; nothing helps if that fails
            let _ = e.print();
            return if e.use_stderr() { USAGE } else { DONE };
        }
    };
    // modes are as they are written here, whoever calls
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let done = match parsed.command.unwrap_or(Command::Stage) {
        Command::Stage => stage(&parsed.config),
        Command::Status { json } => show(&parsed.config, json),
        Command::Abort => undo(&parsed.config),
        Command::Check { json } => match look(&parsed.config, json) {
            Ok(true) => Ok(()),
            Ok(false) => return FAILED,
            Err(text) => Err(text),
        },
    };
    match done {
        Ok(()) => DONE,
        Err(text) => {
            render::error(&text);
            FAILED
        }
    }
}

fn root_only(what: &str) -> Result<(), String> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(format!("{what} needs to be run by root")) }
}

fn stage(config: &std::path::Path) -> Result<(), String> {
    root_only("levitate")?;
    let still = std::path::Path::new(STAGED_ROOT).exists();
    let effect =
        if still { "nothing was changed: the root staged before still is" } else { "nothing was staged" };
    let failed = |e: &dyn std::error::Error| format!("{}\n{effect}", with_sources(e));
    let config = Config::read(config).map_err(|e| failed(&e))?;
    let facts = SystemFacts::read(&Root::new("/"), &config).map_err(|e| failed(&e))?;
    let tell = &mut |event| render::event(&event);
    let manifest =
        arming::levitate(&config, &facts, &mut KernelMounts, Owners::Set, tell).map_err(|e| failed(&e))?;
    render::out(&render::staged(&manifest));
    Ok(())
}

fn show(config: &std::path::Path, json: bool) -> Result<(), String> {
    let root = Root::new("/");
    let config = Config::read(config);
    let status = status::read(&root, config.as_ref().ok()).map_err(|e| with_sources(&e))?;
    if json {
        let text = serde_json::to_string(&status).map_err(|e| e.to_string())?;
        render::out(&format!("{text}\n"));
        return Ok(());
    }
    render::out(&status.to_string());
    // in the maintenance root there is none, and none is needed
    if let (Err(e), status::Status::Old(_)) = (&config, &status) {
        render::error(&format!("warning: {}", with_sources(e)));
    }
    Ok(())
}

/// Whether `levitate` would work.
fn look(config: &std::path::Path, json: bool) -> Result<bool, String> {
    root_only("levitate check")?;
    let report = check::here(config);
    if json {
        let text = serde_json::to_string(&report).map_err(|e| e.to_string())?;
        render::out(&format!("{text}\n"));
    } else {
        render::out(&report.to_string());
    }
    Ok(report.works)
}

fn undo(config: &std::path::Path) -> Result<(), String> {
    root_only("levitate abort")?;
    let state_file = Config::read(config).ok().and_then(|c| c.state_file);
    let undone = abort::abort(&Root::new("/"), state_file.as_deref(), &mut KernelMounts)
        .map_err(|e| with_sources(&e))?;
    render::out(match undone {
        Undone { staged: true, .. } => "The staged root is removed. `reboot` is a normal reboot.\n",
        Undone { remounted: true, .. } | Undone { recorded: true, .. } => {
            "Nothing was staged; what an earlier levitate had left is removed. `reboot` is a normal reboot.\n"
        }
        Undone { .. } => "Nothing was staged. `reboot` is a normal reboot.\n",
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_its_help_fits_a_narrow_terminal() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        assert!(help.lines().all(|line| line.chars().count() <= 79), "{help}");
        for word in ["status", "abort", "--config", "Exit codes"] {
            assert!(help.contains(word), "{help}");
        }
    }

    #[test]
    fn staging_is_the_default_and_an_unknown_word_is_usage() {
        let parse = |words: &[&str]| Arguments::try_parse_from(words.iter().map(OsString::from));
        assert!(parse(&["levitate"]).unwrap().command.is_none());
        let status = parse(&["levitate", "status", "--json", "--config", "/tmp/x"]).unwrap();
        assert_eq!(status.config, PathBuf::from("/tmp/x"));
        assert!(matches!(status.command, Some(Command::Status { json: true })));
        assert!(parse(&["levitate", "fly"]).is_err());
    }
}
