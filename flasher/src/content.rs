//! What kind of thing an image or a partition starts with. People do flash downloaded error pages, and halves of images.

use std::fmt;

pub(crate) mod environment;
pub(crate) mod uimage;

/// A kind of content that a magic number tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A flattened image tree (or a bare device tree): `d0 0d fe ed`.
    Fit,
    /// U-Boot's older image header: `27 05 19 56`.
    UImage,
    /// Broadcom's image header: `HDR0`.
    Trx,
    /// squashfs of either byte order: `hsqs`, `sqsh`.
    Squashfs,
    /// UBI's erase counter header: `UBI#`.
    Ubi,
    /// U-Boot's environment. It has no magic number: its check sum tells it.
    Environment,
}

impl Content {
    /// How many bytes [`Content::of`] needs.
    pub const MAGIC: usize = 4;

    /// What starts with these bytes; `None` for anything unknown, erased flash among it.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Self> {
        match head.get(..Self::MAGIC)? {
            [0xd0, 0x0d, 0xfe, 0xed] => Some(Self::Fit),
            [0x27, 0x05, 0x19, 0x56] => Some(Self::UImage),
            b"HDR0" => Some(Self::Trx),
            b"hsqs" | b"sqsh" => Some(Self::Squashfs),
            b"UBI#" => Some(Self::Ubi),
            _ => None,
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fit => "a FIT image",
            Self::UImage => "a uImage",
            Self::Trx => "a TRX image",
            Self::Squashfs => "a squashfs",
            Self::Ubi => "a UBI image",
            Self::Environment => "a U-Boot environment",
        })
    }
}

/// The image's first bytes beside the target's: refused is an image of another kind than the one the target holds.
/// A target of unknown content (erased, or cut off in an earlier run) accepts everything.
///
/// # Errors
/// The target's kind, which the image lacks.
pub fn check(target: &[u8], image: &[u8]) -> Result<(), Content> {
    match Content::of(target) {
        Some(kind) if Content::of(image) != Some(kind) => Err(kind),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_must_be_of_the_kind_that_the_target_holds() {
        let kinds: [(&[u8], Content); 6] = [
            (b"\xd0\x0d\xfe\xed\0\0", Content::Fit),
            (b"\x27\x05\x19\x56", Content::UImage),
            (b"HDR0", Content::Trx),
            (b"hsqs", Content::Squashfs),
            (b"sqsh", Content::Squashfs),
            (b"UBI#", Content::Ubi),
        ];
        for (magic, kind) in kinds {
            assert_eq!(check(magic, magic), Ok(()));
            assert_eq!(check(magic, b"<!DOCTYPE html>"), Err(kind));
            assert_eq!(check(magic, b"hi"), Err(kind));
            assert_eq!(check(&[0xff; 16], magic), Ok(()));
            assert_eq!(check(&[0; 16], b"<!DOCTYPE html>"), Ok(()));
        }
    }
}
