//! The board tests, each named by the promise it holds us to.

mod bad_input;
mod device_binary;
mod failed_handover;
mod guard;
mod guard_users;
mod lost_session;
mod main_job;
mod maintenance_root;
mod nand;
mod nor_physics;
mod power_cut;
mod power_on;
mod refusals;
mod streams;
mod ubi;
mod undo;

use std::time::Duration;

use crate::suite::Scenario;

/// Every board test. The longest come first: boards run side by side.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = [
        power_cut::SCENARIOS,
        main_job::SCENARIOS,
        lost_session::SCENARIOS,
        maintenance_root::SCENARIOS,
        power_on::SCENARIOS,
        guard::SCENARIOS,
        bad_input::SCENARIOS,
        refusals::SCENARIOS,
        undo::SCENARIOS,
        failed_handover::SCENARIOS,
        nor_physics::SCENARIOS,
        nand::SCENARIOS,
        ubi::SCENARIOS,
        guard_users::SCENARIOS,
        streams::SCENARIOS,
        device_binary::SCENARIOS,
    ]
    .concat();
    // stable: among equals the order above stays
    all.sort_by_key(|scenario| std::cmp::Reverse(scenario.limit));
    all
}

/// What only `--long` runs beside these.
pub(crate) fn long() -> Vec<Scenario> {
    power_cut::LONG.to_vec()
}

/// A scenario's limit.
const fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}
