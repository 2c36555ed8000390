//! What is kept of the network: links, addresses, routes, the host name, the resolver's file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The network's state; `etc/levitate/network.json` of the staged root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// The interfaces, in the kernel's order.
    pub links: Vec<Link>,
    /// The routes that the kernel did not make by itself, of all tables but its own.
    pub routes: Vec<Route>,
    /// Which table is asked for what (`ip rule`), as the kernel says it and takes it: `struct fib_rule_hdr` and
    /// attributes. They name interfaces by name and nothing by index.
    #[serde(default)]
    pub rules: Vec<Vec<u8>>,
    /// The host name; none if it was never set.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The text of `/etc/resolv.conf`, whatever it was a link to; none if there is none.
    #[serde(default)]
    pub resolv_conf: Option<String>,
    /// What is there and cannot be carried over, one sentence each: for whoever stages to show.
    #[serde(default)]
    pub left_out: Vec<String>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its hardware address, `02:00:00:00:00:01`; none where it has none. It finds the interface if its name changed.
    #[serde(default)]
    pub mac: Option<String>,
    /// True if it is switched on (whether or not a cable is plugged in).
    pub up: bool,
    /// The largest packet in bytes; none: not known.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// What it is made of, if it is no device of its own.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// The bridge (or bond) that it belongs to.
    #[serde(default)]
    pub master: Option<String>,
    /// Its settings below `/proc/sys/net/ipv6/conf`, by name: whether it has IPv6 and believes routers.
    #[serde(default)]
    pub ipv6: BTreeMap<String, String>,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<Address>,
}

/// An interface that is made of others, or of nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// The kernel's word: `vlan`, `bridge`, ...
    pub name: String,
    /// The interface that it lies on.
    #[serde(default)]
    pub parent: Option<String>,
    /// Its settings, as the kernel says them and takes them (`IFLA_INFO_DATA`).
    #[serde(default)]
    pub data: Vec<u8>,
}

impl Kind {
    /// Whether it can be made again if the old system removes it on its way out. Others stay as the old system leaves them.
    #[must_use]
    pub fn can_be_made(&self) -> bool {
        ["vlan", "bridge", "dummy"].contains(&self.name.as_str())
    }
}

/// An address of an interface. How long it is valid is not kept: nobody renews a DHCP lease in the maintenance root, and
/// an address that ends there would take the device away from its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// The length of its network's prefix in bits.
    pub prefix: u8,
    /// The other end's address, of a point-to-point interface.
    #[serde(default)]
    pub peer: Option<IpAddr>,
    /// The kernel's number of the scope (0 global, 253 link, 254 host).
    #[serde(default)]
    pub scope: u8,
    /// IPv4: the broadcast address.
    #[serde(default)]
    pub broadcast: Option<Ipv4Addr>,
    /// IPv4: the name that it has besides the interface's, as `eth0:1`.
    #[serde(default)]
    pub label: Option<String>,
    /// True if it brings no route to its network along.
    #[serde(default)]
    pub no_prefix_route: bool,
    /// IPv6: true if nobody is asked whether another has it already.
    #[serde(default)]
    pub no_dad: bool,
}

impl Address {
    /// An address of global scope with nothing special about it; `prefix` is in bits.
    #[must_use]
    pub fn global(ip: IpAddr, prefix: u8) -> Self {
        Self {
            ip,
            prefix,
            peer: None,
            scope: 0,
            broadcast: None,
            label: None,
            no_prefix_route: false,
            no_dad: false,
        }
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination's address; the family's unspecified address with prefix 0 for the default route.
    pub destination: IpAddr,
    /// The length of its prefix in bits.
    pub prefix: u8,
    /// The next hop; none: reached directly.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// The interface's name.
    #[serde(default)]
    pub dev: Option<String>,
    /// The source address that is preferred.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// The metric; the smaller one wins.
    #[serde(default)]
    pub metric: Option<u32>,
    /// The table's number; 254 is the main one.
    #[serde(default = "main_table")]
    pub table: u32,
    /// The kernel's number of the scope (0 global, 253 link, 254 host).
    pub scope: u8,
    /// The kernel's number of who made it (3 boot, 4 static, 16 DHCP, ...).
    pub protocol: u8,
    /// True for a gateway that is taken as reachable whatever the addresses say.
    #[serde(default)]
    pub onlink: bool,
    /// Packet size and the like, as the kernel says them and takes them (`RTA_METRICS`).
    #[serde(default)]
    pub metrics: Vec<u8>,
}

/// `RT_TABLE_MAIN`.
pub(super) const MAIN_TABLE: u32 = 254;

fn main_table() -> u32 {
    MAIN_TABLE
}

/// What can go wrong with the network's state.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// A file of it.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path} is no network state", path = path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A request to the kernel.
    #[error("cannot {what}")]
    Kernel {
        /// What was attempted, on what.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's answer was not understood.
    #[error("cannot {what}: the kernel's answer was not understood: {why}")]
    Answer {
        /// What was attempted.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A setting of an interface.
    #[error("cannot write {value} to {path}", path = path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// What it should say.
        value: String,
        /// Why not.
        source: io::Error,
    },
    /// No such interface any more.
    #[error("interface {name} is not there (hardware address {mac})", mac = mac.as_deref().unwrap_or("unknown"))]
    NoInterface {
        /// Its name.
        name: String,
        /// Its hardware address.
        mac: Option<String>,
    },
}

impl NetworkState {
    /// Reads the state from a file of JSON; none if there is no such file.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn read(path: &Path) -> Result<Option<Self>, NetworkError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(NetworkError::Read { path: path.to_owned(), source }),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| NetworkError::Format { path: path.to_owned(), source })
    }
}
