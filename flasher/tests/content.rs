//! Images that a boot loader would not take, and targets that hold its environment: refused before the first change.

mod common;

use common::{SIZE, Way, bench, flash_by, serial, uniform};
use flasher::device::Kind;
use flasher::options::{Check, Options};
use flasher::sim::Nor;

/// A uImage with the header that `mkimage` makes, of 64 bytes, around 300 others.
fn uimage() -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..4].copy_from_slice(&[0x27, 0x05, 0x19, 0x56]);
    header[12..16].copy_from_slice(&300_u32.to_be_bytes());
    header[32..38].copy_from_slice(b"kernel");
    let sum = crc32fast::hash(&header);
    header[4..8].copy_from_slice(&sum.to_be_bytes());
    header.extend([7; 300]);
    header
}

/// What a refusal says, of a file and of a stream; `None` if the image was written.
fn said(chip: &Nor, image: &[u8], options: &Options) -> [Option<String>; 2] {
    [Way::File, Way::Stream].map(|way| {
        let (mut chip, bench) = (chip.clone(), bench());
        let before = chip.bytes().to_vec();
        match flash_by(way, &mut chip, image, options, &bench.records) {
            Ok(_) => {
                assert!(chip.bytes().starts_with(image));
                None
            }
            Err(failure) => {
                assert_eq!((failure.exit_code(), chip.calls()), (1, 0), "{failure}");
                assert!(chip.bytes() == before && bench.records.read().is_none());
                Some(failure.to_string())
            }
        }
    })
}

#[test]
fn a_uimage_with_a_damaged_header_or_cut_short_is_refused_unless_told_otherwise() {
    let whole = uimage();
    let plain = Options::default();
    let any = Options { content: Check::Allow, ..Options::default() };
    assert_eq!(said(&serial(), &whole, &plain), [None, None]);
    let mut damaged = whole.clone();
    damaged[40] ^= 1;
    for text in said(&serial(), &damaged, &plain) {
        let text = text.unwrap();
        assert!(text.contains(" is a damaged uImage: its header says CRC32 0x"), "{text}");
    }
    for text in said(&serial(), &whole[..363], &plain) {
        let text = text.unwrap();
        assert!(text.ends_with("its header announces 364 bytes with itself, and there are 363"), "{text}");
    }
    assert_eq!(said(&serial(), &damaged, &any), [None, None]);
    assert_eq!(said(&serial(), &whole[..363], &any), [None, None]);
}

#[test]
fn a_target_that_holds_u_boots_environment_takes_another_environment_alone() {
    let environment = |strings: &[u8]| {
        let mut body = strings.to_vec();
        body.resize(1020, 0);
        [&crc32fast::hash(&body).to_le_bytes()[..], &body].concat()
    };
    let mut old = environment(b"baudrate=115200\0bootcmd=run flash\0\0");
    old.resize(SIZE, 0xff);
    let chip = Nor::new(uniform(Kind::SpiNor, 8), old);
    let plain = Options::default();
    for text in said(&chip, &uimage(), &plain) {
        let text = text.unwrap();
        assert!(text.contains(" starts with a U-Boot environment today, the image "), "{text}");
        assert!(text.ends_with(" with a uImage"), "{text}");
    }
    assert_eq!(said(&chip, &environment(b"bootdelay=3\0\0"), &plain), [None, None]);
    // A stream is known as far as its head goes, which is less than this environment: only a file's sum can be told.
    let mut wrong = environment(b"bootdelay=3\0\0");
    wrong[900] ^= 1;
    let [file, stream] = said(&chip, &wrong, &plain);
    assert!(file.is_some() && stream.is_none());
    let any = Options { content: Check::Allow, ..Options::default() };
    assert_eq!(said(&chip, &uimage(), &any), [None, None]);
}
