//! The man page is the help text, typeset: it cannot say anything else. `UPDATE_TEXTS=1 cargo test -p flasher --test
//! man_page` writes it.

use std::path::Path;
use std::process::Command;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/man/flashcp.1");

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_flashcp")).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a line of text one of roff's.
fn roff(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

/// A paragraph as an entry: `  TAG  text` with its continuation lines.
fn entries(lines: &[&str]) -> String {
    let mut page = String::new();
    let mut last_is_open = false;
    for line in lines {
        let indent = line.len() - line.trim_start().len();
        let aligned = || line.split_at_checked(22).filter(|(tag, _)| tag.ends_with(' '));
        let (tag, text) =
            line.trim_start().split_once("  ").or_else(aligned).unwrap_or((line.trim_start(), ""));
        if indent >= 8 {
            // The text of the entry above goes on.
            page.push_str(&format!("{}\n", roff(line.trim())));
        } else {
            if last_is_open {
                page.push_str("\\&\n");
            }
            page.push_str(&format!(".TP\n.B \"{}\"\n", roff(tag.trim())));
            if !text.trim().is_empty() {
                page.push_str(&format!("{}\n", roff(text.trim())));
            }
        }
        last_is_open = indent < 8 && text.trim().is_empty();
    }
    page
}

fn verbatim(lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{}\n", roff(line))).collect();
    format!(".PP\n.nf\n{lines}.fi\n")
}

fn page(help: &str) -> String {
    let paragraphs: Vec<Vec<&str>> =
        help.trim_end().split("\n\n").map(|part| part.lines().collect()).collect();
    let title = paragraphs[0][0].trim_end_matches('.');
    let mut page = format!(
        ".\\\" Made from `flashcp --help`; a test keeps it so.\n.TH FLASHCP 1 \"\" levitate \"User Commands\"\n.SH NAME\n\
         flashcp \\- {}\n",
        roff(&(title[..1].to_lowercase() + &title[1..]))
    );
    for lines in &paragraphs[1..] {
        match lines[0].split_once(':').map_or("", |(word, _)| word) {
            "Usage" => {
                let usage: Vec<&str> =
                    lines.iter().map(|line| line.trim_start_matches("Usage:").trim()).collect();
                page.push_str(&format!(
                    ".SH SYNOPSIS\n{}.SH DESCRIPTION\n",
                    verbatim(&usage).replace(".PP\n", "")
                ));
            }
            "Options" => page.push_str(&format!(".SH OPTIONS\n{}", entries(&lines[1..]))),
            "Examples" => page.push_str(&format!(".SH EXAMPLES\n{}", verbatim(&lines[1..]))),
            "Exit codes" => page.push_str(&format!(".SH EXIT STATUS\n{}", entries(&lines[1..]))),
            _ if lines[0].starts_with("  ") => page.push_str(&entries(lines)),
            _ => {
                let plain: Vec<&str> =
                    lines.iter().copied().take_while(|line| !line.starts_with(' ')).collect();
                let text: String = plain.iter().map(|line| format!("{}\n", roff(line))).collect();
                page.push_str(&format!(".PP\n{text}"));
                if plain.len() < lines.len() {
                    page.push_str(&verbatim(&lines[plain.len()..]));
                }
            }
        }
    }
    page
}

#[test]
fn the_man_page_is_the_help_text_of_this_very_program() {
    let page = page(&help());
    for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS"] {
        assert_eq!(page.matches(&format!(".SH {heading}\n")).count(), 1, "{heading}:\n{page}");
    }
    if std::env::var_os("UPDATE_TEXTS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let kept = std::fs::read_to_string(Path::new(PAGE)).unwrap_or_default();
    assert!(
        kept == page,
        "docs/man/flashcp.1 is not up to date: UPDATE_TEXTS=1 writes it; it should be\n{page}"
    );
}
