//! Why a scenario ended: the product broke a promise, or the harness could not find out.

use std::fmt::Display;
use std::path::Path;

/// The two kinds of failure, told apart in every report and in the exit code.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Something promised did not hold.
    Test(String),
    /// QEMU, a tool or a wait of the harness itself failed; nothing is said about the product.
    Harness(String),
}

impl Failure {
    /// A promise was broken.
    pub(crate) fn test(text: impl Display) -> Self {
        Self::Test(text.to_string())
    }

    /// The harness failed.
    pub(crate) fn harness(text: impl Display) -> Self {
        Self::Harness(text.to_string())
    }

    /// The harness failed at a file.
    pub(crate) fn file(what: &str, path: &Path, source: std::io::Error) -> Self {
        Self::Harness(format!("cannot {what} {}: {source}", path.display()))
    }

    /// The same failure, with `context` before it.
    #[must_use]
    pub(crate) fn during(self, context: impl Display) -> Self {
        match self {
            Self::Test(text) => Self::Test(format!("{context}: {text}")),
            Self::Harness(text) => Self::Harness(format!("{context}: {text}")),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Test(text) => write!(f, "test failure: {text}"),
            Self::Harness(text) => write!(f, "harness failure: {text}"),
        }
    }
}

/// Fails the test with the formatted text unless the condition holds.
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::failure::Failure::test(format!($($text)+)));
        }
    };
}
pub(crate) use check;
