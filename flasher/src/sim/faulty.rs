//! Any device, with faults at chosen places.

use std::io;
use std::ops::Range;

use crate::device::{Geometry, Mtd, MtdError, ReadHealth};

/// What goes wrong. Calls are numbered from 0, each kind by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Erases are taken without an error and do nothing.
    EraseIgnored,
    /// Programs are taken without an error and do nothing.
    ProgramIgnored,
    /// Erase call number N is taken without an error and does nothing.
    EraseIgnoredOnce(u64),
    /// Program call number N is taken without an error and does nothing.
    ProgramIgnoredOnce(u64),
    /// From this offset on the chip is write-protected: erases and programs are taken and do nothing.
    ProtectedFrom(u64),
    /// Erase call number N reports EIO and does nothing.
    EraseFails(u64),
    /// Program call number N reports EIO and does nothing.
    ProgramFails(u64),
    /// Read call number N reports EIO.
    ReadFails(u64),
    /// Erase calls report EIO and do nothing, from number N on.
    EraseFailsFrom(u64),
    /// Program calls report EIO and do nothing, from number N on.
    ProgramFailsFrom(u64),
    /// Read calls report EIO, from number N on.
    ReadFailsFrom(u64),
    /// Program call number N programs the first half of its bytes and reports EIO.
    ProgramTorn(u64),
    /// Program call number N programs the first half of its bytes and reports success.
    ProgramShort(u64),
    /// Program call number N clears one bit too many in its last byte.
    ProgramFlips(u64),
    /// Read call number N returns one flipped bit in its first byte.
    ReadFlips(u64),
    /// The byte at this offset never reads 1 in its lowest bit.
    StuckBit(u64),
    /// The byte at this offset never reads 0 in its lowest bit.
    StuckOne(u64),
    /// Erasing the block that starts at this offset reports EIO, always.
    WornBlock(u64),
    /// Only so many low address bits reach the chip.
    AddressWraps(u32),
    /// An address line (by its number) is always 0.
    LineLow(u32),
    /// An address line (by its number) is always 1.
    LineHigh(u32),
    /// An erase takes all blocks of an aligned group of so many with it.
    EraseTimes(u64),
    /// Erases and programs reach a second place as well, where this address line differs; reads do not.
    AlsoAt(u32),
    /// Program call number N arrives where the address differs in these bits, and not where it should.
    ProgramAstray(u64, u64),
    /// Locking fails.
    LockFails,
    /// Locking anything locks everything.
    LocksAll,
    /// Unlocking reports success and does nothing.
    UnlockIgnored,
    /// Unlocking fails.
    UnlockFails,
}

impl Fault {
    /// Every kind that happens at a call with a number, with that number.
    #[must_use]
    pub fn at_call(number: u64) -> [Self; 13] {
        [
            Self::EraseIgnoredOnce(number),
            Self::ProgramIgnoredOnce(number),
            Self::EraseFails(number),
            Self::ProgramFails(number),
            Self::ReadFails(number),
            Self::EraseFailsFrom(number),
            Self::ProgramFailsFrom(number),
            Self::ReadFailsFrom(number),
            Self::ProgramTorn(number),
            Self::ProgramShort(number),
            Self::ProgramFlips(number),
            Self::ReadFlips(number),
            Self::AddressWraps(u32::try_from(number + 8).unwrap_or(63).min(63)),
        ]
    }

    /// Every kind that lies at an offset, with that offset.
    #[must_use]
    pub fn at_offset(offset: u64) -> [Self; 4] {
        [Self::StuckBit(offset), Self::StuckOne(offset), Self::WornBlock(offset), Self::ProtectedFrom(offset)]
    }
}

/// A device that behaves like the one inside, but for some faults.
#[derive(Debug, Clone)]
pub struct Faulty<M> {
    inner: M,
    faults: Vec<Fault>,
    reads: u64,
    erases: u64,
    programs: u64,
}

impl<M: Mtd> Faulty<M> {
    /// Puts a fault between the device and its user.
    pub fn new(inner: M, fault: Fault) -> Self {
        Self::with_all(inner, vec![fault])
    }

    /// The same with any number of them.
    pub fn with_all(inner: M, faults: Vec<Fault>) -> Self {
        Self { inner, faults, reads: 0, erases: 0, programs: 0 }
    }

    /// The device inside.
    pub fn inner(&self) -> &M {
        &self.inner
    }

    /// The device inside, without its faults.
    pub fn into_inner(self) -> M {
        self.inner
    }

    /// How many reads there were: the number of the next one.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    fn place(&self, offset: u64) -> u64 {
        self.faults.iter().fold(offset, |offset, fault| match fault {
            Fault::AddressWraps(bits) => offset & ((1 << bits) - 1),
            Fault::LineLow(line) => offset & !(1 << line),
            Fault::LineHigh(line) => offset | 1 << line,
            _ => offset,
        })
    }

    /// Where else an operation arrives; inside the chip.
    fn second_place(&self, offset: u64) -> Option<u64> {
        let second = self.faults.iter().find_map(|fault| match fault {
            Fault::AlsoAt(line) => Some(offset ^ 1 << line),
            _ => None,
        });
        second.filter(|second| *second < self.geometry().size)
    }

    fn any(&self, is: impl Fn(Fault) -> bool) -> bool {
        self.faults.iter().any(|fault| is(*fault))
    }

    fn erase_block(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        let start = range.start;
        if self.any(|fault| matches!(fault, Fault::ProtectedFrom(from) if from <= start)) {
            return Ok(());
        }
        if self.any(|fault| matches!(fault, Fault::WornBlock(at) if range.contains(&at))) {
            return Err(MtdError::Erase { start, end: range.end, source: eio() });
        }
        let group = self.faults.iter().find_map(|fault| match fault {
            Fault::EraseTimes(times) => Some(times * (range.end - start)),
            _ => None,
        });
        if let Some(group) = group {
            let start = start / group * group;
            return self.inner.erase(start..(start + group).min(self.geometry().size));
        }
        if let Some(second) = self.second_place(start) {
            self.inner.erase(second..second + (range.end - start))?;
        }
        let place = self.place(start);
        let end = place + (range.end - start);
        // On a chip of mixed blocks the wrapped place may lie across blocks.
        let whole = self.inner.geometry().block_at(place).start == place
            && self.inner.geometry().round_up(end) == end;
        if whole { self.inner.erase(place..end) } else { Ok(()) }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EIO)
}

fn count(counter: &mut u64) -> u64 {
    *counter += 1;
    *counter - 1
}

impl<M: Mtd> Mtd for Faulty<M> {
    fn geometry(&self) -> &Geometry {
        self.inner.geometry()
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<ReadHealth, MtdError> {
        let number = count(&mut self.reads);
        if self.any(|fault| match fault {
            Fault::ReadFails(at) => at == number,
            Fault::ReadFailsFrom(at) => at <= number,
            _ => false,
        }) {
            return Err(MtdError::Read { offset, length: buf.len() as u64, source: eio() });
        }
        let health = self.inner.read(self.place(offset), buf)?;
        for fault in &self.faults {
            let index = |at: u64| usize::try_from(at.checked_sub(offset)?).ok();
            match *fault {
                Fault::ReadFlips(at) if at == number => {
                    if let Some(byte) = buf.first_mut() {
                        *byte ^= 0x10;
                    }
                }
                Fault::StuckBit(at) => {
                    if let Some(byte) = index(at).and_then(|at| buf.get_mut(at)) {
                        *byte &= 0xfe;
                    }
                }
                Fault::StuckOne(at) => {
                    if let Some(byte) = index(at).and_then(|at| buf.get_mut(at)) {
                        *byte |= 1;
                    }
                }
                _ => {}
            }
        }
        Ok(health)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        let number = count(&mut self.erases);
        if self.any(|fault| match fault {
            Fault::EraseFails(at) => at == number,
            Fault::EraseFailsFrom(at) => at <= number,
            _ => false,
        }) {
            return Err(MtdError::Erase { start: range.start, end: range.end, source: eio() });
        }
        if self.any(|fault| fault == Fault::EraseIgnored || fault == Fault::EraseIgnoredOnce(number)) {
            return Ok(());
        }
        let by_place = |fault| {
            matches!(
                fault,
                Fault::AddressWraps(_)
                    | Fault::LineLow(_)
                    | Fault::LineHigh(_)
                    | Fault::EraseTimes(_)
                    | Fault::AlsoAt(_)
                    | Fault::ProtectedFrom(_)
                    | Fault::WornBlock(_)
            )
        };
        if !self.any(by_place) {
            return self.inner.erase(range);
        }
        let blocks: Vec<_> = self.inner.geometry().blocks(range).collect();
        blocks.into_iter().try_for_each(|block| self.erase_block(block.range()))
    }

    fn program(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MtdError> {
        let number = count(&mut self.programs);
        let length = bytes.len() as u64;
        let eio = || MtdError::Program { offset, length, source: eio() };
        if self.any(|fault| match fault {
            Fault::ProgramFails(at) => at == number,
            Fault::ProgramFailsFrom(at) => at <= number,
            _ => false,
        }) {
            return Err(eio());
        }
        if self.any(|fault| match fault {
            Fault::ProgramIgnored => true,
            Fault::ProgramIgnoredOnce(at) => at == number,
            Fault::ProtectedFrom(from) => from <= offset,
            _ => false,
        }) {
            return Ok(());
        }
        if let Some(second) = self.second_place(offset) {
            self.inner.program(second, bytes)?;
        }
        let astray = self.faults.iter().find_map(|fault| match fault {
            Fault::ProgramAstray(at, bits) if *at == number => Some(*bits),
            _ => None,
        });
        let place = self.place(offset ^ astray.unwrap_or(0));
        let torn = self.any(|fault| fault == Fault::ProgramTorn(number));
        if torn || self.any(|fault| fault == Fault::ProgramShort(number)) {
            let granule = self.geometry().granule();
            let half = usize::try_from(length / 2 / granule * granule).unwrap_or(0);
            if half > 0 {
                self.inner.program(place, &bytes[..half])?;
            }
            return if torn { Err(eio()) } else { Ok(()) };
        }
        if self.any(|fault| fault == Fault::ProgramFlips(number)) {
            let mut bytes = bytes.to_vec();
            if let Some(last) = bytes.last_mut() {
                // The highest bit that shall stay 1.
                *last &= !(0x80_u8.checked_shr(last.leading_zeros()).unwrap_or(0));
            }
            return self.inner.program(place, &bytes);
        }
        self.inner.program(place, bytes)
    }

    fn is_locked(&mut self, range: Range<u64>) -> Result<bool, MtdError> {
        self.inner.is_locked(range)
    }

    fn unlock(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        if self.any(|fault| fault == Fault::UnlockIgnored) {
            return Ok(());
        }
        if self.any(|fault| fault == Fault::UnlockFails) {
            return Err(MtdError::Lock { what: "unlock", start: range.start, end: range.end, source: eio() });
        }
        self.inner.unlock(range)
    }

    fn lock(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        if self.any(|fault| fault == Fault::LockFails) {
            return Err(MtdError::Lock { what: "lock", start: range.start, end: range.end, source: eio() });
        }
        if self.any(|fault| fault == Fault::LocksAll) {
            let size = self.geometry().size;
            return self.inner.lock(0..size);
        }
        self.inner.lock(range)
    }

    fn is_bad(&mut self, offset: u64) -> Result<bool, MtdError> {
        self.inner.is_bad(offset)
    }

    fn mark_bad(&mut self, offset: u64) -> Result<(), MtdError> {
        self.inner.mark_bad(offset)
    }

    fn bitflip_threshold(&self) -> Option<u32> {
        self.inner.bitflip_threshold()
    }

    fn ecc_step(&self) -> Option<u64> {
        self.inner.ecc_step()
    }
}
