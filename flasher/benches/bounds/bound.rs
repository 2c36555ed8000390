//! The least that any tool can do, computed from the bytes alone.

use flasher::device::Geometry;

/// Whether the chip's data sheet lets bits be cleared in a page that was programmed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clearing {
    Allowed,
    Forbidden,
}

/// The lower bound of an upgrade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Erase blocks in which some bit must go from 0 to 1 (or any must change in a page that cannot be programmed
    /// twice).
    pub(crate) erases: u64,
    /// Program pages that hold a byte to change, after those erases.
    pub(crate) pages: u64,
    /// Blocks that hold data and need bits cleared, and no erase: what they hold is read again when that is done.
    pub(crate) clears: u64,
}

/// The bound for bringing `image` over `old`, the last block padded with 0xff.
pub(crate) fn bound(geometry: &Geometry, page: usize, clearing: Clearing, old: &[u8], image: &[u8]) -> Bound {
    let block = usize::try_from(geometry.erase_size).expect("the simulation's blocks fit in memory");
    let mut bound = Bound::default();
    for (have, image) in old.chunks(block).zip(image.chunks(block)) {
        let mut want = image.to_vec();
        want.resize(have.len(), 0xff);
        let mut must_erase = have.iter().zip(&want).any(|(have, want)| want & !have != 0);
        if clearing == Clearing::Forbidden {
            let mut pages = have.chunks(page).zip(want.chunks(page));
            must_erase |= pages.any(|(have, want)| have != want && have.iter().any(|byte| *byte != 0xff));
        }
        let blank = have.iter().all(|byte| *byte == 0xff);
        bound.clears += u64::from(!must_erase && !blank && have != want);
        let erased = vec![0xff; have.len()];
        let have = if must_erase { erased.as_slice() } else { have };
        bound.erases += u64::from(must_erase);
        bound.pages += have.chunks(page).zip(want.chunks(page)).filter(|(a, b)| a != b).count() as u64;
    }
    bound
}
