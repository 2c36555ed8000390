//! The watchdogs: taken over from the hand-over, fed from the main loop alone.
//!
//! Progress of anything is no condition for feeding: a reset because flashing is slow would be the very brick that it
//! is to prevent. What it guards is PID 1's loop.

use crate::sys::watchdog::{Device, WatchdogError};

/// The environment variable that names the open descriptors, with commas between them.
pub(super) const FD_VARIABLE: &str = "LEVITATE_WATCHDOG_FD";
/// The timeout that is asked for where the present one is shorter, in seconds.
pub(super) const WANTED_TIMEOUT_S: u32 = 60;

/// An armed watchdog.
#[derive(Debug)]
pub(super) struct Watchdog {
    device: Device,
    interval_ms: u64,
    next_ms: u64,
}

impl Watchdog {
    /// Takes the watchdog over: raises its timeout if it is below a minute and the driver can, and feeds it.
    ///
    /// # Errors
    /// If the descriptor is no watchdog.
    pub(super) fn take_over(device: Device, now: u64) -> Result<Self, WatchdogError> {
        // Before anything else: nobody knows how much of its time is gone.
        device.feed()?;
        let mut timeout = device.timeout().ok();
        if timeout.is_none_or(|timeout| timeout < WANTED_TIMEOUT_S) {
            // The driver answers what it really set; one that cannot keeps what it had.
            timeout = device.set_timeout(WANTED_TIMEOUT_S).ok().or(timeout);
        }
        let interval_ms = feed_interval_ms(timeout);
        Ok(Self { device, interval_ms, next_ms: now.saturating_add(interval_ms) })
    }

    /// Feeds if it is time; answers when it will be again.
    pub(super) fn feed(&mut self, now: u64) -> u64 {
        if now >= self.next_ms {
            // A failure cannot be helped; the next turn tries again.
            if self.device.feed().is_ok() {
                self.next_ms = now.saturating_add(self.interval_ms);
            } else {
                self.next_ms = now.saturating_add(1_000);
            }
        }
        self.next_ms
    }

    /// Feeds now, whatever the time.
    pub(super) fn feed_now(&mut self, now: u64) {
        self.next_ms = now;
        self.feed(now);
    }

    /// Lets the next program in this process have it: answers the descriptor's number.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn outlive_exec(&self) -> std::io::Result<i32> {
        self.device.outlive_exec()
    }

    /// Disarms it where the driver allows (the magic close): before power-off and halt, which it would undo.
    pub(super) fn disarm(self) {
        self.device.magic_close();
    }
}

/// While nobody knows the timeout.
const UNKNOWN_MS: u64 = 1_000;

/// Three chances within a timeout, and at most 10 s between two. A timeout that the driver does not tell, or tells as 0,
/// may be any.
fn feed_interval_ms(timeout_s: Option<u32>) -> u64 {
    match timeout_s {
        None | Some(0) => UNKNOWN_MS,
        Some(seconds) => (u64::from(seconds).saturating_mul(1_000) / 3).min(10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_has_three_chances_to_be_fed_within_its_timeout() {
        for (timeout, interval) in [(60, 10_000), (15, 5_000), (1, 333), (u32::MAX, 10_000)] {
            assert_eq!(feed_interval_ms(Some(timeout)), interval, "{timeout}");
        }
    }

    #[test]
    fn a_watchdog_whose_timeout_is_not_known_is_fed_every_second() {
        assert_eq!([feed_interval_ms(None), feed_interval_ms(Some(0))], [1_000, 1_000]);
    }
}
