//! The `flashcp` command as a process, as far as a machine without flash can show it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

fn flashcp(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flashcp")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn wrong_usage_exits_with_2_and_says_so_on_standard_error() {
    for args in [&[][..], &["fw.bin"], &["--nosuch", "fw.bin", "mtd0"], &["-", "mtd0"]] {
        let output = flashcp(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && text(&output.stderr).starts_with("error: "), "{args:?}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [["-h"], ["--help"]] {
        let output = flashcp(&args);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("flashcp -v firmware.bin mtd:firmware"));
    }
    let output = flashcp(&["-V"]);
    assert_eq!(text(&output.stdout), format!("flashcp {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_image_that_cannot_be_used_exits_with_1_and_the_flash_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.bin");
    std::fs::write(&empty, "").unwrap();
    let empty = empty.display().to_string();
    let folder = dir.path().display().to_string();
    for (image, message) in [
        (empty.as_str(), format!("flashcp: the image {empty} is empty\n")),
        (folder.as_str(), format!("flashcp: the image {folder} is a directory\n")),
        (
            "/nonexistent",
            "flashcp: cannot open the image /nonexistent: No such file or directory (os error 2)\n"
                .to_owned(),
        ),
    ] {
        let output = flashcp(&[image, "mtd:firmware"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stderr), message + "flashcp: nothing was changed\n");
    }
}

#[test]
fn standard_input_without_an_end_is_wrong_usage_and_says_what_would_prove_it() {
    let output = flashcp(&["-", "mtd0"]);
    assert_eq!(output.status.code(), Some(2));
    let text = text(&output.stderr);
    assert!(text.contains("--size") && text.contains("--sha256") && text.contains("--decompress"), "{text}");
}

#[test]
fn events_are_json_from_the_first_line_to_the_last_and_errors_stay_readable() {
    let output = flashcp(&["--json", "/nonexistent \"x\"", "mtd:firmware"]);
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["event"], &lines[0]["version"]), (&"start".into(), &1.into()));
    assert_eq!((&lines[1]["event"], &lines[1]["exit_code"]), (&"failed".into(), &1.into()));
    assert_eq!((&lines[1]["flash"], &lines[1]["hint"]), (&"untouched".into(), &"nothing was changed".into()));
    assert!(text(&output.stderr).starts_with("flashcp: cannot open the image /nonexistent \"x\": "));
}

#[test]
fn a_plan_that_cannot_be_used_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("up.toml");
    std::fs::write(&plan, "[[flash]]\npartition = \"mtd0\"\n").unwrap();
    let output = flashcp(&["--plan", &plan.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output.stderr);
    assert!(
        text.contains("missing field `image`") && text.ends_with("flashcp: nothing was changed\n"),
        "{text}"
    );
}

/// Whoever started it has left it a pipe that nobody reads, and all its words are last words.
#[test]
fn last_words_do_not_wait_for_ever_for_a_pipe_that_is_full() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut own = File::from(writer.try_clone().unwrap());
    fcntl(&own, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut filled = 0;
    while let Ok(taken) = own.write(&[b'x'; 4096]) {
        filled += taken;
    }
    fcntl(&own, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let start = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flashcp"));
        command.args(arguments);
        command.stdout(writer.try_clone().unwrap()).stderr(writer.try_clone().unwrap()).spawn().unwrap()
    };
    let mut children = [
        start(&["/nonexistent", "mtd0"]),
        start(&["-v", "/tmp", "mtd0"]),
        start(&["--json", "/tmp", "mtd0"]),
    ];
    let end = Instant::now() + Duration::from_secs(60);
    for child in &mut children {
        let status = loop {
            match child.try_wait().unwrap() {
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                status => break status,
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(1), "`None` is one that still waits");
    }
    drop((own, writer));
    let mut all = Vec::new();
    File::from(reader).read_to_end(&mut all).unwrap();
    assert!(all.len() == filled && all.iter().all(|byte| *byte == b'x'), "something was let in");
}
