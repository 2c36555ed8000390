//! The boards that QEMU emulates for us, one file each, and what they have in common.

pub(crate) mod ast2600;
pub(crate) mod virt;

use std::path::Path;
use std::process::Command;

use crate::assets::Assets;

/// The address that every root of these boards has; not the one that QEMU's DHCP would give (10.0.2.15).
pub(crate) const ADDRESS: &str = "10.0.2.77";

/// A way to switch a board on.
pub(crate) trait Boot {
    /// QEMU's whole command line.
    fn command(&self, assets: &Assets, setup: &Setup<'_>) -> Command;

    /// Whether the root that comes up has the same ssh host key each time. A root in RAM makes a new one.
    fn keeps_host_key(&self) -> bool;
}

/// What a machine is made with, whichever board it is.
#[derive(Debug, Clone)]
pub(crate) struct Setup<'a> {
    /// The NOR's contents; written through by QEMU.
    pub(crate) nor: &'a Path,
    /// A disk besides, /dev/vda; QEMU knows it as `disk0`.
    pub(crate) disk: Option<&'a Path>,
    /// Bytes per second that the chip erases or programs; none for as fast as QEMU can.
    pub(crate) chip_speed: Option<u64>,
    /// Mebibytes of RAM.
    pub(crate) memory: u32,
    /// Where the console's text goes.
    pub(crate) console: &'a Path,
    /// The socket at which one can type at the console.
    pub(crate) serial_line: &'a Path,
    /// QEMU's control socket.
    pub(crate) qmp: &'a Path,
    /// Where the operations of an SPI-NOR are written down; see [`crate::chip_log`].
    pub(crate) chip_log: Option<&'a Path>,
    /// The port on 127.0.0.1 that leads to the device's ssh.
    pub(crate) ssh_port: u16,
}

/// The serial console into a file and to whoever sits at it, the control socket, no screen.
fn console(qemu: &mut Command, setup: &Setup<'_>) {
    qemu.args(["-display", "none", "-monitor", "none"]);
    qemu.arg("-chardev").arg(format!(
        "socket,id=con,path={},server=on,wait=off,logfile={}",
        setup.serial_line.display(),
        setup.console.display()
    ));
    qemu.args(["-serial", "chardev:con"]);
    qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", setup.qmp.display()));
}

/// User-mode networking that leads to the device's ssh and nowhere else, as a network of QEMU's kind `user`.
fn user_network(setup: &Setup<'_>) -> String {
    format!("user,hostfwd=tcp:127.0.0.1:{}-{ADDRESS}:22", setup.ssh_port)
}
