//! From `reboot` to a login: into the maintenance root, and all the way through the boot loader.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::line;
use crate::machine::Machine;
use crate::suite::Failure;

/// Rounds of each.
const ROUNDS: usize = 3;
/// How long one attempt waits for a greeting: a guest that is away does not answer at all. Shorter ones pile up and fall
/// upon the server all at once. A full reboot is told up to this much too long; a kernel that stays answers at once.
const ATTEMPT: Duration = Duration::from_millis(500);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Seconds of soft restarts and of full reboots, alternating: each round stages, enters the maintenance root, and comes
/// back by a full reboot; a second full reboot is from the same system that the soft one is from.
pub(super) fn rounds(machine: &Machine) -> Result<(Vec<f64>, Vec<f64>), Failure> {
    let (mut soft, mut full) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let boot = line::boot_id(machine)?;
        let other = format!("test \"$(cat /proc/sys/kernel/random/boot_id)\" != {boot}");
        full.push(restart(machine, &other)?);
        machine.ssh.succeed_for("levitate", line::STAGE)?;
        soft.push(restart(machine, "test -e /etc/levitate/manifest.json")?);
        let boot = line::boot_id(machine)?;
        line::reboot(machine)?;
        line::wait_for_other_boot(machine, &boot)?;
    }
    Ok((soft, full))
}

/// Types `reboot`, and counts until `arrived` succeeds in a session of its own.
fn restart(machine: &Machine, arrived: &str) -> Result<f64, Failure> {
    // the pages that both need to begin with are those of a system that runs
    machine.ssh.succeed("sync; echo 3 > /proc/sys/vm/drop_caches; sleep 1")?;
    let start = Instant::now();
    line::reboot(machine)?;
    // while the old server still answers, a login there would only delay both
    wait(machine, start, false)?;
    loop {
        wait(machine, start, true)?;
        let done = machine.ssh.run_for(arrived, Duration::from_secs(20))?;
        if done.code == Some(0) {
            return Ok(start.elapsed().as_secs_f64());
        }
        if start.elapsed() > line::HAND_OVER {
            return Err(Failure::test(format!("no login after a restart: {done}")));
        }
    }
}

/// Waits until the server greets, or does not.
fn wait(machine: &Machine, start: Instant, up: bool) -> Result<(), Failure> {
    while greets(machine.ssh.port()) != up {
        if start.elapsed() > line::HAND_OVER {
            return Err(Failure::test(format!(
                "the ssh server should {}greet",
                if up { "" } else { "not " }
            )));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut greeting = [0; 4];
    stream.set_read_timeout(Some(ATTEMPT)).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && &greeting == b"SSH-"
}
