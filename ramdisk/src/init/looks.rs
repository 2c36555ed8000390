//! Looking at processes without waiting for any: their memory is read by a child that has a limit.
//!
//! `/proc/PID/environ` takes a lock of the process's memory, which a thread of it can hold while it waits in the kernel for
//! a disk or a server that does not answer.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::sessions::{Look, Processes, look};
use crate::sys::process::ask_child;

/// For all processes together; it takes milliseconds.
const LIMIT: Duration = Duration::from_secs(1);
/// One that could not be looked at is left alone for so long: a child that waits for it may be stuck as well.
const LEAVE_ALONE_MS: u64 = 600_000;

/// What is known of processes from earlier looks.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// For those that cannot be looked at now.
    known: BTreeMap<i32, Look>,
    /// Not to be looked at before this time.
    left_alone: BTreeMap<i32, u64>,
}

impl Looks {
    /// Fills in what is to be known of `pids` in the table; of those that are stuck it is what was seen last. `meanwhile` is
    /// called again and again while it waits, which it does for a second at most.
    pub(super) fn fill(
        &mut self,
        proc: &Path,
        processes: &mut Processes,
        pids: &[i32],
        now: u64,
        meanwhile: &mut dyn FnMut(),
    ) {
        self.known.retain(|pid, _| processes.contains_key(pid));
        self.left_alone.retain(|pid, until| processes.contains_key(pid) && *until > now);
        let is_free = |pid: &i32| {
            !self.left_alone.contains_key(pid) && processes.get(pid).is_some_and(|process| !process.is_stuck)
        };
        let asked: Vec<i32> = pids.iter().copied().filter(is_free).collect();
        let answer = ask_child(LIMIT, meanwhile, |to| {
            for pid in &asked {
                let Ok(mut line) = serde_json::to_vec(&look(proc, *pid)) else { continue };
                line.push(b'\n');
                // Nobody listens any more.
                if to.write_all(&line).is_err() {
                    return;
                }
            }
        });
        let looks = answer.bytes.split(|byte| *byte == b'\n');
        let looks: Vec<Look> = looks.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        if !answer.is_whole
            && let Some(stuck) = asked.get(looks.len())
        {
            self.left_alone.insert(*stuck, now.saturating_add(LEAVE_ALONE_MS));
        }
        self.known.extend(looks.into_iter().map(|look| (look.pid, look)));
        for pid in pids {
            if let (Some(process), Some(look)) = (processes.get_mut(pid), self.known.get(pid)) {
                process.program.clone_from(&look.program);
                process.logname.clone_from(&look.logname);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::sessions::table;
    use super::*;

    fn process(proc: &Path, pid: i32, state: char) {
        let dir = proc.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("stat"), format!("{pid} (x) {state} 35 7")).unwrap();
        fs::write(dir.join("environ"), format!("LOGNAME=u{pid}\0")).unwrap();
    }

    fn names(looks: &mut Looks, proc: &Path, now: u64) -> (Vec<Option<String>>, u32) {
        let (mut processes, mut waits) = (table(proc), 0);
        let pids: Vec<i32> = processes.keys().copied().collect();
        looks.fill(proc, &mut processes, &pids, now, &mut || waits += 1);
        (processes.into_values().map(|process| process.logname).collect(), waits)
    }

    #[test]
    fn one_that_cannot_be_looked_at_costs_a_second_once_and_keeps_what_was_seen() {
        let proc = tempfile::tempdir().unwrap();
        let user = |pid: i32| Some(format!("u{pid}"));
        for pid in [7, 8, 9] {
            process(proc.path(), pid, 'S');
        }
        let mut looks = Looks::default();
        assert_eq!(names(&mut looks, proc.path(), 0).0, [user(7), user(8), user(9)]);
        // Opened, a pipe without a writer waits for ever, as such a process's memory does.
        let environ = proc.path().join("8/environ");
        fs::remove_file(&environ).unwrap();
        nix::unistd::mkfifo(&environ, nix::sys::stat::Mode::S_IRWXU).unwrap();
        process(proc.path(), 7, 'D');
        process(proc.path(), 10, 'S');
        let (found, waits) = names(&mut looks, proc.path(), 1_000);
        assert_eq!(found, [user(7), user(8), user(9), None], "what was seen counts");
        assert!(waits > 0);
        // It is left alone now, and the others behind it are seen.
        let started = looks.left_alone.clone();
        assert_eq!(names(&mut looks, proc.path(), 2_000).0, [user(7), user(8), user(9), user(10)]);
        assert_eq!((looks.left_alone.keys().collect::<Vec<_>>(), &looks.left_alone), (vec![&8], &started));
        // One that has ended is forgotten, and its number can be another's.
        fs::remove_dir_all(proc.path().join("8")).unwrap();
        names(&mut looks, proc.path(), 3_000);
        assert!(looks.left_alone.is_empty() && !looks.known.contains_key(&8));
    }
}
