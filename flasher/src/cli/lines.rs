//! Progress in lines, for scripts and logs.

use crate::event::Phase;

/// Progress as mtd-utils' flashcp prints it: a line that is told again starts with a carriage return, and ends with a
/// newline when its phase is complete or another one is told of.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Option<Phase>,
    last: Option<(Phase, u64)>,
    complete: [bool; 3],
}

impl Lines {
    pub(super) fn line(&mut self, phase: Phase, done: u64, total: u64) -> String {
        let (index, what) = match phase {
            Phase::Survey => return String::new(),
            Phase::Erase => (0, format!("Erasing blocks: {done}/{total}")),
            Phase::Write => (1, format!("Writing data: {}k/{}k", done / 1024, total / 1024)),
            Phase::Verify => (2, format!("Verifying data: {}k/{}k", done / 1024, total / 1024)),
        };
        let percent = percent(done, total);
        let news = self.last != Some((phase, if phase == Phase::Erase { done } else { percent }));
        if !news || self.complete[index] {
            return String::new();
        }
        self.last = Some((phase, if phase == Phase::Erase { done } else { percent }));
        let before = match self.open {
            Some(open) if open == phase => "\r",
            Some(_) => "\n",
            None => "",
        };
        self.complete[index] = done >= total;
        self.open = (done < total).then_some(phase);
        let after = if done < total { "" } else { "\n" };
        format!("{before}{what} ({percent}%){after}")
    }

    pub(super) fn close(&mut self) -> String {
        if self.open.take().is_some() { "\n".to_owned() } else { String::new() }
    }
}

/// A share in percent; all of nothing is 100.
pub(super) fn percent(done: u64, total: u64) -> u64 {
    done.min(total).saturating_mul(100).checked_div(total).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_mtd_utils_and_each_phase_ends_at_a_hundred_percent() {
        let mut lines = Lines::default();
        let mut text = String::new();
        let mut tell = |phase, done, total| text.push_str(&lines.line(phase, done, total));
        tell(Phase::Survey, 5, 10);
        for done in [0, 3, 3, 10] {
            tell(Phase::Erase, done, 10);
        }
        tell(Phase::Write, 0, 640 * 1024);
        tell(Phase::Write, 64 * 1024, 640 * 1024);
        tell(Phase::Write, 64 * 1024 + 100, 640 * 1024);
        tell(Phase::Verify, 64 * 1024, 640 * 1024);
        tell(Phase::Write, 640 * 1024, 640 * 1024);
        tell(Phase::Verify, 640 * 1024, 640 * 1024);
        tell(Phase::Verify, 640 * 1024, 640 * 1024);
        assert_eq!(
            text,
            "Erasing blocks: 0/10 (0%)\rErasing blocks: 3/10 (30%)\rErasing blocks: 10/10 (100%)\n\
             Writing data: 0k/640k (0%)\rWriting data: 64k/640k (10%)\n\
             Verifying data: 64k/640k (10%)\n\
             Writing data: 640k/640k (100%)\n\
             Verifying data: 640k/640k (100%)\n"
        );
        assert_eq!(lines.close(), "");
    }

    #[test]
    fn a_phase_with_nothing_to_do_is_complete() {
        let mut lines = Lines::default();
        assert_eq!(lines.line(Phase::Erase, 0, 0), "Erasing blocks: 0/0 (100%)\n");
        assert_eq!(lines.line(Phase::Write, 0, 2048), "Writing data: 0k/2k (0%)");
        assert_eq!(lines.close(), "\n");
    }
}
