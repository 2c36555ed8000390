//! What arming an init changes in the running system, step by step: values that can be printed, compared, recorded
//! before they are done, and undone from the record alone.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One change. Paths are the running system's own. Everything lives in RAM or in the mount table: a power cut undoes
/// all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// A directory is made (0755). Undone by removing it, if it is empty.
    Directory {
        /// Where.
        path: PathBuf,
    },
    /// A file is written.
    File {
        /// Where; nothing is there before.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its contents.
        text: String,
    },
    /// A program is copied (0755).
    Copy {
        /// The program, links resolved.
        from: PathBuf,
        /// Where to; nothing is there before.
        to: PathBuf,
    },
    /// A symbolic link is made.
    Symlink {
        /// Where; nothing is there before.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// A directory gets another name until it is undone.
    MoveAway {
        /// Its name.
        from: PathBuf,
        /// Its name meanwhile, in the same file system.
        to: PathBuf,
    },
    /// A file or directory is bound over another one.
    Bind {
        /// What shows there afterwards.
        what: PathBuf,
        /// Where; links are resolved, for a bind over a link would replace what it leads to.
        over: PathBuf,
        /// Whether PID 1 gets SIGHUP, now and when it is undone, so that it reads the file again.
        reread: bool,
    },
    /// A file system in RAM covers a directory, with links of its own in it. It is filled at a place apart and shows by
    /// one bind: at every moment the directory holds all that was there before, or all of the links.
    Cover {
        /// The directory, links resolved.
        folder: PathBuf,
        /// Where it is filled; nothing is there before, nor afterwards.
        apart: PathBuf,
        /// Names in it, and what they lead to.
        links: Vec<(PathBuf, PathBuf)>,
    },
    /// This program is started once more, in the background, under another name.
    Start {
        /// The name: its `argv[0]`, by which it knows what to do.
        name: String,
    },
}

impl Step {
    /// The name that it puts something new at; none if it puts it over what is there.
    #[must_use]
    pub fn makes(&self) -> Option<&Path> {
        match self {
            Self::Directory { path } | Self::File { path, .. } | Self::Symlink { path, .. } => Some(path),
            Self::Copy { to, .. } | Self::MoveAway { to, .. } => Some(to),
            Self::Bind { .. } | Self::Cover { .. } | Self::Start { .. } => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path } => write!(f, "make the directory {}", path.display()),
            Self::File { path, .. } => write!(f, "write {}", path.display()),
            Self::Copy { from, to } => write!(f, "copy {} to {}", from.display(), to.display()),
            Self::Symlink { path, target } => {
                write!(f, "link {} to {}", path.display(), target.display())
            }
            Self::MoveAway { from, to } => write!(f, "move {} to {}", from.display(), to.display()),
            Self::Bind { what, over, reread } => {
                let told = if *reread { ", and have PID 1 read it" } else { "" };
                write!(f, "bind {} over {}{told}", what.display(), over.display())
            }
            Self::Cover { folder, links, .. } => {
                write!(f, "cover {} with {} links", folder.display(), links.len())
            }
            Self::Start { name } => write!(f, "start {name} in the background"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_one_line_and_comes_back_from_the_record() {
        let at = |path: &str| PathBuf::from(path);
        let steps = [
            (Step::Directory { path: at("/a") }, "make the directory /a"),
            (Step::File { path: at("/a"), mode: 0o755, text: "x".into() }, "write /a"),
            (Step::Copy { from: at("/a"), to: at("/b") }, "copy /a to /b"),
            (Step::Symlink { path: at("/a"), target: at("b") }, "link /a to b"),
            (Step::MoveAway { from: at("/a"), to: at("/b") }, "move /a to /b"),
            (
                Step::Bind { what: at("/a"), over: at("/b"), reread: true },
                "bind /a over /b, and have PID 1 read it",
            ),
            (
                Step::Cover { folder: at("/a"), apart: at("/b"), links: vec![(at("x"), at("y"))] },
                "cover /a with 1 links",
            ),
            (Step::Start { name: "linuxrc".into() }, "start linuxrc in the background"),
        ];
        for (step, line) in steps {
            assert_eq!(step.to_string(), line);
            let text = serde_json::to_string(&step).unwrap();
            assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step, "{text}");
        }
    }
}
