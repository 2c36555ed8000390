//! How a board test fails: by the device (the promise is broken) or by the harness (nothing is known of the promise).

use std::{fmt, io};

/// Why a board test did not pass. The two kinds have different exit codes, because they ask for different people.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The harness could not do its work: no QEMU, a time limit, a file that could not be written.
    Harness(String),
    /// The device did not do what the test's name promises.
    Test(String),
}

impl Failure {
    /// A failure of the harness.
    pub(crate) fn harness(text: impl fmt::Display) -> Self {
        Self::Harness(text.to_string())
    }

    /// A broken promise.
    pub(crate) fn test(text: impl fmt::Display) -> Self {
        Self::Test(text.to_string())
    }

    /// Puts what was being done in front of the text.
    #[must_use]
    pub(crate) fn context(self, doing: impl fmt::Display) -> Self {
        match self {
            Self::Harness(text) => Self::Harness(format!("{doing}: {text}")),
            Self::Test(text) => Self::Test(format!("{doing}: {text}")),
        }
    }

    /// The exit code of a process that ends with this: 1 for a broken promise, 3 for the harness.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Test(_) => 1,
            Self::Harness(_) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Harness(text) => write!(f, "the harness failed: {text}"),
            Self::Test(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Harness(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_and_a_broken_harness_have_different_exit_codes() {
        assert_eq!(Failure::test("x").exit_code(), 1);
        assert_eq!(Failure::harness("x").exit_code(), 3);
    }

    #[test]
    fn context_keeps_the_kind() {
        let failure = Failure::test("no banner").context("after the hand-over");
        assert_eq!(failure.to_string(), "after the hand-over: no banner");
        assert_eq!(failure.exit_code(), 1);
    }
}
