//! The power is cut while the chip is being written.

use std::ops::RangeInclusive;
use std::time::Instant;

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line::{self, Nobody};
use crate::machine::{Device, Machine, SLOW_CHIP};
use crate::nor_image::{self, DATA, ENV, ERASE_BLOCK, FIRMWARE, Snapshot};
use crate::process;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_power_cut_at_any_moment_of_flashing_leaves_no_valid_head_and_a_second_flashcp_completes_it",
    board: Board::Virt,
    limit: minutes(15),
    run,
}];

/// Moments more, for `--long`.
pub(super) const LONG: &[Scenario] = &[
    Scenario {
        name: "long_a_power_cut_at_six_more_moments_leaves_no_valid_head_and_a_second_flashcp_completes_it",
        board: Board::Virt,
        limit: minutes(30),
        run: |assets| cuts(assets, 3..=8, false),
    },
    Scenario {
        name: "long_a_power_cut_at_another_six_moments_leaves_no_valid_head_and_a_second_flashcp_completes_it",
        board: Board::Virt,
        limit: minutes(30),
        run: |assets| cuts(assets, 9..=14, false),
    },
];

/// Seed of the moments that are drawn.
const SEED: u64 = 0x6c65_7669_7461_7465;

/// Two moments that are drawn; the third is fixed: the body is written, the head is not.
fn run(assets: &Assets) -> Result<(), Failure> {
    cuts(assets, 1..=2, true)
}

/// Cuts at the moments `drawn` of the seeded sequence, and just before the head if asked for; each is followed by what the
/// owner would do: a rescue boot and flashcp again.
fn cuts(assets: &Assets, drawn: RangeInclusive<u32>, before_head: bool) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let image =
        std::fs::read(&firmware.firmware_v2).map_err(|e| Failure::file("read", &firmware.firmware_v2, e))?;
    let old = nor_image::read(&firmware.nor_v1, FIRMWARE.range())?;
    // The first block is the head and comes last; a block that is the same in both firmwares is never written.
    let written: Vec<usize> = (1..image.len().div_ceil(block()))
        .filter(|n| {
            image.chunks(block()).nth(*n)
                != old.chunks(block()).nth(*n).map(|b| &b[..b.len().min(image.len() - n * block())])
        })
        .collect();
    check!(written.len() > 4, "the two firmwares differ in too few blocks to cut in between: {written:?}");
    let block_of =
        |n: u32| written[usize::try_from(splitmix(SEED, n) % (written.len() as u64 - 1)).unwrap_or(0)];
    let last = written[written.len() - 1];
    let drawn = drawn.map(|n| (format!("number {n}"), block_of(n)));
    let moments = drawn.chain(before_head.then(|| ("just before the head".to_owned(), last)));
    for (moment, last_written) in moments {
        println!(
            "power cut {moment} (seed {SEED:#x}): as soon as erase block {last_written} holds the image, the last is {last}"
        );
        cut(assets, &firmware, &image, last_written).map_err(|f| f.context(format!("power cut {moment}")))?;
    }
    Ok(())
}

/// Cuts as soon as block `last_written` of the firmware holds the new image's bytes.
fn cut(assets: &Assets, firmware: &Firmware, image: &[u8], last_written: usize) -> Result<(), Failure> {
    let mut device = Device::new(assets, firmware)?;
    device.chip_speed = Some(SLOW_CHIP);
    let machine = rescue(&device, firmware)?;
    machine.ssh.put(&firmware.firmware_v2, line::IMAGE)?;
    let before = Snapshot::take(&device.nor())?;

    let mut client = machine.ssh.start(line::FLASHCP, &device.file("flashcp.out"))?;
    let reached = wait_for_block(&device, image, last_written);
    machine.cut_power();
    process::end(&mut client);
    reached?;

    let after = Snapshot::take(&device.nor())?;
    let head = &after.partition(&FIRMWARE)[..block()];
    check!(!head.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]), "the head looks like an image after the cut");
    check!(!image.starts_with(head), "the head was completed before the body was proven");
    before.same(&after, &[ENV, DATA], "after the cut")?;
    refuses_to_boot(&device, firmware)?;

    let machine = rescue(&device, firmware)?;
    line::flash(&machine, &firmware.firmware_v2, &mut Nobody)?;
    machine.cut_power();
    check!(
        Snapshot::take(&device.nor())?.partition(&FIRMWARE).starts_with(image),
        "the second run did not complete"
    );
    line::power_on(&device, firmware, 2).map(drop)
}

/// U-Boot finds no kernel in what the cut left, and says so instead of running it.
fn refuses_to_boot(device: &Device, firmware: &Firmware) -> Result<(), Failure> {
    let machine = device.power_on(&firmware.flash_boot())?;
    machine.console.wait_for("no valid kernel", 0, line::BOOT)
}

fn rescue(device: &Device, firmware: &Firmware) -> Result<Machine, Failure> {
    let machine = device.power_on(&firmware.rescue_boot())?;
    machine.ssh.wait_for_login(line::BOOT)?;
    Ok(machine)
}

/// QEMU writes the chip's contents through to the file, so the file is watched, not the program under test.
fn wait_for_block(device: &Device, image: &[u8], number: usize) -> Result<(), Failure> {
    let at = number * block();
    let wanted = &image[at..image.len().min(at + block())];
    let offset = FIRMWARE.offset + at as u64;
    let start = Instant::now();
    while start.elapsed() < line::FLASH {
        if nor_image::read(&device.nor(), offset..offset + wanted.len() as u64)? == wanted {
            return Ok(());
        }
    }
    Err(Failure::test(format!("block {number} was not written within {} s", line::FLASH.as_secs())))
}

fn block() -> usize {
    usize::try_from(ERASE_BLOCK).unwrap_or(usize::MAX)
}

/// The n-th number of a seeded sequence (splitmix64).
fn splitmix(seed: u64, n: u32) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(n)));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawn_moments_are_the_same_in_every_run() {
        assert_eq!(splitmix(SEED, 1), splitmix(SEED, 1));
        assert_ne!(splitmix(SEED, 1), splitmix(SEED, 2));
    }
}
