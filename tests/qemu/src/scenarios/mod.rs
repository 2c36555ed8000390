//! The board tests, each named by the promise it holds us to.

mod bad_input;
mod device_binary;
mod failed_handover;
mod guard;
mod lost_session;
mod main_job;
mod maintenance_root;
mod nand;
mod nor_physics;
mod power_cut;
mod power_on;
mod refusals;
mod undo;

use std::time::Duration;

use crate::suite::{Board, Scenario};

/// Every board test. The longest come first: boards run side by side.
pub(crate) fn all() -> Vec<Scenario> {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    vec![
        Scenario {
            name: "a_power_cut_at_any_moment_of_flashing_leaves_no_valid_head_and_a_second_flashcp_completes_it",
            board: Board::Virt,
            limit: minutes(15),
            run: power_cut::run,
        },
        Scenario {
            name: "a_device_levitates_reflashes_itself_over_ssh_and_boots_v2",
            board: Board::Virt,
            limit: minutes(10),
            run: main_job::run,
        },
        Scenario {
            name: "flashing_completes_when_the_ssh_client_is_killed",
            board: Board::Virt,
            limit: minutes(10),
            run: lost_session::client_killed,
        },
        Scenario {
            name: "flashing_completes_when_the_link_is_cut_without_a_word",
            board: Board::Virt,
            limit: minutes(10),
            run: lost_session::link_cut,
        },
        Scenario {
            name: "reboot_and_poweroff_wait_while_flash_is_being_changed",
            board: Board::Virt,
            limit: minutes(10),
            run: lost_session::reboot_waits,
        },
        Scenario {
            name: "in_the_maintenance_root_nothing_is_left_of_flash",
            board: Board::Virt,
            limit: minutes(10),
            run: maintenance_root::run,
        },
        Scenario {
            name: "a_rescue_boot_and_flashcp_take_the_device_from_v1_to_v2",
            board: Board::Virt,
            limit: minutes(10),
            run: power_on::rescue,
        },
        Scenario {
            name: "flashcp_is_refused_while_the_firmware_is_in_use",
            board: Board::Virt,
            limit: minutes(5),
            run: guard::run,
        },
        Scenario {
            name: "an_image_or_target_that_cannot_be_right_is_refused_before_any_change",
            board: Board::Virt,
            limit: minutes(5),
            run: bad_input::run,
        },
        Scenario {
            name: "levitate_refuses_what_would_lose_the_device_and_stages_nothing",
            board: Board::Virt,
            limit: minutes(5),
            run: refusals::run,
        },
        Scenario {
            name: "after_levitate_abort_reboot_is_a_normal_reboot",
            board: Board::Virt,
            limit: minutes(5),
            run: undo::abort,
        },
        Scenario {
            name: "poweroff_after_levitate_powers_off",
            board: Board::Virt,
            limit: minutes(5),
            run: undo::poweroff,
        },
        Scenario {
            name: "a_failed_hand_over_ends_in_v1_and_levitate_status_says_why",
            board: Board::Virt,
            limit: minutes(5),
            run: failed_handover::run,
        },
        Scenario {
            name: "flashcp_on_spi_nor_erases_and_programs_only_what_it_must_and_nothing_else_changes",
            board: Board::Ast2600,
            limit: minutes(5),
            run: nor_physics::run,
        },
        Scenario {
            name: "flashcp_on_spi_nor_completes_after_a_power_cut",
            board: Board::Ast2600,
            limit: minutes(5),
            run: nor_physics::power_cut,
        },
        Scenario {
            name: "flashcp_on_nand_refuses_bad_blocks_or_skips_them_and_never_trusts_a_weak_one",
            board: Board::Ast2600,
            limit: minutes(5),
            run: nand::run,
        },
        Scenario {
            name: "the_device_binary_is_static_stripped_and_at_most_2_mib",
            board: Board::Virt,
            limit: minutes(1),
            run: device_binary::run,
        },
        Scenario {
            name: "v1_boots_from_flash_through_u_boot_to_an_ssh_login",
            board: Board::Virt,
            limit: minutes(5),
            run: power_on::from_flash,
        },
    ]
}
