//! Options as getopt(3) understands them in POSIX: letters in clusters, values attached or apart, everything from the
//! first other word on is an argument.

use std::collections::VecDeque;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Letters in their order, each with its value if it takes one.
    pub(super) options: Vec<(char, String)>,
    /// The arguments.
    pub(super) rest: Vec<String>,
}

impl Parsed {
    /// True if the option was given.
    pub(super) fn has(&self, letter: char) -> bool {
        self.options.iter().any(|(have, _)| *have == letter)
    }

    /// The last value of an option.
    pub(super) fn value(&self, letter: char) -> Option<&str> {
        self.options.iter().rev().find(|(have, _)| *have == letter).map(|(_, value)| value.as_str())
    }

    /// The last of several options that exclude one another.
    pub(super) fn last_of(&self, letters: &[char]) -> Option<char> {
        self.options.iter().rev().map(|(have, _)| *have).find(|have| letters.contains(have))
    }
}

/// Parses. `flags` are letters without a value, `valued` letters with one, `long` the long names of some of them.
///
/// # Errors
/// What was not understood, as a sentence's end.
pub(super) fn parse(
    words: Vec<String>,
    flags: &str,
    valued: &str,
    long: &[(&str, char)],
) -> Result<Parsed, String> {
    let mut words: VecDeque<String> = words.into();
    let mut parsed = Parsed::default();
    let missing = |name: &str| format!("the option {name} needs a value");
    while let Some(word) = words.pop_front() {
        if word == "--" {
            break;
        }
        if let Some(name) = word.strip_prefix("--") {
            let (name, attached) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let found = long.iter().find(|(known, _)| *known == name);
            let letter =
                found.map(|(_, letter)| *letter).ok_or_else(|| format!("unknown option --{name}"))?;
            let value = match (valued.contains(letter), attached) {
                (true, Some(value)) => value,
                (true, None) => words.pop_front().ok_or_else(|| missing(&word))?,
                (false, None) => String::new(),
                (false, Some(_)) => return Err(format!("the option --{name} has no value")),
            };
            parsed.options.push((letter, value));
            continue;
        }
        let Some(cluster) = word.strip_prefix('-').filter(|cluster| !cluster.is_empty()) else {
            words.push_front(word);
            break;
        };
        let mut letters = cluster.chars();
        while let Some(letter) = letters.next() {
            if valued.contains(letter) {
                let attached: String = letters.by_ref().collect();
                let value = if attached.is_empty() { words.pop_front() } else { Some(attached) };
                parsed.options.push((letter, value.ok_or_else(|| missing(&format!("-{letter}")))?));
            } else if flags.contains(letter) {
                parsed.options.push((letter, String::new()));
            } else {
                return Err(format!("unknown option -{letter}"));
            }
        }
    }
    parsed.rest = words.into();
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(String, Vec<String>), String> {
        let words = line.split(' ').map(str::to_owned).collect();
        let parsed = parse(words, "adu", "tv", &[("timeout", 't'), ("up", 'u')])?;
        let options = parsed.options.iter().map(|(letter, value)| format!("{letter}{value} ")).collect();
        Ok((options, parsed.rest))
    }

    #[test]
    fn letters_come_alone_or_in_clusters_and_values_attached_or_apart() {
        for line in
            ["-d -a -t 5 change x", "-dat5 change x", "-dat 5 change x", "-da --timeout=5 -- change x"]
        {
            let (options, rest) = parsed(line).unwrap();
            assert_eq!(
                (options.trim_end().len(), rest),
                (6, vec!["change".to_owned(), "x".to_owned()]),
                "{line}"
            );
        }
        // Behind the first other word there are no options any more.
        assert_eq!(parsed("list -a").unwrap(), (String::new(), vec!["list".to_owned(), "-a".to_owned()]));
        assert_eq!(parsed("-").unwrap().1, ["-"]);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(parsed("-x"), Err("unknown option -x".into()));
        assert_eq!(parsed("--down"), Err("unknown option --down".into()));
        assert_eq!(parsed("-t"), Err("the option -t needs a value".into()));
        assert_eq!(parsed("--up=1"), Err("the option --up has no value".into()));
    }
}
