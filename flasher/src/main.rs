//! `flashcp` on its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(flasher::cli::run(std::env::args_os()))
}
