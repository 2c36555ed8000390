//! flashcp from standard input: how much memory it takes, and what it does when its sender, or its session, is gone.

use std::time::Duration;

use super::minutes;
use super::nor_physics::noise;
use super::stored;
use crate::assets::Assets;
use crate::boards::ast2600::CHIP;
use crate::check::check;
use crate::firmware::ast2600::{NANDSIM, Rescue};
use crate::line;
use crate::machine::{Device, Machine};
use crate::process;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "flashcp_from_standard_input_keeps_its_memory_small_and_outlives_its_sender_and_every_signal",
    board: Board::Ast2600,
    limit: minutes(8),
    run,
}];

/// Bytes of an image that is larger than any buffer.
const LARGE: usize = 32 << 20;
/// Bytes of an image that fills a window of 8 MiB.
const PACKED: usize = 10 << 20;
/// Bytes of an erase block of the simulated NAND.
const BLOCK: u64 = 128 << 10;
/// What a process may keep in memory beside two erase blocks.
const MEMORY: u64 = 3 << 20;
/// Bytes of an image on the SPI-NOR that takes long enough to send a signal in the middle.
const SMALL: usize = 300_000;
/// The signals of a lost session, and those that would stop it.
const SIGNALS: [&str; 8] = ["HUP", "INT", "QUIT", "TERM", "PIPE", "TSTP", "TTIN", "TTOU"];
/// Moments at which each of them is sent.
const SEEDS: u64 = 3;
/// The same as /proc tells them, the lowest bit for signal 1.
const IGNORED: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 12 | 1 << 19 | 1 << 20 | 1 << 21;

/// One boot for all of it.
fn run(assets: &Assets) -> Result<(), Failure> {
    let rescue = Rescue::build(assets)?;
    let device = rescue.device(assets, &vec![0xff; usize::try_from(CHIP).map_err(Failure::harness)?])?;
    let machine = device.power_on(&rescue.boot)?;
    machine.ssh.wait_for_login(line::BOOT)?;
    let insert = format!(
        "insmod {NANDSIM} id_bytes=0x20,0xaa,0x00,0x15 parts=512 && \
         sed -n 's/^\\(mtd[0-9]*\\):.*\"NAND simulator partition 0\"$/\\1/p' /proc/mtd"
    );
    let nand = machine.ssh.succeed(&insert)?;
    memory(&machine, &device, &nand)?;
    sender_killed(&machine, &device)?;
    signals(&machine, &device)
}

/// 32 MiB from standard input, and less of them compressed: the most that was resident, as the kernel counts it.
fn memory(machine: &Machine, device: &Device, nand: &str) -> Result<(), Failure> {
    let make = format!("dd if=/dev/urandom of=/tmp/large bs=1M count={} 2>/dev/null", LARGE >> 20);
    machine.ssh.succeed_for(&make, line::FLASH)?;
    let pack = format!("head -c {PACKED} /tmp/large | gzip -1 > /tmp/large.gz");
    machine.ssh.succeed_for(&pack, line::FLASH)?;
    // the last value that can be read before the process is gone; it never falls
    let measured = |input: &str, options: &str| -> Result<(u64, String), Failure> {
        let command = format!(
            "flashcp --json {options} - {nand} < {input} > /tmp/events & p=$!; peak=0; \
             while now=$(grep VmHWM /proc/$p/status 2>/dev/null) && [ -n \"$now\" ]; do peak=$now; usleep 20000; done; \
             wait $p; echo \"exit $? peak $peak\"; grep '\"event\":\"input\"' /tmp/events; true"
        );
        let said = machine.ssh.succeed_for(&command, line::FLASH)?;
        check!(said.contains("exit 0 "), "{options} - {nand}: {said}");
        let peak =
            said.split_once("VmHWM:").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        let peak: u64 = peak.ok_or_else(|| Failure::harness(format!("no peak was measured: {said:?}")))?;
        Ok((peak * 1024, said))
    };
    let (plain, _) = measured("/tmp/large", &format!("--size={LARGE}"))?;
    let most = MEMORY + 2 * BLOCK;
    println!("memory: 32 MiB from standard input, at most {plain} bytes resident (VmHWM), {most} allowed");
    check!(plain > 200_000, "a peak of {plain} bytes was not that of a process at work");
    check!(plain <= most, "{plain} bytes resident, {most} are promised");
    machine.ssh.succeed(&format!("head -c {LARGE} /dev/{nand} | cmp - /tmp/large"))?;

    machine.ssh.succeed("rm /tmp/large")?;
    let from_file = |name: &str, bytes: &[u8]| -> Result<String, Failure> {
        let (local, remote) = (device.file(name), format!("/tmp/{name}"));
        std::fs::write(&local, bytes).map_err(|e| Failure::file("write", &local, e))?;
        machine.ssh.put(&local, &remote)?;
        Ok(remote)
    };
    let image = noise(55, PACKED);
    for (format, file) in [
        ("gzip", "/tmp/large.gz".to_owned()),
        ("xz", from_file("large.xz", &stored::xz(&image))?),
        ("zstd", from_file("large.zst", &stored::zstd(&image))?),
    ] {
        let (packed, said) = measured(&file, &format!("--full --decompress={format}"))?;
        machine.ssh.succeed(&format!("rm {file}"))?;
        // announced before the first change: the numbers, in bytes
        let number = |key: &str| {
            said.split_once(&format!("\"{key}\":"))
                .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok())
                .ok_or_else(|| {
                    Failure::test(format!("{format}: the decoder's {key} is not announced: {said}"))
                })
        };
        let (window, memory) = (number("window")?, number("memory")?);
        println!(
            "memory: from {format} with a window of {window} bytes, at most {packed} bytes resident, {memory} of them announced"
        );
        check!(packed <= most + memory, "{packed} bytes resident, {most} and {memory} are promised");
        // a large window is filled: less would mean that something else was measured
        check!(
            window < 1 << 20 || packed >= plain + window / 2,
            "{format}: {packed} bytes resident with a window of {window}"
        );
    }
    Ok(())
}

/// The ssh client that sends the image is killed at half of it: no valid head is left, the record says so, and another
/// flashcp that was started meanwhile was told who writes.
fn sender_killed(machine: &Machine, device: &Device) -> Result<(), Failure> {
    let ssh = &machine.ssh;
    let (image, half) = (device.file("image"), device.file("half"));
    let bytes = noise(52, SMALL);
    std::fs::write(&image, &bytes).map_err(|e| Failure::file("write", &image, e))?;
    std::fs::write(&half, &bytes[..SMALL / 2]).map_err(|e| Failure::file("write", &half, e))?;
    ssh.put(&image, "/tmp/image")?;
    ssh.succeed_for("flashcp /tmp/image mtd:kernel", line::FLASH)?;
    // another image, whose sender stays silent after one half
    std::fs::write(&half, &noise(53, SMALL)[..SMALL / 2]).map_err(|e| Failure::file("write", &half, e))?;
    let mut client = ssh.client();
    client.arg(format!("flashcp --size={SMALL} - mtd:kernel"));
    let mut child = process::with_silent_input(client, &half)?;
    let begun =
        line::wait_until(machine, "grep -q '\"changing\"' /run/levitate/flash.json", Duration::from_secs(60));
    let second = ssh.run("flashcp /tmp/image mtd:kernel; echo; flashcp /tmp/image mtd:rofs");
    process::end(&mut child);
    begun?;
    let second = second?;
    println!("a second flashcp: {second}");
    check!(second.code == Some(1), "a second flashcp was let in: {second}");
    let who = format!("(flashcp --size={SMALL} - mtd:kernel)");
    check!(
        second.stderr.matches("flash is being written by process ").count() == 2
            && second.stderr.matches(&who).count() == 2,
        "who writes what is not said: {second}"
    );
    line::wait_until(machine, "grep -q '\"state\": \"unverified\"' /run/levitate/flash.json", line::FLASH)?;
    let record = ssh.succeed("cat /run/levitate/flash.json")?;
    check!(record.contains("\"exit_code\": 3"), "the record: {record}");
    check!(
        record.contains(&format!("ended at byte {} of {SMALL}", SMALL / 2)),
        "the sender was not killed at half of the image: {record}"
    );
    let head = ssh.succeed("head -c 16 /dev/mtd2 | od -An -tx1")?;
    check!(
        head.split_whitespace().all(|byte| byte == "00" || byte == "ff"),
        "a head is there that looks like one: {head}"
    );
    ssh.succeed_for(
        "flashcp /tmp/image mtd:kernel && head -c 300000 /dev/mtd2 | cmp - /tmp/image",
        line::FLASH,
    )?;
    Ok(())
}

/// Every signal of a lost session, each at several moments after the first change: the image is whole all the same.
fn signals(machine: &Machine, device: &Device) -> Result<(), Failure> {
    let other = device.file("other");
    std::fs::write(&other, noise(54, SMALL)).map_err(|e| Failure::file("write", &other, e))?;
    machine.ssh.put(&other, "/tmp/other")?;
    let (mut sent, mut tried, mut looked) = (0, 0, 0);
    for signal in SIGNALS {
        for seed in 0..SEEDS {
            tried += 1;
            let image = if tried % 2 == 0 { "/tmp/image" } else { "/tmp/other" };
            let delay = noise(seed + 60, 1)[0] as u64 * 400;
            // in the foreground: what a shell without a terminal starts behind itself ignores INT and QUIT from the start
            let command = format!(
                "rm -f /run/levitate/flash.json /tmp/sent /tmp/ended; \
                 (until grep -q changing /run/levitate/flash.json 2>/dev/null; do [ ! -e /tmp/ended ] || exit; done; \
                 p=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p' /run/levitate/flash.json | head -n 1); \
                 sed -n 's/^SigIgn:[^0-9a-f]*/ignored /p' /proc/$p/status > /tmp/sent; \
                 usleep {delay}; kill -{signal} $p && echo sent >> /tmp/sent; kill -CONT $p) 2>/dev/null & k=$!; \
                 flashcp {image} mtd:kernel; echo exit $?; touch /tmp/ended; wait $k; cat /tmp/sent; \
                 head -c {SMALL} /dev/mtd2 | cmp - {image}"
            );
            let done = machine.ssh.run_for(&command, Duration::from_secs(120))?;
            check!(
                done.stdout.contains("exit 0") && done.code == Some(0),
                "{signal} after {delay} us: {done}"
            );
            sent += u32::from(done.stdout.contains("sent"));
            // a signal that stops is followed by one that continues: only the kernel's own mask tells that it was ignored
            let mask = done.stdout.lines().find_map(|line| line.strip_prefix("ignored "));
            if let Some(mask) = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) {
                looked += 1;
                check!(mask & IGNORED == IGNORED, "ignored are {mask:#x}, not all of {IGNORED:#x}: {done}");
            }
        }
    }
    check!(looked > 0, "the mask of ignored signals was never seen");
    println!("signals: {sent} of {tried} came in the middle");
    check!(sent * 3 >= tried * 2, "only {sent} of {tried} signals came in the middle: little was tested");
    // and before the first change it is a program like any other
    let command = "mkfifo /tmp/wait; sleep 30 > /tmp/wait 2>/dev/null & s=$!; flashcp --size=5000 - mtd:kernel < /tmp/wait & p=$!; \
                   usleep 300000; kill -TERM $p; wait $p; echo exit $?; kill $s; rm /tmp/wait";
    let done = machine.ssh.run(command)?;
    check!(done.stdout.contains("exit 143"), "a signal before the first change: {done}");
    Ok(())
}
