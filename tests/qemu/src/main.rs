//! The QEMU harness.
fn main() {}
