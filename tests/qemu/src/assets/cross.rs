//! Two toolchains that make programs for the device, and what such a program must be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::elf::{FileHeader32, FileHeader64, Machine, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

use super::error::{Result, SetupError};
use super::places::Cross;
use super::target::Target;
use super::tools::Tools;

/// The device's flash is small: the stripped multi-call binary has this many bytes at most.
pub(crate) const LIMIT: u64 = 2 << 20;

/// This checkout's top folder.
#[must_use]
pub(crate) fn checkout() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.join("../..").canonicalize().unwrap_or(own)
}

/// The cargo that runs this program, else the one in `PATH`; without what cargo told this program about itself.
#[must_use]
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_cargo(&mut command);
    command.current_dir(checkout());
    command
}

/// Takes away what `cargo run` put into the environment and what would make a build another one.
fn forget_cargo(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if let Some(name) = name.to_str().filter(|name| leads_astray(name)) {
            command.env_remove(name);
        }
    }
}

fn leads_astray(name: &str) -> bool {
    const STARTS: [&str; 8] = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_PRIMARY_",
        "CARGO_CRATE_",
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_UNSTABLE_",
    ];
    const NAMES: [&str; 4] = ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "OUT_DIR"];
    NAMES.contains(&name) || STARTS.iter().any(|start| name.starts_with(start))
}

/// The user's own compiler, as cargo would start it.
pub(crate) fn rustc() -> std::ffi::OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// Which toolchain builds for the device, if nobody said so: the user's own where it has the target.
#[must_use]
pub(crate) fn detect(target: &Target) -> Cross {
    let sysroot = Command::new(rustc())
        .args(["--print", "sysroot"])
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let sysroot = String::from_utf8_lossy(&sysroot);
    let library = Path::new(sysroot.trim()).join("lib/rustlib").join(target.triple).join("lib");
    if library.exists() { Cross::Rustup } else { Cross::Debian }
}

/// A cargo for the device: what all its builds have in common.
pub(crate) struct Toolchain {
    /// cargo without any argument.
    pub(crate) cargo: Command,
    /// What `cargo build` needs besides the usual arguments.
    pub(crate) arguments: &'static [&'static str],
    /// For the compiler; [`Toolchain::paths`] too.
    pub(crate) flags: &'static [&'static str],
    /// Flags that name folders of this machine, so that the result names none. They are no part of what it does.
    pub(crate) paths: Vec<String>,
}

/// The user's own cargo and rustc, and a linker that comes with them unless the environment names one.
pub(crate) fn rustup(target: &Target) -> Toolchain {
    let mut cargo = cargo();
    if std::env::var_os(target.linker_variable()).is_none() {
        cargo.env(target.linker_variable(), "rust-lld");
    }
    Toolchain { cargo, arguments: &[], flags: &["-Ctarget-feature=+crt-static"], paths: Vec::new() }
}

/// Debian's cargo and rustc, with nothing of the toolchain that runs this program. They build the standard library, too:
/// for this target there is none, and this one is for small programs and has no unwind tables. That is no stable
/// feature; Debian's compiler and its source are of one version.
pub(crate) fn debian(target: &Target, tools: &Tools, linker: &Path, folder: &Path) -> Result<Toolchain> {
    let root = tools.root.as_ref().filter(|root| root.join("usr/bin/cargo").exists());
    let Some(root) = root else { return Err(SetupError::Missing(target.advice())) };
    let mut command = tools.command_at(&root.join("usr/bin/cargo"));
    forget_cargo(&mut command);
    for name in ["RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC"] {
        command.env_remove(name);
    }
    // the machine's own linker works with the machine's own libraries
    let host_linker = folder.join("host-cc");
    script(&host_linker, "unset LD_LIBRARY_PATH\nexec cc \"$@\"\n")?;
    command
        .current_dir(checkout())
        .env("RUSTC", root.join("usr/bin/rustc"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", &host_linker)
        .env(target.linker_variable(), linker);
    let mut paths = vec![format!("--remap-path-prefix={}=/rust", root.display())];
    paths.extend(cargo_home().map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
    Ok(Toolchain {
        cargo: command,
        arguments: &["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"],
        flags: &["-Ctarget-feature=+crt-static", "-Clink-self-contained=yes", "-Cforce-unwind-tables=no"],
        paths,
    })
}

/// Where cargo keeps the sources of crates.
fn cargo_home() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("CARGO_HOME").or_else(|| set("HOME").map(|home| home.join(".cargo")))
}

/// Writes a shell script that can be started.
pub(crate) fn script(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, format!("#!/bin/sh\n{text}")).map_err(SetupError::io("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(SetupError::io("make executable", path))
}

/// Refuses what cannot run on a device whose root has no loader, and what is too large for its flash.
pub(crate) fn check(target: &Target, path: &Path, limit: u64) -> Result<()> {
    let bytes = fs::read(path).map_err(SetupError::io("read", path))?;
    inspect(target, &bytes, limit)
        .map_err(|(expected, found)| SetupError::unexpected(path.display().to_string(), expected, found))
}

/// What was expected, and what was found.
type Mismatch = (String, String);

fn inspect(target: &Target, bytes: &[u8], limit: u64) -> std::result::Result<(), Mismatch> {
    let (machine, loaded) = match target.bits {
        64 => machine_and_loader::<FileHeader64<object::Endianness>>(bytes),
        _ => machine_and_loader::<FileHeader32<object::Endianness>>(bytes),
    }
    .map_err(|error| (format!("a static {} program", target.name), format!("{error}")))?;
    if machine != target.machine {
        return Err((format!("a program for {}", target.name), format!("one for machine {machine}")));
    }
    if loaded {
        return Err(("a static program".to_owned(), "one that needs a loader (PT_INTERP)".to_owned()));
    }
    let size = bytes.len() as u64;
    if size > limit {
        return Err((format!("at most {limit} bytes"), format!("{size} bytes")));
    }
    Ok(())
}

/// The machine that an ELF file is for, and whether it wants a loader.
fn machine_and_loader<Elf: FileHeader>(bytes: &[u8]) -> object::read::Result<(Machine, bool)> {
    let header = Elf::parse(bytes)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, bytes)?;
    let loaded = segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP);
    Ok((header.e_machine(endian), loaded))
}

#[cfg(test)]
mod tests {
    use super::super::target::{AARCH64, ARMV7};
    use super::*;

    /// An ELF64 header for a machine, with one segment of a type.
    fn elf(machine: u16, segment: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[20] = 1;
        bytes[32] = 64;
        bytes[52] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64..68].copy_from_slice(&segment.to_le_bytes());
        bytes
    }

    #[test]
    fn only_a_small_static_aarch64_program_is_accepted() {
        assert_eq!(inspect(&AARCH64, &elf(183, 1), LIMIT), Ok(()));
        assert!(inspect(&AARCH64, &elf(183, 3), LIMIT).unwrap_err().1.contains("PT_INTERP"));
        assert!(inspect(&AARCH64, &elf(62, 1), LIMIT).unwrap_err().1.contains("machine 62"));
        assert_eq!(
            inspect(&AARCH64, &elf(183, 1), 100),
            Err(("at most 100 bytes".into(), "120 bytes".into()))
        );
        assert!(inspect(&AARCH64, b"#!/bin/sh\n", LIMIT).is_err());
        assert!(inspect(&ARMV7, &elf(183, 1), LIMIT).is_err());
    }

    #[test]
    fn what_cargo_told_this_program_is_not_told_to_the_next_cargo() {
        assert!(leads_astray("CARGO_PKG_NAME") && leads_astray("CARGO") && leads_astray("RUSTFLAGS"));
        assert!(
            !leads_astray("CARGO_HOME")
                && !leads_astray("CARGO_NET_OFFLINE")
                && !leads_astray("RUSTUP_TOOLCHAIN")
        );
    }
}
