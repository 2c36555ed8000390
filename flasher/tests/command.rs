//! The `flashcp` command as a process, as far as a machine without flash can show it.

use std::process::{Command, Output};

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
