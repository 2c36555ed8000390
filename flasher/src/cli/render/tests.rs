//! Every kind of line that a user can meet, in every style, kept in `tests/texts/told.txt`. A new kind of event or
//! outcome does not compile here before it has a place in the list, and does not pass before it has a sample.
//! `UPDATE_TEXTS=1 cargo test -p flasher --lib` writes the file: look at what changed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::time::Duration;

use super::*;
use crate::device::{Ecc, Kind};
use crate::error::Error;
use crate::event::{Operations, Phase, Retry};
use crate::map::{Map, Mark};
use crate::plan::Summary;
use crate::report::{Flash, Outcome, Unfinished};

#[macro_use]
#[path = "../../../tests/common/kept.rs"]
mod kept;
use kept::kept;

variants!(event_name, EVENTS, Event: Input Map Plan FirstChange Progress Retry);
variants!(phase_name, PHASES, Phase: Survey Erase Write Verify);
variants!(retry_name, RETRIES, Retry: Reread Rewrite);
variants!(outcome_name, OUTCOMES, Outcome: Written Unchanged Possible Equal Differs);
variants!(locks_name, LOCKS, Locks: AsBefore NotRestored);

const OPERATIONS: Operations = Operations { erases: 3, programmed: 700, read: 2048 };

/// What a fresh screen prints to standard output and to standard error, into plain files.
fn told(style: Style, mode: Mode, act: impl FnOnce(&mut Screen)) -> [String; 2] {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["out", "err"].map(|name| dir.path().join(name));
    let [out, err] = paths.each_ref().map(|path| File::create(path).unwrap());
    act(&mut Screen::on(out.as_fd(), err.as_fd(), style, mode));
    paths.map(|path| std::fs::read_to_string(path).unwrap())
}

/// The page that is being written, and what it has samples of.
#[derive(Default)]
struct Page {
    text: String,
    seen: BTreeSet<&'static str>,
}

impl Page {
    /// One line for each line that is told, its control characters visible.
    fn add(&mut self, name: &str, told: &[String; 2]) {
        writeln!(self.text, "{name}").unwrap();
        for (mark, text) in ["", "2> "].iter().zip(told) {
            for line in text.split_inclusive('\n') {
                let line = line
                    .replace(env!("CARGO_PKG_VERSION"), "VERSION")
                    .replace('\r', "\\r")
                    .replace('\x1b', "\\e")
                    .replace('\n', "\\n");
                writeln!(self.text, "    {mark}{line}").unwrap();
            }
        }
    }
}

fn progress(phase: Phase, done: u64, total: u64) -> Event {
    Event::Progress { phase, done, total, operations: OPERATIONS }
}

fn summary() -> Summary {
    Summary { blocks: 4, kept: 1, erases: 3, programs: 3, program_bytes: 768, kept_bytes: 256, bytes: 1024 }
}

fn report(outcome: Outcome) -> Report {
    Report {
        image_bytes: 1000,
        sha256: "ab".repeat(32),
        outcome,
        plan: summary(),
        operations: OPERATIONS,
        elapsed: Duration::from_millis(1290),
        ..Report::begun("mtd5 \"firmware\"".to_owned(), "fw.bin")
    }
}

fn events() -> Vec<(&'static str, Mode, Event)> {
    let marks = [Mark::Head, Mark::Keep, Mark::Rewrite, Mark::Program, Mark::Clear, Mark::Erase, Mark::Bad];
    let blocks = (0..).zip(marks).map(|(number, mark)| (number * 0x1000, 0x1000, mark)).collect();
    let map = Map { kind: Kind::SpiNor, blocks };
    vec![
        ("compressed input", Mode::Write, Event::Input { format: "xz", window: 8 << 20, memory: 33 << 18 }),
        ("a map", Mode::DryRun, Event::Map(map)),
        ("a plan that is only looked at", Mode::DryRun, Event::Plan(summary())),
        ("a plan", Mode::Write, Event::Plan(summary())),
        ("the first change", Mode::Write, Event::FirstChange),
        ("the survey", Mode::Write, progress(Phase::Survey, 64 << 10, 640 << 10)),
        ("an erase", Mode::Write, progress(Phase::Erase, 3, 10)),
        ("the last erase", Mode::Write, progress(Phase::Erase, 10, 10)),
        ("no erase", Mode::Write, progress(Phase::Erase, 0, 0)),
        ("a write", Mode::Write, progress(Phase::Write, 64 << 10, 640 << 10)),
        ("the read-back", Mode::Write, progress(Phase::Verify, 64 << 10, 640 << 10)),
        ("bytes right when read again", Mode::Write, Event::Retry { offset: 0x1234, what: Retry::Reread }),
        ("bytes written again", Mode::Write, Event::Retry { offset: 0x1234, what: Retry::Rewrite }),
    ]
}

fn unfinished(same_device: bool) -> Option<Unfinished> {
    Some(Unfinished {
        device: "/dev/mtd1".to_owned(),
        name: "kernel".to_owned(),
        same_device,
        command: "flashcp a.bin mtd1".to_owned(),
    })
}

fn reports() -> Vec<(&'static str, Mode, Report)> {
    let written = || report(Outcome::Written);
    vec![
        ("written", Mode::Write, written()),
        ("unchanged", Mode::Write, report(Outcome::Unchanged)),
        ("possible", Mode::DryRun, report(Outcome::Possible)),
        ("equal", Mode::VerifyOnly, report(Outcome::Equal)),
        ("different", Mode::VerifyOnly, report(Outcome::Differs { blocks: 2, first: 0x100 })),
        ("with retries", Mode::Write, Report { retries: 2, ..written() }),
        ("with ECC", Mode::Write, Report { ecc: Ecc { corrected: 7, failed: 1, refreshed: 2 }, ..written() }),
        (
            "beside another that is unfinished",
            Mode::Write,
            Report { unfinished: unfinished(false), ..written() },
        ),
        (
            "beside more of the same partition that is unfinished",
            Mode::Write,
            Report { unfinished: unfinished(true), ..written() },
        ),
        (
            "with locks that stay open",
            Mode::Write,
            Report { locks: Locks::NotRestored { error: "EIO".to_owned() }, ..written() },
        ),
    ]
}

#[test]
fn every_kind_of_line_was_looked_at_in_every_style() {
    let mut page = Page::default();
    let styles = [Style::Quiet, Style::Lines, Style::Terminal(80), Style::Json];
    for style in styles {
        writeln!(page.text, "# {style:?}").unwrap();
        let command = ["flashcp", "-v", "fw.bin", "mtd5"].map(str::to_owned);
        page.add("the start", &told(style, Mode::Write, |screen| screen.start(&command)));
        for (name, mode, event) in events() {
            page.seen.insert(event_name(&event));
            match &event {
                Event::Progress { phase, .. } => page.seen.insert(phase_name(phase)),
                Event::Retry { what, .. } => page.seen.insert(retry_name(what)),
                _ => false,
            };
            page.add(name, &told(style, mode, |screen| screen.event(&event)));
        }
        let erase = progress(Phase::Erase, 3, 10);
        let retry = Event::Retry { offset: 0x1234, what: Retry::Rewrite };
        let both = |screen: &mut Screen| {
            screen.event(&erase);
            screen.event(&retry);
        };
        page.add("an erase, and bytes written again", &told(style, Mode::Write, both));
        for (name, mode, report) in reports() {
            page.seen.extend([outcome_name(&report.outcome), locks_name(&report.locks)]);
            page.add(name, &told(style, mode, |screen| screen.report(&report)));
        }
        let plan = |screen: &mut Screen| {
            screen.event(&erase);
            screen.image(&report(Outcome::Written));
            screen.event(&progress(Phase::Erase, 0, 10));
            screen.image(&report(Outcome::Unchanged));
            screen.plan_is_done(0);
        };
        page.add("a plan of two images", &told(style, Mode::Write, plan));
        for (mode, code) in [(Mode::DryRun, 0), (Mode::VerifyOnly, 0), (Mode::VerifyOnly, 5)] {
            let end = told(style, mode, |screen| {
                screen.images = Some(2);
                screen.plan_is_done(code);
            });
            page.add(&format!("the end of a plan, {mode:?} {code}"), &end);
        }
        let open = Locks::NotRestored { error: "EIO".to_owned() };
        for (flash, locks) in [
            (Flash::Untouched, Locks::AsBefore),
            (Flash::Unverified, Locks::AsBefore),
            (Flash::Unverified, open),
        ] {
            let failure = Failure { flash, locks, ..Error::Protected { what: "erase", offset: 0 }.into() };
            let failed = |screen: &mut Screen| {
                screen.event(&erase);
                screen.failure(&failure);
            };
            page.add(
                &format!("a failure, flash {flash:?}").to_lowercase(),
                &told(style, Mode::Write, failed),
            );
        }
    }
    for name in [EVENTS, PHASES, RETRIES, OUTCOMES, LOCKS].concat() {
        assert!(page.seen.contains(name), "{name} has no sample");
    }
    kept("told.txt", &page.text);
}
