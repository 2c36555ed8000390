//! NAND whose bad blocks are skipped, and whose worn ones are marked bad where the user has said so.

use super::{Failure, Flash, Job, Report, run_once};
use crate::device::{Geometry, Kind, Mtd, MtdError};
use crate::error::Error;
use crate::options::BadBlocks;
use crate::skip::Skipping;
use crate::source::Source;

/// So many blocks may wear out in one run. A chip on which more of them fail has another fault (its voltage, its
/// bus), and marks cannot be taken back.
const MARKS: u32 = 4;

/// Runs over the good blocks. A block that is found worn out is marked bad, if that is wanted, and the run starts
/// anew: with the next good block in its place everything behind it moves. To the chip that is a run after one that
/// was cut off.
pub(super) fn run(chip: &mut dyn Mtd, source: &mut dyn Source, job: Job<'_>) -> Result<Report, Failure> {
    let mut marks = 0;
    loop {
        let again = Job { hold: &mut *job.hold, progress: &mut *job.progress, ..job };
        let mut good = Skipping::new(chip).map_err(|error| changed(Error::from(error).into(), marks))?;
        match run_once(&mut good, source, again) {
            Ok(report) => return Ok(report),
            Err(Failure { error: Error::Worn { offset, .. }, .. })
                if job.options.bad_blocks == BadBlocks::Mark && marks < MARKS =>
            {
                chip.mark_bad(offset).map_err(|error| changed(Error::from(error).into(), 1))?;
                marks += 1;
            }
            Err(failure) => return Err(changed(failure, marks)),
        }
    }
}

/// A later run that fails before its first change does not undo what an earlier one has changed.
fn changed(failure: Failure, marks: u32) -> Failure {
    if marks > 0 { Failure { flash: Flash::Unverified, ..failure } } else { failure }
}

/// An error that says on NAND that a block is worn out: the driver went on reporting failure.
pub(super) fn name(geometry: &Geometry, error: Error) -> Error {
    let worn = |offset: u64, source| Error::Worn {
        offset: offset / geometry.erase_size * geometry.erase_size,
        source,
    };
    match error {
        Error::Chip(source) if geometry.kind == Kind::Nand && source.is_transient() => match source {
            MtdError::Erase { start, .. } => worn(start, source),
            MtdError::Program { offset, .. } => worn(offset, source),
            other => other.into(),
        },
        other => other,
    }
}
