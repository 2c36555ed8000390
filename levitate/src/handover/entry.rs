//! How the old system's PID 1 got here: each init executes the hand-over by another name, from another place.

use std::ffi::OsString;
use std::path::Path;

/// Where PID 1 is when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In the old root, with everything still mounted: s6, busybox, sysvinit, dinit, our own init.
    OldRoot,
    /// In the staged root, which is / already, with the old one at /oldroot: systemd, which says the verb.
    Pivoted {
        /// `reboot`, `poweroff`, `halt`, `kexec`, `exit`.
        verb: String,
    },
    /// Chrooted to the staged root and nothing else: procd.
    Chrooted,
}

/// Tells them apart by the program's arguments, its name first.
#[must_use]
pub fn of(args: &[OsString]) -> Entry {
    let name = args.first().and_then(|name| Path::new(name).file_name());
    match name.and_then(|name| name.to_str()) {
        Some("shutdown") => {
            let word = args.iter().skip(1).map(|arg| arg.to_string_lossy()).find(|arg| !arg.starts_with('-'));
            Entry::Pivoted { verb: word.unwrap_or_default().into_owned() }
        }
        Some("upgraded") => Entry::Chrooted,
        _ => Entry::OldRoot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_says_the_verb_and_everybody_else_is_known_by_the_name() {
        let of = |words: &[&str]| of(&words.iter().map(OsString::from).collect::<Vec<_>>());
        // as systemd 252 executes it
        let systemd = ["/shutdown", "poweroff", "--log-level", "6", "--timeout", "90000000us"];
        assert_eq!(of(&systemd), Entry::Pivoted { verb: "poweroff".into() });
        assert_eq!(of(&["/shutdown"]), Entry::Pivoted { verb: String::new() });
        assert_eq!(of(&["/sbin/upgraded", "/exec", "reboot"]), Entry::Chrooted);
        // sysvinit executes a script whose interpreter this is
        for words in [&["/run/maintenance/exec", "/usr/sbin/init", "--init"][..], &["exec"], &[]] {
            assert_eq!(of(words), Entry::OldRoot, "{words:?}");
        }
    }
}
