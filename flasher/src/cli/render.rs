//! What the user sees. Nothing here waits for the terminal while flash is being changed.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::args::Args;
use super::bar::Bar;
use super::hints::hints;
use super::json;
use super::lines::Lines;
use super::picture::{picture, planned, time};
use super::words;
use crate::event::{Event, Progress};
use crate::options::Mode;
use crate::report::{Failure, Locks, Report};
use crate::sys::output::{self, Output};

/// How long the last words wait for a terminal that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

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
    mode: Mode,
    /// How long words that matter wait for an output that takes nothing.
    patience: Duration,
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
        Self::on(stdout.as_fd(), std::io::stderr().as_fd(), style, args.options().mode)
    }

    /// The same on any descriptors.
    fn on(out: BorrowedFd<'_>, err: BorrowedFd<'_>, style: Style, mode: Mode) -> Self {
        Self {
            out: Output::new(out).ok(),
            err: Output::new(err).ok(),
            style,
            mode,
            patience: PATIENCE,
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
            out.say(text, self.patience);
        }
    }

    fn offer(&mut self, text: &str) -> bool {
        text.is_empty() || self.out.as_mut().is_some_and(|out| out.offer(text))
    }

    /// The end of a run that went well.
    pub(super) fn report(&mut self, report: &Report) {
        let text = match self.style {
            Style::Json => json::report("end", report, report.exit_code()),
            _ => self.closed() + &words::summary(report),
        };
        self.say(&text);
        self.complain(report);
    }

    /// The end of one image of a plan; others follow.
    pub(super) fn image(&mut self, report: &Report) {
        let text = match self.style {
            Style::Json => json::report("image", report, report.exit_code()),
            _ => self.closed() + &words::summary(report),
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
            _ => words::plan_is_done(images, self.mode, exit_code),
        };
        self.say(&text);
    }

    fn complain(&mut self, report: &Report) {
        if let (Locks::NotRestored { error }, Some(err)) = (&report.locks, &mut self.err) {
            err.say(&words::not_locked(error), self.patience);
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
            err.say(&text, self.patience);
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
                if matches!(event, Event::Map(_) | Event::Plan(_)) && self.mode == Mode::DryRun {
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
            (_, Event::Plan(plan)) if self.mode == Mode::DryRun => {
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
                let text = self.closed() + &words::retry(*offset, *what);
                self.offer(&text);
            }
            (_, Event::Input { format, window, memory }) => {
                let text = self.closed() + &words::input(format, *window, *memory);
                self.offer(&text);
            }
            (_, Event::Plan(_) | Event::FirstChange) => {}
        }
    }
}

#[cfg(test)]
mod blocked;
#[cfg(test)]
mod tests;
