//! What an emulated chip was told to do, from the emulator's own trace: nothing of ours counts here.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::suite::Failure;

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
