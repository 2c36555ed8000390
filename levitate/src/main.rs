//! Stage a minimal system into RAM and move PID 1 into it.
fn main() {}
