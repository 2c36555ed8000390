//! The real hand-over, as PID 1 of a fresh PID and mount namespace.
//!
//! This one program plays every part, chosen by how it is called: the test, the machine around the namespaces, the old
//! system, its stray processes, the hand-over (the library's own), and the new init, which reports what it finds.
//!
//! Nothing of the host can be reached from inside: the old system's root, /dev and /persist are tmpfs, /proc is the
//! namespace's own and read-only, /sys is absent, and reboot(2) ends the namespace.

mod machine;
mod new_init;
mod old_system;
mod tests;

use std::path::Path;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let called = args.first().map(|name| Path::new(name).file_name().unwrap_or_default().to_owned());
    let word = args.get(1).map(String::as_str);
    let rest = |n: usize| args.get(n).cloned().expect("an argument");
    match word {
        _ if called.is_some_and(|name| name == "exec") => levitate::handover::run(std::env::args_os()),
        Some("handover") => levitate::handover::run(std::env::args_os().skip(2)),
        Some("init") => new_init::run(),
        Some("machine") => machine::run(Path::new(&rest(2)), &rest(3)),
        Some("old-system") => old_system::run(Path::new(&rest(2)), &rest(3)),
        Some("stray") => old_system::stray(&rest(2)),
        _ => tests::run(),
    }
}
