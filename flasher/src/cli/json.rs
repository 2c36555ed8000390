//! Events as JSON, one object in each line. The first is `start`, the last `end` or `failed`.

use crate::device::Ecc;
use crate::estimate::Part;
use crate::event::{Event, Operations, Phase, Retry};
use crate::map::Map;
use crate::plan::Summary;
use crate::report::{Failure, Flash, Locks, Outcome, Report};

/// The format's version, in the first line. It changes when a key goes or means something else.
const VERSION: u64 = 1;

/// At most this many characters show a map, so that a line stays one piece in a pipe.
const CHARACTERS: usize = 1024;

/// An object that is being written.
struct Line(String);

impl Line {
    fn new(event: &str) -> Self {
        Self("{".to_owned()).text("event", event)
    }

    fn key(mut self, key: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&format!("\"{key}\":"));
        self
    }

    fn text(self, key: &str, value: &str) -> Self {
        let mut line = self.key(key);
        line.0.push('"');
        for character in value.chars() {
            match character {
                '"' | '\\' => line.0.extend(['\\', character]),
                '\n' => line.0.push_str("\\n"),
                character if character < ' ' => line.0.push_str(&format!("\\u{:04x}", u32::from(character))),
                character => line.0.push(character),
            }
        }
        line.0.push('"');
        line
    }

    fn number(self, key: &str, value: u64) -> Self {
        let mut line = self.key(key);
        line.0.push_str(&value.to_string());
        line
    }

    fn operations(self, operations: &Operations) -> Self {
        self.number("erases", operations.erases)
            .number("programmed", operations.programmed)
            .number("read", operations.read)
    }

    fn summary(self, plan: &Summary) -> Self {
        self.number("blocks", plan.blocks)
            .number("kept", plan.kept)
            .number("to_erase", plan.erases)
            .number("to_program", plan.programs)
            .number("program_bytes_at_most", plan.program_bytes)
            .number("kept_bytes", plan.kept_bytes)
            .number("range_bytes", plan.bytes)
    }

    fn done(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

/// The first line.
pub(super) fn start(command: &[String]) -> String {
    Line::new("start")
        .number("version", VERSION)
        .text("program", concat!("flashcp ", env!("CARGO_PKG_VERSION")))
        .text("command", &command.join(" "))
        .done()
}

/// Which percent of a phase was told last.
#[derive(Debug, Default)]
pub(super) struct Told(Option<(Phase, u64, u64)>);

/// A piece of news; `None` if it is none: progress is told once for each percent.
pub(super) fn event(told: &mut Told, event: &Event) -> Option<String> {
    let line = match event {
        Event::Input { format, window, memory } => {
            Line::new("input").text("format", format).number("window", *window).number("memory", *memory)
        }
        Event::Plan(plan) => Line::new("plan").summary(plan),
        Event::Map(map) => return Some(picture(map)),
        Event::FirstChange => Line::new("changing"),
        Event::Progress { phase, done, total, operations } => {
            let percent = done.min(total).saturating_mul(100).checked_div(*total).unwrap_or(100);
            let news = Some((*phase, percent, *total));
            if told.0 == news {
                return None;
            }
            told.0 = news;
            let phase = match phase {
                Phase::Survey => "survey",
                Phase::Erase => "erase",
                Phase::Write => "write",
                Phase::Verify => "verify",
            };
            let line =
                Line::new("progress").text("phase", phase).number("done", *done).number("total", *total);
            line.operations(operations)
        }
        Event::Retry { offset, what } => {
            let what = match what {
                Retry::Reread => "reread",
                Retry::Rewrite => "rewrite",
            };
            Line::new("retry").number("offset", *offset).text("what", what)
        }
    };
    Some(line.done())
}

fn picture(map: &Map) -> String {
    let group = map.group(CHARACTERS);
    let line = Line::new("map").number("group", group as u64).text("blocks", &map.characters(group));
    match Part::typical(map.kind) {
        None => line.done(),
        Some(part) => {
            let milliseconds = u64::try_from(part.time(map).as_millis()).unwrap_or(u64::MAX);
            line.number("milliseconds", milliseconds).text("part", part.name).done()
        }
    }
}

fn locks(line: Line, locks: &Locks) -> Line {
    match locks {
        Locks::AsBefore => line,
        Locks::NotRestored { error } => line.text("locks_not_restored", error),
    }
}

/// One image's end, under the name of its event.
pub(super) fn report(event: &str, report: &Report, exit_code: u8) -> String {
    let line = Line::new(event)
        .number("exit_code", exit_code.into())
        .text("target", &report.target)
        .text("image", &report.image)
        .number("image_bytes", report.image_bytes)
        .text("sha256", &report.sha256);
    let line = match &report.outcome {
        Outcome::Written => line.text("outcome", "written"),
        Outcome::Unchanged => line.text("outcome", "unchanged"),
        Outcome::Possible => line.text("outcome", "possible"),
        Outcome::Equal => line.text("outcome", "equal"),
        Outcome::Differs { blocks, first } => line
            .text("outcome", "differs")
            .number("differing_blocks", *blocks)
            .number("first_difference", *first),
    };
    let line = line.summary(&report.plan).operations(&report.operations).number("retries", report.retries);
    let line = if report.ecc == Ecc::default() {
        line
    } else {
        line.number("ecc_corrected", report.ecc.corrected)
            .number("ecc_failed", report.ecc.failed)
            .number("ecc_refreshed_blocks", report.ecc.refreshed)
    };
    let line = locks(line, &report.locks);
    let line = match &report.unfinished {
        None => line,
        Some(earlier) => line.text("unfinished", &earlier.command).text("unfinished_device", &earlier.device),
    };
    let milliseconds = u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX);
    line.number("milliseconds", milliseconds).done()
}

/// The end of a plan of several images.
pub(super) fn end(exit_code: u8, images: usize) -> String {
    Line::new("end").number("exit_code", exit_code.into()).number("images", images as u64).done()
}

/// The end of a run that went wrong.
pub(super) fn failure(failure: &Failure, hints: &[&str]) -> String {
    let flash = match failure.flash {
        Flash::Untouched => "untouched",
        Flash::Unverified => "unverified",
    };
    let line = Line::new("failed")
        .number("exit_code", failure.exit_code().into())
        .text("flash", flash)
        .text("error", &failure.to_string());
    locks(line, &failure.locks).text("hint", &hints.join("\n")).done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Kind;
    use crate::error::Error;
    use crate::map::Mark;
    use crate::report::Unfinished;
    use std::time::Duration;

    fn parsed(line: &str) -> serde_json::Value {
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
        serde_json::from_str(line).unwrap()
    }

    fn told(news: &Event) -> serde_json::Value {
        parsed(&event(&mut Told::default(), news).unwrap())
    }

    #[test]
    fn the_first_line_has_the_version_and_any_text_is_one_line() {
        let command = ["flashcp", "a \"b\"\n\\\t\u{7f}é.bin", "mtd5"].map(str::to_owned);
        let line = parsed(&start(&command));
        assert_eq!((&line["event"], &line["version"]), (&"start".into(), &1.into()));
        assert_eq!(line["command"], "flashcp a \"b\"\n\\\t\u{7f}é.bin mtd5");
    }

    #[test]
    fn every_event_has_its_line() {
        let operations = Operations { erases: 3, programmed: 4, read: 5 };
        let progress = |done| Event::Progress { phase: Phase::Write, done, total: 1000, operations };
        assert_eq!(
            told(&progress(10)),
            serde_json::json!({"event": "progress", "phase": "write", "done": 10, "total": 1000,
                "erases": 3, "programmed": 4, "read": 5})
        );
        let mut once = Told::default();
        assert!(event(&mut once, &progress(10)).is_some());
        assert!(event(&mut once, &progress(19)).is_none());
        assert!(event(&mut once, &progress(20)).is_some());
        assert_eq!(
            told(&Event::Input { format: "xz", window: 8, memory: 9 }),
            serde_json::json!({"event": "input", "format": "xz", "window": 8, "memory": 9})
        );
        assert_eq!(told(&Event::FirstChange), serde_json::json!({"event": "changing"}));
        assert_eq!(
            told(&Event::Retry { offset: 7, what: Retry::Rewrite }),
            serde_json::json!({"event": "retry", "offset": 7, "what": "rewrite"})
        );
        assert_eq!(told(&Event::Plan(Summary { kept: 9, ..Summary::default() }))["kept"], 9);
        let blocks = vec![(0, 0x1_0000, Mark::Head), (0x1_0000, 0x1_0000, Mark::Keep)];
        let map = told(&Event::Map(Map { kind: Kind::SpiNor, blocks }));
        assert_eq!((&map["blocks"], &map["part"]), (&"H=".into(), &"W25Q128JV".into()));
        assert_eq!(map["milliseconds"], 268);
    }

    #[test]
    fn the_last_line_says_what_the_flash_holds() {
        let mut run = Report {
            outcome: Outcome::Differs { blocks: 2, first: 256 },
            locks: Locks::NotRestored { error: "EIO".to_owned() },
            unfinished: Some(Unfinished {
                device: "/dev/mtd1".to_owned(),
                name: "kernel".to_owned(),
                same_device: false,
                command: "flashcp a b".to_owned(),
            }),
            elapsed: Duration::from_millis(1290),
            ..Report::begun("mtd5 \"firmware\"".to_owned(), "fw.bin")
        };
        let line = parsed(&report("end", &run, 5));
        assert_eq!((&line["outcome"], &line["first_difference"]), (&"differs".into(), &256.into()));
        assert_eq!((&line["exit_code"], &line["milliseconds"]), (&5.into(), &1290.into()));
        assert_eq!(
            (&line["locks_not_restored"], &line["unfinished"]),
            (&"EIO".into(), &"flashcp a b".into())
        );
        assert_eq!(line["unfinished_device"], "/dev/mtd1");
        run.outcome = Outcome::Written;
        assert_eq!(parsed(&report("image", &run, 4))["outcome"], "written");
        let failed = Failure::unverified(Error::Protected { what: "erase", offset: 0 });
        let line = parsed(&failure(&failed, &["run it again"]));
        assert_eq!((&line["exit_code"], &line["flash"]), (&3.into(), &"unverified".into()));
        assert_eq!(parsed(&end(0, 2)), serde_json::json!({"event": "end", "exit_code": 0, "images": 2}));
    }
}
