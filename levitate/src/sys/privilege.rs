//! What a process started by us may not do.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// `CAP_SYS_BOOT` of the kernel's include/uapi/linux/capability.h.
const CAP_SYS_BOOT: libc::c_ulong = 22;

/// The command, and everything that it starts, cannot reset, halt or power off the board: the capability is dropped from
/// its bounding set, so that not even root's programs get it (capabilities(7)).
#[allow(unsafe_code)]
pub(crate) fn without_reboot(command: &mut Command) {
    let drop_it = || {
        // SAFETY: prctl(2) with these arguments changes this process's capabilities and no memory.
        let answer = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_BOOT, 0, 0, 0) };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(drop_it) };
}
