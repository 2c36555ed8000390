use netlink_packet_core::Emitable;
use netlink_packet_route::route::{RouteHeader, RouteNextHop, RouteScope};

use super::*;

fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn address(ip: &str) -> Address {
    Address::global(ip.parse().unwrap(), 64)
}

fn links() -> BTreeMap<u32, Link> {
    BTreeMap::from([(2, Link { name: "eth0".into(), up: true, ..Link::default() })])
}

#[test]
fn addresses_that_the_kernel_makes_by_itself_are_left_out() {
    let mut message = AddressMessage::default();
    message.header.index = 2;
    message.header.prefix_len = 64;
    message.header.family = AddressFamily::Inet6;
    message.attributes.push(AddressAttribute::Address("fd00::5".parse().unwrap()));
    let expected = address("fd00::5");
    assert_eq!(address_from(&bytes(&message)), Ok(Some((2, expected, false))));
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

#[test]
fn a_route_of_another_table_is_kept_with_its_tables_whole_number() {
    let mut message = default_route();
    message.header.table = 252;
    message.attributes.push(RouteAttribute::Table(1_000));
    let Ok(Found::Route(route)) = route_from(&bytes(&message), &links()) else { panic!("no route") };
    assert_eq!(route.table, 1_000);
}

#[test]
fn the_kernels_own_rules_and_those_of_other_families_are_left_out() {
    let rule = |family: u8, table, priority: u32| {
        let header = vec![family, 0, 0, 0, table, 0, 0, 1, 0, 0, 0, 0];
        Bytes(header).with(FRA_PRIORITY, &priority.to_ne_bytes()).0
    };
    assert_eq!(rule_from(&rule(2, 254, 32_766)), Ok(None));
    assert_eq!(rule_from(&rule(10, 255, 0)), Ok(None));
    assert_eq!(rule_from(&rule(128, 100, 5)), Ok(None));
    assert_eq!(rule_from(&rule(2, 100, 32_766)), Ok(Some(rule(2, 100, 32_766))));
    let mut unresolved = rule(2, 100, 5);
    unresolved[8..12].copy_from_slice(&(4_u32 | 2).to_ne_bytes());
    let kept = rule_from(&unresolved).unwrap().unwrap();
    assert_eq!(kept[8..12], 2_u32.to_ne_bytes());
    assert!(rule_from(&[2; 11]).is_err());
}

#[test]
fn an_interface_that_cannot_be_made_again_is_told() {
    let link = |kind: &str, up| {
        let info = Bytes::default().with(1, kind.as_bytes());
        let flags = if up { netlink_packet_route::link::LinkFlags::Up } else { Default::default() };
        let header = LinkHeader { index: 2, flags, ..LinkHeader::default() };
        let message = Bytes::of(&header).with(3, b"x0").with(18, &info.0);
        not_kept(&Numbered::parse(&message.0).unwrap().unwrap())
    };
    assert_eq!(
        link("bond", true).unwrap(),
        "x0, which is a bond: it is there only if the old system leaves it"
    );
    for kept in [link("bond", false), link("vlan", true), link("bridge", true), link("veth", true)] {
        assert_eq!(kept, None);
    }
}

#[test]
fn what_cannot_be_set_again_of_a_route_is_told_and_its_metrics_are_kept() {
    let said = |message: &RouteMessage| match route_from(&bytes(message), &links()) {
        Ok(Found::LeftOut(why)) => why,
        other => panic!("{other:?}"),
    };
    let mut message = default_route();
    message.header.kind = RouteType::BlackHole;
    assert_eq!(said(&message), "the route to 0.0.0.0/0, which is none to a host (blackhole)");
    let mut message = default_route();
    message.header.tos = 16;
    assert_eq!(said(&message), "the route to 0.0.0.0/0, which is for a source or a type of service alone");
    message.header.tos = 0;
    message.header.source_prefix_length = 64;
    assert_eq!(said(&message), "the route to 0.0.0.0/0, which is for a source or a type of service alone");
    let whole = bytes(&default_route());
    let tunnel = Bytes(whole.clone()).with(22, &[8, 0, 1, 0, 1, 0, 0, 0]);
    let Ok(Found::LeftOut(why)) = route_from(&tunnel.0, &links()) else { panic!("no word") };
    assert_eq!(why, "the route to 0.0.0.0/0, which leads into a tunnel");
    let mtu = Bytes::default().with(2, &1_400_u32.to_ne_bytes()).0;
    let Ok(Found::Route(route)) = route_from(&Bytes(whole).with(8, &mtu).0, &links()) else {
        panic!("no route")
    };
    assert_eq!(route.metrics, mtu);
}

#[test]
fn an_address_that_another_device_has_is_known() {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.attributes.push(AddressAttribute::Address("fd00::5".parse().unwrap()));
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Dadfailed));
    assert!(matches!(address_from(&bytes(&message)), Ok(Some((0, _, true)))));
}
