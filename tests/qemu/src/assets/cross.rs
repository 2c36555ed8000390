//! The programs for the device: static aarch64 binaries of this checkout, by one of two toolchains.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use object::elf::{EM_AARCH64, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};

use super::child::Job;
use super::error::{Result, SetupError};
use super::places::Cross;
use super::tools::Tools;
use crate::progress::Step;

/// The device's flash is small: the stripped multi-call binary has this many bytes at most.
pub(crate) const LIMIT: u64 = 2 << 20;
/// What stands between two flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: char = '\u{1f}';
const MUSL: &str = "aarch64-unknown-linux-musl";
const GNU: &str = "aarch64-unknown-linux-gnu";

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
    const STARTS: [&str; 7] = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_PRIMARY_",
        "CARGO_CRATE_",
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
    ];
    const NAMES: [&str; 4] = ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "OUT_DIR"];
    NAMES.contains(&name) || STARTS.iter().any(|start| name.starts_with(start))
}

/// Which toolchain builds for the device, if nobody said so: the user's own where it has the target.
#[must_use]
pub(crate) fn detect() -> Cross {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let sysroot = rustc.args(["--print", "sysroot"]).output().map(|output| output.stdout).unwrap_or_default();
    let library =
        Path::new(String::from_utf8_lossy(&sysroot).trim()).join("lib/rustlib").join(MUSL).join("lib");
    if library.exists() { Cross::Rustup } else { Cross::Debian }
}

/// What to do where neither toolchain is there.
pub(crate) const ADVICE: &str = "the device binary: `rustup target add aarch64-unknown-linux-musl`, or name a static \
    aarch64 build by LEVITATE_DEVICE_BINARY";

/// Builds `levitate` and `flashcp`, as far as they are older than their sources: cargo knows.
pub(crate) fn build(
    way: Cross,
    tools: &Tools,
    cross_prefix: &str,
    log: &Path,
    step: &mut Step<'_>,
) -> Result<[PathBuf; 2]> {
    let target_dir = checkout().join("target/device");
    let static_program = "-Ctarget-feature=+crt-static";
    let (mut command, target, flags) = match way {
        Cross::Rustup => (cargo(), MUSL, static_program.to_owned()),
        // a panic aborts, so nobody looks for the way up the stack: the index of it alone has 64 KiB
        Cross::Debian => {
            let flags = format!("{static_program}{SEPARATOR}-Clink-arg=-Wl,--no-eh-frame-hdr");
            (debian_cargo(tools, cross_prefix)?, GNU, flags)
        }
    };
    // with --target they reach the device binary and only it: no build script, no macro
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("CARGO_TERM_COLOR", "never")
        .args(["build", "--locked", "--profile", "device", "--target", target])
        .args(["--package", "levitate", "--bin", "levitate", "--package", "flasher", "--bin", "flashcp"]);
    let job = Job {
        what: "building the device binary".into(),
        command,
        log: log.into(),
        limit: Duration::from_secs(1800),
    };
    let mut crates = 0;
    job.run(&mut |line| {
        if let Some(name) = line.and_then(|line| line.trim_start().strip_prefix("Compiling ")) {
            crates += 1;
            step.at(0, 0, &format!("crate {crates}, {name}"));
        } else if crates > 0 {
            step.at(0, 0, &format!("{crates} crates compiled, linking"));
        }
    })?;
    let folder = target_dir.join(target).join("device");
    Ok(["levitate", "flashcp"].map(|name| folder.join(name)))
}

/// Debian's cargo and rustc, with nothing of the toolchain that runs this program.
fn debian_cargo(tools: &Tools, cross_prefix: &str) -> Result<Command> {
    let Some(root) = &tools.root else { return Err(SetupError::Missing(ADVICE.into())) };
    let mut command = tools.command_at(&root.join("usr/bin/cargo"));
    forget_cargo(&mut command);
    for name in ["RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC"] {
        command.env_remove(name);
    }
    // the machine's own linker works with the machine's own libraries
    let linker = root.join("host-cc");
    fs::write(&linker, "#!/bin/sh\nunset LD_LIBRARY_PATH\nexec cc \"$@\"\n")
        .map_err(SetupError::io("write", &linker))?;
    set_executable(&linker)?;
    command
        .current_dir(checkout())
        .env("RUSTC", root.join("usr/bin/rustc"))
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", &linker)
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", format!("{cross_prefix}gcc"));
    Ok(command)
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
