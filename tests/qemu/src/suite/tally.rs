//! Counting: what every kind of test reports, added up into one closing line.

use std::fmt;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    /// Those that the harness failed included.
    pub(crate) failed: u64,
    /// Those of the failed that say nothing about the device: the harness did not do its work.
    pub(crate) blamed: u64,
    /// Ignored, or impossible to run here. Never silent.
    pub(crate) skipped: u64,
}

impl Tally {
    /// The counts of libtest's `test result: ok. 5 passed; 0 failed; 1 ignored; …`; none for any other line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.trim_start().strip_prefix("test result: ")?.split_once(". ")?;
        let mut tally = Self::default();
        for part in counts.split(';') {
            match part.trim().split_once(' ') {
                Some((count, "passed")) => tally.passed = count.parse().ok()?,
                Some((count, "failed")) => tally.failed = count.parse().ok()?,
                Some((count, "ignored")) => tally.skipped = count.parse().ok()?,
                _ => {}
            }
        }
        Some(tally)
    }

    /// A test that found that it cannot run here says so in a line of its own, and libtest counts it as passed.
    pub(crate) fn could_not_run(line: &str) -> bool {
        line.contains("DID NOT RUN")
    }

    /// Moves tests that could not run from the passed to the skipped.
    pub(crate) fn not_run(&mut self, count: u64) {
        self.passed = self.passed.saturating_sub(count);
        self.skipped += count;
    }

    /// Adds another's counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.blamed += other.blamed;
        self.skipped += other.skipped;
    }

    /// 1 if a promise is broken; else 3 if the harness had `problems`; else 0.
    pub(crate) fn exit_code(self, problems: &[String]) -> u8 {
        match (self.failed.saturating_sub(self.blamed), problems.len()) {
            (1.., _) => 1,
            (0, 1..) => 3,
            (0, 0) => 0,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtests_counts_are_read_and_added_up() {
        let mut all = Tally::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ] {
            all.add(Tally::parse(line).unwrap());
        }
        assert_eq!(all, Tally { passed: 14, failed: 3, blamed: 0, skipped: 1 });
        assert_eq!(Tally::parse("test plan::tests::x ... ok"), None);
        assert_eq!(Tally::parse("test result: ok"), None);
    }

    #[test]
    fn what_was_skipped_is_never_silent() {
        let tally = Tally { passed: 5, ..Tally::default() };
        assert_eq!(tally.to_string(), "5 passed, 0 failed");
        assert_eq!(Tally { failed: 1, skipped: 2, ..tally }.to_string(), "5 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn the_exit_code_tells_a_broken_promise_from_a_broken_harness() {
        let problems = ["no network".to_owned()];
        let tally = Tally { passed: 5, ..Tally::default() };
        assert_eq!(tally.exit_code(&[]), 0);
        assert_eq!(tally.exit_code(&problems), 3);
        assert_eq!(Tally { failed: 2, blamed: 2, ..tally }.exit_code(&problems), 3);
        assert_eq!(Tally { failed: 2, blamed: 1, ..tally }.exit_code(&problems), 1);
    }
}
