//! SHA-256 and its spelling.

use sha2::{Digest, Sha256};
use std::fmt::Write;

/// A digest that is being taken.
#[derive(Clone, Default)]
pub(crate) struct Sha(Sha256);

impl Sha {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    pub(crate) fn bytes(self) -> impl Iterator<Item = u8> {
        self.0.finalize().into_iter()
    }

    /// The digest in lower-case hexadecimal.
    pub(crate) fn hex(self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_of_fips_180() {
        let mut sha = Sha::default();
        sha.update(b"ab");
        sha.update(b"c");
        assert_eq!(sha.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
