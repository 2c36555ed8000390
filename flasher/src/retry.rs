//! Trying again where a chip or its bus reports a failure: a flaky bus is no broken chip, and a broken chip fails again.

use std::ops::Range;

use crate::device::{Mtd, MtdError, ReadHealth};

/// What failed is tried again at most this often.
pub(crate) const AGAIN: u32 = 2;

/// Does `what` until it succeeds, fails for good, or was tried again [`AGAIN`] times. Each further try counts in
/// `retries`.
fn persist<T>(retries: &mut u64, mut what: impl FnMut() -> Result<T, MtdError>) -> Result<T, MtdError> {
    let mut result = what();
    for _ in 0..AGAIN {
        match &result {
            Err(error) if error.is_transient() => {
                *retries += 1;
                result = what();
            }
            _ => break,
        }
    }
    result
}

/// Reads; bytes that ECC could not correct are read again too.
pub(crate) fn read(
    chip: &mut dyn Mtd,
    offset: u64,
    buf: &mut [u8],
    retries: &mut u64,
) -> Result<ReadHealth, MtdError> {
    let mut health = persist(retries, || chip.read(offset, buf))?;
    for _ in 0..AGAIN {
        if health.failed == 0 {
            break;
        }
        *retries += 1;
        health = chip.read(offset, buf)?;
    }
    Ok(health)
}

/// Whether an ECC step of the bytes that were just read has so many flipped bits that they are to be refreshed. The
/// driver's count is the sum over the steps: where that is as high as one step's threshold the steps are read one by
/// one. A driver that reads whole pages only gives the page's sum each time; its pages are refreshed early. `read` counts
/// the bytes.
pub(crate) fn is_flipping(
    chip: &mut dyn Mtd,
    range: Range<u64>,
    health: ReadHealth,
    retries: &mut u64,
    read: &mut u64,
) -> Result<bool, MtdError> {
    let Some(threshold) = chip.bitflip_threshold().filter(|threshold| health.corrected >= *threshold) else {
        return Ok(false);
    };
    let length = range.end - range.start;
    let Some(step) = chip.ecc_step().filter(|step| (1..length).contains(step)) else { return Ok(true) };
    let mut bytes = vec![0; usize::try_from(step).unwrap_or(0)];
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(bytes.len());
        if self::read(chip, at, &mut bytes[..left], retries)?.corrected >= threshold {
            return Ok(true);
        }
        *read += left as u64;
        at += left as u64;
    }
    Ok(false)
}

/// Erases. If one call for several blocks fails each block is erased by itself, so that the error names the one
/// that fails.
pub(crate) fn erase(chip: &mut dyn Mtd, range: &Range<u64>, retries: &mut u64) -> Result<(), MtdError> {
    let blocks: Vec<_> = chip.geometry().blocks(range.clone()).collect();
    if blocks.len() > 1 {
        match chip.erase(range.clone()) {
            Err(error) if error.is_transient() => *retries += 1,
            result => return result,
        }
    }
    blocks.into_iter().try_for_each(|block| persist(retries, || chip.erase(block.range())))
}
