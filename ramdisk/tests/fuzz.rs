//! The fuzz targets on the stable compiler: for a few seconds each the stored corpus is mutated, from a printed seed.
//!
//! `FUZZ_SEED` repeats a run, `FUZZ_SECONDS` makes it longer. `cargo fuzz` runs the same functions.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Said even where the test harness keeps a passing test's output to itself.
macro_rules! say {
    ($($text:tt)*) => {{
        let mut out = std::io::stdout();
        writeln!(out, $($text)*).unwrap();
    }};
}

/// What is put into inputs beside their own parts: the parsers' own words, and numbers at their limits.
const WORDS: [&[u8]; 12] = [
    b"070701",
    b"TRAILER!!!\0",
    b"00000000",
    b"FFFFFFFF",
    b"000041ED",
    b"000081A4",
    b"0000A1FF",
    b"00000002",
    b"../",
    b"/",
    b"\0",
    b"d/up",
];

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut entries: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
        })
        .collect();
    entries.sort();
    assert!(!entries.is_empty());
    entries
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
    match random.below(7) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
        2 => drop(bytes.drain(random.range(bytes.len()))),
        3 => {
            let part = bytes[random.range(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        4 => {
            let word = WORDS[random.below(WORDS.len())].iter().copied();
            bytes.splice(at..at, word);
        }
        5 => {
            let part = other[random.range(other.len())].to_vec();
            bytes.splice(at..at, part);
        }
        _ => bytes.truncate(at),
    }
}

fn run(name: &str, target: fn(&[u8])) {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
    let seed = number("FUZZ_SEED").unwrap_or(clock);
    say!("fuzz {name}: FUZZ_SEED={seed} repeats this");
    let corpus = corpus(name);
    for (_, bytes) in &corpus {
        target(bytes);
    }
    let end = Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(2));
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut runs = 0_u64;
    while Instant::now() < end {
        let mut bytes = corpus[random.below(corpus.len())].1.clone();
        for _ in 0..=random.below(6) {
            let other = &corpus[random.below(corpus.len())].1;
            mutate(&mut random, &mut bytes, other);
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&bytes))) {
            say!("fuzz {name}: seed {seed}, run {runs}, the input: b\"{}\"", bytes.escape_ascii());
            std::panic::resume_unwind(panic);
        }
        runs += 1;
    }
    say!("fuzz {name}: {runs} inputs");
    assert!(runs > 0);
}

#[test]
fn no_archive_is_too_hostile_to_be_refused_or_to_stay_in_its_root() {
    run("newc", targets::newc);
}
