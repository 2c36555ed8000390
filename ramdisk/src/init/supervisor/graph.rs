//! Names, needs, and what follows from them.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Phase, Process, Spec, Supervisor, Unit, Want};
use crate::service::{Kind, ServiceSet};

/// A name that neither a service nor a bundle has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no service named {0}")]
pub struct UnknownService(pub String);

pub(super) fn build(set: &ServiceSet) -> Supervisor {
    let mut units: Vec<Unit> = Vec::new();
    let mut index = BTreeMap::new();
    for service in set.iter() {
        let spec = match &service.kind {
            Kind::Longrun { finish, notification_fd, down_signal, timeout_kill, .. } => Spec::Longrun {
                notifies: notification_fd.is_some(),
                has_finish: finish.is_some(),
                down_signal: *down_signal,
                timeout_kill: *timeout_kill,
            },
            Kind::Oneshot { up, down } => Spec::Oneshot { has_up: up.is_some(), has_down: down.is_some() },
            Kind::Bundle { .. } => continue,
        };
        index.insert(service.name.clone(), units.len());
        units.push(Unit {
            name: service.name.clone(),
            spec,
            timeout_up: service.timeout_up,
            timeout_down: service.timeout_down,
            needs: Vec::new(),
            needed_by: Vec::new(),
            want: Want::Down,
            phase: Phase::Down,
            process: Process::None,
            up_by: None,
            kill_at: None,
            retry_at: None,
            tries: 0,
            last_start: None,
            since: 0,
            restarts: 0,
            last: None,
            failure: None,
            finished: false,
            once: false,
        });
    }
    let find = |name: &String| index.get(name).copied();
    let needs: Vec<Vec<usize>> = units
        .iter()
        .map(|unit| set.direct_dependencies(&unit.name).iter().filter_map(find).collect())
        .collect();
    for (unit, needs) in needs.into_iter().enumerate() {
        for need in &needs {
            if let Some(other) = units.get_mut(*need) {
                other.needed_by.push(unit);
            }
        }
        if let Some(unit) = units.get_mut(unit) {
            unit.needs = needs;
        }
    }
    let names = set
        .iter()
        .map(|service| {
            let members = set.members(&service.name).iter().filter_map(find).collect();
            (service.name.clone(), members)
        })
        .collect();
    Supervisor { units, names }
}

impl Supervisor {
    /// `names` and all that they need. Unknown names stand for nothing.
    pub(super) fn with_needs(&self, names: &[String]) -> Vec<usize> {
        self.closure(names, |unit| &unit.needs)
    }

    /// What the names stand for, without anything that they need.
    pub(super) fn named(&self, names: &[String]) -> Vec<usize> {
        names.iter().filter_map(|name| self.names.get(name)).flatten().copied().collect()
    }

    /// `names` and all that needs them.
    pub(super) fn with_needing(&self, names: &[String]) -> Vec<usize> {
        self.closure(names, |unit| &unit.needed_by)
    }

    fn closure(&self, names: &[String], edges: impl Fn(&Unit) -> &Vec<usize>) -> Vec<usize> {
        let mut seen = vec![false; self.units.len()];
        let mut todo = self.named(names);
        let mut all = Vec::new();
        while let Some(id) = todo.pop() {
            let (Some(seen), Some(unit)) = (seen.get_mut(id), self.units.get(id)) else { continue };
            if !*seen {
                *seen = true;
                all.push(id);
                todo.extend(edges(unit));
            }
        }
        all
    }

    /// True if all that the unit needs is up and shall stay up.
    pub(super) fn needs_are_up(&self, unit: &Unit) -> bool {
        unit.needs.iter().all(|id| {
            self.units.get(*id).is_some_and(|need| need.phase == Phase::Up && need.want == Want::Up)
        })
    }

    /// True if all that needs the unit is down.
    pub(super) fn needing_are_down(&self, unit: &Unit) -> bool {
        unit.needed_by.iter().all(|id| self.units.get(*id).is_some_and(|other| other.phase == Phase::Down))
    }

    /// The names of all that has to be up for `names`, themselves included.
    #[must_use]
    pub fn names_with_needs(&self, names: &[String]) -> Vec<String> {
        self.names_of(self.with_needs(names))
    }

    /// The names of all that has to be down for `names` to be down, themselves included.
    #[must_use]
    pub fn names_with_needing(&self, names: &[String]) -> Vec<String> {
        self.names_of(self.with_needing(names))
    }

    fn names_of(&self, ids: Vec<usize>) -> Vec<String> {
        ids.into_iter().filter_map(|id| self.units.get(id)).map(|unit| unit.name.clone()).collect()
    }

    /// Checks that every name is a service's or a bundle's.
    ///
    /// # Errors
    /// The first name that is not.
    pub fn check_names(&self, names: &[String]) -> Result<(), UnknownService> {
        match names.iter().find(|name| !self.knows(name)) {
            Some(name) => Err(UnknownService(name.clone())),
            None => Ok(()),
        }
    }
}
