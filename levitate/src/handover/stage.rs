//! The stages of the hand-over: their order, their names in files, and one text each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where the hand-over is. The order of the variants is the order in which the stages are gone through.
///
/// The names (`end_processes`, ...) are part of the contract of `handover.json` and of the state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The staged root is whole, the verb is reboot, this process can act as PID 1.
    Check,
    /// TERM, then KILL, until nobody is left; the watchdog is taken over from whoever held it.
    EndProcesses,
    /// Swap off; loop and UBI devices detached where that is possible already.
    SwapAndLoops,
    /// The staged directory becomes a mount, and PID 1 executes itself again through it.
    Bind,
    /// /dev, /proc and /sys go along into the staged root.
    MoveMounts,
    /// The staged root becomes /, the old one /oldroot.
    Pivot,
    /// Console from the moved /dev, every other descriptor closed, the rest of the old /run removed.
    LetGo,
    /// Everything of the old root is unmounted, deepest first.
    Unmount,
    /// No file system that lies on flash is alive any more.
    Prove,
    /// The staged root's init is executed.
    Execute,
}

impl Stage {
    /// All stages, in their order.
    pub const ALL: [Self; 10] = [
        Self::Check,
        Self::EndProcesses,
        Self::SwapAndLoops,
        Self::Bind,
        Self::MoveMounts,
        Self::Pivot,
        Self::LetGo,
        Self::Unmount,
        Self::Prove,
        Self::Execute,
    ];

    /// The stage's name in `handover.json` and in the state file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::EndProcesses => "end_processes",
            Self::SwapAndLoops => "swap_and_loops",
            Self::Bind => "bind",
            Self::MoveMounts => "move_mounts",
            Self::Pivot => "pivot",
            Self::LetGo => "let_go",
            Self::Unmount => "unmount",
            Self::Prove => "prove",
            Self::Execute => "execute",
        }
    }

    /// What the stage does, for the console.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Check => "checking the staged root",
            Self::EndProcesses => "ending all processes",
            Self::SwapAndLoops => "detaching swap, loop and UBI devices",
            Self::Bind => "entering the staged root's own mount",
            Self::MoveMounts => "taking /dev, /proc and /sys along",
            Self::Pivot => "making the staged root /",
            Self::LetGo => "letting go of the old root's files",
            Self::Unmount => "unmounting the old root",
            Self::Prove => "checking that nothing on flash is mounted",
            Self::Execute => "starting the maintenance init",
        }
    }

    /// The stage's place, counted from 1.
    #[must_use]
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|stage| *stage == self).map_or(0, |place| place + 1)
    }

    /// The stage of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_in_files_are_the_names_of_the_contract() {
        for stage in Stage::ALL {
            assert_eq!(serde_json::to_string(&stage).unwrap(), format!("\"{}\"", stage.name()));
            assert_eq!(Stage::from_name(stage.name()), Some(stage));
        }
    }

    #[test]
    fn the_stages_are_numbered_in_their_order() {
        let mut sorted = Stage::ALL;
        sorted.sort_unstable();
        assert_eq!(sorted, Stage::ALL);
        assert_eq!((Stage::Check.number(), Stage::Execute.number()), (1, 10));
    }
}
