//! The status as people read it.

use std::fmt::{self, Display, Formatter};

use super::{Last, Leaving, Maintenance, Old, Reboot, Staged, Status};
use crate::budget::kib;
use crate::handover::report::Report;
use crate::when::utc;

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Old(old) => old.fmt(f),
            Self::Maintenance(maintenance) => maintenance.fmt(f),
        }
    }
}

impl Display for Old {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "init: {}", self.init)?;
        match &self.staged {
            Staged::Nothing => writeln!(f, "staged: nothing")?,
            Staged::Damaged { reason } => {
                writeln!(f, "staged: a maintenance root that cannot be entered: {reason}")?;
            }
            Staged::Whole { manifest: m } => {
                writeln!(f, "staged: {} files, {} KiB, at {}", m.files, kib(m.bytes), utc(m.staged_at))?;
                writeln!(f, "  services: {}", list(&m.services))?;
                writeln!(f, "  users who can log in: {}", list(&m.users))?;
            }
        }
        match (self.reboot, &self.not_wired) {
            (Reboot::Maintenance, _) => {
                writeln!(f, "reboot: enters maintenance mode; `levitate abort` undoes this")?;
            }
            (Reboot::FailsAndReboots, _) => writeln!(
                f,
                "reboot: the hand-over will fail and reboot into this system; run `levitate` again, or `levitate abort`"
            )?,
            (Reboot::Normal, Some(reason)) => {
                writeln!(f, "reboot: a normal reboot; `levitate` would be refused: {reason}")?;
            }
            (Reboot::Normal, None) => {
                writeln!(f, "reboot: a normal reboot; `levitate` prepares maintenance mode")?;
            }
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        self.last.fmt(f)
    }
}

impl Display for Last {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRecorded => writeln!(f, "last hand-over: not recorded (no state_file is configured)"),
            Self::Unreadable { reason } => writeln!(f, "last hand-over: not known: {reason}"),
            Self::None => writeln!(f, "last hand-over: none is recorded"),
            Self::ToCome => Ok(()),
            Self::NeverEntered { staged_at } => writeln!(
                f,
                "last hand-over: the maintenance root staged at {} was never entered: \
                 reboot did not reach the hand-over, or the power was lost before",
                utc(*staged_at)
            ),
            Self::CutOff { stage, at } => writeln!(
                f,
                "last hand-over was cut off at stage \"{stage}\" ({}): the power was lost, or the board hung and was reset",
                utc(*at)
            ),
            Self::Left { at } => writeln!(
                f,
                "last hand-over left this system at {}; what came after is not recorded here",
                utc(*at)
            ),
            Self::Failed { stage, reason, at } => {
                writeln!(f, "last hand-over failed at stage \"{stage}\": {reason} ({})", utc(*at))
            }
        }
    }
}

impl Maintenance {
    fn entered(h: &Report, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "maintenance mode since {} (the hand-over took {} ms)",
            utc(h.handed_over_at),
            h.total_ms
        )?;
        writeln!(f, "unmounted: {}", list(&h.unmounted))?;
        for mount in &h.still_mounted {
            let how = if mount.read_only { "read-only" } else { "writable" };
            writeln!(
                f,
                "STILL MOUNTED: {} ({} on {}, {how}): {}",
                mount.path, mount.fstype, mount.source, mount.reason
            )?;
        }
        for survivor in &h.survivors {
            writeln!(
                f,
                "still alive: process {} \"{}\", state {}",
                survivor.pid, survivor.name, survivor.state
            )?;
        }
        for note in &h.notes {
            writeln!(f, "note: {note}")?;
        }
        for watchdog in &h.watchdogs {
            let timeout = watchdog.timeout_s.map(|s| format!(", {s} s")).unwrap_or_default();
            writeln!(f, "watchdog: {}{timeout}", watchdog.device)?;
        }
        Ok(())
    }
}

impl Display for Maintenance {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.handover {
            Some(handover) => Self::entered(handover, f)?,
            None => {
                let since = utc(self.booted_at.unwrap_or_default());
                writeln!(f, "maintenance mode since {since} (booted as an initramfs, without a hand-over)")?;
            }
        }
        writeln!(f, "services: {}", list(&self.manifest.services))?;
        match (&self.flash, &self.reboot) {
            (None, Leaving::Leaves) => writeln!(f, "flash: not touched by flashcp since then")?,
            (None, _) => writeln!(f, "flash: not known")?,
            (Some(flash), _) => writeln!(f, "flash: {}", flash_line(flash, self.writer_is_gone))?,
        }
        writeln!(f, "{}", self.lease)?;
        self.reboot.fmt(f)
    }
}

impl Display for Leaving {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaves => writeln!(f, "reboot: leaves maintenance mode"),
            Self::Waits { writer } => {
                writeln!(f, "reboot: waits, because flash is being changed by {writer} (-f overrides)")
            }
            Self::Refuses { reason } => {
                let mut lines = reason.iter();
                writeln!(f, "reboot: refuses: {}", lines.next().map_or("", String::as_str))?;
                lines.try_for_each(|line| writeln!(f, "{line}"))
            }
        }
    }
}

/// One line of flashcp's record: its state, where, and what it said.
fn flash_line(flash: &serde_json::Value, writer_is_gone: bool) -> String {
    let text = |key: &str| flash.get(key).and_then(serde_json::Value::as_str);
    let mut line = text("state").unwrap_or("not known").to_owned();
    if writer_is_gone {
        line.push_str(" (its writer is gone)");
    }
    if let Some(device) = text("device") {
        line.push_str(&format!(", {device}"));
    }
    if let Some(name) = text("name") {
        line.push_str(&format!(" \"{name}\""));
    }
    if let Some(image) = text("image") {
        line.push_str(&format!(", from {image}"));
    }
    let number = |key: &str| flash.get(key).and_then(serde_json::Value::as_u64);
    if let (Some("changing"), Some(done), Some(total)) =
        (text("state"), number("bytes_done"), number("bytes_total"))
    {
        line.push_str(&format!(", {} of {} KiB", kib(done), kib(total)));
    }
    if let Some(at) = number("finished") {
        line.push_str(&format!(", at {}", utc(at)));
    }
    if let Some(error) = text("error") {
        line.push_str(&format!(": {error}"));
    }
    line
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
