//! Which shared libraries the programs of a root need, as their loader would find them in Debian's packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader};

use crate::suite::Failure;

/// Loaded by name, when accounts are looked up.
const ASKED_FOR: &str = "libnss_files.so.2";

/// The libraries' paths below `packages`, each with the symbolic links that lead to it, for `programs` (paths there).
pub(super) fn of(packages: &Path, programs: &[&str], triplet: &str) -> Result<BTreeSet<PathBuf>, Failure> {
    let folders = [
        format!("lib/{triplet}"),
        format!("usr/lib/{triplet}"),
        // systemd's own, which its programs name by RUNPATH
        format!("usr/lib/{triplet}/systemd"),
        format!("lib/{triplet}/systemd"),
    ];
    let mut found = BTreeSet::new();
    let mut names: Vec<String> = Vec::new();
    for program in programs {
        names.extend(needed(&packages.join(program))?);
    }
    if folders.iter().any(|folder| packages.join(folder).join(ASKED_FOR).exists()) {
        names.push(ASKED_FOR.to_owned());
    }
    while let Some(name) = names.pop() {
        let Some(path) = folders
            .iter()
            .map(|folder| Path::new(folder).join(&name))
            .find(|path| packages.join(path).exists())
        else {
            return Err(Failure::harness(format!("no package of the guest has the library {name}")));
        };
        if !found.insert(path.clone()) {
            continue;
        }
        let mut file = path;
        while let Ok(target) = fs::read_link(packages.join(&file)) {
            file = file.with_file_name(target);
            found.insert(file.clone());
        }
        names.extend(needed(&packages.join(&file))?);
    }
    Ok(found)
}

/// The names that a program or library asks its loader for; none of a static one.
fn needed(path: &Path) -> Result<Vec<String>, Failure> {
    let bytes = fs::read(path).map_err(|e| Failure::file("read", path, e))?;
    let broken = |e: object::read::Error| Failure::harness(format!("{}: {e}", path.display()));
    // the fifth byte of an ELF file is its class: 1 for 32 bit
    if bytes.get(4) == Some(&1) {
        entries::<FileHeader32<Endianness>>(&bytes).map_err(broken)
    } else {
        entries::<FileHeader64<Endianness>>(&bytes).map_err(broken)
    }
}

fn entries<Elf: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> object::read::Result<Vec<String>> {
    let header = Elf::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let Some((dynamic, link)) = sections.dynamic(endian, bytes)? else { return Ok(Vec::new()) };
    let strings = sections.strings(endian, bytes, link)?;
    dynamic
        .iter()
        .filter(|entry| entry.tag(endian) == DT_NEEDED)
        .map(|entry| Ok(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned()))
        .collect()
}
