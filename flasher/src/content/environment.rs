//! U-Boot's environment: a CRC32, a flag where there are two copies, and `name=value` strings to its end. It has no magic
//! number, and nothing tells its size but the sum that is right for it.

use crc32fast::Hasher;

/// How many of the first bytes tell whether it can be one at all.
pub(crate) const START: usize = 16;

/// A target's first bytes.
pub(crate) type Start = [u8; START];

/// Environments are no larger than this, in bytes.
const MOST: usize = 512 << 10;
/// The smallest, and the step in which it is read.
const LEAST: usize = 1 << 10;

/// Where the strings begin: behind the sum, or behind the sum and the flag.
const LAYOUTS: [usize; 2] = [4, 5];

/// Whether strings could begin at `at`: only such bytes are read on.
fn is_text(head: &[u8], at: usize) -> bool {
    let Some((first, rest)) = head.get(at..).and_then(<[u8]>::split_first) else { return false };
    let printable = |byte: &u8| matches!(*byte, 0 | b' '..=b'~');
    (first.is_ascii_alphanumeric() || *first == b'_') && rest.iter().all(printable)
}

/// Whether what starts like this can be an environment: all that can be said while its end is not there.
pub(crate) fn can_be_one(head: &[u8]) -> bool {
    LAYOUTS.iter().any(|at| is_text(head.get(..START).unwrap_or(head), *at))
}

/// Whether an environment lies at the start of `size` bytes: its sum is right for all of them, or for some power of two of
/// them. `read` fills a buffer from a place and says whether it could.
pub(crate) fn is_one(head: &[u8], size: u64, mut read: impl FnMut(u64, &mut [u8]) -> bool) -> bool {
    if !can_be_one(head) {
        return false;
    }
    let Some(stored) = head.first_chunk::<4>() else { return false };
    // In the byte order of the processor that U-Boot runs on.
    let stored = [u32::from_le_bytes(*stored), u32::from_be_bytes(*stored)];
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut sums = LAYOUTS.map(|at| (at, Hasher::new()));
    let mut piece = [0; LEAST];
    let mut at = 0;
    while at < size.min(MOST) {
        let part = &mut piece[..LEAST.min(size - at)];
        if !read(at as u64, part) {
            return false;
        }
        for (begin, sum) in &mut sums {
            sum.update(part.get(begin.saturating_sub(at)..).unwrap_or_default());
        }
        at += part.len();
        let right = |(_, sum): &(usize, Hasher)| stored.contains(&sum.clone().finalize());
        if (at.is_power_of_two() || at == size) && sums.iter().any(right) {
            return true;
        }
    }
    false
}

/// An environment of `size` bytes, for tests.
#[cfg(test)]
pub(crate) fn of(strings: &str, size: usize, flag: Option<u8>, order: fn(u32) -> [u8; 4]) -> Vec<u8> {
    let mut body = strings.as_bytes().to_vec();
    body.resize(size - 4 - usize::from(flag.is_some()), 0);
    let sum = order(crc32fast::hash(&body));
    sum.into_iter().chain(flag).chain(body).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRINGS: &str = "baudrate=115200\0bootcmd=run flash\0\0";

    fn found(bytes: &[u8]) -> bool {
        is_one(&bytes[..START.min(bytes.len())], bytes.len() as u64, |at, buf| {
            let at = usize::try_from(at).unwrap();
            bytes.get(at..at + buf.len()).map(|from| buf.copy_from_slice(from)).is_some()
        })
    }

    #[test]
    fn an_environment_is_known_by_its_sum_in_either_layout_and_byte_order() {
        for order in [u32::to_le_bytes as fn(u32) -> [u8; 4], u32::to_be_bytes] {
            for flag in [None, Some(1)] {
                for size in [0x400, 0x2000, 0x1_0000, 3000, 300] {
                    let mut bytes = of(STRINGS, size, flag, order);
                    assert!(found(&bytes), "{size} {flag:?}");
                    bytes[size / 2] ^= 1;
                    assert!(!found(&bytes), "{size} {flag:?}, with a wrong bit");
                }
            }
        }
        let mut padded = of(STRINGS, 0x2000, None, u32::to_le_bytes);
        padded.resize(0x1_0000, 0xff);
        assert!(found(&padded));
        for other in [&[0xff; 4096][..], &[0; 4096], b"<!DOCTYPE html>", b"", b"abc"] {
            assert!(!found(other));
        }
    }

    #[test]
    fn what_cannot_be_text_is_not_read_on() {
        let bytes = crate::sim::cases::noise(1, START);
        assert!(!is_one(&bytes, 1 << 20, |_, _| panic!("it was read")));
    }
}
