//! Whole runs onto simulated UBI volumes.

mod common;

use common::{Bench, bench, noise};
use flasher::event::Silent;
use flasher::hold::NoHold;
use flasher::options::{Check, Mode, Options};
use flasher::record::State;
use flasher::report::{Failure, Flash, Outcome, Report};
use flasher::sim::{Misread, SimVolumes};
use flasher::source::Bytes;
use flasher::source::feed::Plain;
use flasher::target::ubi::{Named, VolumeKind};
use flasher::ubi::{VolumeJob, Volumes, run, run_stream};

const BLOCK: u64 = 124;

fn device(free: u64, kind: VolumeKind) -> SimVolumes {
    SimVolumes::new(free + 10, BLOCK).with("kernel", VolumeKind::Static, 2, b"kernel").with(
        "rootfs",
        kind,
        8,
        &noise(1, 900),
    )
}

/// How the image arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    File,
    Stream,
}

fn go(
    device: &mut SimVolumes,
    image: &[u8],
    named: Named,
    options: &Options,
    users: &[String],
    bench: &Bench,
) -> Result<Report, Failure> {
    go_by(Way::File, device, image, named, options, users, bench)
}

fn go_by(
    way: Way,
    device: &mut SimVolumes,
    image: &[u8],
    named: Named,
    options: &Options,
    users: &[String],
    bench: &Bench,
) -> Result<Report, Failure> {
    let volumes = device.device().unwrap().volumes;
    let volume = volumes.into_iter().find(|volume| volume.name == "rootfs").unwrap();
    let job = VolumeJob {
        volume: &volume,
        named,
        users,
        options,
        command: &["flashcp".to_owned(), "ubi0:rootfs".to_owned()],
        records: &bench.records,
        hold: &mut NoHold,
        progress: &mut Silent,
    };
    match way {
        Way::File => run(device, &mut Bytes::new("fw.bin", image.to_vec()).unwrap(), job),
        Way::Stream => run_stream(device, &mut Plain::new("standard input", image), job),
    }
}

/// A stream that is said to have `size` bytes; more or less of it may come.
fn feed(
    device: &mut SimVolumes,
    image: &[u8],
    size: usize,
    named: Named,
    bench: &Bench,
) -> Result<Report, Failure> {
    let options = Options { size: Some(size as u64), ..Options::default() };
    go_by(Way::Stream, device, image, named, &options, &[], bench)
}

fn plain(device: &mut SimVolumes, image: &[u8], named: Named, bench: &Bench) -> Result<Report, Failure> {
    go(device, image, named, &Options::default(), &[], bench)
}

#[test]
fn an_image_is_written_beside_the_old_one_and_takes_its_name() {
    for kind in [VolumeKind::Dynamic, VolumeKind::Static] {
        let (bench, mut device) = (bench(), device(8, kind));
        let image = noise(2, 700);
        let report = plain(&mut device, &image, Named::ByName, &bench).unwrap();
        assert_eq!((report.outcome.clone(), report.exit_code()), (Outcome::Written, 0));
        assert!(device.holds("rootfs").unwrap().starts_with(&image));
        assert_eq!(
            (device.holds("rootfs.flashcp"), device.holds("kernel")),
            (None, Some(b"kernel".as_slice()))
        );
        let after = device.device().unwrap();
        assert_eq!((after.volumes.len(), after.free_blocks), (2, 8));
        let record = bench.records.read().unwrap();
        assert_eq!((record.state, record.range_sha256), (State::Verified, Some(report.sha256)));
        assert_eq!(plain(&mut device, &image, Named::ByName, &bench).unwrap().outcome, Outcome::Unchanged);
    }
}

#[test]
fn without_room_or_by_its_number_a_volume_is_written_in_place() {
    for (free, named) in [(7, Named::ByName), (8, Named::ByNumber)] {
        let (bench, mut device) = (bench(), device(free, VolumeKind::Dynamic));
        let image = noise(2, 992);
        plain(&mut device, &image, named, &bench).unwrap();
        assert_eq!(device.holds("rootfs").unwrap(), image);
        // One update and eight pieces; nothing was made, renamed or removed.
        assert_eq!(device.calls(), 9);
    }
}

#[test]
fn a_cut_at_any_call_leaves_the_whole_old_image_or_the_whole_new_one_under_the_name() {
    let image = noise(2, 800);
    for (free, named, atomic) in
        [(8, Named::ByName, true), (0, Named::ByName, false), (8, Named::ByNumber, false)]
    {
        let mut clean = device(free, VolumeKind::Dynamic);
        let old = clean.holds("rootfs").unwrap().to_vec();
        plain(&mut clean, &image, named, &bench()).unwrap();
        let new = clean.holds("rootfs").unwrap().to_vec();
        for at in 0..clean.calls() {
            let (bench, mut device) = (bench(), device(free, VolumeKind::Dynamic));
            device.cut_power(at);
            let first = plain(&mut device, &image, named, &bench);
            device.power_cycle();
            let found = device.holds("rootfs");
            assert!(found.is_none_or(|found| found == old || found == new), "cut {at}");
            if atomic {
                assert!(found.is_some(), "cut {at}");
                // Until the names are swapped the old image is whole, and the failure says so.
                let untouched = first.as_ref().is_err_and(|failure| failure.flash == Flash::Untouched);
                assert_eq!(untouched, found == Some(&old[..]), "cut {at}");
            } else if at > 0 {
                assert_eq!(first.unwrap_err().exit_code(), 3);
                assert_eq!(bench.records.read().unwrap().state, State::Unverified);
            }
            plain(&mut device, &image, named, &bench).unwrap();
            assert_eq!(device.holds("rootfs"), Some(&new[..]), "cut {at}");
            assert_eq!(device.device().unwrap().volumes.len(), 2, "cut {at}");
            assert_eq!(bench.records.read().unwrap().state, State::Verified);
        }
    }
}

#[test]
fn what_cannot_be_written_is_refused_before_any_change() {
    let bench = bench();
    let mut device = device(8, VolumeKind::Dynamic);
    let before = device.holds("rootfs").unwrap().to_vec();
    let failure = plain(&mut device, &noise(2, 993), Named::ByName, &bench).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the image fw.bin does not fit: it has 993 bytes, ubi0_1 \"rootfs\" has 992 (1 too many)"
    );
    let users = ["mounted at /".to_owned()];
    let options = Options::default();
    let failure = go(&mut device, &noise(2, 9), Named::ByName, &options, &users, &bench).unwrap_err();
    assert_eq!(failure.to_string(), "ubi0_1 \"rootfs\" is in use: mounted at /");
    let failure = plain(&mut device, b"UBI#image", Named::ByName, &bench).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the image fw.bin is a UBI image: it is for the flash below UBI, not for the volume ubi0_1 \"rootfs\""
    );
    let other = Options { sha256: Some("00".repeat(32)), ..Options::default() };
    assert!(go(&mut device, &noise(2, 9), Named::ByName, &other, &[], &bench).is_err());
    assert_eq!((device.calls(), device.holds("rootfs"), bench.records.read()), (0, Some(&before[..]), None));
    // Who holds it without a mount is told by the kernel; the volume is as it was.
    let mut busy = device.clone().with_busy(1);
    let failure = plain(&mut busy, &noise(2, 9), Named::ByNumber, &bench).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "ubi0_1 \"rootfs\" is in use: held by the kernel or by a process (it cannot be opened exclusively)"
    );
    assert_eq!((failure.exit_code(), busy.holds("rootfs")), (1, Some(&before[..])));
    assert_eq!(bench.records.read(), None);
}

#[test]
fn a_volume_that_reads_back_wrong_never_takes_the_name() {
    let bench = bench();
    let mut device = device(8, VolumeKind::Dynamic).with_flips();
    let old = device.holds("rootfs").unwrap().to_vec();
    let failure = plain(&mut device, &noise(2, 300), Named::ByName, &bench).unwrap_err();
    assert_eq!(failure.exit_code(), 1);
    assert!(failure.to_string().starts_with("verification failed at 0x0: "), "{failure}");
    assert_eq!(device.device().unwrap().volumes.len(), 2);
    assert_eq!(device.holds("rootfs"), Some(&old[..]));
    let failure = plain(&mut device, &noise(2, 300), Named::ByNumber, &bench).unwrap_err();
    assert_eq!((failure.exit_code(), bench.records.read().unwrap().state), (3, State::Unverified));
}

#[test]
fn dry_run_and_verify_only_touch_no_volume() {
    let bench = bench();
    let mut device = device(8, VolumeKind::Static);
    let mode = |mode| Options { mode, content: Check::Refuse, ..Options::default() };
    let mut go =
        |image: &[u8], mode| go(&mut device, image, Named::ByName, &mode, &[], &bench).unwrap().outcome;
    assert_eq!(go(&noise(2, 300), mode(Mode::DryRun)), Outcome::Possible);
    assert_eq!(go(&noise(1, 900), mode(Mode::VerifyOnly)), Outcome::Equal);
    assert_eq!(go(&noise(2, 300), mode(Mode::VerifyOnly)), Outcome::Differs { blocks: 3, first: 0 });
    // A static volume is longer than an image that is its beginning.
    assert_eq!(go(&noise(1, 800), mode(Mode::VerifyOnly)), Outcome::Differs { blocks: 1, first: 744 });
    assert_eq!(device.calls(), 0);
}

#[test]
fn a_stream_takes_the_name_when_its_end_is_proven_and_not_before() {
    for kind in [VolumeKind::Dynamic, VolumeKind::Static] {
        let (bench, mut device) = (bench(), device(8, kind));
        let (old, image) = (device.holds("rootfs").unwrap().to_vec(), noise(2, 700));
        for (sent, said) in [
            (600, "the image standard input ended at byte 600 of 700 while it was read"),
            (0, "the image standard input is empty"),
        ] {
            let failure = feed(&mut device, &image[..sent], 700, Named::ByName, &bench).unwrap_err();
            assert_eq!((failure.to_string().as_str(), failure.exit_code()), (said, 1));
            assert_eq!((device.holds("rootfs"), bench.records.read()), (Some(&old[..]), None));
            assert_eq!(device.device().unwrap().volumes.len(), 2);
        }
        let failure = feed(&mut device, &image, 600, Named::ByName, &bench).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "the image standard input goes on behind the 600 bytes it was said to have"
        );
        assert_eq!(device.holds("rootfs"), Some(&old[..]));
        let report = feed(&mut device, &image, 700, Named::ByName, &bench).unwrap();
        assert_eq!((report.outcome.clone(), report.image_bytes), (Outcome::Written, 700));
        assert!(device.holds("rootfs").unwrap().starts_with(&image));
        let record = bench.records.read().unwrap();
        assert_eq!(
            (record.state, record.bytes_done, record.range_sha256),
            (State::Verified, 700, Some(report.sha256))
        );
        // The same once more changes nothing.
        let calls = device.calls();
        let again = feed(&mut device, &image, 700, Named::ByName, &bench).unwrap();
        assert_eq!((again.outcome, device.calls()), (Outcome::Unchanged, calls));
    }
}

#[test]
fn a_stream_that_differs_late_keeps_its_beginning() {
    let (bench, mut device) = (bench(), device(8, VolumeKind::Dynamic));
    let mut image = noise(1, 900);
    image[800] ^= 1;
    feed(&mut device, &image, 900, Named::ByName, &bench).unwrap();
    assert!(device.holds("rootfs").unwrap().starts_with(&image));
    assert_eq!(bench.records.read().unwrap().state, State::Verified);
}

#[test]
fn a_volume_written_in_place_stays_void_until_the_end_of_the_stream_is_proven() {
    let (bench, mut device) = (bench(), device(0, VolumeKind::Dynamic));
    // As long as the volume, so that its last byte is the image's.
    let image = noise(2, 992);
    for sent in [1, 124, 991] {
        let failure = feed(&mut device, &image[..sent], 992, Named::ByName, &bench).unwrap_err();
        assert_eq!((failure.exit_code(), device.holds("rootfs")), (3, None), "{sent}");
        assert_eq!(bench.records.read().unwrap().state, State::Unverified);
    }
    let longer = noise(2, 993);
    let failure = feed(&mut device, &longer, 992, Named::ByName, &bench).unwrap_err();
    assert_eq!((failure.exit_code(), device.holds("rootfs")), (3, None));
    feed(&mut device, &image, 992, Named::ByName, &bench).unwrap();
    assert_eq!(device.holds("rootfs").unwrap(), image);
}

#[test]
fn a_stream_of_unknown_size_goes_to_a_dynamic_volume_and_is_refused_by_a_static_one() {
    let image = noise(2, 300);
    let (bench, mut device) = (bench(), device(8, VolumeKind::Dynamic));
    let report = go(&mut device.clone(), &image, Named::ByName, &Options::default(), &[], &bench).unwrap();
    let by_digest = Options { sha256: Some(report.sha256), ..Options::default() };
    let go = |device: &mut SimVolumes, options: &Options| {
        go_by(Way::Stream, device, &image, Named::ByName, options, &[], &bench)
    };
    let report = go(&mut device, &by_digest).unwrap();
    assert_eq!((report.image_bytes, report.plan.bytes), (300, 300));
    let mut wanted = image.clone();
    wanted.resize(992, 0xff);
    assert_eq!(device.holds("rootfs").unwrap(), wanted);
    let mut fixed = self::device(8, VolumeKind::Static);
    assert_eq!(
        go(&mut fixed, &by_digest).unwrap_err().to_string(),
        "ubi0_1 \"rootfs\" is a static volume: the size of an image for it must be known before it is written"
    );
    assert_eq!(go(&mut fixed, &Options::default()).unwrap_err().exit_code(), 2);
    let other = Options { sha256: Some("00".repeat(32)), ..Options::default() };
    assert_eq!(go(&mut self::device(8, VolumeKind::Dynamic), &other).unwrap_err().exit_code(), 1);
}

#[test]
fn streams_are_compared_and_planned_without_a_change() {
    let bench = bench();
    let mut device = device(8, VolumeKind::Dynamic);
    let mut go = |image: &[u8], mode| {
        let options = Options { mode, size: Some(image.len() as u64), ..Options::default() };
        go_by(Way::Stream, &mut device, image, Named::ByName, &options, &[], &bench).unwrap().outcome
    };
    assert_eq!(go(&noise(2, 300), Mode::DryRun), Outcome::Possible);
    assert_eq!(go(&noise(1, 900), Mode::VerifyOnly), Outcome::Equal);
    let mut other = noise(1, 900);
    other[300] ^= 2;
    other[899] ^= 2;
    assert_eq!(go(&other, Mode::VerifyOnly), Outcome::Differs { blocks: 2, first: 248 });
    assert_eq!(device.calls(), 0);
}

#[test]
fn no_fault_of_a_volume_is_ever_called_verified() {
    let (image, mut runs, mut verified) = (noise(2, 800), 0_u32, 0_u32);
    for way in [Way::File, Way::Stream] {
        for kind in [VolumeKind::Dynamic, VolumeKind::Static] {
            for (free, named) in [(8, Named::ByName), (0, Named::ByName), (8, Named::ByNumber)] {
                let fresh = || device(free, kind);
                let options = Options { size: Some(800), ..Options::default() };
                let mut clean = fresh();
                let old = clean.holds("rootfs").unwrap().to_vec();
                go_by(way, &mut clean, &image, named, &options, &[], &bench()).unwrap();
                let new = clean.holds("rootfs").unwrap().to_vec();
                let failures = (0..clean.calls()).map(|at| fresh().with_failure(at));
                let misreadings = (0..clean.reads()).flat_map(|at| {
                    [Misread::Flips, Misread::Fails].map(|how| fresh().with_misreading(at, how))
                });
                let cuts = (0..clean.calls()).map(|at| {
                    let mut device = fresh();
                    device.cut_power(at);
                    device
                });
                for mut device in failures.chain(misreadings).chain(cuts) {
                    let what = format!("{way:?}, {device:?}");
                    let bench = bench();
                    let result = go_by(way, &mut device, &image, named, &options, &[], &bench);
                    device.power_cycle();
                    let (found, state) = (device.holds("rootfs"), bench.records.read().map(|r| r.state));
                    runs += 1;
                    match result {
                        Ok(report) => {
                            verified += 1;
                            assert_eq!((report.exit_code(), found), (0, Some(&new[..])), "{what}");
                            assert_eq!(state, Some(State::Verified), "{what}");
                        }
                        Err(failure) if failure.exit_code() == 1 => {
                            assert_eq!((found, state), (Some(&old[..]), None), "{what}");
                        }
                        Err(failure) => {
                            assert_eq!((failure.exit_code(), state), (3, Some(State::Unverified)), "{what}");
                            assert!(found.is_none_or(|found| found == old || found == new), "{what}");
                        }
                    }
                    // What a fault has left does not stand in the way of the next run.
                    go_by(way, &mut device, &image, named, &options, &[], &bench).unwrap();
                    assert_eq!(device.holds("rootfs"), Some(&new[..]), "{what}");
                    assert_eq!(bench.records.read().unwrap().state, State::Verified, "{what}");
                    assert_eq!(device.device().unwrap().volumes.len(), 2, "{what}");
                }
            }
        }
    }
    println!("{runs} faults of volumes, {verified} runs verified all the same");
    assert!(runs > 400 && verified > 100, "{runs}, {verified}");
}

#[test]
fn a_wrong_reading_that_passes_is_read_again_and_stops_nothing() {
    for way in [Way::File, Way::Stream] {
        for how in [Misread::Flips, Misread::Fails] {
            let options = Options { size: Some(800), ..Options::default() };
            let go = |device: &mut SimVolumes| {
                go_by(way, device, &noise(2, 800), Named::ByName, &options, &[], &bench())
            };
            let mut clean = device(8, VolumeKind::Dynamic);
            assert_eq!(go(&mut clean).unwrap().retries, 0);
            // The last reading is one of the proof.
            let last = clean.reads() - 1;
            let report = go(&mut device(8, VolumeKind::Dynamic).with_misreading(last, how)).unwrap();
            assert_eq!((report.outcome, report.retries), (Outcome::Written, 1), "{way:?}, {how:?}");
        }
    }
}

/// Only a volume that bears this tool's name, of the kind and size that it makes, can be its own.
#[test]
fn a_volume_that_is_not_of_a_run_that_was_cut_off_is_never_removed() {
    let image = noise(2, 700);
    for way in [Way::File, Way::Stream] {
        let go = |device: &mut SimVolumes, mode, named| {
            let options = Options { mode, size: Some(700), ..Options::default() };
            let bench = bench();
            let result = go_by(way, device, &image, named, &options, &[], &bench);
            assert_eq!(bench.records.read().is_some(), result.is_ok() && mode == Mode::Write);
            result
        };
        // Somebody else's, as a name for the next image.
        let mut device =
            device(20, VolumeKind::Dynamic).with("rootfs.new", VolumeKind::Dynamic, 8, b"theirs");
        go(&mut device, Mode::Write, Named::ByName).unwrap();
        assert!(device.holds("rootfs.new").unwrap().starts_with(b"theirs"), "{way:?}");
        for (kind, blocks) in [(VolumeKind::Static, 8), (VolumeKind::Dynamic, 7)] {
            let mut device =
                self::device(20, VolumeKind::Dynamic).with("rootfs.flashcp", kind, blocks, b"theirs");
            for mode in [Mode::DryRun, Mode::Write] {
                let failure = go(&mut device, mode, Named::ByName).unwrap_err();
                let kind = if kind == VolumeKind::Static { "static" } else { "dynamic" };
                assert_eq!(
                    failure.to_string(),
                    format!(
                        "ubi0_2 \"rootfs.flashcp\" is where the new volume for ubi0_1 \"rootfs\" would be made, and no \
                         run of this tool has left it: dynamic with 8 blocks expected, {kind} with {blocks} blocks found"
                    )
                );
                assert_eq!((failure.exit_code(), device.calls()), (1, 0));
            }
            assert_eq!(go(&mut device, Mode::VerifyOnly, Named::ByName).unwrap().exit_code(), 5);
            // In place it is in nobody's way, and the image that is there already leaves it alone.
            go(&mut device, Mode::Write, Named::ByNumber).unwrap();
            if way == Way::File {
                assert_eq!(go(&mut device, Mode::Write, Named::ByName).unwrap().outcome, Outcome::Unchanged);
            }
            assert!(device.holds("rootfs.flashcp").unwrap().starts_with(b"theirs"));
        }
    }
}
