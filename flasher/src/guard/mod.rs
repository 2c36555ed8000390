//! Whether these bytes of the chip may be written: not while something still uses them.
//!
//! [`facts`] reads the system (below a root path, so that captured trees serve as well), [`ranges`] tells which
//! partitions share bytes, [`users`] says who uses what; the decision is [`judge`], a pure function of the three.

use std::fmt;
use std::ops::Range;

pub mod facts;

pub mod ranges;

pub mod users;

mod mounts;
mod processes;
mod stayed;

pub use facts::{Facts, FactsError, MtdFacts};
pub use mounts::{MountEntry, mounts_of};
pub use ranges::Relation;
pub use users::{Holder, Use, User};

/// One reason why a range must not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who uses it.
    pub user: User,
    /// How the partition it uses lies to the target.
    pub relation: Relation,
}

/// The verdict on a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Everyone who uses bytes of the range.
    pub conflicts: Vec<Conflict>,
    /// The kernel does not say where the partitions lie on their chips, and there are others: anything may overlap.
    pub unplaced: bool,
    /// Processes that could not be looked into, for want of privilege.
    pub hidden: usize,
    /// Why the hand-over's report, which is there, does not tell what it left behind.
    pub unread: Option<String>,
}

impl Verdict {
    /// Whether nothing speaks against it.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.conflicts.is_empty() && !self.unplaced && self.hidden == 0 && self.unread.is_none()
    }
}

/// Everything that speaks against writing `range` (bytes from the start of mtd`number`).
#[must_use]
pub fn judge(facts: &Facts, number: u32, range: &Range<u64>) -> Verdict {
    let Some(target) = facts.mtd(number) else {
        let unread = facts.unread().map(str::to_owned);
        return Verdict { unplaced: true, hidden: facts.hidden(), unread, ..Verdict::default() };
    };
    let related: Vec<(u32, Relation)> = facts
        .mtds()
        .iter()
        .filter_map(|other| ranges::relation(target, range, other).map(|relation| (other.number, relation)))
        .collect();
    // Of what lies on flash that nobody can tell, the target may be a part.
    let anywhere = facts.anywhere().iter().map(|how| Conflict {
        user: User { mtd: target.number, name: target.name.clone(), how: how.clone() },
        relation: Relation::MayOverlap,
    });
    let conflicts = facts
        .users()
        .into_iter()
        .filter_map(|user| {
            let (_, relation) = *related.iter().find(|(number, _)| *number == user.mtd)?;
            Some(Conflict { user, relation })
        })
        .chain(anywhere)
        .collect();
    Verdict {
        conflicts,
        unplaced: target.start.is_none() && facts.mtds().len() > 1,
        hidden: facts.hidden(),
        unread: facts.unread().map(str::to_owned),
    }
}

/// At most this many processes of one partition are named.
const NAMED: usize = 5;

/// One line per mount, swap, thread and the like, and per partition the first processes; each line names partition
/// and overlap.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<String> = Vec::new();
        let mut processes: Vec<(u32, Relation, Vec<String>)> = Vec::new();
        for Conflict { user, relation } in &self.conflicts {
            match &user.how {
                Use::Process { .. } | Use::Open { .. } => {
                    match processes.iter_mut().find(|(number, ..)| *number == user.mtd) {
                        Some((.., list)) => list.push(user.how.to_string()),
                        None => processes.push((user.mtd, *relation, vec![user.how.to_string()])),
                    }
                }
                how => lines.push(format!("{} ({relation}): {how}", user.partition())),
            }
        }
        for (number, relation, list) in processes {
            let name = self.conflicts.iter().find(|conflict| conflict.user.mtd == number);
            let name = name.map_or_else(String::new, |conflict| conflict.user.partition());
            let more = list.len().saturating_sub(NAMED);
            let mut text = list.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
            if more > 0 {
                text.push_str(&format!("; and {more} more"));
            }
            lines.push(format!("{name} ({relation}): {text}"));
        }
        if self.unplaced {
            lines.push(
                "the kernel does not say where its flash partitions lie (no `offset` in /sys/class/mtd): any of them \
                 may overlap"
                    .to_owned(),
            );
        }
        if self.hidden > 0 {
            lines.push(format!("{} processes could not be looked into: permission denied", self.hidden));
        }
        if let Some(why) = &self.unread {
            lines.push(format!("what the old system left in use is not known: {why}"));
        }
        f.write_str(&lines.join("\n"))
    }
}
