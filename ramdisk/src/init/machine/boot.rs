//! How the start goes, and what becomes of one that fails.

use super::{DEFAULT_BUNDLE, Force, Init, Input, Kernel, Verb};
use crate::init::last_resort;

/// From "nothing could be started" to the reboot, in milliseconds: time to read it on a console.
pub const FAILED_BOOT_MS: u64 = 5_000;

/// How the start went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// Nothing is up yet.
    Starting,
    /// Something was up.
    Reached,
    /// Nothing can be started; the old system is asked for at this time.
    Failed {
        /// In milliseconds.
        reboot_at: u64,
    },
    /// As before, and it was asked for: a refusal by flash is final.
    GivenUp,
    /// Nothing can be started, and there is no other system, or none that can be gone back to: the console's services were
    /// asked for.
    Stays,
}

impl Boot {
    /// When it is to be looked at again.
    pub(super) fn deadline(self) -> Option<u64> {
        match self {
            Self::Failed { reboot_at } => Some(reboot_at),
            _ => None,
        }
    }
}

impl<K: Kernel> Init<K> {
    /// Starts the bundle `default`.
    pub fn start(&mut self) {
        if self.supervisor.knows(DEFAULT_BUNDLE) {
            self.supervise(&Input::Start(vec![DEFAULT_BUNDLE.to_owned()]));
            self.look_at_boot();
        } else {
            self.give_up("there is no service or bundle named default");
        }
    }

    /// Says why no service will run. A maintenance root is left for the old system, which is untouched as long as no
    /// flash was changed. A normal system has no other one, and a reboot would only bring it back here: it stays, with
    /// the console's services if there are any.
    pub fn give_up(&mut self, why: &str) {
        self.announce(&format!("no service can be started: {why}"));
        if self.is_maintenance() {
            self.announce("rebooting into the system that was there before");
            let reboot_at = self.kernel.now().saturating_add(FAILED_BOOT_MS);
            self.boot = Boot::Failed { reboot_at };
            return;
        }
        self.boot = Boot::Stays;
        self.start_consoles();
    }

    fn start_consoles(&mut self) {
        let consoles = last_resort::consoles(&self.set);
        let stays = if self.is_maintenance() {
            "flash is not verified, so this root is not left"
        } else {
            "this is no maintenance root, so it is not left"
        };
        if consoles.is_empty() {
            return self.announce(&format!("{stays}; no service is for the console"));
        }
        self.announce(&format!("{stays}; starting for the console: {}", consoles.join(", ")));
        self.supervise(&Input::Start(consoles));
    }

    /// Brings up again what an end that was then refused has stopped.
    pub(super) fn start_again(&mut self) {
        match self.boot {
            Boot::Reached => {
                self.announce("starting the services again, so that the device can be reached");
                self.supervise(&Input::Start(vec![DEFAULT_BUNDLE.to_owned()]));
            }
            Boot::Stays => self.start_consoles(),
            _ => {}
        }
    }

    /// Where nothing can be started and flash was changed since the old system was left, somebody at the console can still
    /// complete it.
    pub(super) fn stay_if_given_up(&mut self) {
        if self.boot == Boot::GivenUp {
            self.boot = Boot::Stays;
            self.start_consoles();
        }
    }

    pub(super) fn look_at_boot(&mut self) {
        match self.boot {
            Boot::Starting if self.supervisor.is_anything_up() => self.boot = Boot::Reached,
            Boot::Starting if self.supervisor.is_settled() && self.shutdown.is_none() => {
                self.give_up("every service of the bundle default is marked down, or it is empty");
            }
            Boot::Failed { reboot_at } if self.kernel.now() >= reboot_at => {
                self.boot = Boot::GivenUp;
                // the old system did run with whatever it left of its flash, and here nobody can ever log in
                self.want_end(Verb::Reboot, Force::AsFound);
            }
            _ => {}
        }
    }
}
