//! Reading the network's state from the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::LinkHeader;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType,
};

use super::link::{Numbered, with_names};
use super::message::{Bytes, attributes, number};
use super::netlink::{
    Netlink, RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE, RTM_GETRULE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE,
    RTM_NEWRULE,
};
use super::state::{Address, Link, NetworkError, NetworkState, Route};

/// The settings of an interface that decide how it comes by its IPv6 addresses.
const IPV6_SETTINGS: [&str; 4] = ["disable_ipv6", "accept_ra", "autoconf", "forwarding"];
/// Where they lie.
pub(super) const IPV6_CONF: &str = "proc/sys/net/ipv6/conf";

/// Reads the network of this process's network namespace, the host name, and `etc/resolv.conf` below `root`.
///
/// Left out because the kernel makes them by itself: link-local IPv6 addresses, temporary IPv6 addresses, routes of
/// the protocol "kernel". Left out and told in [`NetworkState::left_out`]: routes over several next hops, those for a source
/// or a type of service alone, those into a tunnel and those that are not to a host (`blackhole` and the like); addresses
/// that another device has; interfaces that cannot be made again; the VLANs of a bridge's ports.
///
/// # Errors
/// If the kernel cannot be asked or its answer is not understood.
pub fn snapshot(root: &Path) -> Result<NetworkState, NetworkError> {
    let mut netlink = Netlink::open()?;
    let mut state = NetworkState::default();
    let mut links: BTreeMap<u32, Link> = BTreeMap::new();
    for numbered in list_links(&mut netlink)? {
        state.left_out.extend(not_kept(&numbered));
        let ipv6 = ipv6_settings(root, &numbered.link.name);
        links.insert(numbered.index, Link { ipv6, ..numbered.link });
    }
    let what = "list the addresses";
    for payload in netlink.dump(what, RTM_GETADDR, RTM_NEWADDR, &AddressMessage::default())? {
        if let Some((index, address, is_taken)) = address_from(&payload).map_err(|why| answer(what, why))?
            && let Some(link) = links.get_mut(&index)
        {
            if is_taken {
                let (ip, prefix) = (address.ip, address.prefix);
                state.left_out.push(format!("{ip}/{prefix} on {}, which another device has", link.name));
            } else {
                link.addresses.push(address);
            }
        }
    }
    let what = "list the routes";
    for payload in netlink.dump(what, RTM_GETROUTE, RTM_NEWROUTE, &RouteMessage::default())? {
        match route_from(&payload, &links).map_err(|why| answer(what, why))? {
            Found::Route(route) => state.routes.push(route),
            Found::LeftOut(why) => state.left_out.push(why),
            Found::NotOurs => {}
        }
    }
    let what = "list the rules of routing";
    // A kernel without such rules does not know the question.
    for payload in
        netlink.dump(what, RTM_GETRULE, RTM_NEWRULE, &Bytes(vec![0; RULE_HEADER])).unwrap_or_default()
    {
        state.rules.extend(rule_from(&payload).map_err(|why| answer(what, why))?);
    }
    state.links = links.into_values().collect();
    state.hostname = host_name();
    state.resolv_conf = fs::read_to_string(root.join("etc/resolv.conf")).ok();
    Ok(state)
}

/// All interfaces.
pub(super) fn list_links(netlink: &mut Netlink) -> Result<Vec<Numbered>, NetworkError> {
    let what = "list the interfaces";
    let mut links = Vec::new();
    for payload in netlink.dump(what, RTM_GETLINK, RTM_NEWLINK, &LinkHeader::default())? {
        links.extend(Numbered::parse(&payload).map_err(|why| answer(what, why))?);
    }
    Ok(with_names(links))
}

/// What of an interface in use would be lost if the old system took it down.
fn not_kept(numbered: &Numbered) -> Option<String> {
    let name = &numbered.link.name;
    if numbered.filters_vlans() {
        return Some(format!("which VLANs the ports of the bridge {name} belong to"));
    }
    let kind = numbered.link.kind.as_ref().filter(|kind| numbered.link.up && !kind.can_be_made())?;
    // The other end of such a pair is in a container, and that does not come along.
    if kind.name == "veth" {
        return None;
    }
    Some(format!("{name}, which is a {}: it is there only if the old system leaves it", kind.name))
}

fn ipv6_settings(root: &Path, name: &str) -> BTreeMap<String, String> {
    let dir = root.join(IPV6_CONF).join(name);
    let read = |setting: &str| {
        let text = fs::read_to_string(dir.join(setting)).ok()?;
        Some((setting.to_owned(), text.trim().to_owned()))
    };
    IPV6_SETTINGS.into_iter().filter_map(read).collect()
}

/// The length of `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
pub(super) const RTA_METRICS: u16 = 8;
const RTA_ENCAP: u16 = 22;
/// `RT_TABLE_LOCAL`, the kernel's own.
const LOCAL_TABLE: u32 = 255;
/// The length of `struct fib_rule_hdr`.
const RULE_HEADER: usize = 12;
const FRA_PRIORITY: u16 = 6;
/// What the kernel has by itself: priority, table.
const KERNELS_RULES: [(u32, u8); 3] = [(0, 255), (32_766, 254), (32_767, 253)];
/// `FIB_RULE_INVERT`; the other flags say how a rule is, and cannot be set.
const SETTABLE: u32 = 2;

/// A rule as it can be set again; none for the kernel's own and for those of other families than IPv4's and IPv6's.
fn rule_from(payload: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let (Some(header), Some(rest)) = (payload.first_chunk::<RULE_HEADER>(), payload.get(RULE_HEADER..))
    else {
        return Err(format!("a rule of {} bytes", payload.len()));
    };
    let [family, to_length, from_length, _, table, _, _, _, flags @ ..] = *header;
    if ![libc::AF_INET, libc::AF_INET6].contains(&i32::from(family)) {
        return Ok(None);
    }
    let mut priority = 0;
    for attribute in attributes(rest) {
        let (kind, value) = attribute?;
        if kind == FRA_PRIORITY {
            priority = number(value).unwrap_or(0);
        }
    }
    if to_length == 0 && from_length == 0 && KERNELS_RULES.contains(&(priority, table)) {
        return Ok(None);
    }
    let flags = u32::from_ne_bytes(flags) & SETTABLE;
    let header = header.iter().take(8).copied().chain(flags.to_ne_bytes());
    Ok(Some(header.chain(rest.iter().copied()).collect()))
}

fn answer(what: &str, why: String) -> NetworkError {
    NetworkError::Answer { what: what.to_owned(), why }
}

/// The kernel says `(none)` where nobody set one.
fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    Some(name).filter(|name| !name.is_empty() && name != "(none)")
}

/// The interface, the address, and whether another device was found to have it.
fn address_from(payload: &[u8]) -> Result<Option<(u32, Address, bool)>, String> {
    let message = AddressMessage::parse(payload).map_err(|error| error.to_string())?;
    let (mut address, mut local, mut broadcast, mut label) = (None, None, None, None);
    let (mut no_prefix_route, mut no_dad, mut is_taken) = (false, false, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Broadcast(ip) => broadcast = Some(*ip),
            AddressAttribute::Label(name) => label = Some(name.clone()),
            AddressAttribute::Flags(flags) => {
                no_prefix_route = flags.contains(AddressFlags::Noprefixroute);
                no_dad = flags.contains(AddressFlags::Nodad);
                is_taken = flags.contains(AddressFlags::Dadfailed);
            }
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
    let (prefix, scope) = (message.header.prefix_len, message.header.scope.into());
    Ok(Some((
        message.header.index,
        Address { ip, prefix, peer, scope, broadcast, label, no_prefix_route, no_dad },
        is_taken,
    )))
}

/// What became of a route of the kernel's.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Route(Route),
    LeftOut(String),
    /// Made by the kernel itself, its own table's, or for a single cached destination.
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
    let told = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let table = told.unwrap_or(header.table.into());
    if table == LOCAL_TABLE
        || header.protocol == RouteProtocol::Kernel
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
        table,
        scope: header.scope.into(),
        protocol: header.protocol.into(),
        onlink: header.flags.contains(RouteFlags::Onlink),
        metrics: Vec::new(),
    };
    let mut lost = match header.kind {
        RouteType::Unicast => None,
        kind => Some(format!("which is none to a host ({})", format!("{kind:?}").to_lowercase())),
    };
    if header.tos != 0 || header.source_prefix_length != 0 {
        lost = Some("which is for a source or a type of service alone".to_owned());
    }
    for attribute in attributes(payload.get(ROUTE_HEADER..).unwrap_or_default()) {
        match attribute? {
            (RTA_METRICS, value) => route.metrics = value.to_vec(),
            (RTA_ENCAP, _) => lost = Some("which leads into a tunnel".to_owned()),
            _ => {}
        }
    }
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => route.destination = ip_of(to).unwrap_or(any),
            RouteAttribute::Gateway(by) => route.gateway = ip_of(by),
            RouteAttribute::PrefSource(from) => route.source = ip_of(from),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Oif(index) => route.dev = links.get(index).map(|link| link.name.clone()),
            RouteAttribute::MultiPath(_) | RouteAttribute::Via(_) | RouteAttribute::NhId(_) => {
                lost = Some("which has several next hops, or one of another family".to_owned());
            }
            _ => {}
        }
    }
    Ok(match lost {
        None => Found::Route(route),
        Some(why) => Found::LeftOut(format!("the route to {}/{}, {why}", route.destination, route.prefix)),
    })
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
