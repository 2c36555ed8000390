//! The board tests: what one is, how it fails, and how `cargo test-all` runs everything there is.

pub mod failure;

use std::time::Duration;

use crate::assets::Assets;

pub use failure::Failure;

/// One test on an emulated board. Each runs in a process of its own, several side by side.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The promise that it keeps, as a sentence with underscores.
    pub name: &'static str,
    /// After this it is killed, with everything it started, and counted as a failure of the harness.
    pub limit: Duration,
    /// The test. Files named `*.console` in [`Assets::scratch`] become part of the report when it fails.
    pub run: fn(&Assets) -> Result<(), Failure>,
}
