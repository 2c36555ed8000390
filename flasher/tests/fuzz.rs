//! What comes from outside: lists of the kernel's, plans, compressed images.

#[path = "../../tests/fuzz/runner.rs"]
mod runner;
#[path = "../fuzz/targets.rs"]
mod targets;

use runner::{corpus, run};

/// The parsers' own words.
const WORDS: [&[u8]; 14] = [
    b"mtd",
    b"\"",
    b" - ",
    b"\\040",
    b"\n",
    b"18446744073709551616",
    b"31:3",
    b"ubi0:x",
    b"[[flash]]\n",
    b"partition = \"a\"\n",
    b"\x1f\x8b\x08\xff",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"\xff\xff\xff\xff",
];

#[test]
fn no_list_of_partitions_is_too_odd_to_be_read() {
    run("mtd_list", &WORDS, targets::mtd_list);
}

#[test]
fn no_list_of_mounts_is_too_odd_to_be_read() {
    run("mountinfo", &WORDS, targets::mountinfo);
}

#[test]
fn no_plan_is_too_odd_to_be_refused() {
    run("plan", &WORDS, targets::plan);
}

#[test]
fn no_compressed_stream_is_too_broken_to_be_refused() {
    run("compressed", &WORDS, targets::compressed);
}

#[test]
fn a_compressed_stream_cut_short_or_corrupted_is_never_taken_for_whole() {
    for (name, bytes) in corpus("compressed") {
        let whole = targets::decoded(&bytes).unwrap();
        for end in 0..bytes.len() {
            // What ends between two members is whole.
            let is_member =
                name == "two.gz" && targets::decoded(&bytes[..end]).is_some_and(|found| found == b"one");
            assert!(is_member || targets::decoded(&bytes[..end]).is_none(), "{name}, cut at {end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                // Some bits of a header mean nothing to the contents: a time, an operating system.
                assert!(
                    targets::decoded(&bytes).is_none_or(|found| found == whole),
                    "{name}, bit {bit} of {at}"
                );
            }
        }
    }
}
