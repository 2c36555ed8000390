//! The inits that a firmware can have as PID 1: what each needs besides what every root has.

/// What runs as PID 1 of a firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum System {
    /// s6-svscan, as in the manual's system: the device of the main job.
    S6,
    /// systemd, with /run as an initramfs leaves it: small, and without programs.
    Systemd,
    /// busybox's init, with /run small and without programs.
    Busybox,
    /// Debian's sysvinit, with a table as Buildroot has it: several lines for one runlevel, and lines for two.
    Sysvinit,
    /// The maintenance init itself.
    Own,
    /// s6-svscan on a root of two layers, as OpenWrt has it: squashfs below, jffs2 above.
    Overlay,
    /// s6-svscan on the kernel's own first root: the whole system is an initramfs.
    Initramfs,
}

/// The parts of a root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    /// Below the device's folder: what is laid over the common files, in this order.
    pub(super) folders: &'static [&'static str],
    /// What the kernel starts.
    pub(super) init: &'static str,
    /// Programs of the packages.
    pub(super) programs: &'static [&'static str],
    /// Other files of the packages, copied as they are.
    pub(super) files: &'static [&'static str],
    /// Symbolic links, and what each says. They come last and win.
    pub(super) links: &'static [(&'static str, &'static str)],
}

impl System {
    /// Part of the name of its folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::S6 => "s6",
            Self::Systemd => "systemd",
            Self::Busybox => "busybox",
            Self::Sysvinit => "sysvinit",
            Self::Own => "own",
            Self::Overlay => "overlay",
            Self::Initramfs => "initramfs",
        }
    }

    pub(super) fn parts(self) -> Parts {
        match self {
            Self::S6 | Self::Initramfs => S6,
            Self::Overlay => {
                Parts { folders: &["init-s6", "root-overlay"], init: "/usr/sbin/preinit", links: &[], ..S6 }
            }
            Self::Systemd => Parts {
                folders: &["init-systemd"],
                init: "/usr/sbin/preinit",
                programs: &[
                    "lib/systemd/systemd",
                    "lib/systemd/systemd-journald",
                    "lib/systemd/systemd-shutdown",
                    "bin/systemctl",
                    "bin/journalctl",
                    "bin/mount",
                    "bin/umount",
                    "bin/dash",
                    "usr/sbin/sshd",
                    "usr/lib/openssh/sftp-server",
                    "usr/bin/dropbearconvert",
                    "lib/aarch64-linux-gnu/security/pam_deny.so",
                    "lib/aarch64-linux-gnu/security/pam_env.so",
                    "lib/aarch64-linux-gnu/security/pam_keyinit.so",
                    "lib/aarch64-linux-gnu/security/pam_limits.so",
                    "lib/aarch64-linux-gnu/security/pam_loginuid.so",
                    "lib/aarch64-linux-gnu/security/pam_mail.so",
                    "lib/aarch64-linux-gnu/security/pam_motd.so",
                    "lib/aarch64-linux-gnu/security/pam_nologin.so",
                    "lib/aarch64-linux-gnu/security/pam_permit.so",
                    "lib/aarch64-linux-gnu/security/pam_selinux.so",
                    "lib/aarch64-linux-gnu/security/pam_unix.so",
                ],
                files: SYSTEMD_FILES,
                links: SYSTEMD_LINKS,
            },
            Self::Busybox => Parts {
                folders: &["init-busybox"],
                init: "/sbin/init",
                programs: &[],
                files: &[],
                links: &[
                    ("usr/sbin/init", "../bin/busybox"),
                    ("usr/sbin/reboot", "../bin/busybox"),
                    ("usr/sbin/poweroff", "../bin/busybox"),
                    ("usr/sbin/halt", "../bin/busybox"),
                ],
            },
            Self::Sysvinit => Parts {
                folders: &["init-sysvinit"],
                init: "/sbin/init",
                programs: &["sbin/init", "sbin/halt", "sbin/shutdown", "sbin/killall5", "bin/dash"],
                files: &[],
                links: &[
                    ("usr/bin/sh", "dash"),
                    ("usr/sbin/telinit", "init"),
                    ("usr/sbin/reboot", "halt"),
                    ("usr/sbin/poweroff", "halt"),
                    ("usr/sbin/swapoff", "../bin/busybox"),
                ],
            },
            Self::Own => Parts {
                folders: &["init-own"],
                init: "/sbin/init",
                programs: &[],
                files: &[],
                links: &[
                    ("usr/sbin/init", "levitate"),
                    ("usr/sbin/reboot", "levitate"),
                    ("usr/sbin/poweroff", "levitate"),
                    ("usr/sbin/halt", "levitate"),
                ],
            },
        }
    }
}

const S6: Parts = Parts {
    folders: &["init-s6"],
    init: "/init",
    programs: &[
        "usr/bin/s6-svscan",
        "usr/bin/s6-svscanctl",
        "usr/bin/s6-supervise",
        "usr/bin/s6-svc",
        "usr/bin/s6-svstat",
        "usr/bin/s6-log",
        "usr/bin/s6-tai64nlocal",
    ],
    files: &[],
    // as v2 it is started by the boot loader's environment of a v1 with another init
    links: &[("usr/sbin/init", "../../init"), ("usr/sbin/preinit", "../../init")],
};

/// A server's boot and shutdown without udev, logind and dbus; and what Debian gives its ssh server.
const SYSTEMD_FILES: &[&str] = &[
    "etc/pam.d/sshd",
    "etc/security/limits.conf",
    "etc/security/pam_env.conf",
    "usr/share/openssh/sshd_config",
    "lib/systemd/system/basic.target",
    "lib/systemd/system/emergency.target",
    "lib/systemd/system/final.target",
    "lib/systemd/system/halt.target",
    "lib/systemd/system/local-fs-pre.target",
    "lib/systemd/system/local-fs.target",
    "lib/systemd/system/multi-user.target",
    "lib/systemd/system/network.target",
    "lib/systemd/system/paths.target",
    "lib/systemd/system/poweroff.target",
    "lib/systemd/system/reboot.target",
    "lib/systemd/system/rescue.target",
    "lib/systemd/system/shutdown.target",
    "lib/systemd/system/slices.target",
    "lib/systemd/system/sockets.target",
    "lib/systemd/system/swap.target",
    "lib/systemd/system/sysinit.target",
    "lib/systemd/system/systemd-halt.service",
    "lib/systemd/system/systemd-journald-dev-log.socket",
    "lib/systemd/system/systemd-journald.service",
    "lib/systemd/system/systemd-journald.socket",
    "lib/systemd/system/systemd-poweroff.service",
    "lib/systemd/system/systemd-reboot.service",
    "lib/systemd/system/timers.target",
    "lib/systemd/system/umount.target",
];

const SYSTEMD_LINKS: &[(&str, &str)] = &[
    ("usr/bin/sh", "dash"),
    ("usr/sbin/init", "../lib/systemd/systemd"),
    ("usr/sbin/reboot", "../bin/systemctl"),
    ("usr/sbin/poweroff", "../bin/systemctl"),
    ("usr/sbin/halt", "../bin/systemctl"),
    ("etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target"),
    ("etc/systemd/system/sysinit.target.wants/device.service", "../device.service"),
    (
        "etc/systemd/system/sysinit.target.wants/systemd-journald.service",
        "/usr/lib/systemd/system/systemd-journald.service",
    ),
    ("etc/systemd/system/local-fs.target.wants/tmp.mount", "../tmp.mount"),
    ("etc/systemd/system/multi-user.target.wants/ssh.service", "../ssh.service"),
    ("etc/ssh/sshd_config", "../../usr/share/openssh/sshd_config"),
    ("etc/systemd/system/multi-user.target.wants/writer.service", "../writer.service"),
];
