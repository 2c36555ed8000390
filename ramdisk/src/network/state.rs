//! What is kept of the network: links, addresses, routes, the host name, the resolver's file.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The network's state; `etc/levitate/network.json` of the staged root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkState {
    /// The interfaces, in the kernel's order.
    pub links: Vec<Link>,
    /// The routes of the main table that the kernel did not make by itself.
    pub routes: Vec<Route>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its hardware address, `02:00:00:00:00:01`; none where it has none. It finds the interface if its name changed.
    #[serde(default)]
    pub mac: Option<String>,
    /// True if it is switched on (whether or not a cable is plugged in).
    pub up: bool,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// The length of its network's prefix in bits.
    pub prefix: u8,
    /// The other end's address, of a point-to-point interface.
    #[serde(default)]
    pub peer: Option<IpAddr>,
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
    /// The kernel's number of the scope (0 global, 253 link, 254 host).
    pub scope: u8,
    /// The kernel's number of who made it (3 boot, 4 static, 16 DHCP, ...).
    pub protocol: u8,
    /// True for a gateway that is taken as reachable whatever the addresses say.
    #[serde(default)]
    pub onlink: bool,
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
