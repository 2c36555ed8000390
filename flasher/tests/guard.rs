//! The guard on trees of /proc, /sys and /dev as running systems showed them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use flasher::guard::{Facts, Relation, judge};

/// A tree below which /proc and /sys are looked for.
struct Tree {
    dir: tempfile::TempDir,
    list: String,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["proc", "sys/class/mtd", "sys/devices"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        Self { dir, list: "dev:    size   erasesize  name\n".to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, name: &str, to: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, path).unwrap();
    }

    /// One device: its directory below /sys/devices, which ends in mtdN, and what /proc/mtd says.
    fn mtd(&mut self, dir: &str, name: &str, offset: Option<u64>, size: u64, flags: u32) {
        let number = dir.rsplit_once("mtd").unwrap().1;
        let line = format!("mtd{number}: {size:08x} 00040000 \"{name}\"\n");
        self.list.push_str(&line);
        self.file("proc/mtd", &self.list);
        let dir = format!("sys/devices/{dir}");
        self.file(&format!("{dir}/name"), &format!("{name}\n"));
        self.file(&format!("{dir}/type"), "nor\n");
        self.file(&format!("{dir}/size"), &format!("{size}\n"));
        self.file(&format!("{dir}/flags"), &format!("{flags:#x}\n"));
        if let Some(offset) = offset {
            self.file(&format!("{dir}/offset"), &format!("{offset}\n"));
        }
        let devices = dir.strip_prefix("sys/").unwrap();
        self.link(&format!("sys/class/mtd/mtd{number}"), &format!("../../{devices}"));
    }

    fn process(&self, pid: u32, comm: &str) -> String {
        self.file(&format!("proc/{pid}/comm"), &format!("{comm}\n"));
        self.file(&format!("proc/{pid}/maps"), "");
        fs::create_dir_all(self.path(&format!("proc/{pid}/fd"))).unwrap();
        format!("proc/{pid}")
    }

    fn facts(&self) -> Facts {
        Facts::read(self.dir.path()).unwrap()
    }
}

const K: u64 = 1024;
const M: u64 = 1024 * K;

fn users(facts: &Facts) -> Vec<String> {
    facts.users().iter().map(ToString::to_string).collect()
}

fn places(facts: &Facts) -> Vec<(u32, Option<u64>, Option<&str>)> {
    facts.mtds().iter().map(|mtd| (mtd.number, mtd.start, mtd.chip.as_deref())).collect()
}

fn relations(facts: &Facts, target: u32) -> Vec<(u32, Relation)> {
    let mtd = facts.mtd(target).unwrap();
    facts
        .mtds()
        .iter()
        .filter_map(|other| {
            Some((other.number, flasher::guard::ranges::relation(mtd, &(0..mtd.size), other)?))
        })
        .collect()
}

/// The emulated board: two banks of parallel NOR that the kernel concatenates. No `device` link anywhere.
fn concatenated() -> Tree {
    let mut tree = Tree::new();
    let sizes = [
        ("boot0", 0, 64 * M, 0x800),
        ("env", 64 * M, 256 * K, 0xc00),
        ("kernel", 64 * M + 256 * K, 8 * M, 0xc00),
        ("rootfs", 72 * M + 256 * K, 24 * M, 0xc00),
        ("data", 96 * M + 256 * K, 31 * M + 768 * K, 0xc00),
        ("firmware", 64 * M + 256 * K, 32 * M, 0xc00),
    ];
    for (number, (name, offset, size, flags)) in sizes.into_iter().enumerate() {
        tree.mtd(&format!("virtual/mtd/mtd{number}"), name, Some(offset), size, flags);
    }
    tree
}

/// As on OpenWrt: kernel and rootfs are inside firmware, rootfs_data inside rootfs; all on one serial chip.
fn nested() -> Tree {
    let mut tree = Tree::new();
    let base = "platform/10000.spi/spi_master/spi0/spi0.0/mtd";
    fs::create_dir_all(tree.path("sys/devices/platform/10000.spi/spi_master/spi0/spi0.0/spi-nor")).unwrap();
    tree.mtd(&format!("{base}/mtd0"), "u-boot", Some(0), 256 * K, 0x800);
    tree.mtd(&format!("{base}/mtd1"), "firmware", Some(320 * K), 15 * M, 0xc00);
    tree.mtd(&format!("{base}/mtd1/mtd2"), "kernel", Some(0), 2 * M, 0xc00);
    tree.mtd(&format!("{base}/mtd1/mtd3"), "rootfs", Some(2 * M), 13 * M, 0xc00);
    tree.mtd(&format!("{base}/mtd1/mtd3/mtd4"), "rootfs_data", Some(3 * M), 10 * M, 0xc00);
    tree.mtd(&format!("{base}/mtd5"), "art", Some(320 * K + 15 * M), 64 * K, 0x800);
    tree
}

#[test]
fn concatenated_banks_are_placed_by_their_offsets_alone() {
    let facts = concatenated().facts();
    assert_eq!(places(&facts)[5], (5, Some(64 * M + 256 * K), None));
    assert_eq!(relations(&facts, 5), [(2, Relation::Child), (3, Relation::Child), (5, Relation::Same)]);
    assert_eq!(relations(&facts, 3), [(3, Relation::Same), (5, Relation::Parent)]);
    assert_eq!(relations(&facts, 4), [(4, Relation::Same)]);
    assert!(!facts.mtd(0).unwrap().writeable);
    assert!(facts.mtd(5).unwrap().writeable);
    assert!(!facts.mtd(5).unwrap().spi_nor);
}

#[test]
fn offsets_of_nested_partitions_are_added_up() {
    let facts = nested().facts();
    let chip = Some("platform/10000.spi/spi_master/spi0/spi0.0");
    assert_eq!(places(&facts)[4], (4, Some(320 * K + 2 * M + 3 * M), chip));
    assert_eq!(facts.mtd(4).unwrap().chip_name(), Some("spi0.0"));
    assert!(facts.mtd(4).unwrap().spi_nor);
    assert_eq!(relations(&facts, 3), [(1, Relation::Parent), (3, Relation::Same), (4, Relation::Child)]);
    assert_eq!(relations(&facts, 5), [(5, Relation::Same)]);
}

#[test]
fn equal_offsets_on_two_chips_are_no_overlap() {
    let mut tree = Tree::new();
    tree.mtd("platform/spi/spi0.0/mtd/mtd0", "one", Some(0), M, 0xc00);
    tree.mtd("platform/spi/spi0.1/mtd/mtd1", "two", Some(0), M, 0xc00);
    let facts = tree.facts();
    assert_eq!(relations(&facts, 0), [(0, Relation::Same)]);
    assert_eq!(relations(&facts, 1), [(1, Relation::Same)]);
}

#[test]
fn a_master_device_is_the_whole_of_its_chip() {
    let mut tree = Tree::new();
    tree.mtd("platform/0.flash/mtd/mtd0", "0.flash", None, 8 * M, 0xc00);
    tree.mtd("platform/0.flash/mtd/mtd0/mtd1", "a", Some(0), M, 0xc00);
    tree.mtd("platform/0.flash/mtd/mtd0/mtd2", "b", Some(M), M, 0xc00);
    let facts = tree.facts();
    assert_eq!(places(&facts)[0], (0, Some(0), Some("platform/0.flash")));
    assert_eq!(relations(&facts, 2), [(0, Relation::Parent), (2, Relation::Same)]);
    // The same under a concatenation, where the master is the only thing that tells the chip.
    let mut tree = Tree::new();
    tree.mtd("virtual/mtd/mtd0", "concat", None, 8 * M, 0xc00);
    tree.mtd("virtual/mtd/mtd0/mtd1", "a", Some(0), M, 0xc00);
    let facts = tree.facts();
    assert_eq!(places(&facts)[1], (1, Some(0), Some("virtual/mtd/mtd0")));
    assert_eq!(relations(&facts, 1), [(0, Relation::MayOverlap), (1, Relation::Same)]);
}

#[test]
fn a_kernel_that_tells_no_offsets_is_refused_with_the_reason() {
    let mut tree = Tree::new();
    tree.mtd("platform/0.flash/mtd/mtd0", "a", None, M, 0xc00);
    tree.mtd("platform/0.flash/mtd/mtd1", "b", None, M, 0xc00);
    let facts = tree.facts();
    let verdict = judge(&facts, 0, &(0..M));
    assert!(!verdict.is_clear());
    assert_eq!(
        verdict.to_string(),
        "the kernel does not say where its flash partitions lie (no `offset` in /sys/class/mtd): any of them may \
         overlap"
    );
    // The only device there is cannot overlap another.
    let mut tree = Tree::new();
    tree.mtd("platform/0.flash/mtd/mtd0", "a", None, M, 0xc00);
    assert!(judge(&tree.facts(), 0, &(0..M)).is_clear());
}

#[test]
fn a_system_without_flash_has_no_users_of_it() {
    let tree = Tree::new();
    assert_eq!((tree.facts().users().len(), tree.facts().mtds().len()), (0, 0));
    assert!(Facts::read(Path::new("/nonexistent")).unwrap().users().is_empty());
}

/// The board as it runs: squashfs root, jffs2 on data, a service of the root.
fn running() -> Tree {
    let tree = concatenated();
    let mounts = "21 1 31:3 / / ro,relatime - squashfs /dev/root ro\n\
                  22 21 0:5 / /proc rw - proc proc rw\n\
                  30 21 31:4 / /persist rw,relatime - jffs2 /dev/mtdblock4 rw\n";
    for (pid, comm) in [(1, "s6-svscan"), (40, "jffs2_gcd_mtd4"), (57, "dropbear")] {
        let dir = tree.process(pid, comm);
        tree.file(&format!("{dir}/mountinfo"), mounts);
        if pid != 40 {
            tree.file(
                &format!("{dir}/maps"),
                "00400000-00500000 r-xp 00000000 1f:03 12      /bin/program\n\
                 7f000000-7f100000 r-xp 00000000 1f:03 26      /lib/libc.so.6\n\
                 7fc00000-7fd00000 rw-p 00000000 00:00 0       [stack]\n",
            );
        }
    }
    tree
}

#[test]
fn mounts_threads_and_processes_are_found_once_each() {
    assert_eq!(
        users(&running().facts()),
        [
            "mtd3 \"rootfs\": mounted at / (squashfs)",
            "mtd4 \"data\": mounted at /persist (jffs2)",
            "mtd3 \"rootfs\": process 1 (s6-svscan) maps /bin/program",
            "mtd4 \"data\": served by the kernel thread jffs2_gcd_mtd4 (40)",
            "mtd3 \"rootfs\": process 57 (dropbear) maps /bin/program",
        ]
    );
}

#[test]
fn a_refusal_names_mount_partition_overlap_and_processes() {
    let facts = running().facts();
    let verdict = judge(&facts, 5, &(0..20 * M));
    assert_eq!(
        verdict.to_string(),
        "mtd3 \"rootfs\" (lies inside the target): mounted at / (squashfs)\n\
         mtd3 \"rootfs\" (lies inside the target): process 1 (s6-svscan) maps /bin/program; process 57 (dropbear) \
         maps /bin/program"
    );
    // An image that ends before the rootfs does not touch it.
    assert!(judge(&facts, 5, &(0..8 * M)).is_clear());
    assert!(!judge(&facts, 5, &(0..8 * M + 1)).is_clear());
    assert!(judge(&facts, 1, &(0..256 * K)).is_clear());
}

#[test]
fn a_long_list_of_processes_is_cut_short() {
    let tree = running();
    for pid in 100..110 {
        let dir = tree.process(pid, "worker");
        tree.file(&format!("{dir}/maps"), "00400000-00500000 r-xp 00000000 1f:03 12 /bin/worker\n");
    }
    let text = judge(&tree.facts(), 3, &(0..M)).to_string();
    assert!(text.ends_with("process 102 (worker) maps /bin/worker; and 7 more"), "{text}");
}

#[test]
fn a_mount_in_another_mount_namespace_is_found_and_its_process_named() {
    let tree = concatenated();
    tree.link("proc/self/ns/mnt", "mnt:[1]");
    for (pid, comm, namespace, line) in [
        (1, "init", "mnt:[1]", "20 1 0:2 / / rw - tmpfs tmpfs rw\n"),
        (9, "container", "mnt:[2]", "20 1 31:4 / /srv/a\\040b rw - jffs2 mtd:data rw\n"),
        (10, "container", "mnt:[2]", "20 1 31:4 / /srv/a\\040b rw - jffs2 mtd:data rw\n"),
    ] {
        let dir = tree.process(pid, comm);
        tree.file(&format!("{dir}/mountinfo"), line);
        tree.link(&format!("{dir}/ns/mnt"), namespace);
        tree.link(&format!("{dir}/root"), "/");
    }
    assert_eq!(
        users(&tree.facts()),
        ["mtd4 \"data\": mounted at /srv/a b (jffs2) in the mount namespace of process 9 (container)"]
    );
}

#[test]
fn ubi_loop_swap_and_open_nodes_are_users_too() {
    let tree = concatenated();
    tree.file("sys/class/ubi/ubi0/mtd_num", "4\n");
    tree.file("sys/class/ubi/ubi0_0/name", "rootfs\n");
    tree.file("sys/class/ubi/version", "1\n");
    tree.file("sys/class/block/ubiblock0_0/dev", "252:0\n");
    tree.file("sys/class/block/loop0/dev", "7:0\n");
    tree.file("sys/class/block/loop0/loop/backing_file", "/dev/mtdblock2\n");
    tree.file("proc/swaps", "Filename Type Size Used Priority\n/dev/mtdblock1 partition 256 0 -2\n");
    let dir = tree.process(1, "init");
    tree.file(
        &format!("{dir}/mountinfo"),
        "20 1 0:19 / / rw - ubifs ubi0:rootfs rw\n\
         21 20 252:0 / /rom ro - squashfs /dev/ubiblock0_0 ro\n\
         22 20 7:0 / /loop ro - squashfs /dev/loop0 ro\n",
    );
    let dir = tree.process(2, "ubi_bgt0d");
    tree.file(&format!("{dir}/mountinfo"), "");
    let dir = tree.process(33, "logger");
    tree.link(&format!("{dir}/fd/3"), "/dev/mtd5ro");
    tree.link(&format!("{dir}/fd/4"), "/dev/null");
    tree.file(&format!("{dir}/maps"), "7f00-7f10 r--p 00000000 00:13 7 /usr/bin/logger\n");
    assert_eq!(
        users(&tree.facts()),
        [
            "mtd4 \"data\": mounted at / (ubifs)",
            "mtd4 \"data\": mounted at /rom (squashfs)",
            "mtd2 \"kernel\": mounted at /loop (squashfs)",
            "mtd1 \"env\": used as swap",
            "mtd2 \"kernel\": under the loop device loop0",
            "mtd4 \"data\": attached to UBI as ubi0",
            "mtd4 \"data\": served by the kernel thread ubi_bgt0d (2)",
            "mtd4 \"data\": process 33 (logger) maps /usr/bin/logger",
            "mtd5 \"firmware\": process 33 (logger) has /dev/mtd5ro open",
        ]
    );
}

#[test]
fn the_own_descriptors_of_the_asking_process_do_not_count() {
    let tree = concatenated();
    let dir = tree.process(77, "flashcp");
    tree.link(&format!("{dir}/fd/3"), "/dev/mtd5");
    assert_eq!(users(&tree.facts()), ["mtd5 \"firmware\": process 77 (flashcp) has /dev/mtd5 open"]);
    tree.link("proc/self", "77");
    assert!(tree.facts().users().is_empty());
}

/// The report of the hand-over, with these entries of `still_mounted`.
fn left_behind(tree: &Tree, entries: &str) {
    tree.file(
        "run/levitate/handover.json",
        &format!(
            r#"{{"version":1,"handed_over_at":1700000000,"total_ms":480,"stages":[{{"stage":"check","ms":1}}],
            "unmounted":["/run","/"],"survivors":[],"still_mounted":[{entries}],"notes":[],"watchdogs":[]}}"#
        ),
    );
}

/// As the hand-over writes it of a jffs2 whose unmounting is still in the kernel.
const PERSIST: &str = r#"{"path":"/persist","source":"/dev/mtdblock4","fstype":"jffs2",
    "reason":"not done within 10000 ms","read_only":false,"device":"31:4"}"#;

#[test]
fn what_the_hand_over_could_not_let_go_of_is_in_use_although_nothing_else_tells_of_it() {
    let tree = concatenated();
    assert!(judge(&tree.facts(), 4, &(0..M)).is_clear());
    left_behind(&tree, PERSIST);
    let facts = tree.facts();
    assert_eq!(
        judge(&facts, 4, &(0..M)).to_string(),
        "mtd4 \"data\" (the target itself): /persist (jffs2) of the old system could not be let go of (not done within \
         10000 ms)"
    );
    assert!(judge(&facts, 5, &(0..20 * M)).is_clear(), "another range");
}

#[test]
fn what_stayed_is_found_by_its_device_or_else_by_its_source() {
    let stayed = |path: &str, source: &str, kind: &str, device: &str| {
        let device = if device.is_empty() { String::new() } else { format!(r#","device":"{device}""#) };
        format!(
            r#"{{"path":"{path}","source":"{source}","fstype":"{kind}","reason":"r","read_only":true{device}}}"#
        )
    };
    let attached = concatenated();
    attached.file("sys/class/ubi/ubi1/mtd_num", "4\n");
    attached.file("sys/class/block/ubiblock1_0/dev", "252:0\n");
    attached.file("sys/class/block/loop3/dev", "7:3\n");
    attached.file("sys/class/block/loop3/loop/backing_file", "/dev/mtdblock2\n");
    for (entry, mtd) in [
        (stayed("/rom", "/dev/root", "squashfs", "31:3"), Some(3)),
        (stayed("/rom", "/dev/mtdblock3", "squashfs", ""), Some(3)),
        (stayed("/l", "/dev/loop3", "ext4", "7:3"), Some(2)),
        (stayed("/u", "ubi1:data", "ubifs", "0:40"), Some(4)),
        (stayed("/u", "/dev/ubi1_0", "ubifs", ""), Some(4)),
        (stayed("/b", "/dev/ubiblock1_0", "squashfs", "252:0"), Some(4)),
        (stayed("/b", "/dev/ubiblock1_7", "squashfs", "252:9"), Some(4)),
        (stayed("/dev/ubi1", "/dev/mtd4", "ubi", ""), Some(4)),
        (stayed("/dev/ubi1", "mtd", "ubi", ""), Some(4)),
        (stayed("/mnt", "/dev/vda", "ext4", "254:0"), None),
        (stayed("/run", "tmpfs", "tmpfs", "0:20"), None),
        (stayed("/net", "server:/x", "nfs", "0:33"), None),
    ] {
        left_behind(&attached, &entry);
        let facts = attached.facts();
        let is_told = |number: u32| judge(&facts, number, &(0..K)).to_string().contains("of the old system");
        let told: Vec<u32> = [1, 2, 3, 4].into_iter().filter(|number| is_told(*number)).collect();
        assert_eq!(told, mtd.into_iter().collect::<Vec<_>>(), "{entry}");
    }
    // on flash, and nobody says where: any of it
    let tree = concatenated();
    for entry in [
        stayed("/u", "ubi1:data", "ubifs", "0:40"),
        stayed("/dev/ubi1", "mtd", "ubi", ""),
        stayed("/j", "mtd:gone", "jffs2", ""),
        stayed("/j", "mtd:gone", "jffs2", "31:99"),
    ] {
        left_behind(&tree, &entry);
        let verdict = judge(&tree.facts(), 1, &(0..K)).to_string();
        assert!(verdict.starts_with("mtd1 \"env\" (may overlap the target): /"), "{entry}: {verdict}");
    }
}

#[test]
fn what_stayed_is_gone_when_the_kernel_says_so_and_of_jffs2_it_never_does() {
    let ubi = r#"{"path":"/dev/ubi1","source":"/dev/mtd4","fstype":"ubi","reason":"busy","read_only":false}"#;
    let ubifs = r#"{"path":"/u","source":"ubi1:data","fstype":"ubifs","reason":"busy","read_only":false}"#;
    let tree = concatenated();
    for (entry, gone) in [(ubi, true), (ubifs, true), (PERSIST, false)] {
        left_behind(&tree, entry);
        // a kernel that does not tell of UBI at all says nothing of what is gone either
        let _ = fs::remove_dir(tree.path("sys/class/ubi"));
        assert!(!judge(&tree.facts(), 4, &(0..K)).is_clear(), "{entry}");
        fs::create_dir(tree.path("sys/class/ubi")).unwrap();
        assert_eq!(judge(&tree.facts(), 4, &(0..K)).is_clear(), gone, "{entry}");
    }
    // its block device has no node: nobody was asked
    left_behind(&tree, &PERSIST.replace("jffs2", "squashfs"));
    assert!(!judge(&tree.facts(), 4, &(0..K)).is_clear());
}

#[test]
fn a_report_of_the_hand_over_that_cannot_be_understood_refuses_all_flash_and_says_what_was_expected() {
    let expected = "expected the hand-over's report, version 1, with the list `still_mounted`";
    for (text, why) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{\"version\":1}\n", "missing field `still_mounted` at line 1 column 13"),
        (r#"{"version":2,"still_mounted":[]}"#, "it has version 2"),
        (r#"{"version":1,"still_mounted":[{"path":"/x"}]}"#, "missing field `source` at line 1 column 43"),
        (
            &format!(r#"{{"version":1,"still_mounted":[{}]}}"#, PERSIST.replace("31:4", "31-4")),
            "the device of \"/persist\" is not MAJOR:MINOR",
        ),
        (&" ".repeat((1 << 20) + 1), "it is longer than 1048576 bytes"),
    ] {
        let tree = concatenated();
        tree.file("run/levitate/handover.json", text);
        let verdict = judge(&tree.facts(), 5, &(0..M));
        assert!(!verdict.is_clear());
        assert_eq!(
            verdict.to_string(),
            format!(
                "what the old system left in use is not known: /run/levitate/handover.json: {why}; {expected}"
            )
        );
    }
    // not a file that can be read
    let tree = concatenated();
    fs::create_dir_all(tree.path("run/levitate/handover.json")).unwrap();
    assert!(tree.facts().unread().is_some_and(|why| why.contains("Is a directory")));
    let tree = concatenated();
    tree.link("run/levitate/handover.json", "handover.json");
    assert!(tree.facts().unread().is_some_and(|why| why.contains("symbolic links")));
    let tree = concatenated();
    left_behind(&tree, "");
    assert!(judge(&tree.facts(), 5, &(0..M)).is_clear(), "nothing was left behind");
}
