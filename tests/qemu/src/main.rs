//! The QEMU harness.
#![allow(dead_code)]

pub mod assets;
pub mod suite;

fn main() {}
