//! What sshd_config(5) and sshd's command line set for everybody.

use std::fs;
use std::path::{Path, PathBuf};

use ramdisk::path::Root;

use super::server::Server;

/// Where sshd looks unless `-f` names another file; relative names in it are relative to its directory.
const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
/// Includes in includes; OpenSSH's own limit is 16.
const DEPTH: usize = 16;

/// Keywords in lower case with their values, in the order in which sshd reads them: the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    lines: Vec<(String, String)>,
    /// Whether there are settings for some connections only. They are not read, and can change everything.
    pub(super) conditional: bool,
    /// The files that they were read from, by the names under which sshd looks for them.
    pub(super) files: Vec<PathBuf>,
}

impl Settings {
    /// Those of a server in the system below `root`. What cannot be read sets nothing.
    pub(super) fn read(server: &Server, root: &Root) -> Self {
        let mut settings = Self::default();
        for line in server.values('o') {
            settings.lines.extend(line_of(line));
        }
        settings.file(root, &main_file(server), 0);
        settings
    }

    /// The value that counts.
    pub(super) fn get(&self, keyword: &str) -> Option<&str> {
        self.all(keyword).next()
    }

    /// All values, for keywords that can be there more than once.
    pub(super) fn all(&self, keyword: &str) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .filter(move |(k, _)| k.eq_ignore_ascii_case(keyword))
            .map(|(_, value)| value.as_str())
    }

    fn file(&mut self, root: &Root, path: &Path, depth: usize) {
        let Ok(Some(text)) = root.read_text(path) else { return };
        self.files.push(path.to_owned());
        let mut for_some = false;
        for (keyword, value) in text.lines().filter_map(line_of) {
            match keyword.as_str() {
                // up to the end of the file; what is included from there on is read by sshd all the same
                "match" => {
                    self.conditional = true;
                    for_some = true;
                }
                "include" if depth < DEPTH => {
                    let before = self.lines.len();
                    for pattern in value.split_whitespace() {
                        self.include(root, pattern, depth + 1);
                    }
                    if for_some {
                        self.lines.truncate(before);
                    }
                }
                _ if for_some => {}
                _ => self.lines.push((keyword, value)),
            }
        }
    }

    /// A file, or those in a directory whose names match a pattern with one `*`.
    fn include(&mut self, root: &Root, pattern: &str, depth: usize) {
        let path = Path::new("/etc/ssh").join(pattern);
        let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
            return;
        };
        let Some((before, after)) = name.split_once('*') else { return self.file(root, &path, depth) };
        let Ok(resolved) = root.resolve(directory) else { return };
        let Ok(entries) = fs::read_dir(root.host(&resolved.real)) else { return };
        let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        names.retain(|n| !n.starts_with('.') && n.starts_with(before) && n.ends_with(after));
        names.sort();
        for name in names {
            self.file(root, &directory.join(name), depth);
        }
    }
}

/// The file that the server reads first.
pub(super) fn main_file(server: &Server) -> PathBuf {
    server.values('f').last().unwrap_or(SSHD_CONFIG).into()
}

/// A line's keyword in lower case, and its value without quotes; none for comments and empty lines.
fn line_of(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let (keyword, value) = line.split_once([' ', '\t', '=']).unwrap_or((line, ""));
    if keyword.is_empty() || keyword.starts_with('#') {
        return None;
    }
    let value = value.trim().trim_start_matches('=').trim();
    Some((keyword.to_ascii_lowercase(), value.trim_matches('"').to_owned()))
}
