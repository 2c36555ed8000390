//! How far the work is: bars on a terminal, else plain lines, a few seconds apart. All of it goes to standard error.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Plain lines of one step are at least this far apart.
const QUIET: Duration = Duration::from_secs(4);
/// A line that would say the same again waits this long: a sign of life, no more.
const SAME: Duration = Duration::from_secs(30);

/// A numbered row of steps.
pub(crate) struct Progress {
    name: &'static str,
    steps: usize,
    terminal: bool,
    started: Instant,
    worked: bool,
}

impl Progress {
    /// Announces nothing yet: a step that finds its work done stays silent.
    #[must_use]
    pub(crate) fn new(name: &'static str, steps: usize) -> Self {
        Self { name, steps, terminal: io::stderr().is_terminal(), started: Instant::now(), worked: false }
    }

    /// The step with this number, counted from 1.
    pub(crate) fn step(&mut self, number: usize, title: &'static str) -> Step<'_> {
        let prefix = format!("[{} {number}/{}] {title}", self.name, self.steps);
        Step { progress: self, prefix, started: Instant::now(), bar: None, last: None }
    }

    /// Whether any step had anything to do.
    #[must_use]
    pub(crate) fn worked(&self) -> bool {
        self.worked
    }

    /// Since the beginning.
    #[must_use]
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// One step; shows itself when it is told of work.
pub(crate) struct Step<'a> {
    progress: &'a mut Progress,
    prefix: String,
    started: Instant,
    bar: Option<ProgressBar>,
    last: Option<(Instant, String)>,
}

impl Step<'_> {
    /// So much of so much is done (a total of 0: nobody knows), and this is being done now.
    pub(crate) fn at(&mut self, done: u64, total: u64, detail: &str) {
        self.progress.worked = true;
        if self.progress.terminal {
            let prefix = self.prefix.clone();
            let bar = self.bar.get_or_insert_with(|| new_bar(prefix));
            bar.set_length(total.max(1));
            bar.set_position(done.min(total.max(1)));
            bar.set_message(detail.to_owned());
            bar.tick();
        } else {
            let text = describe(done, total, detail);
            let due = |(told, before): &(Instant, String)| {
                told.elapsed() >= if *before == text { SAME } else { QUIET }
            };
            if self.last.as_ref().is_none_or(due) {
                eprintln!("{}: {text}", self.prefix);
                self.last = Some((Instant::now(), text));
            }
        }
    }

    /// Something to be remembered, on a line of its own.
    pub(crate) fn note(&mut self, text: &str) {
        let line = format!("{}: {text}", self.prefix);
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// The step is over. Says so if there was anything to do.
    pub(crate) fn done(self, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.bar.is_some() || self.last.is_some() {
            eprintln!("{}: {result} ({})", self.prefix, duration(self.started.elapsed()));
        }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        // a failed step leaves no half bar under its error
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(prefix: String) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:24}] {percent:>3} % {elapsed} {wide_msg}")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(prefix);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn describe(done: u64, total: u64, detail: &str) -> String {
    match (done.saturating_mul(100).checked_div(total), detail) {
        (None, detail) => detail.to_owned(),
        (Some(percent), "") => format!("{} %", percent.min(100)),
        (Some(percent), detail) => format!("{} %, {detail}", percent.min(100)),
    }
}

/// Seconds with one decimal below a minute, then minutes and seconds.
#[must_use]
pub(crate) fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// Megabytes, as downloads are counted.
#[must_use]
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_says_how_far_it_is_if_anybody_knows() {
        assert_eq!(describe(45, 100, ""), "45 %");
        assert_eq!(describe(1, 3, "net/ipv4/tcp.o"), "33 %, net/ipv4/tcp.o");
        assert_eq!(describe(7, 0, "7 crates compiled"), "7 crates compiled");
        assert_eq!(describe(5, 3, ""), "100 %");
    }

    #[test]
    fn durations_and_sizes_are_short() {
        assert_eq!(duration(Duration::from_millis(1_840)), "1.8 s");
        assert_eq!(duration(Duration::from_secs(423)), "7 min 3 s");
        assert_eq!(megabytes(387_123_456), "387.1 MB");
    }

    #[test]
    fn a_step_that_finds_its_work_done_stays_silent() {
        let mut progress = Progress::new("setup", 7);
        progress.step(1, "kernel").done("built");
        assert!(!progress.worked());
        progress.step(1, "kernel").at(0, 0, "unpacking");
        assert!(progress.worked());
    }
}
