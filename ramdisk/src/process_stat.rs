//! One line of `/proc/PID/stat`: a process's name, state and parent.

/// What is needed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat<'a> {
    /// The name, as the kernel has it (at most 15 bytes); it may contain anything.
    pub(crate) name: &'a str,
    /// The state's letter.
    pub(crate) state: char,
    /// The parent's number; 0 for who has none here.
    pub(crate) parent: i32,
}

impl<'a> Stat<'a> {
    /// Parses `123 (a name) S 1 ...`: the last parenthesis ends the name.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (name, rest) = text.split_once('(')?.1.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        Some(Self { name, state, parent: fields.next()?.parse().ok()? })
    }

    /// True if it has ended and only its entry is left.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_rest_of_the_line() {
        let stat = Stat::parse("7 (a) R 1 (b) S 35 7 7").unwrap();
        assert_eq!(stat, Stat { name: "a) R 1 (b", state: 'S', parent: 35 });
        assert!(!stat.is_over() && Stat::parse("7 (a) Z 1 7").unwrap().is_over());
        for torn in ["", "7", "7 (a", "7 (a)", "7 (a) S", "7 (a) S x"] {
            assert_eq!(Stat::parse(torn), None, "{torn}");
        }
    }
}
