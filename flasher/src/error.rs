//! What can go wrong, as a caller can match it and as a user reads it.

use std::io;

use crate::content::Content;
use crate::device::MtdError;
use crate::guard::{FactsError, Verdict};
use crate::kernel::OpenError;
use crate::plan_file::PlanError;
use crate::source::ImageError;
use crate::target::TargetError;
use crate::ubi::UbiError;

/// Why a run did not succeed. Offsets are bytes from the target's start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The device reported an error.
    #[error(transparent)]
    Chip(#[from] MtdError),
    /// The device's name means no partition.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The system could not be looked at.
    #[error("cannot tell who uses the flash: {0}")]
    Facts(#[from] FactsError),
    /// The device could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A UBI device reported an error.
    #[error(transparent)]
    Ubi(#[from] UbiError),
    /// A static volume is told its size before its first byte.
    #[error("{target} is a static volume: the size of an image for it must be known before it is written")]
    StreamToStatic {
        /// The volume.
        target: String,
    },
    /// Somebody uses the UBI volume.
    #[error("{target} is in use: {}", users.join("; "))]
    VolumeInUse {
        /// The volume.
        target: String,
        /// By whom.
        users: Vec<String>,
    },
    /// The volume that bears the name of the one that would be made cannot be what a run has left there.
    #[error(
        "{other} is where the new volume for {target} would be made, and no run of this tool has left it: {} expected, {} \
         found",
        shapes.0, shapes.1
    )]
    VolumeInTheWay {
        /// The volume.
        target: String,
        /// The one in the way.
        other: String,
        /// Kind and size of what would be made, and of what is there.
        shapes: Box<(String, String)>,
    },
    /// A UBI image is for a whole MTD device.
    #[error("the image {image} is a UBI image: it is for the flash below UBI, not for the volume {target}")]
    UbiInVolume {
        /// The volume.
        target: String,
        /// The image's name.
        image: String,
    },
    /// The image is larger than the partition.
    #[error(
        "the image {image} does not fit: it has {size} bytes, {target} has {room} ({} too many)",
        size - room
    )]
    TooLarge {
        /// The image's name.
        image: String,
        /// Its size in bytes.
        size: u64,
        /// The partition.
        target: String,
        /// The partition's size in bytes.
        room: u64,
    },
    /// The stream goes on behind the partition's end.
    #[error("the image {image} does not fit: it goes on behind the {room} bytes of {target}")]
    StreamTooLarge {
        /// The image's name.
        image: String,
        /// The partition.
        target: String,
        /// The partition's size in bytes.
        room: u64,
    },
    /// A stream's head is held in memory until the end is proven.
    #[error("a head of {size} bytes is too long for an image that can be read once only: {most} at most")]
    HeadTooLong {
        /// The head's size, in whole erase blocks.
        size: u64,
        /// The largest that is possible.
        most: u64,
    },
    /// The file that says what to write cannot be used.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Two images of a plan would be written over each other.
    #[error("the plan writes {first} and {second} over each other")]
    Overlap {
        /// The image and partition that come first.
        first: String,
        /// The others.
        second: String,
    },
    /// The kernel forbids to write the partition.
    #[error("{target} is read-only: the kernel's partition table forbids to write it")]
    ReadOnly {
        /// The partition.
        target: String,
    },
    /// Somebody uses these bytes.
    #[error("{target} is in use:\n{verdict}")]
    InUse {
        /// The partition.
        target: String,
        /// By whom.
        verdict: Box<Verdict>,
    },
    /// The image is another kind of thing than what the target holds.
    #[error("{target} starts with {expected} today, the image {image} with {}", kind(*found))]
    Content {
        /// The partition.
        target: String,
        /// What it holds.
        expected: Content,
        /// The image's name.
        image: String,
        /// What the image is.
        found: Option<Content>,
    },
    /// The image starts like one that a boot loader checks, and would not pass.
    #[error("the image {image} is a damaged {kind}: {what}")]
    Damaged {
        /// The image's name.
        image: String,
        /// What it starts like, without an article.
        kind: &'static str,
        /// What is wrong with it, with numbers.
        what: String,
    },
    /// A UBI image must keep the erase counters of raw NAND, which only `ubiformat` does.
    #[error(
        "{target} is raw NAND and the image {image} is a UBI image: use ubiformat, which keeps the erase counters"
    )]
    UbiOnNand {
        /// The partition.
        target: String,
        /// The image's name.
        image: String,
    },
    /// The image is not the one the user named by its digest.
    #[error("the image {image} has another SHA-256: {expected} expected, {found} found")]
    Digest {
        /// The image's name.
        image: String,
        /// What the user said, in hexadecimal.
        expected: String,
        /// What it has.
        found: String,
    },
    /// A block in the range is marked bad.
    #[error("{target} has a bad block at {offset:#x}, within the range to be written")]
    BadBlock {
        /// The partition.
        target: String,
        /// The block's start.
        offset: u64,
    },
    /// Too few good blocks are left for the image.
    #[error(
        "the image {image} does not fit: it has {size} bytes, the good blocks of {target} have {room} ({} too many)",
        size - room
    )]
    TooFewGood {
        /// The image's name.
        image: String,
        /// Its size in bytes.
        size: u64,
        /// The partition.
        target: String,
        /// The size of its good blocks in bytes.
        room: u64,
    },
    /// The chip's own protection could not be opened.
    #[error("cannot unlock {start:#x} to {end:#x}: {}", unlocking(source.as_ref()))]
    Locked {
        /// The first byte that stays locked.
        start: u64,
        /// The first byte behind it.
        end: u64,
        /// What the driver said, if it said anything.
        source: Option<MtdError>,
    },
    /// A block of NAND fails again and again.
    #[error("the block at {offset:#x} is worn out: it failed again and again; last: {source}")]
    Worn {
        /// The block's start.
        offset: u64,
        /// What the driver said last.
        source: MtdError,
    },
    /// Bytes that ECC cannot correct, again and again.
    #[error(
        "verification failed at {offset:#x}: more flipped bits than ECC can correct, after {rewrites} rewrites"
    )]
    Uncorrectable {
        /// Where.
        offset: u64,
        /// How often the block was written again.
        rewrites: u32,
    },
    /// The device's sizes cannot be worked with.
    #[error("{target} cannot be written: {what}")]
    Geometry {
        /// The partition.
        target: String,
        /// What does not fit together, with numbers.
        what: String,
    },
    /// Another process writes flash.
    #[error("flash is being written by process {pid} ({command}); wait for it to finish")]
    Busy {
        /// The other process.
        pid: u32,
        /// Its command line.
        command: String,
    },
    /// The record of the run could not be written.
    #[error("cannot write the record {path}: {source}")]
    Record {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The block device of the flash could not be opened exclusively.
    #[error("mtd{number} is in use: its block device cannot be opened exclusively: {source}")]
    Claim {
        /// N of mtdN.
        number: u32,
        /// What the system said.
        source: io::Error,
    },
    /// Whether somebody holds the flash's block device could not be found out.
    #[error("cannot open mtd{number}'s block device exclusively, to keep others from it: {source}")]
    NotClaimed {
        /// N of mtdN.
        number: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The chip took an operation without an error and did nothing.
    #[error(
        "the {what} at {offset:#x} had no effect though no error was reported: the chip is write-protected \
         (its WP# pin, or protection bits in its status register)"
    )]
    Protected {
        /// `erase` or `write`.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// A block that was proven when it was written holds something else now.
    #[error(
        "verification failed: {start:#x} to {end:#x} was right when it was written and is not any more; the chip or its \
         driver may ignore an address line"
    )]
    Overwritten {
        /// The block's first byte.
        start: u64,
        /// The first byte behind it.
        end: u64,
    },
    /// A block of a volume is not what was written to it.
    #[error("verification failed: {start:#x} to {end:#x} does not read back as it was written")]
    ReadBack {
        /// The block's first byte.
        start: u64,
        /// The first byte behind it.
        end: u64,
    },
    /// Bytes read back wrong, again and again.
    #[error(
        "verification failed at {offset:#x}: {expected:#04x} expected, {found:#04x} found ({direction}), after \
         {rewrites} rewrites"
    )]
    Mismatch {
        /// The first wrong byte.
        offset: u64,
        /// What was written.
        expected: u8,
        /// What was read.
        found: u8,
        /// Which way its bits are wrong.
        direction: Direction,
        /// How often the block was written again.
        rewrites: u32,
    },
}

/// Which way the bits of a wrong byte are wrong: a hint at what ails the chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Bits that should be 0 read 1: not programmed, or lost charge.
    ReadsOne,
    /// Bits that should be 1 read 0: not erased, or programmed by something else.
    ReadsZero,
    /// Both: the bytes are another place's, or the bus is at fault.
    Both,
}

impl Direction {
    /// The direction in which `found` is wrong.
    #[must_use]
    pub fn of(expected: u8, found: u8) -> Self {
        match (found & !expected != 0, expected & !found != 0) {
            (true, false) => Self::ReadsOne,
            (false, _) => Self::ReadsZero,
            (true, true) => Self::Both,
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReadsOne => "bits that should be 0 read 1",
            Self::ReadsZero => "bits that should be 1 read 0",
            Self::Both => "bits are wrong in both directions",
        })
    }
}

fn unlocking(source: Option<&MtdError>) -> String {
    match source {
        None => "the chip stays locked though no error was reported".to_owned(),
        Some(MtdError::Lock { source, .. }) => source.to_string(),
        Some(error) => error.to_string(),
    }
}

fn kind(found: Option<Content>) -> String {
    found.map_or_else(|| "something unknown".to_owned(), |found| found.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each C library has its own words.
    fn system(number: i32) -> String {
        io::Error::from_raw_os_error(number).to_string()
    }

    fn text(error: &Error) -> String {
        error.to_string()
    }

    #[test]
    fn errors_say_what_was_expected_and_what_was_found() {
        let target = || "mtd5 \"firmware\"".to_owned();
        let image = || "fw.bin".to_owned();
        assert_eq!(
            text(&Error::TooLarge { image: image(), size: 1025, target: target(), room: 1024 }),
            "the image fw.bin does not fit: it has 1025 bytes, mtd5 \"firmware\" has 1024 (1 too many)"
        );
        assert_eq!(
            text(&Error::ReadOnly { target: target() }),
            "mtd5 \"firmware\" is read-only: the kernel's partition table forbids to write it"
        );
        let content =
            |found| Error::Content { target: target(), expected: Content::Fit, image: image(), found };
        assert_eq!(
            text(&content(None)),
            "mtd5 \"firmware\" starts with a FIT image today, the image fw.bin with something unknown"
        );
        assert_eq!(
            text(&content(Some(Content::Squashfs))),
            "mtd5 \"firmware\" starts with a FIT image today, the image fw.bin with a squashfs"
        );
        assert_eq!(
            text(&Error::UbiOnNand { target: target(), image: image() }),
            "mtd5 \"firmware\" is raw NAND and the image fw.bin is a UBI image: use ubiformat, which keeps the erase \
             counters"
        );
        assert_eq!(
            text(&Error::Digest { image: image(), expected: "aa".to_owned(), found: "bb".to_owned() }),
            "the image fw.bin has another SHA-256: aa expected, bb found"
        );
        assert_eq!(
            text(&Error::BadBlock { target: target(), offset: 0x20000 }),
            "mtd5 \"firmware\" has a bad block at 0x20000, within the range to be written"
        );
        assert_eq!(
            text(&Error::TooFewGood { image: image(), size: 1025, target: target(), room: 1024 }),
            "the image fw.bin does not fit: it has 1025 bytes, the good blocks of mtd5 \"firmware\" have 1024 (1 too many)"
        );
        let source = MtdError::Erase {
            start: 0x20000,
            end: 0x40000,
            source: io::Error::from_raw_os_error(nix::libc::EIO),
        };
        assert_eq!(
            text(&Error::Worn { offset: 0x20000, source }),
            format!(
                "the block at 0x20000 is worn out: it failed again and again; last: cannot erase 0x20000 to 0x40000: {}",
                system(nix::libc::EIO)
            )
        );
        assert_eq!(
            text(&Error::Locked { start: 0x100, end: 0x200, source: None }),
            "cannot unlock 0x100 to 0x200: the chip stays locked though no error was reported"
        );
        let source = Some(MtdError::Unsupported);
        assert_eq!(
            text(&Error::Locked { start: 0x100, end: 0x200, source }),
            "cannot unlock 0x100 to 0x200: the device does not support it"
        );
        assert_eq!(
            text(&Error::Uncorrectable { offset: 0x800, rewrites: 2 }),
            "verification failed at 0x800: more flipped bits than ECC can correct, after 2 rewrites"
        );
        assert_eq!(
            text(&Error::Busy { pid: 77, command: "flashcp -v fw.bin mtd5".to_owned() }),
            "flash is being written by process 77 (flashcp -v fw.bin mtd5); wait for it to finish"
        );
        assert_eq!(
            text(&Error::Protected { what: "erase", offset: 0 }),
            "the erase at 0x0 had no effect though no error was reported: the chip is write-protected (its WP# pin, \
             or protection bits in its status register)"
        );
        let mismatch = Error::Mismatch {
            offset: 0x1234,
            expected: 0x0f,
            found: 0x1f,
            direction: Direction::of(0x0f, 0x1f),
            rewrites: 2,
        };
        assert_eq!(
            text(&mismatch),
            "verification failed at 0x1234: 0x0f expected, 0x1f found (bits that should be 0 read 1), after 2 rewrites"
        );
        let claim = Error::Claim { number: 3, source: io::Error::from_raw_os_error(nix::libc::EBUSY) };
        assert_eq!(
            text(&claim),
            format!(
                "mtd3 is in use: its block device cannot be opened exclusively: {}",
                system(nix::libc::EBUSY)
            )
        );
    }

    #[test]
    fn wrong_bits_have_a_direction() {
        assert_eq!(Direction::of(0b0001, 0b0011), Direction::ReadsOne);
        assert_eq!(Direction::of(0b0011, 0b0001), Direction::ReadsZero);
        assert_eq!(Direction::of(0b0101, 0b0011), Direction::Both);
    }
}
