//! U-Boot's older image header (`image_header` of U-Boot's `include/image.h`): 64 bytes, big-endian, with a CRC32 over
//! themselves. An image whose header is damaged or that is shorter than its header says would not boot.

/// The header's size in bytes.
pub(crate) const HEADER: usize = 64;

/// What is wrong with bytes that start like such an image; `None` if nothing is, or if they are something else. `head`
/// is their first [`HEADER`] bytes (fewer if there are no more), `size` how many there are in all, where that is known.
#[must_use]
pub(crate) fn damage(head: &[u8], size: Option<u64>) -> Option<String> {
    if !head.starts_with(&[0x27, 0x05, 0x19, 0x56]) {
        return None;
    }
    let Some((header, _)) = head.split_first_chunk::<HEADER>() else {
        return Some(format!("its header has {HEADER} bytes, the image {}", head.len()));
    };
    let number = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let mut summed = *header;
    summed[4..8].fill(0);
    let (expected, found) = (number(4), crc32fast::hash(&summed));
    if expected != found {
        return Some(format!("its header says CRC32 {expected:#010x} of itself and has {found:#010x}"));
    }
    let needed = HEADER as u64 + u64::from(number(12));
    size.filter(|size| *size < needed)
        .map(|size| format!("its header announces {needed} bytes with itself, and there are {size}"))
}

/// A whole image around `data`, for tests.
#[cfg(test)]
pub(crate) fn around(data: &[u8]) -> Vec<u8> {
    let mut image = vec![0; HEADER];
    image[..4].copy_from_slice(&[0x27, 0x05, 0x19, 0x56]);
    image[12..16].copy_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
    image[32..38].copy_from_slice(b"kernel");
    let sum = crc32fast::hash(&image).to_be_bytes();
    image[4..8].copy_from_slice(&sum);
    image.extend_from_slice(data);
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_believed_only_with_its_check_sum_and_an_image_only_if_it_is_that_long() {
        let whole = around(&[7; 100]);
        let look = |bytes: &[u8], size| damage(&bytes[..bytes.len().min(HEADER)], size);
        assert_eq!(look(&whole, Some(164)), None);
        assert_eq!(look(&whole, Some(165)), None);
        assert_eq!(look(&whole, None), None);
        assert_eq!(
            look(&whole, Some(163)).unwrap(),
            "its header announces 164 bytes with itself, and there are 163"
        );
        assert_eq!(look(&whole[..63], Some(63)).unwrap(), "its header has 64 bytes, the image 63");
        for at in 4..HEADER {
            let mut wrong = whole.clone();
            wrong[at] ^= 0x10;
            let said = look(&wrong, Some(164)).unwrap();
            assert!(
                said.starts_with("its header says CRC32 0x") && said.contains(" and has 0x"),
                "{at}: {said}"
            );
        }
        assert_eq!(look(b"<!DOCTYPE html>", Some(15)), None);
    }
}
