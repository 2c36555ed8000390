//! flashcp on an SPI-NOR whose bits behave as real ones do: programming only clears them.

use std::time::{Duration, Instant};

use super::minutes;
use crate::assets::Assets;
use crate::boards::ast2600::{CHIP, ERASE_BLOCK, KERNEL, LAYOUT};
use crate::check::check;
use crate::chip_log::Operation;
use crate::firmware::ast2600::Rescue;
use crate::line;
use crate::machine::{Device, Machine};
use crate::nor_image;
use crate::process;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "flashcp_on_spi_nor_erases_and_programs_only_what_it_must_and_nothing_else_changes",
        board: Board::Ast2600,
        limit: minutes(5),
        run,
    },
    Scenario {
        name: "flashcp_on_spi_nor_completes_after_a_power_cut",
        board: Board::Ast2600,
        limit: minutes(5),
        run: power_cut,
    },
];

/// Bytes of an erase block.
const BLOCK: usize = 4 << 10;
/// Bytes of an image whose last block is not full.
const IMAGE: usize = 24 * BLOCK + 1234;
/// flashcp writes in granules of so many bytes.
const GRANULE: usize = 16;

/// Three images after one another, each for another kind of step, and each operation on the chip looked at.
fn run(assets: &Assets) -> Result<(), Failure> {
    let rescue = Rescue::build(assets)?;
    let first = noise(1, IMAGE);
    let mut contents = noise(2, at(CHIP));
    contents[at(KERNEL.offset)..at(KERNEL.range().end)].fill(0xff);
    check!(BLOCK as u64 == ERASE_BLOCK, "the board's erase block is {ERASE_BLOCK} bytes, not {BLOCK}");
    let device = rescue.device(assets, &contents)?;
    let machine = switch_on(&device, &rescue)?;
    the_partitions_are_those_of_the_layout(&machine)?;
    let mut chip = Chip { contents, machine, device };

    // blank flash is trusted; only the head is made invalid first, and then has to be erased
    let done = chip.flash(&first, "")?;
    check!(done.erased.iter().all(|block| *block == 0), "blank blocks were erased: {:?}", done.erased);

    // a few bits to clear, and the head is not to be touched: no erase at all
    let mut second = first.clone();
    let place = 3 * BLOCK + 777;
    second[place..place + 3].iter_mut().for_each(|byte| *byte &= 0xa5);
    let done = chip.flash(&second, "--head=keep ")?;
    check!(
        done.erased.is_empty(),
        "blocks were erased for bits that only had to be cleared: {:?}",
        done.erased
    );
    let granule = |offset: usize| offset / GRANULE;
    let near = |offset: u64| (granule(place)..=granule(place + 2)).contains(&granule(at(offset)));
    check!(
        !done.programmed.is_empty() && done.programmed.iter().all(|offset| near(*offset)),
        "other bytes than those around {place:#x} were programmed: {:x?}",
        done.programmed
    );

    // every kind of block at once; the head stays what it is, so nothing but the bare bound is allowed
    let mut third = second.clone();
    third[7 * BLOCK..8 * BLOCK].copy_from_slice(&noise(3, BLOCK));
    third[12 * BLOCK + 5] &= 0x0f;
    third[20 * BLOCK..21 * BLOCK].fill(0xff);
    let done = chip.flash(&third, "--head=keep ")?;
    check!(done.erased == [7, 20], "the blocks 7 and 20 have to be erased, and were: {:?}", done.erased);
    let blocks: Vec<u64> = done.blocks_programmed();
    check!(blocks == [7, 12], "the blocks 7 and 12 have to be programmed, and were: {blocks:?}");

    // nothing to do is nothing done
    let done = chip.flash(&third, "")?;
    check!(done.erased.is_empty() && done.programmed.is_empty(), "an image that is there was written again");

    // with the head made invalid first: one erase more than the bound, and one block more
    let mut fourth = third.clone();
    fourth[5 * BLOCK..6 * BLOCK].copy_from_slice(&noise(4, BLOCK));
    fourth[15 * BLOCK + 100] &= 0x0f;
    let done = chip.flash(&fourth, "")?;
    check!(
        done.erased.iter().all(|block| [0, 5].contains(block)) && done.erased.len() <= 2,
        "erased: {:?}",
        done.erased
    );
    Ok(())
}

/// The power is cut in the middle of the image; the second run ends as if there had been none.
fn power_cut(assets: &Assets) -> Result<(), Failure> {
    let rescue = Rescue::build(assets)?;
    let (old, image) = (noise(11, 128 * BLOCK), noise(12, 128 * BLOCK));
    let mut contents = noise(13, at(CHIP));
    contents[at(KERNEL.offset)..][..old.len()].copy_from_slice(&old);
    let device = rescue.device(assets, &contents)?;
    let machine = switch_on(&device, &rescue)?;
    let file = device.file("image.bin");
    std::fs::write(&file, &image).map_err(|e| Failure::file("write", &file, e))?;
    machine.ssh.put(&file, line::IMAGE)?;

    let log = machine.chip_log.clone().ok_or_else(|| Failure::harness("no log of the chip"))?;
    let mark = log.mark();
    let mut client =
        machine.ssh.start(&format!("flashcp {} mtd:kernel", line::IMAGE), &device.file("flashcp.out"))?;
    let middle = KERNEL.offset + 40 * ERASE_BLOCK;
    let reached =
        log.wait_for(mark, line::FLASH, &|done| matches!(done, Operation::Program(at, _) if *at == middle));
    machine.cut_power();
    process::end(&mut client);
    reached?;

    let after = nor_image::read(&device.nor(), 0..CHIP)?;
    let target = &after[at(KERNEL.offset)..][..image.len()];
    check!(target != image, "the image was whole when the power was cut: nothing was tested");
    check!(target[..GRANULE] != old[..GRANULE], "the old head is there after the cut");
    check!(target[..GRANULE] != image[..GRANULE], "the new head is there after the cut");
    same_outside(&contents, &after, image.len(), "after the cut")?;

    let machine = switch_on(&device, &rescue)?;
    let mut chip = Chip { contents: after, machine, device };
    chip.flash(&image, "")?;
    same_outside(&contents, &chip.contents, image.len(), "after the second run")
}

fn switch_on(device: &Device, rescue: &Rescue) -> Result<Machine, Failure> {
    let machine = device.power_on(&rescue.boot)?;
    machine.ssh.wait_for_login(line::BOOT)?;
    Ok(machine)
}

fn the_partitions_are_those_of_the_layout(machine: &Machine) -> Result<(), Failure> {
    let listed = machine.ssh.succeed("cat /proc/mtd")?;
    for (number, partition) in LAYOUT.iter().enumerate() {
        let line = format!("mtd{number}: {:08x} {ERASE_BLOCK:08x} \"{}\"", partition.size, partition.name);
        check!(
            listed.contains(&line),
            "the board's partitions are others; expected {line}, found:\n{listed}"
        );
    }
    Ok(())
}

/// A board that is on, and what its chip must hold.
struct Chip {
    contents: Vec<u8>,
    machine: Machine,
    device: Device,
}

/// What one run of flashcp did, in numbers of erase blocks and in offsets of the partition.
struct Done {
    erased: Vec<u64>,
    programmed: Vec<u64>,
}

impl Done {
    fn blocks_programmed(&self) -> Vec<u64> {
        let mut blocks: Vec<u64> = self.programmed.iter().map(|offset| offset / ERASE_BLOCK).collect();
        blocks.dedup();
        blocks
    }
}

impl Chip {
    /// Runs flashcp and holds the chip to it: every operation lies in the image's blocks and asks for no bit that an
    /// erase would be needed for; the file holds what they make of a NOR, which is the image, and beside it nothing else.
    fn flash(&mut self, image: &[u8], options: &str) -> Result<Done, Failure> {
        let file = self.device.file("image.bin");
        std::fs::write(&file, image).map_err(|e| Failure::file("write", &file, e))?;
        self.machine.ssh.put(&file, line::IMAGE)?;
        let log = self.machine.chip_log.clone().ok_or_else(|| Failure::harness("no log of the chip"))?;
        let mark = log.mark();
        let command = format!("flashcp -v {options}{} mtd:kernel", line::IMAGE);
        self.machine.ssh.succeed_for(&command, line::FLASH)?;

        let before = self.contents.clone();
        let mut done = Done { erased: Vec::new(), programmed: Vec::new() };
        let blocks = image.len().div_ceil(BLOCK);
        let written = KERNEL.offset..KERNEL.offset + (blocks * BLOCK) as u64;
        for operation in log.since(mark)? {
            match operation {
                Operation::Erase(range) => {
                    check!(written.contains(&range.start), "{command}: erased {range:x?}");
                    check!(range.end - range.start == ERASE_BLOCK, "{command}: erased {range:x?}");
                    self.contents[at(range.start)..at(range.end)].fill(0xff);
                    done.erased.push((range.start - KERNEL.offset) / ERASE_BLOCK);
                }
                Operation::Program(offset, data) => {
                    check!(written.contains(&offset), "{command}: programmed {offset:#x}");
                    let byte = &mut self.contents[at(offset)];
                    check!(data & !*byte == 0, "{command}: asked {data:#x} of {byte:#x} at {offset:#x}");
                    *byte &= data;
                    done.programmed.push(offset - KERNEL.offset);
                }
            }
        }
        self.wait_for_file(&command)?;
        let target = &self.contents[at(KERNEL.offset)..][..blocks * BLOCK];
        check!(target.starts_with(image), "{command}: the partition does not hold the image");
        // where nothing was erased the rest of the last block stays as it was
        check!(
            target[image.len()..].iter().all(|byte| *byte == 0xff),
            "{command}: what is behind the image in its last block is not blank"
        );
        same_outside(&before, &self.contents, image.len(), &command)?;
        println!("{command}: blocks erased {:?}, bytes programmed {}", done.erased, done.programmed.len());
        Ok(done)
    }

    /// The emulator writes its file a little later than the chip is done.
    fn wait_for_file(&self, command: &str) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let file = nor_image::read(&self.device.nor(), 0..CHIP)?;
            let Some(differs) = file.iter().zip(&self.contents).position(|(a, b)| a != b) else {
                return Ok(());
            };
            check!(
                start.elapsed() < Duration::from_secs(20),
                "{command}: the chip's file is not what its operations make of a NOR, first at {differs:#x}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Fails unless all but the image's blocks is the same.
fn same_outside(before: &[u8], after: &[u8], image: usize, when: &str) -> Result<(), Failure> {
    let start = at(KERNEL.offset);
    let end = start + image.div_ceil(BLOCK) * BLOCK;
    let differs = (0..before.len()).find(|n| !(start..end).contains(n) && before[*n] != after[*n]);
    match differs {
        None => Ok(()),
        Some(offset) => {
            Err(Failure::test(format!("{when}: the chip changed outside of the image, at {offset:#x}")))
        }
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Bytes without any pattern, the same ones for the same seed (xorshift64).
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
