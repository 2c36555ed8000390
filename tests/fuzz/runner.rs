//! Fuzzing on the stable compiler: for a few seconds each the stored corpus of a target is mutated, from a printed seed.
//! `FUZZ_SEED` repeats a run, `FUZZ_SECONDS` makes it longer. `cargo fuzz` runs the same functions.
//!
//! Each crate's `tests/fuzz.rs` includes this file; the corpus is that crate's.

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

/// The stored inputs of a target, by the names of their files.
pub(crate) fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
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
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
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
            let word = words[random.below(words.len())].iter().copied();
            bytes.splice(at..at, word);
        }
        5 => {
            let part = other[random.range(other.len())].to_vec();
            bytes.splice(at..at, part);
        }
        _ => bytes.truncate(at),
    }
}

/// Runs the stored inputs of a target, then changes of them for some seconds. `words` are put into inputs beside their own
/// parts: the parser's own words, and numbers at their limits.
pub(crate) fn run(name: &str, words: &[&[u8]], target: fn(&[u8])) {
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
            mutate(&mut random, &mut bytes, other, words);
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
