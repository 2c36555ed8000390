//! Every text by which a failure is told to a user, kept in `texts/`. A new variant does not compile here before it has
//! a place in the list, and does not pass before it has a sample. `UPDATE_TEXTS=1 cargo test -p flasher --test texts`
//! writes the files: look at what changed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use flasher::content::Content;
use flasher::device::MtdError;
use flasher::error::{Direction, Error};
use flasher::guard::{Conflict, FactsError, Holder, Relation, Use, User, Verdict};
use flasher::kernel::OpenError;
use flasher::plan_file::PlanError;
use flasher::source::ImageError;
use flasher::target::Node;
use flasher::target::ubi::{UbiVolume, VolumeKind};
use flasher::target::{Target, TargetError};
use flasher::ubi::UbiError;

#[macro_use]
#[path = "common/kept.rs"]
mod kept;
use kept::kept;

variants!(error_name, ERRORS, Error: Image Chip Target Facts Open Ubi StreamToStatic VolumeInUse VolumeInTheWay UbiInVolume
    TooLarge StreamTooLarge HeadTooLong Plan Overlap ReadOnly InUse Content Damaged UbiOnNand Digest BadBlock TooFewGood
    Locked Worn Uncorrectable Geometry Busy Record Claim NotClaimed Protected Overwritten ReadBack Mismatch);
variants!(chip_name, CHIP_ERRORS, MtdError: Unsupported Read Erase Program Lock Bad Mark);
variants!(image_name, IMAGE_ERRORS, ImageError: Open Directory NotAFile Empty Read Shrank Grew Size Surplus Unproven
    NotCompressed Truncated Corrupt Window Changed);
variants!(target_name, TARGET_ERRORS, TargetError: List Unknown Ambiguous NoVolume NotAPartition);
variants!(open_name, OPEN_ERRORS, OpenError: Open OtherDevice NotMtd Regions ReadOnly);
variants!(facts_name, FACTS_ERRORS, FactsError: Read);
variants!(plan_name, PLAN_ERRORS, PlanError: Read TooLarge Wrong);
variants!(use_name, USES, Use: Mount Swap Loop Ubi Thread Open Process Stayed Busy);
variants!(relation_name, RELATIONS, Relation: Same Parent Child Overlaps MayOverlap);
variants!(content_name, CONTENTS, Content: Fit UImage Trx Squashfs Ubi Environment);
variants!(direction_name, DIRECTIONS, Direction: ReadsOne ReadsZero Both);

fn eio() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EIO)
}

fn s(text: &str) -> String {
    text.to_owned()
}

fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}

fn partition(number: u32, name: &str) -> Target {
    Target { number, name: s(name), size: 0x100_0000, erase_size: 0x1_0000 }
}

fn volume() -> UbiVolume {
    UbiVolume {
        ubi: 0,
        number: 2,
        name: s("rootfs"),
        kind: VolumeKind::Static,
        blocks: 10,
        block_size: 126_976,
        data_bytes: 1000,
        alignment: 1,
        torn: false,
    }
}

fn chip_errors() -> Vec<MtdError> {
    vec![
        MtdError::Unsupported,
        MtdError::Read { offset: 0x1000, length: 4096, source: eio() },
        MtdError::Erase { start: 0x1000, end: 0x3000, source: eio() },
        MtdError::Program { offset: 0x1000, length: 256, source: eio() },
        MtdError::Lock { what: "unlock", start: 0x1000, end: 0x3000, source: eio() },
        MtdError::Bad { offset: 0x2_0000, source: eio() },
        MtdError::Mark { offset: 0x2_0000, source: eio() },
    ]
}

fn image_errors() -> Vec<ImageError> {
    let name = || s("fw.bin");
    vec![
        ImageError::Open { path: path("fw.bin"), source: io::Error::from_raw_os_error(nix::libc::ENOENT) },
        ImageError::Directory { path: path("/tmp") },
        ImageError::NotAFile { path: path("/dev/zero"), kind: "a character device" },
        ImageError::Empty { path: path("fw.bin") },
        ImageError::Read { name: name(), offset: 4096, source: eio() },
        ImageError::Shrank { name: name(), expected: 1000, found: 999 },
        ImageError::Grew { name: name(), expected: 1000, found: 1001 },
        ImageError::Size { name: name(), expected: 1000, found: 1001 },
        ImageError::Surplus { name: s("standard input"), expected: 1000 },
        ImageError::Unproven { name: s("standard input") },
        ImageError::NotCompressed { name: name(), format: "gzip" },
        ImageError::Truncated { name: name(), format: "xz", offset: 4096 },
        ImageError::Corrupt { name: name(), format: "zstd", offset: 4096, what: s("wrong checksum") },
        ImageError::Window { name: name(), format: "xz", window: 64 << 20, needed: 65 << 20, room: 20 << 20 },
        ImageError::Changed { name: name(), first: "ab".repeat(32), second: "cd".repeat(32) },
    ]
}

fn target_errors() -> Vec<TargetError> {
    let two = || vec![partition(3, "kernel"), partition(4, "kernel")];
    vec![
        TargetError::List { path: path("/proc/mtd"), source: eio() },
        TargetError::Unknown { wanted: s("mtd:firmwrae"), found: two() },
        TargetError::Unknown { wanted: s("mtd0"), found: Vec::new() },
        TargetError::Ambiguous { wanted: s("mtd:kernel"), found: two() },
        TargetError::NoVolume { wanted: s("ubi0:root"), found: vec![volume()] },
        TargetError::NotAPartition { wanted: s("/dev/sda"), what: "a block device" },
    ]
}

fn open_errors() -> Vec<OpenError> {
    let node = || path("/dev/mtd5");
    vec![
        OpenError::Open { path: node(), source: io::Error::from_raw_os_error(nix::libc::EACCES) },
        OpenError::OtherDevice { path: node(), expected: Node::mtd(5), found: Node::mtd_block(5) },
        OpenError::NotMtd { path: node(), source: io::Error::from_raw_os_error(nix::libc::ENOTTY) },
        OpenError::Regions { path: node(), source: eio() },
        OpenError::ReadOnly { path: node() },
    ]
}

fn facts_errors() -> Vec<FactsError> {
    vec![FactsError::Read { path: path("/proc/self/mountinfo"), source: eio() }]
}

fn plan_errors() -> Vec<PlanError> {
    vec![
        PlanError::Read { path: path("up.toml"), source: eio() },
        PlanError::TooLarge { path: path("up.toml"), most: 65536 },
        PlanError::Wrong { path: path("up.toml"), what: s("missing field `image`") },
    ]
}

fn uses() -> Vec<Use> {
    let holder = || Holder { pid: 77, comm: s("dropbear") };
    let mount = |elsewhere| Use::Mount { mount_point: s("/persist"), fs_type: s("jffs2"), elsewhere };
    vec![
        mount(None),
        mount(Some(holder())),
        Use::Swap,
        Use::Loop { device: s("loop0") },
        Use::Ubi { device: s("ubi0") },
        Use::Thread(Holder { pid: 12, comm: s("jffs2_gcd_mtd5") }),
        Use::Open { holder: holder(), node: s("/dev/mtd5") },
        Use::Process { holder: holder(), what: s("runs a program from it") },
        Use::Busy,
        Use::Stayed { path: s("/persist"), fs_type: s("jffs2"), reason: s("not done within 10000 ms") },
    ]
}

const ALL_RELATIONS: [Relation; 5] =
    [Relation::Same, Relation::Parent, Relation::Child, Relation::Overlaps, Relation::MayOverlap];

fn verdict() -> Verdict {
    let user = |how| User { mtd: 3, name: s("rootfs"), how };
    let conflicts = uses()
        .into_iter()
        .zip(ALL_RELATIONS.into_iter().cycle())
        .map(|(how, relation)| Conflict { user: user(how), relation });
    Verdict {
        conflicts: conflicts.collect(),
        unplaced: true,
        hidden: 2,
        unread: Some(s("/run/levitate/handover.json: it has version 2")),
    }
}

fn errors() -> Vec<Error> {
    let (target, image) = (|| s("mtd5 \"firmware\""), || s("fw.bin"));
    let content = |expected, found| Error::Content { target: target(), expected, image: image(), found };
    let mismatch = |expected, found| {
        let direction = Direction::of(expected, found);
        Error::Mismatch { offset: 0x1234, expected, found, direction, rewrites: 2 }
    };
    let mut all = vec![
        Error::Image(ImageError::Empty { path: path("fw.bin") }),
        Error::Chip(MtdError::Unsupported),
        Error::Target(TargetError::Unknown { wanted: s("mtd0"), found: Vec::new() }),
        Error::Facts(facts_errors().remove(0)),
        Error::Open(open_errors().remove(0)),
        Error::Ubi(UbiError { what: "update", on: s("ubi0:rootfs"), source: eio() }),
        Error::StreamToStatic { target: s("ubi0:rootfs") },
        Error::VolumeInUse { target: s("ubi0:rootfs"), users: vec![s("mounted at /"), s("open by 77")] },
        Error::VolumeInTheWay {
            target: volume().to_string(),
            other: s("ubi0_4 \"rootfs.flashcp\""),
            shapes: Box::new((s("dynamic with 8 blocks"), s("static with 8 blocks"))),
        },
        Error::UbiInVolume { target: s("ubi0:rootfs"), image: image() },
        Error::TooLarge { image: image(), size: 1001, target: target(), room: 1000 },
        Error::StreamTooLarge { image: s("standard input"), target: target(), room: 1000 },
        Error::HeadTooLong { size: 0x80_0000, most: 0x10_0000 },
        Error::Plan(plan_errors().remove(2)),
        Error::Overlap { first: s("a.bin onto mtd3"), second: s("b.bin onto mtd4") },
        Error::ReadOnly { target: target() },
        Error::InUse { target: target(), verdict: Box::new(verdict()) },
        Error::UbiOnNand { target: target(), image: image() },
        Error::Digest { image: image(), expected: "ab".repeat(32), found: "cd".repeat(32) },
        Error::BadBlock { target: target(), offset: 0x4_0000 },
        Error::TooFewGood { image: image(), size: 1001, target: target(), room: 1000 },
        Error::Locked { start: 0, end: 0x1_0000, source: None },
        Error::Locked { start: 0, end: 0x1_0000, source: chip_errors().into_iter().nth(4) },
        Error::Locked { start: 0, end: 0x1_0000, source: Some(MtdError::Unsupported) },
        Error::Worn { offset: 0x4_0000, source: chip_errors().remove(2) },
        Error::Uncorrectable { offset: 0x1234, rewrites: 2 },
        Error::Geometry { target: target(), what: s("size 0, erase blocks of 0 bytes") },
        Error::Busy { pid: 77, command: s("flashcp -v fw.bin mtd5") },
        Error::Record { path: s("/run/levitate/flash.json"), source: eio() },
        Error::Claim { number: 5, source: io::Error::from_raw_os_error(nix::libc::EBUSY) },
        Error::NotClaimed { number: 5, source: eio() },
        Error::Protected { what: "erase", offset: 0 },
        Error::Overwritten { start: 0x1000, end: 0x2000 },
        Error::ReadBack { start: 0x1000, end: 0x2000 },
        mismatch(0x0f, 0x1f),
        mismatch(0x1f, 0x0f),
        mismatch(0x0f, 0xf0),
    ];
    all.extend(
        [Content::Fit, Content::UImage, Content::Trx, Content::Squashfs, Content::Ubi]
            .into_iter()
            .map(|expected| content(expected, Some(expected))),
    );
    all.push(content(Content::Fit, None));
    all.push(content(Content::Environment, None));
    let what = s("its header announces 164 bytes with itself, and there are 163");
    all.push(Error::Damaged { image: image(), kind: "uImage", what });
    all
}

/// Lines `Kind::Variant: text`; every name of the list must be there.
fn listed<T>(text: &mut String, names: &[&str], name: fn(&T) -> &'static str, all: &[(T, String)]) {
    let found: BTreeSet<&str> = all.iter().map(|(value, _)| name(value)).collect();
    for wanted in names {
        assert!(found.contains(wanted), "{wanted} has no sample");
    }
    for (value, said) in all {
        writeln!(text, "{}: {said}", name(value)).unwrap();
    }
}

fn told<T: ToString>(all: Vec<T>) -> Vec<(T, String)> {
    all.into_iter().map(|value| (value.to_string(), value)).map(|(text, value)| (value, text)).collect()
}

#[test]
fn every_error_has_a_text_that_was_looked_at() {
    let mut text = String::new();
    listed(&mut text, ERRORS, error_name, &told(errors()));
    listed(&mut text, CHIP_ERRORS, chip_name, &told(chip_errors()));
    listed(&mut text, IMAGE_ERRORS, image_name, &told(image_errors()));
    listed(&mut text, TARGET_ERRORS, target_name, &told(target_errors()));
    listed(&mut text, OPEN_ERRORS, open_name, &told(open_errors()));
    listed(&mut text, FACTS_ERRORS, facts_name, &told(facts_errors()));
    listed(&mut text, PLAN_ERRORS, plan_name, &told(plan_errors()));
    listed(&mut text, USES, use_name, &told(uses()));
    listed(&mut text, RELATIONS, relation_name, &told(ALL_RELATIONS.to_vec()));
    let contents = vec![
        Content::Fit,
        Content::UImage,
        Content::Trx,
        Content::Squashfs,
        Content::Ubi,
        Content::Environment,
    ];
    listed(&mut text, CONTENTS, content_name, &told(contents));
    let directions = vec![Direction::ReadsOne, Direction::ReadsZero, Direction::Both];
    listed(&mut text, DIRECTIONS, direction_name, &told(directions));
    kept("errors.txt", &text);
}

#[test]
fn errors_start_in_lower_case_and_end_without_a_full_stop() {
    let mut texts: Vec<String> = errors().iter().map(ToString::to_string).collect();
    texts.extend(image_errors().iter().map(ToString::to_string));
    texts.extend(chip_errors().iter().map(ToString::to_string));
    texts.extend(target_errors().iter().map(ToString::to_string));
    texts.extend(plan_errors().iter().map(ToString::to_string));
    for text in texts {
        assert!(!text.starts_with(char::is_uppercase) && !text.ends_with('.'), "{text}");
    }
}

#[test]
fn every_wrong_use_has_a_text_that_was_looked_at() {
    let lines = [
        "",
        "fw.bin",
        "fw.bin mtd5 more",
        "--nosuch fw.bin mtd5",
        "-l 0 fw.bin mtd5",
        "-l -5 fw.bin mtd5",
        "-l 4q fw.bin mtd5",
        "-l 99999999999999999999 fw.bin mtd5",
        "--size=x fw.bin mtd5",
        "--head=never fw.bin mtd5",
        "--head=keep -l 64 fw.bin mtd5",
        "--sha256=12 fw.bin mtd5",
        "--bad-blocks=ignore fw.bin mtd5",
        "--decompress=lzma fw.bin mtd5",
        "--dry-run --verify-only fw.bin mtd5",
        "- mtd5",
        "--head=keep --size=4k - mtd5",
        "--plan=up.toml fw.bin mtd5",
        "--plan=up.toml --size=4k",
    ];
    let mut text = String::new();
    for line in lines {
        let output =
            Command::new(env!("CARGO_BIN_EXE_flashcp")).args(line.split_whitespace()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
        let said = String::from_utf8(output.stderr).unwrap();
        let first = said.split("\n\nUsage:").next().unwrap_or_default();
        writeln!(text, "{}", format!("$ flashcp {line}").trim_end()).unwrap();
        for said in first.trim_end().lines().filter(|line| !line.is_empty()) {
            writeln!(text, "    {said}").unwrap();
        }
    }
    kept("usage.txt", &text);
}
