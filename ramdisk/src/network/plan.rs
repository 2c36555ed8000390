//! From a state that shall be, and the interfaces that there are, to the requests that lead there: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType,
};

use super::link::{
    IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINKINFO, IFLA_MASTER,
    IFLA_MTU, Numbered, hardware_bytes,
};
use super::message::{Bytes, Request, zero_ended};
use super::netlink::{Change, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTM_NEWRULE};
use super::snapshot::{IPV6_CONF, RTA_METRICS};
use super::state::{Address, Link, NetworkError, NetworkState, Route};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the kernel.
    Ask(Request),
    /// Write a setting, unless the file says so already; the path is one below `/`.
    Write(PathBuf, String),
}

/// The interfaces that are missing and can be made now: whose parent, if they have one, is there.
pub(super) fn to_make(present: &[Numbered], state: &NetworkState) -> Vec<Request> {
    let missing = state.links.iter().filter(|link| find(present, link).is_none());
    missing.filter_map(|link| make(present, link)).collect()
}

fn make(present: &[Numbered], link: &Link) -> Option<Request> {
    let kind = link.kind.as_ref().filter(|kind| kind.can_be_made())?;
    let mut message = Bytes::of(&LinkHeader::default()).with(IFLA_IFNAME, &zero_ended(&link.name));
    if let Some(parent) = &kind.parent {
        let parent = present.iter().find(|present| present.link.name == *parent)?;
        message = message.with(IFLA_LINK, &parent.index.to_ne_bytes());
    }
    if let Some(mac) = link.mac.as_deref().and_then(hardware_bytes) {
        message = message.with(IFLA_ADDRESS, &mac);
    }
    let info = Bytes::default().with(IFLA_INFO_KIND, kind.name.as_bytes()).with(IFLA_INFO_DATA, &kind.data);
    let message = message.with(IFLA_LINKINFO, &info.0);
    Some(Request { what: format!("make {}", link.name), kind: RTM_NEWLINK, change: Change::Make, message })
}

/// By name; one that is a device of its own also under another name by hardware address, if exactly one such has it.
fn find<'a>(present: &'a [Numbered], link: &Link) -> Option<&'a Numbered> {
    let by_name = present.iter().find(|present| present.link.name == link.name);
    by_name.or_else(|| {
        // A VLAN and a bridge have the address of the device below them.
        let mac = link.mac.as_ref().filter(|_| link.kind.is_none())?;
        let is_same =
            |present: &&Numbered| present.link.kind.is_none() && present.link.mac.as_ref() == Some(mac);
        let mut same = present.iter().filter(is_same);
        same.next().filter(|_| same.next().is_none())
    })
}

/// Everything but the making, in order: what an interface is, whose it is, that it is up, its addresses; then routes and
/// rules. What cannot be done is among the answers where it stands.
pub(super) fn settings(present: &[Numbered], state: &NetworkState) -> Vec<Result<Step, NetworkError>> {
    let mut steps = Vec::new();
    if let Some(lo) = present.iter().find(|present| present.link.name == "lo") {
        steps.push(Ok(Step::Ask(bring_up(lo))));
    }
    let links = lowest_first(&state.links);
    let found: Vec<(&Link, &Numbered)> =
        links.iter().filter_map(|link| find(present, link).map(|found| (*link, found))).collect();
    for link in &links {
        if find(present, link).is_none() && (link.up || !link.addresses.is_empty()) {
            steps.push(Err(NetworkError::NoInterface { name: link.name.clone(), mac: link.mac.clone() }));
        }
    }
    for (link, now) in &found {
        steps.extend(shape(present, state, link, now).into_iter().map(|request| Ok(Step::Ask(request))));
        let dir = PathBuf::from(IPV6_CONF).join(&now.link.name);
        steps.extend(link.ipv6.iter().map(|(name, value)| Ok(Step::Write(dir.join(name), value.clone()))));
    }
    // What lies on another interface is up after it.
    for (link, now) in found.iter().filter(|(link, _)| link.up) {
        steps.push(Ok(Step::Ask(bring_up(now))));
        steps.extend(link.addresses.iter().map(|address| Ok(Step::Ask(add_address(now, address)))));
    }
    for route in in_order(&state.routes) {
        let link = route.dev.as_ref().and_then(|dev| state.links.iter().find(|link| link.name == *dev));
        let found = link.and_then(|link| find(present, link));
        steps.push(match (&route.dev, found) {
            (Some(name), None) => Err(NetworkError::NoInterface { name: name.clone(), mac: None }),
            (_, found) => Ok(Step::Ask(add_route(found.map(|found| found.index), route))),
        });
    }
    for rule in &state.rules {
        steps.push(Ok(Step::Ask(Request {
            what: "add a rule of routing".to_owned(),
            kind: RTM_NEWRULE,
            change: Change::Make,
            message: Bytes(rule.clone()),
        })));
    }
    steps
}

/// Interfaces before those that lie on them.
fn lowest_first(links: &[Link]) -> Vec<&Link> {
    let parents: BTreeMap<&str, &str> = links
        .iter()
        .filter_map(|link| Some((link.name.as_str(), link.kind.as_ref()?.parent.as_deref()?)))
        .collect();
    let height = |link: &Link| {
        let mut name = link.name.as_str();
        let mut height = 0;
        // Two that name each other would have no end.
        while let Some(parent) = parents.get(name).filter(|_| height <= links.len()) {
            name = parent;
            height += 1;
        }
        height
    };
    let mut links: Vec<&Link> = links.iter().collect();
    links.sort_by_key(|link| height(link));
    links
}

/// Hardware address, packet size and master, where they are not what they shall be.
fn shape(present: &[Numbered], state: &NetworkState, link: &Link, now: &Numbered) -> Vec<Request> {
    let name = &now.link.name;
    let mut requests = Vec::new();
    if link.mac != now.link.mac
        && let Some(mac) = link.mac.as_deref().and_then(hardware_bytes)
    {
        // Most drivers change it only while they are off.
        if now.link.up {
            requests.push(set(format!("take {name} down"), switch(now, LinkFlags::empty())));
        }
        let message = header(now).with(IFLA_ADDRESS, &mac);
        requests.push(set(format!("set the hardware address of {name}"), message));
    }
    if let Some(mtu) = link.mtu.filter(|mtu| now.link.mtu != Some(*mtu)) {
        let message = header(now).with(IFLA_MTU, &mtu.to_ne_bytes());
        requests.push(set(format!("set the packet size of {name} to {mtu}"), message));
    }
    let master = link.master.as_ref().and_then(|master| state.links.iter().find(|link| link.name == *master));
    let master = master.and_then(|master| find(present, master));
    if let Some(master) = master.filter(|master| now.link.master.as_ref() != Some(&master.link.name)) {
        let message = header(now).with(IFLA_MASTER, &master.index.to_ne_bytes());
        requests.push(set(format!("add {name} to {}", master.link.name), message));
    }
    requests
}

fn set(what: String, message: Bytes) -> Request {
    Request { what, kind: RTM_NEWLINK, change: Change::Set, message }
}

fn header(now: &Numbered) -> Bytes {
    Bytes::of(&LinkHeader { index: now.index, ..LinkHeader::default() })
}

fn switch(now: &Numbered, flags: LinkFlags) -> Bytes {
    let change_mask = LinkFlags::Up;
    Bytes::of(&LinkHeader { index: now.index, flags, change_mask, ..LinkHeader::default() })
}

fn bring_up(now: &Numbered) -> Request {
    set(format!("bring {} up", now.link.name), switch(now, LinkFlags::Up))
}

/// Those that reach a gateway before those that need it.
fn in_order(routes: &[Route]) -> Vec<&Route> {
    let mut routes: Vec<&Route> = routes.iter().collect();
    // The sort is stable; longer prefixes are the nearer ones among those with a gateway.
    routes.sort_by_key(|route| (route.gateway.is_some(), std::cmp::Reverse(route.prefix)));
    routes
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// One that is there already loses its lifetime, if it had one: nobody renews it here.
fn add_address(now: &Numbered, address: &Address) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip);
    message.header.prefix_len = address.prefix;
    message.header.index = now.index;
    message.header.scope = address.scope.into();
    message.attributes.push(AddressAttribute::Local(address.ip));
    message.attributes.push(AddressAttribute::Address(address.peer.unwrap_or(address.ip)));
    message.attributes.extend(address.broadcast.map(AddressAttribute::Broadcast));
    // The label of one that has none of its own is the interface's name, which may be another by now.
    let label = address.label.as_ref().filter(|label| label.contains(':'));
    message.attributes.extend(label.cloned().map(AddressAttribute::Label));
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Noprefixroute, address.no_prefix_route);
    // It was proven to be ours before; until it is proven again no route may prefer it.
    let is_proven = address.ip.is_ipv6() && !address.ip.is_loopback();
    flags.set(AddressFlags::Nodad, address.no_dad || is_proven);
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    Request {
        what: format!("add {}/{} to {}", address.ip, address.prefix, now.link.name),
        kind: RTM_NEWADDR,
        change: Change::Replace,
        message: Bytes::of(&message),
    }
}

fn add_route(index: Option<u32>, route: &Route) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination);
    message.header.destination_prefix_length = route.prefix;
    match u8::try_from(route.table) {
        Ok(table) => message.header.table = table,
        Err(_) => {
            message.header.table = RouteHeader::RT_TABLE_UNSPEC;
            message.attributes.push(RouteAttribute::Table(route.table));
        }
    }
    message.header.protocol = route.protocol.into();
    message.header.scope = route.scope.into();
    message.header.kind = RouteType::Unicast;
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    let address = |ip: IpAddr| RouteAddress::from(ip);
    if route.prefix > 0 {
        message.attributes.push(RouteAttribute::Destination(address(route.destination)));
    }
    message.attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(address(ip))));
    message.attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(address(ip))));
    message.attributes.extend(index.map(RouteAttribute::Oif));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    Request {
        what: format!("add the route to {}/{}", route.destination, route.prefix),
        kind: RTM_NEWROUTE,
        change: Change::Make,
        message: match route.metrics.as_slice() {
            [] => Bytes::of(&message),
            metrics => Bytes::of(&message).with(RTA_METRICS, metrics),
        },
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
