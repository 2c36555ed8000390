//! Asking PID 1.

use std::io;

use super::graph::{Graph, Unknown};
use super::{Context, SYSTEM};
use crate::init::client::{ask_lines, explain};
use crate::init::control::{Order, Request};
use crate::init::snapshot::Entry;

/// What PID 1 knows of its services.
pub(super) struct Live {
    pub(super) entries: Vec<Entry>,
    pub(super) graph: Graph,
}

impl Live {
    /// The entry of a service.
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// True if the service is up.
    pub(super) fn is_up(&self, name: &str) -> bool {
        self.get(name).is_some_and(|entry| entry.state == "up")
    }
}

impl Context<'_> {
    /// Asks for everything.
    ///
    /// # Errors
    /// The exit code, its reason told.
    pub(super) fn live(&mut self) -> Result<Live, u8> {
        let mut entries: Vec<Entry> = Vec::new();
        let asked = ask_lines(&self.socket, &Request::Services, None, &mut |line| {
            if !line.is_empty() {
                entries.push(serde_json::from_slice(line)?);
            }
            Ok(())
        });
        match asked {
            Ok(0) => Ok(Live { graph: Graph::of_entries(&entries), entries }),
            Ok(code) => Err(self.fatal(SYSTEM, &format!("process 1 answered {code}"))),
            Err(error) => Err(self.cannot_ask(&error)),
        }
    }

    fn cannot_ask(&mut self, error: &io::Error) -> u8 {
        let why = explain(&self.socket, error);
        self.fatal(SYSTEM, &why)
    }

    /// Gives an order and shows what is told of it: from verbosity 1 on what went wrong, from 2 on everything. The
    /// answer is PID 1's exit code.
    pub(super) fn order(&mut self, order: Order, verbosity: u32) -> u8 {
        let (name, err) = (self.name, &mut *self.err);
        let asked = ask_lines(&self.socket, &Request::Order(order), None, &mut |line| {
            let line = String::from_utf8_lossy(line);
            let (least, level, text) = match line.split_once(' ') {
                Some(("info", text)) => (2, "info", text),
                Some(("warning", text)) => (1, "warning", text),
                _ => (0, "fatal", &*line),
            };
            if verbosity >= least {
                let _ = writeln!(err, "{name}: {level}: {text}");
            }
            Ok(())
        });
        asked.unwrap_or_else(|error| self.cannot_ask(&error))
    }

    /// Tells of a name that is not there.
    pub(super) fn unknown(&mut self, Unknown(name): &Unknown) -> u8 {
        self.fatal(3, &format!("there is no service named {name} (s6-rc-db list all names them)"))
    }
}
