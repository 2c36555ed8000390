//! What a failing board test leaves to read: everything it said, and every console, whole.

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Every file named `*.console` in `folder`, in the order of their names, each under a heading.
#[must_use]
pub(crate) fn consoles(folder: &Path) -> String {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "console"))
        .collect();
    paths.sort_by_key(|path| (path.metadata().and_then(|data| data.created()).ok(), path.clone()));
    let mut text = String::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let console = match fs::read(&path) {
            Ok(bytes) => plain(&String::from_utf8_lossy(&bytes)),
            Err(error) => format!("(cannot be read: {error})"),
        };
        // writing into a String does not fail
        let _ = writeln!(text, "--- console {name}\n{}\n--- end of console {name}", console.trim_end());
    }
    text
}

/// Without carriage returns and without escape sequences, which would move the reader's cursor.
fn plain(console: &str) -> String {
    let mut text = String::with_capacity(console.len());
    let mut characters = console.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' if characters.next_if_eq(&'[').is_some() => {
                // parameters, then one final letter
                let _ = characters.find(|c| c.is_ascii_alphabetic());
            }
            '\n' | '\t' => text.push(character),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_console_is_in_the_report_whole_and_readable() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("device-1.console"), "U-Boot\r\n\u{1b}[2JLinux\u{1b}[0;32m ok\r\n")
            .unwrap();
        fs::write(folder.path().join("nor.img"), "no console").unwrap();
        assert_eq!(
            consoles(folder.path()),
            "--- console device-1\nU-Boot\nLinux ok\n--- end of console device-1\n"
        );
    }
}
