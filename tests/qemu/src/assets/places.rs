//! Where parts lie: the cache folder, and what the user already has and names by environment variables.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::{Result, SetupError};

/// How the device binary is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cross {
    /// The user's own toolchain with the target `aarch64-unknown-linux-musl`, linked by `rust-lld`.
    Rustup,
    /// Debian's `rustc-web`, which builds its standard library for Debian's musl, linked by the cross compiler.
    Debian,
}

/// What the environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// `LEVITATE_QEMU`: `qemu-system-aarch64`.
    pub(crate) qemu: Option<PathBuf>,
    /// `LEVITATE_UBOOT`: U-Boot for `qemu_arm64`.
    pub(crate) uboot: Option<PathBuf>,
    /// `LEVITATE_KERNEL_V1`: an arm64 `Image.gz`.
    pub(crate) kernel_v1: Option<PathBuf>,
    /// `LEVITATE_KERNEL_V2`: another, with another `uname -v`.
    pub(crate) kernel_v2: Option<PathBuf>,
    /// `LEVITATE_GUEST_ROOT`: a folder with arm64 s6, execline, dropbear, busybox, mtd-utils, systemd, sysvinit-core, dash and their libraries.
    pub(crate) guest_root: Option<PathBuf>,
    /// `LEVITATE_DEVICE_BINARY`: `levitate` for the device, static.
    pub(crate) device_binary: Option<PathBuf>,
    /// `LEVITATE_DEVICE_BINARY_ARMV7`: the same for the second board.
    pub(crate) device_binary_armv7: Option<PathBuf>,
    /// `LEVITATE_FLASHCP_BINARY`: `flashcp` for the device, static.
    pub(crate) flashcp_binary: Option<PathBuf>,
    /// `LEVITATE_CROSS_PREFIX`: what stands before `gcc` in the name of an aarch64 Linux cross compiler.
    pub(crate) cross_prefix: Option<String>,
    /// `LEVITATE_CROSS`: `rustup` or `debian`.
    pub(crate) cross: Option<Cross>,
    /// `LEVITATE_DEBIAN_MIRROR`.
    pub(crate) mirror: Option<String>,
    /// `LEVITATE_DEBIAN_SECURITY_MIRROR`.
    pub(crate) security_mirror: Option<String>,
    /// `LEVITATE_DEBIAN_KEYRING`.
    pub(crate) keyring: Option<PathBuf>,
}

impl Overrides {
    /// Reads the variables through `get`; an empty one counts as absent. Named files must exist.
    ///
    /// # Errors
    /// A variable names something that is not there, or has a value that nobody knows.
    pub(crate) fn resolve(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let text = |name: &str| get(name).filter(|value| !value.is_empty());
        let path = |name: &str| match text(name).map(PathBuf::from) {
            Some(path) => std::path::absolute(&path)
                .and_then(|path| path.metadata().map(|_| path))
                .map(Some)
                .map_err(|error| SetupError::Missing(format!("{name} names {}: {error}", path.display()))),
            None => Ok(None),
        };
        Ok(Self {
            qemu: path("LEVITATE_QEMU")?,
            uboot: path("LEVITATE_UBOOT")?,
            kernel_v1: path("LEVITATE_KERNEL_V1")?,
            kernel_v2: path("LEVITATE_KERNEL_V2")?,
            guest_root: path("LEVITATE_GUEST_ROOT")?,
            device_binary: path("LEVITATE_DEVICE_BINARY")?,
            device_binary_armv7: path("LEVITATE_DEVICE_BINARY_ARMV7")?,
            flashcp_binary: path("LEVITATE_FLASHCP_BINARY")?,
            cross_prefix: text("LEVITATE_CROSS_PREFIX"),
            cross: match text("LEVITATE_CROSS").as_deref() {
                None => None,
                Some("rustup") => Some(Cross::Rustup),
                Some("debian") => Some(Cross::Debian),
                Some(other) => {
                    return Err(SetupError::unexpected(
                        "LEVITATE_CROSS",
                        "`rustup` or `debian`",
                        format!("`{other}`"),
                    ));
                }
            },
            mirror: text("LEVITATE_DEBIAN_MIRROR"),
            security_mirror: text("LEVITATE_DEBIAN_SECURITY_MIRROR"),
            keyring: path("LEVITATE_DEBIAN_KEYRING")?,
        })
    }

    /// From this process' environment.
    ///
    /// # Errors
    /// As [`Overrides::resolve`].
    pub(crate) fn from_environment() -> Result<Self> {
        Self::resolve(&|name| std::env::var(name).ok())
    }

    /// Whether both kernels are there already.
    #[must_use]
    pub(crate) fn has_kernels(&self) -> bool {
        self.kernel_v1.is_some() && self.kernel_v2.is_some()
    }
}

/// The cache folder: `$LEVITATE_CACHE`, else `$XDG_CACHE_HOME/levitate`, else `$HOME/.cache/levitate`.
///
/// # Errors
/// None of the three variables is set.
pub(crate) fn cache_root(get: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let set = |name: &str| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("LEVITATE_CACHE")
        // the base directory specification: a relative path is to be ignored
        .or_else(|| set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("levitate")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/levitate")))
        .ok_or_else(|| SetupError::Missing("no cache folder: set LEVITATE_CACHE (or HOME)".into()))
        .and_then(|path| std::path::absolute(&path).map_err(SetupError::io("find", &path)))
        .and_then(usable)
}

/// Below the cache folder lie control sockets of QEMU: `run/abcdef/100/device-abcdef/serial-10`.
const BELOW: usize = 40;
/// A socket's address is at most so long (unix(7)), with a zero at its end.
const SOCKET: usize = 107;

/// Refuses a folder that the tools could not work in, before anything is downloaded into it.
fn usable(path: PathBuf) -> Result<PathBuf> {
    let refused = |why: String| {
        SetupError::Missing(format!(
            "the cache folder {} cannot be used: {why}; name another one by LEVITATE_CACHE",
            path.display()
        ))
    };
    let text = path.to_string_lossy();
    // make and apt split at white space, lists of folders at colons, QEMU's options at commas
    let splits = |c: char| c.is_whitespace() || matches!(c, ':' | ',' | '"' | '\'' | '\\' | '$' | '#' | '%');
    if let Some(sign) = text.chars().find(|c| splits(*c)) {
        return Err(refused(format!(
            "there is {sign:?} in its name, which the kernel's make, apt, ssh or QEMU take apart"
        )));
    }
    if text.len() + BELOW > SOCKET {
        let most = SOCKET - BELOW;
        return Err(refused(format!(
            "its name has {} bytes; sockets lie below it, so it may have {most}",
            text.len()
        )));
    }
    Ok(path)
}

/// The variables as a table, for `--help` and for errors.
#[must_use]
pub(crate) fn variables() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("LEVITATE_CACHE", "the cache folder (else $XDG_CACHE_HOME/levitate, else ~/.cache/levitate)"),
        ("LEVITATE_QEMU", "qemu-system-aarch64"),
        ("LEVITATE_UBOOT", "u-boot.bin for qemu_arm64"),
        ("LEVITATE_KERNEL_V1", "an arm64 Image.gz, see tests/qemu/kernel"),
        ("LEVITATE_KERNEL_V2", "a second one with another `uname -v`"),
        (
            "LEVITATE_GUEST_ROOT",
            "a folder with arm64 s6, execline, dropbear, busybox, mtd-utils, systemd, sysvinit-core, dash, openssh-server, their libraries",
        ),
        ("LEVITATE_DEVICE_BINARY", "the static aarch64 `levitate`"),
        ("LEVITATE_DEVICE_BINARY_ARMV7", "the static armv7 `levitate`, for the board ast2600-evb"),
        ("LEVITATE_FLASHCP_BINARY", "the static aarch64 `flashcp`"),
        ("LEVITATE_CROSS_PREFIX", "what stands before `gcc` in your aarch64 cross compiler's name"),
        ("LEVITATE_CROSS", "`rustup` or `debian`: which Rust builds for the device"),
        ("LEVITATE_DEBIAN_MIRROR", "instead of the Debian archive that /etc/apt names"),
        ("LEVITATE_DEBIAN_SECURITY_MIRROR", "instead of the security archive that /etc/apt names"),
        ("LEVITATE_DEBIAN_KEYRING", "instead of /usr/share/keyrings/debian-archive-keyring.gpg"),
        ("LEVITATE_JOBS", "boards side by side (else 2)"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment<'a>(pairs: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_cache_lies_where_the_first_of_three_variables_says() {
        let all = [("LEVITATE_CACHE", "/c"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(cache_root(&environment(&all)).unwrap(), PathBuf::from("/c"));
        assert_eq!(cache_root(&environment(&all[1..])).unwrap(), PathBuf::from("/x/levitate"));
        assert_eq!(cache_root(&environment(&all[2..])).unwrap(), PathBuf::from("/h/.cache/levitate"));
        assert!(cache_root(&environment(&[])).is_err());
        let relative = [("XDG_CACHE_HOME", "x"), ("HOME", "/h")];
        assert_eq!(cache_root(&environment(&relative)).unwrap(), PathBuf::from("/h/.cache/levitate"));
    }

    #[test]
    fn a_cache_whose_name_the_tools_would_take_apart_is_refused_at_once() {
        for (path, why) in [
            ("/home/a b/c", "there is ' ' in its name"),
            ("/a:b", "there is ':'"),
            ("/a,b", "there is ','"),
            (
                &format!("/{}", "long/".repeat(14)),
                "its name has 71 bytes; sockets lie below it, so it may have 67",
            ),
        ] {
            let error = cache_root(&environment(&[("LEVITATE_CACHE", path)])).unwrap_err().to_string();
            assert!(error.contains(why) && error.ends_with("name another one by LEVITATE_CACHE"), "{error}");
        }
        let longest = format!("/{}", "l".repeat(66));
        assert!(cache_root(&environment(&[("LEVITATE_CACHE", &longest)])).is_ok());
    }

    #[test]
    fn a_variable_that_names_nothing_is_told_by_its_name() {
        let error =
            Overrides::resolve(&environment(&[("LEVITATE_QEMU", "/no/such/qemu")])).unwrap_err().to_string();
        assert!(error.starts_with("LEVITATE_QEMU names /no/such/qemu: "), "{error}");
        let error = Overrides::resolve(&environment(&[("LEVITATE_CROSS", "zig")])).unwrap_err().to_string();
        assert_eq!(error, "LEVITATE_CROSS: expected `rustup` or `debian`, found `zig`");
    }

    #[test]
    fn an_empty_variable_counts_as_absent() {
        assert_eq!(Overrides::resolve(&environment(&[("LEVITATE_QEMU", "")])).unwrap(), Overrides::default());
    }
}
