//! The seven upgrades by which planners are measured, and the least that each of them can cost. In each the image's
//! first block changes if any does, as a header does with what it describes.

/// What flash holds, and the image that is to replace it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its name, the same in every table.
    pub name: &'static str,
    /// The serial chip's erase block in bytes, where a chip can be erased in more than one size.
    pub erase_size: u64,
    /// What the flash holds: twice the image's room, so that a write behind it would show.
    pub old: Vec<u8>,
    /// What it shall hold.
    pub image: Vec<u8>,
}

/// The smaller erase blocks of serial NOR, in bytes.
pub const SMALL: u64 = 4 << 10;
/// The larger ones.
pub const LARGE: u64 = 64 << 10;

/// The cases for images of `size` bytes, a multiple of 64 KiB.
#[must_use]
pub fn cases(size: usize) -> Vec<Case> {
    let old = noise(1, 2 * size);
    let image = noise(2, size);
    let case =
        |name, erase_size, old: &[u8], image: Vec<u8>| Case { name, erase_size, old: old.to_vec(), image };
    let same = old.get(..size).unwrap_or_default();
    let odd = image.get(..size.saturating_sub(5001)).unwrap_or_default();
    vec![
        case("all-different", SMALL, &old, image.clone()),
        case("same", SMALL, &old, same.to_vec()),
        case("five-percent-changed", LARGE, &old, five_percent(same, &image)),
        case("blank-chip", SMALL, &vec![0xff; 2 * size], image.clone()),
        case("half-padding", SMALL, &old, half_padding(image.clone())),
        case("only-clears", SMALL, &old, only_clears(same.to_vec())),
        case("odd-length", SMALL, &old, odd.to_vec()),
    ]
}

/// One in twenty of the 64 KiB blocks is another one.
fn five_percent(old: &[u8], new: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 64 << 10;
    let mut image = old.to_vec();
    for (image, new) in image.chunks_mut(BLOCK).zip(new.chunks(BLOCK)).step_by(20) {
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

/// In every tenth block of 4 KiB fourteen bytes lose their lowest bit that is set.
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
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
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

/// Whether the chip's data sheet lets bits be cleared in a page that was programmed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clearing {
    /// It does.
    Allowed,
    /// Such a page's block is erased.
    Forbidden,
}

/// The least that any tool can do, computed from the bytes alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bound {
    /// Erase blocks in which some bit must go from 0 to 1 (or any must change in a page that cannot be programmed
    /// twice).
    pub erases: u64,
    /// Program pages that hold a byte to change, after those erases.
    pub pages: u64,
    /// Blocks that hold data and need bits cleared, and no erase: what they hold is read again when that is done.
    pub clears: u64,
}

/// The bound for bringing `image` over `old`, the last block padded with 0xff; blocks and pages in bytes.
#[must_use]
pub fn bound(block: usize, page: usize, clearing: Clearing, old: &[u8], image: &[u8]) -> Bound {
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
