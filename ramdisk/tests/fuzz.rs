//! What comes from outside: archives, service directories, lines on the control socket.

#[path = "../../tests/fuzz/runner.rs"]
mod runner;
#[path = "../fuzz/services.rs"]
mod services;
#[path = "../fuzz/targets.rs"]
mod targets;

use runner::run;

/// Parts of archives.
const ARCHIVES: [&[u8]; 12] = [
    b"070701",
    b"TRAILER!!!\0",
    b"00000000",
    b"FFFFFFFF",
    b"000041ED",
    b"000081A4",
    b"0000A1FF",
    b"00000002",
    b"../",
    b"/",
    b"\0",
    b"d/up",
];

/// Parts of service directories and of requests.
const SERVICES: [&[u8]; 16] = [
    b"\x1e",
    b"\n",
    b"a/type\nbundle",
    b"b/type\noneshot",
    b"a/dependencies.d/b",
    b"a/contents\na\n",
    b"timeout-up",
    b"18446744073709551616",
    b"-1",
    b"\"",
    b" -- ",
    b"wait=",
    b"SIGKILL",
    b"once",
    b"\xff\xfe",
    b"../",
];

#[test]
fn no_archive_is_too_hostile_to_be_refused_or_to_stay_in_its_root() {
    run("newc", &ARCHIVES, targets::newc);
}

#[test]
fn no_service_directory_is_too_odd_to_be_read_or_refused() {
    run("service_dir", &SERVICES, services::service_dir);
}

#[test]
fn no_line_on_the_control_socket_is_too_odd_to_be_answered() {
    run("control", &SERVICES, services::control);
}
