//! Compressed images: what is inside, and everything that can be wrong with them.

mod common;

use std::path::PathBuf;

use common::{SIZE, bench, flash, gzip, noise, serial};
use flasher::options::Options;
use flasher::source::file::AnyFile;
use flasher::source::{Decompress, Format, ImageError, Limits};

const PLENTY: Limits = Limits { memory: 256 << 20 };

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(3);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn all(bytes: &[u8]) -> [(&'static str, Vec<u8>); 3] {
    [("gz", gzip(bytes)), ("xz", xz(bytes)), ("zst", zstd(bytes))]
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn dir() -> Dir {
    Dir(tempfile::tempdir().unwrap())
}

/// Text that compresses, and bytes that do not.
fn image() -> Vec<u8> {
    let mut image = b"a line that comes again and again\n".repeat(900);
    image.extend(noise(3, 70_000));
    image
}

fn read(file: &mut AnyFile, offset: usize, length: usize) -> Vec<u8> {
    let mut buf = vec![0; length];
    file.source().read_at(offset as u64, &mut buf).unwrap();
    buf
}

fn refused(dir: &Dir, name: &str, bytes: &[u8], limits: Limits) -> ImageError {
    AnyFile::open(&dir.file(name, bytes), Decompress::ByName, limits).map(|_| ()).unwrap_err()
}

#[test]
fn a_compressed_file_reads_like_the_image_inside_in_any_order() {
    let (dir, image) = (dir(), image());
    for (suffix, bytes) in all(&image) {
        assert!(bytes.len() < image.len(), "{suffix}");
        let mut file =
            AnyFile::open(&dir.file(&format!("fw.{suffix}"), &bytes), Decompress::ByName, PLENTY).unwrap();
        assert_eq!(file.source().size(), image.len() as u64);
        for offset in [0, 50_000, 50_100, 7, 100_000, 0] {
            assert!(read(&mut file, offset, 600) == image[offset..offset + 600], "{suffix} {offset}");
        }
        file.source().end_of_pass().unwrap();
        assert!(read(&mut file, 0, image.len()) == image);
        file.source().end_of_pass().unwrap();
    }
}

#[test]
fn only_a_name_or_an_option_has_an_image_decompressed() {
    let (dir, image) = (dir(), image());
    let packed = gzip(&image);
    let size = |name: &str, decompress| {
        let mut file = AnyFile::open(&dir.file(name, &packed), decompress, PLENTY).unwrap();
        file.source().size()
    };
    // A kernel may itself start like this.
    assert_eq!(size("fw.bin", Decompress::ByName), packed.len() as u64);
    assert_eq!(size("fw.gz", Decompress::Never), packed.len() as u64);
    assert_eq!(size("fw.bin", Decompress::ByMagic), image.len() as u64);
    assert_eq!(size("fw.bin", Decompress::As(Format::Gzip)), image.len() as u64);
    let mut plain = AnyFile::open(&dir.file("a", b"plain"), Decompress::ByMagic, PLENTY).unwrap();
    assert_eq!(plain.source().size(), 5);
}

#[test]
fn several_members_are_one_image() {
    let (dir, image) = (dir(), image());
    let (one, two) = image.split_at(40_000);
    for (suffix, pack) in [("gz", gzip as fn(&[u8]) -> Vec<u8>), ("xz", xz), ("zst", zstd)] {
        let mut bytes = pack(one);
        if suffix == "zst" {
            bytes.extend(b"\x53\x2a\x4d\x18\x03\0\0\0abc");
        }
        bytes.extend(pack(two));
        let path = dir.file(&format!("fw.{suffix}"), &bytes);
        let mut file = AnyFile::open(&path, Decompress::ByName, PLENTY).unwrap();
        assert!(read(&mut file, 0, image.len()) == image, "{suffix}");
    }
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let (dir, image) = (dir(), b"some bytes, some more bytes, and some more bytes".repeat(9));
    for (suffix, bytes) in all(&image) {
        let name = format!("fw.{suffix}");
        for end in 1..bytes.len() {
            let error = refused(&dir, &name, &bytes[..end], PLENTY);
            let is_right = matches!(
                error,
                ImageError::Truncated { .. } | ImageError::NotCompressed { .. } | ImageError::Corrupt { .. }
            );
            assert!(is_right, "{suffix} {end}: {error}");
        }
        let path = dir.0.path().join(&name);
        let cut = refused(&dir, &name, &bytes[..bytes.len() - 3], PLENTY).to_string();
        let starts = format!("the image {} is cut short: its ", path.display());
        assert!(cut.starts_with(&starts), "{cut}");
    }
}

#[test]
fn one_wrong_bit_anywhere_is_found_or_harmless() {
    let (dir, image) = (dir(), b"some bytes, some more bytes, and some more bytes".repeat(9));
    for (suffix, bytes) in all(&image) {
        let mut found = 0;
        for at in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            let path = dir.file(&format!("fw.{suffix}"), &bytes);
            // A bit of gzip's header names the file system, for example.
            match AnyFile::open(&path, Decompress::ByName, PLENTY) {
                Ok(mut file) => assert!(read(&mut file, 0, image.len()) == image, "{suffix} {at}"),
                Err(_) => found += 1,
            }
        }
        assert!(found > bytes.len() * 5, "{suffix}: {found} of {}", bytes.len() * 8);
    }
}

#[test]
fn garbage_behind_the_end_is_refused() {
    let dir = dir();
    for (suffix, mut bytes) in all(b"abc") {
        bytes.extend(b"garbage, and some more of it");
        let error = refused(&dir, &format!("fw.{suffix}"), &bytes, PLENTY);
        assert!(matches!(error, ImageError::Corrupt { offset: 3, .. }), "{error}");
    }
    let error = refused(&dir, "fw.gz", b"not compressed", PLENTY).to_string();
    assert_eq!(error, format!("the image {} is not gzip data", dir.0.path().join("fw.gz").display()));
    let error = refused(&dir, "e.gz", &gzip(b""), PLENTY).to_string();
    assert!(error.ends_with("e.gz is empty"), "{error}");
}

#[test]
fn a_window_larger_than_memory_is_refused_with_the_numbers() {
    let dir = dir();
    let error = refused(&dir, "fw.xz", &xz(b"abc"), Limits { memory: 1 << 20 }).to_string();
    let name = dir.0.path().join("fw.xz");
    assert_eq!(
        error,
        format!(
            "the image {} needs 4352 KiB of memory to be decompressed (xz, a window of 4096 KiB), 1024 KiB are available",
            name.display()
        )
    );
    // The second frame's window counts too.
    let mut bytes = zstd(b"abc");
    bytes.extend(b"\x28\xb5\x2f\xfd\x00\xa0");
    let error = refused(&dir, "fw.zst", &bytes, Limits { memory: 8 << 20 });
    assert!(matches!(error, ImageError::Window { window: 0x4000_0000, .. }), "{error}");
}

#[test]
fn what_is_available_is_what_the_system_says_less_a_reserve() {
    let dir = dir();
    assert_eq!(Limits::of(dir.0.path()).memory, u64::MAX);
    std::fs::create_dir(dir.0.path().join("proc")).unwrap();
    let _ = dir.file("proc/meminfo", b"MemTotal: 60000 kB\nMemFree: 1 kB\nMemAvailable:   20480 kB\n");
    assert_eq!(Limits::of(dir.0.path()).memory, 16 << 20);
}

#[test]
fn a_compressed_file_is_written_like_the_image_inside() {
    let (dir, image) = (dir(), noise(2, SIZE - 9));
    for (suffix, bytes) in all(&image) {
        let path = dir.file(&format!("fw.{suffix}"), &bytes);
        let mut file = AnyFile::open(&path, Decompress::ByName, PLENTY).unwrap();
        let (mut chip, bench) = (serial(), bench());
        let run = common::Run {
            facts: common::facts(&flasher::device::Mtd::geometry(&chip).clone()),
            options: Options { size: Some(SIZE as u64 - 9), ..Options::default() },
            records: &bench.records,
            hold: &mut flasher::hold::NoHold,
            progress: &mut flasher::event::Silent,
        };
        run.go(&mut chip, file.source()).unwrap();
        assert!(chip.bytes().starts_with(&image), "{suffix}");
    }
    let (mut chip, bench) = (serial(), bench());
    let options = Options { size: Some(7), ..Options::default() };
    let failure = flash(&mut chip, b"abc", &options, &bench.records).unwrap_err();
    assert_eq!(failure.to_string(), "the image fw.bin has another size: 7 bytes expected, 3 found");
}
