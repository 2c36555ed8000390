//! The seven cases. In each the image's first block changes if any does, as a header does with what it describes.

use crate::common::noise;

/// A flash and the image that is to replace what it holds.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The serial chip's erase block in bytes.
    pub(crate) erase_size: u64,
    /// What the flash holds: twice the image's room, so that a write behind it would show.
    pub(crate) old: Vec<u8>,
    pub(crate) image: Vec<u8>,
}

/// The erase blocks of serial NOR, in bytes.
pub(crate) const SMALL: u64 = 4 << 10;
pub(crate) const LARGE: u64 = 64 << 10;

/// The cases for images of `size` bytes, a multiple of 64 KiB.
pub(crate) fn cases(size: usize) -> Vec<Case> {
    let old = noise(1, 2 * size);
    let image = noise(2, size);
    let case =
        |name, erase_size, old: &[u8], image: Vec<u8>| Case { name, erase_size, old: old.to_vec(), image };
    vec![
        case("all-different", SMALL, &old, image.clone()),
        case("same", SMALL, &old, old[..size].to_vec()),
        case("five-percent-changed", LARGE, &old, five_percent(&old[..size], &image)),
        case("blank-chip", SMALL, &vec![0xff; 2 * size], image.clone()),
        case("half-padding", SMALL, &old, half_padding(image.clone())),
        case("only-clears", SMALL, &old, only_clears(old[..size].to_vec())),
        case("odd-length", SMALL, &old, image[..size - 5001].to_vec()),
    ]
}

/// One in twenty of the 64 KiB blocks is another one.
fn five_percent(old: &[u8], new: &[u8]) -> Vec<u8> {
    let block = usize::try_from(LARGE).expect("fits");
    let mut image = old.to_vec();
    for (image, new) in image.chunks_mut(block).zip(new.chunks(block)).step_by(20) {
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

/// In every tenth block of 4 KiB fourteen bytes lose bits.
fn only_clears(mut image: Vec<u8>) -> Vec<u8> {
    let places = noise(3, image.len() / 128);
    let block = usize::try_from(SMALL).expect("fits");
    for (block, places) in image.chunks_mut(block).step_by(10).zip(places.chunks_exact(28)) {
        for place in places.chunks_exact(2) {
            let at = usize::from(u16::from_be_bytes([place[0], place[1]])) % block.len();
            // The lowest bit that is set goes.
            block[at] &= block[at].wrapping_sub(1);
        }
    }
    image
}
