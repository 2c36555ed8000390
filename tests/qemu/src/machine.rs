//! One emulated device: it can be powered on, spoken to, and cut off at any moment.

use std::cell::Cell;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::assets::Assets;
use crate::boards::{Boot, Setup};
use crate::chip_log::ChipLog;
use crate::console::Console;
use crate::firmware::Firmware;
use crate::process;
use crate::qmp::Qmp;
use crate::ssh::Ssh;
use crate::suite::Failure;

/// RAM of a device unless a scenario says otherwise, in MiB.
pub(crate) const MEMORY: u32 = 256;

/// Bytes per second of a chip that takes its time, so that there is a middle to cut in: 6.5 MiB to erase and program
/// take about 7 s.
pub(crate) const SLOW_CHIP: u64 = 2_000_000;

/// What stays of a device while it is off: its NOR, and what its owner knows of it.
pub(crate) struct Device {
    folder: TempDir,
    assets: Assets,
    boots: Cell<u32>,
    ssh_key: PathBuf,
    /// RAM in MiB, for the next power-on.
    pub(crate) memory: u32,
    /// Whether the operations of an SPI-NOR are written down from the next power-on; see [`Machine::chip_log`].
    pub(crate) log_chip: bool,
    /// A disk besides, from the next power-on; see [`Machine::freeze_disk`].
    pub(crate) disk: Option<PathBuf>,
    /// Bytes per second that the chip erases or programs, for the next power-on; none for as fast as QEMU can.
    pub(crate) chip_speed: Option<u64>,
}

impl Device {
    /// A fresh copy of a device as it left the factory, with firmware v1.
    pub(crate) fn new(assets: &Assets, firmware: &Firmware) -> Result<Self, Failure> {
        Self::with_chip(assets, &firmware.nor_v1, &firmware.ssh_key)
    }

    /// A device whose NOR is a fresh copy of the file `chip`; its roots let `ssh_key` in.
    pub(crate) fn with_chip(assets: &Assets, chip: &Path, ssh_key: &Path) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("device-")
            .tempdir_in(&assets.scratch)
            .map_err(Failure::harness)?;
        let device = Self {
            folder,
            assets: assets.clone(),
            boots: Cell::new(0),
            ssh_key: ssh_key.to_owned(),
            memory: MEMORY,
            log_chip: false,
            disk: None,
            chip_speed: None,
        };
        std::fs::copy(chip, device.nor()).map_err(|e| Failure::file("copy", chip, e))?;
        Ok(device)
    }

    /// The file that is the NOR chip.
    pub(crate) fn nor(&self) -> PathBuf {
        self.file("nor.img")
    }

    /// A file of this device's own folder, gone when the scenario ends.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self) -> String {
        self.folder.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Switches the power on: a new QEMU process on the same NOR file.
    pub(crate) fn power_on(&self, boot: &dyn Boot) -> Result<Machine, Failure> {
        // The port is free when asked; should another process take it in between, QEMU ends at once and says so.
        let mut last = Failure::harness("QEMU was not started");
        for _ in 0..3 {
            match self.try_power_on(boot) {
                Ok(machine) => return Ok(machine),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    fn try_power_on(&self, boot: &dyn Boot) -> Result<Machine, Failure> {
        let number = self.boots.get() + 1;
        self.boots.set(number);
        // In the scratch folder, where a failing test's report looks for them.
        let console = self.assets.scratch.join(format!("{}-{number}.console", self.name()));
        let (qmp_socket, errors) =
            (self.file(&format!("qmp-{number}")), self.file(&format!("qemu-{number}.log")));
        let serial_line = self.file(&format!("serial-{number}"));
        let chip_log = self.log_chip.then(|| self.file(&format!("chip-{number}.log")));
        let (nor, ssh_port) = (self.nor(), free_port()?);
        let setup = Setup {
            nor: &nor,
            disk: self.disk.as_deref(),
            chip_speed: self.chip_speed,
            memory: self.memory,
            console: &console,
            serial_line: &serial_line,
            qmp: &qmp_socket,
            chip_log: chip_log.as_deref(),
            ssh_port,
        };
        let log = File::create(&errors).map_err(|e| Failure::file("create", &errors, e))?;
        let mut child = boot
            .command(&self.assets, &setup)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| Failure::harness(format!("cannot start QEMU: {e}")))?;
        let qmp = match Qmp::connect(&qmp_socket) {
            Ok(qmp) => qmp,
            Err(failure) => {
                process::end(&mut child);
                let said = std::fs::read_to_string(&errors).unwrap_or_default();
                return Err(failure.context(format!("QEMU said {:?}", said.trim())));
            }
        };
        let known_hosts = if boot.keeps_host_key() {
            self.file("known_hosts")
        } else {
            self.file(&format!("known_hosts-{number}"))
        };
        let ssh = Ssh::new(&self.assets, &self.ssh_key, &known_hosts, ssh_port);
        let console = Console::at(&console, &serial_line);
        Ok(Machine { child, qmp, console, ssh, chip_log: chip_log.map(ChipLog::at) })
    }
}

/// A device that is switched on.
pub(crate) struct Machine {
    child: Child,
    qmp: Qmp,
    /// What it says on its serial line.
    pub(crate) console: Console,
    /// The way in.
    pub(crate) ssh: Ssh,
    /// What its chip was told to do; only with [`Device::log_chip`].
    pub(crate) chip_log: Option<ChipLog>,
}

impl Machine {
    /// Waits until QEMU ends by itself, as it does when the guest powers off.
    pub(crate) fn wait_for_power_off(mut self, limit: Duration) -> Result<(), Failure> {
        match process::wait(&mut self.child, limit) {
            Ok(_) => Ok(()),
            Err(_) => {
                Err(Failure::test(format!("the device did not power off within {} s", limit.as_secs())))
            }
        }
    }

    /// Whether the device has powered off.
    pub(crate) fn is_off(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Cuts the power now. What the chip had programmed stays in the NOR file.
    pub(crate) fn cut_power(mut self) {
        process::end(&mut self.child);
    }

    /// A line for QEMU's own monitor.
    pub(crate) fn monitor(&mut self, line: &str) -> Result<(), Failure> {
        match self.qmp.run("human-monitor-command", json!({ "command-line": line }))? {
            serde_json::Value::String(said) if !said.trim().is_empty() => {
                Err(Failure::harness(format!("QEMU's monitor said to {line}: {}", said.trim())))
            }
            _ => Ok(()),
        }
    }

    /// Switches a trace event on or off.
    pub(crate) fn trace(&mut self, event: &str, on: bool) -> Result<(), Failure> {
        self.qmp.run("trace-event-set-state", json!({ "name": event, "enable": on })).map(drop)
    }

    /// The disk does not answer any more: not an error, just silence.
    pub(crate) fn freeze_disk(&mut self) -> Result<(), Failure> {
        // one byte per second: an answer would come in an hour
        self.monitor("block_set_io_throttle disk0 1 0 0 0 0 0")
    }

    /// The disk answers again.
    pub(crate) fn thaw_disk(&mut self) -> Result<(), Failure> {
        self.monitor("block_set_io_throttle disk0 0 0 0 0 0 0")
    }

    /// Plugs a disk of 1 MiB with the serial number `serial` into the socket.
    pub(crate) fn plug(&mut self, serial: &str) -> Result<(), Failure> {
        let medium =
            json!({ "driver": "null-co", "read-zeroes": true, "size": 1 << 20, "node-name": serial });
        self.qmp.run("blockdev-add", medium)?;
        let disk = json!({
            "driver": "virtio-blk-pci", "id": serial, "drive": serial, "serial": serial, "bus": "socket"
        });
        self.qmp.run("device_add", disk).map(drop)
    }

    /// Asks the guest to let the disk go, as the socket's button does; it is gone when the guest has.
    pub(crate) fn unplug(&mut self, serial: &str) -> Result<(), Failure> {
        self.qmp.run("device_del", json!({ "id": serial })).map(drop)
    }

    /// Plugs a network card into the socket; its wire leads from the Unix socket `own` to the Unix socket `neighbour`.
    pub(crate) fn plug_network(&mut self, own: &Path, neighbour: &Path) -> Result<(), Failure> {
        let end = |path: &Path| json!({ "type": "unix", "path": path });
        let wire = json!({ "type": "dgram", "id": "wire", "local": end(own), "remote": end(neighbour) });
        self.qmp.run("netdev_add", wire)?;
        // nothing is to be booted from it
        let card = json!({ "driver": "virtio-net-pci", "id": "card", "netdev": "wire", "bus": "socket", "romfile": "" });
        self.qmp.run("device_add", card).map(drop)
    }

    /// Plugs a keyboard into the second board's USB socket.
    pub(crate) fn plug_keyboard(&mut self) -> Result<(), Failure> {
        let keyboard = json!({ "driver": "usb-kbd", "id": "keyboard", "bus": "usb-bus.1" });
        self.qmp.run("device_add", keyboard).map(drop)
    }

    /// Presses keys together, by QEMU's names, and lets them go.
    pub(crate) fn press(&mut self, keys: &[&str]) -> Result<(), Failure> {
        let keys: Vec<_> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
        self.qmp.run("send-key", json!({ "keys": keys })).map(drop)
    }

    /// From now on the port of the device's ssh leads to `address`.
    pub(crate) fn lead_to(&mut self, address: &str) -> Result<(), Failure> {
        let rule = format!("tcp:127.0.0.1:{}", self.ssh.port());
        // it says that it did
        let remove = json!({ "command-line": format!("hostfwd_remove n0 {rule}") });
        self.qmp.run("human-monitor-command", remove)?;
        self.monitor(&format!("hostfwd_add n0 {rule}-{address}:22"))
    }

    /// Pulls the network cable (`false`) or plugs it in: no reset, no FIN, just silence.
    pub(crate) fn set_link(&mut self, up: bool) -> Result<(), Failure> {
        self.qmp.run("set_link", json!({ "name": "nic0", "up": up })).map(drop)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(Failure::harness)?;
    Ok(listener.local_addr().map_err(Failure::harness)?.port())
}
