//! The processors of the boards, each as compilers, packages and ELF headers name it.

use object::elf::{EM_AARCH64, EM_ARM, Machine};

/// A processor that programs are built for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As people call it.
    pub(crate) name: &'static str,
    /// As Rust calls it.
    pub(crate) triple: &'static str,
    /// As an ELF header calls it.
    pub(crate) machine: Machine,
    /// Bits of an address.
    pub(crate) bits: u8,
    /// The folder below `usr/lib` that Debian's `musl-dev` has for it.
    pub(crate) musl: &'static str,
    /// What stands before `gcc` in the name of Debian's cross compiler.
    pub(crate) gcc: &'static str,
    /// More flags for rustc: what makes its programs small.
    pub(crate) flags: &'static [&'static str],
}

/// The `virt` board's.
pub(crate) const AARCH64: Target = Target {
    name: "aarch64",
    triple: "aarch64-unknown-linux-musl",
    machine: EM_AARCH64,
    bits: 64,
    musl: "aarch64-linux-musl",
    gcc: "aarch64-linux-gnu-",
    flags: &[],
};

/// The `ast2600-evb` board's.
pub(crate) const ARMV7: Target = Target {
    name: "armv7",
    triple: "armv7-unknown-linux-musleabihf",
    machine: EM_ARM,
    bits: 32,
    musl: "arm-linux-musleabihf",
    gcc: "arm-linux-gnueabihf-",
    // instructions of two bytes where they do: a quarter less, as Debian builds for this processor too
    flags: &["-Ctarget-feature=+thumb-mode"],
};

impl Target {
    /// The variable by which cargo is told of a linker for it.
    pub(crate) fn linker_variable(&self) -> String {
        format!("CARGO_TARGET_{}_LINKER", self.triple.replace('-', "_").to_uppercase())
    }

    /// Where `rustc` looks for a C library of its own, from the top of a folder with Debian's packages.
    pub(crate) fn self_contained(&self) -> String {
        format!("usr/lib/rustlib/{}/lib/self-contained", self.triple)
    }

    /// What to do where no toolchain for it is there.
    pub(crate) fn advice(&self) -> String {
        let suffix = if *self == AARCH64 { "" } else { "_ARMV7" };
        format!(
            "the device binary: `rustup target add {}`, or name a static {} build by LEVITATE_DEVICE_BINARY{suffix}",
            self.triple, self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_of_the_linker_by_the_name_that_it_reads() {
        assert_eq!(ARMV7.linker_variable(), "CARGO_TARGET_ARMV7_UNKNOWN_LINUX_MUSLEABIHF_LINKER");
        assert_eq!(AARCH64.linker_variable(), "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER");
    }
}
