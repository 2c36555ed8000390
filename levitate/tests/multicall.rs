//! The one binary, called by each of its names. (`reboot` and its kin are not called here: they mean it.)

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

fn call(name: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_levitate")).arg0(name).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn the_name_chooses_the_command_and_so_does_the_first_word_after_levitate() {
    for flashcp in [call("/sbin/flashcp", &["--help"]), call("levitate", &["flashcp", "--help"])] {
        assert!(text(&flashcp).contains("Usage: flashcp"), "{}", text(&flashcp));
        assert_eq!(flashcp.status.code(), Some(0));
    }
    for levitate in [call("/usr/sbin/levitate", &["--help"]), call("whatever", &["--help"])] {
        assert!(text(&levitate).starts_with("Stage a small root in RAM"), "{}", text(&levitate));
    }
}

#[test]
fn what_belongs_to_pid_1_does_nothing_in_another_process() {
    for hand_over in [call("/run/maintenance/exec", &[]), call("levitate", &["handover"])] {
        assert_eq!(hand_over.status.code(), Some(1), "{}", text(&hand_over));
        assert!(text(&hand_over).contains("nothing was done"), "{}", text(&hand_over));
    }
    for init in [call("/sbin/init", &[]), call("/sbin/levitate", &["init", "/sbin/init"])] {
        assert_eq!(init.status.code(), Some(100), "{}", text(&init));
        assert!(text(&init).contains("nothing was done"), "{}", text(&init));
    }
}

#[test]
fn a_missing_configuration_is_told_by_name_and_stages_nothing() {
    let refused = call("levitate", &["--config", "/nonexistent/levitate.toml"]);
    assert_eq!(refused.status.code(), Some(1));
    let is_root = nix::unistd::geteuid().is_root();
    let expected =
        if is_root { "read the configuration /nonexistent/levitate.toml: " } else { "run by root" };
    assert!(text(&refused).contains(expected), "{}", text(&refused));
}

#[test]
fn a_command_line_that_is_not_understood_is_usage() {
    assert_eq!(call("levitate", &["fly"]).status.code(), Some(2));
    assert_eq!(call("levitate", &["status", "--xml"]).status.code(), Some(2));
}
