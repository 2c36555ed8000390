//! One process, from `/proc/PID/stat`.

/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`: the flag in the 9th field of stat that kernel threads carry.
/// An empty command line is no proof: a zombie has one too.
const PF_KTHREAD: u64 = 0x0020_0000;

/// The bit of a signal in a set of signals.
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// A process or a kernel thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: i32,
    /// Its name as the kernel has it.
    pub name: String,
    /// Its state's letter.
    pub state: char,
    /// Whether it is a thread of the kernel, which no signal can end and which holds no file of ours.
    pub kernel: bool,
    /// Whether it ignores SIGTERM and not SIGHUP, as interactive shells do: only a hangup asks it to end.
    pub wants_hangup: bool,
}

impl Process {
    /// Reads the text of a stat file.
    #[must_use]
    pub fn parse(stat: &str) -> Option<Self> {
        // The name may itself contain blanks and parentheses; nothing after it does.
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let flags: u64 = fields.nth(5)?.parse().ok()?;
        // the 33rd field; the 9th was the last
        let ignored: u64 = fields.nth(23).and_then(|field| field.parse().ok()).unwrap_or(0);
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            state,
            kernel: flags & PF_KTHREAD != 0,
            wants_hangup: ignored & (bit(libc::SIGTERM) | bit(libc::SIGHUP)) == bit(libc::SIGTERM),
        })
    }

    /// Whether it is something that signals must still end: no kernel thread, not PID 1, and not dead already.
    #[must_use]
    pub fn must_end(&self) -> bool {
        !self.kernel && self.pid != 1 && !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_is_read_whole() {
        let process =
            Process::parse("42 (a) S (b)) D 1 42 42 0 -1 4194560 103 0 0 0 0 0 0 0 20 0 1 0 9 0 0").unwrap();
        let name = "a) S (b)".into();
        assert_eq!(process, Process { pid: 42, name, state: 'D', kernel: false, wants_hangup: false });
        assert!(process.must_end());
    }

    #[test]
    fn who_ignores_term_and_not_hangup_is_known_by_this_kernels_own_words() {
        // this process's line, with other sets of ignored signals: HUP is bit 0, INT 1, QUIT 2, TERM 14
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (head, rest) = own.rsplit_once(") ").unwrap();
        let wants_hangup = |ignored: u32| {
            let mut fields: Vec<String> = rest.split(' ').map(str::to_owned).collect();
            fields[30] = ignored.to_string();
            Process::parse(&format!("{head}) {}", fields.join(" "))).unwrap().wants_hangup
        };
        assert!(wants_hangup(1 << 14) && wants_hangup(1 << 14 | 0b110));
        assert!(!wants_hangup(0) && !wants_hangup(1 << 14 | 1) && !wants_hangup(0b111));
        // and the field is the one that this kernel fills
        let ignores = std::process::Command::new("/bin/sh")
            .args(["-c", "trap '' TERM; exec cat /proc/self/stat"])
            .output()
            .unwrap();
        assert!(Process::parse(&String::from_utf8_lossy(&ignores.stdout)).unwrap().wants_hangup);
    }

    #[test]
    fn kernel_threads_zombies_and_pid_1_need_not_end() {
        let thread = Process::parse("66 (jffs2_gcd_mtd4) S 2 0 0 0 -1 2129984 0 0").unwrap();
        assert!(thread.kernel && !thread.must_end());
        assert!(!Process::parse("9 (x) Z 1 9 9 0 -1 4194560 0 0").unwrap().must_end());
        assert!(!Process::parse("1 (exec) R 0 1 1 0 -1 4194560 0 0").unwrap().must_end());
        assert_eq!(Process::parse("garbage"), None);
    }
}
