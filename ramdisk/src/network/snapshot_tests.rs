use netlink_packet_core::Emitable;
use netlink_packet_route::route::{RouteNextHop, RouteScope};

use super::*;

fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn links() -> BTreeMap<u32, Link> {
    BTreeMap::from([(2, Link { name: "eth0".into(), mac: None, up: true, addresses: vec![] })])
}

#[test]
fn a_link_is_read_by_name_hardware_address_and_switch_whatever_else_it_carries() {
    let flags = LinkFlags::Up | LinkFlags::Running;
    let mut payload = bytes(&LinkHeader { index: 2, flags, ..LinkHeader::default() });
    payload.extend(attribute(IFLA_IFNAME, b"eth0\0"));
    // An attribute of a kind that the library would refuse: too short for what it should be.
    payload.extend(attribute(22, &[1]));
    payload.extend(attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0xab, 1]));
    let expected =
        Link { name: "eth0".into(), mac: Some("02:00:00:00:ab:01".into()), up: true, addresses: vec![] };
    assert_eq!(link_from(&payload), Ok(Some((2, expected))));
    assert!(link_from(&payload[..10]).is_err());
}

#[test]
fn loopback_has_no_hardware_address() {
    assert_eq!(hardware_address(&[0; 6]), None);
    assert_eq!(hardware_address(&[1, 2, 3, 4]), None);
}

#[test]
fn addresses_that_the_kernel_makes_by_itself_are_left_out() {
    let mut message = AddressMessage::default();
    message.header.index = 2;
    message.header.prefix_len = 64;
    message.header.family = AddressFamily::Inet6;
    message.attributes.push(AddressAttribute::Address("fd00::5".parse().unwrap()));
    let expected = Address { ip: "fd00::5".parse().unwrap(), prefix: 64, peer: None };
    assert_eq!(address_from(&bytes(&message)), Ok(Some((2, expected))));
    message.header.flags = AddressHeaderFlags::Secondary;
    assert_eq!(address_from(&bytes(&message)), Ok(None));
    message.header.flags = AddressHeaderFlags::Permanent;
    message.header.scope = AddressScope::Link;
    assert_eq!(address_from(&bytes(&message)), Ok(None));
}

fn default_route() -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = RouteScope::Universe;
    message.attributes.push(RouteAttribute::Oif(2));
    message
}

#[test]
fn a_route_of_somebody_else_s_making_is_kept_and_the_kernels_own_is_not() {
    let mut message = default_route();
    message.attributes.push(RouteAttribute::Gateway(IpAddr::from([10, 0, 0, 1]).into()));
    message.attributes.push(RouteAttribute::Priority(7));
    let Ok(Found::Route(route)) = route_from(&bytes(&message), &links()) else { panic!("no route") };
    assert_eq!(route.destination, IpAddr::from([0, 0, 0, 0]));
    assert_eq!((route.prefix, route.gateway, route.metric), (0, Some(IpAddr::from([10, 0, 0, 1])), Some(7)));
    assert_eq!((route.dev.as_deref(), route.protocol, route.scope), (Some("eth0"), 4, 0));

    message.header.protocol = RouteProtocol::Kernel;
    assert_eq!(route_from(&bytes(&message), &links()), Ok(Found::NotOurs));
    message.header.protocol = RouteProtocol::Static;
    message.header.table = 255;
    assert_eq!(route_from(&bytes(&message), &links()), Ok(Found::NotOurs));
}

#[test]
fn a_route_over_several_next_hops_is_told_instead_of_lost_in_silence() {
    let mut message = default_route();
    message.attributes.insert(0, RouteAttribute::MultiPath(vec![RouteNextHop::default()]));
    assert!(matches!(route_from(&bytes(&message), &links()), Ok(Found::LeftOut(_))));
}
