//! The background process that arming starts, found again by its whole command line.

use std::fs;

use ramdisk::path::Root;

/// The processes whose command line is the one word `name` and nothing else.
pub(crate) fn named(root: &Root, name: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(root.dir().join("proc")) else { return Vec::new() };
    let line = [name.as_bytes(), b"\0"].concat();
    let number = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        (fs::read(entry.path().join("cmdline")).ok()? == line).then_some(pid)
    };
    entries.flatten().filter_map(number).filter(|pid| *pid > 1).collect()
}

/// Whether there is one.
pub(super) fn runs(root: &Root, name: &str) -> bool {
    !named(root, name).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_line_counts_and_never_pid_1() {
        let dir = tempfile::tempdir().unwrap();
        for (pid, line) in [("1", "linuxrc\0"), ("7", "linuxrc\0"), ("8", "linuxrc\0x\0"), ("9", "sh\0")] {
            fs::create_dir_all(dir.path().join("proc").join(pid)).unwrap();
            fs::write(dir.path().join("proc").join(pid).join("cmdline"), line).unwrap();
        }
        assert_eq!(named(&Root::new(dir.path()), "linuxrc"), [7]);
    }
}
