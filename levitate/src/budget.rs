//! Whether the staged root and the image to come fit into RAM: decided before anything is copied.

use std::fmt;

use ramdisk::tree::Size;

/// What the maintenance root's processes need besides files: its init, an ssh server with a few sessions, `flashcp`
/// with its buffers. In bytes.
pub const WORKING_SET: u64 = 8 << 20;

/// Kernel memory for an inode of a file system in RAM, in bytes, rounded up.
const INODE: u64 = 1024;

/// Room left beyond what is counted: log files, /tmp. In bytes and inodes.
const SLACK: u64 = 1 << 20;
const SLACK_INODES: u64 = 256;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    /// `MemAvailable` of /proc/meminfo, in bytes.
    pub mem_available: u64,
    /// What the file system of /run can hold; none: it has no limit of its own.
    pub run: Option<Space>,
}

/// A file system's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// In bytes.
    pub total: u64,
    /// In bytes.
    pub free: u64,
    /// 0 means that it has no limit of inodes.
    pub total_inodes: u64,
    /// Free ones among them.
    pub free_inodes: u64,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The staged root.
    pub staged: Size,
    /// The image to come.
    pub reserve: Reserve,
}

/// RAM to keep free for the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// In bytes.
    pub bytes: u64,
    /// Where the number comes from, for people.
    pub from: String,
}

/// It fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fits {
    /// The size that /run has to be given first; none if it is large enough.
    pub grow: Option<Grow>,
}

/// A larger size for /run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grow {
    /// In bytes.
    pub bytes: u64,
    /// 0 means no limit.
    pub inodes: u64,
}

/// It does not fit: all the numbers, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// The staged root, in whole pages, with its inodes.
    pub staged: u64,
    /// The image to come.
    pub reserve: Reserve,
    /// The processes.
    pub working_set: u64,
    /// What MemAvailable says.
    pub available: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed = self.staged.saturating_add(self.reserve.bytes).saturating_add(self.working_set);
        write!(
            f,
            "not enough memory: {} KiB to stage + {} KiB for the image to come ({}) + {} KiB to work in = {} KiB, \
             but only {} KiB are available (MemAvailable)",
            kib(self.staged),
            kib(self.reserve.bytes),
            self.reserve.from,
            kib(self.working_set),
            kib(needed),
            self.available / 1024
        )
    }
}

/// Decides. RAM is counted once: what /run holds is RAM, so a larger /run is only a limit that is moved.
///
/// # Errors
///
/// What is wanted is more than MemAvailable.
pub fn decide(supply: &Supply, demand: &Demand) -> Result<Fits, Refusal> {
    let staged = demand.staged.page_bytes.saturating_add(demand.staged.inodes.saturating_mul(INODE));
    let needed = staged.saturating_add(demand.reserve.bytes).saturating_add(WORKING_SET);
    if needed > supply.mem_available {
        return Err(Refusal {
            staged,
            reserve: demand.reserve.clone(),
            working_set: WORKING_SET,
            available: supply.mem_available,
        });
    }
    let Some(run) = supply.run else { return Ok(Fits { grow: None }) };
    let bytes = demand.staged.page_bytes.saturating_add(demand.reserve.bytes).saturating_add(SLACK);
    let inodes = demand.staged.inodes.saturating_add(SLACK_INODES);
    let inodes_limited = run.total_inodes > 0;
    if run.free >= bytes && (!inodes_limited || run.free_inodes >= inodes) {
        return Ok(Fits { grow: None });
    }
    let grown = |total: u64, free: u64, need: u64| total.max(total.saturating_sub(free).saturating_add(need));
    Ok(Fits {
        grow: Some(Grow {
            bytes: grown(run.total, run.free, bytes),
            inodes: if inodes_limited { grown(run.total_inodes, run.free_inodes, inodes) } else { 0 },
        }),
    })
}

/// KiB, rounded up.
pub fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn demand(staged: u64, reserve: u64) -> Demand {
        Demand {
            staged: Size { files: 10, bytes: staged, page_bytes: staged, inodes: 100 },
            reserve: Reserve { bytes: reserve, from: "reserve in /etc/levitate.toml".into() },
        }
    }

    fn supply(available: u64, total: u64, free: u64) -> Supply {
        let run = Space { total, free, total_inodes: 1000, free_inodes: 900 };
        Supply { mem_available: available, run: Some(run) }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_every_number() {
        let e = decide(&supply(20 * MIB, 64 * MIB, 64 * MIB), &demand(4 * MIB, 16 * MIB)).unwrap_err();
        assert_eq!(
            e.to_string(),
            "not enough memory: 4196 KiB to stage + 16384 KiB for the image to come (reserve in /etc/levitate.toml) \
             + 8192 KiB to work in = 28772 KiB, but only 20480 KiB are available (MemAvailable)"
        );
    }

    #[test]
    fn the_limit_is_exact() {
        let needed = 4 * MIB + 100 * 1024 + 16 * MIB + WORKING_SET;
        let run = 64 * MIB;
        assert!(decide(&supply(needed, run, run), &demand(4 * MIB, 16 * MIB)).is_ok());
        assert!(decide(&supply(needed - 1, run, run), &demand(4 * MIB, 16 * MIB)).is_err());
    }

    #[test]
    fn a_small_run_is_grown_where_memory_allows() {
        let fits = decide(&supply(100 * MIB, 10 * MIB, 8 * MIB), &demand(4 * MIB, 16 * MIB)).unwrap();
        assert_eq!(fits.grow, Some(Grow { bytes: 2 * MIB + 21 * MIB, inodes: 1000 }));
        let fits = decide(&supply(100 * MIB, 64 * MIB, 60 * MIB), &demand(4 * MIB, 16 * MIB)).unwrap();
        assert_eq!(fits.grow, None);
    }

    #[test]
    fn too_few_inodes_grow_it_as_well_and_no_limit_needs_nothing() {
        let mut have = supply(100 * MIB, 64 * MIB, 60 * MIB);
        have.run = have.run.map(|r| Space { free_inodes: 300, ..r });
        let fits = decide(&have, &demand(4 * MIB, 16 * MIB)).unwrap();
        assert_eq!(fits.grow, Some(Grow { bytes: 64 * MIB, inodes: 700 + 356 }));
        have.run = have.run.map(|r| Space { total_inodes: 0, free_inodes: 0, ..r });
        assert_eq!(decide(&have, &demand(4 * MIB, 16 * MIB)).unwrap().grow, None);
        have.run = None;
        assert_eq!(decide(&have, &demand(4 * MIB, 16 * MIB)).unwrap().grow, None);
    }

    #[test]
    fn absurd_numbers_are_refused_and_do_not_overflow() {
        assert!(decide(&supply(u64::MAX - 1, 1, 1), &demand(u64::MAX, u64::MAX)).is_err());
    }
}
