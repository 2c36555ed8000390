//! What is fuzzed: for `cargo fuzz`, and for the stable runner in `tests/fuzz.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::path::{Component, PathBuf};

use ramdisk::dir_sink::{DirSink, Owners};
use ramdisk::newc::{self, Entry, Held, Limits};
use ramdisk::sink::Content;
use ramdisk::tree::Tree;

const LIMITS: Limits = Limits { entries: 64, bytes: 64 << 10 };

/// Whatever the bytes are: they are refused, or give plain names below directories of their own, contents inside the
/// archive, and a tree that is written without anything beside it being touched.
pub(crate) fn newc(data: &[u8]) {
    let Ok(entries) = newc::scan(&mut Cursor::new(data), &LIMITS) else { return };
    let mut directories = BTreeSet::from([PathBuf::new()]);
    let mut names = BTreeSet::new();
    let mut bytes = 0;
    let mut contents = BTreeSet::new();
    for Entry { path, held, .. } in &entries {
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        assert!(directories.contains(path.parent().unwrap()), "{path:?}");
        assert!(names.insert(path), "{path:?}");
        match held {
            Held::Directory => drop(directories.insert(path.clone())),
            Held::Symlink(target) => assert!(target.is_relative(), "{path:?}"),
            Held::File { offset, length } => {
                assert!(offset + length <= data.len() as u64, "{path:?}");
                bytes += if contents.insert(offset) { *length } else { 0 };
            }
        }
    }
    assert!(entries.len() <= 64 && bytes <= LIMITS.bytes);
    written(data, &entries);
}

/// Writes it into one folder of two, and looks at the other and at what symlinks lead to.
fn written(data: &[u8], entries: &[Entry]) {
    let dir = tempfile::tempdir().unwrap();
    let (root, beside) = (dir.path().join("root"), dir.path().join("beside"));
    for folder in [&root, &beside] {
        fs::create_dir(folder).unwrap();
    }
    let mut tree = Tree::new();
    for Entry { path, meta, held, .. } in entries {
        // a mode that takes away one's own rights is for root to write in
        let meta = ramdisk::sink::Meta { mode: meta.mode | 0o700, ..*meta };
        match held {
            Held::Directory => tree.directory(path, meta),
            Held::Symlink(target) => tree.symlink(path, target),
            Held::File { offset, length } => {
                let part = usize::try_from(*offset).unwrap()..usize::try_from(offset + length).unwrap();
                tree.file(path, meta, Content::Bytes(data[part].to_vec()))
            }
        }
        .expect("what was read has its place");
    }
    // a name of more than 255 bytes is the file system's to refuse
    let _ = tree.write_to(&mut DirSink::new(&root, Owners::Mine));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    assert_eq!(fs::read_dir(&beside).unwrap().count(), 0);
    let real = root.canonicalize().unwrap();
    for Entry { path, .. } in entries {
        if let Ok(leads) = root.join(path).canonicalize() {
            assert!(leads.starts_with(&real), "{path:?} leads to {leads:?}");
        }
    }
    // what was read can be written, and read again
    let mut again = Vec::new();
    if newc::write(&tree, 0, &mut again).is_ok() {
        let names = |entries: &[Entry]| entries.iter().map(|e| e.path.clone()).collect::<BTreeSet<_>>();
        let read = newc::scan(&mut Cursor::new(&again), &Limits { entries: 64, bytes: u64::MAX }).unwrap();
        assert_eq!(names(&read), names(entries));
    }
}
