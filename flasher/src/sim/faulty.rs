//! Any device, with a fault at a chosen place.

use std::io;
use std::ops::Range;

use crate::device::{Geometry, Mtd, MtdError, ReadHealth};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Erases are taken without an error and do nothing.
    EraseIgnored,
    /// Programs are taken without an error and do nothing.
    ProgramIgnored,
    /// Erase call number N (from 0) reports EIO and does nothing.
    EraseFails(u64),
    /// Program call number N (from 0) reports EIO and does nothing.
    ProgramFails(u64),
    /// Read call number N (from 0) reports EIO.
    ReadFails(u64),
    /// Erase calls report EIO and do nothing, from number N on.
    EraseFailsFrom(u64),
    /// Program calls report EIO and do nothing, from number N on.
    ProgramFailsFrom(u64),
    /// Read calls report EIO, from number N on.
    ReadFailsFrom(u64),
    /// Read call number N (from 0) returns one flipped bit in its first byte.
    ReadFlips(u64),
    /// The byte at this offset never reads 1 in its lowest bit.
    StuckBit(u64),
    /// Only so many low address bits reach the chip.
    AddressWraps(u32),
    /// Locking fails.
    LockFails,
}

/// A device that behaves like the one inside, but for one fault.
#[derive(Debug, Clone)]
pub struct Faulty<M> {
    inner: M,
    fault: Fault,
    reads: u64,
    erases: u64,
    programs: u64,
}

impl<M: Mtd> Faulty<M> {
    /// Puts the fault between the device and its user.
    pub fn new(inner: M, fault: Fault) -> Self {
        Self { inner, fault, reads: 0, erases: 0, programs: 0 }
    }

    /// The device inside.
    pub fn inner(&self) -> &M {
        &self.inner
    }

    /// How many reads there were: the number of the next one.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// Whether the call fails, with a fault that says at which number or from which on.
    fn fails(&self, at: u64, number: u64) -> bool {
        let lasting = matches!(
            self.fault,
            Fault::EraseFailsFrom(_) | Fault::ProgramFailsFrom(_) | Fault::ReadFailsFrom(_)
        );
        at == number || lasting && at < number
    }

    fn place(&self, offset: u64) -> u64 {
        match self.fault {
            Fault::AddressWraps(bits) => offset & ((1 << bits) - 1),
            _ => offset,
        }
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
        if let Fault::ReadFails(at) | Fault::ReadFailsFrom(at) = self.fault
            && self.fails(at, number)
        {
            return Err(MtdError::Read { offset, length: buf.len() as u64, source: eio() });
        }
        let place = self.place(offset);
        let health = self.inner.read(place, buf)?;
        match self.fault {
            Fault::ReadFlips(at) if at == number => {
                if let Some(byte) = buf.first_mut() {
                    *byte ^= 0x10;
                }
            }
            Fault::StuckBit(at) => {
                let byte = at.checked_sub(offset).and_then(|at| buf.get_mut(usize::try_from(at).ok()?));
                if let Some(byte) = byte {
                    *byte &= 0xfe;
                }
            }
            _ => {}
        }
        Ok(health)
    }

    fn erase(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        let number = count(&mut self.erases);
        match self.fault {
            Fault::EraseIgnored => Ok(()),
            Fault::EraseFails(at) | Fault::EraseFailsFrom(at) if self.fails(at, number) => {
                Err(MtdError::Erase { start: range.start, end: range.end, source: eio() })
            }
            Fault::AddressWraps(_) => {
                let blocks: Vec<_> = self.inner.geometry().blocks(range).collect();
                blocks.into_iter().try_for_each(|block| {
                    let start = self.place(block.start);
                    self.inner.erase(start..start + block.len)
                })
            }
            _ => self.inner.erase(range),
        }
    }

    fn program(&mut self, offset: u64, bytes: &[u8]) -> Result<(), MtdError> {
        let number = count(&mut self.programs);
        match self.fault {
            Fault::ProgramIgnored => Ok(()),
            Fault::ProgramFails(at) | Fault::ProgramFailsFrom(at) if self.fails(at, number) => {
                Err(MtdError::Program { offset, length: bytes.len() as u64, source: eio() })
            }
            _ => self.inner.program(self.place(offset), bytes),
        }
    }

    fn is_locked(&mut self, range: Range<u64>) -> Result<bool, MtdError> {
        self.inner.is_locked(range)
    }

    fn unlock(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        self.inner.unlock(range)
    }

    fn lock(&mut self, range: Range<u64>) -> Result<(), MtdError> {
        match self.fault {
            Fault::LockFails => {
                Err(MtdError::Lock { what: "lock", start: range.start, end: range.end, source: eio() })
            }
            _ => self.inner.lock(range),
        }
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
}
