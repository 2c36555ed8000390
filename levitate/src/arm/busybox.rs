//! busybox's init as PID 1: on SIGQUIT it runs its shutdown actions, ends everybody, and executes its table's `restart`
//! action as PID 1. Its `reboot` sends SIGTERM instead, which has no hook; but one that is built with `LINUXRC`, as
//! Debian's is, gives its signal to a process of that name, if there is one. Otherwise a `reboot` of our own goes in
//! front of it.

use std::path::Path;

use ramdisk::path::Root;

use super::front::{self, Found};
use super::inittab::{self, Table};
use super::{ARM, Hook, Step, processes};
use crate::leave::KEEPER;

/// What PID 1 executes. An action that cannot be executed makes busybox halt the board, so this script can always be,
/// and resets by itself where the hand-over cannot begin.
const RESTART: &str = "\
#!/bin/sh
[ -e /proc/sys/kernel/panic ] && echo 10 > /proc/sys/kernel/panic
if [ -x @ENTRY@ ]; then exec @ENTRY@; fi
echo 'levitate: no maintenance root is staged; resetting' > /dev/console
exec @BUSYBOX@ reboot -f
";

/// In front of a `reboot` that would only send SIGTERM to PID 1.
const REBOOT: &str = "\
#!/bin/sh
if [ $# = 0 ] && [ -x @ENTRY@ ]; then
    /run/maintenance/sbin/levitate leave busybox && exit
fi
exec @REBOOT@ \"$@\"
";

pub(super) fn hook(root: &Root, program: &Path) -> Hook {
    match inittab::look(root) {
        Ok(table) => decide(&table, &front::look(root), processes::runs(root, KEEPER), program),
        Err(e) => Hook::not(e.to_string()),
    }
}

/// `kept`: the process that keeps /run and takes the signals runs already.
fn decide(table: &Table, found: &[Found], kept: bool, program: &Path) -> Hook {
    let mut steps = vec![Step::Directory { path: ARM.into() }];
    match table {
        Table::Missing => {
            return Hook::NotWired {
                reason: "busybox init executes what the line ::restart: of /etc/inittab says, and there is no such file"
                    .to_owned(),
                remedy: Some("make one (even an empty one is enough, but then add the lines that busybox uses without it)".to_owned()),
            };
        }
        Table::Ours => {}
        Table::Own { real, text } => {
            let restart = Path::new(ARM).join("restart");
            let script = RESTART.replace("@ENTRY@", super::ENTRY);
            let script = script.replace("@BUSYBOX@", &program.display().to_string());
            steps.push(Step::File { path: restart.clone(), mode: 0o755, text: script });
            let is_restart = |line: &&str| inittab::fields(line).is_some_and(|f| f[2] == "restart");
            let mut lines: Vec<String> =
                text.lines().filter(|line| !is_restart(line)).map(str::to_owned).collect();
            lines.push(format!("::restart:{}", restart.display()));
            steps.extend(inittab::steps(real, &lines));
        }
    }
    let hidden: Vec<Found> = found.iter().filter(|one| !one.linuxrc).cloned().collect();
    steps.extend(front::steps(&hidden, REBOOT));
    if !kept {
        steps.push(Step::Start { name: KEEPER.to_owned() });
    }
    if steps.len() == 1 {
        steps.clear();
    }
    Hook::Wired { by: "/etc/inittab".into(), steps }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const TABLE: &str =
        "::sysinit:/etc/init.d/rcS\n# ::restart:no\n::restart:/sbin/init\n::shutdown:/bin/umount -a -r\n";

    fn own() -> Table {
        Table::Own { real: "/etc/inittab".into(), text: TABLE.into() }
    }

    fn reboot(linuxrc: bool) -> Found {
        let entries = vec![("reboot".into(), Some(PathBuf::from("busybox")))];
        Found { folder: "/sbin".into(), real: "/bin/busybox".into(), busybox: true, linuxrc, entries }
    }

    fn steps(hook: Hook) -> Vec<Step> {
        match hook {
            Hook::Wired { steps, .. } => steps,
            Hook::NotWired { reason, .. } => panic!("{reason}"),
        }
    }

    fn lines(steps: &[Step]) -> Vec<String> {
        steps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_table_gets_one_restart_line_and_keeps_all_others() {
        let steps = steps(decide(&own(), &[reboot(true)], false, Path::new("/bin/busybox")));
        assert_eq!(
            lines(&steps),
            [
                "make the directory /run/levitate/arm",
                "write /run/levitate/arm/restart",
                "write /run/levitate/arm/inittab",
                "bind /run/levitate/arm/inittab over /etc/inittab, and have PID 1 read it",
                "start linuxrc in the background"
            ]
        );
        let Step::File { text, .. } = &steps[2] else { panic!("{steps:?}") };
        let after_mark: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            after_mark,
            [
                "::sysinit:/etc/init.d/rcS",
                "# ::restart:no",
                "::shutdown:/bin/umount -a -r",
                "::restart:/run/levitate/arm/restart"
            ]
        );
        let Step::File { text, mode: 0o755, .. } = &steps[1] else { panic!("{steps:?}") };
        assert!(text.ends_with("exec /bin/busybox reboot -f\n"), "a stub that resets by itself: {text}");
    }

    #[test]
    fn a_busybox_without_linuxrc_gets_a_reboot_in_front() {
        let steps = steps(decide(&own(), &[reboot(false)], false, Path::new("/bin/busybox")));
        assert_eq!(
            lines(&steps)[4..],
            [
                "write /run/levitate/arm/reboot-0",
                "cover /sbin with 1 links",
                "start linuxrc in the background"
            ]
        );
    }

    #[test]
    fn a_second_levitate_does_only_what_is_missing() {
        let busybox = Path::new("/bin/busybox");
        assert_eq!(steps(decide(&Table::Ours, &[reboot(true)], true, busybox)), []);
        assert_eq!(
            lines(&steps(decide(&Table::Ours, &[reboot(true)], false, busybox))),
            ["make the directory /run/levitate/arm", "start linuxrc in the background"]
        );
    }

    #[test]
    fn without_a_table_there_is_nothing_to_bind_over() {
        let hook = decide(&Table::Missing, &[], false, Path::new("/bin/busybox"));
        assert!(matches!(hook, Hook::NotWired { remedy: Some(_), .. }), "{hook:?}");
    }
}
