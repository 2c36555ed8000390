//! The maintenance init as the system's own PID 1.

use super::inits::{self, Promise};
use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::System;
use crate::line;
use crate::machine::Machine;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_device_with_our_own_init_levitates_reflashes_itself_and_stays_what_it_is",
    board: Board::Virt,
    limit: minutes(10),
    run,
}];

fn run(assets: &Assets) -> Result<(), Failure> {
    let promise = Promise {
        system: System::Own,
        program: "/usr/sbin/levitate",
        halt: "halt",
        small_run: false,
        lets_flash_be: false,
        stuck: None,
        armed,
        disarmed: inits::nothing_more,
        entered: inits::nothing_more,
        leave: line::reboot,
    };
    inits::keep(assets, &promise)
}

/// There is nothing to arm: it looks for the staged root itself.
fn armed(machine: &Machine) -> Result<(), Failure> {
    let record = machine.ssh.succeed("cat /run/levitate/armed.json")?;
    check!(record.contains("\"steps\":[]"), "something was armed: {record}");
    Ok(())
}
