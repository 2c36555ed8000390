//! What a static program is linked from: Debian's musl for its processor, laid out where `rustc` looks for it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::child::Job;
use super::error::{Result, SetupError};
use super::target::Target;
use super::unpack;

/// Start files, and the library; the package's other libraries are empty.
const FILES: [&str; 4] = ["crt1.o", "crti.o", "crtn.o", "libc.a"];
/// A compiler brings `crtbegin.o`, `crtend.o` and an unwinder. Those of gcc want glibc, and nothing unwinds here.
const NO_UNWIND: &str = include_str!("no_unwind.c");
const EMPTY_ARCHIVE: &str = "!<arch>\n";

/// Moves musl from its unpacked package to where `rustc` looks for it below `root`, and adds what a compiler would;
/// `gcc` gives a command line of the cross compiler.
pub(crate) fn lay_out(
    target: &Target,
    package: &Path,
    root: &Path,
    gcc: &dyn Fn() -> Command,
    log: &Path,
) -> Result<()> {
    let folder = root.join(target.self_contained());
    fs::create_dir_all(&folder).map_err(SetupError::io("create", &folder))?;
    for name in FILES {
        let from = package.join("usr/lib").join(target.musl).join(name);
        fs::rename(&from, folder.join(name)).map_err(SetupError::io("move", &from))?;
    }
    unpack::remove(package)?;
    let library = folder.join("libunwind.a");
    fs::write(&library, EMPTY_ARCHIVE).map_err(SetupError::io("write", &library))?;
    for (name, text) in [("crtbegin", NO_UNWIND), ("crtend", "")] {
        let source = folder.join(name).with_extension("c");
        fs::write(&source, text).map_err(SetupError::io("write", &source))?;
        let mut command = gcc();
        command.current_dir(&folder).args(["-Os", "-ffreestanding", "-fno-asynchronous-unwind-tables", "-c"]);
        command.arg(&source);
        let what = format!("compiling {name}.c for {}", target.name);
        Job { what, command, log: log.into(), limit: Duration::from_secs(60) }.run_quietly()?;
    }
    Ok(())
}
