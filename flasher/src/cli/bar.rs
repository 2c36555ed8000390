//! Progress on a terminal.

use std::time::{Duration, Instant};

use super::lines::percent;
use crate::event::Phase;

/// How often the line is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// One line for all phases, with rate and time left.
#[derive(Debug)]
pub(super) struct Bar {
    begun: Instant,
    drawn: Option<Instant>,
    open: bool,
    erase: (u64, u64),
    write: (u64, u64),
    verify: (u64, u64),
}

impl Bar {
    pub(super) fn new(begun: Instant) -> Self {
        Self { begun, drawn: None, open: false, erase: (0, 0), write: (0, 0), verify: (0, 0) }
    }

    /// The line as it is now, to be written over the one before; `None` if that was drawn a moment ago.
    pub(super) fn draw(
        &mut self,
        now: Instant,
        phase: Phase,
        done: u64,
        total: u64,
        columns: usize,
    ) -> Option<String> {
        let changing = self.write != (0, 0) || self.erase != (0, 0) || self.verify != (0, 0);
        match phase {
            Phase::Survey => {}
            Phase::Erase => self.erase = (done, total),
            Phase::Write => self.write = (done, total),
            Phase::Verify => self.verify = (done, total),
        }
        if phase != Phase::Survey && !changing {
            self.begun = now;
        }
        let is_end = done >= total;
        if !is_end && self.drawn.is_some_and(|drawn| now.duration_since(drawn) < REDRAW) {
            return None;
        }
        self.drawn = Some(now);
        self.open = true;
        let text = if phase == Phase::Survey {
            format!("comparing {}%", percent(done, total))
        } else {
            let elapsed = now.duration_since(self.begun);
            let rate = u128::from(self.write.0) * 1000 / 1024 / elapsed.as_millis().max(1);
            format!(
                "erased {}/{}  written {}k/{}k  verified {}%  {rate} KiB/s  {}",
                self.erase.0,
                self.erase.1,
                self.write.0 / 1024,
                self.write.1 / 1024,
                if self.verify.1 == 0 { 0 } else { percent(self.verify.0, self.verify.1) },
                self.left(elapsed)
            )
        };
        let text: String = text.chars().take(columns.saturating_sub(1)).collect();
        Some(format!("\r{text}\x1b[K"))
    }

    /// The time left, from the share of the work that is done. By data sheets a block's erase takes about three
    /// times as long as programming it, and reading it a tenth.
    fn left(&self, elapsed: Duration) -> String {
        let share = |(done, total): (u64, u64), weight: u128| {
            if total == 0 {
                (0, 0)
            } else {
                (u128::from(done) * weight * 1000 / u128::from(total), weight * 1000)
            }
        };
        let parts = [share(self.erase, 30), share(self.write, 10), share(self.verify, 1)];
        let (done, total) = parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        if done == 0 || elapsed < Duration::from_secs(1) {
            return String::new();
        }
        let seconds = elapsed.as_millis() * (total - done.min(total)) / done / 1000;
        format!("{}:{:02} left", seconds / 60, seconds % 60)
    }

    /// What takes the line away.
    pub(super) fn close(&mut self) -> String {
        if std::mem::take(&mut self.open) { "\r\x1b[K".to_owned() } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_on_a_terminal_never_wraps_and_tells_rate_and_time_left() {
        let begun = Instant::now();
        let mut bar = Bar::new(begun);
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(bar.draw(begun, Phase::Survey, 1, 4, 80).unwrap(), "\rcomparing 25%\x1b[K");
        bar.draw(at(1), Phase::Erase, 0, 10, 80);
        bar.draw(at(2), Phase::Write, 0, 640 * 1024, 80);
        bar.draw(at(3), Phase::Erase, 5, 10, 80);
        assert_eq!(
            bar.draw(at(11), Phase::Write, 320 * 1024, 640 * 1024, 80).unwrap(),
            "\rerased 5/10  written 320k/640k  verified 0%  32 KiB/s  0:10 left\x1b[K"
        );
        assert_eq!(bar.draw(at(11), Phase::Write, 330 * 1024, 640 * 1024, 80), None);
        let short = bar.draw(at(12), Phase::Write, 320 * 1024, 640 * 1024, 20).unwrap();
        assert_eq!(short, "\rerased 5/10  writte\x1b[K");
        assert_eq!((bar.close().as_str(), bar.close().as_str()), ("\r\x1b[K", ""));
    }
}
