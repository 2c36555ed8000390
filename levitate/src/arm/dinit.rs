//! dinit as PID 1. Not run on a device: written after its documented interface, which is that at the end dinit executes
//! `shutdown --system -r` (`-p`, `-h`, ...) as PID 1, from the directory for system programs that it was built with. A
//! script is bound over that program. Everybody else who calls it, by any of its names, gets the real one.

use std::path::{Path, PathBuf};

use ramdisk::path::Root;

use super::{ARM, ENTRY, Hook, Step};

/// The program's names, and those by which it is called otherwise.
const PROGRAMS: [&str; 2] = ["dinit-shutdown", "shutdown"];
const NAMES: [&str; 4] = ["reboot", "poweroff", "halt", "soft-reboot"];

const SCRIPT: &str = "\
#!/bin/sh
if [ $$ = 1 ] && [ \"$1\" = --system ] && [ \"$2\" = -r ] && [ -x @ENTRY@ ]; then exec @ENTRY@; fi
exec \"@ARM@/${0##*/}\" \"$@\"
";

pub(super) fn hook(root: &Root) -> Hook {
    let found = ["/usr/sbin", "/sbin"].iter().find_map(|dir| {
        let path = PROGRAMS.iter().map(|name| Path::new(dir).join(name));
        path.into_iter().find_map(|path| root.resolve(&path).ok())
    });
    let Some(found) = found else { return decide(None, false) };
    let ours = std::fs::read_to_string(root.host(&found.real)).is_ok_and(|text| text.contains(ENTRY));
    decide(Some(found.real), ours)
}

fn decide(program: Option<PathBuf>, ours: bool) -> Hook {
    let Some(program) = program else {
        return Hook::not("dinit executes its program shutdown at the end, and there is none".to_owned());
    };
    if ours {
        return Hook::Wired { by: program, steps: vec![] };
    }
    let arm = Path::new(ARM);
    let name = program.file_name().unwrap_or("shutdown".as_ref()).to_owned();
    let mut steps =
        vec![Step::Directory { path: ARM.into() }, Step::Copy { from: program.clone(), to: arm.join(&name) }];
    let others = NAMES.iter().chain(&PROGRAMS).filter(|other| name != **other);
    steps.extend(others.map(|other| Step::Symlink { path: arm.join(other), target: PathBuf::from(&name) }));
    let text = SCRIPT.replace("@ENTRY@", ENTRY).replace("@ARM@", ARM);
    let script = arm.join("last");
    steps.push(Step::File { path: script.clone(), mode: 0o755, text });
    steps.push(Step::Bind { what: script, over: program.clone(), reread: false });
    Hook::Wired { by: program, steps }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;
    use crate::fixture;

    fn steps() -> Vec<Step> {
        match decide(Some("/usr/sbin/shutdown".into()), false) {
            Hook::Wired { steps, .. } => steps,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_real_program_is_kept_under_all_its_names() {
        let lines: Vec<String> = steps().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "make the directory /run/levitate/arm",
                "copy /usr/sbin/shutdown to /run/levitate/arm/shutdown",
                "link /run/levitate/arm/reboot to shutdown",
                "link /run/levitate/arm/poweroff to shutdown",
                "link /run/levitate/arm/halt to shutdown",
                "link /run/levitate/arm/soft-reboot to shutdown",
                "link /run/levitate/arm/dinit-shutdown to shutdown",
                "write /run/levitate/arm/last",
                "bind /run/levitate/arm/last over /usr/sbin/shutdown"
            ]
        );
        assert!(matches!(decide(Some("/x".into()), true), Hook::Wired { steps, .. } if steps.is_empty()));
        assert!(matches!(decide(None, false), Hook::NotWired { .. }));
    }

    /// The script with a scripted shutdown program. `as_pid_1`: its own number is taken for 1.
    fn run(as_pid_1: bool, staged: bool, name: &str, args: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let program = |name: &str, text: &str| fixture::program(&at(name), text);
        program("arm/shutdown", "#!/bin/sh\necho real ${0##*/} \"$@\"\n");
        symlink("shutdown", at("arm/reboot")).unwrap();
        if staged {
            program("exec", "#!/bin/sh\necho handed over\n");
        }
        let Some(Step::File { text, .. }) = steps().into_iter().rev().nth(1) else { panic!() };
        let text = text.replace(ENTRY, &at("exec").display().to_string());
        let text = text.replace(ARM, &at("arm").display().to_string());
        program("shutdown", &if as_pid_1 { text.replace("$$ = 1", "1 = 1") } else { text });
        symlink("shutdown", at("reboot")).unwrap();
        let output = Command::new(at(name)).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn only_dinit_itself_and_only_for_reboot_hands_over() {
        assert_eq!(run(true, true, "shutdown", &["--system", "-r"]), "handed over\n");
        assert_eq!(run(true, true, "shutdown", &["--system", "-p"]), "real shutdown --system -p\n");
        assert_eq!(run(true, false, "shutdown", &["--system", "-r"]), "real shutdown --system -r\n");
        assert_eq!(run(false, true, "shutdown", &["--system", "-r"]), "real shutdown --system -r\n");
        assert_eq!(run(false, true, "reboot", &[]), "real reboot\n");
    }
}
