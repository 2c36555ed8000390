//! All that PID 1 knows of its services at one moment, for the programs that ask: one JSON object a line.

use serde::{Deserialize, Serialize};

use super::control::state_word;
use super::supervisor::{Outcome, Phase, Status};
use crate::service::{Kind, Service, ServiceSet};

/// One service or bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// `longrun`, `oneshot` or `bundle`.
    pub kind: String,
    /// up, starting, stopping, waiting, failed or down; empty for a bundle.
    pub state: String,
    /// True if it shall be up.
    pub wanted: bool,
    /// True if it is in the default set: it is started at boot.
    pub at_boot: bool,
    /// Its process, if one runs.
    pub pid: Option<i32>,
    /// Seconds in that state.
    pub seconds: u64,
    /// How often its process was started again.
    pub restarts: u32,
    /// How its process ended the last time: its exit code.
    pub exit_code: Option<i32>,
    /// Or the signal that ended it.
    pub signal: Option<i32>,
    /// True if it says by itself when it is ready.
    pub notifies: bool,
    /// Why it is marked down, if it is.
    pub failure: Option<String>,
    /// Longruns and oneshots that it needs directly, bundles expanded; a bundle: what its members need.
    pub needs: Vec<String>,
    /// A bundle's longruns and oneshots; any other: itself.
    pub members: Vec<String>,
    /// Who starts and stops it, if not people.
    pub controlled_by: Option<String>,
}

/// The entry of `service` at the time `now` (milliseconds); `at_boot` are the services of the default set.
#[must_use]
pub fn entry(
    set: &ServiceSet,
    service: &Service,
    status: Option<&Status>,
    at_boot: &[String],
    now: u64,
) -> Entry {
    let members: Vec<String> = set.members(&service.name).into_iter().collect();
    let mut needs: Vec<String> = members.iter().flat_map(|member| set.direct_dependencies(member)).collect();
    needs.sort();
    needs.dedup();
    let mut entry = Entry {
        name: service.name.clone(),
        kind: service.type_word().to_owned(),
        at_boot: members.iter().all(|member| at_boot.contains(member)),
        notifies: matches!(service.kind, Kind::Longrun { notification_fd: Some(_), .. }),
        needs,
        members,
        controlled_by: service.controlled_by.clone(),
        ..Entry::default()
    };
    if let Some(status) = status {
        entry.state = state_word(status).to_owned();
        entry.wanted = status.wanted;
        entry.pid = status.pid.filter(|_| status.phase != Phase::Down);
        entry.seconds = now.saturating_sub(status.since) / 1000;
        entry.restarts = status.restarts;
        entry.failure = status.failure.as_ref().map(ToString::to_string);
        match status.last {
            Some(Outcome::Code(code)) => entry.exit_code = Some(code),
            Some(Outcome::Signal(signal)) => entry.signal = Some(signal),
            None => {}
        }
    }
    entry
}
