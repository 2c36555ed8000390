//! What `reboot` does in the maintenance root, as its init decides it: by the flash record.

use std::path::Path;

use ramdisk::init::interlock::{self, Gate};
use serde::Serialize;

/// What `reboot` does in the maintenance root now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "does", rename_all = "snake_case")]
pub enum Leaving {
    /// It leaves maintenance mode.
    Leaves,
    /// It waits until flash is no longer being changed; what it does then depends on how that ends.
    Waits {
        /// Name, number and target of the process that changes flash.
        writer: String,
    },
    /// It refuses, unless forced.
    Refuses {
        /// Why, and the command to run again: the lines that `reboot` prints.
        reason: Vec<String>,
    },
}

impl Leaving {
    /// Asks as the maintenance init does, with its run directory and the kernel's /proc.
    #[must_use]
    pub fn look(run: &Path, proc: &Path) -> Self {
        match interlock::look(run, proc) {
            Gate::Open => Self::Leaves,
            Gate::Wait { writer } => Self::Waits { writer },
            Gate::Refuse { reason } => Self::Refuses { reason },
        }
    }
}

/// The flash record with the state that it really has: `changing` without a living writer means `unverified`
/// (`ARCHITECTURE.md`). Whether the writer is gone is told, too.
pub(super) fn truth(mut flash: serde_json::Value, reboot: &Leaving) -> (serde_json::Value, bool) {
    let mut writer_is_gone = false;
    if let Some(state) = flash.get_mut("state") {
        writer_is_gone = *state == "changing" && matches!(reboot, Leaving::Refuses { .. });
        if writer_is_gone {
            *state = "unverified".into();
        }
    }
    (flash, writer_is_gone)
}
