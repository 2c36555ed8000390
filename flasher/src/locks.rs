//! The chip's own write protection: what is locked is unlocked before the first change, and exactly that is locked
//! again after the last.

use std::ops::Range;

use crate::decide::Step;
use crate::device::{Geometry, Mtd, MtdError};
use crate::plan::Plan;

/// The locked ranges among the blocks that a plan changes, neighbours joined. Chips without locks have none.
pub(crate) fn locked(
    chip: &mut dyn Mtd,
    plan: &Plan,
    geometry: &Geometry,
) -> Result<Vec<Range<u64>>, MtdError> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (block, _) in plan.blocks(geometry).filter(|(_, step)| *step != Step::Keep) {
        match chip.is_locked(block.range()) {
            Ok(false) => {}
            Ok(true) => match ranges.last_mut() {
                Some(last) if last.end == block.start => last.end = block.end(),
                _ => ranges.push(block.range()),
            },
            Err(MtdError::Unsupported) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
    Ok(ranges)
}

/// Unlocks each range. An error is no end: if the lock holds, the erase says so.
pub(crate) fn unlock(chip: &mut dyn Mtd, ranges: &[Range<u64>]) {
    for range in ranges {
        let _ = chip.unlock(range.clone());
    }
}

/// Locks each range again; the first error, if there was one (many chips lock only ranges at their top or bottom).
pub(crate) fn lock(chip: &mut dyn Mtd, ranges: &[Range<u64>]) -> Result<(), MtdError> {
    let mut result = Ok(());
    for range in ranges {
        let locked = chip.lock(range.clone());
        result = result.and(locked);
    }
    result
}
