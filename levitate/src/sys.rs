//! The system calls: the only unsafe code of this crate.

pub(crate) mod handover;
pub(crate) mod privilege;
pub(crate) mod signals;
pub(crate) mod trial;
