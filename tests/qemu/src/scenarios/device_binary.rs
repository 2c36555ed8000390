//! What goes onto the device: one file, static, small. Small devices have 8 MiB of flash, and it is staged into RAM too.

use std::path::Path;

use object::elf::{FileHeader64, PT_INTERP, SHT_SYMTAB};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, elf};

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "the_device_binary_is_static_stripped_and_at_most_2_mib",
    board: Board::Virt,
    limit: minutes(1),
    run,
}];

/// Two mebibytes, the promise of the README.
const MOST: u64 = 2 << 20;

/// For both programs: aarch64, no interpreter, no symbol table, at most 2 MiB.
fn run(assets: &Assets) -> Result<(), Failure> {
    for path in [&assets.device_binary, &assets.flashcp_binary] {
        let bytes = std::fs::read(path).map_err(|e| Failure::file("read", path, e))?;
        static_stripped_and_small(path, &bytes)?;
    }
    Ok(())
}

fn static_stripped_and_small(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = path.display();
    let size = bytes.len() as u64;
    check!(size <= MOST, "{name} has {size} bytes, more than {MOST}");
    let parse = |e: object::read::Error| Failure::test(format!("{name} is no ELF file: {e}"));
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(parse)?;
    let endian = header.endian().map_err(parse)?;
    check!(header.e_machine(endian) == elf::EM_AARCH64, "{name} is not for aarch64");
    let segments = header.program_headers(endian, bytes).map_err(parse)?;
    check!(!segments.iter().any(|s| s.p_type(endian) == PT_INTERP), "{name} wants a dynamic linker");
    let sections = header.section_headers(endian, bytes).map_err(parse)?;
    check!(!sections.iter().any(|s| s.sh_type(endian) == SHT_SYMTAB), "{name} is not stripped");
    Ok(())
}
