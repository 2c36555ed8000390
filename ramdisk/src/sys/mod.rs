//! System calls that the standard library and nix do not wrap: the only unsafe code of this crate.

pub(crate) mod process;
pub(crate) mod time;
pub(crate) mod watchdog;
