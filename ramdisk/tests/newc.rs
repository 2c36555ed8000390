//! Archives: what is written is read back the same, and a hostile one writes nothing outside of its root.

use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use ramdisk::dir_sink::{DirSink, Owners};
use ramdisk::newc::{self, Entry, Held, Limits, NewcError};
use ramdisk::path::Root;
use ramdisk::sink::{After, Content, Memory, Meta};
use ramdisk::tree::Tree;

const LIMITS: Limits = Limits { entries: 1000, bytes: 1 << 20 };

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_644;
const SYMLINK: u32 = 0o120_777;

/// An archive put together by hand, wrong numbers and all.
#[derive(Default)]
struct Forged(Vec<u8>);

impl Forged {
    fn entry(mut self, name: &str, mode: u32, contents: &str) -> Self {
        self.add(name, [0, mode, 0, 0, 1], contents);
        self
    }

    /// ino, mode, uid, gid, nlink.
    fn add(&mut self, name: &str, numbers: [u32; 5], contents: &str) {
        let size = u32::try_from(contents.len()).unwrap();
        let name_size = u32::try_from(name.len() + 1).unwrap();
        self.raw(numbers, size, name_size, name, contents);
    }

    fn raw(&mut self, numbers: [u32; 5], size: u32, name_size: u32, name: &str, contents: &str) {
        let [ino, mode, uid, gid, nlink] = numbers;
        let numbers = [ino, mode, uid, gid, nlink, 0, size, 0, 0, 0, 0, name_size, 0];
        self.0.extend(b"070701");
        self.0.extend(numbers.map(|n| format!("{n:08X}")).concat().into_bytes());
        for bytes in [[name.as_bytes(), b"\0"].concat(), contents.into()] {
            self.0.extend(bytes);
            self.0.resize(self.0.len().next_multiple_of(4), 0);
        }
    }

    fn end(self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, "").0
    }
}

fn scan(bytes: &[u8]) -> Result<Vec<Entry>, NewcError> {
    newc::scan(&mut Cursor::new(bytes), &LIMITS)
}

/// The error with its cause, as a user reads it.
fn refusal(bytes: &[u8]) -> String {
    let e = scan(bytes).expect_err("it was taken");
    format!("{e}: {}", e.problem)
}

fn archive_of(tree: &Tree) -> File {
    let mut bytes = Vec::new();
    newc::write(tree, 0, &mut bytes).unwrap();
    newc::spool(&mut bytes.as_slice(), 16 << 20).unwrap()
}

#[test]
fn a_tree_that_goes_through_an_archive_comes_out_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("usr/bin")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("usr/bin/busybox"), vec![7; 70_000]).unwrap();
    fs::set_permissions(from.join("usr/bin/busybox"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(from.join("usr/bin/busybox"), from.join("usr/bin/ash")).unwrap();
    symlink("/usr/bin", from.join("bin")).unwrap();
    symlink("../../../../usr/bin/ash", from.join("usr/sh")).unwrap();
    let sparse = File::create(from.join("usr/sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    let mut tree = Tree::of_root();
    for path in ["/usr", "/bin"] {
        tree.copy(&Root::new(&from), Path::new(path)).unwrap();
    }
    let key = Meta { mode: 0o600, uid: 5, gid: 6 };
    tree.file(Path::new("etc/key"), key, Content::Bytes(b"secret".into())).unwrap();
    tree.file(Path::new("etc/empty"), Meta::root(0o644), Content::Bytes(Vec::new())).unwrap();
    tree.directory(Path::new("tmp"), Meta::root(0o1777)).unwrap();

    let mut file = archive_of(&tree);
    let entries = newc::scan(&mut file, &Limits { bytes: 2 << 20, ..LIMITS }).unwrap();
    let read = newc::tree(&entries, &Arc::new(file), After::LetGo).unwrap();
    let names = |tree: &Tree| {
        let mut memory = Memory::default();
        tree.write_to(&mut memory).unwrap();
        memory.order
    };
    assert_eq!(names(&read), names(&tree));
    assert_eq!(read.size(4096).unwrap().files, tree.size(4096).unwrap().files);
    assert_eq!(read.read(Path::new("etc/key"), 100).unwrap(), Some(b"secret".into()));
    assert!(read.read(Path::new("bin/sh"), 69_999).is_ok_and(|found| found.is_none()));
    assert!(read.read(Path::new("usr/sh"), 69_999).is_err());

    read.write_to(&mut DirSink::new(&to, Owners::Mine)).unwrap();
    let stat = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
    assert_eq!(fs::read(to.join("bin/ash")).unwrap(), vec![7; 70_000]);
    assert_eq!(stat("usr/bin/ash").ino(), stat("usr/bin/busybox").ino());
    assert_eq!(stat("usr/bin/ash").mode() & 0o7777, 0o4755);
    assert_eq!(stat("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(fs::read_link(to.join("bin")).unwrap(), Path::new("usr/bin"));
    assert_eq!(fs::read_link(to.join("usr/sh")).unwrap(), Path::new("../usr/bin/ash"));
    assert_eq!(stat("usr/sparse").len(), 1 << 20);
    // the pages at its ends hold something else in the archive
    assert!(stat("usr/sparse").blocks() <= 16);
    let owner = entries.iter().find(|e| e.path == Path::new("etc/key")).unwrap().meta;
    assert_eq!(owner, key);
    assert!(entries.iter().filter(|e| e.path != Path::new("etc/key")).all(|e| e.meta.uid == 0));
}

#[test]
fn what_other_writers_make_of_plain_files_is_taken() {
    let mut forged = Forged::default().entry(".", DIRECTORY, "").entry("./a", DIRECTORY, "");
    // contents with the first name, as some have it
    forged.add("a/one", [9, REGULAR, 0, 0, 2], "text");
    forged.add("a/two", [9, REGULAR, 0, 0, 2], "");
    let mut bytes = forged.end();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let entries = scan(&bytes).unwrap();
    let names: Vec<_> = entries.iter().map(|e| e.path.to_str().unwrap()).collect();
    assert_eq!(names, ["a", "a/one", "a/two"]);
    assert_eq!(entries[1].held, entries[2].held);
    assert!(matches!(entries[2].held, Held::File { length: 4, .. }));
}

#[test]
fn a_name_that_is_not_plain_is_refused_with_its_offset() {
    let with = |name: &str| Forged::default().entry("d", DIRECTORY, "").entry(name, REGULAR, "x").end();
    for (name, why) in [
        ("/etc/passwd", "the name is absolute"),
        ("../etc/passwd", "the name holds .."),
        ("d/../../x", "the name holds .."),
        ("d/x/../../..", "the name holds .."),
        ("d", "the name is in the archive twice"),
        ("d/", "the name is in the archive twice"),
        ("./d", "the name is in the archive twice"),
        (".", "the name is the root's, which is a directory"),
        ("no/x", "expected a directory before it at \"no\", found nothing"),
        ("d/e/x", "expected a directory before it at \"d/e\", found nothing"),
    ] {
        // 110 bytes of header, two of name
        assert_eq!(refusal(&with(name)), format!("archive, offset 112, entry {name:?}: {why}"));
    }
}

#[test]
fn nothing_can_be_put_through_a_symlink_or_below_a_file() {
    let through = Forged::default().entry("etc", SYMLINK, "tmp").entry("etc/passwd", REGULAR, "x").end();
    assert!(refusal(&through).ends_with("expected a directory before it at \"etc\", found a symlink"));
    let below = Forged::default().entry("f", REGULAR, "x").entry("f/x", REGULAR, "x").end();
    assert!(refusal(&below).ends_with("expected a directory before it at \"f\", found a file"));
    // the other way round: a directory that is replaced by a symlink afterwards
    let replaced = Forged::default().entry("d", DIRECTORY, "").entry("d", SYMLINK, "/").end();
    assert!(refusal(&replaced).ends_with("twice"));
}

#[test]
fn a_symlink_that_leads_out_of_the_root_is_refused_also_by_way_of_others() {
    let d = || Forged::default().entry("d", DIRECTORY, "").entry("d/e", DIRECTORY, "");
    for target in ["/etc", "../..", "../d/../../x", "e/../../../x", "up/../x", "loop/../../x"] {
        let bytes =
            d().entry("d/up", SYMLINK, "..").entry("d/loop", SYMLINK, ".").entry("d/bad", SYMLINK, target);
        let text = refusal(&bytes.end());
        assert!(text.ends_with(&format!("{target:?} leads out of the root")), "{target}: {text}");
        assert!(text.contains("entry \"d/bad\""), "{text}");
    }
    for target in ["..", "../d/e", "e/../..", "nowhere/at/all", "up/d", "round"] {
        let bytes = d().entry("d/up", SYMLINK, "..").entry("d/round", SYMLINK, "good");
        assert!(scan(&bytes.entry("d/good", SYMLINK, target).end()).is_ok(), "{target}");
    }
    for target in ["", "a\0b"] {
        assert!(scan(&Forged::default().entry("s", SYMLINK, target).end()).is_err(), "{target:?}");
    }
}

#[test]
fn devices_pipes_and_sockets_are_refused() {
    for (mode, kind) in [
        (0o020_600, "a character device"),
        (0o060_600, "a block device"),
        (0o010_600, "a pipe"),
        (0o140_600, "a socket"),
        (0o000_600, "something without a type"),
    ] {
        let text = refusal(&Forged::default().entry("x", mode, "").end());
        assert!(
            text.ends_with(&format!("expected a file, a directory or a symlink, found {kind}")),
            "{text}"
        );
    }
}

#[test]
fn hard_links_are_of_one_file_or_refused() {
    let forged = |second: [u32; 5], contents: &str| {
        let mut forged = Forged::default();
        forged.add("one", [5, 0o100_600, 0, 0, 2], "secret");
        forged.add("two", second, contents);
        refusal(&forged.end())
    };
    let other = "it is another name of \"one\", and has";
    assert!(forged([5, 0o104_755, 0, 0, 2], "").ends_with(&format!("{other} a mode or an owner of its own")));
    assert!(forged([5, 0o100_600, 9, 0, 2], "").ends_with(&format!("{other} a mode or an owner of its own")));
    assert!(forged([5, 0o100_600, 0, 0, 2], "more").ends_with(&format!("{other} contents of its own")));
    assert!(forged([5, 0o020_600, 0, 0, 2], "").ends_with("found a character device"));
    // one that says it has one name only is a file of its own
    let mut forged = Forged::default();
    forged.add("one", [5, REGULAR, 0, 0, 1], "a");
    forged.add("two", [5, REGULAR, 0, 0, 1], "b");
    let entries = scan(&forged.end()).unwrap();
    assert_ne!(entries[0].held, entries[1].held);
}

#[test]
fn sizes_that_lie_are_refused() {
    let raw = |size: u32, name_size: u32| {
        let mut forged = Forged::default();
        forged.raw([1, REGULAR, 0, 0, 1], size, name_size, "name", "text");
        refusal(&forged.end())
    };
    assert!(
        raw(u32::MAX, 5)
            .ends_with("expected 4294967295 more bytes for the contents, found the end after 128")
    );
    assert!(raw(4, 0).ends_with("namesize is 0, expected 2 to 4096 bytes, the zero byte included"));
    assert!(raw(4, u32::MAX).contains("namesize is 4294967295"));
    assert!(raw(4, 4097).contains("namesize is 4097"));
    assert!(raw(4, 3).ends_with("the name does not end where namesize says"));
    assert!(raw(4, 6).ends_with("the name ends before namesize says"));
    assert!(raw(4, 4000).ends_with("expected 4000 more bytes for the name, found the end after 134"));
    let whole = Forged::default().entry("a", REGULAR, "text").end();
    assert!(scan(&whole).is_ok());
    for end in 0..whole.len() - 3 {
        // the last bytes align the end
        assert!(scan(&whole[..end]).is_err(), "cut at {end}");
    }
    let directory = Forged::default().entry("d", DIRECTORY, "x").end();
    assert!(refusal(&directory).ends_with("a directory's filesize is 1, expected 0"));
    let mut owner = Forged::default();
    owner.add("x", [1, REGULAR, u32::MAX, 0, 1], "");
    assert!(refusal(&owner.end()).contains("uid is 4294967295"));
    let mode = Forged::default().entry("x", 0o1_100_644, "").end();
    assert!(refusal(&mode).ends_with("mode is 295332, expected at most 16 bits"));
}

#[test]
fn what_is_no_archive_or_does_not_end_where_it_ends_is_refused() {
    assert!(refusal(b"").ends_with("expected a newc header (070701), found \"\""));
    assert!(refusal(b"\x7fELF\x02\x01\x01").ends_with("found \"\\\\x7fELF\\\\x02\\\\x01\""));
    let crc = [b"070702", &Forged::default().end()[6..]].concat();
    assert!(refusal(&crc).ends_with("found \"070702\""));
    let mut sign = Forged::default().entry("x", REGULAR, "").end();
    sign[14] = b'-';
    assert!(refusal(&sign).ends_with("expected eight hexadecimal digits for mode"));
    let mut trailing = Forged::default().end();
    trailing.resize(5000, 0);
    assert!(scan(&trailing).is_ok());
    trailing.push(b'0');
    assert!(refusal(&trailing).ends_with("something follows the archive's end"));
    let two = [Forged::default().end(), Forged::default().entry("x", REGULAR, "").end()].concat();
    assert!(refusal(&two).ends_with("something follows the archive's end"));
    let open = Forged::default().entry("x", REGULAR, "text").0;
    assert!(refusal(&open).contains("expected a newc header"));
}

#[test]
fn more_than_the_reader_was_told_to_take_is_refused() {
    let bytes = Forged::default().entry("a", REGULAR, "1234").entry("b", SYMLINK, "12").end();
    let with = |entries, bytes_most| {
        newc::scan(&mut Cursor::new(&bytes), &Limits { entries, bytes: bytes_most }).map(|found| found.len())
    };
    assert_eq!(with(2, 6).unwrap(), 2);
    assert_eq!(with(1, 6).unwrap_err().problem.to_string(), "more than 1 entries");
    assert_eq!(with(2, 5).unwrap_err().problem.to_string(), "more than 5 bytes in files");
}
