//! The board tests, each named by the promise it holds us to.

mod bad_input;
mod check;
mod device_binary;
mod failed_handover;
mod fault_injection;
mod guard;
mod guard_users;
mod image;
mod init_busybox;
mod init_own;
mod init_systemd;
mod init_sysvinit;
mod inits;
mod lease;
mod lost_session;
mod main_job;
mod maintenance_root;
mod nand;
mod network_kept;
mod nor_physics;
mod power_cut;
mod power_on;
mod refusals;
mod robust_failures;
mod robust_roots;
mod robust_strays;
mod robust_stuck;
mod services;
mod services_alone;
mod services_beside_s6;
mod services_console;
mod services_keyboard;
mod stored;
mod streams;
mod ubi;
mod undo;
mod watchdog;

use std::time::Duration;

use crate::suite::Scenario;

/// Every board test. The longest come first: boards run side by side.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = [
        power_cut::SCENARIOS,
        main_job::SCENARIOS,
        lost_session::SCENARIOS,
        maintenance_root::SCENARIOS,
        init_systemd::SCENARIOS,
        init_busybox::SCENARIOS,
        init_sysvinit::SCENARIOS,
        init_own::SCENARIOS,
        robust_stuck::SCENARIOS,
        robust_failures::SCENARIOS,
        robust_strays::SCENARIOS,
        robust_roots::SCENARIOS,
        power_on::SCENARIOS,
        image::SCENARIOS,
        watchdog::SCENARIOS,
        lease::SCENARIOS,
        network_kept::SCENARIOS,
        guard::SCENARIOS,
        bad_input::SCENARIOS,
        refusals::SCENARIOS,
        services::SCENARIOS,
        services_alone::SCENARIOS,
        services_beside_s6::SCENARIOS,
        services_keyboard::SCENARIOS,
        undo::SCENARIOS,
        check::SCENARIOS,
        fault_injection::SCENARIOS,
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
