//! Who needs whom, from PID 1's answer or from service directories: what every command computes with.

use std::collections::{BTreeMap, BTreeSet};

use crate::init::snapshot::Entry;
use crate::service::{Kind, ServiceSet};

/// Names.
pub(super) type Names = BTreeSet<String>;

/// A name that is not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) String);

/// Services and bundles.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// What each name stands for.
    members: BTreeMap<String, Names>,
    /// What each longrun and oneshot needs directly.
    needs: BTreeMap<String, Names>,
    needed_by: BTreeMap<String, Names>,
}

/// Which way to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To what is needed.
    Needs,
    /// To what needs it.
    NeededBy,
}

impl Graph {
    fn new(members: BTreeMap<String, Names>, needs: BTreeMap<String, Names>) -> Self {
        let mut needed_by: BTreeMap<String, Names> = BTreeMap::new();
        for (name, needs) in &needs {
            for need in needs {
                needed_by.entry(need.clone()).or_default().insert(name.clone());
            }
        }
        Self { members, needs, needed_by }
    }

    /// Of what PID 1 said.
    pub(super) fn of_entries(entries: &[Entry]) -> Self {
        let names = |list: &Vec<String>| list.iter().cloned().collect();
        let members = entries.iter().map(|entry| (entry.name.clone(), names(&entry.members))).collect();
        let atomic = entries.iter().filter(|entry| entry.kind != "bundle");
        Self::new(members, atomic.map(|entry| (entry.name.clone(), names(&entry.needs))).collect())
    }

    /// Of definitions.
    pub(super) fn of_set(set: &ServiceSet) -> Self {
        let members = set.iter().map(|service| (service.name.clone(), set.members(&service.name))).collect();
        let atomic = set.iter().filter(|service| !matches!(service.kind, Kind::Bundle { .. }));
        let needs = atomic.map(|service| (service.name.clone(), set.direct_dependencies(&service.name)));
        Self::new(members, needs.collect())
    }

    /// Longruns and oneshots.
    pub(super) fn atomics(&self) -> Names {
        self.needs.keys().cloned().collect()
    }

    /// What the names stand for.
    pub(super) fn resolve(&self, names: &[String]) -> Result<Names, Unknown> {
        let mut all = Names::new();
        for name in names {
            all.extend(self.members.get(name).ok_or_else(|| Unknown(name.clone()))?.iter().cloned());
        }
        Ok(all)
    }

    /// The neighbours of one.
    pub(super) fn direct(&self, name: &str, way: Way) -> Names {
        let edges = match way {
            Way::Needs => &self.needs,
            Way::NeededBy => &self.needed_by,
        };
        edges.get(name).cloned().unwrap_or_default()
    }

    /// These and all that can be reached from them.
    pub(super) fn closure(&self, names: &Names, way: Way) -> Names {
        let mut all = Names::new();
        let mut todo: Vec<String> = names.iter().cloned().collect();
        while let Some(name) = todo.pop() {
            if !all.contains(&name) {
                todo.extend(self.direct(&name, way));
                all.insert(name);
            }
        }
        all
    }

    /// `names` in an order in which none comes before what it needs (or, the other way, before what needs it).
    pub(super) fn ordered(&self, names: &Names, way: Way) -> Vec<String> {
        let (mut left, mut ordered) = (names.clone(), Vec::new());
        while let Some(next) = left
            .iter()
            .find(|name| self.direct(name, way).is_disjoint(&left))
            .or_else(|| left.first())
            .cloned()
        {
            left.remove(&next);
            ordered.push(next);
        }
        ordered
    }
}

impl Graph {
    /// Those of the closed set `names` from which all others are reached: PID 1 follows `way` by itself, and a request
    /// has room for some hundred names.
    pub(super) fn ends(&self, names: &Names, way: Way) -> Vec<String> {
        let back = match way {
            Way::Needs => Way::NeededBy,
            Way::NeededBy => Way::Needs,
        };
        names.iter().filter(|name| self.direct(name, back).is_disjoint(names)).cloned().collect()
    }
}

/// What of `candidates` can go up although some controlled services are down: a service that needs one of `closed`
/// (controlled services that are down) is left alone.
pub(super) fn below_none_of(graph: &Graph, candidates: &Names, closed: &Names) -> Names {
    let is_open = |name: &&String| graph.closure(&[(*name).clone()].into(), Way::Needs).is_disjoint(closed);
    candidates.iter().filter(is_open).cloned().collect()
}
