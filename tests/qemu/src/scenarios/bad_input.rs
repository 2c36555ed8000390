//! What cannot be right is refused, each for its own reason, before the chip is touched.

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line;
use crate::machine::Device;
use crate::nor_image::{LAYOUT, Snapshot};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "an_image_or_target_that_cannot_be_right_is_refused_before_any_change",
    board: Board::Virt,
    limit: minutes(5),
    run,
}];

/// How each bad input is made, what flashcp is given, and words of the one message that fits.
const CASES: &[(&str, &str, &[&str])] = &[
    (
        "cp /tmp/firmware.bin /tmp/large; truncate -s 16777217 /tmp/large",
        "/tmp/large mtd:firmware",
        &["16777217", "16777216", "firmware"],
    ),
    (": > /tmp/empty", "/tmp/empty mtd:firmware", &["/tmp/empty", "empty"]),
    ("true", "/etc mtd:firmware", &["/etc", "directory"]),
    // The kernel says 4096 bytes for it, and then gives nine: an image that ends while it is read.
    ("true", "--any-content /sys/class/mtd/mtd2/size mtd:firmware", &["/sys/class/mtd/mtd2/size", "4096"]),
    ("true", "/tmp/firmware.bin mtd:nosuch", &["nosuch", "firmware"]),
    ("true", "/tmp/nosuch.bin mtd:firmware", &["/tmp/nosuch.bin", "No such file"]),
    ("echo '<html>404</html>' > /tmp/page", "/tmp/page mtd:firmware", &["/tmp/page", "--any-content"]),
    ("true", "/tmp/firmware.bin mtd:boot0", &["/dev/mtd0", "read-only"]),
];

/// Exit code 1, the right words, and not one byte of the chip changed.
fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let machine = device.power_on(&firmware.rescue_boot())?;
    machine.ssh.wait_for_login(line::BOOT)?;
    machine.ssh.put(&firmware.firmware_v2, line::IMAGE)?;

    let before = Snapshot::take(&device.nor())?;
    let mut messages = Vec::new();
    for (make, arguments, words) in CASES {
        machine.ssh.succeed(make)?;
        let done = machine.ssh.run_for(&format!("flashcp -v {arguments}"), line::FLASH)?;
        check!(done.code == Some(1), "flashcp -v {arguments}: {done}");
        for word in *words {
            check!(done.stderr.contains(word), "flashcp -v {arguments} does not say {word:?}: {done}");
        }
        check!(!messages.contains(&done.stderr), "flashcp -v {arguments} says what was said before: {done}");
        messages.push(done.stderr);
        before.same(&Snapshot::take(&device.nor())?, &LAYOUT, &format!("flashcp -v {arguments}"))?;
    }
    Ok(())
}
