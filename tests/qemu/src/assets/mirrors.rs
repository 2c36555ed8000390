//! Which Debian mirrors to ask: those that this machine asks itself, as its own lists of sources name them.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Result, SetupError};
use super::places::Overrides;

/// Where packages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirrors {
    /// The main archive.
    pub(crate) main: String,
    /// The security archive; none where the machine asks none.
    pub(crate) security: Option<String>,
}

impl Mirrors {
    /// What the variables name, else what the system's sources name.
    pub(crate) fn find(overrides: &Overrides) -> Result<Self> {
        let named = known(&system_sources(Path::new("/etc/apt")));
        let main = overrides.mirror.clone().or(named.as_ref().map(|named| named.main.clone()));
        let Some(main) = main else {
            return Err(SetupError::Missing(
                "no Debian archive is named in /etc/apt/sources.list or sources.list.d: name a mirror by \
                 LEVITATE_DEBIAN_MIRROR (and LEVITATE_DEBIAN_SECURITY_MIRROR)"
                    .into(),
            ));
        };
        let security = overrides.security_mirror.clone().or(named.and_then(|named| named.security));
        Ok(Self { main, security })
    }
}

/// The texts of the system's lists of sources.
fn system_sources(apt: &Path) -> Vec<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    files.sort();
    files.insert(0, apt.join("sources.list"));
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect()
}

/// The first Debian archive among the sources, and the first security archive. Other vendors' are passed over.
fn known(texts: &[String]) -> Option<Mirrors> {
    let sources: Vec<(String, String)> =
        texts.iter().flat_map(|text| one_line(text).chain(stanzas(text))).collect();
    let find = |security: bool| {
        let ours = |(uri, suite): &&(String, String)| {
            let name = if security { "debian-security" } else { "debian" };
            uri.trim_end_matches('/').ends_with(&format!("/{name}")) && suite.contains("security") == security
        };
        sources.iter().find(ours).map(|(uri, _)| uri.trim_end_matches('/').to_owned())
    };
    Some(Mirrors { main: find(false)?, security: find(true) })
}

/// `deb [arch=amd64] http://mirror/debian bookworm main`
fn one_line(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.lines().filter_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        let mut words = rest.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    })
}

/// The stanzas of deb822: `Types:`, `URIs:`, `Suites:`, perhaps `Enabled: no`.
fn stanzas(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split("\n\n").flat_map(|stanza| {
        let field = |name: &str| {
            let line = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        let usable = field("Types").iter().any(|t| t == "deb") && !field("Enabled").iter().any(|e| e == "no");
        let suites = field("Suites");
        let uris = if usable { field("URIs") } else { Vec::new() };
        uris.into_iter()
            .flat_map(move |uri| suites.clone().into_iter().map(move |suite| (uri.clone(), suite)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(texts: &[&str]) -> Option<Mirrors> {
        known(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn both_forms_of_sources_are_understood_and_other_vendors_are_passed_over() {
        let wanted = Mirrors {
            main: "http://mirror.example/debian".into(),
            security: Some("http://sec.example/debian-security".into()),
        };
        let lines = "# deb http://old.example/debian buster main\n\
            deb http://vendor.example/apt stable main\n\
            deb [signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n\
            deb http://sec.example/debian-security bookworm-security main\n";
        assert_eq!(found(&[lines]), Some(wanted.clone()));
        let stanzas = "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\nEnabled: no\n\n\
            Types: deb deb-src\n# a snapshot\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\n\
            Types: deb\nURIs: http://sec.example/debian-security\nSuites: bookworm-security\n";
        assert_eq!(found(&["", stanzas]), Some(wanted));
    }

    #[test]
    fn a_machine_without_a_debian_archive_is_told_from_one_without_a_security_archive() {
        assert_eq!(found(&["deb http://archive.example/ubuntu jammy main"]), None);
        let main = "deb http://mirror.example/debian bookworm main";
        assert_eq!(found(&[main]).map(|m| m.security), Some(None));
    }
}
