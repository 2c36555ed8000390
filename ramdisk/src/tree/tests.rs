use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::dir_sink::{DirSink, Owners};
use crate::sink::{Memory, Stored};

fn bytes(text: &str) -> Content {
    Content::Bytes(text.into())
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.iter().map(|(p, _)| p.to_str().unwrap()).collect()
}

#[test]
fn what_is_put_below_a_symlink_lies_where_the_symlink_leads() {
    let mut tree = Tree::new();
    tree.symlink(Path::new("/sbin"), Path::new("usr/sbin")).unwrap();
    tree.file(Path::new("/sbin/init"), Meta::root(0o755), bytes("")).unwrap();
    tree.directory(Path::new("sbin"), Meta::root(0o755)).unwrap();
    assert_eq!(names(&tree), ["sbin", "usr", "usr/sbin", "usr/sbin/init"]);
    assert!(matches!(tree.get(Path::new("/sbin/init")), Some(Node::File(..))));
}

#[test]
fn a_symlink_in_the_place_of_a_directory_is_a_conflict_and_named() {
    let mut tree = Tree::new();
    tree.directory(Path::new("lib"), Meta::root(0o755)).unwrap();
    let e = tree.symlink(Path::new("/lib"), Path::new("usr/lib")).unwrap_err();
    assert_eq!(e.to_string(), "put a symlink at lib: a directory is there already");
    tree.symlink(Path::new("a"), Path::new("b")).unwrap();
    tree.symlink(Path::new("b"), Path::new("a")).unwrap();
    assert!(matches!(tree.directory(Path::new("a/x"), Meta::root(0o755)), Err(TreeError::Loop(_))));
}

#[test]
fn the_later_file_wins_over_a_symlink_of_its_name_and_does_not_write_through_it() {
    let mut tree = Tree::new();
    tree.file(Path::new("bin/busybox"), Meta::root(0o755), bytes("busybox")).unwrap();
    tree.symlink(Path::new("sbin/reboot"), Path::new("../bin/busybox")).unwrap();
    tree.file(Path::new("sbin/reboot"), Meta::root(0o755), bytes("ours")).unwrap();
    assert_eq!(tree.get(Path::new("bin/busybox")), Some(&Node::File(Meta::root(0o755), bytes("busybox"))));
}

#[test]
fn a_directory_is_written_as_planned_with_modes_and_hard_links() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("etc/keys")).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(from.join("etc/keys/a"), vec![7; 5000]).unwrap();
    fs::set_permissions(from.join("etc/keys/a"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(from.join("etc/keys/a"), from.join("etc/keys/b")).unwrap();
    symlink("/etc/keys/a", from.join("etc/keys/link")).unwrap();
    symlink("etc/keys", from.join("keys")).unwrap();
    let mut tree = Tree::new();
    assert_eq!(tree.copy(&Root::new(&from), Path::new("/keys")).unwrap(), Path::new("/etc/keys"));
    tree.directory(Path::new("tmp"), Meta::root(0o1777)).unwrap();

    let size = tree.size(4096).unwrap();
    assert_eq!(size, Size { files: 1, bytes: 5000, page_bytes: 8192, inodes: 7 });

    tree.write_to(&mut DirSink::new(&to, Owners::Mine)).unwrap();
    let stat = |name: &str| fs::metadata(to.join(name)).unwrap();
    assert_eq!(stat("etc/keys/a").mode() & 0o7777, 0o600);
    assert_eq!(stat("etc/keys/a").ino(), stat("etc/keys/b").ino());
    assert_eq!(stat("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(fs::read_link(to.join("etc/keys/link")).unwrap(), Path::new("../../etc/keys/a"));
    assert_eq!(fs::read(to.join("keys/b")).unwrap(), vec![7; 5000]);
}

#[test]
fn files_are_copied_by_the_kernel_once_for_all_their_names_and_without_their_holes() {
    let dir = tempfile::tempdir().unwrap();
    // /dev/shm is in RAM as /run is; where there is none, one file system is as good
    let ram = Path::new("/dev/shm");
    let to = if ram.is_dir() { tempfile::tempdir_in(ram) } else { tempfile::tempdir() }.unwrap();
    let log = dir.path().join("log");
    fs::write(&log, vec![7; 300_000]).unwrap();
    fs::File::options().write(true).open(&log).unwrap().set_len(64 << 20).unwrap();
    fs::hard_link(&log, dir.path().join("log.1")).unwrap();
    let mut tree = Tree::new();
    tree.copy(&Root::new(dir.path()), Path::new("/")).unwrap();
    let size = tree.size(4096).unwrap();
    assert_eq!((size.files, size.bytes), (1, 64 << 20));
    assert!(size.page_bytes < 1 << 20, "{size:?}");
    let mut sink = DirSink::new(to.path(), Owners::Mine);
    tree.write_to(&mut sink).unwrap();
    assert_eq!(sink.by_hand(), 0, "bytes went through this process");
    let stat = |name: &str| fs::metadata(to.path().join(name)).unwrap();
    assert_eq!((stat("log").len(), stat("log").ino()), (64 << 20, stat("log.1").ino()));
    assert!(stat("log").blocks() * 512 < 1 << 20, "its hole was filled");
}

#[test]
fn a_secret_does_not_take_the_mode_of_another_name_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, "secret").unwrap();
    fs::create_dir(&to).unwrap();
    let mut tree = Tree::new();
    for (name, mode) in [("a", 0o644), ("b", 0o600), ("c", 0o600)] {
        tree.file(Path::new(name), Meta::root(mode), Content::CopyOf(Original::look(&from).unwrap()))
            .unwrap();
    }
    assert_eq!(tree.size(4096).unwrap().files, 2);
    tree.write_to(&mut DirSink::new(&to, Owners::Mine)).unwrap();
    let stat = |name: &str| fs::metadata(to.join(name)).unwrap();
    assert_eq!((stat("a").mode() & 0o777, stat("b").mode() & 0o777), (0o644, 0o600));
    assert_eq!(stat("b").ino(), stat("c").ino());
}

#[test]
fn a_symlink_that_climbs_above_its_root_is_made_one_that_climbs_to_it() {
    for (at, target, made) in [
        ("usr/sh", "../../../bin/sh", "../bin/sh"),
        ("usr/sh", "../bin/sh", "../bin/sh"),
        ("top", "../../etc", "etc"),
        ("top", "..", "."),
        ("a/b/c", "d/../../..", "d/../../.."),
    ] {
        assert_eq!(within(Path::new(at), Path::new(target)), Path::new(made), "{at} -> {target}");
    }
}

#[test]
fn the_order_depends_on_the_content_alone_and_a_directory_comes_first() {
    let put = |tree: &mut Tree, name: &str| {
        tree.file(Path::new(name), Meta::root(0o644), bytes(name)).unwrap();
    };
    let (mut one, mut two) = (Tree::new(), Tree::new());
    for name in ["a/b/c", "a-b", "z", "a/a"] {
        put(&mut one, name);
    }
    for name in ["z", "a/a", "a/b/c", "a-b"] {
        put(&mut two, name);
    }
    let (mut first, mut second) = (Memory::default(), Memory::default());
    one.write_to(&mut first).unwrap();
    two.write_to(&mut second).unwrap();
    assert_eq!(first, second);
    let order: Vec<_> = first.order.iter().map(|p| p.to_str().unwrap()).collect();
    assert_eq!(order, ["a", "a/a", "a/b", "a/b/c", "a-b", "z"]);
    assert!(matches!(first.entries[Path::new("a")], Stored::Directory(_)));
}
