//! Setting the network's state: what is there already stays as it is.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType,
};

use super::netlink::{Change, Netlink, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE};
use super::snapshot::link_from;
use super::state::{Address, Link, NetworkError, NetworkState, Route};

/// An interface as it is now.
#[derive(Clone, Debug)]
struct Present {
    index: u32,
    link: Link,
}

/// Brings `lo` and the links of `state` up and adds their addresses and routes. What fails does not keep the rest from
/// being done; the answer is everything that failed, so an empty one means that the state holds.
///
/// Idempotent: what is there already is left alone, and nothing is removed. The host name and resolv.conf are not set
/// here: they are files of the staged root and a setting of the init's own.
#[must_use]
pub fn apply(state: &NetworkState) -> Vec<NetworkError> {
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => return vec![error],
    };
    let present = match list(&mut netlink) {
        Ok(present) => present,
        Err(error) => return vec![error],
    };
    let mut errors = Vec::new();
    let mut done = |result: Result<(), NetworkError>| errors.extend(result.err());
    if let Some(lo) = present.iter().find(|present| present.link.name == "lo") {
        done(bring_up(&mut netlink, lo));
    }
    for link in &state.links {
        let Some(found) = find(&present, link) else {
            if link.up || !link.addresses.is_empty() {
                done(Err(NetworkError::NoInterface { name: link.name.clone(), mac: link.mac.clone() }));
            }
            continue;
        };
        if link.up {
            done(bring_up(&mut netlink, found));
        }
        for address in &link.addresses {
            let what = format!("add {}/{} to {}", address.ip, address.prefix, found.link.name);
            done(netlink.change(&what, RTM_NEWADDR, Change::Make, &address_message(found.index, address)));
        }
    }
    for route in in_order(&state.routes) {
        let link = route.dev.as_ref().and_then(|dev| state.links.iter().find(|link| link.name == *dev));
        let found = link.and_then(|link| find(&present, link));
        let what = format!("add the route to {}/{}", route.destination, route.prefix);
        done(match (&route.dev, found) {
            (Some(name), None) => Err(NetworkError::NoInterface { name: name.clone(), mac: None }),
            (_, found) => {
                let index = found.map(|found| found.index);
                netlink.change(&what, RTM_NEWROUTE, Change::Make, &route_message(index, route))
            }
        });
    }
    errors
}

fn list(netlink: &mut Netlink) -> Result<Vec<Present>, NetworkError> {
    let what = "list the interfaces";
    let mut present = Vec::new();
    for payload in netlink.dump(what, RTM_GETLINK, RTM_NEWLINK, &LinkHeader::default())? {
        let found = link_from(&payload).map_err(|why| NetworkError::Answer { what: what.to_owned(), why })?;
        present.extend(found.map(|(index, link)| Present { index, link }));
    }
    Ok(present)
}

/// By name; under another name by hardware address, if exactly one has it.
fn find<'a>(present: &'a [Present], link: &Link) -> Option<&'a Present> {
    let by_name = present.iter().find(|present| present.link.name == link.name);
    by_name.or_else(|| {
        let mac = link.mac.as_ref()?;
        let mut same = present.iter().filter(|present| present.link.mac.as_ref() == Some(mac));
        same.next().filter(|_| same.next().is_none())
    })
}

fn bring_up(netlink: &mut Netlink, present: &Present) -> Result<(), NetworkError> {
    let header = LinkHeader {
        index: present.index,
        flags: LinkFlags::Up,
        change_mask: LinkFlags::Up,
        ..LinkHeader::default()
    };
    netlink.change(&format!("bring {} up", present.link.name), RTM_NEWLINK, Change::Set, &header)
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

fn address_message(index: u32, address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip);
    message.header.prefix_len = address.prefix;
    message.header.index = index;
    message.header.scope = if address.ip.is_loopback() { AddressScope::Host } else { AddressScope::Universe };
    message.attributes.push(AddressAttribute::Local(address.ip));
    message.attributes.push(AddressAttribute::Address(address.peer.unwrap_or(address.ip)));
    if let (IpAddr::V4(ip), None) = (address.ip, address.peer)
        && address.prefix < 31
        && !ip.is_loopback()
    {
        let hosts = u32::MAX.checked_shr(u32::from(address.prefix)).unwrap_or(0);
        message.attributes.push(AddressAttribute::Broadcast((u32::from(ip) | hosts).into()));
    }
    message
}

fn route_message(index: Option<u32>, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.destination);
    message.header.destination_prefix_length = route.prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
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
    message
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
