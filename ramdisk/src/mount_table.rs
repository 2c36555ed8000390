//! `/proc/self/mountinfo` as the init needs it (proc_pid_mountinfo(5)).

use std::fs;
use std::io;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is.
    pub(crate) at: String,
    /// The file system's type.
    pub(crate) kind: String,
}

/// The mounts of this process, in the order in which they were made.
///
/// # Errors
/// Those of reading the table.
pub(crate) fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// Lines that are none of the table are left out.
pub(crate) fn parse(table: &str) -> Vec<Mount> {
    let line = |line: &str| {
        // A number of fields that differs from line to line ends with a lone hyphen.
        let (mount, rest) = line.split_once(" - ")?;
        let kind = rest.split(' ').next()?.to_owned();
        Some(Mount { at: unescape(mount.split(' ').nth(4)?), kind })
    };
    table.lines().filter_map(line).collect()
}

/// True if something is mounted at `at`. A table that cannot be read has nothing in it.
pub(crate) fn has(at: &str) -> bool {
    read().is_ok_and(|mounts| mounts.iter().any(|mount| mount.at == at))
}

/// The table writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                out.push(char::from(code));
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_with_blanks_is_read_as_it_is() {
        let table = "1 0 0:2 / / rw - rootfs rootfs rw\ntorn\n4 2 8:1 / /a\\040b\\134040 rw shared:1 master:2 - vfat sda1 rw\n";
        let mount = |at: &str, kind: &str| Mount { at: at.into(), kind: kind.into() };
        assert_eq!(parse(table), [mount("/", "rootfs"), mount("/a b\\040", "vfat")]);
        assert!(has("/proc") && !has("/nowhere"));
    }
}
