//! The manual pages name every key and every option that there is, and are well formed; help fits a narrow terminal.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use levitate::config::Config;

/// What a terminal has at least.
const COLUMNS: usize = 80;

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/man").join(name)
}

/// The page's text without its markup: hyphens are written `\-`.
fn text(name: &str) -> String {
    std::fs::read_to_string(page(name)).unwrap().replace("\\-", "-")
}

fn help(arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_levitate")).args(arguments).arg("--help").output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// The words of the list of commands.
fn commands() -> Vec<String> {
    let help = help(&[]);
    let list = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0.to_owned();
    list.lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned))
        .filter(|w| !w.is_empty())
        .collect()
}

/// A name as a word of its own.
fn names(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(inside) && !text[at + word.len()..].starts_with(inside))
}

#[test]
fn every_command_and_every_option_is_in_the_manual_page() {
    let page = text("levitate.8");
    let commands = commands();
    assert!(commands.len() >= 4 && commands.contains(&"check".to_owned()), "{commands:?}");
    let mut all = vec![help(&[])];
    for command in &commands {
        assert!(names(&page, command), "levitate.8 does not name the command {command}");
        if command != "help" {
            all.push(help(&[command]));
        }
    }
    let all = all.concat();
    let options: BTreeSet<&str> = all
        .split(|c: char| c.is_whitespace() || "[]<>,=`;.".contains(c))
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .collect();
    assert!(options.contains("--json") && options.contains("--config"), "{options:?}");
    for option in options {
        assert!(names(&page, option), "levitate.8 does not name {option}");
    }
}

#[test]
fn help_fits_into_80_columns() {
    let mut all: Vec<Vec<String>> = vec![vec![]];
    all.extend(commands().into_iter().filter(|c| c != "help").map(|command| vec![command]));
    for arguments in all {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        for line in help(&arguments).lines() {
            assert!(line.chars().count() < COLUMNS, "levitate {arguments:?} --help: {line}");
        }
    }
}

/// The keys that there are where one of them is written, as the error about another one tells them.
fn keys(before: &str) -> Vec<String> {
    let parsed = Config::parse(Path::new("/c"), &format!("{before}zzzzzzzz = 1"));
    let told = parsed.unwrap_err().to_string();
    let list = told.split_once("known here: ").unwrap_or_else(|| panic!("{told}")).1;
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_of_the_configuration_is_in_the_manual_page_and_in_the_example() {
    let page = text("levitate.toml.5");
    let example = include_str!("../levitate.toml.example");
    let places = ["", "[services.a]\n", "[users.a]\n", "[groups.a]\n", "[keep]\n", "[handover]\n"];
    let mut all: BTreeSet<String> = places.iter().flat_map(|place| keys(place)).collect();
    let table = Config::parse(Path::new("/c"), "packages = [{ zzzzzzzz = 1 }]").unwrap_err().to_string();
    all.extend(table.split_once("known here: ").unwrap().1.split(", ").map(str::to_owned));
    assert!(all.len() > 30 && all.contains("closure") && all.contains("timeout-kill"), "{all:?}");
    for key in &all {
        assert!(names(&page, key), "levitate.toml.5 does not name {key}");
    }
    for key in
        keys("").iter().chain(&keys("[keep]\n")).chain(&keys("[handover]\n")).chain(&keys("[users.a]\n"))
    {
        assert!(names(example, key), "levitate.toml.example does not name {key}");
    }
}

#[test]
fn the_examples_of_the_configurations_page_are_configurations() {
    let source = std::fs::read_to_string(page("levitate.toml.5")).unwrap().replace("\\-", "-");
    let examples = source.split_once(".SH EXAMPLES").unwrap().1;
    let examples: Vec<&str> =
        examples.split(".nf\n").skip(1).map(|rest| rest.split_once(".fi").unwrap().0).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        Config::parse(Path::new("/etc/levitate.toml"), example).unwrap_or_else(|e| panic!("{e}:\n{example}"));
    }
}

#[test]
fn pages_refer_to_pages_by_the_section_that_they_are_in() {
    let section = |file: &Path| file.extension().unwrap().to_str().unwrap().to_owned();
    let files = std::fs::read_dir(page("")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<PathBuf> = files.filter(|file| file.is_file() && section(file) != "md").collect();
    let own: Vec<(String, String)> = pages
        .iter()
        .map(|file| (file.file_stem().unwrap().to_str().unwrap().to_owned(), section(file)))
        .collect();
    assert!(own.len() >= 3, "{own:?}");
    for (file, (name, section)) in pages.iter().zip(&own) {
        let source = std::fs::read_to_string(file).unwrap().replace("\\-", "-");
        let title = format!(".TH {} {section} ", name.to_uppercase());
        assert!(source.contains(&title), "{} does not say {title:?}", file.display());
        for line in source.lines() {
            let words: Vec<&str> = line.split([' ', '"', ',']).filter(|word| !word.is_empty()).collect();
            for pair in words.windows(2) {
                let told = pair[1].strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(n, _)| n);
                let there = own.iter().find(|(name, _)| name == pair[0]).map(|(_, section)| section.as_str());
                if let (Some(told), Some(there)) = (told, there) {
                    assert_eq!(told, there, "{}: {line}", file.display());
                }
            }
        }
    }
}

#[test]
fn every_file_in_run_that_is_named_to_people_is_in_the_manual_page() {
    let page = text("levitate.8");
    for file in ["verb", "armed.json", "handover.json", "flash.json"] {
        assert!(page.contains(&format!("/run/levitate/{file}\n")), "levitate.8 does not name {file}");
    }
}

#[test]
fn the_manual_pages_are_well_formed() {
    for name in ["levitate.8", "levitate.toml.5"] {
        let source = std::fs::read_to_string(page(name)).unwrap();
        assert!(source.starts_with(".TH "), "{name}");
        for section in [".SH NAME", ".SH DESCRIPTION", ".SH EXAMPLES", ".SH SEE ALSO"] {
            assert!(source.contains(&format!("{section}\n")), "{name} has no {section}");
        }
        let known = [
            ".TH", ".SH", ".TP", ".PP", ".IP", ".B", ".I", ".BR", ".BI", ".RB", ".IR", ".br", ".nf", ".fi",
            ".RS", ".RE",
        ];
        for (n, line) in source.lines().enumerate() {
            let at = format!("{name}, line {}", n + 1);
            assert!(
                !line.is_empty()
                    || source.lines().take(n).filter(|l| *l == ".nf").count()
                        > source.lines().take(n).filter(|l| *l == ".fi").count(),
                "{at}: an empty line"
            );
            assert!(line.chars().count() <= 140 && !line.ends_with(' '), "{at}: {line}");
            if line.starts_with('.') {
                let request = line.split(' ').next().unwrap();
                assert!(known.contains(&request), "{at}: {request}");
            }
        }
        // whoever has groff hears its warnings, too
        if let Ok(done) =
            Command::new("groff").args(["-man", "-Tascii", "-ww", "-z"]).arg(page(name)).output()
        {
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success() && said.is_empty(), "{name}: {said}");
        }
    }
}
