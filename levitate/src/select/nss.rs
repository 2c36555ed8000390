//! The C library looks users and hosts up by modules that nsswitch.conf(5) names; libc.so.6 does not say that it needs
//! them. Without `libnss_files.so.2` nobody can log in where the C library is older than glibc 2.34.

use std::collections::BTreeSet;
use std::path::Path;

use ramdisk::path::{PathError, Root};

use crate::config::Config;

/// Where it lies.
pub(crate) const NSSWITCH: &str = "/etc/nsswitch.conf";
/// The maintenance root's own, unless the configuration lists the old system's among its files.
const OWN: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";
/// The databases that a login asks for.
const DATABASES: [&str; 4] = ["passwd", "group", "shadow", "hosts"];

/// The text of the maintenance root's nsswitch.conf.
///
/// # Errors
///
/// The configuration lists the old system's, and it cannot be read.
pub(crate) fn text(config: &Config, root: &Root) -> Result<String, PathError> {
    let listed = config.files.iter().any(|file| file == Path::new(NSSWITCH));
    let old = if listed { root.read_text(Path::new(NSSWITCH))? } else { None };
    Ok(old.unwrap_or_else(|| OWN.to_owned()))
}

/// The modules' file names for the databases that a login needs.
pub(super) fn modules(nsswitch: &str) -> Vec<String> {
    let mut names = BTreeSet::new();
    for line in nsswitch.lines() {
        let Some((database, services)) = line.split('#').next().and_then(|l| l.split_once(':')) else {
            continue;
        };
        if !DATABASES.contains(&database.trim()) {
            continue;
        }
        // [NOTFOUND=return] is about the service before it
        let outside = services.split('[').map(|part| part.rsplit(']').next().unwrap_or_default());
        names.extend(outside.flat_map(str::split_whitespace).map(|name| format!("libnss_{name}.so.2")));
    }
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_those_of_the_databases_that_a_login_asks_for() {
        let text =
            "# passwd: no\npasswd:\tfiles systemd # x\nhosts: files [!UNAVAIL=return] dns\nnetgroup: nis\n";
        assert_eq!(modules(text), ["libnss_dns.so.2", "libnss_files.so.2", "libnss_systemd.so.2"]);
        assert_eq!(modules(OWN), ["libnss_dns.so.2", "libnss_files.so.2"]);
        assert_eq!(modules(""), Vec::<String>::new());
    }
}
