//! How set-up fails. Every text says what was attempted and where to look.

use std::io;
use std::path::{Path, PathBuf};

/// Why the parts could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// A file operation.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("could not start `{program}` ({what}): {source}")]
    Start {
        /// What it was for.
        what: String,
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program failed or ran out of time.
    #[error("{what}: {how}; the last lines of {}:\n{tail}", log.display())]
    Program {
        /// What it was for.
        what: String,
        /// Its exit status, or the time limit that it broke.
        how: String,
        /// Everything it said.
        log: PathBuf,
        /// The end of that.
        tail: String,
    },
    /// Something that only the user can provide.
    #[error("{0}")]
    Missing(String),
    /// Something that was made or downloaded is not what was expected.
    #[error("{what}: expected {expected}, found {found}")]
    Unexpected {
        /// What was looked at.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl SetupError {
    /// For `map_err` on file operations.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn unexpected(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Unexpected { what: what.into(), expected: expected.into(), found: found.into() }
    }
}

/// The usual result of set-up.
pub(crate) type Result<T> = std::result::Result<T, SetupError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_told_with_its_log_and_its_last_lines() {
        let error = SetupError::Program {
            what: "kernel build".into(),
            how: "exit status 2".into(),
            log: "/cache/log/kernel.log".into(),
            tail: "cc1: out of memory".into(),
        };
        assert_eq!(
            error.to_string(),
            "kernel build: exit status 2; the last lines of /cache/log/kernel.log:\ncc1: out of memory"
        );
    }
}
