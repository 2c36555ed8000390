//! One board test, in a process of its own: it can be killed with everything it started, and its end is an exit code.

use std::fs;
use std::path::Path;

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::{Failure, Length, matching};
use crate::assets::Assets;

/// Runs the board test `name` with the parts described by the JSON file `assets`. Returns the exit code: 0, 1 for a
/// broken promise, 3 for the harness; the reason is on standard error.
pub(crate) fn run(assets: &Path, name: &str) -> u8 {
    match attempt(assets, name) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}

fn attempt(assets: &Path, name: &str) -> Result<(), Failure> {
    // whoever ends the whole run must not leave boards behind
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(Failure::harness)?;
    let bytes = fs::read(assets)?;
    let assets: Assets = serde_json::from_slice(&bytes).map_err(Failure::harness)?;
    let scenario = matching(Some(name), Length::Long).into_iter().find(|scenario| scenario.name == name);
    let scenario = scenario.ok_or_else(|| Failure::harness(format!("there is no board test `{name}`")))?;
    (scenario.run)(&assets)
}
