//! What the user sees. Nothing here waits for the terminal while flash is being changed.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::args::Args;
use super::hints::hints;
use super::json;
use super::picture::{picture, planned, time};
use crate::device::Ecc;
use crate::event::{Event, Phase, Progress, Retry};
use crate::options::Mode;
use crate::report::{Failure, Locks, Outcome, Report};
use crate::sys::output::{self, Output};

/// How long the last words wait for a terminal that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a line on a terminal is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Not at all.
    Quiet,
    /// Lines as mtd-utils prints them.
    Lines,
    /// One line that is drawn again, of so many columns.
    Terminal(usize),
    /// Events as JSON.
    Json,
}

/// Standard output and error.
pub(super) struct Screen {
    out: Option<Output>,
    err: Option<Output>,
    style: Style,
    dry_run: bool,
    /// About how long the plan takes.
    time: String,
    /// Images of a plan that are verified.
    images: Option<usize>,
    lines: Lines,
    bar: Bar,
    told: json::Told,
}

impl Screen {
    pub(super) fn new(args: &Args) -> Self {
        let stdout = std::io::stdout();
        let style = match (stdout.is_terminal(), args.verbose) {
            _ if args.json => Style::Json,
            (true, _) => Style::Terminal(output::columns(stdout.as_fd()).unwrap_or(80)),
            (false, true) => Style::Lines,
            (false, false) => Style::Quiet,
        };
        Self {
            out: Output::new(stdout.as_fd()).ok(),
            err: Output::new(std::io::stderr().as_fd()).ok(),
            style,
            dry_run: args.options().mode == Mode::DryRun,
            time: String::new(),
            images: None,
            lines: Lines::default(),
            bar: Bar::new(Instant::now()),
            told: json::Told::default(),
        }
    }

    /// What is asked for, before anything is looked at.
    pub(super) fn start(&mut self, command: &[String]) {
        if self.style == Style::Json {
            self.say(&json::start(command));
        }
    }

    fn say(&mut self, text: &str) {
        if let (false, Some(out)) = (text.is_empty(), &mut self.out) {
            out.say(text, PATIENCE);
        }
    }

    fn offer(&mut self, text: &str) -> bool {
        text.is_empty() || self.out.as_mut().is_some_and(|out| out.offer(text))
    }

    /// The end of a run that went well.
    pub(super) fn report(&mut self, report: &Report) {
        let text = match self.style {
            Style::Json => json::report("end", report, report.exit_code()),
            _ => self.closed() + &summary(report),
        };
        self.say(&text);
        self.complain(report);
    }

    /// The end of one image of a plan; others follow.
    pub(super) fn image(&mut self, report: &Report) {
        let text = match self.style {
            Style::Json => json::report("image", report, report.exit_code()),
            _ => self.closed() + &summary(report),
        };
        self.say(&text);
        self.complain(report);
        self.images = Some(self.images.unwrap_or(0) + 1);
        self.lines = Lines::default();
        self.bar = Bar::new(Instant::now());
    }

    /// The end of a plan.
    pub(super) fn plan_is_done(&mut self, exit_code: u8) {
        let images = self.images.unwrap_or(0);
        let text = match self.style {
            Style::Json => json::end(exit_code, images),
            _ => format!("all {images} images of the plan are done\n"),
        };
        self.say(&text);
    }

    fn complain(&mut self, report: &Report) {
        if let (Locks::NotRestored { error }, Some(err)) = (&report.locks, &mut self.err) {
            err.say(&format!("flashcp: verified, but the locks could not be restored: {error}\n"), PATIENCE);
        }
    }

    /// The end of one that did not.
    pub(super) fn failure(&mut self, failure: &Failure) {
        let hints = hints(failure);
        let closed = match self.style {
            Style::Json => json::failure(failure, &hints),
            _ => self.closed(),
        };
        self.say(&closed);
        let mut text = format!("flashcp: {failure}\n");
        for hint in hints {
            text.push_str(&format!("flashcp: {hint}\n"));
        }
        if let Some(err) = &mut self.err {
            err.say(&text, PATIENCE);
        }
    }

    /// What ends an open line.
    fn closed(&mut self) -> String {
        match self.style {
            Style::Quiet | Style::Json => String::new(),
            Style::Lines => self.lines.close(),
            Style::Terminal(_) => self.bar.close(),
        }
    }
}

impl Progress for Screen {
    fn event(&mut self, event: &Event) {
        match (self.style, event) {
            (Style::Json, event) => {
                let text = json::event(&mut self.told, event).unwrap_or_default();
                // Nothing is being changed yet: the map is too long to be dropped for a slow reader.
                if matches!(event, Event::Map(_) | Event::Plan(_)) && self.dry_run {
                    self.say(&text);
                } else {
                    self.offer(&text);
                }
            }
            (_, Event::Map(map)) => {
                let text = self.closed() + &picture(map);
                self.time = time(map);
                self.say(&text);
            }
            (_, Event::Plan(plan)) if self.dry_run => {
                let text = self.closed() + &planned(plan) + &self.time;
                self.say(&text);
            }
            (Style::Quiet, _) => {}
            (Style::Lines, Event::Progress { phase, done, total, .. }) => {
                let text = self.lines.line(*phase, *done, *total);
                self.offer(&text);
            }
            (Style::Terminal(columns), Event::Progress { phase, done, total, .. }) => {
                if let Some(text) = self.bar.draw(Instant::now(), *phase, *done, *total, columns) {
                    self.offer(&text);
                }
            }
            (_, Event::Retry { offset, what }) => {
                let what = match what {
                    Retry::Reread => "wrong bytes, right when read again",
                    Retry::Rewrite => "wrong bytes, erased and written again",
                };
                let text = format!("{}{offset:#x}: {what}\n", self.closed());
                self.offer(&text);
            }
            (_, Event::Input { format, window }) => {
                let kilobytes = window.div_ceil(1024);
                let text = format!("{}the image is {format} data, window {kilobytes} KiB\n", self.closed());
                self.offer(&text);
            }
            (_, Event::Plan(_) | Event::FirstChange) => {}
        }
    }
}

/// Progress as mtd-utils' flashcp prints it: a line that is told again starts with a carriage return, and ends with a
/// newline when its phase is complete or another one is told of.
#[derive(Debug, Default)]
struct Lines {
    open: Option<Phase>,
    last: Option<(Phase, u64)>,
    complete: [bool; 3],
}

impl Lines {
    fn line(&mut self, phase: Phase, done: u64, total: u64) -> String {
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

    fn close(&mut self) -> String {
        if self.open.take().is_some() { "\n".to_owned() } else { String::new() }
    }
}

fn percent(done: u64, total: u64) -> u64 {
    done.min(total).saturating_mul(100).checked_div(total).unwrap_or(100)
}

/// One line for all phases, with rate and time left.
#[derive(Debug)]
struct Bar {
    begun: Instant,
    drawn: Option<Instant>,
    open: bool,
    erase: (u64, u64),
    write: (u64, u64),
    verify: (u64, u64),
}

impl Bar {
    fn new(begun: Instant) -> Self {
        Self { begun, drawn: None, open: false, erase: (0, 0), write: (0, 0), verify: (0, 0) }
    }

    fn draw(&mut self, now: Instant, phase: Phase, done: u64, total: u64, columns: usize) -> Option<String> {
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

    fn close(&mut self) -> String {
        if std::mem::take(&mut self.open) { "\r\x1b[K".to_owned() } else { String::new() }
    }
}

/// What a successful run ends with.
fn summary(report: &Report) -> String {
    let Report { target, image, image_bytes, sha256, plan, operations, .. } = report;
    let seconds = format!("{}.{} s", report.elapsed.as_secs(), report.elapsed.subsec_millis() / 100);
    let digest = format!("sha256 {sha256}\n");
    let mut text = match &report.outcome {
        Outcome::Written => format!(
            "verified: {image_bytes} bytes of {image} on {target} in {seconds}\n\
             {digest}{} of {} blocks kept, {} erased, {} bytes programmed\n",
            plan.kept, plan.blocks, operations.erases, operations.programmed
        ),
        Outcome::Unchanged => format!(
            "verified: {image_bytes} bytes of {image} were on {target} already, nothing was changed ({seconds})\n\
             {digest}"
        ),
        Outcome::Possible => format!("possible: {image_bytes} bytes of {image} onto {target}\n{digest}"),
        Outcome::Equal => format!("equal: {image_bytes} bytes of {image} on {target}\n{digest}"),
        Outcome::Differs { blocks, first } => {
            format!(
                "different: {image} and {target}, in {blocks} of {} blocks, first in that at {first:#x}\n",
                plan.blocks
            )
        }
    };
    if report.retries > 0 {
        text.push_str(&format!(
            "{} times bytes read back wrong and were read or written again\n",
            report.retries
        ));
    }
    let Ecc { corrected, failed, refreshed } = report.ecc;
    if report.ecc != Ecc::default() {
        text.push_str(&format!(
            "ECC: {corrected} flipped bits corrected, {failed} times too many; {refreshed} blocks refreshed\n"
        ));
    }
    if let Some(command) = &report.unfinished {
        text.push_str(&format!("another partition is still not verified, run again: {command}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Operations;
    use crate::plan::Summary;

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

    fn report(outcome: Outcome) -> Report {
        Report {
            target: "mtd5 \"firmware\"".to_owned(),
            image: "fw.bin".to_owned(),
            image_bytes: 1000,
            sha256: "ab".to_owned(),
            outcome,
            plan: Summary {
                blocks: 4,
                kept: 1,
                erases: 3,
                programs: 3,
                program_bytes: 768,
                kept_bytes: 256,
                bytes: 1024,
            },
            operations: Operations { erases: 3, programmed: 700, read: 2048 },
            retries: 0,
            ecc: Ecc::default(),
            locks: Locks::AsBefore,
            unfinished: None,
            elapsed: Duration::from_millis(1290),
        }
    }

    #[test]
    fn the_last_words_say_what_is_proven() {
        assert_eq!(
            summary(&report(Outcome::Written)),
            "verified: 1000 bytes of fw.bin on mtd5 \"firmware\" in 1.2 s\nsha256 ab\n\
             1 of 4 blocks kept, 3 erased, 700 bytes programmed\n"
        );
        assert_eq!(
            summary(&report(Outcome::Unchanged)),
            "verified: 1000 bytes of fw.bin were on mtd5 \"firmware\" already, nothing was changed (1.2 s)\nsha256 ab\n"
        );
        assert_eq!(
            summary(&report(Outcome::Possible)),
            "possible: 1000 bytes of fw.bin onto mtd5 \"firmware\"\nsha256 ab\n"
        );
        assert_eq!(
            planned(&report(Outcome::Possible).plan),
            "4 blocks: 1 kept, 3 to erase, 3 to program (768 bytes at most)\n"
        );
        assert_eq!(
            summary(&report(Outcome::Equal)),
            "equal: 1000 bytes of fw.bin on mtd5 \"firmware\"\nsha256 ab\n"
        );
        assert_eq!(
            summary(&report(Outcome::Differs { blocks: 2, first: 0x100 })),
            "different: fw.bin and mtd5 \"firmware\", in 2 of 4 blocks, first in that at 0x100\n"
        );
        let mut odd = report(Outcome::Written);
        odd.retries = 2;
        odd.ecc = Ecc { corrected: 7, failed: 1, refreshed: 2 };
        odd.unfinished = Some("flashcp a.bin mtd1".to_owned());
        assert!(summary(&odd).ends_with(
            "2 times bytes read back wrong and were read or written again\n\
             ECC: 7 flipped bits corrected, 1 times too many; 2 blocks refreshed\n\
             another partition is still not verified, run again: flashcp a.bin mtd1\n"
        ));
    }
}
