//! Which Debian packages are needed, and what apt says about them. Pure: nothing here runs anything.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::places::{Cross, Overrides};

/// What the guest's root is made from. `usr-is-merged` stands for the program that would merge /usr, which needs perl.
pub(crate) const GUEST: [&str; 10] = [
    "s6",
    "execline",
    "dropbear-bin",
    "busybox-static",
    "mtd-utils",
    "systemd",
    "sysvinit-core",
    "dash",
    "openssh-server",
    "usr-is-merged",
];
/// The kernel's source.
pub(crate) const KERNEL_SOURCE: &str = "linux-source-6.1";

/// What the second board's root is made from.
pub(crate) const ARMHF_GUEST: [&str; 3] = ["dropbear-bin", "busybox-static", "mtd-utils"];
/// The second board's kernel: names the newest of its version.
pub(crate) const ARMHF_KERNEL: &str = "linux-image-armmp";
/// The compiler that links for it.
pub(crate) const ARMHF_GCC: &str = "gcc-arm-linux-gnueabihf";

/// Whether a package is a kernel itself, not one that names the newest.
pub(crate) fn is_kernel(name: &str) -> bool {
    name.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The C library that programs for the device are linked with. Half as large in them as glibc.
pub(crate) const MUSL: &str = "musl-dev";
/// The source of the standard library.
pub(crate) const RUST_SOURCE: &str = "rust-web-src";
/// Debian's newest Rust, kept for its browsers.
const RUST: [&str; 3] = ["rustc-web", "cargo-web", RUST_SOURCE];

/// One package, as apt would download it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deb {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) arch: String,
    /// The file's name; a colon of the version is written `%3a`.
    pub(crate) file: String,
    pub(crate) bytes: u64,
    /// In lower-case hexadecimal digits.
    pub(crate) sha256: String,
}

impl Deb {
    /// How `apt-get download` is asked for exactly this one.
    pub(crate) fn spec(&self) -> String {
        spec(&self.name, &self.version, &self.arch)
    }
}

fn spec(name: &str, version: &str, arch: &str) -> String {
    // a package for all architectures has none in apt's naming
    if arch == "all" { format!("{name}={version}") } else { format!("{name}:{arch}={version}") }
}

/// The host's packages by name, the closure not included.
pub(crate) fn host(overrides: &Overrides, cross: Cross) -> Vec<&'static str> {
    let mut names = vec![
        "squashfs-tools",
        "u-boot-tools",
        "mtd-utils",
        "device-tree-compiler",
        "openssh-client",
        "xz-utils",
    ];
    let build_rust = overrides.device_binary.is_none() && cross == Cross::Debian;
    let build_kernel = !overrides.has_kernels();
    if overrides.qemu.is_none() {
        names.push("qemu-system-arm");
    }
    if overrides.uboot.is_none() {
        names.push("u-boot-qemu");
    }
    if build_kernel {
        names.extend(["make", "flex", "bison", "m4", "bc"]);
    }
    if (build_kernel || build_rust) && overrides.cross_prefix.is_none() {
        names.extend(["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]);
    }
    if build_rust {
        names.extend(RUST);
    }
    names
}

/// Packages of the closure that are never unpacked. The C library and the compiler's own libraries are those of the
/// machine (every apt needs them): another C library in `LD_LIBRARY_PATH` than the loader's crashes every program. The
/// rest is large and serves nobody here: the machine's `cc` linked this harness, and nothing is built with sanitizers.
pub(crate) fn skipped(name: &str) -> bool {
    const NAMES: [&str; 17] = [
        "libc6",
        "libgcc-s1",
        "libstdc++6",
        "gcc-12-base",
        "libc6-dev",
        "linux-libc-dev",
        "libc-dev-bin",
        "gcc",
        "gcc-12",
        "cpp",
        "cpp-12",
        "libgcc-12-dev",
        "libstdc++-12-dev",
        "g++",
        "g++-12",
        "binutils-x86-64-linux-gnu",
        "iso-codes",
    ];
    const SANITIZERS: [&str; 5] = ["libasan", "libtsan", "liblsan", "libubsan", "libhwasan"];
    NAMES.contains(&name) || SANITIZERS.iter().any(|start| name.starts_with(start))
}

/// The packages in the output of `apt-get -s install`, as `apt-get download` wants them.
pub(crate) fn parse_closure(simulation: &str) -> Vec<String> {
    simulation
        .lines()
        .filter_map(|line| {
            // Inst libc6:arm64 (2.36-9+deb12u14 Debian:12.15/oldstable [arm64])
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
            let (inner, _) = rest.split_once('(')?.1.split_once(')')?;
            let version = inner.split_whitespace().next()?;
            let arch = inner.split_whitespace().last()?.trim_matches(['[', ']']);
            Some(spec(name.split(':').next()?, version, arch))
        })
        .collect()
}

/// The compiler refuses a standard library of another version: the versions, where an archive is out of step.
pub(crate) fn one_rust(debs: &[Deb]) -> Result<(), String> {
    let rust: Vec<&Deb> = debs.iter().filter(|deb| RUST.contains(&deb.name.as_str())).collect();
    match rust.windows(2).all(|two| two[0].version == two[1].version) {
        true => Ok(()),
        false => Err(rust.iter().map(|deb| deb.spec()).collect::<Vec<_>>().join(", ")),
    }
}

/// What made the device binary, as far as packages did.
pub(crate) fn rust_and_musl(debs: &[Deb]) -> String {
    let ours = |deb: &&Deb| RUST.contains(&deb.name.as_str()) || deb.name == MUSL;
    let mut specs: Vec<String> = debs.iter().filter(ours).map(Deb::spec).collect();
    specs.sort();
    specs.join(" ")
}

/// The packages in the output of `apt-get download --print-uris`.
pub(crate) fn parse_uris(output: &str) -> Vec<Deb> {
    output
        .lines()
        .filter_map(|line| {
            // 'http://…/bc_1.07.1-3%2bb1_amd64.deb' bc_1.07.1-3+b1_amd64.deb 109648 SHA256:baaa…
            let mut words = line.strip_prefix('\'')?.split_once("' ")?.1.split_whitespace();
            let file = words.next()?;
            let bytes = words.next()?.parse().ok()?;
            let sha256 = words.next()?.strip_prefix("SHA256:")?.to_owned();
            let mut parts = file.strip_suffix(".deb")?.split('_');
            let (name, version, arch) = (parts.next()?, parts.next()?, parts.next()?);
            Some(Deb {
                name: name.to_owned(),
                version: version.replace("%3a", ":"),
                arch: arch.to_owned(),
                file: file.to_owned(),
                bytes,
                sha256,
            })
        })
        .collect()
}

/// The key of what is made from these: the order in which apt names them does not matter.
pub(crate) fn key(debs: &[Deb]) -> String {
    let mut specs: Vec<String> = debs.iter().map(Deb::spec).collect();
    specs.sort();
    digest(&specs)
}

/// 16 hexadecimal digits of the SHA-256 of all the texts, each ended by a line feed.
pub(crate) fn digest(texts: &[impl AsRef<str>]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_ref().as_bytes());
        hash.update(b"\n");
    }
    hex(&hash.finalize()[..8])
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closure_is_read_from_a_simulated_installation() {
        let output = "NOTE: This is only a simulation!\nInst gcc-12-base (12.2.0-14+deb12u1 Debian:12.15/oldstable [amd64])\n\
            Inst libc6:arm64 (2.36-9 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [arm64]) []\n\
            Inst u-boot-qemu (2023.01+dfsg-2 Debian:12.15/oldstable [all])\nConf libc6 (2.36-9 Debian [amd64])\n";
        assert_eq!(
            parse_closure(output),
            ["gcc-12-base:amd64=12.2.0-14+deb12u1", "libc6:arm64=2.36-9", "u-boot-qemu=2023.01+dfsg-2"]
        );
    }

    #[test]
    fn name_version_and_hash_are_read_from_what_apt_would_download() {
        let output = "'http://mirror.example/debian/pool/main/q/qemu/qemu-system-arm_7.2%2bdfsg-7_amd64.deb' \
            qemu-system-arm_1%3a7.2+dfsg-7_amd64.deb 8909200 SHA256:78c4\nnoise\n";
        let debs = parse_uris(output);
        assert_eq!(debs.len(), 1);
        assert_eq!(debs[0].spec(), "qemu-system-arm:amd64=1:7.2+dfsg-7");
        assert_eq!((debs[0].bytes, debs[0].sha256.as_str()), (8_909_200, "78c4"));
    }

    fn deb(name: &str, version: &str) -> Deb {
        Deb {
            name: name.into(),
            version: version.into(),
            arch: "amd64".into(),
            file: String::new(),
            bytes: 0,
            sha256: String::new(),
        }
    }

    #[test]
    fn a_kernel_is_told_from_the_name_of_the_newest_one() {
        assert!(is_kernel("linux-image-6.1.0-50-armmp"));
        assert!(!is_kernel("linux-image-armmp") && !is_kernel("linux-base"));
    }

    #[test]
    fn the_key_depends_on_every_version_and_not_on_the_order() {
        let (a, b) = (deb("a", "1"), deb("b", "2"));
        assert_eq!(key(&[a.clone(), b.clone()]), key(&[b.clone(), a.clone()]));
        assert_ne!(key(&[a.clone(), b]), key(&[a, deb("b", "2+b1")]));
    }

    #[test]
    fn a_compiler_and_a_standard_library_of_two_versions_are_refused() {
        let debs = [deb("rustc-web", "1.96"), deb("bc", "1"), deb("rust-web-src", "1.96")];
        assert_eq!(one_rust(&debs), Ok(()));
        let found = one_rust(&[deb("rustc-web", "1.96"), deb("rust-web-src", "1.85")]).unwrap_err();
        assert_eq!(found, "rustc-web:amd64=1.96, rust-web-src:amd64=1.85");
    }

    #[test]
    fn what_makes_the_device_binary_is_told_by_version_and_the_rest_is_not() {
        let debs = [deb("rustc-web", "1"), deb("bc", "1"), deb("musl-dev", "2")];
        assert_eq!(rust_and_musl(&debs), "musl-dev:amd64=2 rustc-web:amd64=1");
    }

    #[test]
    fn what_the_user_has_already_is_not_downloaded() {
        let nothing = Overrides::default();
        let all = host(&nothing, Cross::Debian);
        assert!(all.contains(&"rustc-web") && all.contains(&"qemu-system-arm") && all.contains(&"bison"));
        assert!(!host(&nothing, Cross::Rustup).contains(&"rustc-web"));
        assert!(host(&nothing, Cross::Rustup).contains(&"gcc-aarch64-linux-gnu"), "the kernel needs it");
        let has = Overrides {
            qemu: Some("/q".into()),
            uboot: Some("/u".into()),
            kernel_v1: Some("/1".into()),
            kernel_v2: Some("/2".into()),
            device_binary: Some("/d".into()),
            ..nothing
        };
        let rest = host(&has, Cross::Debian);
        assert!(
            !rest
                .iter()
                .any(|name| ["gcc-aarch64-linux-gnu", "bison", "u-boot-qemu", "rustc-web"].contains(name))
        );
        assert!(rest.contains(&"squashfs-tools"));
    }

    #[test]
    fn the_machines_own_c_library_is_never_shadowed() {
        assert!(skipped("libc6") && skipped("libstdc++6") && skipped("libtsan2-arm64-cross"));
        assert!(!skipped("libc6-dev-arm64-cross") && !skipped("libzstd1"));
    }
}
