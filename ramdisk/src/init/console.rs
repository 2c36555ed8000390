//! What somebody at the console, or later in the kernel's log, gets to read.
//!
//! A serial line with flow control may take nothing for ever, so nothing here waits, and nothing that fails is told.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Writes `text` to the console device at `console`.
pub(super) fn report(console: &Path, text: &str) {
    write_line(console, format!("init: {text}\r\n").as_bytes());
}

/// Writes `text` to every login's terminal: a `reboot` that only sends a signal leaves nobody else to tell.
pub(super) fn wall(text: &str) {
    let line = format!("\r\ninit: {text}\r\n");
    // Without devpts there are no logins on terminals.
    for entry in std::fs::read_dir("/dev/pts").into_iter().flatten().flatten() {
        if entry.file_name() != "ptmx" {
            write_line(&entry.path(), line.as_bytes());
        }
    }
}

/// Writes `text` to the kernel's log, as critical, so that it shows whatever the log level is.
pub(super) fn kernel_log(text: &str) {
    // <2> is the level "critical"; one write is one record.
    write_line(Path::new("/dev/kmsg"), format!("<2>init: {text}\n").as_bytes());
}

/// Writes `text` to the error output: only for one who ran this by mistake.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn write_line(path: &Path, bytes: &[u8]) {
    let flags = (OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits();
    if let Ok(mut file) = OpenOptions::new().append(true).custom_flags(flags).open(path) {
        let _ = file.write_all(bytes);
    }
}
