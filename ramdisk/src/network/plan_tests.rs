use super::super::link::with_names;
use super::super::state::Kind;
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An interface as the kernel shows it.
fn present(index: u32, name: &str, mac: &str, kind: Option<&str>) -> Numbered {
    let mut message = Bytes::of(&LinkHeader { index, flags: LinkFlags::Up, ..LinkHeader::default() })
        .with(IFLA_IFNAME, &zero_ended(name))
        .with(IFLA_MTU, &1500_u32.to_ne_bytes());
    if let Some(mac) = hardware_bytes(mac) {
        message = message.with(IFLA_ADDRESS, &mac);
    }
    if let Some(kind) = kind {
        message = message.with(IFLA_LINKINFO, &Bytes::default().with(IFLA_INFO_KIND, kind.as_bytes()).0);
    }
    with_names(vec![Numbered::parse(&message.0).unwrap().unwrap()]).remove(0)
}

const MAC: &str = "02:00:00:00:00:01";

fn link(name: &str) -> Link {
    Link { name: name.into(), mac: Some(MAC.into()), up: true, mtu: Some(1500), ..Link::default() }
}

fn made(name: &str, kind: &str, parent: Option<&str>) -> Link {
    let kind = Kind { name: kind.into(), parent: parent.map(str::to_owned), data: vec![] };
    Link { kind: Some(kind), ..link(name) }
}

fn address(ip_text: &str) -> Address {
    Address::global(ip(ip_text), 24)
}

/// A VLAN on a bridge that eth0 is a port of.
fn state() -> NetworkState {
    let eth0 = Link { master: Some("br0".into()), ..link("eth0") };
    let vlan = Link { addresses: vec![address("10.0.5.1")], ..made("br0.5", "vlan", Some("br0")) };
    let br0 = Link {
        addresses: vec![address("10.0.2.77")],
        ipv6: BTreeMap::from([("accept_ra".to_owned(), "0".to_owned())]),
        ..made("br0", "bridge", None)
    };
    NetworkState { links: vec![vlan, eth0, br0], ..NetworkState::default() }
}

fn whats(requests: &[Request]) -> Vec<&str> {
    requests.iter().map(|request| request.what.as_str()).collect()
}

fn settings_text(present: &[Numbered], state: &NetworkState) -> Vec<String> {
    let text = |step: Result<Step, NetworkError>| match step {
        Ok(Step::Ask(request)) => request.what,
        Ok(Step::Write(path, value)) => format!("{}={value}", path.display()),
        Err(error) => error.to_string(),
    };
    settings(present, state).into_iter().map(text).collect()
}

#[test]
fn what_is_missing_is_made_from_the_bottom_up_round_by_round() {
    let mut there = vec![present(2, "eth0", MAC, None)];
    assert_eq!(whats(&to_make(&there, &state())), ["make br0"]);
    there.push(present(3, "br0", MAC, Some("bridge")));
    assert_eq!(whats(&to_make(&there, &state())), ["make br0.5"]);
    there.push(present(4, "br0.5", MAC, Some("vlan")));
    assert_eq!(to_make(&there, &state()), []);
}

#[test]
fn everything_is_set_in_the_order_in_which_it_can_be() {
    let there = [
        present(1, "lo", "", None),
        present(2, "eth0", MAC, None),
        present(3, "br0", MAC, Some("bridge")),
        present(4, "br0.5", MAC, Some("vlan")),
    ];
    assert_eq!(
        settings_text(&there, &state()),
        [
            "bring lo up",
            "add eth0 to br0",
            "proc/sys/net/ipv6/conf/br0/accept_ra=0",
            "bring eth0 up",
            "bring br0 up",
            "add 10.0.2.77/24 to br0",
            "bring br0.5 up",
            "add 10.0.5.1/24 to br0.5",
        ]
    );
}

#[test]
fn only_what_differs_is_changed_and_a_hardware_address_only_while_the_device_is_off() {
    let there = [present(2, "eth0", "02:00:00:00:00:09", None)];
    let wanted = Link { mtu: Some(9000), ..link("eth0") };
    let state = NetworkState { links: vec![wanted], ..NetworkState::default() };
    assert_eq!(
        settings_text(&there, &state),
        [
            "take eth0 down",
            "set the hardware address of eth0",
            "set the packet size of eth0 to 9000",
            "bring eth0 up"
        ]
    );
    let same = NetworkState { links: vec![link("eth0")], ..NetworkState::default() };
    assert_eq!(settings_text(&[present(2, "eth0", MAC, None)], &same), ["bring eth0 up"]);
}

#[test]
fn an_ipv6_address_was_proven_before_and_is_not_proven_again() {
    // IFA_FLAGS with IFA_F_NODAD, of the kernel's if_addr.h
    let no_dad = Bytes::default().with(8, &2_u32.to_ne_bytes()).0;
    let flagged =
        |address: &Address| add_address(&present(2, "eth0", MAC, None), address).message.0.ends_with(&no_dad);
    assert!(flagged(&address("fd00:5::1")));
    assert!(!flagged(&address("10.0.5.1")) && !flagged(&address("::1")));
    assert!(flagged(&Address { no_dad: true, ..address("::1") }));
}

#[test]
fn a_device_is_found_by_name_and_a_renamed_one_by_its_hardware_address() {
    let all = [
        present(1, "lo", "", None),
        present(2, "eth0", MAC, None),
        present(3, "lan", "02:00:00:00:00:02", None),
        present(4, "br0", "02:00:00:00:00:02", Some("bridge")),
    ];
    let index = |name: &str, mac: Option<&str>| {
        let wanted = Link { mac: mac.map(str::to_owned), ..link(name) };
        find(&all, &wanted).map(|found| found.index)
    };
    assert_eq!(index("eth0", Some("02:00:00:00:00:02")), Some(2));
    assert_eq!(index("eth1", Some("02:00:00:00:00:02")), Some(3));
    assert_eq!(index("eth1", None), None);
    assert_eq!(index("eth1", Some("02:00:00:00:00:03")), None);
}

#[test]
fn a_hardware_address_that_two_devices_share_finds_neither() {
    let all = [present(2, "eth5", MAC, None), present(3, "lan", MAC, None)];
    assert!(find(&all, &link("eth0")).is_none());
}

#[test]
fn a_vlan_that_is_gone_is_never_taken_for_the_device_whose_hardware_address_it_has() {
    let there = [present(2, "eth0", MAC, None)];
    let vlan = Link { addresses: vec![address("10.0.5.1")], ..made("eth0.5", "vlan", Some("eth7")) };
    let state = NetworkState { links: vec![vlan], ..NetworkState::default() };
    assert_eq!(to_make(&there, &state), []);
    assert_eq!(
        settings_text(&there, &state),
        ["interface eth0.5 is not there (hardware address 02:00:00:00:00:01)"]
    );
}

#[test]
fn interfaces_that_lie_on_each_other_come_to_an_end() {
    let links = [made("a", "vlan", Some("b")), made("b", "vlan", Some("a"))];
    assert_eq!(lowest_first(&links).len(), 2);
}

#[test]
fn routes_that_reach_a_gateway_come_before_those_that_need_it() {
    let route = |prefix: u8, gateway: Option<&str>| Route {
        destination: ip("10.0.0.0"),
        prefix,
        gateway: gateway.map(ip),
        dev: None,
        source: None,
        metric: None,
        table: 254,
        scope: 0,
        protocol: 4,
        onlink: false,
        metrics: Vec::new(),
    };
    let routes = [route(0, Some("10.0.0.1")), route(16, Some("10.9.0.1")), route(8, None)];
    let prefixes: Vec<u8> = in_order(&routes).iter().map(|route| route.prefix).collect();
    assert_eq!(prefixes, [8, 16, 0]);
}
