//! What the user sees of each event.

use std::io::{self, Write};
use std::path::Path;

use crate::arming::Event;
use crate::budget::kib;
use crate::manifest::Manifest;

/// One line for each event.
pub(super) fn line(event: &Event) -> String {
    match event {
        Event::Wired { init, by } => {
            format!("init: {init}; reboot reaches the hand-over through {}", by.display())
        }
        Event::Selected { services, users, host_keys } => format!(
            "services: {}; users who can log in: {}; ssh host keys: {host_keys}",
            if services.is_empty() { "none".to_owned() } else { services.join(", ") },
            users.join(", ")
        ),
        Event::Fits { size, reserve, available } => format!(
            "memory: {} KiB to stage, {} KiB kept for the image ({}), {} KiB available",
            kib(size.page_bytes),
            kib(reserve.bytes),
            reserve.from,
            kib(*available)
        ),
        Event::Remounting(change) => {
            let size = change.size.map(|s| format!(", {} KiB large", kib(s))).unwrap_or_default();
            format!(
                "{}: remounted so that programs and devices work there{size} (levitate abort restores it)",
                change.point.display()
            )
        }
        Event::Arming(step) => format!("arming: {step}"),
        Event::Warning(text) => format!("warning: {text}"),
    }
}

/// The last line: what was done, and what is next.
pub(super) fn staged(manifest: &Manifest) -> String {
    format!(
        "Staged {} files, {} KiB, in /run/maintenance. `reboot` now enters maintenance mode; \
         `levitate abort` undoes this.\n",
        manifest.files,
        kib(manifest.bytes)
    )
}

/// For a device whose own configuration does not say where the hand-over is recorded.
pub(super) fn where_to_ask(state_file: &Path) -> String {
    format!(
        "Should it come back into this system, `levitate status --state-file {}` tells why.\n",
        state_file.display()
    )
}

pub(super) fn event(event: &Event) {
    match event {
        Event::Warning(_) => error(&line(event)),
        _ => out(&format!("{}\n", line(event))),
    }
}

/// A terminal that has gone away must not stop what is being done.
pub(super) fn out(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

pub(super) fn error(text: &str) {
    let _ = io::stderr().write_all(format!("levitate: {text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use ramdisk::tree::Size;

    use super::*;
    use crate::arm::Init;
    use crate::budget::Reserve;
    use crate::manifest::HandoverLimits;

    #[test]
    fn every_event_is_one_line_that_says_what_and_how_much() {
        let wired = Event::Wired {
            init: Init::S6 { scandir: "/run/service".into() },
            by: "/run/service/.s6-svscan/finish".into(),
        };
        assert_eq!(
            line(&wired),
            "init: s6-svscan in /run/service; reboot reaches the hand-over through /run/service/.s6-svscan/finish"
        );
        let size = Size { files: 3, bytes: 5000, page_bytes: 12_288, inodes: 9 };
        let reserve = Reserve { bytes: 1 << 20, from: "the size of mtd3 \"firmware\"".into() };
        assert_eq!(
            line(&Event::Fits { size, reserve, available: 64 << 20 }),
            "memory: 12 KiB to stage, 1024 KiB kept for the image (the size of mtd3 \"firmware\"), 65536 KiB available"
        );
    }

    #[test]
    fn the_last_line_says_what_reboot_does_and_how_to_undo_it() {
        let manifest = Manifest {
            version: 1,
            staged_at: 0,
            boot_id: String::new(),
            services: vec![],
            users: vec![],
            files: 42,
            bytes: 2_000_000,
            state_file: None,
            state_home: None,
            watchdogs: vec![],
            lease_ms: None,
            lease_unverified_ms: None,
            ways_in: vec![],
            handover: HandoverLimits::default(),
        };
        assert_eq!(
            staged(&manifest),
            "Staged 42 files, 1954 KiB, in /run/maintenance. `reboot` now enters maintenance mode; `levitate abort` undoes this.\n"
        );
    }
}
