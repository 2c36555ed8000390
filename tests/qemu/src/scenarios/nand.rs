//! flashcp on NAND, with the faults that a guest can really see: blocks marked bad, and erases and writes that fail.

use std::time::Duration;

use super::minutes;
use crate::assets::Assets;
use crate::boards::ast2600::CHIP;
use crate::check::check;
use crate::firmware::ast2600::{NANDSIM, Rescue};
use crate::line;
use crate::machine::{Device, Machine};
use crate::process::{self, Finished};
use crate::suite::{Board, Failure, Scenario};

use super::nor_physics::noise;

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "flashcp_on_nand_refuses_bad_blocks_or_skips_them_and_never_trusts_a_weak_one",
    board: Board::Ast2600,
    limit: minutes(5),
    run,
}];

/// Bytes of an erase block of the simulated chip.
const BLOCK: usize = 128 << 10;
/// A chip of 256 MiB with pages of 2 KiB, whose first partition has 32 erase blocks.
const GEOMETRY: &str = "id_bytes=0x20,0xaa,0x00,0x15 parts=32";
/// Five blocks and a part of a sixth.
const SIZE: usize = 5 * BLOCK + 4321;

/// One boot, a fresh chip for each fault.
fn run(assets: &Assets) -> Result<(), Failure> {
    let rescue = Rescue::build(assets)?;
    let device = rescue.device(assets, &vec![0xff; usize::try_from(CHIP).map_err(Failure::harness)?])?;
    let machine = device.power_on(&rescue.boot)?;
    machine.ssh.wait_for_login(line::BOOT)?;
    let image = noise(21, SIZE);
    let nand = Nand { machine, device };
    nand.put(&image)?;
    nand.bad_blocks(&image)?;
    nand.weak_block(&image)?;
    nand.weak_page(&image)
}

/// The board, with a simulated chip in it.
struct Nand {
    machine: Machine,
    device: Device,
}

impl Nand {
    /// Blocks that are marked bad, in the range: refused before any change, or stepped over if asked for.
    fn bad_blocks(&self, image: &[u8]) -> Result<(), Failure> {
        let target = self.insert("badblocks=3,7")?;
        let blank = self.dump(&target, "--bb=dumpbad")?;
        check!(blank.len() == 32 * BLOCK, "the partition has {} bytes", blank.len());
        let done = self.flashcp("", &target)?;
        check!(done.code == Some(1), "a bad block in the range: {done}");
        for word in ["bad block", "0x60000", "--bad-blocks=skip"] {
            check!(done.stderr.contains(word), "the refusal does not say {word:?}: {done}");
        }
        check!(self.dump(&target, "--bb=dumpbad")? == blank, "the refusal changed the chip");

        let done = self.flashcp("--bad-blocks=skip ", &target)?;
        check!(done.code == Some(0), "--bad-blocks=skip: {done}");
        self.holds(&target, image, "--bad-blocks=skip")?;
        // the bad block is not one of the image's: what comes fourth lies in the fifth
        let all = self.dump(&target, "--bb=dumpbad")?;
        check!(
            all[4 * BLOCK..5 * BLOCK] == image[3 * BLOCK..4 * BLOCK],
            "the image does not go on behind the bad block"
        );
        check!(self.bad(&target)? == "2", "other blocks are marked bad now: {}", self.bad(&target)?);

        // the same again, with one block changed
        let mut second = image.to_vec();
        second[4 * BLOCK..5 * BLOCK].copy_from_slice(&noise(22, BLOCK));
        self.put(&second)?;
        let done = self.flashcp("--bad-blocks=skip ", &target)?;
        check!(done.code == Some(0), "one block changed: {done}");
        self.holds(&target, &second, "one block changed")?;
        self.put(image)
    }

    /// A block that cannot be erased.
    fn weak_block(&self, image: &[u8]) -> Result<(), Failure> {
        let target = self.insert("weakblocks=2:1")?;
        let done = self.flashcp("", &target)?;
        check!(done.code == Some(0), "the first erase of a weak block: {done}");
        self.put(&noise(23, SIZE))?;
        let done = self.flashcp("", &target)?;
        check!(done.code == Some(3), "a block that cannot be erased any more: {done}");
        for word in ["worn out", "0x40000", "--bad-blocks=mark"] {
            check!(done.stderr.contains(word), "a worn block: flashcp does not say {word:?}: {done}");
        }
        check!(self.bad(&target)? == "0", "a block was marked bad unasked");
        self.put(image)?;
        let done = self.flashcp("--bad-blocks=mark ", &target)?;
        check!(done.code == Some(0), "--bad-blocks=mark: {done}");
        self.marked_third(&target, image, "a weak block, --bad-blocks=mark")
    }

    /// A page that cannot be written: the kernel says EIO, and flashcp does not say that all is well.
    fn weak_page(&self, image: &[u8]) -> Result<(), Failure> {
        // the third page of the third block
        let target = self.insert("weakpages=130:0")?;
        let done = self.flashcp("", &target)?;
        check!(done.code == Some(3), "a page that cannot be written: {done}");
        // its block, and the page itself
        for word in ["0x40000", "at 0x41000", "--bad-blocks=mark"] {
            check!(done.stderr.contains(word), "a weak page: flashcp does not say {word:?}: {done}");
        }
        let done = self.flashcp("--bad-blocks=mark ", &target)?;
        check!(done.code == Some(0), "--bad-blocks=mark: {done}");
        self.marked_third(&target, image, "a weak page, --bad-blocks=mark")
    }

    /// The third block, and no other, is marked bad; the image goes on in the fourth.
    fn marked_third(&self, target: &str, image: &[u8], when: &str) -> Result<(), Failure> {
        check!(self.bad(target)? == "1", "{when}: {} blocks are marked bad", self.bad(target)?);
        self.holds(target, image, when)?;
        let all = self.dump(target, "--bb=dumpbad")?;
        check!(
            all[3 * BLOCK..4 * BLOCK] == image[2 * BLOCK..3 * BLOCK],
            "{when}: another block is marked bad"
        );
        Ok(())
    }

    /// Takes the old chip out and puts a fresh one in; the name of its first partition's device.
    fn insert(&self, faults: &str) -> Result<String, Failure> {
        let command = format!(
            "rmmod nandsim 2>/dev/null; insmod {NANDSIM} {GEOMETRY} {faults} && \
             sed -n 's/^\\(mtd[0-9]*\\):.*\"NAND simulator partition 0\"$/\\1/p' /proc/mtd"
        );
        let name = self.machine.ssh.succeed(&command)?;
        check!(name.starts_with("mtd"), "nandsim gave no partition: {name:?}");
        Ok(name)
    }

    fn flashcp(&self, options: &str, target: &str) -> Result<Finished, Failure> {
        let done =
            self.machine.ssh.run_for(&format!("flashcp {options}{} {target}", line::IMAGE), line::FLASH)?;
        println!("flashcp {options}{target}: {done}");
        Ok(done)
    }

    fn put(&self, image: &[u8]) -> Result<(), Failure> {
        let file = self.device.file("image.bin");
        std::fs::write(&file, image).map_err(|e| Failure::file("write", &file, e))?;
        self.machine.ssh.put(&file, line::IMAGE)
    }

    /// The good blocks, one after another, start with the image: as mtd-utils read them, not as flashcp does.
    fn holds(&self, target: &str, image: &[u8], when: &str) -> Result<(), Failure> {
        let read = self.dump(target, "--bb=skipbad")?;
        match read.iter().zip(image).position(|(a, b)| a != b) {
            None if read.len() >= image.len() => Ok(()),
            None => Err(Failure::test(format!("{when}: only {} bytes could be read", read.len()))),
            Some(offset) => {
                Err(Failure::test(format!("{when}: the chip does not hold the image, first at {offset:#x}")))
            }
        }
    }

    /// The whole partition, read by mtd-utils' nanddump.
    fn dump(&self, target: &str, bad: &str) -> Result<Vec<u8>, Failure> {
        let file = self.device.file("dump");
        let command = format!("nanddump -q {bad} /dev/{target}");
        let mut child = self.machine.ssh.start(&command, &file)?;
        let code = process::wait(&mut child, Duration::from_secs(60));
        if code.is_err() {
            process::end(&mut child);
        }
        check!(code? == Some(0), "{command} failed");
        std::fs::read(&file).map_err(|e| Failure::file("read", &file, e))
    }

    /// How many blocks are marked bad, as the kernel counts them.
    fn bad(&self, target: &str) -> Result<String, Failure> {
        self.machine.ssh.succeed(&format!("cat /sys/class/mtd/{target}/bad_blocks"))
    }
}
