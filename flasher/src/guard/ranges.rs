//! Which partitions share bytes of a chip.

use std::fmt;
use std::ops::Range;

use super::facts::MtdFacts;

/// How another partition lies to the range that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It is the target itself.
    Same,
    /// It holds all of the target.
    Parent,
    /// It lies inside the target.
    Child,
    /// It shares some of its bytes with the target.
    Overlaps,
    /// The kernel does not tell enough; it counts as an overlap, because a missed one destroys a system and a false
    /// one names itself and can be overridden.
    MayOverlap,
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "the target itself",
            Self::Parent => "contains the target",
            Self::Child => "lies inside the target",
            Self::Overlaps => "overlaps the target",
            Self::MayOverlap => "may overlap the target",
        })
    }
}

/// How `other` lies to `range` of `target` (bytes from the target's start); `None` if they share nothing.
///
/// The target itself is related whatever the range: who uses a partition does not say which of its bytes.
#[must_use]
pub fn relation(target: &MtdFacts, range: &Range<u64>, other: &MtdFacts) -> Option<Relation> {
    if target.number == other.number {
        return Some(Relation::Same);
    }
    match (&target.chip, &other.chip) {
        (Some(ours), Some(theirs)) if ours != theirs => return None,
        // Concatenated banks have no chip. Flash of different kinds is never one chip all the same.
        (None, _) | (_, None)
            if !target.kind.is_empty() && !other.kind.is_empty() && target.kind != other.kind =>
        {
            return None;
        }
        // Offsets on a chip that is known and on one that is not do not compare.
        (Some(_), None) | (None, Some(_)) => return Some(Relation::MayOverlap),
        _ => {}
    }
    let (Some(base), Some(start)) = (target.start, other.start) else {
        return Some(Relation::MayOverlap);
    };
    let (from, to) = (base.saturating_add(range.start), base.saturating_add(range.end));
    let end = start.saturating_add(other.size);
    if to <= start || end <= from || from == to {
        return None;
    }
    // Named by the partitions, not by the range: that is what the user knows.
    let target_end = base.saturating_add(target.size);
    Some(match () {
        () if start <= base && target_end <= end => Relation::Parent,
        () if base <= start && end <= target_end => Relation::Child,
        () => Relation::Overlaps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mtd(number: u32, chip: Option<&str>, start: u64, size: u64) -> MtdFacts {
        MtdFacts {
            number,
            name: format!("p{number}"),
            kind: "nor".to_owned(),
            size,
            erase_size: 0x1000,
            writeable: true,
            spi_nor: false,
            chip: chip.map(str::to_owned),
            start: Some(start),
        }
    }

    #[test]
    fn the_range_decides_and_the_partitions_give_the_name() {
        let firmware = mtd(0, Some("a"), 0x1000, 0x8000);
        let whole = 0..0x8000;
        assert_eq!(relation(&firmware, &whole, &firmware), Some(Relation::Same));
        assert_eq!(relation(&firmware, &whole, &mtd(1, Some("a"), 0, 0x10000)), Some(Relation::Parent));
        assert_eq!(relation(&firmware, &whole, &mtd(1, Some("a"), 0x1000, 0x2000)), Some(Relation::Child));
        assert_eq!(relation(&firmware, &whole, &mtd(1, Some("a"), 0x8000, 0x2000)), Some(Relation::Overlaps));
        assert_eq!(relation(&firmware, &whole, &mtd(1, Some("a"), 0x9000, 0x2000)), None);
        assert_eq!(relation(&firmware, &whole, &mtd(1, Some("a"), 0, 0x1000)), None);
        // An image that ends before a sibling does not touch it.
        assert_eq!(relation(&firmware, &(0..0x2000), &mtd(1, Some("a"), 0x3000, 0x2000)), None);
    }

    #[test]
    fn partitions_of_two_chips_never_overlap() {
        assert_eq!(
            relation(&mtd(0, Some("a"), 0, 0x8000), &(0..0x8000), &mtd(1, Some("b"), 0, 0x8000)),
            None
        );
    }

    #[test]
    fn what_the_kernel_does_not_tell_counts_as_an_overlap() {
        let range = 0..0x1000;
        let unknown = mtd(0, None, 0, 0x1000);
        assert_eq!(relation(&unknown, &range, &mtd(1, None, 0x1000, 0x1000)), None);
        assert_eq!(relation(&unknown, &range, &mtd(1, None, 0, 0x4000)), Some(Relation::Parent));
        assert_eq!(
            relation(&unknown, &range, &mtd(1, Some("a"), 0x9000, 0x1000)),
            Some(Relation::MayOverlap)
        );
        let unplaced = MtdFacts { start: None, ..unknown.clone() };
        assert_eq!(relation(&unplaced, &range, &mtd(1, None, 0x9000, 0x1000)), Some(Relation::MayOverlap));
        let ram = MtdFacts { kind: "ram".to_owned(), ..unknown };
        assert_eq!(relation(&ram, &range, &mtd(1, Some("a"), 0, 0x1000)), None);
    }
}
