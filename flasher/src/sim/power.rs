//! The supply of a simulated chip: it can be cut off inside any operation.

use std::io;

/// What an erase that was cut off leaves of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfErase {
    /// The chip was still filling the block with zeros, from its end: the old data's start still stands.
    ZerosFromEnd,
    /// It was filled with zeros, and not erased yet.
    AllZero,
    /// The first part reads 0xff, the rest is old data. The part's bits are weak.
    PartErased,
    /// All reads 0xff, but some bits are weak: programmed over, they read 0 later.
    Weak,
}

impl HalfErase {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::ZerosFromEnd, Self::AllZero, Self::PartErased, Self::Weak];
}

/// When the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// The number of the erase or program call in which it happens, from 0.
    at: u64,
    /// How far into the operation, in sixteenths.
    pub(super) sixteenths: u64,
    pub(super) half: HalfErase,
}

impl Cut {
    /// How many of `count` pieces were done whole.
    pub(super) fn done(&self, count: u64) -> u64 {
        count * self.sixteenths / 16
    }
}

/// What a chip without power answers.
#[must_use]
pub fn power_lost() -> io::Error {
    io::Error::other("power lost")
}

/// The supply, and how often the chip was called that is on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Power {
    cut: Option<Cut>,
    off: bool,
    calls: u64,
}

impl Power {
    /// Cuts itself off inside the erase or program call number `at` (from 0), `sixteenths` of the way through it.
    pub(super) fn cut(&mut self, at: u64, sixteenths: u64, half: HalfErase) {
        self.cut = Some(Cut { at, sixteenths: sixteenths.min(16), half });
    }

    /// Comes back; calls are counted from 0 again.
    pub(super) fn cycle(&mut self) {
        *self = Self::default();
    }

    /// How many erase and program calls there were.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// An error while it is off.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.off { Err(power_lost()) } else { Ok(()) }
    }

    /// Counts a call; the cut, if it happens in this one.
    pub(super) fn call(&mut self) -> Option<Cut> {
        let number = self.calls;
        self.calls += 1;
        let cut = self.cut.filter(|cut| cut.at == number);
        self.off |= cut.is_some();
        cut
    }
}
