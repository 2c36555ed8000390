//! Copying a file's bytes: by the kernel where it can, and without filling its holes.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use nix::sys::sendfile::sendfile64;
use nix::unistd::{Whence, lseek64};

use crate::sink::{After, Part};

/// At most so much in one call of the kernel: on 32-bit processors a length has 31 bits.
const AT_ONCE: u64 = 1 << 30;
/// What is carried through this process at once; a multiple of [`PAGE`].
const BUFFER: usize = 64 << 10;
/// The smallest run of zeros that is left out: less would save no page.
const PAGE: usize = 4096;

/// How the bytes went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Bytes that the kernel copied.
    pub(crate) by_kernel: u64,
    /// Bytes that passed through this process.
    pub(crate) by_hand: u64,
}

/// Copies all of `from` to `to`, which is empty.
///
/// # Errors
///
/// What the kernel said; `UnexpectedEof` if the file became shorter meanwhile.
pub(crate) fn whole(from: &File, to: &File) -> io::Result<Copied> {
    let meta = from.metadata()?;
    let mut copied = Copied::default();
    if !has_holes(&meta) {
        // files of /proc claim to be empty: those to their end, wherever that is
        if meta.len() == 0 {
            copied.range(from, 0..u64::MAX, to, 0)?;
        } else {
            copied.all(from, 0..meta.len(), to, 0)?;
        }
        return Ok(copied);
    }
    let mut end = 0;
    while let Some(range) = next_data(from, end)? {
        if range == (0..meta.len()) {
            // squashfs and others know their holes, and do not tell where they are
            let reached = copied.without_zeros(from, range.clone(), to, 0)?;
            needed(range.end, reached)?;
            break;
        }
        end = range.end;
        copied.all(from, range.clone(), to, range.start)?;
    }
    // What lies behind the last data is a hole, if it is still there.
    needed(meta.len(), from.metadata()?.len())?;
    to.set_len(meta.len())?;
    Ok(copied)
}

/// Copies a part of an archive to `to`, which is empty. Zeros are left out.
///
/// # Errors
///
/// What the kernel said; the archive ends before the part does.
pub(crate) fn part(part: &Part, to: &File) -> io::Result<Copied> {
    let mut copied = Copied::default();
    let end = part.offset.saturating_add(part.length);
    if part.file.metadata()?.len() < end {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match part.after {
        After::Keep => needed(end, copied.without_zeros(&part.file, part.offset..end, to, 0)?)?,
        After::LetGo => {
            // it was written without zeros
            let mut at = part.offset;
            while let Some(data) = next_data(&part.file, at)?.filter(|data| data.start < end) {
                at = data.end.min(end);
                copied.all(&part.file, data.start..at, to, data.start - part.offset)?;
            }
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            if let (Ok(offset), Ok(length)) = (part.offset.try_into(), part.length.try_into()) {
                // where it cannot be given back, it is taken until the end
                let _ = fallocate(&*part.file, flags, offset, length);
            }
        }
    }
    to.set_len(part.length)?;
    Ok(copied)
}

/// Appends `bytes` to `to` from offset `at` on; pages of zeros become holes. The length is to be set afterwards.
///
/// # Errors
///
/// What the kernel said.
pub(crate) fn write_without_zeros(to: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let mut offset = at;
    let mut rest = bytes;
    while !rest.is_empty() {
        // to the next page of the file
        let room = PAGE - usize::try_from(offset % PAGE as u64).unwrap_or(0);
        let (page, more) = rest.split_at(room.min(rest.len()));
        if page.iter().any(|byte| *byte != 0) {
            to.write_all_at(page, offset)?;
        }
        offset += page.len() as u64;
        rest = more;
    }
    Ok(())
}

/// Bytes that are not holes, as far as the file's own file system tells.
///
/// # Errors
///
/// What the kernel said.
pub(crate) fn data(path: &Path, meta: &fs::Metadata) -> io::Result<u64> {
    if !meta.is_file() || !has_holes(meta) {
        return Ok(meta.len());
    }
    let file = File::open(path)?;
    let (mut sum, mut end) = (0, 0);
    while let Some(range) = next_data(&file, end)? {
        end = range.end;
        sum += range.end - range.start;
    }
    Ok(sum)
}

fn has_holes(meta: &fs::Metadata) -> bool {
    meta.is_file() && meta.blocks().saturating_mul(512) < meta.len()
}

/// The next range from `start` on that is no hole.
fn next_data(file: &File, start: u64) -> io::Result<Option<std::ops::Range<u64>>> {
    let seek = |at: u64, whence| {
        let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
        lseek64(file, at, whence).map(i64::cast_unsigned)
    };
    let data = match seek(start, Whence::SeekData) {
        Ok(at) => at,
        Err(Errno::ENXIO) => return Ok(None),
        // a file system that has never heard of holes
        Err(Errno::EINVAL) => start,
        Err(e) => return Err(e.into()),
    };
    let length = file.metadata()?.len();
    let hole = seek(data, Whence::SeekHole).unwrap_or(length);
    Ok((hole > data).then_some(data..hole))
}

/// An error if a file that was to be read to `end` ended at `reached`.
fn needed(end: u64, reached: u64) -> io::Result<()> {
    if reached >= end {
        return Ok(());
    }
    let why = format!("it became shorter while it was copied: expected {end} bytes, found {reached}");
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
}

impl Copied {
    /// Copies a range of `from` to the offset `at` of `to`, or fails.
    fn all(&mut self, from: &File, range: std::ops::Range<u64>, to: &File, at: u64) -> io::Result<()> {
        let end = range.end;
        needed(end, self.range(from, range, to, at)?)
    }

    /// Copies a range of `from` to the offset `at` of `to`; less if `from` ends before. The answer is how far it got.
    fn range(&mut self, from: &File, range: std::ops::Range<u64>, mut to: &File, at: u64) -> io::Result<u64> {
        to.seek(SeekFrom::Start(at))?;
        let mut offset = range.start;
        for call in [Call::CopyFileRange, Call::Sendfile] {
            while offset < range.end {
                let copied = call.run(from, offset, to, (range.end - offset).min(AT_ONCE));
                match copied {
                    // the end, or a file system that says so without having looked
                    Ok(0) => break,
                    Ok(count) => {
                        offset += count;
                        self.by_kernel += count;
                    }
                    Err(Errno::EINTR) => {}
                    Err(e @ (Errno::EIO | Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)) => {
                        return Err(e.into());
                    }
                    // not between these two; the next may know how
                    Err(_) => break,
                }
            }
        }
        if offset >= range.end {
            return Ok(offset);
        }
        let mut buffer = vec![0; BUFFER];
        while offset < range.end {
            let count = read_at(from, &mut buffer, offset, range.end)?;
            if count == 0 {
                break;
            }
            to.write_all(buffer.get(..count).unwrap_or_default())?;
            offset += count as u64;
            self.by_hand += count as u64;
        }
        Ok(offset)
    }

    /// As [`Copied::range`], through this process, without pages of zeros.
    fn without_zeros(
        &mut self,
        from: &File,
        range: std::ops::Range<u64>,
        to: &File,
        at: u64,
    ) -> io::Result<u64> {
        let mut buffer = vec![0; BUFFER];
        let mut offset = range.start;
        while offset < range.end {
            let count = read_at(from, &mut buffer, offset, range.end)?;
            if count == 0 {
                break;
            }
            write_without_zeros(to, at + (offset - range.start), buffer.get(..count).unwrap_or_default())?;
            offset += count as u64;
            self.by_hand += count as u64;
        }
        Ok(offset)
    }
}

fn read_at(from: &File, buffer: &mut [u8], offset: u64, end: u64) -> io::Result<usize> {
    let most = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
    loop {
        match from.read_at(buffer.get_mut(..most).unwrap_or_default(), offset) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[derive(Clone, Copy)]
enum Call {
    /// Within one file system; shares blocks where it can.
    CopyFileRange,
    /// Between any two, through the page cache: from squashfs to tmpfs this is the one.
    Sendfile,
}

impl Call {
    /// Copies to the current position of `to`.
    fn run(self, from: &File, offset: u64, to: &File, count: u64) -> Result<u64, Errno> {
        let mut offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        debug_assert!(to.as_raw_fd() != from.as_raw_fd());
        let copied = match self {
            Self::CopyFileRange => copy_file_range(from, Some(&mut offset), to, None, count),
            Self::Sendfile => sendfile64(to, from, Some(&mut offset), count),
        };
        copied.map(|count| count as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|n| u8::try_from(n % 251).unwrap() | 1).collect()
    }

    fn read(file: &File) -> Vec<u8> {
        let mut file = file;
        let mut found = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut found).unwrap();
        found
    }

    /// A file with 1 MiB of nothing between two pieces of data.
    fn with_hole(dir: &Path) -> (File, Vec<u8>) {
        let file = tempfile::tempfile_in(dir).unwrap();
        file.write_all_at(&bytes(5000), 0).unwrap();
        file.write_all_at(&bytes(3000), 1 << 20).unwrap();
        let found = read(&file);
        (file, found)
    }

    #[test]
    fn the_kernel_copies_between_two_file_systems() {
        // /dev/shm is in RAM as /run is; where there is none, one file system is as good
        let ram = Path::new("/dev/shm");
        let to = if ram.is_dir() { tempfile::tempfile_in(ram) } else { tempfile::tempfile() }.unwrap();
        let from = tempfile::tempfile().unwrap();
        from.write_all_at(&bytes(200_000), 0).unwrap();
        assert_eq!(whole(&from, &to).unwrap(), Copied { by_kernel: 200_000, by_hand: 0 });
        assert_eq!(read(&to), bytes(200_000));
    }

    #[test]
    fn a_file_that_claims_to_be_empty_is_copied_to_its_end() {
        let to = tempfile::tempfile().unwrap();
        whole(&File::open("/proc/self/mountinfo").unwrap(), &to).unwrap();
        assert!(!read(&to).is_empty());
    }

    #[test]
    fn a_file_that_becomes_shorter_meanwhile_is_an_error() {
        let from = tempfile::tempfile().unwrap();
        from.write_all_at(&bytes(200_000), 0).unwrap();
        let to = tempfile::tempfile().unwrap();
        let mut copied = Copied::default();
        copied.all(&from, 0..200_000, &to, 0).unwrap();
        // What was seen before it was cut off is what it was to have.
        for error in [
            copied.all(&from, 0..200_001, &to, 0).unwrap_err(),
            copied.without_zeros(&from, 0..200_001, &to, 0).and_then(|at| needed(200_001, at)).unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            let expected = "it became shorter while it was copied: expected 200001 bytes, found 200000";
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_file_that_holds_less_than_it_claims_is_an_error() {
        // Nothing else says so without a race: this one claims a page.
        let Ok(file) = File::open("/sys/kernel/uevent_seqnum") else { return };
        let to = tempfile::tempfile().unwrap();
        assert_eq!(whole(&file, &to).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn holes_stay_holes_and_only_data_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (from, wanted) = with_hole(dir.path());
        let to = tempfile::tempfile_in(dir.path()).unwrap();
        let copied = whole(&from, &to).unwrap();
        assert_eq!(read(&to), wanted);
        assert_eq!(to.metadata().unwrap().blocks(), from.metadata().unwrap().blocks());
        assert!(copied.by_kernel < 20_000, "{copied:?}");
        let path = dir.path().join("named");
        let (named, meta) = (File::create(&path).unwrap(), from.metadata().unwrap());
        named.set_len(meta.len()).unwrap();
        assert_eq!(data(&path, &named.metadata().unwrap()).unwrap(), 0);
    }

    #[test]
    fn a_part_of_an_archive_comes_without_its_zeros_and_gives_its_ram_back() {
        let dir = tempfile::tempdir().unwrap();
        let (from, wanted) = with_hole(dir.path());
        for after in [After::Keep, After::LetGo] {
            // as an archive has it: behind something else, at no page's start
            let archive = tempfile::tempfile_in(dir.path()).unwrap();
            archive.write_all_at(&bytes(112), 0).unwrap();
            write_without_zeros(&archive, 112, &read(&from)).unwrap();
            archive.set_len(112 + wanted.len() as u64 + 50).unwrap();
            let archive = Arc::new(archive);
            let to = tempfile::tempfile_in(dir.path()).unwrap();
            let wanted_part = Part { file: archive.clone(), offset: 112, length: wanted.len() as u64, after };
            part(&wanted_part, &to).unwrap();
            assert_eq!(read(&to), wanted, "{after:?}");
            assert!(to.metadata().unwrap().blocks() * 512 < 64 << 10, "{after:?}");
            let left = archive.metadata().unwrap().blocks() * 512;
            assert!(after == After::Keep || left <= 8192, "{left}");
            let beyond = Part { length: wanted.len() as u64 + 51, ..wanted_part };
            assert_eq!(part(&beyond, &to).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
