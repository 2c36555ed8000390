//! Counts what the emulated chip does, by QEMU's trace events.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::machine::Machine;
use crate::suite::Failure;

/// The events that tell of an erase, of a write through the chip's buffer, and of one of a single word.
const EVENTS: [&str; 3] = ["pflash_write_block_erase", "pflash_write_block_start", "pflash_write_start"];
/// Bytes of a word: both chips of the bank, 16 bits each.
const WORD: u64 = 4;

/// What the chip saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) erases: u64,
    /// Bytes.
    pub(super) programmed: u64,
}

/// A count that runs.
pub(super) struct Counter {
    log: PathBuf,
}

impl Counter {
    /// From now on QEMU writes its events to `log`.
    pub(super) fn start(machine: &mut Machine, log: &Path) -> Result<Self, Failure> {
        // An old log is not this run's.
        File::create(log).map_err(|e| Failure::file("create", log, e))?;
        machine.monitor(&format!("logfile {}", log.display()))?;
        // The trace is part of the log, which must be on for it, however empty otherwise.
        machine.monitor("log none")?;
        set(machine, true)?;
        Ok(Self { log: log.to_owned() })
    }

    /// Ends the count.
    pub(super) fn stop(self, machine: &mut Machine) -> Result<Count, Failure> {
        set(machine, false)?;
        let file = File::open(&self.log).map_err(|e| Failure::file("open", &self.log, e))?;
        count(BufReader::new(file)).map_err(|text| Failure::harness(format!("QEMU's trace: {text}")))
    }
}

fn set(machine: &mut Machine, on: bool) -> Result<(), Failure> {
    EVENTS.iter().try_for_each(|event| machine.trace(event, on))
}

fn count(log: impl BufRead) -> Result<Count, String> {
    let mut count = Count::default();
    for line in log.lines() {
        let line = line.map_err(|e| e.to_string())?;
        let number = |name: &str| {
            let digits = line.rsplit_once(name).map(|(_, digits)| digits.trim());
            digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(format!("no number: {line}"))
        };
        if line.contains("pflash_write_block_erase ") {
            count.erases += 1;
        } else if line.contains("pflash_write_block_start ") {
            // What the event calls bytes is the command's own number: words, less one.
            count.programmed += (number("bytes:0x")? + 1) * WORD;
        } else if line.contains("pflash_write_start ") && [0x10, 0x40].contains(&number("command 0x")?) {
            count.programmed += WORD;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erases_are_counted_and_written_bytes_added_up() {
        let log = "\
1@17.5:pflash_write_start virt.flash1: starting command 0x20
1@17.5:pflash_write_block_erase virt.flash1: block erase offset:0x40000 bytes:0x40000
1@17.5:pflash_write_start virt.flash1: starting command 0xe8
1@17.6:pflash_write_block_start virt.flash1: block write start: bytes:0x3ff
1@17.7:pflash_write_start virt.flash1: starting command 0x40
";
        assert_eq!(count(log.as_bytes()), Ok(Count { erases: 1, programmed: 4100 }));
        assert!(count(&b"1@1.1:pflash_write_block_start virt.flash1: bytes:0xzz"[..]).is_err());
    }
}
