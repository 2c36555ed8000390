//! The seven cases, the same as those of `cargo bench -p flasher`, and the least that each can cost on this board.

use crate::nor_image::ERASE_BLOCK;

/// What the flash holds, and the image that is to replace it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) old: Vec<u8>,
    pub(super) image: Vec<u8>,
}

/// The lower bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) erases: u64,
    /// Bytes of whole pages.
    pub(super) programmed: u64,
}

/// Bytes of a program page. The chip's write buffer is larger: this is the stricter measure.
const PAGE: usize = 256;

/// The cases for an image of `size` bytes. The first block changes if any does, as a header does.
pub(super) fn all(size: usize) -> Vec<Case> {
    let (old, new) = (noise(1, size), noise(2, size));
    let case = |name, old: &[u8], image: Vec<u8>| Case { name, old: old.to_vec(), image };
    vec![
        case("all-different", &old, new.clone()),
        case("same", &old, old.clone()),
        case("five-percent-changed", &old, five_percent(&old, &new)),
        case("blank-chip", &vec![0xff; size], new.clone()),
        case("half-padding", &old, half_padding(new.clone())),
        case("only-clears", &old, only_clears(old.clone())),
        case("odd-length", &old, new[..size.saturating_sub(5001)].to_vec()),
    ]
}

/// The bound on a parallel chip, in which a page that holds data must not be programmed again: a block is erased where
/// such a page changes.
pub(super) fn bound(case: &Case) -> Bound {
    let block = usize::try_from(ERASE_BLOCK).unwrap_or(usize::MAX);
    let mut bound = Bound::default();
    for (number, have) in case.old.chunks(block).enumerate() {
        let Some(image) = case.image.chunks(block).nth(number) else { break };
        let mut want = image.to_vec();
        want.resize(have.len(), 0xff);
        let pages = || have.chunks(PAGE).zip(want.chunks(PAGE)).filter(|(have, want)| have != want);
        let erased = pages().any(|(have, _)| have.iter().any(|byte| *byte != 0xff));
        let programmed = match erased {
            true => want.chunks(PAGE).filter(|want| want.iter().any(|byte| *byte != 0xff)).count(),
            false => pages().count(),
        };
        bound.erases += u64::from(erased);
        bound.programmed += (programmed * PAGE) as u64;
    }
    bound
}

/// One in twenty of the 64 KiB blocks is another one.
fn five_percent(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut image = old.to_vec();
    for (image, new) in image.chunks_mut(64 << 10).zip(new.chunks(64 << 10)).step_by(20) {
        image.copy_from_slice(new);
    }
    image
}

/// Data and as much padding by turns, at places that are no block's or page's.
fn half_padding(mut image: Vec<u8>) -> Vec<u8> {
    for part in image.chunks_mut(74_000) {
        let half = part.len() / 2;
        part[half..].fill(0xff);
    }
    image
}

/// In every tenth block of 4 KiB fourteen bytes lose their lowest bit.
fn only_clears(mut image: Vec<u8>) -> Vec<u8> {
    let places = noise(3, image.len() / 128);
    for (block, places) in image.chunks_mut(4 << 10).step_by(10).zip(places.chunks_exact(28)) {
        for place in places.chunks_exact(2) {
            let at = usize::from(u16::from_be_bytes([place[0], place[1]])) % block.len();
            block[at] &= block[at].wrapping_sub(1);
        }
    }
    image
}

/// Bytes that repeat nowhere, by a seed (xorshift). None of them is 0xff.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32).to_le_bytes()[0] & 0xfe
    })
    .take(length)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_each_case() {
        let size = 1 << 20;
        let bounds: Vec<_> =
            all(size).iter().map(|case| (case.name, bound(case).erases, bound(case).programmed)).collect();
        let (blocks, all) = (4, 1 << 20);
        let half = bounds[4].2;
        assert!((all / 2..all / 2 + 30 * 256).contains(&half), "{half}");
        assert_eq!(
            bounds,
            [
                ("all-different", blocks, all),
                ("same", 0, 0),
                ("five-percent-changed", 1, 256 << 10),
                ("blank-chip", 0, all),
                ("half-padding", blocks, half),
                // Bits may not be cleared in place here.
                ("only-clears", blocks, all),
                ("odd-length", blocks, all - 19 * 256),
            ]
        );
    }
}
