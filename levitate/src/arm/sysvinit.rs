//! sysvinit as PID 1: `telinit u` makes it execute its own program again, in the same process. From the end of runlevel
//! 6 that program is the hand-over, bound over it only then: until that moment `shutdown` and `telinit` need the real
//! one. The line of runlevel 6 in /etc/inittab is what arming changes; see [`crate::leave`] for what runs from it.

use std::path::Path;

use ramdisk::path::Root;

use super::inittab::{self, Table};
use super::{ARM, Hook, Step};
use crate::leave;

/// What init runs for runlevel 6. It ends in the system's own way if ours cannot even begin; not if PID 1 is the hand-over.
const RUNLEVEL_6: &str = "\
#!/bin/sh
/run/maintenance/sbin/levitate leave sysvinit '@PROGRAM@' '@COMMAND@' && exit
exec @PLAIN@
";

pub(super) fn hook(root: &Root, program: &Path) -> Hook {
    match inittab::look(root) {
        Ok(table) => decide(&table, program),
        Err(e) => Hook::not(e.to_string()),
    }
}

fn decide(table: &Table, program: &Path) -> Hook {
    let by = "/etc/inittab".into();
    let (real, text) = match table {
        Table::Ours => return Hook::Wired { by, steps: vec![] },
        Table::Missing => return Hook::not("sysvinit runs and /etc/inittab does not exist".to_owned()),
        Table::Own { real, text } => (real, text),
    };
    let lines: Vec<&str> = text.lines().collect();
    // of several the last one resets
    let is_last = |line: &&str| {
        inittab::fields(line).is_some_and(|[_, levels, action, _]| levels.contains('6') && action == "wait")
    };
    let found =
        lines.iter().rposition(is_last).and_then(|place| Some((place, inittab::fields(lines.get(place)?)?)));
    let Some((place, [id, _, _, command])) = found else {
        return Hook::NotWired {
            reason: "no line of /etc/inittab waits for a program in runlevel 6, which is the one of reboot"
                .to_owned(),
            remedy: Some("such as: l6:6:wait:/etc/init.d/rc 6".to_owned()),
        };
    };
    // a plus asks for no entry in utmp; it is no part of the command
    let command = command.trim_start_matches('+').trim();
    let script = Path::new(ARM).join("runlevel6");
    let lines: Vec<String> = lines
        .iter()
        .enumerate()
        .map(|(at, line)| match at == place {
            true => format!("{id}:6:wait:{}", script.display()),
            false => (*line).to_owned(),
        })
        .collect();
    let quoted = |text: &str| text.replace('\'', "'\\''");
    let text = RUNLEVEL_6
        .replace("@PROGRAM@", &quoted(&program.display().to_string()))
        .replace("@COMMAND@", &quoted(command))
        .replace("@PLAIN@", command);
    let mut steps = vec![
        Step::Directory { path: ARM.into() },
        Step::Copy { from: program.to_owned(), to: leave::TELINIT.into() },
        Step::File { path: leave::NEXT_INIT.into(), mode: 0o755, text: format!("#!{}\n", super::ENTRY) },
        Step::File { path: script, mode: 0o755, text },
    ];
    steps.extend(inittab::steps(real, &lines));
    Hook::Wired { by, steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian's, without its comments.
    const TABLE: &str = "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\nl0:0:wait:/etc/init.d/rc 0\n\
        l6:6:wait:/etc/init.d/rc 6\nz6:6:respawn:/sbin/sulogin --force\n";

    fn own(text: &str) -> Table {
        Table::Own { real: "/etc/inittab".into(), text: text.into() }
    }

    #[test]
    fn runlevel_6_alone_gets_another_program_and_everything_it_needs_is_there_before() {
        let Hook::Wired { steps, .. } = decide(&own(TABLE), Path::new("/usr/sbin/init")) else { panic!() };
        let lines: Vec<String> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "make the directory /run/levitate/arm",
                "copy /usr/sbin/init to /run/levitate/arm/telinit",
                "write /run/levitate/arm/init",
                "write /run/levitate/arm/runlevel6",
                "write /run/levitate/arm/inittab",
                "bind /run/levitate/arm/inittab over /etc/inittab, and have PID 1 read it"
            ]
        );
        let text = |place: usize| match &steps[place] {
            Step::File { text, .. } => text.as_str(),
            other => panic!("{other}"),
        };
        assert_eq!(text(2), "#!/run/maintenance/exec\n");
        assert_eq!(
            text(3),
            "#!/bin/sh\n/run/maintenance/sbin/levitate leave sysvinit '/usr/sbin/init' '/etc/init.d/rc 6' && exit\nexec /etc/init.d/rc 6\n"
        );
        let table = TABLE.replace("/etc/init.d/rc 6", "/run/levitate/arm/runlevel6");
        assert!(text(4).ends_with(&table), "{}", text(4));
    }

    #[test]
    fn a_quote_in_the_command_stays_a_quote() {
        let Hook::Wired { steps, .. } = decide(&own("r6:06:wait:+/bin/sh -c 'x y'\n"), Path::new("/i"))
        else {
            panic!()
        };
        let Step::File { text, .. } = &steps[3] else { panic!("{steps:?}") };
        assert!(text.contains(r"'/bin/sh -c '\''x y'\'''"), "{text}");
        assert!(text.ends_with("exec /bin/sh -c 'x y'\n"), "{text}");
    }

    #[test]
    fn a_table_without_runlevel_6_is_refused_and_one_of_ours_needs_nothing() {
        for text in ["", "l6:6:once:/x\n", "l0:0:wait:/x\n", "# l6:6:wait:/x\n"] {
            assert!(
                matches!(decide(&own(text), Path::new("/i")), Hook::NotWired { remedy: Some(_), .. }),
                "{text}"
            );
        }
        assert_eq!(
            decide(&Table::Ours, Path::new("/i")),
            Hook::Wired { by: "/etc/inittab".into(), steps: vec![] }
        );
    }
}
