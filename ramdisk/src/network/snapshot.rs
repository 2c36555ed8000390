//! Reading the network's state from the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use netlink_packet_core::{NlasIterator, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};

use super::netlink::{
    Netlink, RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE,
};
use super::state::{Address, Link, NetworkError, NetworkState, Route};

/// The length of `struct ifinfomsg`.
const LINK_HEADER_LEN: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;

/// Reads the network of this process's network namespace, the host name, and `etc/resolv.conf` below `root`.
///
/// Left out because the kernel makes them by itself: link-local IPv6 addresses, temporary IPv6 addresses, routes of
/// the protocol "kernel". Left out and told in [`NetworkState::left_out`]: routes over several next hops.
///
/// # Errors
/// If the kernel cannot be asked or its answer is not understood.
pub fn snapshot(root: &Path) -> Result<NetworkState, NetworkError> {
    let mut netlink = Netlink::open()?;
    let mut links: BTreeMap<u32, Link> = BTreeMap::new();
    let what = "list the interfaces";
    for payload in netlink.dump(what, RTM_GETLINK, RTM_NEWLINK, &LinkHeader::default())? {
        links.extend(link_from(&payload).map_err(|why| answer(what, why))?);
    }
    let what = "list the addresses";
    for payload in netlink.dump(what, RTM_GETADDR, RTM_NEWADDR, &AddressMessage::default())? {
        if let Some((index, address)) = address_from(&payload).map_err(|why| answer(what, why))?
            && let Some(link) = links.get_mut(&index)
        {
            link.addresses.push(address);
        }
    }
    let what = "list the routes";
    let mut state = NetworkState::default();
    for payload in netlink.dump(what, RTM_GETROUTE, RTM_NEWROUTE, &RouteMessage::default())? {
        match route_from(&payload, &links).map_err(|why| answer(what, why))? {
            Found::Route(route) => state.routes.push(route),
            Found::LeftOut(why) => state.left_out.push(why),
            Found::NotOurs => {}
        }
    }
    state.links = links.into_values().collect();
    state.hostname = host_name();
    state.resolv_conf = fs::read_to_string(root.join("etc/resolv.conf")).ok();
    Ok(state)
}

fn answer(what: &str, why: String) -> NetworkError {
    NetworkError::Answer { what: what.to_owned(), why }
}

/// The kernel says `(none)` where nobody set one.
fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    Some(name).filter(|name| !name.is_empty() && name != "(none)")
}

/// Only the header and two attributes are looked at: see [`super::netlink`].
pub(super) fn link_from(payload: &[u8]) -> Result<Option<(u32, Link)>, String> {
    let header = LinkHeader::parse(payload).map_err(|error| error.to_string())?;
    let attributes = payload.get(LINK_HEADER_LEN..).unwrap_or_default();
    let (mut name, mut mac) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|error| error.to_string())?;
        match attribute.kind() {
            IFLA_IFNAME => {
                let text = attribute.value();
                let text = text.strip_suffix(b"\0").unwrap_or(text);
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            IFLA_ADDRESS => mac = hardware_address(attribute.value()),
            _ => {}
        }
    }
    let up = header.flags.contains(LinkFlags::Up);
    Ok(name.map(|name| (header.index, Link { name, mac, up, addresses: Vec::new() })))
}

/// Six bytes that are not all zero, as loopback's are; other lengths are tunnels' and no name for a device.
fn hardware_address(bytes: &[u8]) -> Option<String> {
    if bytes.len() != 6 || bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

fn address_from(payload: &[u8]) -> Result<Option<(u32, Address)>, String> {
    let message = AddressMessage::parse(payload).map_err(|error| error.to_string())?;
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            _ => {}
        }
    }
    // Of a point-to-point link "local" is ours and "address" the other end's; elsewhere both are the same, and IPv6
    // has only "address".
    let Some(ip) = local.or(address) else { return Ok(None) };
    if ip.is_ipv6() {
        // The flag that means "secondary" to IPv4 means "temporary" to IPv6.
        let is_temporary = message.header.flags.contains(AddressHeaderFlags::Secondary);
        if is_temporary || message.header.scope == AddressScope::Link {
            return Ok(None);
        }
    }
    let peer = address.filter(|peer| *peer != ip);
    Ok(Some((message.header.index, Address { ip, prefix: message.header.prefix_len, peer })))
}

/// What became of a route of the kernel's.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Route(Route),
    LeftOut(String),
    /// Of another table, made by the kernel itself, or for a single cached destination.
    NotOurs,
}

fn route_from(payload: &[u8], links: &BTreeMap<u32, Link>) -> Result<Found, String> {
    let message = RouteMessage::parse(payload).map_err(|error| error.to_string())?;
    let header = &message.header;
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return Ok(Found::NotOurs),
    };
    if header.table != RouteHeader::RT_TABLE_MAIN
        || header.protocol == RouteProtocol::Kernel
        || header.kind != RouteType::Unicast
        || header.flags.contains(RouteFlags::Cloned)
    {
        return Ok(Found::NotOurs);
    }
    let mut route = Route {
        destination: any,
        prefix: header.destination_prefix_length,
        gateway: None,
        dev: None,
        source: None,
        metric: None,
        scope: header.scope.into(),
        protocol: header.protocol.into(),
        onlink: header.flags.contains(RouteFlags::Onlink),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => route.destination = ip_of(to).unwrap_or(any),
            RouteAttribute::Gateway(by) => route.gateway = ip_of(by),
            RouteAttribute::PrefSource(from) => route.source = ip_of(from),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Oif(index) => route.dev = links.get(index).map(|link| link.name.clone()),
            RouteAttribute::MultiPath(_) | RouteAttribute::Via(_) | RouteAttribute::NhId(_) => {
                let (to, prefix) = (route.destination, route.prefix);
                return Ok(Found::LeftOut(format!(
                    "the route to {to}/{prefix} has several next hops, or one of another family"
                )));
            }
            _ => {}
        }
    }
    Ok(Found::Route(route))
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
