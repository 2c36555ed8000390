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
