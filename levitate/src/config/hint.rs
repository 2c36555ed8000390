//! From what a parser says about a name that it does not know, to what helps: the nearest name that there is, and all.

/// A letter too many, too few, another one, or two changed over: each is one step. More than this many are another word.
const FAR: usize = 3;

/// The parser's message about an unknown key or value, rewritten; any other is left as it is but for its quotes.
pub(super) fn improve(message: &str) -> String {
    let unknown = |what: &str| message.strip_prefix(what)?.split_once("`, expected ");
    let (kind, found, list) = match (unknown("unknown field `"), unknown("unknown variant `")) {
        (Some((name, list)), _) => ("key", name, list),
        (_, Some((name, list))) => ("value", name, list),
        _ => return message.replace('`', "'"),
    };
    let known: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    let all = known.join(", ");
    format!("unknown {kind} \"{found}\"{}; known here: {all}", did_you_mean(found, known.iter().copied()))
}

/// `, did you mean "NAME"?`, or nothing where no name is near.
pub(super) fn did_you_mean<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(found, known).map(|name| format!(", did you mean \"{name}\"?")).unwrap_or_default()
}

/// The name that is the fewest steps away, if that is near enough for a slip.
fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far = FAR.min(found.chars().count().div_ceil(2));
    let near = known.map(|name| (steps(found, name), name)).filter(|(steps, _)| *steps <= far);
    near.min_by_key(|(steps, _)| *steps).map(|(_, name)| name)
}

/// Damerau's and Levenshtein's distance, with `-` and `_` taken as one letter: half of the keys have the one, half the other.
fn steps(one: &str, other: &str) -> usize {
    let letters = |text: &str| text.to_lowercase().replace('-', "_").chars().collect::<Vec<char>>();
    let (one, other) = (letters(one), letters(other));
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (row[j] + usize::from(a != b)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let keys = || ["packages", "files", "state_file", "timeout-up", "run"].into_iter();
        for (found, meant) in [
            ("file", Some("files")),
            ("package", Some("packages")),
            ("state-file", Some("state_file")),
            ("timeout_up", Some("timeout-up")),
            ("Files", Some("files")),
            ("flies", Some("files")),
            ("rnu", Some("run")),
            ("restart", None),
            ("x", None),
        ] {
            assert_eq!(nearest(found, keys()), meant, "{found}");
        }
    }

    #[test]
    fn the_parsers_words_become_a_suggestion_and_a_list() {
        assert_eq!(
            improve("unknown field `file`, expected one of `packages`, `files`"),
            r#"unknown key "file", did you mean "files"?; known here: packages, files"#
        );
        assert_eq!(
            improve("unknown field `zzzzz`, expected `keep` or `shell`"),
            r#"unknown key "zzzzz"; known here: keep, shell"#
        );
        assert_eq!(
            improve("unknown variant `longrum`, expected one of `longrun`, `oneshot`, `bundle`"),
            r#"unknown value "longrum", did you mean "longrun"?; known here: longrun, oneshot, bundle"#
        );
        assert_eq!(improve("missing `]`"), "missing ']'");
    }
}
