//! What a run is asked to do.

/// What happens to the image's head, by which a boot loader knows the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Head {
    /// Invalid first, completed last, after the body was proven.
    #[default]
    Auto,
    /// In ascending order like any other block: one erase less at times, and no promise after a power cut.
    Keep,
}

/// What a run does to the flash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Bring the image onto the flash and prove it.
    #[default]
    Write,
    /// Say what would be done.
    DryRun,
    /// Compare, and write nothing.
    VerifyOnly,
}

/// Which blocks are rewritten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Extent {
    /// Those that differ from the image.
    #[default]
    Differing,
    /// All of the image's, to refresh their cells.
    Full,
}

/// What happens behind the image's last erase block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rest {
    /// Left as it is.
    #[default]
    Leave,
    /// Erased to the partition's end, like `flashcp -A`.
    Erase,
}

/// Whether a check may be overridden.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Check {
    /// What it finds is a refusal.
    #[default]
    Refuse,
    /// The user has said by name that it does not matter.
    Allow,
}

/// Clearing bits without an erase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClearBits {
    /// On serial NOR only.
    #[default]
    WhereSafe,
    /// On parallel NOR too: the user knows that the chip keeps its ECC.
    Allow,
}

/// Bad blocks of NAND.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BadBlocks {
    /// One within the image's range is a refusal: only the user knows whether the boot loader skips them.
    #[default]
    Refuse,
    /// The image goes on in the next good block. None is ever marked: a mark cannot be taken back, and a
    /// low supply voltage makes good blocks fail too.
    Skip,
    /// The same, and a block whose erase or program reports an error three times over is marked bad (the data sheets'
    /// criterion; `nandwrite --markbad` does it after one), and the image moves on by a block.
    Mark,
}

/// Everything a run is asked to do. The default is plain `flashcp IMAGE DEVICE`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// What to do at all.
    pub mode: Mode,
    /// How the head is treated.
    pub head: Head,
    /// The head's size in bytes; `None` is the first erase block. It is widened to whole granules.
    pub head_size: Option<u64>,
    /// Which blocks are rewritten.
    pub extent: Extent,
    /// What happens behind the image.
    pub rest: Rest,
    /// Whether flash that is in use may be written.
    pub in_use: Check,
    /// Whether an image of another kind than the target holds may be written.
    pub content: Check,
    /// Whether a UBI image may be written onto raw NAND, which loses the erase counters of the blocks.
    pub raw_ubi: Check,
    /// Where bits may be cleared without an erase.
    pub clear_bits: ClearBits,
    /// What is done about bad blocks.
    pub bad_blocks: BadBlocks,
    /// The image's SHA-256 in lower-case hexadecimal, if the user knows it.
    pub sha256: Option<String>,
    /// The image's size in bytes, if the user knows it.
    pub size: Option<u64>,
}
