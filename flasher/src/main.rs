//! From a firmware image to verified flash.
fn main() {}
