//! The fuzz targets of the services on the stable compiler: for a few seconds each the stored corpus is mutated, from a
//! printed seed. `FUZZ_SEED` repeats a run, `FUZZ_SECONDS` makes it longer. `cargo fuzz` runs the same functions.

#[path = "../fuzz/services.rs"]
mod services;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is put into inputs beside their own parts.
const WORDS: [&[u8]; 16] = [
    b"\x1e",
    b"\n",
    b"a/type\nbundle",
    b"b/type\noneshot",
    b"a/dependencies.d/b",
    b"a/contents\na\n",
    b"timeout-up",
    b"18446744073709551616",
    b"-1",
    b"\"",
    b" -- ",
    b"wait=",
    b"SIGKILL",
    b"once",
    b"\xff\xfe",
    b"../",
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(64) + 1)
    }
}

/// One small change.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len());
    match random.below(6) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 => drop(bytes.drain(random.range(bytes.len()))),
        2 => {
            let part = bytes[random.range(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        3 => {
            let word = WORDS[random.below(WORDS.len())].iter().copied();
            bytes.splice(at..at, word);
        }
        4 => {
            let part = other[random.range(other.len())].to_vec();
            bytes.splice(at..at, part);
        }
        _ => bytes.truncate(at),
    }
}

fn run(name: &str, target: fn(&[u8])) {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
    let seed = number("FUZZ_SEED").unwrap_or(clock);
    let mut out = std::io::stdout();
    writeln!(out, "fuzz {name}: FUZZ_SEED={seed} repeats this").unwrap();
    let corpus = corpus(name);
    for bytes in &corpus {
        target(bytes);
    }
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(2));
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut runs = 0_u64;
    while Instant::now() < end {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(6) {
            let other = &corpus[random.below(corpus.len())];
            mutate(&mut random, &mut bytes, other);
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&bytes))) {
            writeln!(out, "fuzz {name}: seed {seed}, run {runs}: b\"{}\"", bytes.escape_ascii()).unwrap();
            std::panic::resume_unwind(panic);
        }
        runs += 1;
    }
    writeln!(out, "fuzz {name}: {runs} inputs").unwrap();
}

#[test]
fn no_service_directory_is_too_odd_to_be_read_or_refused() {
    run("service_dir", services::service_dir);
}

#[test]
fn no_line_on_the_control_socket_is_too_odd_to_be_answered() {
    run("control", services::control);
}
