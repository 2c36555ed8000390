//! The look at flash and image before the first change, block by block.

use std::ops::Range;

use crate::decide::{Comparison, Finding, Have, Want, is_blank};
use crate::device::{Ecc, EraseBlock, GRANULE_BYTES, Kind, Mtd};
use crate::digest::Sha;
use crate::error::Error;
use crate::event::{Event, Operations, Phase, Progress};
use crate::retry;
use crate::source::Source;

/// A block is read in pieces of at most this many bytes (or one page, if that is more), so that reading can stop early.
const PIECE: usize = 4096;

/// The first pieces are smaller: a block of another image shows it in its first bytes, and where all blocks are of
/// another image nearly all of the survey is saved. A tool that rewrites everything unseen does not take this look.
const FIRST_PIECES: [usize; 3] = [4, GRANULE_BYTES, 256];

/// Where the piece of a block that starts at `seen` ends, in bytes from its start, if pages have `page` bytes and the
/// first piece is to have at least `least`.
fn piece_end(seen: usize, page: usize, least: usize, kind: Kind) -> usize {
    // Flipped bits count page by page.
    if kind == Kind::Nand {
        return seen.saturating_add(page.max(1));
    }
    let first = FIRST_PIECES.into_iter().map(|end| end.max(page).max(least)).find(|end| *end > seen);
    first.unwrap_or_else(|| (seen / PIECE.max(page) + 1).saturating_mul(PIECE.max(page)))
}

/// What was found. One small entry per block, whatever the image's size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Every block of the range, ascending.
    pub findings: Vec<Finding>,
    /// Of each block the first byte that was seen to differ, from the block's start.
    pub differs: Vec<Option<u64>>,
    /// The first granule is zeroed, and not because the image wants it so.
    pub zeroed: bool,
    /// The head is zeroed, or blank while other blocks hold data (or on a chip whose heads are never zeroed): a run
    /// was cut off here, for all that can be told.
    pub interrupted: bool,
    /// The image's SHA-256, in hexadecimal.
    pub image_sha256: String,
    /// Bytes read from flash.
    pub read: u64,
    /// What ECC said of these reads.
    pub ecc: Ecc,
    /// Reads that failed and were tried again.
    pub retries: u64,
}

/// Two erase blocks' worth of bytes: what is there, and what shall be. The only memory that grows with the chip.
#[derive(Debug)]
pub struct Buffers {
    pub(crate) have: Vec<u8>,
    pub(crate) want: Vec<u8>,
}

impl Buffers {
    /// Room for blocks of up to `erase_size` bytes.
    #[must_use]
    pub fn new(erase_size: u64) -> Self {
        let size = usize::try_from(erase_size).unwrap_or(usize::MAX);
        Self { have: vec![0; size], want: vec![0; size] }
    }

    /// The first `len` bytes of both.
    pub(crate) fn pair(&mut self, len: u64) -> (&mut [u8], &mut [u8]) {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.have.len());
        let (have, _) = self.have.split_at_mut(len);
        let (want, _) = self.want.split_at_mut(len);
        (have, want)
    }
}

/// Fills `want` with what `block` shall hold: the image's bytes, and 0xff behind its end. Returns how many bytes are
/// the image's.
pub(crate) fn wanted(source: &mut dyn Source, block: EraseBlock, want: &mut [u8]) -> Result<usize, Error> {
    let left = source.size().saturating_sub(block.start);
    let image = usize::try_from(left).unwrap_or(usize::MAX).min(want.len());
    let (bytes, padding) = want.split_at_mut(image);
    if !bytes.is_empty() {
        source.read_at(block.start, bytes)?;
    }
    padding.fill(0xff);
    Ok(image)
}

/// What the bytes between the image's end and its last block's end shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// 0xff, as an erase leaves them.
    Erased,
    /// Anything: only the image's own bytes are compared.
    Ignored,
}

/// Whether a block that needs bits cleared may be spared its erase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clearing {
    /// It may.
    Possible,
    /// It is erased: a block need not be read behind the first byte that differs.
    Forbidden,
}

/// Reads the image to its end, and of the flash in `range` as much as decides each block's fate.
///
/// # Errors
/// What reading either of them says; nothing was changed.
pub fn survey(
    chip: &mut dyn Mtd,
    source: &mut dyn Source,
    range: &Range<u64>,
    beyond: Beyond,
    clearing: Clearing,
    buffers: &mut Buffers,
    progress: &mut dyn Progress,
) -> Result<Survey, Error> {
    let geometry = chip.geometry().clone();
    let page = usize::try_from(geometry.write_size).unwrap_or(PIECE);
    let granule = usize::try_from(geometry.granule()).unwrap_or(usize::MAX);
    let mut sha = Sha::default();
    let mut found = Survey::default();
    let (mut head_is_blank, mut others_hold_data) = (false, false);
    let total = range.end - range.start;
    for block in geometry.blocks(range.clone()) {
        let first = block.start == range.start;
        let (have, want) = buffers.pair(block.len);
        // The head is looked at to the end of its first granule, whatever its first bytes say.
        let least = if first { granule.min(have.len()) } else { 0 };
        let image = wanted(source, block, want)?;
        sha.update(want.get(..image).unwrap_or_default());
        let mut comparison = Comparison::default();
        let mut seen = 0;
        let mut blank = true;
        let mut flipping = false;
        let mut differs = None;
        let is_decided = |comparison: &Comparison| match clearing {
            Clearing::Possible => comparison.is_decided(),
            Clearing::Forbidden => comparison.is_decided_without_clearing(),
        };
        while seen < have.len() && !is_decided(&comparison) {
            let part = seen..piece_end(seen, page, least, geometry.kind).min(have.len());
            let (have, want) = (&mut have[part.clone()], &mut want[part]);
            let health = retry::read(chip, block.start + seen as u64, have, &mut found.retries)?;
            found.ecc.add(health);
            let (from, retries) = (block.start + seen as u64, &mut found.retries);
            let range = from..from + have.len() as u64;
            flipping |= retry::is_flipping(chip, range, health, retries, &mut found.read)?;
            blank &= is_blank(have);
            if beyond == Beyond::Ignored {
                let image = image.saturating_sub(seen).min(want.len());
                want[image..].copy_from_slice(&have[image..]);
            }
            comparison.take(have, want);
            if differs.is_none() {
                let place = have.iter().zip(&*want).position(|(have, want)| have != want);
                differs = place.map(|place| (seen + place) as u64);
            }
            if health.failed > 0 {
                comparison.take_unreadable();
            }
            seen += have.len();
        }
        found.read += seen as u64;
        if first {
            // Not where the image wants it so: such an image would never be found complete.
            let (have, want) = (&have[..least], &want[..least]);
            head_is_blank = is_blank(have) && have != want;
            found.zeroed = have.iter().all(|byte| *byte == 0) && have != want;
        } else {
            others_hold_data |= !blank;
        }
        let want = if is_blank(want) { Want::Blank } else { Want::Data };
        let have = match comparison.answer() {
            Have::Same if flipping => Have::Flipping,
            have => have,
        };
        found.findings.push(Finding { have, want });
        found.differs.push(differs);
        let operations = Operations { read: found.read, ..Operations::default() };
        progress.event(&Event::Progress {
            phase: Phase::Survey,
            done: block.end() - range.start,
            total,
            operations,
        });
    }
    source.end_of_pass()?;
    // Where the head could be zeroed first, a blank head alone is that of a new chip.
    let suspicious = others_hold_data || !geometry.clears_bits();
    found.interrupted = found.zeroed || head_is_blank && suspicious;
    found.image_sha256 = sha.hex();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Geometry;
    use crate::event::Silent;
    use crate::sim::Nor;
    use crate::source::Bytes;

    #[test]
    fn a_head_is_zeroed_only_if_all_of_its_first_granule_is() {
        let geometry = Geometry {
            kind: Kind::SpiNor,
            size: 512,
            erase_size: 256,
            write_size: 1,
            bit_writeable: true,
            writeable: true,
            regions: Vec::new(),
        };
        for (zeros, zeroed) in [(4, false), (15, false), (16, true)] {
            let mut old = vec![0x55; 512];
            old[..zeros].fill(0);
            let mut chip = Nor::new(geometry.clone(), old);
            let mut image = Bytes::new("image", vec![0xaa; 512]).unwrap();
            let mut buffers = Buffers::new(256);
            let (beyond, clearing) = (Beyond::Erased, Clearing::Possible);
            let found = survey(&mut chip, &mut image, &(0..512), beyond, clearing, &mut buffers, &mut Silent)
                .unwrap();
            assert_eq!((found.zeroed, found.interrupted), (zeroed, zeroed), "{zeros} zeros");
            assert_eq!(found.differs, [Some(0), Some(0)]);
            assert_eq!(found.read, 16 + 4);
        }
    }
}
