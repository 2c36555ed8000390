//! The report as people read it: what was found from the init to the reboot, and the verdict last.

use std::fmt::{self, Display, Formatter};

use super::trial::{Outcome, Trial};
use super::{Connection, FlashReport, Login, Memory, Report, WatchdogReport};
use crate::budget::kib;
use crate::status::Reboot;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "init: {}", self.init.name)?;
        match (&self.init.by, &self.init.reason) {
            (Some(by), _) => writeln!(f, "hook: wired by {}", by.display())?,
            (None, Some(reason)) => writeln!(f, "hook: not wired: {reason}")?,
            (None, None) => writeln!(f, "hook: not known")?,
        }
        for step in &self.init.steps {
            writeln!(f, "arming would {step}")?;
        }
        match &self.staging {
            None => writeln!(f, "staging: not known")?,
            Some(s) => {
                writeln!(
                    f,
                    "staging: {} files, {} KiB; ssh host keys: {}",
                    s.files,
                    kib(s.bytes),
                    s.host_keys
                )?;
                writeln!(f, "services: {}", or_none(&s.services))?;
                s.connections.iter().try_for_each(|one| writeln!(f, "  {}", connection(one)))?;
                let logins: Vec<String> = s.logins.iter().map(login).collect();
                writeln!(f, "users who could log in: {}", or_none(&logins))?;
            }
        }
        self.programs(f)?;
        if let Some(memory) = &self.memory {
            memory.fmt(f)?;
        }
        self.flash.fmt(f)?;
        if self.watchdogs.is_empty() {
            writeln!(f, "watchdog: none is known to run")?;
        }
        self.watchdogs.iter().try_for_each(|watchdog| watchdog.fmt(f))?;
        match self.lease_ms {
            Some(ms) => writeln!(f, "lease: {} without a login, then back into this system", time(ms))?,
            None => writeln!(f, "lease: off: the maintenance root stays until somebody reboots it")?,
        }
        self.reboot(f)?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if self.works {
            return writeln!(f, "`levitate` would work");
        }
        writeln!(f, "`levitate` would not work:")?;
        self.reasons.iter().try_for_each(|reason| writeln!(f, "  - {reason}"))
    }
}

impl Report {
    fn programs(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.not_tried {
            return writeln!(f, "programs: not tried: {why}");
        }
        let count = |is: fn(&Outcome) -> bool| self.programs.iter().filter(|t| is(&t.outcome)).count();
        let able = count(|o| matches!(o, Outcome::Loads | Outcome::Links));
        writeln!(
            f,
            "programs: {able} of {} can be loaded in a copy of the staged root, {} of them with their libraries \
             (what they do when they run was not tried)",
            self.programs.len(),
            count(|o| *o == Outcome::Links)
        )?;
        for Trial { program, outcome } in &self.programs {
            match outcome {
                Outcome::Loads | Outcome::Links => {}
                Outcome::Fails { reason } => writeln!(f, "  {}: FAILS: {reason}", program.display())?,
                Outcome::NotTried { reason } => writeln!(f, "  {}: not tried: {reason}", program.display())?,
            }
        }
        Ok(())
    }

    fn reboot(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let does = |reboot| match reboot {
            Reboot::Normal => "a normal reboot",
            Reboot::Maintenance => "enters the maintenance root that is staged",
            Reboot::FailsAndReboots => "tries the hand-over, fails, and reboots into this system",
        };
        match self.reboot.now {
            None => return writeln!(f, "reboot: leaves the maintenance root"),
            Some(now) => writeln!(f, "reboot: now {}", does(now))?,
        }
        match self.reboot.after_levitate {
            Reboot::Maintenance => writeln!(f, "reboot: after `levitate` enters maintenance mode"),
            _ => Ok(()),
        }
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let grows =
            self.run_grows_to.map(|to| format!("; /run grows to {} KiB", kib(to))).unwrap_or_default();
        writeln!(
            f,
            "memory: {} KiB to stage, {} KiB for the image ({}), {} KiB to work in; {} KiB available: {}{grows}",
            kib(self.staged),
            kib(self.reserve),
            self.reserve_from,
            kib(self.working_set),
            kib(self.available),
            if self.fits { "fits" } else { "TOO LITTLE" }
        )
    }
}

impl Display for FlashReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.not_known {
            return writeln!(f, "flash: not known: {why}");
        }
        if self.in_use.is_empty() {
            writeln!(f, "flash: nothing uses it")?;
        }
        for one in &self.in_use {
            let mut by = one.by.clone();
            if one.processes > 0 {
                let s = if one.processes == 1 { "process" } else { "processes" };
                by.push(format!("in use by {} {s}", one.processes));
            }
            writeln!(f, "flash: {}: {}", one.partition, by.join("; "))?;
        }
        if self.hidden > 0 {
            writeln!(f, "flash: {} processes could not be looked into", self.hidden)?;
        }
        Ok(())
    }
}

impl Display for WatchdogReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let holders: Vec<String> = self.holders.iter().map(ToString::to_string).collect();
        let held =
            if holders.is_empty() { String::new() } else { format!(" (process {})", holders.join(", ")) };
        writeln!(f, "watchdog: {}{held}; the hand-over {}", self.device, self.handover)
    }
}

fn connection(one: &Connection) -> String {
    let by = one.controlled_by.iter().map(|name| format!("started and stopped by {name}"));
    let to = one.producer_for.iter().map(|name| format!("writes to {name}"));
    let from = (!one.consumer_for.is_empty()).then(|| format!("reads from {}", one.consumer_for.join(", ")));
    let all: Vec<String> = by.chain(to).chain(from).collect();
    format!("{}: {}", one.service, all.join("; "))
}

fn login(login: &Login) -> String {
    let keys = match login.keys {
        0 => None,
        1 => Some("1 key".to_owned()),
        n => Some(format!("{n} keys")),
    };
    let by: Vec<String> = keys.into_iter().chain(login.password.then(|| "password".to_owned())).collect();
    format!("{} ({})", login.user, by.join(", "))
}

fn time(ms: u64) -> String {
    match ms {
        _ if ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{} s", ms / 1_000),
        _ => format!("{ms} ms"),
    }
}

fn or_none(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
