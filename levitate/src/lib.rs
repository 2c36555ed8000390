//! Stage a minimal system into RAM and move PID 1 into it, so that the flash can be rewritten.

pub mod handover;
pub mod manifest;
pub mod state;

mod sys;
