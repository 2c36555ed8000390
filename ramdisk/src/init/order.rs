//! A request to change services, as it travels over the control socket.

use nix::sys::signal::Signal;

use super::control::BadRequest;

/// What to do with services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bring them up, with all that they need.
    Up,
    /// Bring them down, and before them all that needs them.
    Down,
    /// Bring them up; longruns are down when their processes have ended, oneshots stay up. Waiting for it means waiting
    /// for the process's end: that of a oneshot's `up` in its case.
    Once,
    /// End their processes, which are started again.
    Restart,
    /// Send their processes a signal.
    Signal(Signal),
}

impl Change {
    /// The request's first word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Once => "once",
            Self::Restart => "restart",
            Self::Signal(signal) => signal.as_str(),
        }
    }

    /// The signal of that name.
    pub(super) fn signal(word: &str) -> Option<Self> {
        word.starts_with("SIG").then(|| word.parse().ok().map(Self::Signal)).flatten()
    }
}

/// Whether the answer comes when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The answer comes at once.
    No,
    /// It comes when it is done, however long that takes.
    Forever,
    /// It comes when it is done, or after so many milliseconds.
    For(u64),
}

/// A request to change services: `up wait=5000 by-controller -- NAME...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to do.
    pub change: Change,
    /// Whether to wait: `wait`, `wait=MS`, or nothing.
    pub wait: Wait,
    /// Given by a controller (`by-controller`): nothing is started whose controller shall itself go down.
    pub by_controller: bool,
    /// Whom it is about; at least one.
    pub names: Vec<String>,
}

impl Order {
    /// The request's line, without its newline.
    #[must_use]
    pub fn line(&self) -> String {
        let wait = match self.wait {
            Wait::No => String::new(),
            Wait::Forever => " wait".to_owned(),
            Wait::For(ms) => format!(" wait={ms}"),
        };
        let by = if self.by_controller { " by-controller" } else { "" };
        format!("{}{wait}{by} -- {}", self.change.word(), self.names.join(" "))
    }

    pub(super) fn parse<'a>(
        change: Change,
        words: impl Iterator<Item = &'a str>,
    ) -> Result<Self, BadRequest> {
        let mut order = Self { change, wait: Wait::No, by_controller: false, names: Vec::new() };
        let mut words = words;
        let unknown = |word: &str| BadRequest::Word {
            request: change.word().to_owned(),
            word: word.chars().take(80).collect(),
        };
        for word in words.by_ref() {
            match word {
                "--" => break,
                "wait" => order.wait = Wait::Forever,
                "by-controller" => order.by_controller = true,
                _ => match word.strip_prefix("wait=").and_then(|ms| ms.parse().ok()) {
                    Some(ms) => order.wait = Wait::For(ms),
                    None => return Err(unknown(word)),
                },
            }
        }
        order.names.extend(words.map(str::to_owned));
        if order.names.is_empty() { Err(BadRequest::NoNames(change.word())) } else { Ok(order) }
    }
}
