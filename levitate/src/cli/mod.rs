//! The `levitate` command: parses, calls the library, prints, and maps errors to exit codes.

mod build;
mod render;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use ramdisk::dir_sink::Owners;
use ramdisk::init::control::Request;
use ramdisk::path::Root;

use crate::abort::{self, Undone};
use crate::arm;
use crate::arming::{self, KernelMounts};
use crate::budget::WORKING_SET;
use crate::check;
use crate::config::{CONFIG, Config, Millis};
use crate::facts::{self, SystemFacts};
use crate::image::Image;
use crate::manifest::STAGED_ROOT;
use crate::status::{self, Lease, with_sources};

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
        On a device whose firmware is not prepared for it: `levitate build` makes an\n\
        archive elsewhere, and `levitate --image` stages it; this program may lie\n\
        anywhere, even in /tmp.\n\n\
        Exit codes: 0 done; 1 refused or failed, nothing staged; 2 usage."
)]
struct Arguments {
    /// The configuration; without it /etc/levitate.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Stage from an archive of `levitate build`; `-`: standard input.
    ///
    /// It carries its own configuration; users and keys are this device's.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    image: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Stage the maintenance root and arm it (the default).
    Stage,
    /// Tell what is staged, what `reboot` does now, how the last try went.
    Status {
        /// Where the last try was recorded: the state file.
        #[arg(long, value_name = "FILE")]
        state_file: Option<PathBuf>,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show the maintenance services as a tree: state, process, needs.
    Services,
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
    /// Make an archive of a maintenance root, on a build machine.
    #[command(long_about = "Makes the maintenance root of a device as a newc archive (for --image there)\n\
            from its unpacked root. That may be of any processor; nothing of it is\n\
            run, and root is not needed. The same input gives the same bytes: times are\n\
            SOURCE_DATE_EPOCH or 0, and what is copied belongs to root. Host keys and\n\
            network are not in it: the device adds its own.\n\n\
            The archive is also an initramfs (rdinit=/init, which is the default).")]
    Build {
        /// The device's root, unpacked in a folder.
        #[arg(long, value_name = "DIR")]
        sysroot: PathBuf,
        /// The archive; .gz and .zst compress it (gzip is smaller).
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// The program for the device; without it the one in the sysroot.
        #[arg(long, value_name = "FILE")]
        levitate: Option<PathBuf>,
    },
    /// In the maintenance root: stay although nobody is logged in.
    Hold {
        /// For so long, such as 30m; without it: until `release` or `reboot`.
        time: Option<Millis>,
    },
    /// In the maintenance root: end a hold.
    Release,
    /// In the maintenance root: tell when it reboots by itself.
    Lease,
}

/// Runs the command with `arguments`, the program's name first, and returns its exit code: 0 done, 1 refused or failed
/// with nothing staged, 2 usage.
pub fn run(arguments: impl Iterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.collect();
    let parsed = plain(&arguments).map_or_else(|| Arguments::try_parse_from(&arguments), Ok);
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(e) => {
            // to standard output for --help, to standard error for errors; nothing helps if that fails
            let _ = e.print();
            return if e.use_stderr() { USAGE } else { DONE };
        }
    };
    // modes are as they are written here, whoever calls
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let config = parsed.config.clone().unwrap_or_else(|| CONFIG.into());
    let done = match (parsed.command.unwrap_or(Command::Stage), parsed.image) {
        (Command::Stage, None) => stage(&config),
        (Command::Stage, Some(image)) => stage_image(&image),
        (Command::Build { sysroot, output, levitate }, None) => {
            build::run(sysroot, parsed.config, levitate, &output)
        }
        (Command::Status { json, state_file }, None) => show(&config, state_file, json),
        (Command::Check { json }, None) => match look(&config, json) {
            Ok(true) => Ok(()),
            Ok(false) => return FAILED,
            Err(text) => Err(text),
        },
        (Command::Services, None) => {
            return ramdisk::commands::show_tree(&mut io::stdout(), &mut io::stderr());
        }
        (Command::Abort, None) => undo(&config),
        (Command::Hold { time }, None) => ask_init("hold", Request::Hold(time.map(|time| time.0))),
        (Command::Release, None) => ask_init("release", Request::Release),
        (Command::Lease, None) => show_lease(),
        (_, Some(_)) => {
            render::error("--image is for staging alone");
            return USAGE;
        }
    };
    match done {
        Ok(()) => DONE,
        Err(text) => {
            render::error(&text);
            FAILED
        }
    }
}

/// `levitate` and `levitate --config FILE`, without the parser: to describe the whole command line to it takes longer
/// than anything else before the first file is copied, where a program's pages come from a slow flash.
fn plain(arguments: &[OsString]) -> Option<Arguments> {
    let config = match arguments {
        [_] => None,
        [_, option, file] if option == "--config" => {
            let file_name = file.to_str().filter(|name| !name.is_empty() && !name.starts_with('-'));
            Some(file_name?.into())
        }
        _ => return None,
    };
    Some(Arguments { config, image: None, command: None })
}

fn root_only(what: &str) -> Result<(), String> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(format!("{what} needs to be run by root")) }
}

/// The error in full, and what is staged nevertheless.
fn nothing_staged(e: &dyn std::error::Error) -> String {
    let still = std::path::Path::new(STAGED_ROOT).exists();
    let effect =
        if still { "nothing was changed: the root staged before still is" } else { "nothing was staged" };
    format!("{}\n{effect}", with_sources(e))
}

fn stage(config: &std::path::Path) -> Result<(), String> {
    root_only("levitate")?;
    let failed = nothing_staged;
    let config = Config::read(config).map_err(|e| failed(&e))?;
    let facts = SystemFacts::read(&Root::new("/"), &config).map_err(|e| failed(&e))?;
    let tell = &mut |event| render::event(&event);
    let manifest =
        arming::levitate(&config, &facts, &mut KernelMounts, Owners::Set, tell).map_err(|e| failed(&e))?;
    render::out(&render::staged(&manifest));
    Ok(())
}

fn stage_image(path: &std::path::Path) -> Result<(), String> {
    root_only("levitate --image")?;
    let failed = nothing_staged;
    let system = Root::new("/");
    let room = facts::memory(&system).map_err(|e| failed(&e))?.saturating_sub(WORKING_SET);
    let mut image = Image::open(path, room, &system).map_err(|e| failed(&e))?;
    let config = image.config.clone();
    let mut facts = SystemFacts::read(&system, &config).map_err(|e| failed(&e))?;
    facts.supply.mem_available = facts.supply.mem_available.saturating_add(image.held);
    let tell = &mut |event| render::event(&event);
    let manifest = arming::levitate_from(&mut image, &config, &facts, &mut KernelMounts, Owners::Set, tell)
        .map_err(|e| failed(&e))?;
    render::out(&render::staged(&manifest));
    // in the next boot of this system nobody else knows it
    let known = Config::read(std::path::Path::new(CONFIG)).ok().and_then(|config| config.state_file);
    if let Some(file) = manifest.state_file.filter(|file| known.as_ref() != Some(file)) {
        render::out(&render::where_to_ask(&file));
    }
    Ok(())
}

fn show(config: &std::path::Path, state_file: Option<PathBuf>, json: bool) -> Result<(), String> {
    let root = Root::new("/");
    let config = Config::read(config);
    let named = state_file.is_some();
    let state_file = state_file.or_else(|| config.as_ref().ok()?.state_file.clone());
    let status = status::read(&root, state_file.as_deref()).map_err(|e| with_sources(&e))?;
    if json {
        let text = serde_json::to_string(&status).map_err(|e| e.to_string())?;
        render::out(&format!("{text}\n"));
        return Ok(());
    }
    render::out(&status.to_string());
    // in the maintenance root there is none, and none is needed
    if let (Err(e), status::Status::Old(_), false) = (&config, &status, named) {
        render::error(&format!("warning: {}", with_sources(e)));
    }
    Ok(())
}

/// The run directory of the maintenance root.
fn in_maintenance(command: &str) -> Result<PathBuf, String> {
    let root = Root::new("/");
    if arm::in_maintenance(&root) {
        return Ok(root.dir().join("run"));
    }
    Err(format!(
        "this is no maintenance root: levitate {command} belongs there (a staged root's lease is `lease` in the configuration)"
    ))
}

fn ask_init(command: &str, request: Request) -> Result<(), String> {
    let run = in_maintenance(command)?;
    render::out(&format!("{}\n", status::lease::request(&run, request)?));
    Ok(())
}

/// A login's profile shows it: one line, and only to those whom process 1 answers.
fn show_lease() -> Result<(), String> {
    match Lease::ask(&in_maintenance("lease")?) {
        Lease::Unknown { not_known } => Err(not_known),
        known => {
            render::out(&format!("{known}\n"));
            Ok(())
        }
    }
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
        Undone { remounted: true, .. } | Undone { disarmed: true, .. } | Undone { recorded: true, .. } => {
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
        let build = command.find_subcommand_mut("build").unwrap().render_long_help().to_string();
        assert!(build.lines().all(|line| line.chars().count() <= 79), "{build}");
        for word in ["status", "abort", "build", "--config", "--image", "Exit codes"] {
            assert!(help.contains(word), "{help}");
        }
    }

    #[test]
    fn what_is_understood_without_the_parser_is_what_the_parser_understands() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for line in ["levitate", "levitate --config /tmp/x", "levitate --config x"] {
            let parsed = Arguments::try_parse_from(words(line)).unwrap();
            assert_eq!(format!("{:?}", plain(&words(line)).unwrap()), format!("{parsed:?}"), "{line}");
        }
        for left_to_it in
            ["levitate --config", "levitate --config ", "levitate --config -x", "levitate check"]
        {
            assert!(plain(&words(left_to_it)).is_none(), "{left_to_it}");
        }
    }

    #[test]
    fn staging_is_the_default_and_an_unknown_word_is_usage() {
        let parse = |words: &[&str]| Arguments::try_parse_from(words.iter().map(OsString::from));
        assert!(parse(&["levitate"]).unwrap().command.is_none());
        let status = parse(&["levitate", "status", "--json", "--config", "/tmp/x"]).unwrap();
        assert_eq!(status.config, Some(PathBuf::from("/tmp/x")));
        assert!(matches!(status.command, Some(Command::Status { json: true, state_file: None })));
        assert!(parse(&["levitate", "fly"]).is_err());
        assert!(parse(&["levitate", "--image", "x", "--config", "y"]).is_err());
        assert!(parse(&["levitate", "build", "--sysroot", "x"]).is_err());
        let hold = |words: &[&str]| match parse(words).unwrap().command {
            Some(Command::Hold { time }) => time,
            _ => panic!("no hold"),
        };
        assert_eq!(hold(&["levitate", "hold"]), None);
        assert_eq!(hold(&["levitate", "hold", "30m"]), Some(Millis(1_800_000)));
        let error = parse(&["levitate", "hold", "30"]).unwrap_err().to_string();
        assert!(error.contains(r#"expected a time such as "90s", "30m" or "2h", found "30""#), "{error}");
    }
}
