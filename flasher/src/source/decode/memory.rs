//! What a decoder is said to take, beside what it takes: counted on the heap, by format and window.

use std::cell::RefCell;
use std::io::Cursor;
use std::rc::Rc;

use super::*;
use crate::sim::cases::noise;
use crate::sys::counting::peak_of;

const MIB: u64 = 1 << 20;

/// Bytes of an image: half of it repeats itself.
fn image(length: usize) -> Vec<u8> {
    let mut image = noise(5, length);
    for (number, line) in image.chunks_mut(512).enumerate() {
        if number % 2 == 0 {
            line.fill(b'a');
        }
    }
    image
}

fn gzip(image: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, image).unwrap();
    encoder.finish().unwrap()
}

fn xz(image: &[u8], dictionary: u64) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.lzma_options.dict_size = u32::try_from(dictionary).unwrap();
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    std::io::Write::write_all(&mut encoder, image).unwrap();
    encoder.finish().unwrap()
}

/// A frame of blocks that are no shorter than what is in them, with any window.
fn stored(image: &[u8], header: &[u8]) -> Vec<u8> {
    let mut frame = [b"\x28\xb5\x2f\xfd", header].concat();
    let count = image.chunks(128 << 10).count();
    for (number, block) in image.chunks(128 << 10).enumerate() {
        let last = u32::from(number + 1 == count);
        let length = u32::try_from(block.len()).unwrap();
        frame.extend_from_slice(&(last | length << 3).to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

fn zstd(image: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(image, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn no_decoder_takes_more_than_is_announced() {
    let (small, large) = (image(2 << 20), vec![b'a'; 20 << 20]);
    let single = |length: u32| [&[0xa0][..], &length.to_le_bytes()].concat();
    let cases = [
        ("gzip", Format::Gzip, gzip(&small), small.len()),
        ("xz, 64 KiB", Format::Xz, xz(&small, 64 << 10), small.len()),
        ("xz, 1 MiB", Format::Xz, xz(&small, MIB), small.len()),
        ("xz, 8 MiB", Format::Xz, xz(&large[..9 << 20], 8 * MIB), 9 << 20),
        ("zstd, as packed", Format::Zstd, zstd(&small), small.len()),
        ("zstd, 128 KiB", Format::Zstd, stored(&small, &[0, 0x38]), small.len()),
        ("zstd, 2 MiB", Format::Zstd, stored(&large[..3 << 20], &[0, 0x58]), 3 << 20),
        ("zstd, 8 MiB", Format::Zstd, stored(&large[..9 << 20], &[0, 0x68]), 9 << 20),
        ("zstd, 9 MiB", Format::Zstd, stored(&large[..10 << 20], &[0, 0x69]), 10 << 20),
        ("zstd, all in one", Format::Zstd, stored(&large, &single(20 << 20)), large.len()),
    ];
    for (name, format, packed, length) in cases {
        let packed = Cursor::new(packed);
        let announced = Rc::new(RefCell::new(None));
        let out = Rc::clone(&announced);
        let peak = peak_of(move || {
            let mut decoder = Decoded::new("fw", format, packed, Limits { memory: 256 * MIB });
            *out.borrow_mut() = Some(decoder.window().unwrap());
            // As a block of NAND is read.
            let mut buf = [0; 128 << 10];
            let mut all = 0;
            while let read @ 1.. = decoder.read(&mut buf).unwrap() {
                all += read;
            }
            assert_eq!(all, length);
        });
        let announced = announced.borrow().unwrap();
        println!(
            "decoder: {name}: a window of {} KiB, {} KiB announced, {} KiB at most",
            announced.size >> 10,
            announced.memory >> 10,
            peak >> 10
        );
        assert!(peak <= announced.memory, "{name}: {peak} bytes, {} announced", announced.memory);
        assert!(
            announced.memory <= peak + 2 * MIB,
            "{name}: {} bytes announced for {peak}",
            announced.memory
        );
    }
}
