//! A `reboot` of our own in front of the system's, where that one has no hook: which `reboot` there are, and the steps
//! that put a script there without touching what else the same program does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ramdisk::path::Root;

use super::{ARM, ENTRY, Step};

/// Where commands are looked up.
pub(super) const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A `reboot` as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The directory, links resolved.
    pub(super) folder: PathBuf,
    /// The program, links resolved.
    pub(super) real: PathBuf,
    /// Whether the program is busybox.
    pub(super) busybox: bool,
    /// Whether it gives its signal to a process named linuxrc first: busybox built with `LINUXRC` does.
    pub(super) linuxrc: bool,
    /// What is in the directory: names, and where the links among them lead.
    pub(super) entries: Vec<(PathBuf, Option<PathBuf>)>,
}

/// Every `reboot` that can be found by a command's name, each directory once.
pub(super) fn look(root: &Root) -> Vec<Found> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for directory in DIRECTORIES {
        let Ok(folder) = root.resolve(Path::new(directory)).map(|f| f.real) else { continue };
        let Ok(real) = root.resolve(&folder.join("reboot")).map(|f| f.real) else { continue };
        if !seen.insert(folder.clone()) {
            continue;
        }
        let bytes = fs::read(root.host(&real)).unwrap_or_default();
        let has = |word: &[u8]| bytes.windows(word.len()).any(|w| w == word);
        let busybox = has(b"BusyBox v");
        found.push(Found {
            linuxrc: busybox && has(b"\0linuxrc\0"),
            busybox,
            entries: entries(root, &folder),
            folder,
            real,
        });
    }
    found
}

fn entries(root: &Root, folder: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    let Ok(listed) = fs::read_dir(root.host(folder)) else { return Vec::new() };
    let mut entries: Vec<_> = listed
        .flatten()
        .map(|entry| (PathBuf::from(entry.file_name()), fs::read_link(entry.path()).ok()))
        .collect();
    entries.sort();
    entries
}

/// The steps that put the script `text` in front of each of `found`; in it `@REBOOT@` is the system's own command.
/// Where it is one name of a program of many names, the directory is covered: a bind would replace all of them.
pub(super) fn steps(found: &[Found], text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for (place, one) in found.iter().enumerate().filter(|(_, one)| !one.real.starts_with(ARM)) {
        let arm = |name: &str| Path::new(ARM).join(format!("{name}-{place}"));
        let (script, own) = (arm("reboot"), arm("own"));
        let write = |command: String| Step::File {
            path: script.clone(),
            mode: 0o755,
            text: text.replace("@REBOOT@", &command).replace("@ENTRY@", ENTRY),
        };
        if one.real.file_name() == Some("reboot".as_ref()) {
            // a program of its own, which stays reachable under another name
            let empty = Step::File { path: own.clone(), mode: 0o755, text: String::new() };
            steps.push(empty);
            steps.push(Step::Bind { what: one.real.clone(), over: own.clone(), reread: false });
            steps.push(write(own.display().to_string()));
            steps.push(Step::Bind { what: script.clone(), over: one.real.clone(), reread: false });
            continue;
        }
        steps.push(write(format!("{} reboot", one.real.display())));
        let is_link = |(_, target): &(PathBuf, Option<PathBuf>)| target.is_some();
        if !one.entries.iter().all(is_link) {
            steps.push(Step::Directory { path: own.clone() });
            steps.push(Step::Bind { what: one.folder.clone(), over: own.clone(), reread: false });
        }
        let links = one.entries.iter().map(|(name, target)| {
            let target = match target {
                _ if name == Path::new("reboot") => script.clone(),
                Some(target) => target.clone(),
                None => own.join(name),
            };
            (name.clone(), target)
        });
        let apart = arm("cover");
        steps.push(Step::Cover { folder: one.folder.clone(), apart, links: links.collect() });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(folder: &str, real: &str, entries: &[(&str, Option<&str>)]) -> Found {
        let entries = entries.iter().map(|(name, target)| (name.into(), target.map(PathBuf::from)));
        Found {
            folder: folder.into(),
            real: real.into(),
            busybox: true,
            linuxrc: false,
            entries: entries.collect(),
        }
    }

    fn lines(steps: &[Step]) -> Vec<String> {
        steps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_folder_of_links_is_covered_by_its_links_and_only_reboot_leads_elsewhere() {
        let sbin = found(
            "/sbin",
            "/bin/busybox",
            &[("ip", Some("../bin/busybox")), ("reboot", Some("/bin/busybox"))],
        );
        let steps = steps(&[sbin], "exec @REBOOT@");
        assert_eq!(lines(&steps), ["write /run/levitate/arm/reboot-0", "cover /sbin with 2 links"]);
        let Step::File { text, .. } = &steps[0] else { panic!("{steps:?}") };
        assert_eq!(text, "exec /bin/busybox reboot");
        let links = [("ip", "../bin/busybox"), ("reboot", "/run/levitate/arm/reboot-0")];
        let links = links.map(|(name, target)| (name.into(), target.into())).to_vec();
        let apart = "/run/levitate/arm/cover-0".into();
        assert_eq!(steps[1], Step::Cover { folder: "/sbin".into(), apart, links });
    }

    #[test]
    fn programs_in_a_covered_folder_stay_reachable() {
        let bin = found("/usr/bin", "/usr/bin/busybox", &[("busybox", None), ("reboot", Some("busybox"))]);
        let steps = steps(&[bin], "@REBOOT@");
        assert_eq!(
            lines(&steps),
            [
                "write /run/levitate/arm/reboot-0",
                "make the directory /run/levitate/arm/own-0",
                "bind /usr/bin over /run/levitate/arm/own-0",
                "cover /usr/bin with 2 links"
            ]
        );
        let Step::Cover { links, .. } = &steps[3] else { panic!("{steps:?}") };
        assert_eq!(links[0].1, Path::new("/run/levitate/arm/own-0/busybox"));
    }

    #[test]
    fn a_reboot_that_is_a_program_of_its_own_is_bound_over_and_kept() {
        let own = Found { busybox: false, ..found("/sbin", "/sbin/reboot", &[("reboot", None)]) };
        assert_eq!(
            lines(&steps(&[own], "@REBOOT@")),
            [
                "write /run/levitate/arm/own-0",
                "bind /sbin/reboot over /run/levitate/arm/own-0",
                "write /run/levitate/arm/reboot-0",
                "bind /run/levitate/arm/reboot-0 over /sbin/reboot"
            ]
        );
    }

    #[test]
    fn what_is_in_front_already_is_left_alone() {
        let armed = found("/sbin", "/run/levitate/arm/reboot-0", &[]);
        assert_eq!(steps(&[armed], "x"), []);
    }

    #[test]
    fn each_directory_counts_once_and_busybox_is_known_by_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("usr/bin")).unwrap();
        std::os::unix::fs::symlink("usr/bin", at("bin")).unwrap();
        fs::write(at("usr/bin/busybox"), b"\0init\0linuxrc\0reboot\0BusyBox v1.35.0\0").unwrap();
        std::os::unix::fs::symlink("busybox", at("usr/bin/reboot")).unwrap();
        let found = look(&Root::new(dir.path()));
        let entries = vec![("busybox".into(), None), ("reboot".into(), Some("busybox".into()))];
        let (folder, real) = ("/usr/bin".into(), "/usr/bin/busybox".into());
        assert_eq!(found, [Found { folder, real, busybox: true, linuxrc: true, entries }]);
    }
}
