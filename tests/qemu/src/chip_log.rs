//! What an emulated chip was told to do, from the emulator's own trace: nothing of ours counts here.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::suite::Failure;

/// The events of a pflash that tell of an erase, of a write through the chip's buffer, and of one of a single word.
const EVENTS: [&str; 3] = ["pflash_write_block_erase", "pflash_write_block_start", "pflash_write_start"];
/// Bytes of a word: both chips of the bank, 16 bits each.
const WORD: u64 = 4;

/// A chip's trace, which grows while the machine runs.
#[derive(Debug, Clone)]
pub(crate) struct ChipLog {
    path: PathBuf,
}

/// What a chip was told. Offsets are the chip's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// All of a range becomes 0xff.
    Erase(Range<u64>),
    /// One byte's bits are cleared where this byte has them clear.
    Program(u64, u8),
}

impl ChipLog {
    /// The trace that QEMU writes to `path`.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The trace's end by now, for [`ChipLog::since`].
    pub(crate) fn mark(&self) -> u64 {
        self.path.metadata().map_or(0, |data| data.len())
    }

    /// What was done since `mark`, in the order of its happening.
    pub(crate) fn since(&self, mark: u64) -> Result<Vec<Operation>, Failure> {
        Ok(self.read(mark)?.0)
    }

    /// Waits for an operation after `mark`; the one that was waited for is the last one that was seen.
    pub(crate) fn wait_for(
        &self,
        mark: u64,
        limit: Duration,
        wanted: &dyn Fn(&Operation) -> bool,
    ) -> Result<(), Failure> {
        self.wait_for_count(mark, limit, 1, wanted)
    }

    /// The same for so many such operations.
    pub(crate) fn wait_for_count(
        &self,
        mut mark: u64,
        limit: Duration,
        mut count: u64,
        wanted: &dyn Fn(&Operation) -> bool,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        while start.elapsed() < limit {
            let (operations, next) = self.read(mark)?;
            count = count.saturating_sub(operations.iter().filter(|done| wanted(done)).count() as u64);
            if count == 0 {
                return Ok(());
            }
            mark = next;
            // a moment in a burst of operations is waited for: no longer than it takes to read what came
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Failure::test(format!(
            "what was waited for was not done to the chip within {} s",
            limit.as_secs()
        )))
    }

    /// Operations after `mark`, and the mark behind them.
    fn read(&self, mark: u64) -> Result<(Vec<Operation>, u64), Failure> {
        let failed = |e| Failure::file("read", &self.path, e);
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(mark)).map_err(failed)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        Ok((text[..whole].lines().filter_map(parse).collect(), mark + whole as u64))
    }
}

/// How much a chip was told to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Blocks.
    pub(crate) erases: u64,
    /// Bytes.
    pub(crate) programmed: u64,
}

/// A count that runs, on either board.
pub(crate) struct Counter {
    log: PathBuf,
    mark: u64,
    /// The trace was switched on for the count and goes off with it.
    is_own: bool,
}

impl Counter {
    /// Counts from now on: in the log that the machine keeps of an SPI-NOR, or else in one of a pflash at `log`.
    pub(crate) fn start(machine: &mut Machine, log: &Path) -> Result<Self, Failure> {
        if let Some(log) = &machine.chip_log {
            return Ok(Self { log: log.path.clone(), mark: log.mark(), is_own: false });
        }
        // An old log is not this run's.
        File::create(log).map_err(|e| Failure::file("create", log, e))?;
        machine.monitor(&format!("logfile {}", log.display()))?;
        // The trace is part of the log, which must be on for it, however empty otherwise.
        machine.monitor("log none")?;
        EVENTS.iter().try_for_each(|event| machine.trace(event, true))?;
        Ok(Self { log: log.to_owned(), mark: 0, is_own: true })
    }

    /// Ends the count.
    pub(crate) fn stop(self, machine: &mut Machine) -> Result<Count, Failure> {
        if self.is_own {
            EVENTS.iter().try_for_each(|event| machine.trace(event, false))?;
        }
        let failed = |e| Failure::file("read", &self.log, e);
        let mut file = File::open(&self.log).map_err(failed)?;
        file.seek(SeekFrom::Start(self.mark)).map_err(failed)?;
        count(BufReader::new(file)).map_err(|text| Failure::harness(format!("QEMU's trace: {text}")))
    }
}

/// Adds up a trace of either chip.
fn count(log: impl BufRead) -> Result<Count, String> {
    let mut count = Count::default();
    for line in log.lines() {
        let line = line.map_err(|e| e.to_string())?;
        let named = |label: &str| number(&line, label, 16).ok_or_else(|| format!("no number: {line}"));
        match parse(&line) {
            Some(Operation::Erase(_)) => count.erases += 1,
            Some(Operation::Program(..)) => count.programmed += 1,
            None if line.contains("pflash_write_block_erase ") => count.erases += 1,
            // What the event calls bytes is the command's own number: words, less one.
            None if line.contains("pflash_write_block_start ") => {
                count.programmed += (named("bytes:0x")? + 1) * WORD;
            }
            None if line.contains("pflash_write_start ") && [0x10, 0x40].contains(&named("command 0x")?) => {
                count.programmed += WORD;
            }
            None => {}
        }
    }
    Ok(count)
}

/// A line of the SPI-NOR's trace; what else the emulator says is passed over.
fn parse(line: &str) -> Option<Operation> {
    if line.contains("m25p80_flash_erase") {
        // m25p80_flash_erase [0x55…] offset = 0x100000, len = 4096
        let offset = number(line, "offset = 0x", 16)?;
        return Some(Operation::Erase(offset..offset + number(line, "len = ", 10)?));
    }
    if line.contains("m25p80_page_program") {
        // m25p80_page_program [0x55…] page program cur_addr=0x100000 data=0x68
        let data = u8::try_from(number(line, "data=0x", 16)?).ok()?;
        return Some(Operation::Program(number(line, "cur_addr=0x", 16)?, data));
    }
    None
}

/// The number behind `label`.
fn number(line: &str, label: &str, radix: u32) -> Option<u64> {
    let digits = line.split_once(label)?.1;
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    u64::from_str_radix(digits.get(..end)?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erases_and_programmed_bytes_are_read_from_the_emulators_trace() {
        let erase = "m25p80_flash_erase [0x563bd8401200] offset = 0x101000, len = 4096";
        let program = "m25p80_page_program [0x563bd8401200] page program cur_addr=0x1000ff data=0x6f";
        assert_eq!(parse(erase), Some(Operation::Erase(0x10_1000..0x10_2000)));
        assert_eq!(parse(program), Some(Operation::Program(0x10_00ff, 0x6f)));
        assert_eq!(parse("qemu: a warning"), None);
    }

    #[test]
    fn erases_are_counted_and_written_bytes_added_up_on_either_chip() {
        let pflash = "\
1@17.5:pflash_write_start virt.flash1: starting command 0x20
1@17.5:pflash_write_block_erase virt.flash1: block erase offset:0x40000 bytes:0x40000
1@17.5:pflash_write_start virt.flash1: starting command 0xe8
1@17.6:pflash_write_block_start virt.flash1: block write start: bytes:0x3ff
1@17.7:pflash_write_start virt.flash1: starting command 0x40
";
        assert_eq!(count(pflash.as_bytes()), Ok(Count { erases: 1, programmed: 4100 }));
        assert!(count(&b"1@1.1:pflash_write_block_start virt.flash1: bytes:0xzz"[..]).is_err());
        let spi = "\
m25p80_flash_erase [0x1] offset = 0x1000, len = 4096
m25p80_page_program [0x1] page program cur_addr=0x1000ff data=0x6f
";
        assert_eq!(count(spi.as_bytes()), Ok(Count { erases: 1, programmed: 1 }));
    }

    #[test]
    fn a_line_that_is_not_whole_yet_is_read_when_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = ChipLog::at(folder.path().join("log"));
        let line = "m25p80_flash_erase [0x1] offset = 0x1000, len = 4096\n";
        std::fs::write(&log.path, &line[..40]).unwrap();
        let (operations, mark) = log.read(0).unwrap();
        assert_eq!((operations, mark), (Vec::new(), 0));
        std::fs::write(&log.path, line).unwrap();
        assert_eq!(log.since(mark).unwrap(), [Operation::Erase(0x1000..0x2000)]);
    }
}
