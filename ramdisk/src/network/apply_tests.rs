use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn present(index: u32, name: &str, mac: Option<&str>) -> Present {
    let link = Link { name: name.into(), mac: mac.map(str::to_owned), up: true, addresses: vec![] };
    Present { index, link }
}

fn route(prefix: u8, gateway: Option<&str>) -> Route {
    Route {
        destination: ip("10.0.0.0"),
        prefix,
        gateway: gateway.map(ip),
        dev: None,
        source: None,
        metric: None,
        scope: 0,
        protocol: 4,
        onlink: false,
    }
}

#[test]
fn an_interface_is_found_by_name_and_a_renamed_one_by_its_hardware_address() {
    let all = [present(1, "lo", None), present(2, "eth0", Some("02::1")), present(3, "lan", Some("02::2"))];
    let index = |name, mac| find(&all, &present(0, name, mac).link).map(|found| found.index);
    assert_eq!(index("eth0", Some("02::2")), Some(2));
    assert_eq!(index("eth1", Some("02::2")), Some(3));
    assert_eq!(index("eth1", None), None);
    assert_eq!(index("eth1", Some("02::3")), None);
}

#[test]
fn a_hardware_address_that_two_interfaces_share_finds_neither() {
    let all = [present(2, "br0", Some("02::1")), present(3, "lan", Some("02::1"))];
    assert!(find(&all, &present(0, "eth0", Some("02::1")).link).is_none());
}

#[test]
fn routes_that_reach_a_gateway_come_before_those_that_need_it() {
    let routes = [route(0, Some("10.0.0.1")), route(16, Some("10.9.0.1")), route(8, None)];
    let prefixes: Vec<u8> = in_order(&routes).iter().map(|route| route.prefix).collect();
    assert_eq!(prefixes, [8, 16, 0]);
}

#[test]
fn an_ipv4_address_brings_its_broadcast_address_where_there_is_one() {
    let broadcast = |ip_text: &str, prefix, peer: Option<&str>| {
        let message = address_message(2, &Address { ip: ip(ip_text), prefix, peer: peer.map(ip) });
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Broadcast(ip) => Some(ip.to_string()),
            _ => None,
        })
    };
    assert_eq!(broadcast("10.1.2.3", 24, None).as_deref(), Some("10.1.2.255"));
    assert_eq!(broadcast("10.1.2.3", 0, None).as_deref(), Some("255.255.255.255"));
    assert_eq!(broadcast("10.1.2.3", 31, None), None);
    assert_eq!(broadcast("10.1.2.3", 32, Some("10.1.2.4")), None);
    assert_eq!(broadcast("fd00::5", 64, None), None);
}
