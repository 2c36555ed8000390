//! The end of a run.

use std::time::Duration;

use crate::device::Ecc;
use crate::error::Error;
use crate::event::Operations;
use crate::plan::Summary;
use crate::record::Record;
use crate::source::ImageError;

/// How a run ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The flash was changed, and holds the image.
    Written,
    /// The flash held the image already; nothing was changed.
    Unchanged,
    /// `--dry-run`: it can be done.
    Possible,
    /// `--verify-only`: flash and image are equal.
    Equal,
    /// `--verify-only`: they differ.
    Differs {
        /// In how many blocks.
        blocks: u64,
        /// The start of the first, in bytes from the target's start.
        first: u64,
    },
}

/// Whether the chip's locks are as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locks {
    /// They are, or there are none.
    AsBefore,
    /// They are not.
    NotRestored {
        /// What the driver said.
        error: String,
    },
}

/// A range that an earlier run has changed and not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its device node.
    pub device: String,
    /// The partition's or volume's name.
    pub name: String,
    /// Whether that is the device that this run has written, in other bytes.
    pub same_device: bool,
    /// The command that completes it, as one would type it.
    pub command: String,
}

impl Unfinished {
    /// What `earlier` has left, as a run on `device` tells it.
    pub(crate) fn of(earlier: Record, device: &str) -> Self {
        let same_device = earlier.device == device;
        let command = earlier.command_line();
        Self { device: earlier.device, name: earlier.name, same_device, command }
    }
}

impl Locks {
    /// What came of closing them again.
    pub(crate) fn of(restored: Result<(), String>) -> Self {
        restored.map_or_else(|error| Self::NotRestored { error }, |()| Self::AsBefore)
    }
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The partition: `mtd5 "firmware"`.
    pub target: String,
    /// The image's name.
    pub image: String,
    /// Its size in bytes.
    pub image_bytes: u64,
    /// Its SHA-256; after [`Outcome::Written`], [`Outcome::Unchanged`] and [`Outcome::Equal`] also that of the flash.
    pub sha256: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was planned.
    pub plan: Summary,
    /// What was done to the chip.
    pub operations: Operations,
    /// Wrong readings, and blocks written again.
    pub retries: u64,
    /// What the chip's ECC said.
    pub ecc: Ecc,
    /// The chip's locks.
    pub locks: Locks,
    /// Another range that an earlier run left unverified.
    pub unfinished: Option<Unfinished>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// Nothing is known of the image yet but its name, and nothing is done.
    pub(crate) fn begun(target: String, image: &str) -> Self {
        Self {
            target,
            image: image.to_owned(),
            image_bytes: 0,
            sha256: String::new(),
            outcome: Outcome::Possible,
            plan: Summary::default(),
            operations: Operations::default(),
            retries: 0,
            ecc: Ecc::default(),
            locks: Locks::AsBefore,
            unfinished: None,
            elapsed: Duration::ZERO,
        }
    }

    /// The exit code: 0, 4 (locks could not be restored) or 5 (`--verify-only`: differs).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (&self.outcome, &self.locks) {
            (Outcome::Differs { .. }, _) => 5,
            (_, Locks::NotRestored { .. }) => 4,
            (_, Locks::AsBefore) => 0,
        }
    }
}

/// What is known of the flash after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flash {
    /// Not one byte was changed.
    Untouched,
    /// It was changed and not verified.
    Unverified,
}

/// How a run ended badly.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", besides(locks))]
pub struct Failure {
    /// What is known of the flash.
    pub flash: Flash,
    /// Why.
    #[source]
    pub error: Error,
    /// The chip's locks.
    pub locks: Locks,
}

fn besides(locks: &Locks) -> String {
    match locks {
        Locks::AsBefore => String::new(),
        Locks::NotRestored { error } => format!("; besides, the locks could not be restored: {error}"),
    }
}

impl Failure {
    /// An error after the first change.
    pub(crate) fn unverified(error: Error) -> Self {
        Self { flash: Flash::Unverified, ..error.into() }
    }

    /// The exit code: 1 (untouched; 2 where the command line does not tell where a stream ends) or 3 (changed and not
    /// verified).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.flash {
            Flash::Untouched if matches!(self.error, Error::Image(ImageError::Unproven { .. })) => 2,
            Flash::Untouched => 1,
            Flash::Unverified => 3,
        }
    }
}

impl From<Error> for Failure {
    /// An error before the first change.
    fn from(error: Error) -> Self {
        Self { flash: Flash::Untouched, error, locks: Locks::AsBefore }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: Outcome, locks: Locks) -> u8 {
        Report { outcome, locks, ..Report::begun(String::new(), "") }.exit_code()
    }

    #[test]
    fn the_exit_code_tells_what_the_flash_holds() {
        for outcome in [Outcome::Written, Outcome::Unchanged, Outcome::Possible, Outcome::Equal] {
            assert_eq!(report(outcome, Locks::AsBefore), 0);
        }
        assert_eq!(report(Outcome::Differs { blocks: 1, first: 0 }, Locks::AsBefore), 5);
        assert_eq!(report(Outcome::Written, Locks::NotRestored { error: String::new() }), 4);
        let failure =
            |flash| Failure { flash, ..Error::Protected { what: "erase", offset: 0 }.into() }.exit_code();
        assert_eq!(failure(Flash::Untouched), 1);
        assert_eq!(failure(Flash::Unverified), 3);
    }
}
