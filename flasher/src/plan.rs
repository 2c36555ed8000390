//! The plan of a run: one small step per erase block, and what happens to the head. Pure data from a pure function.

use std::ops::Range;

use crate::decide::Want;
use crate::decide::{Rules, Step, decide};
use crate::device::{EraseBlock, Geometry};
use crate::options::Head;
use crate::survey::Survey;

/// How the old head is made invalid before any other block is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// Not at all: nothing changes, the user wants it so, or only the head changes by clearing bits.
    None,
    /// It is invalid already: it reads 0xff.
    Blank,
    /// The first block is erased.
    Erase,
    /// Its first granule is programmed to zero and read back, then the block is erased: some NOR fills a block with
    /// zeros from its *end* before it erases, so that a cut would leave a valid-looking head over a ruined tail.
    ZeroThenErase,
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The bytes of the device that will equal the image (padded with 0xff); whole erase blocks.
    pub range: Range<u64>,
    /// The image's size in bytes.
    pub image_size: u64,
    /// How many bytes from the range's start are completed last; whole granules. 0 with `--head=keep`.
    pub head_size: u64,
    /// What happens to the old head first.
    pub invalidation: Invalidation,
    /// One step for each block of the range, ascending.
    pub steps: Vec<Step>,
}

/// What a plan amounts to. Blocks are counted, the rest is in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Erase blocks in the range.
    pub blocks: u64,
    /// Blocks that stay as they are.
    pub kept: u64,
    /// Blocks that are erased.
    pub erases: u64,
    /// Blocks in which something is programmed.
    pub programs: u64,
    /// Bytes of the blocks in which something is programmed; what is 0xff in them is left out when it is done.
    pub program_bytes: u64,
    /// Bytes that stay as they are.
    pub kept_bytes: u64,
    /// Bytes in the range.
    pub bytes: u64,
}

impl Plan {
    /// Each block with its step.
    pub fn blocks<'a>(&'a self, geometry: &'a Geometry) -> impl Iterator<Item = (EraseBlock, Step)> + 'a {
        geometry.blocks(self.range.clone()).zip(self.steps.iter().copied())
    }

    /// Whether the flash holds the image already.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.steps.iter().all(|step| *step == Step::Keep)
    }

    /// The totals.
    #[must_use]
    pub fn summary(&self, geometry: &Geometry) -> Summary {
        let mut sum = Summary::default();
        for (block, step) in self.blocks(geometry) {
            sum.blocks += 1;
            sum.bytes += block.len;
            sum.erases += u64::from(step.erases());
            if step == Step::Keep {
                sum.kept += 1;
                sum.kept_bytes += block.len;
            }
            if step.programs() {
                sum.programs += 1;
                sum.program_bytes += block.len;
            }
        }
        sum
    }
}

/// Makes the plan. `head_size` is what the user said, in bytes; `None` is the first erase block.
#[must_use]
pub fn plan(
    geometry: &Geometry,
    survey: &Survey,
    rules: Rules,
    range: Range<u64>,
    image_size: u64,
    head: Head,
    head_size: Option<u64>,
) -> Plan {
    let mut steps: Vec<Step> = survey.findings.iter().map(|found| decide(*found, rules)).collect();
    let first = geometry.block_at(range.start);
    let head_size = match head {
        Head::Keep => 0,
        Head::Auto => {
            let wanted = head_size.unwrap_or(first.len).max(1);
            wanted.next_multiple_of(geometry.granule()).min(range.end - range.start)
        }
    };
    let wants_blank = survey.findings.first().is_some_and(|found| found.want == Want::Blank);
    let mut invalidation = Invalidation::None;
    if let (Head::Auto, Some((head, others))) = (head, steps.split_first_mut()) {
        let others_change = others.iter().any(|step| *step != Step::Keep);
        if others_change {
            // An old head that is valid would stand over a body that is not its own.
            *head = match *head {
                // It is blank, and shall be.
                Step::Keep if wants_blank => Step::Keep,
                Step::Keep | Step::Clear => Step::EraseProgram,
                step => step,
            };
        }
        invalidation = match *head {
            Step::Keep if others_change => Invalidation::Blank,
            Step::Program => Invalidation::Blank,
            Step::Keep | Step::Clear => Invalidation::None,
            Step::Erase | Step::EraseProgram if rules.clear_in_place => Invalidation::ZeroThenErase,
            Step::Erase | Step::EraseProgram => Invalidation::Erase,
        };
    }
    Plan { range, image_size, head_size, invalidation, steps }
}

/// How many bytes may be erased by one call so that it takes about a second at most, in bytes; always at least one
/// block. Typical times from data sheets: 45 ms for 4 KiB and 150 to 250 ms for 64 KiB of serial NOR, 0.5 to 0.8 s
/// for 128 to 256 KiB of parallel NOR; a straight line through them is 30 ms and 3 ms per KiB.
#[must_use]
pub fn erase_at_once(block: u64) -> u64 {
    let milliseconds = 30 + block / 1024 * 3;
    block * (1000 / milliseconds.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::decide::{Blank, Finding, Have};
    use crate::device::Kind;
    use crate::options::Extent;

    const BLOCK: u64 = 0x1000;

    fn geometry() -> Geometry {
        Geometry {
            kind: Kind::SpiNor,
            size: 16 * BLOCK,
            erase_size: BLOCK,
            write_size: 1,
            bit_writeable: true,
            writeable: true,
            regions: Vec::new(),
        }
    }

    fn planned(have: &[Have], clear_in_place: bool, head: Head, head_size: Option<u64>) -> Plan {
        let findings: Vec<_> = have.iter().map(|have| Finding { have: *have, want: Want::Data }).collect();
        let end = findings.len() as u64 * BLOCK;
        let survey = Survey {
            findings,
            head: [0; Content::MAGIC],
            image_head: [0; Content::MAGIC],
            interrupted: false,
            image_sha256: String::new(),
            read: 0,
            corrected: 0,
        };
        let rules = Rules { blank: Blank::Trusted, clear_in_place, extent: Extent::Differing };
        plan(&geometry(), &survey, rules, 0..end, end - 5, head, head_size)
    }

    use Have::{Blank as B, MustErase as E, OnlyClears as C, Same as S};
    use Step::{Clear, EraseProgram, Keep, Program};

    #[test]
    fn a_head_that_stays_is_rewritten_when_the_body_changes() {
        let plan = planned(&[S, S, E], false, Head::Auto, None);
        assert_eq!(plan.steps, [EraseProgram, Keep, EraseProgram]);
        assert_eq!((plan.invalidation, plan.head_size), (Invalidation::Erase, BLOCK));
        let plan = planned(&[C, B, S], true, Head::Auto, Some(20));
        assert_eq!(plan.steps, [EraseProgram, Program, Keep]);
        assert_eq!((plan.invalidation, plan.head_size), (Invalidation::ZeroThenErase, 32));
    }

    #[test]
    fn a_blank_head_is_invalid_already() {
        let plan = planned(&[B, B], false, Head::Auto, None);
        assert_eq!(
            (plan.steps.as_slice(), plan.invalidation),
            ([Program, Program].as_slice(), Invalidation::Blank)
        );
    }

    #[test]
    fn where_nothing_differs_nothing_is_planned() {
        let plan = planned(&[S, S], true, Head::Auto, None);
        assert!(plan.is_done());
        assert_eq!(plan.invalidation, Invalidation::None);
    }

    #[test]
    fn a_head_that_changes_alone_is_not_erased_for_a_few_cleared_bits() {
        let plan = planned(&[C, S], true, Head::Auto, None);
        assert_eq!(
            (plan.steps.as_slice(), plan.invalidation),
            ([Clear, Keep].as_slice(), Invalidation::None)
        );
    }

    #[test]
    fn head_keep_is_the_bare_bound() {
        let plan = planned(&[S, E], true, Head::Keep, None);
        assert_eq!(plan.steps, [Keep, EraseProgram]);
        assert_eq!((plan.invalidation, plan.head_size), (Invalidation::None, 0));
        let sum = plan.summary(&geometry());
        assert_eq!((sum.blocks, sum.kept, sum.erases, sum.programs, sum.kept_bytes), (2, 1, 1, 1, BLOCK));
    }

    #[test]
    fn a_head_size_is_widened_to_granules_and_ends_with_the_range() {
        assert_eq!(planned(&[E, E], false, Head::Auto, Some(0)).head_size, 16);
        assert_eq!(planned(&[E, E], false, Head::Auto, Some(1 << 40)).head_size, 2 * BLOCK);
    }

    #[test]
    fn one_erase_call_is_about_a_second() {
        assert_eq!(erase_at_once(0x1000) / 0x1000, 23);
        assert_eq!(erase_at_once(0x10000) / 0x10000, 4);
        assert_eq!(erase_at_once(0x40000), 0x40000);
        assert_eq!(erase_at_once(0x200_0000), 0x200_0000);
    }
}
