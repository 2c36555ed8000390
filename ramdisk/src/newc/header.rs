//! The 110 bytes before each entry: a magic number and thirteen numbers in eight hexadecimal digits each.

/// Bytes of a header.
pub(super) const LENGTH: usize = 110;
/// `newc`; its sibling with check sums is 070702.
pub(super) const MAGIC: &[u8; 6] = b"070701";
/// The name of the entry behind the last.
pub(super) const TRAILER: &str = "TRAILER!!!";
/// What names and contents are aligned to.
pub(super) const ALIGN: u64 = 4;

/// The bits of a mode that tell what an entry is.
pub(super) const TYPE: u32 = 0o170_000;
/// A directory.
pub(super) const DIRECTORY: u32 = 0o040_000;
/// A regular file.
pub(super) const REGULAR: u32 = 0o100_000;
/// A symlink.
pub(super) const SYMLINK: u32 = 0o120_000;

/// The names of the numbers, in order.
pub(super) const FIELDS: [&str; 13] = [
    "ino",
    "mode",
    "uid",
    "gid",
    "nlink",
    "mtime",
    "filesize",
    "devmajor",
    "devminor",
    "rdevmajor",
    "rdevminor",
    "namesize",
    "check",
];

/// The numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) ino: u32,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
    pub(super) mtime: u32,
    pub(super) size: u32,
    /// Major and minor.
    pub(super) device: (u32, u32),
    /// With the zero byte at its end.
    pub(super) name_size: u32,
}

impl Header {
    /// As it lies in the archive; the numbers of a special file are zero.
    pub(super) fn format(&self) -> String {
        let (major, minor) = self.device;
        let numbers = [
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.mtime,
            self.size,
            major,
            minor,
            0,
            0,
            self.name_size,
            0,
        ];
        let mut text = String::from("070701");
        text.extend(numbers.map(|number| format!("{number:08x}")));
        text
    }

    /// The numbers behind the magic.
    ///
    /// # Errors
    ///
    /// The name of the first that is none.
    pub(super) fn parse(bytes: &[u8; LENGTH]) -> Result<Self, &'static str> {
        let digits = bytes.get(MAGIC.len()..).unwrap_or_default();
        let mut numbers = [0; 13];
        for ((number, digits), name) in numbers.iter_mut().zip(digits.chunks_exact(8)).zip(FIELDS) {
            // from_str_radix would take a sign
            let all = digits.iter().all(u8::is_ascii_hexdigit);
            let text = std::str::from_utf8(digits).ok().filter(|_| all);
            *number = text.and_then(|text| u32::from_str_radix(text, 16).ok()).ok_or(name)?;
        }
        let [ino, mode, uid, gid, nlink, mtime, size, major, minor, _, _, name_size, _] = numbers;
        Ok(Self { ino, mode, uid, gid, nlink, mtime, size, device: (major, minor), name_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_and_a_sign_is_no_digit() {
        let header = Header {
            ino: 1,
            mode: 0o100_644,
            uid: 2,
            gid: 3,
            nlink: 4,
            mtime: 5,
            size: u32::MAX,
            device: (6, 7),
            name_size: 8,
        };
        let text = header.format();
        assert!(text.starts_with("07070100000001000081a4000000020000000300000004"), "{text}");
        let bytes: [u8; LENGTH] = text.as_bytes().try_into().unwrap();
        assert_eq!(Header::parse(&bytes), Ok(header));
        let mut signed = bytes;
        signed[54] = b'+';
        assert_eq!(Header::parse(&signed), Err("filesize"));
    }
}
