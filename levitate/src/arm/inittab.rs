//! /etc/inittab: read, and rewritten for as long as a maintenance root is armed. Both sysvinit and busybox read it again
//! on SIGHUP.

use std::path::{Path, PathBuf};

use ramdisk::path::{PathError, Root};

use super::{ARM, Step};

/// The first line of a table of ours.
const MARK: &str = "# levitate's, while a maintenance root is armed; levitate abort takes it away";

/// The table as the running system has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// There is none.
    Missing,
    /// Ours, already.
    Ours,
    /// The system's own.
    Own {
        /// Where, links resolved.
        real: PathBuf,
        /// Its text.
        text: String,
    },
}

/// Reads it.
///
/// # Errors
///
/// It is there and cannot be read.
pub(super) fn look(root: &Root) -> Result<Table, PathError> {
    let path = Path::new("/etc/inittab");
    let Some(text) = root.read_text(path)? else { return Ok(Table::Missing) };
    if text.starts_with(MARK) {
        return Ok(Table::Ours);
    }
    Ok(Table::Own { real: root.resolve(path)?.real, text })
}

/// The steps that put a table with these lines in its place.
pub(super) fn steps(real: &Path, lines: &[String]) -> [Step; 2] {
    let path = Path::new(ARM).join("inittab");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    [
        Step::File { path: path.clone(), mode: 0o644, text: format!("{MARK}\n{text}") },
        Step::Bind { what: path, over: real.to_owned(), reread: true },
    ]
}

/// The four fields of a line; none for comments and what is no line of a table.
pub(super) fn fields(line: &str) -> Option<[&str; 4]> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return None;
    }
    let mut fields = line.splitn(4, ':');
    Some([fields.next()?, fields.next()?, fields.next()?, fields.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_ours_is_known_by_its_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(look(&root).unwrap(), Table::Missing);
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/inittab"), "::respawn:sh\n").unwrap();
        let own = Table::Own { real: "/etc/inittab".into(), text: "::respawn:sh\n".into() };
        assert_eq!(look(&root).unwrap(), own);
        let [file, _] = steps(Path::new("/etc/inittab"), &["::respawn:sh".into()]);
        let Step::File { text, .. } = file else { panic!("{file:?}") };
        std::fs::write(dir.path().join("etc/inittab"), text).unwrap();
        assert_eq!(look(&root).unwrap(), Table::Ours);
    }

    #[test]
    fn a_process_may_contain_colons_and_a_comment_is_no_line() {
        assert_eq!(fields("l6:6:wait:/etc/rc 6:x"), Some(["l6", "6", "wait", "/etc/rc 6:x"]));
        assert_eq!(fields("::restart:/sbin/init"), Some(["", "", "restart", "/sbin/init"]));
        assert_eq!(fields("# l6:6:wait:/etc/rc 6"), None);
        assert_eq!(fields("id:2:initdefault"), None);
    }
}
