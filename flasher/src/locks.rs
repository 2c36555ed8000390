//! The chip's own write protection: what is locked is unlocked before the first change, and exactly that is locked
//! again after the last.

use std::ops::Range;

use crate::decide::Step;
use crate::device::{EraseBlock, Geometry, Mtd, MtdError};
use crate::error::Error;
use crate::plan::Plan;
use crate::report::{Failure, Locks};

/// The locked ranges of a partition, neighbours joined, as they were before a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Before {
    locked: Vec<Range<u64>>,
}

/// The runs of blocks for which `is` holds, neighbours joined.
fn ranges(
    blocks: impl Iterator<Item = EraseBlock>,
    mut is: impl FnMut(&EraseBlock) -> Result<bool, MtdError>,
) -> Result<Vec<Range<u64>>, MtdError> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        if !is(&block)? {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.end == block.start => last.end = block.end(),
            _ => ranges.push(block.range()),
        }
    }
    Ok(ranges)
}

fn locked(chip: &mut dyn Mtd, geometry: &Geometry) -> Result<Vec<Range<u64>>, MtdError> {
    match ranges(geometry.blocks(0..geometry.size), |block| chip.is_locked(block.range())) {
        Err(MtdError::Unsupported) => Ok(Vec::new()),
        ranges => ranges,
    }
}

/// Unlocks what a plan changes and is locked. If the chip cannot open just that (many protect only a part at their
/// top or bottom), the whole locked range that holds it is opened. No byte is changed.
///
/// # Errors
/// [`Error::Locked`] if it stays locked, and what asking says; what was unlocked is locked again, or the failure says
/// that it is not.
pub(crate) fn unlock(chip: &mut dyn Mtd, plan: &Plan, geometry: &Geometry) -> Result<Before, Failure> {
    let before = Before { locked: locked(chip, geometry).map_err(Error::from)? };
    match before.open(chip, plan, geometry) {
        Ok(()) => Ok(before),
        Err(error) => Err(before.untouched(chip, geometry, error)),
    }
}

impl Before {
    /// The failure of a run that has opened locks, and changes nothing after all: they are closed again.
    pub(crate) fn untouched(&self, chip: &mut dyn Mtd, geometry: &Geometry, error: Error) -> Failure {
        Failure { locks: Locks::of(self.restore(chip, geometry)), ..error.into() }
    }

    fn open(&self, chip: &mut dyn Mtd, plan: &Plan, geometry: &Geometry) -> Result<(), Error> {
        if self.locked.is_empty() {
            return Ok(());
        }
        let blocks = plan.blocks(geometry).filter(|(_, step)| *step != Step::Keep).map(|(block, _)| block);
        let wanted = ranges(blocks, |block| chip.is_locked(block.range()))?;
        for range in wanted {
            let exact = chip.unlock(range.clone());
            if exact.is_ok() && !any_locked(chip, geometry, &range)? {
                continue;
            }
            let whole =
                self.locked.iter().find(|locked| locked.start <= range.start && range.end <= locked.end);
            let wide = whole.map_or(Err(MtdError::Unsupported), |whole| chip.unlock(whole.clone()));
            if any_locked(chip, geometry, &range)? {
                let (start, end) = (chip.place(range.start), chip.place(range.end - 1) + 1);
                return Err(Error::Locked { start, end, source: exact.and(wide).err() });
            }
        }
        Ok(())
    }

    /// Locks again what was locked, and looks: a lock that takes hold of too much or too little is an error too.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub(crate) fn restore(&self, chip: &mut dyn Mtd, geometry: &Geometry) -> Result<(), String> {
        if self.locked.is_empty() {
            return Ok(());
        }
        let mut first = None;
        for range in &self.locked {
            let is_locked = any_locked(chip, geometry, range)
                .and_then(|any| if any { chip.is_locked(range.clone()) } else { Ok(false) });
            if !matches!(is_locked, Ok(true))
                && let Err(error) = chip.lock(range.clone())
            {
                first = first.or(Some(error));
            }
        }
        let now = locked(chip, geometry).map_err(|error| error.to_string())?;
        if now == self.locked {
            return Ok(());
        }
        let why = first.map_or_else(String::new, |error| format!(" ({error})"));
        Err(format!("{} locked before, {} now{why}", list(&self.locked), list(&now)))
    }
}

fn any_locked(chip: &mut dyn Mtd, geometry: &Geometry, range: &Range<u64>) -> Result<bool, MtdError> {
    for block in geometry.blocks(range.clone()) {
        if chip.is_locked(block.range())? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn list(ranges: &[Range<u64>]) -> String {
    if ranges.is_empty() {
        return "nothing".to_owned();
    }
    let ranges: Vec<_> =
        ranges.iter().map(|range| format!("{:#x} to {:#x}", range.start, range.end)).collect();
    ranges.join(", ")
}
