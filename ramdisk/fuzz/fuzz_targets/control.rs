#![no_main]

#[path = "../services.rs"]
#[allow(dead_code, reason = "each program runs one of the targets")]
mod services;

libfuzzer_sys::fuzz_target!(|data: &[u8]| services::control(data));
