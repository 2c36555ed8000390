//! What a controller says to PID 1.

use std::path::Path;

use super::{Failure, say};
use crate::init::client::{ask_lines, explain};
use crate::init::control::{Change, Order, Request, Wait};
use crate::init::snapshot::Entry;

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// As ordered.
    Yes,
    /// It was refused or did not work, as PID 1 said.
    No,
}

/// Gives an order as a controller, and logs what went wrong on the way.
///
/// # Errors
/// An unknown name (usage), or a PID 1 that does not answer.
pub(super) fn order(socket: &Path, change: Change, wait: Wait, names: &[String]) -> Result<Done, Failure> {
    let order = Order { change, wait, by_controller: true, names: names.to_vec() };
    let mut last = String::new();
    let code = ask_lines(socket, &Request::Order(order), None, &mut |line| {
        let line = String::from_utf8_lossy(line).into_owned();
        if !line.starts_with("info ") {
            say(line.strip_prefix("warning ").unwrap_or(&line));
        }
        last = line;
        Ok(())
    });
    match code {
        Ok(0) => Ok(Done::Yes),
        Ok(3) => Err(Failure::Usage(last)),
        Ok(_) => Ok(Done::No),
        Err(error) => Err(Failure::System(explain(socket, &error))),
    }
}

/// What PID 1 knows of its services.
///
/// # Errors
/// A PID 1 that does not answer.
pub(super) fn entries(socket: &Path) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    let asked = ask_lines(socket, &Request::Services, None, &mut |line| {
        if !line.is_empty() {
            entries.push(serde_json::from_slice(line)?);
        }
        Ok(())
    });
    match asked {
        Ok(_) => Ok(entries),
        Err(error) => Err(Failure::System(explain(socket, &error))),
    }
}
