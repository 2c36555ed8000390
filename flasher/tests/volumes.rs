//! Whole runs onto simulated UBI volumes.

mod common;

use common::{Bench, bench, noise};
use flasher::event::Silent;
use flasher::hold::NoHold;
use flasher::options::{Check, Mode, Options};
use flasher::record::State;
use flasher::report::{Failure, Flash, Outcome, Report};
use flasher::sim::SimVolumes;
use flasher::source::Bytes;
use flasher::target::ubi::{Named, VolumeKind};
use flasher::ubi::{VolumeJob, Volumes, run};

const BLOCK: u64 = 124;

fn device(free: u64, kind: VolumeKind) -> SimVolumes {
    SimVolumes::new(free + 10, BLOCK).with("kernel", VolumeKind::Static, 2, b"kernel").with(
        "rootfs",
        kind,
        8,
        &noise(1, 900),
    )
}

fn go(
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
    run(device, &mut Bytes::new("fw.bin", image.to_vec()).unwrap(), job)
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
        assert_eq!((device.holds("rootfs.new"), device.holds("kernel")), (None, Some(b"kernel".as_slice())));
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
    assert_eq!(failure.to_string(), "cannot update ubi0_1 \"rootfs\": Device or resource busy (os error 16)");
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
