//! What an ELF file asks for: its interpreter, the libraries it needs, and where it says that they are. Only program
//! headers are read; a device's files often have no section headers. Nothing is executed, so files for another
//! processor are read just as well.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef, StringTable};
use object::{Endianness, elf};

/// `e_machine` of 32-bit x86, as in the ELF specification.
pub const EM_386: u16 = 3;
/// Of MIPS.
pub const EM_MIPS: u16 = 8;
/// Of 32-bit ARM.
pub const EM_ARM: u16 = 40;
/// Of 64-bit x86.
pub const EM_X86_64: u16 = 62;
/// Of 64-bit ARM.
pub const EM_AARCH64: u16 = 183;

/// In bytes; glibc's names take some 30 KiB.
const MOST_NAMES: u64 = 1 << 20;

/// What must be equal for one file to be loaded into the other's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// 64-bit, or 32-bit.
    pub is_64: bool,
    /// Big-endian, or little-endian.
    pub is_big_endian: bool,
    /// `e_machine`, as in the ELF specification.
    pub machine: u16,
}

/// What the dynamic linker would read in a file. Names and paths are as they stand there; every list is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// For which processor it is.
    pub kind: Kind,
    /// PT_INTERP; none in a library or a static program.
    pub interpreter: Option<String>,
    /// DT_NEEDED.
    pub needed: Vec<String>,
    /// DT_RPATH, split at colons.
    pub rpath: Vec<String>,
    /// DT_RUNPATH, split at colons.
    pub runpath: Vec<String>,
    /// Where the names of its dynamic symbols are (DT_STRTAB): offsets in the file, in bytes.
    pub(crate) names: Range<u64>,
}

impl Elf {
    /// The names of its dynamic symbols, a zero byte behind each; of the largest tables the beginning. `path` is the file
    /// that was parsed.
    pub(crate) fn names(&self, path: &Path) -> io::Result<Vec<u8>> {
        let length = (self.names.end - self.names.start).min(MOST_NAMES);
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(self.names.start))?;
        let mut names = Vec::new();
        file.take(length).read_to_end(&mut names)?;
        Ok(names)
    }
}

/// What kind of program a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// An ELF file.
    Elf(Elf),
    /// A script, with the words behind `#!`.
    Script(Vec<String>),
    /// Anything else.
    Other,
}

/// Why a file could not be taken as a program.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It cannot be read.
    #[error("read")]
    Io(#[from] io::Error),
    /// It begins as ELF and is broken.
    #[error("parse as ELF")]
    Malformed(#[from] object::read::Error),
    /// It begins as ELF and is of no class that exists.
    #[error("parse as ELF: expected class 1 or 2, found {0}")]
    Class(u8),
}

/// Reads what `path` asks for.
///
/// # Errors
///
/// It cannot be read, or is a damaged ELF file. A file of another kind is no error.
pub fn read(path: &Path) -> Result<Program, ElfError> {
    let mut file = File::open(path)?;
    let mut head = Vec::with_capacity(256);
    file.by_ref().take(256).read_to_end(&mut head)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
        let words = String::from_utf8_lossy(line);
        return Ok(Program::Script(words.split_whitespace().map(str::to_owned).collect()));
    }
    if !head.starts_with(&elf::ELFMAG) {
        return Ok(Program::Other);
    }
    file.seek(SeekFrom::Start(0))?;
    let cache = ReadCache::new(file);
    parse(&cache, head.get(4).copied().unwrap_or_default()).map(Program::Elf)
}

/// Parses ELF bytes; `class` is the fifth of them.
///
/// # Errors
///
/// The file is damaged.
pub(crate) fn parse<'data>(data: impl ReadRef<'data>, class: u8) -> Result<Elf, ElfError> {
    match class {
        1 => parse_as::<elf::FileHeader32<Endianness>, _>(data),
        2 => parse_as::<elf::FileHeader64<Endianness>, _>(data),
        other => Err(ElfError::Class(other)),
    }
}

fn parse_as<'data, H: FileHeader<Endian = Endianness>, R: ReadRef<'data>>(data: R) -> Result<Elf, ElfError> {
    let header = H::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let mut found = Elf {
        kind: Kind {
            is_64: header.is_type_64(),
            is_big_endian: header.is_big_endian(),
            machine: header.e_machine(endian).0,
        },
        interpreter: None,
        needed: Vec::new(),
        rpath: Vec::new(),
        runpath: Vec::new(),
        names: 0..0,
    };
    let mut dynamic = &[][..];
    for segment in segments {
        if let Some(name) = segment.interpreter(endian, data)? {
            found.interpreter = Some(text(name));
        }
        if let Some(entries) = segment.dynamic(endian, data)? {
            dynamic = entries;
        }
    }
    let end = dynamic.iter().position(|d| d.d_tag(endian) == elf::DT_NULL).unwrap_or(dynamic.len());
    let entries = dynamic.get(..end).unwrap_or_default();
    let value = |tag| entries.iter().find(|d| d.d_tag(endian) == tag).map(|d| d.d_val(endian).into());
    let Some(address) = value(elf::DT_STRTAB) else { return Ok(found) };
    let size: u64 = value(elf::DT_STRSZ).unwrap_or(0);
    // DT_STRTAB is an address in memory: the loaded segment that covers it gives the place in the file
    let start = segments.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD).find_map(|s| {
        let into: u64 = address.checked_sub(s.p_vaddr(endian).into())?;
        let in_file: u64 = s.p_filesz(endian).into();
        (into < in_file).then(|| into.checked_add(s.p_offset(endian).into()))?
    });
    let Some(start) = start else { return Ok(found) };
    found.names = start..start.saturating_add(size);
    let strings = StringTable::new(data, found.names.start, found.names.end);
    for entry in entries {
        let tag = entry.d_tag(endian);
        if tag == elf::DT_NEEDED {
            found.needed.push(text(entry.string(endian, strings)?));
        } else if tag == elf::DT_RPATH {
            found.rpath = split(&text(entry.string(endian, strings)?));
        } else if tag == elf::DT_RUNPATH {
            found.runpath = split(&text(entry.string(endian, strings)?));
        }
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn split(paths: &str) -> Vec<String> {
    paths.split(':').filter(|p| !p.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{AARCH64, ElfBuilder, MIPS};
    use super::*;

    /// Parsed as [`read`] does it, out of a file that is read piece by piece.
    fn parsed(bytes: &[u8]) -> Result<Elf, ElfError> {
        parse(&ReadCache::new(io::Cursor::new(bytes)), bytes[4])
    }

    #[test]
    fn a_64_bit_little_endian_and_a_32_bit_big_endian_file_read_the_same() {
        for (machine, is_64, is_big_endian) in [(AARCH64, true, false), (MIPS, false, true)] {
            let kind = Kind { is_64, is_big_endian, machine };
            let bytes = ElfBuilder::new(kind)
                .interpreter("/lib/ld.so.1")
                .needed(&["libc.so.6", "libz.so.1"])
                .rpath("/opt/a:/opt/b")
                .runpath("$ORIGIN/../lib")
                .build();
            let elf = parsed(&bytes).unwrap();
            let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            assert_eq!(
                elf,
                Elf {
                    kind,
                    interpreter: Some("/lib/ld.so.1".into()),
                    needed: list(&["libc.so.6", "libz.so.1"]),
                    rpath: list(&["/opt/a", "/opt/b"]),
                    runpath: list(&["$ORIGIN/../lib"]),
                    names: elf.names.clone(),
                }
            );
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_wherever_it_is_cut_off() {
        let kind = Kind { is_64: true, is_big_endian: false, machine: AARCH64 };
        let bytes = ElfBuilder::new(kind).interpreter("/lib/ld.so.1").needed(&["libc.so.6"]).build();
        assert!(parsed(&bytes).is_ok());
        // The dynamic segment is the last thing in it.
        for length in 5..bytes.len() {
            let cut = parsed(&bytes[..length]);
            assert!(matches!(cut, Err(ElfError::Malformed(_))), "cut at {length}: {cut:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut");
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(read(&path), Err(ElfError::Malformed(_))));
    }

    #[test]
    fn scripts_and_other_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "#! /usr/bin/env  sh -e\necho\n").unwrap();
        let words = ["/usr/bin/env", "sh", "-e"].map(str::to_owned).to_vec();
        assert_eq!(read(&path).unwrap(), Program::Script(words));
        std::fs::write(&path, "hello").unwrap();
        assert_eq!(read(&path).unwrap(), Program::Other);
        std::fs::write(&path, b"\x7fELF\x07").unwrap();
        assert!(matches!(read(&path), Err(ElfError::Class(7))));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, class in 1_u8..=2) {
            let mut file = b"\x7fELF".to_vec();
            file.push(class);
            file.extend(bytes);
            let _ = parsed(&file);
        }
    }
}
