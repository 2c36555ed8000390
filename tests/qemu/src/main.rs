//! The QEMU harness.
#![allow(dead_code)]

pub mod assets;
pub mod progress;
pub mod suite;

fn main() {
    match assets::prepare() {
        Ok(assets) => println!("{}", serde_json::to_string_pretty(&assets).unwrap()),
        Err(error) => eprintln!("error: {error}"),
    }
}
