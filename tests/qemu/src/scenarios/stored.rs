//! Compressed formats around bytes that are stored as they are: what a decoder needs is in the headers, and the build
//! machine needs no encoder.

/// The window that both announce, in bytes.
const WINDOW: u64 = 8 << 20;

/// A zstd frame (RFC 8878, 3.1.1) of raw blocks.
pub(super) fn zstd(image: &[u8]) -> Vec<u8> {
    // One window descriptor, no content size and no check sum; 1 KiB << 13 is the window.
    let exponent = WINDOW.trailing_zeros() - 10;
    let mut frame = b"\x28\xb5\x2f\xfd\x00".to_vec();
    frame.push(exponent.to_le_bytes()[0] << 3);
    let mut blocks = image.chunks(128 << 10).peekable();
    while let Some(block) = blocks.next() {
        let last = u32::from(blocks.peek().is_none());
        let length = u32::try_from(block.len()).unwrap_or(0);
        frame.extend_from_slice(&(last | length << 3).to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

/// An .xz file (format 1.2.0) of one block of LZMA2 chunks without compression, with CRC32 as its check.
pub(super) fn xz(image: &[u8]) -> Vec<u8> {
    const FLAGS: [u8; 2] = [0, 1];
    let crc = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
    let mut file = b"\xfd7zXZ\0".to_vec();
    file.extend(FLAGS);
    file.extend(crc(&FLAGS));
    let begin = file.len();
    // 12 bytes: one filter, LZMA2, whose dictionary of 2 << (n / 2 + 11) bytes is the window.
    let dictionary = 2 * (WINDOW.trailing_zeros() - 12);
    let header = [2, 0, 0x21, 1, dictionary.to_le_bytes()[0], 0, 0, 0];
    file.extend(header);
    file.extend(crc(&header));
    for (number, chunk) in image.chunks(1 << 16).enumerate() {
        file.push(if number == 0 { 1 } else { 2 });
        let length = u16::try_from(chunk.len().saturating_sub(1)).unwrap_or(0);
        file.extend(length.to_be_bytes());
        file.extend_from_slice(chunk);
    }
    file.push(0);
    let unpadded = file.len() - begin + 4;
    pad(&mut file);
    file.extend(crc(image));
    let mut index = vec![0, 1];
    for mut number in [unpadded, image.len()] {
        while number >= 0x80 {
            index.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        index.push(number.to_le_bytes()[0]);
    }
    pad(&mut index);
    index.extend(crc(&index));
    let mut footer = u32::try_from(index.len() / 4 - 1).unwrap_or(0).to_le_bytes().to_vec();
    footer.extend(FLAGS);
    file.extend(index);
    file.extend(crc(&footer));
    file.extend(footer);
    file.extend(b"YZ");
    file
}

/// Everything in an .xz file is a multiple of four bytes.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use flasher::source::file::AnyFile;
    use flasher::source::{Decompress, Limits};

    #[test]
    fn what_is_stored_is_read_again_and_announces_its_window() {
        let image = vec![b'a'; (1 << 20) + 5];
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("fw.xz", xz(&image)), ("fw.zst", zstd(&image))] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let mut file = AnyFile::open(&path, Decompress::ByName, Limits { memory: 64 << 20 }).unwrap();
            assert_eq!(file.format().unwrap().1.size, WINDOW, "{name}");
            let mut read = vec![0; image.len()];
            file.source().read_at(0, &mut read).unwrap();
            assert!(read == image && file.source().size() == image.len() as u64, "{name}");
            file.source().end_of_pass().unwrap();
        }
    }
}
