//! Short ways to say that something did not hold.

use std::path::Path;

use crate::suite::Failure;

impl Failure {
    /// The harness failed at a file.
    pub(crate) fn file(what: &str, path: &Path, source: std::io::Error) -> Self {
        Self::Harness(format!("cannot {what} {}: {source}", path.display()))
    }
}

/// Fails the test with the formatted text unless the condition holds.
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::suite::Failure::test(format!($($text)+)));
        }
    };
}
pub(crate) use check;
