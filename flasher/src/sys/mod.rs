//! The kernel's interfaces: the only rooms with `unsafe` code.

pub(crate) mod ioctl;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod ubi;

#[cfg(test)]
pub(crate) mod counting;
