//! Compressed formats: how each is known, and how much memory its decoder needs.

use std::path::Path;

/// A way to compress an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 1952.
    Gzip,
    /// The .xz file format 1.2.0.
    Xz,
    /// RFC 8878.
    Zstd,
}

/// What is to be decompressed. A firmware image may itself start like a compressed file (a kernel often does), so
/// the first bytes alone decide nothing unless that is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Decompress {
    /// A file whose name ends in `.gz`, `.xz` or `.zst`.
    #[default]
    ByName,
    /// Whatever starts like one of the formats.
    ByMagic,
    /// Everything, and it is this.
    As(Format),
    /// Nothing.
    Never,
}

/// What a decoder needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How far back the data refers, in bytes; by the stream's own header.
    pub size: u64,
    /// The memory that its decoder takes at most, in bytes; beside it nothing grows with the image.
    pub memory: u64,
}

/// How many of a stream's first bytes [`Format::window`] may need: an xz stream header and the largest block header.
pub(super) const HEADER: usize = 12 + 1024;

impl Format {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// What a file's name says.
    #[must_use]
    pub fn by_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "gz" => Some(Self::Gzip),
            "xz" => Some(Self::Xz),
            "zst" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What the first bytes say.
    #[must_use]
    pub fn by_magic(head: &[u8]) -> Option<Self> {
        [Self::Gzip, Self::Xz, Self::Zstd].into_iter().find(|format| format.starts(head))
    }

    /// Whether the bytes start like this format. A zstd stream may start with a frame to be skipped.
    #[must_use]
    pub(super) fn starts(self, head: &[u8]) -> bool {
        match self {
            Self::Gzip => head.starts_with(&[0x1f, 0x8b, 8]),
            Self::Xz => head.starts_with(b"\xfd7zXZ\0"),
            Self::Zstd => head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable(head).is_some(),
        }
    }

    /// What a stream that starts like this needs; `None` if its header is cut short or says nothing.
    #[must_use]
    pub(super) fn window(self, head: &[u8]) -> Option<Window> {
        let size = match self {
            Self::Gzip => 32 << 10,
            Self::Xz => xz_dictionary(head)?,
            Self::Zstd => zstd_window(head)?,
        };
        let memory = match self {
            Self::Gzip => size + (32 << 10),
            Self::Xz => size.saturating_add(256 << 10),
            Self::Zstd => zstd_memory(size),
        };
        Some(Window { size, memory })
    }
}

/// What zstd's decoder takes: a ring with room for the window and a block, whose size is a power of two and two blocks;
/// the one before it, half as large, from which it is copied when it grows; and tables, literals and sequences.
fn zstd_memory(window: u64) -> u64 {
    const BLOCK: u64 = 128 << 10;
    const TABLES: u64 = 3 << 19;
    let full = window.saturating_sub(BLOCK).checked_next_power_of_two().unwrap_or(u64::MAX);
    [full, full / 2, 4 * BLOCK, TABLES].into_iter().fold(0, u64::saturating_add)
}

/// The size of a zstd frame that is to be skipped, its header included.
pub(super) fn skippable(head: &[u8]) -> Option<u64> {
    let (magic, rest) = head.split_first_chunk::<4>()?;
    let length = rest.first_chunk::<4>()?;
    (u32::from_le_bytes(*magic) & 0xffff_fff0 == 0x184d_2a50)
        .then(|| 8 + u64::from(u32::from_le_bytes(*length)))
}

/// RFC 8878, 3.1.1.1: frame header descriptor, then window descriptor or, where all is one segment, the content's size.
fn zstd_window(head: &[u8]) -> Option<u64> {
    let descriptor = *head.get(4)?;
    let single_segment = descriptor & 0x20 != 0;
    if !single_segment {
        let window = *head.get(5)?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let bytes = |count: usize| {
        let bytes = head.get(at..at + count)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    match descriptor >> 6 {
        0 => bytes(1),
        1 => bytes(2).map(|size| size + 256),
        2 => bytes(4),
        _ => bytes(8),
    }
}

/// The .xz format, 2.1.1 (stream header) and 3.1 (block header); a stream without blocks has no dictionary.
fn xz_dictionary(head: &[u8]) -> Option<u64> {
    let block = head.get(12..)?;
    let (size, mut rest) = block.split_first()?;
    if *size == 0 {
        return Some(0);
    }
    let flags = number(&mut rest, 1)?;
    for flag in [0x40, 0x80] {
        if flags & flag != 0 {
            number(&mut rest, 9)?;
        }
    }
    let mut dictionary = 0;
    for _ in 0..=flags & 3 {
        let id = number(&mut rest, 9)?;
        let length = usize::try_from(number(&mut rest, 9)?).ok()?;
        let properties = rest.get(..length)?;
        rest = rest.get(length..)?;
        if id == 0x21 {
            let bits = u64::from(*properties.first()?) & 0x3f;
            dictionary = if bits >= 40 { u64::from(u32::MAX) } else { (2 | bits & 1) << (bits / 2 + 11) };
        }
    }
    Some(dictionary)
}

/// A multibyte integer of at most `most` bytes; with 1 a plain byte.
fn number(bytes: &mut &[u8], most: usize) -> Option<u64> {
    let mut number = 0;
    for at in 0..most {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if most == 1 {
            return Some(u64::from(*byte));
        }
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_its_magic_or_its_name() {
        for (head, format) in [
            (&b"\x1f\x8b\x08\0"[..], Some(Format::Gzip)),
            (b"\xfd7zXZ\0\0\x04", Some(Format::Xz)),
            (b"\x28\xb5\x2f\xfd\x04", Some(Format::Zstd)),
            (b"\x5f\x2a\x4d\x18\x01\0\0\0", Some(Format::Zstd)),
            (b"\x1f\x8b\x07\0", None),
            (b"\xd0\x0d\xfe\xed", None),
            (b"", None),
        ] {
            assert_eq!(Format::by_magic(head), format, "{head:?}");
        }
        for (name, format) in
            [("a.gz", Some(Format::Gzip)), ("b.bin.xz", Some(Format::Xz)), ("/c/d.zst", Some(Format::Zstd))]
        {
            assert_eq!(Format::by_name(Path::new(name)), format);
        }
        for name in ["a.bin", "gz", ".gz", "a.GZ", "a.gz.bin", "x.gz/fw"] {
            assert_eq!(Format::by_name(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn a_window_is_what_the_header_says() {
        let size = |format: Format, head: &[u8]| format.window(head).map(|window| window.size);
        assert_eq!(size(Format::Gzip, b"\x1f\x8b\x08"), Some(32 << 10));
        let zstd = |rest: &[u8]| size(Format::Zstd, &[b"\x28\xb5\x2f\xfd", rest].concat());
        assert_eq!(zstd(&[0x04, 0x58]), Some(2 << 20));
        assert_eq!(zstd(&[0x04, 0x88]), Some(128 << 20));
        assert_eq!(zstd(&[0x04, 0x01]), Some(1152));
        assert_eq!(zstd(&[0x20, 200]), Some(200));
        assert_eq!(zstd(&[0x60, 0, 1]), Some(512));
        assert_eq!(zstd(&[0xa1, 9, 0, 0, 1, 0]), Some(65536));
        assert_eq!(zstd(&[0xe0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 32));
        assert_eq!(zstd(&[0xe0, 0, 0]), None);
        let xz = |rest: &[u8]| size(Format::Xz, &[b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46", rest].concat());
        // `xz -6` and `xz -9`, both sizes in the header in the second.
        assert_eq!(xz(&[2, 0, 0x21, 1, 0x16, 0]), Some(8 << 20));
        assert_eq!(xz(&[3, 0xc0, 0x80, 1, 0x80, 0x80, 4, 0x21, 1, 0x1c]), Some(64 << 20));
        // A branch filter before it.
        assert_eq!(xz(&[2, 1, 7, 0, 0x21, 1, 0x17, 0]), Some(12 << 20));
        assert_eq!(xz(&[2, 0, 0x21, 1, 40, 0]), Some(u64::from(u32::MAX)));
        assert_eq!(xz(&[0]), Some(0));
        assert_eq!(xz(&[2, 0, 0x21]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_header_is_too_odd_to_be_read(rest: Vec<u8>) {
            for magic in [&b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46"[..], b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b""] {
                let head = [magic, &rest].concat();
                for format in [Format::Gzip, Format::Xz, Format::Zstd] {
                    let _ = (format.starts(&head), format.window(&head));
                }
            }
        }
    }
}
