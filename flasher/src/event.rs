//! What a run tells while it runs. Nothing in the library prints.
//!
//! The order: [`Event::Input`] if the image is compressed, [`Phase::Survey`] progress, [`Event::Map`] in a dry run,
//! [`Event::Plan`] (totals are known from here on), [`Event::FirstChange`] if
//! anything changes, progress of [`Phase::Erase`], [`Phase::Write`] and [`Phase::Verify`] in any order (each ends
//! with `done == total`), with [`Event::Retry`] between them.

use crate::map::Map;
use crate::plan::Summary;

/// What is going on. Erase counts blocks, the others bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Flash and image are compared; nothing has changed.
    Survey,
    /// Blocks are erased.
    Erase,
    /// Bytes are programmed.
    Write,
    /// What was changed is read back and compared, and of kept blocks what [`crate::readback`] says; counted are all bytes
    /// of the range.
    Verify,
}

/// What was done to the chip so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Operations {
    /// Blocks erased.
    pub erases: u64,
    /// Bytes programmed.
    pub programmed: u64,
    /// Bytes read.
    pub read: u64,
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The image is compressed.
    Input {
        /// How: `gzip`, `xz` or `zstd`.
        format: &'static str,
        /// The decoder's window in bytes: how far back the data refers.
        window: u64,
        /// What the decoder takes at most, in bytes, on top of everything else.
        memory: u64,
    },
    /// What would happen to each block; told by a dry run only.
    Map(Map),
    /// What will be done.
    Plan(Summary),
    /// From here on the flash changes.
    FirstChange,
    /// A phase has come further. A phase with nothing to do is told once, with 0 of 0.
    Progress {
        /// Which.
        phase: Phase,
        /// Blocks or bytes done.
        done: u64,
        /// Blocks or bytes in all.
        total: u64,
        /// Everything done to the chip so far.
        operations: Operations,
    },
    /// Bytes read back wrong: they are read or written again.
    Retry {
        /// Where on the partition, in bytes from its start, bad blocks counted.
        offset: u64,
        /// What is done about it.
        what: Retry,
    },
}

/// What is done about a mismatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Read again: the second reading was right.
    Reread,
    /// Erased and written again.
    Rewrite,
}

/// Somebody who listens. Must not block: it is called between operations on the chip.
pub trait Progress {
    /// Takes one piece of news.
    fn event(&mut self, event: &Event);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _: &Event) {}
}
