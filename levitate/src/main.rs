//! The one binary that goes onto a device: which command it is, it sees from the name by which it is called.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use ramdisk::init::client::{self, Verb};

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = env::args_os().collect();
    if applet(arguments.first()) == "levitate" {
        // `levitate init` and the like: for scripts' first lines, and where no symlink can be made
        let named = arguments.get(1).is_some_and(is_applet);
        if named {
            arguments.remove(0);
        }
    }
    let name = applet(arguments.first());
    let rest = arguments.iter().skip(1).cloned();
    ExitCode::from(match name.as_str() {
        "flashcp" => flasher::cli::run(arguments.into_iter()),
        "init" => ramdisk::init::run(rest),
        // `shutdown` is systemd's name for it, `upgraded` procd's
        "exec" | "handover" | "shutdown" | "upgraded" => levitate::handover::run(arguments.into_iter()),
        "leave" => levitate::leave::run(rest),
        levitate::leave::KEEPER => levitate::leave::keep(),
        "reboot" => client::run(Verb::Reboot, rest),
        "poweroff" => client::run(Verb::Poweroff, rest),
        "halt" => client::run(Verb::Halt, rest),
        name if is_service_command(name) => service_command(name, rest),
        _ => levitate::cli::run(arguments.into_iter()),
    })
}

fn applet(argument: Option<&OsString>) -> String {
    let name = argument.and_then(|a| Path::new(a).file_name());
    name.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// s6-rc's names, and the controllers'.
fn is_service_command(name: &str) -> bool {
    ramdisk::commands::NAMES.contains(&name) || ramdisk::controllers::NAMES.contains(&name)
}

fn service_command(name: &str, arguments: impl Iterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.collect();
    ramdisk::controllers::run(name, arguments.clone().into_iter())
        .or_else(|| ramdisk::commands::run(name, arguments.into_iter()))
        .unwrap_or(100)
}

fn is_applet(word: &OsString) -> bool {
    word.to_str().is_some_and(is_service_command)
        || ["init", "handover", "leave", "flashcp", "reboot", "poweroff", "halt"]
            .iter()
            .any(|known| word == known)
}
