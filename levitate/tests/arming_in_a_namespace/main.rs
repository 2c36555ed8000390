//! Arming and taking it back with the real kernel's mounts, in a mount namespace of its own: killed after each call, and
//! to the end. The system that is armed lies in a directory; nothing outside it is changed, and nobody is signalled.
//!
//! This one program plays every part, chosen by how it is called: the test, the machine in the namespace, and what is
//! killed there.

mod machine;
mod system;

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};

const NAMESPACE: [&str; 5] = ["--user", "--map-root-user", "--mount", "--propagation", "private"];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rest = |n: usize| args.get(n).cloned().expect("an argument");
    match args.get(1).map(String::as_str) {
        Some("machine") => machine::run(Path::new(&rest(2)), &rest(3), &rest(4)),
        Some("arm") => machine::arm(Path::new(&rest(2)), rest(3).parse().expect("a number")),
        _ => tests(),
    }
}

fn tests() -> ! {
    let arguments = Arguments::from_args();
    let possible = Command::new("unshare").args(NAMESPACE).args(["--", "true"]).output();
    let possible = possible.is_ok_and(|output| output.status.success());
    if !possible && !arguments.list {
        eprintln!(
            "DID NOT RUN: arming in a namespace: `unshare {}` is not permitted or not there",
            NAMESPACE.join(" ")
        );
    }
    let trial = |name: &str, layout: &'static str, propagation: &'static str| {
        Trial::test(name, move || in_a_namespace(layout, propagation)).with_ignored_flag(!possible)
    };
    let trials = vec![
        trial(
            "a_folder_of_applets_is_covered_whole_or_not_at_all_whenever_levitate_is_killed",
            "links",
            "private",
        ),
        trial(
            "a_folder_with_the_program_itself_is_covered_whole_or_not_at_all_whenever_levitate_is_killed",
            "merged",
            "private",
        ),
        trial("where_mounts_are_shared_as_under_systemd_it_is_the_same", "merged", "shared"),
    ];
    libtest_mimic::run(&arguments, trials).exit()
}

fn in_a_namespace(layout: &str, propagation: &str) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let done = Command::new("unshare")
        .args(NAMESPACE)
        .arg("--")
        .arg(std::env::current_exe()?)
        .arg("machine")
        .arg(dir.path())
        .args([layout, propagation])
        .output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(Failed::from(String::from_utf8_lossy(&done.stderr).into_owned()))
}
