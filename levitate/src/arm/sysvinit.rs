//! sysvinit as PID 1: `telinit u` makes it execute its own program again, in the same process. From the end of runlevel
//! 6 that program is the hand-over, bound over it only then: until that moment `shutdown` and `telinit` need the real
//! one. What arming changes is runlevel 6 in /etc/inittab: one line of ours runs all that the lines there would, because
//! any of them can end everybody, or unmount whatever is idle. See [`crate::leave`] for what runs from it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ramdisk::path::Root;

use super::inittab::{self, Table};
use super::{ARM, Hook, Step};
use crate::leave;

/// What init runs for runlevel 6. It ends in the system's own way if ours cannot even begin; not if PID 1 is the hand-over.
const RUNLEVEL_6: &str = "\
#!/bin/sh
/run/maintenance/sbin/levitate leave sysvinit '@PROGRAM@'@LINES@ && exit
@PLAIN@";
/// All runlevels, as an empty field means them.
const ALL: &str = "0123456789";
/// init ignores lines with longer ids, in bytes.
const LONGEST_ID: usize = 4;
/// Files with one more line each.
const MORE: &str = "/etc/inittab.d";

pub(super) fn hook(root: &Root, program: &Path) -> Hook {
    let more = match more(root) {
        Ok(more) => more,
        Err(e) => return Hook::not(format!("list {MORE}: {e}")),
    };
    match inittab::look(root) {
        Ok(table) => decide(&table, &more, program),
        Err(e) => Hook::not(e.to_string()),
    }
}

/// The lines besides the table: of each file the first one that is no comment.
fn more(root: &Root) -> io::Result<Vec<(PathBuf, String)>> {
    let entries = match fs::read_dir(root.host(Path::new(MORE))) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        entries => entries?,
    };
    let mut more = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().ends_with(b".tab") {
            continue;
        }
        let path = Path::new(MORE).join(name);
        let text = root.read_text(&path).map_err(io::Error::other)?.unwrap_or_default();
        if let Some(line) = text.lines().find(|line| inittab::fields(line).is_some()) {
            more.push((path, line.to_owned()));
        }
    }
    more.sort();
    Ok(more)
}

/// A line that runs something in runlevel 6.
struct Entry<'a> {
    id: &'a str,
    levels: &'a str,
    action: &'a str,
    process: &'a str,
}

impl<'a> Entry<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let [id, levels, action, process] = inittab::fields(line)?;
        let runs = [WAIT, ONCE].iter().any(|known| action.eq_ignore_ascii_case(known));
        let valid = !id.is_empty() && id.len() <= LONGEST_ID;
        let in_6 = levels.is_empty() || levels.contains('6');
        (runs && valid && in_6).then_some(Self { id, levels, action, process })
    }

    fn waits(&self) -> bool {
        self.action.eq_ignore_ascii_case(WAIT)
    }

    /// The line without runlevel 6; none if it has no other. An empty field would mean all of them.
    fn elsewhere(&self) -> Option<String> {
        let levels = if self.levels.is_empty() { ALL } else { self.levels };
        let levels: String = levels.chars().filter(|level| *level != '6').collect();
        (!levels.is_empty()).then(|| format!("{}:{levels}:{}:{}", self.id, self.action, self.process))
    }

    /// For the shell. A plus asks for no entry in utmp, and an at sign for no shell.
    fn command(&self) -> String {
        let command = self.process.trim_start_matches('+').trim();
        match command.strip_prefix('@') {
            Some(words) => words.split_whitespace().map(quoted).collect::<Vec<_>>().join(" "),
            None => command.to_owned(),
        }
    }
}

const WAIT: &str = "wait";
const ONCE: &str = "once";

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn decide(table: &Table, more: &[(PathBuf, String)], program: &Path) -> Hook {
    let by = "/etc/inittab".into();
    let (real, text) = match table {
        Table::Ours => return Hook::Wired { by, steps: vec![] },
        Table::Missing => return Hook::not("sysvinit runs and /etc/inittab does not exist".to_owned()),
        Table::Own { real, text } => (real, text),
    };
    if let Some((path, _)) = more.iter().find(|(_, line)| Entry::of(line).is_some()) {
        return Hook::NotWired {
            reason: format!("{} has a line for runlevel 6, which would not be run any more", path.display()),
            remedy: Some("put it into /etc/inittab".to_owned()),
        };
    }
    let all: Vec<&str> = text.lines().collect();
    let mut ids: Vec<&str> = Vec::new();
    let mut entries: Vec<(usize, Entry<'_>)> = Vec::new();
    for (place, line) in all.iter().enumerate() {
        let Some([id, ..]) = inittab::fields(line) else { continue };
        // of two lines with one id init takes the first
        if !ids.contains(&id)
            && let Some(entry) = Entry::of(line)
        {
            entries.push((place, entry));
        }
        ids.push(id);
    }
    // what is only begun behind the last one that is waited for would never have been
    let Some(last) = entries.iter().rposition(|(_, entry)| entry.waits()) else {
        return Hook::NotWired {
            reason: "no line of /etc/inittab waits for a program in runlevel 6, which is the one of reboot"
                .to_owned(),
            remedy: Some("such as: l6:6:wait:/etc/init.d/rc 6".to_owned()),
        };
    };
    entries.truncate(last + 1);

    let script = Path::new(ARM).join("runlevel6");
    ids.extend(more.iter().filter_map(|(_, line)| Some(inittab::fields(line)?[0])));
    let Some(id) = (0..100).map(|n| format!("lv{n:02}")).find(|id| !ids.contains(&id.as_str())) else {
        return Hook::not("/etc/inittab has taken every id from lv00 to lv99".to_owned());
    };
    let mut ours = Some(format!("{id}:6:wait:{}", script.display()));
    let mut lines = Vec::new();
    for (place, line) in all.iter().enumerate() {
        match entries.iter().find(|(at, _)| *at == place) {
            Some((_, entry)) => lines.extend(ours.take().into_iter().chain(entry.elsewhere())),
            None => lines.push((*line).to_owned()),
        }
    }
    let text = script_text(program, entries.iter().map(|(_, entry)| entry));
    let mut steps = vec![
        Step::Directory { path: ARM.into() },
        Step::Copy { from: program.to_owned(), to: leave::TELINIT.into() },
        Step::File { path: leave::NEXT_INIT.into(), mode: 0o755, text: format!("#!{}\n", super::ENTRY) },
        Step::File { path: script, mode: 0o755, text },
    ];
    steps.extend(inittab::steps(real, &lines));
    Hook::Wired { by, steps }
}

fn script_text<'a>(program: &Path, entries: impl Iterator<Item = &'a Entry<'a>>) -> String {
    let (mut lines, mut plain) = (String::new(), String::new());
    for entry in entries {
        let (action, behind) = if entry.waits() { (WAIT, "") } else { (ONCE, " &") };
        let command = entry.command();
        lines.push_str(&format!(" {action} {}", quoted(&command)));
        plain.push_str(&format!("{command}{behind}\n"));
    }
    let program = program.display().to_string().replace('\'', "'\\''");
    RUNLEVEL_6.replace("@PROGRAM@", &program).replace("@LINES@", &lines).replace("@PLAIN@", &plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debian's, without its comments.
    const DEBIAN: &str = "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\nl0:0:wait:/etc/init.d/rc 0\n\
        l6:6:wait:/etc/init.d/rc 6\nz6:6:respawn:/sbin/sulogin --force\n";
    const BUILDROOT: &str = "id:3:initdefault:\nsi0::sysinit:/bin/mount -t proc proc /proc\n\
        rcS:12345:wait:/etc/init.d/rcS\n# Stuff to do before rebooting\nshd0:06:wait:/etc/init.d/rcK\n\
        shd1:06:wait:/sbin/swapoff -a\nshd2:06:wait:/bin/umount -a -r\nhlt0:0:wait:/sbin/halt -dhp\n\
        reb0:6:wait:/sbin/reboot\n";

    fn own(text: &str) -> Table {
        Table::Own { real: "/etc/inittab".into(), text: text.into() }
    }

    fn steps(hook: Hook) -> Vec<Step> {
        match hook {
            Hook::Wired { steps, .. } => steps,
            Hook::NotWired { reason, .. } => panic!("{reason}"),
        }
    }

    fn text(steps: &[Step], place: usize) -> &str {
        match &steps[place] {
            Step::File { text, .. } => text.as_str(),
            other => panic!("{other}"),
        }
    }

    /// The script of runlevel 6, and the table without our mark.
    fn armed(table: &str) -> (String, String) {
        let steps = steps(decide(&own(table), &[], Path::new("/usr/sbin/init")));
        let table = text(&steps, 4).split_once('\n').unwrap().1;
        (text(&steps, 3).to_owned(), table.to_owned())
    }

    #[test]
    fn runlevel_6_alone_gets_another_program_and_everything_it_needs_is_there_before() {
        let steps = steps(decide(&own(DEBIAN), &[], Path::new("/usr/sbin/init")));
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
        assert_eq!(text(&steps, 2), "#!/run/maintenance/exec\n");
        let (script, table) = armed(DEBIAN);
        assert_eq!(
            script,
            "#!/bin/sh\n/run/maintenance/sbin/levitate leave sysvinit '/usr/sbin/init' wait '/etc/init.d/rc 6' \
             && exit\n/etc/init.d/rc 6\n"
        );
        let ours = "lv00:6:wait:/run/levitate/arm/runlevel6";
        assert_eq!(table, DEBIAN.replace("l6:6:wait:/etc/init.d/rc 6", ours));
    }

    #[test]
    fn all_lines_of_runlevel_6_become_one_in_the_place_of_the_first_and_runlevel_0_keeps_its_own() {
        let (script, table) = armed(BUILDROOT);
        assert_eq!(
            table,
            "id:3:initdefault:\nsi0::sysinit:/bin/mount -t proc proc /proc\n\
             rcS:12345:wait:/etc/init.d/rcS\n# Stuff to do before rebooting\n\
             lv00:6:wait:/run/levitate/arm/runlevel6\n\
             shd0:0:wait:/etc/init.d/rcK\nshd1:0:wait:/sbin/swapoff -a\nshd2:0:wait:/bin/umount -a -r\n\
             hlt0:0:wait:/sbin/halt -dhp\n"
        );
        assert_eq!(
            script,
            "#!/bin/sh\n/run/maintenance/sbin/levitate leave sysvinit '/usr/sbin/init' wait '/etc/init.d/rcK' \
             wait '/sbin/swapoff -a' wait '/bin/umount -a -r' wait '/sbin/reboot' && exit\n\
             /etc/init.d/rcK\n/sbin/swapoff -a\n/bin/umount -a -r\n/sbin/reboot\n"
        );
    }

    #[test]
    fn a_line_of_several_runlevels_stays_for_the_others_and_an_empty_field_means_all() {
        let (_, table) = armed("rh:06:wait:/etc/rc.shutdown\n");
        assert_eq!(table, "lv00:6:wait:/run/levitate/arm/runlevel6\nrh:0:wait:/etc/rc.shutdown\n");
        let (_, table) = armed("rc::Wait:/etc/rc\n");
        assert_eq!(table, "lv00:6:wait:/run/levitate/arm/runlevel6\nrc:012345789:Wait:/etc/rc\n");
    }

    #[test]
    fn what_is_only_begun_is_begun_between_the_others_and_nothing_behind_the_last_is_touched() {
        let (script, table) =
            armed("a:6:once:/a\nb:6:wait:/b\nc:06:once:/c\nd:6:wait:/d\ne:6:once:/e\nf:6:respawn:/f\n");
        assert!(
            script.contains(" once '/a' wait '/b' once '/c' wait '/d' && exit\n/a &\n/b\n/c &\n/d\n"),
            "{script}"
        );
        assert_eq!(
            table,
            "lv00:6:wait:/run/levitate/arm/runlevel6\nc:0:once:/c\ne:6:once:/e\nf:6:respawn:/f\n"
        );
    }

    #[test]
    fn the_line_gets_an_id_that_nobody_has_and_lines_that_init_ignores_are_not_run() {
        let (script, table) =
            armed("lv00:1:wait:/x\nr6:6:wait:/a\nr6:6:wait:/b\ntoo-long:6:wait:/c\n:6:wait:/d\n");
        assert!(script.contains("'/usr/sbin/init' wait '/a' && exit"), "{script}");
        assert!(table.contains("lv01:6:wait:"), "{table}");
        let more = [("/etc/inittab.d/x.tab".into(), "lv00:2:wait:/x".to_owned())];
        let steps = steps(decide(&own(DEBIAN), &more, Path::new("/i")));
        assert!(text(&steps, 4).contains("lv01:6:wait:"), "{}", text(&steps, 4));
    }

    #[test]
    fn a_quote_in_the_command_stays_a_quote_and_an_at_sign_keeps_the_shell_away() {
        let (script, _) = armed("r6:06:wait:+/bin/sh -c 'x y'\n");
        assert!(script.contains(r"wait '/bin/sh -c '\''x y'\''' &&"), "{script}");
        assert!(script.ends_with("\n/bin/sh -c 'x y'\n"), "{script}");
        let (script, _) = armed("r6:6:wait:@/bin/x $y\n");
        assert!(script.ends_with("\n'/bin/x' '$y'\n"), "{script}");
    }

    #[test]
    fn a_table_without_runlevel_6_is_refused_and_one_of_ours_needs_nothing() {
        for text in ["", "l6:6:once:/x\n", "l0:0:wait:/x\n", "# l6:6:wait:/x\n"] {
            let hook = decide(&own(text), &[], Path::new("/i"));
            assert!(matches!(hook, Hook::NotWired { remedy: Some(_), .. }), "{text}");
        }
        let hook = decide(&Table::Ours, &[], Path::new("/i"));
        assert_eq!(hook, Hook::Wired { by: "/etc/inittab".into(), steps: vec![] });
    }

    #[test]
    fn a_line_of_runlevel_6_in_a_file_of_its_own_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir_all(dir.path().join("etc/inittab.d")).unwrap();
        fs::write(dir.path().join("etc/inittab"), DEBIAN).unwrap();
        for (name, text) in [("a.tab", "# x\nx:2:wait:/x\n"), ("b.txt", "y:6:wait:/y\n")] {
            fs::write(dir.path().join("etc/inittab.d").join(name), text).unwrap();
        }
        assert_eq!(steps(hook(&root, Path::new("/i"))).len(), 6);
        fs::write(dir.path().join("etc/inittab.d/c.tab"), "z:06:wait:/z\n").unwrap();
        let Hook::NotWired { reason, remedy: Some(_) } = hook(&root, Path::new("/i")) else { panic!() };
        assert_eq!(reason, "/etc/inittab.d/c.tab has a line for runlevel 6, which would not be run any more");
    }
}
