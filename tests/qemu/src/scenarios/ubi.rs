//! flashcp on UBI volumes: whole or not at all, and never under somebody's feet.

use std::time::Duration;

use super::minutes;
use super::nor_physics::noise;
use crate::assets::Assets;
use crate::boards::ast2600::{CHIP, ERASE_BLOCK};
use crate::check::check;
use crate::chip_log::Operation;
use crate::firmware::ast2600::{LOAD_MORE, NANDSIM, Rescue};
use crate::line;
use crate::machine::{Device, Machine};
use crate::process::{self, Finished};
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "flashcp_writes_a_ubi_volume_whole_or_leaves_the_old_one_and_refuses_one_in_use",
        board: Board::Ast2600,
        limit: minutes(6),
        run,
    },
    Scenario {
        name: "a_power_cut_leaves_a_ubi_volume_whole_or_void_and_a_second_flashcp_completes_it",
        board: Board::Ast2600,
        limit: minutes(8),
        run: power_cut,
    },
];

/// Usable bytes of one of the volumes' blocks: 128 KiB less a page for each of two headers, of which one is a sub-page.
const LEB: usize = 129_024;
/// A chip of 256 MiB with pages of 2 KiB; its first partition has 4 MiB, its second 64 MiB.
const GEOMETRY: &str = "id_bytes=0x20,0xaa,0x00,0x15 parts=32,512";

/// One boot, one simulated NAND chip.
fn run(assets: &Assets) -> Result<(), Failure> {
    let rescue = Rescue::build(assets)?;
    let device = rescue.device(assets, &vec![0xff; usize::try_from(CHIP).map_err(Failure::harness)?])?;
    let machine = device.power_on(&rescue.boot)?;
    machine.ssh.wait_for_login(line::BOOT)?;
    machine.ssh.succeed(LOAD_MORE)?;
    let set_up = format!(
        "insmod {NANDSIM} {GEOMETRY} && \
         ubi=$(sed -n 's/^mtd\\([0-9]*\\):.*\"NAND simulator partition 1\"$/\\1/p' /proc/mtd) && \
         ubiattach -m $ubi >/dev/null && ubimkvol /dev/ubi0 -N rootfs -S 33 >/dev/null && \
         ubimkvol /dev/ubi0 -N data -S 66 >/dev/null && ubimkvol /dev/ubi0 -N fixed -t static -S 17 >/dev/null"
    );
    machine.ssh.succeed(&set_up)?;
    let board = Volumes { machine, device };
    board.written()?;
    board.in_use()?;
    board.streams()?;
    board.a_plan()?;
    board.killed()?;
    board.raw_nand()
}

/// A board with UBI volumes.
struct Volumes {
    machine: Machine,
    device: Device,
}

impl Volumes {
    /// By a swap of names, in place, and what is refused.
    fn written(&self) -> Result<(), Failure> {
        let image = noise(31, 20 * LEB + 777);
        self.put("/tmp/a", &image)?;
        let done = self.flashcp("--dry-run /tmp/a ubi0:rootfs", 0)?;
        check!(done.stdout.contains("swap of names"), "the dry run does not say how: {done}");
        let done = self.flashcp("/tmp/a ubi0:rootfs", 0)?;
        // the volume that took the name has another number
        check!(done.stdout.contains("ubi0_3 \"rootfs\""), "the new volume is not named: {done}");
        self.holds("rootfs", "/tmp/a", image.len())?;
        self.machine.ssh.succeed("! ls /sys/class/ubi/*/name | xargs grep -l rootfs.flashcp")?;
        self.flashcp("--verify-only /tmp/a ubi0:rootfs", 0)?;
        let done = self.flashcp("--json /tmp/a ubi0:rootfs", 0)?;
        check!(done.stdout.contains("\"outcome\":\"unchanged\""), "it was written again: {done}");
        let last = done.stdout.lines().last().unwrap_or_default();
        let last: serde_json::Value = serde_json::from_str(last).map_err(Failure::test)?;
        check!(last["exit_code"] == 0, "the last event is {last}");

        // by its number, so in place
        self.put("/tmp/b", &noise(32, 33 * LEB))?;
        let done = self.flashcp("/tmp/b ubi0_3", 0)?;
        check!(done.stdout.contains("not atomic"), "it is not said that this is not atomic: {done}");
        self.holds("rootfs", "/tmp/b", 33 * LEB)?;
        self.flashcp("--verify-only /tmp/a ubi0:rootfs", 5)?;
        // a static volume is as long as its image
        self.put("/tmp/c", &noise(33, 3 * LEB + 1))?;
        self.flashcp("/tmp/c ubi0:fixed", 0)?;
        self.holds("fixed", "/tmp/c", 3 * LEB + 1)?;
        self.flashcp("/tmp/c ubi0:fixed --size=1k", 1)?;
        let length = self.machine.ssh.succeed("cat /sys/class/ubi/*/name /sys/class/ubi/*/data_bytes")?;
        check!(length.contains(&format!("{}", 3 * LEB + 1)), "the static volume's length: {length}");

        self.put("/tmp/long", &noise(34, 33 * LEB + 1))?;
        let done = self.flashcp("/tmp/long ubi0:rootfs", 1)?;
        check!(done.stderr.contains("(1 too many)"), "an image one byte too large: {done}");
        self.holds("rootfs", "/tmp/b", 33 * LEB)
    }

    /// Mounted; unmounted lazily; open; under a block device: refused, then released and written.
    fn in_use(&self) -> Result<(), Failure> {
        let ssh = &self.machine.ssh;
        ssh.succeed("mkdir -p /m && mount -t ubifs ubi0:data /m && echo kept > /m/file")?;
        for target in ["ubi0:data", "ubi0_1"] {
            let done = self.flashcp(&format!("/tmp/a {target}"), 1)?;
            check!(done.stderr.contains("mounted at /m"), "a mounted volume: {done}");
        }
        // no table shows it any more, but the file system lives; read-only it lets others write. A kernel that does not
        // tell of it refuses an exclusive opening all the same
        let hide = "mount -t tmpfs none /sys/fs/ubifs; ";
        for (options, hide, says) in [
            ("rw", "", "a UBIFS on it is alive"),
            ("ro", "", "a UBIFS on it is alive"),
            ("ro", hide, "held by the kernel"),
        ] {
            let command = format!(
                "mount -o remount,{options} /m 2>/dev/null || mount -t ubifs -o {options} ubi:data /m || exit 99; \
                 flashcp /tmp/a ubi0:data 2>&1 | grep -q 'mounted at /m' || exit 98; {hide}\
                 exec 7</m/file; umount -l /m; flashcp /tmp/a ubi0:data; one=$?; cat <&7; exec 7<&-; \
                 ! grep -q ' /sys/fs/ubifs ' /proc/mounts || umount /sys/fs/ubifs; usleep 200000; exit $one"
            );
            let done = ssh.run(&command)?;
            check!(done.code == Some(1), "{options}: a file system that was unmounted lazily: {done}");
            check!(done.stderr.contains(says), "{options}: a lazily unmounted file system: {done}");
            check!(done.stdout.contains("kept"), "the file can not be read any more: {done}");
        }
        let command = "sleep 100 </dev/ubi0_1 & flashcp /tmp/a ubi0:data; code=$?; kill $!; exit $code";
        let done = ssh.run(command)?;
        check!(done.code == Some(1), "a volume that is open: {done}");
        check!(done.stderr.contains("(sleep) has /dev/ubi0_1 open"), "the process is not named: {done}");
        ssh.succeed("ubiblock --create /dev/ubi0_1")?;
        let done = self.flashcp("/tmp/a ubi0:data", 1)?;
        check!(done.stderr.contains("ubiblock0_1"), "a block device on it: {done}");
        ssh.succeed("ubiblock --remove /dev/ubi0_1 && mount -t ubifs ubi0:data /m && grep -q kept /m/file && umount /m")?;
        self.flashcp("--any-content /tmp/a ubi0:data", 0)?;
        self.holds("data", "/tmp/a", 20 * LEB + 777)
    }

    /// From standard input: sized, compressed, and cut off.
    fn streams(&self) -> Result<(), Failure> {
        let ssh = &self.machine.ssh;
        let size = 20 * LEB + 777;
        ssh.succeed_for(&format!("flashcp --size={size} - ubi0:rootfs < /tmp/a"), line::FLASH)?;
        self.holds("rootfs", "/tmp/a", size)?;
        ssh.succeed_for("gzip -c /tmp/b | flashcp --decompress - ubi0:rootfs", line::FLASH)?;
        self.holds("rootfs", "/tmp/b", 33 * LEB)?;
        ssh.succeed_for("gzip -c /tmp/a > /tmp/a.gz && flashcp /tmp/a.gz ubi0:rootfs", line::FLASH)?;
        self.holds("rootfs", "/tmp/a", size)?;
        // half of it, and the sender is gone
        let half = format!("head -c {} /tmp/b | flashcp --size={} - ubi0:rootfs", 16 * LEB, 33 * LEB);
        let done = ssh.run_for(&half, line::FLASH)?;
        check!(done.code == Some(1), "a stream that ends early, beside the old volume: {done}");
        check!(done.stderr.contains("ended at byte"), "a stream that ends early: {done}");
        self.holds("rootfs", "/tmp/a", size)?;
        ssh.succeed("! grep rootfs.flashcp /sys/class/ubi/*/name")?;
        let done = ssh.run("flashcp - ubi0:rootfs < /tmp/a")?;
        check!(done.code == Some(2), "a stream whose end nothing proves: {done}");
        let done = ssh.run("gzip -c /tmp/c | flashcp --decompress - ubi0:fixed")?;
        check!(done.code == Some(1) && done.stderr.contains("--size"), "a static volume: {done}");
        // in place: void as long as the end is not proven
        let number = self.number("rootfs")?;
        let half = half.replace("ubi0:rootfs", &format!("ubi0_{number}"));
        let done = ssh.run_for(&half, line::FLASH)?;
        check!(done.code == Some(3), "a stream that ends early, in place: {done}");
        let torn = ssh.succeed(&format!("cat /sys/class/ubi/ubi0_{number}/upd_marker"))?;
        check!(torn == "1", "half an image in a volume that is valid: {torn}");
        self.flashcp(&format!("/tmp/b ubi0_{number}"), 0)?;
        self.holds("rootfs", "/tmp/b", 33 * LEB)
    }

    /// A plan over volumes and a partition.
    fn a_plan(&self) -> Result<(), Failure> {
        let ssh = &self.machine.ssh;
        let plan = "[[flash]]\npartition = \"ubi0:rootfs\"\nimage = \"/tmp/a\"\norder = 2\n\
                    [[flash]]\npartition = \"mtd:kernel\"\nimage = \"/tmp/c\"\norder = 1\n\
                    [[flash]]\npartition = \"ubi0:fixed\"\nimage = \"/tmp/d\"\norder = 3\n";
        ssh.succeed(&format!("printf '{}' > /tmp/plan.toml", plan.replace('\n', "\\n")))?;
        // the last image does not fit: none is written
        self.put("/tmp/d", &noise(35, 18 * LEB))?;
        let done = self.flashcp("--plan=/tmp/plan.toml", 1)?;
        check!(done.stderr.contains("does not fit"), "a plan with an image too large: {done}");
        self.holds("rootfs", "/tmp/b", 33 * LEB)?;
        self.put("/tmp/d", &noise(35, 2 * LEB + 5))?;
        self.flashcp("--dry-run --plan=/tmp/plan.toml", 0)?;
        self.flashcp("--verify-only --plan=/tmp/plan.toml", 5)?;
        self.flashcp("--plan=/tmp/plan.toml", 0)?;
        self.holds("rootfs", "/tmp/a", 20 * LEB + 777)?;
        self.holds("fixed", "/tmp/d", 2 * LEB + 5)?;
        self.flashcp("--verify-only --plan=/tmp/plan.toml", 0)?;
        let record = ssh.succeed("cat /run/levitate/flash.json")?;
        check!(record.contains("\"verified\"") && !record.contains("\"earlier\""), "the record: {record}");
        Ok(())
    }

    /// flashcp is killed while it writes: beside the old volume nothing is lost, in place the volume is void and the
    /// record says so.
    fn killed(&self) -> Result<(), Failure> {
        let ssh = &self.machine.ssh;
        let number = self.number("rootfs")?;
        for (target, marker) in [("ubi0:rootfs".to_owned(), "0"), (format!("ubi0_{number}"), "1")] {
            // the rest of the image is never sent
            let command = format!(
                "mkfifo /tmp/fifo; (head -c {} /tmp/b; exec sleep 50) > /tmp/fifo 2>/dev/null & s=$!; \
                 flashcp --size={} - {target} < /tmp/fifo & p=$!; \
                 until grep -q changing /run/levitate/flash.json && \
                       grep -q \"pid.*$p,\" /run/levitate/flash.json; do usleep 10000; done; usleep 300000; \
                 flashcp /tmp/a ubi0:data; echo second $?; kill -9 $p; wait $p; rm /tmp/fifo; kill $s",
                16 * LEB,
                33 * LEB,
            );
            let done = ssh.run_for(&command, Duration::from_secs(60))?;
            check!(done.stdout.contains("second 1"), "a second flashcp was let in: {done}");
            check!(
                done.stderr.contains("is being written by process") && done.stderr.contains(&target),
                "who writes what is not said: {done}"
            );
            let torn = ssh.succeed(&format!("cat /sys/class/ubi/ubi0_{number}/upd_marker"))?;
            check!(torn == marker, "{target}, killed: upd_marker is {torn}");
            let state = ssh.succeed("grep -o '\"state\": \"[a-z]*\"' /run/levitate/flash.json")?;
            check!(state.contains("changing"), "{target}, killed: the record says {state}");
        }
        self.flashcp("/tmp/a ubi0:rootfs", 0)?;
        self.holds("rootfs", "/tmp/a", 20 * LEB + 777)?;
        let state = ssh.succeed("cat /run/levitate/flash.json")?;
        check!(state.contains("\"verified\"") && !state.contains("unverified"), "the record: {state}");
        ssh.succeed("! grep rootfs.flashcp /sys/class/ubi/*/name").map(drop)
    }

    /// A UBI image is for ubiformat.
    fn raw_nand(&self) -> Result<(), Failure> {
        let ssh = &self.machine.ssh;
        ssh.succeed("(printf 'UBI#'; head -c 5000 /tmp/a) > /tmp/ubi.img")?;
        let raw =
            ssh.succeed("sed -n 's/^\\(mtd[0-9]*\\):.*\"NAND simulator partition 0\"$/\\1/p' /proc/mtd")?;
        for options in ["", "--any-content ", "--dry-run "] {
            let done = self.flashcp(&format!("{options}/tmp/ubi.img {raw}"), 1)?;
            check!(done.stderr.contains("ubiformat"), "the right tool is not named: {done}");
            check!(done.stderr.contains("--raw-ubi"), "how to do it all the same is not said: {done}");
        }
        self.flashcp(&format!("--raw-ubi /tmp/ubi.img {raw}"), 0)?;
        let done = self.flashcp("/tmp/ubi.img ubi0:rootfs", 1)?;
        check!(done.stderr.contains("below UBI"), "a UBI image into a volume: {done}");
        // and what UBI is attached to is nobody else's
        let ubi = ssh.succeed("cat /sys/class/ubi/ubi0/mtd_num")?;
        let done = self.flashcp(&format!("--any-content /tmp/a mtd{ubi}"), 1)?;
        check!(done.stderr.contains("attached to UBI as ubi0"), "UBI is not named: {done}");
        Ok(())
    }

    fn flashcp(&self, arguments: &str, code: i32) -> Result<Finished, Failure> {
        let done = self.machine.ssh.run_for(&format!("flashcp {arguments}"), line::FLASH)?;
        println!("flashcp {arguments}: {done}");
        check!(done.code == Some(code), "flashcp {arguments}: exit {code} was expected: {done}");
        Ok(done)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let file = self.device.file("image.bin");
        std::fs::write(&file, bytes).map_err(|e| Failure::file("write", &file, e))?;
        self.machine.ssh.put(&file, name)
    }

    fn number(&self, name: &str) -> Result<String, Failure> {
        let path = self.machine.ssh.succeed(&format!("grep -lx {name} /sys/class/ubi/ubi0_*/name"))?;
        let number = path.trim_start_matches("/sys/class/ubi/ubi0_").trim_end_matches("/name");
        check!(number.parse::<u32>().is_ok(), "the number of {name}: {path:?}");
        Ok(number.to_owned())
    }

    /// As the kernel reads the volume, not as flashcp does.
    fn holds(&self, name: &str, image: &str, size: usize) -> Result<(), Failure> {
        volume_holds(&self.machine, name, image, size)
    }
}

fn volume_holds(machine: &Machine, name: &str, image: &str, size: usize) -> Result<(), Failure> {
    let command = format!(
        "node=$(basename $(dirname $(grep -lx {name} /sys/class/ubi/ubi0_*/name))); \
         head -c {size} /dev/$node | cmp - {image}"
    );
    let done = machine.ssh.run(&command)?;
    check!(done.code == Some(0), "the volume {name} does not hold {image}: {done}");
    Ok(())
}

/// UBI on the SPI-NOR, whose file outlives a power cut: in place and by a swap of names.
fn power_cut(assets: &Assets) -> Result<(), Failure> {
    let rescue = Rescue::build(assets)?;
    let device = rescue.device(assets, &vec![0xff; usize::try_from(CHIP).map_err(Failure::harness)?])?;
    let (old, new) = (noise(41, SMALL), noise(42, SMALL));
    for (name, bytes) in [("old", &old), ("new", &new)] {
        let file = device.file(name);
        std::fs::write(&file, bytes).map_err(|e| Failure::file("write", &file, e))?;
    }
    let on = |make: bool| -> Result<Machine, Failure> {
        let machine = device.power_on(&rescue.boot)?;
        machine.ssh.wait_for_login(line::BOOT)?;
        machine.ssh.succeed(LOAD_MORE)?;
        machine.ssh.succeed_for(&format!("ubiattach -m {ROFS}"), Duration::from_secs(60))?;
        if make {
            machine.ssh.succeed("ubimkvol /dev/ubi0 -N rootfs -s 512KiB")?;
        }
        for name in ["old", "new"] {
            machine.ssh.put(&device.file(name), &format!("/tmp/{name}"))?;
        }
        Ok(machine)
    };
    let machine = on(true)?;
    machine.ssh.succeed_for("flashcp /tmp/old ubi0:rootfs", line::FLASH)?;
    volume_holds(&machine, "rootfs", "/tmp/old", SMALL)?;
    cut(machine, &device, "ubi0:rootfs")?;

    let machine = on(false)?;
    volume_holds(&machine, "rootfs", "/tmp/old", SMALL)?;
    let left = machine.ssh.succeed("grep -lx rootfs.flashcp /sys/class/ubi/ubi0_*/name | wc -l")?;
    check!(left == "1", "the power was not cut while the new volume was written: nothing was tested");
    machine.ssh.succeed_for("flashcp /tmp/new ubi0:rootfs", line::FLASH)?;
    volume_holds(&machine, "rootfs", "/tmp/new", SMALL)?;
    machine.ssh.succeed("! grep rootfs.flashcp /sys/class/ubi/*/name")?;
    // the other image, in place
    machine.ssh.succeed("mv /tmp/old /tmp/image; mv /tmp/new /tmp/old; mv /tmp/image /tmp/new")?;
    let number = machine.ssh.succeed("basename $(dirname $(grep -lx rootfs /sys/class/ubi/ubi0_*/name))")?;
    cut(machine, &device, &number)?;

    let machine = on(false)?;
    let torn = machine.ssh.succeed(&format!("cat /sys/class/ubi/{number}/upd_marker"))?;
    check!(torn == "1", "a volume that was cut off in place is not void: {torn}");
    machine.ssh.succeed_for(&format!("flashcp /tmp/old {number}"), line::FLASH)?;
    volume_holds(&machine, "rootfs", "/tmp/old", SMALL)
}

/// Bytes of an image on the SPI-NOR.
const SMALL: usize = 500_000;
/// The board's partition of 32 MiB.
const ROFS: u32 = 3;

/// Starts flashcp with the new image and cuts the power when a third of it was programmed.
fn cut(machine: Machine, device: &Device, target: &str) -> Result<(), Failure> {
    let log = machine.chip_log.clone().ok_or_else(|| Failure::harness("no log of the chip"))?;
    let mark = log.mark();
    let mut client = machine.ssh.start(&format!("flashcp /tmp/new {target}"), &device.file("flashcp.out"))?;
    let blocks = SMALL as u64 / ERASE_BLOCK;
    let reached = log.wait_for_count(mark, line::FLASH, blocks * ERASE_BLOCK / 3, &|done| {
        matches!(done, Operation::Program(..))
    });
    machine.cut_power();
    process::end(&mut client);
    reached
}
