//! The plan of a run: one small step per erase block, and what happens to the head. Pure data from a pure function.

use std::ops::Range;

use crate::decide::{Finding, Rules, Step, Want, decide};
use crate::device::{EraseBlock, Geometry};
use crate::options::Head;
use crate::survey::Survey;

/// How the old head is made invalid before any other block is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalidation {
    /// Not at all: nothing changes, the user wants it so, or only the head changes by clearing bits.
    None,
    /// It is invalid already: blank, or zeroed by a run that was cut off.
    Void,
    /// Its first granule is programmed to zero and read back; the block is erased when the body is proven. The zeros
    /// do two things. Some NOR fills a block with zeros from its *end* before it erases: a cut there would leave a
    /// valid-looking head over a ruined tail. And they last: while they stand, a later run knows that this one
    /// was cut off, and does not take a half-erased block that reads 0xff for an erased one.
    Zero,
    /// The first block is erased at once: the chip cannot clear bits in place.
    Erase,
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

    /// The first byte behind the blocks that hold the head: these blocks are erased and programmed last.
    #[must_use]
    pub fn late_end(&self, geometry: &Geometry) -> u64 {
        match self.head_size {
            0 => self.range.start,
            size => geometry.round_up(self.range.start + size),
        }
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
            let wanted = wanted.next_multiple_of(geometry.granule()).min(range.end - range.start);
            // Within a block the first page comes first there: only whole blocks can be completed last.
            if geometry.programs_in_order() {
                geometry.round_up(range.start + wanted) - range.start
            } else {
                wanted
            }
        }
    };
    let mut invalidation = Invalidation::None;
    if let (Head::Auto, Some((step, others)), Some(found)) =
        (head, steps.split_first_mut(), survey.findings.first())
    {
        let others_change = others.iter().any(|step| *step != Step::Keep);
        (*step, invalidation) = plan_head(*step, *found, survey.zeroed, rules, others_change);
    }
    Plan { range, image_size, head_size, invalidation, steps }
}

/// What is done to the head's first block, and first of all.
pub(crate) fn plan_head(
    step: Step,
    found: Finding,
    zeroed: bool,
    rules: Rules,
    others_change: bool,
) -> (Step, Invalidation) {
    match (step, found.want) {
        // Clearing a few bits of the head alone is over in a moment and leaves no valid head half-way.
        (Step::Keep | Step::Clear, _) if !others_change => return (step, Invalidation::None),
        (Step::Keep, Want::Blank) => return (step, Invalidation::Void),
        _ => {}
    }
    // An old head that is valid would stand over a body that is not its own. A blank one is erased again: if its
    // erase was cut off, and no other block holds data, nothing else tells.
    let rewrite = if found.want == Want::Blank { Step::Erase } else { Step::EraseProgram };
    match (zeroed, rules.zero_in_place, step) {
        (true, ..) => (rewrite, Invalidation::Void),
        (false, true, _) => (rewrite, Invalidation::Zero),
        (false, false, Step::Program) => (step, Invalidation::Void),
        (false, false, _) => (rewrite, Invalidation::Erase),
    }
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

    /// What may be done in place.
    #[derive(PartialEq)]
    enum Chip {
        /// Everything.
        Serial,
        /// Zeroing the head.
        Parallel,
        /// Nothing.
        Erases,
    }

    fn planned(have: &[Have], chip: Chip, head: Head, head_size: Option<u64>) -> Plan {
        let (clear_in_place, zero_in_place) = (chip == Chip::Serial, chip != Chip::Erases);
        let findings: Vec<_> = have.iter().map(|have| Finding { have: *have, want: Want::Data }).collect();
        let end = findings.len() as u64 * BLOCK;
        let survey = Survey { differs: vec![None; findings.len()], findings, ..Survey::default() };
        let rules = Rules { blank: Blank::Trusted, clear_in_place, zero_in_place, extent: Extent::Differing };
        plan(&geometry(), &survey, rules, 0..end, end - 5, head, head_size)
    }

    use Have::{Blank as B, MustErase as E, OnlyClears as C, Same as S};
    use Step::{Clear, EraseProgram, Keep, Program};

    #[test]
    fn a_head_that_stays_is_rewritten_when_the_body_changes() {
        let plan = planned(&[S, S, E], Chip::Erases, Head::Auto, None);
        assert_eq!(plan.steps, [EraseProgram, Keep, EraseProgram]);
        assert_eq!((plan.invalidation, plan.head_size), (Invalidation::Erase, BLOCK));
        let plan = planned(&[C, B, S], Chip::Serial, Head::Auto, Some(20));
        assert_eq!(plan.steps, [EraseProgram, Program, Keep]);
        assert_eq!((plan.invalidation, plan.head_size), (Invalidation::Zero, 32));
        assert_eq!(plan.late_end(&geometry()), BLOCK);
    }

    #[test]
    fn a_blank_head_is_erased_again_and_no_other_blank_block() {
        let plan = planned(&[B, B], Chip::Parallel, Head::Auto, None);
        assert_eq!(
            (plan.steps.as_slice(), plan.invalidation),
            ([EraseProgram, Program].as_slice(), Invalidation::Zero)
        );
        let plan = planned(&[B, B], Chip::Erases, Head::Auto, None);
        assert_eq!(
            (plan.steps.as_slice(), plan.invalidation),
            ([Program, Program].as_slice(), Invalidation::Void)
        );
    }

    #[test]
    fn where_nothing_differs_nothing_is_planned() {
        let plan = planned(&[S, S], Chip::Serial, Head::Auto, None);
        assert!(plan.is_done());
        assert_eq!(plan.invalidation, Invalidation::None);
    }

    #[test]
    fn a_head_that_changes_alone_is_not_erased_for_a_few_cleared_bits() {
        let plan = planned(&[C, S], Chip::Serial, Head::Auto, None);
        assert_eq!(
            (plan.steps.as_slice(), plan.invalidation),
            ([Clear, Keep].as_slice(), Invalidation::None)
        );
    }

    #[test]
    fn head_keep_is_the_bare_bound() {
        let plan = planned(&[S, E, B], Chip::Serial, Head::Keep, None);
        assert_eq!(plan.steps, [Keep, EraseProgram, Program]);
        assert_eq!((plan.invalidation, plan.head_size), (Invalidation::None, 0));
        assert_eq!(plan.late_end(&geometry()), 0);
        let sum = plan.summary(&geometry());
        assert_eq!((sum.blocks, sum.kept, sum.erases, sum.programs, sum.kept_bytes), (3, 1, 1, 2, BLOCK));
    }

    #[test]
    fn a_head_size_is_widened_to_granules_and_ends_with_the_range() {
        assert_eq!(planned(&[E, E], Chip::Parallel, Head::Auto, Some(0)).head_size, 16);
        assert_eq!(planned(&[E, E], Chip::Parallel, Head::Auto, Some(1 << 40)).head_size, 2 * BLOCK);
    }

    #[test]
    fn one_erase_call_is_about_a_second() {
        assert_eq!(erase_at_once(0x1000) / 0x1000, 23);
        assert_eq!(erase_at_once(0x10000) / 0x10000, 4);
        assert_eq!(erase_at_once(0x40000), 0x40000);
        assert_eq!(erase_at_once(0x200_0000), 0x200_0000);
    }
}
