//! Our init as the first process from power-on, in a root of a few files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::minutes;
use crate::assets::Assets;
use crate::boards::virt::Boot;
use crate::check::check;
use crate::firmware::{Firmware, initrd};
use crate::line;
use crate::machine::Device;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "services_log_outlives_a_reset_and_process_1_outlives_a_fork_bomb",
    board: Board::Virt,
    limit: minutes(8),
    run,
}];

/// A megabyte that the kernel is told not to use, above what `mem=` leaves it: QEMU keeps RAM over a reset.
const RAMOOPS: &str = "mem=192M ramoops.mem_address=0x4d000000 ramoops.mem_size=0x100000 \
                       ramoops.record_size=0x20000 ramoops.pmsg_size=0x20000";

/// Its processes are more than the kernel has numbers or memory for; they end by themselves after two seconds.
const BOMB: &str = "#!/bin/sh
b() { [ $1 -gt 0 ] || { sleep 2; return; }; b $(($1-1)) & b $(($1-1)) & wait; }
[ -e /run/bombed ] || { : > /run/bombed; b 12 2>/dev/null; }
until s6-rc -a list > /run/list 2>/dev/null; do sleep 1; done
echo the bomb is over: $(cat /run/list) > /dev/console
echo $(grep VmRSS /proc/1/status) > /dev/console
exec sleep 100000
";

const FILES: &[(&str, &str)] = &[
    ("etc/shadow", "root:*:20000::::::\n"),
    ("etc/levitate/services/default/type", "bundle\n"),
    ("etc/levitate/services/default/contents", "talk\ndoor\nbomb\n"),
    ("etc/levitate/services/talk/type", "oneshot\n"),
    (
        "etc/levitate/services/talk/up",
        "#!/bin/sh\necho these words\nsed 's/^/before: /' /run/log/previous-boot/pmsg* > /dev/console\n\
         echo has talked > /dev/console\n",
    ),
    ("etc/levitate/services/door/type", "longrun\n"),
    ("etc/levitate/services/door/run", "#!/bin/sh\nexec console-login --without-password shell\n"),
    ("etc/levitate/services/bomb/type", "longrun\n"),
    ("etc/levitate/services/bomb/dependencies", "talk\n"),
    ("etc/levitate/services/bomb/run", BOMB),
];

fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (root, initrd) = (device.file("root"), device.file("root.cpio"));
    let own = RootOf {
        binary: &assets.device_binary,
        busybox: &assets.guest_root.join("bin/busybox"),
        commands: &["s6-rc", "console-login"],
        programs: &["sh", "sed", "sleep", "cat", "grep", "echo"],
        files: FILES,
    };
    own.lay_out(&root)?;
    initrd::write(&root, &initrd)?;
    let boot = Boot::Rescue { kernel: assets.kernel_v1.clone(), initrd, append: RAMOOPS.to_owned() };
    let mut machine = device.power_on(&boot)?;
    machine.console.wait_for("has talked", 0, line::BOOT)?;
    // The console that the kernel reads from has another name on every board.
    machine.console.wait_for("press enter for a shell", 0, line::BOOT)?;
    check!(!machine.console.text().contains("before: "), "there was a boot before the first one");

    let end = machine.console.text().len();
    machine.monitor("system_reset")?;
    machine.console.wait_for("has talked", end, line::BOOT)?;
    let text = machine.console.text();
    let second = text.get(end..).unwrap_or_default();
    let kept =
        second.lines().find(|line| line.starts_with("before: @4000") && line.ends_with(" talk these words"));
    check!(kept.is_some(), "the log of the boot before is not in /run/log/previous-boot:\n{second}");

    machine.console.wait_for("VmRSS:", end, line::HAND_OVER)?;
    let text = machine.console.text();
    let second = text.get(end..).unwrap_or_default();
    check!(second.contains("the bomb is over: bomb door talk"), "not every service is up:\n{second}");
    let resident = second.split("VmRSS:").nth(1).and_then(|rest| rest.split_whitespace().next());
    println!("process 1 after a fork bomb: {} KiB resident", resident.unwrap_or("?"));
    let resident = resident.and_then(|kb| kb.parse::<u32>().ok()).unwrap_or(u32::MAX);
    check!(resident < 2_048, "process 1 is larger than 2 MiB: {resident} KiB");
    check!(
        second.matches("] init: maintenance init started").count() == 1,
        "it was started more than once:\n{second}"
    );
    Ok(())
}

/// A root of a few files, whose first process is ours.
pub(super) struct RootOf<'a> {
    /// Our binary.
    pub(super) binary: &'a Path,
    /// A static busybox.
    pub(super) busybox: &'a Path,
    /// Our commands that the scripts use.
    pub(super) commands: &'a [&'a str],
    /// Busybox's.
    pub(super) programs: &'a [&'a str],
    /// Paths and texts; what begins with `#!` is executable.
    pub(super) files: &'a [(&'a str, &'a str)],
}

impl RootOf<'_> {
    /// Makes the folder `root`.
    pub(super) fn lay_out(&self, root: &Path) -> Result<(), Failure> {
        self.write(root).map_err(|e| Failure::file("lay out", root, e))
    }

    fn write(&self, root: &Path) -> std::io::Result<()> {
        for folder in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp", "root"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::copy(self.binary, root.join("sbin/levitate"))?;
        fs::copy(self.busybox, root.join("bin/busybox"))?;
        for name in self.programs {
            symlink("busybox", root.join("bin").join(name))?;
        }
        for name in self.commands {
            symlink("levitate", root.join("sbin").join(name))?;
        }
        symlink("sbin/levitate", root.join("init"))?;
        for (path, text) in self.files {
            let path = root.join(path);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&path, text)?;
            let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}
