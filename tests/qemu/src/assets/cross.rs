//! Two toolchains that make programs for the device, and what such a program must be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::elf::{EM_AARCH64, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

use super::error::{Result, SetupError};
use super::places::Cross;
use super::tools::Tools;

/// The device's flash is small: the stripped multi-call binary has this many bytes at most.
pub(crate) const LIMIT: u64 = 2 << 20;
/// The target, whichever toolchain: with glibc the programs were twice as large.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-musl";

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
pub(crate) fn detect() -> Cross {
    let sysroot = Command::new(rustc())
        .args(["--print", "sysroot"])
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let library =
        Path::new(String::from_utf8_lossy(&sysroot).trim()).join("lib/rustlib").join(TARGET).join("lib");
    if library.exists() { Cross::Rustup } else { Cross::Debian }
}

/// What to do where neither toolchain is there.
pub(crate) const ADVICE: &str = "the device binary: `rustup target add aarch64-unknown-linux-musl`, or name a static \
    aarch64 build by LEVITATE_DEVICE_BINARY";

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

/// The user's own cargo and rustc.
pub(crate) fn rustup() -> Toolchain {
    Toolchain { cargo: cargo(), arguments: &[], flags: &["-Ctarget-feature=+crt-static"], paths: Vec::new() }
}

/// Debian's cargo and rustc, with nothing of the toolchain that runs this program. They build the standard library, too:
/// for this target there is none, and this one is for small programs and has no unwind tables. That is no stable
/// feature; Debian's compiler and its source are of one version.
pub(crate) fn debian(tools: &Tools, cross_prefix: &str, folder: &Path) -> Result<Toolchain> {
    let Some(root) = &tools.root else { return Err(SetupError::Missing(ADVICE.into())) };
    let mut command = tools.command_at(&root.join("usr/bin/cargo"));
    forget_cargo(&mut command);
    for name in ["RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC"] {
        command.env_remove(name);
    }
    // the machine's own linker works with the machine's own libraries
    let linker = folder.join("host-cc");
    fs::write(&linker, "#!/bin/sh\nunset LD_LIBRARY_PATH\nexec cc \"$@\"\n")
        .map_err(SetupError::io("write", &linker))?;
    set_executable(&linker)?;
    command
        .current_dir(checkout())
        .env("RUSTC", root.join("usr/bin/rustc"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", &linker)
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", format!("{cross_prefix}gcc"));
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

fn set_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(SetupError::io("make executable", path))
}

/// Refuses what cannot run on a device whose root has no loader, and what is too large for its flash.
pub(crate) fn check(path: &Path, limit: u64) -> Result<()> {
    let bytes = fs::read(path).map_err(SetupError::io("read", path))?;
    inspect(&bytes, limit)
        .map_err(|(expected, found)| SetupError::unexpected(path.display().to_string(), expected, found))
}

fn inspect(bytes: &[u8], limit: u64) -> std::result::Result<(), (String, String)> {
    let not_elf = |error| ("a static aarch64 program".to_owned(), format!("{error}"));
    let header = FileHeader64::<object::Endianness>::parse(bytes).map_err(not_elf)?;
    let endian = header.endian().map_err(not_elf)?;
    let machine = header.e_machine(endian);
    if machine != EM_AARCH64 {
        return Err(("a program for aarch64".to_owned(), format!("one for machine {machine}")));
    }
    let segments = header.program_headers(endian, bytes).map_err(not_elf)?;
    if segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP) {
        return Err(("a static program".to_owned(), "one that needs a loader (PT_INTERP)".to_owned()));
    }
    let size = bytes.len() as u64;
    if size > limit {
        return Err((format!("at most {limit} bytes"), format!("{size} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
        assert_eq!(inspect(&elf(183, 1), LIMIT), Ok(()));
        assert!(inspect(&elf(183, 3), LIMIT).unwrap_err().1.contains("PT_INTERP"));
        assert!(inspect(&elf(62, 1), LIMIT).unwrap_err().1.contains("machine 62"));
        assert_eq!(inspect(&elf(183, 1), 100), Err(("at most 100 bytes".into(), "120 bytes".into())));
        assert!(inspect(b"#!/bin/sh\n", LIMIT).is_err());
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
