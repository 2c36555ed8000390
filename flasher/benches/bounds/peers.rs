//! Models of two other tools: what they ask of the chip, in their order, and nothing else of theirs.

use flasher::device::{EraseBlock, Mtd, MtdError};

/// What it reads and writes at once.
const BUFFER: usize = 10 * 1024;

/// A model of `flashcp` of mtd-utils 2.3.1 without `-p`: erases every block that the image needs, writes all of the
/// image in ascending order, reads all of it back.
pub(crate) fn plain(chip: &mut dyn Mtd, image: &[u8]) -> Result<(), MtdError> {
    for block in blocks(chip, image) {
        chip.erase(block.range())?;
    }
    for (number, bytes) in image.chunks(BUFFER).enumerate() {
        program(chip, (number * BUFFER) as u64, bytes)?;
    }
    for (number, bytes) in image.chunks(BUFFER).enumerate() {
        chip.read((number * BUFFER) as u64, &mut vec![0; bytes.len()])?;
    }
    Ok(())
}

/// A model of `flashcp -p` of mtd-utils 2.3.1: reads each block, and where it differs from the image erases it,
/// writes it and reads it back.
pub(crate) fn blockwise(chip: &mut dyn Mtd, image: &[u8]) -> Result<(), MtdError> {
    for block in blocks(chip, image) {
        let start = usize::try_from(block.start).expect("within the image");
        let end = image.len().min(usize::try_from(block.end()).expect("within the chip"));
        let want = &image[start..end];
        let mut have = vec![0; want.len()];
        chip.read(block.start, &mut have)?;
        if have != want {
            chip.erase(block.range())?;
            program(chip, block.start, want)?;
            chip.read(block.start, &mut have)?;
        }
    }
    Ok(())
}

fn blocks(chip: &dyn Mtd, image: &[u8]) -> Vec<EraseBlock> {
    chip.geometry().blocks(0..image.len() as u64).collect()
}

/// The simulated chip insists on whole granules; 0xff behind an odd end is what the bytes there are anyway.
fn program(chip: &mut dyn Mtd, offset: u64, bytes: &[u8]) -> Result<(), MtdError> {
    let granule = usize::try_from(chip.geometry().granule()).expect("a granule is small");
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(granule), 0xff);
    chip.program(offset, &bytes)
}
