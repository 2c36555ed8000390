//! What is fuzzed: every parser of foreign bytes, with what must hold whatever they are. Shared by the runner in
//! `flasher/tests/fuzz.rs` and by the targets of `cargo fuzz`.

use std::path::Path;

use flasher::guard::mounts_of;
use flasher::plan_file;
use flasher::source::{Decompress, Limits, stdin};
use flasher::target::list_of;

/// Enough for a decoder's window, and no more than a small device has.
const LIMITS: Limits = Limits { memory: 64 << 20 };

/// No input of the fuzzers needs to decode to more; what would is a bomb, and is read piece by piece anyway.
const MOST: usize = 1 << 20;

/// /proc/mtd
pub(crate) fn mtd_list(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let found = list_of(data);
    assert!(found.len() <= text.lines().count());
    for target in found {
        assert!(text.contains(&target.name));
        assert!(!target.name.contains('\n'));
        // What is found is found again when it is written as the kernel does.
        let line = format!(
            "mtd{}: {:08x} {:08x} \"{}\"\n",
            target.number, target.size, target.erase_size, target.name
        );
        assert_eq!(list_of(line.as_bytes()), [target]);
    }
}

/// /proc/PID/mountinfo
pub(crate) fn mountinfo(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let found = mounts_of(data);
    assert!(found.len() <= text.lines().count());
    for mount in found {
        assert!(mount.mount_point.len() + mount.fs_type.len() + mount.source.len() <= text.len());
        assert!(!mount.fs_type.contains(' '));
    }
}

/// The file of `--plan`
pub(crate) fn plan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match plan_file::parse(text, Path::new("/plans")) {
        Err(what) => assert!(!what.is_empty()),
        Ok(entries) => {
            assert!(!entries.is_empty());
            for entry in entries {
                assert!(!entry.partition.is_empty());
                assert!(entry.image.is_absolute());
                let is_digest = |text: &String| {
                    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                };
                assert!(entry.sha256.as_ref().is_none_or(is_digest));
            }
        }
    }
}

/// A compressed stream
pub(crate) fn compressed(data: &[u8]) {
    let _ = decoded(data);
}

/// The bytes of a compressed stream that proves its end; `None` for everything else.
pub(crate) fn decoded(data: &[u8]) -> Option<Vec<u8>> {
    let input = std::io::Cursor::new(data.to_vec());
    let (mut feed, format) = stdin::open(input, Decompress::ByMagic, LIMITS).ok()?;
    format?;
    let mut bytes = Vec::new();
    let mut buf = vec![0; 4096];
    while bytes.len() < MOST {
        match feed.read(&mut buf) {
            Ok(0) => return feed.proves_its_end().then_some(bytes),
            Ok(read) => bytes.extend_from_slice(&buf[..read]),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return None;
            }
        }
    }
    None
}
