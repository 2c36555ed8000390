//! The network's state read from a kernel and set again, in a network namespace of its own.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use ramdisk::network::{Address, NetworkState, Route};

/// Makes an interface, reads the state, takes everything away, and sets it twice.
const STORY: &str = r#"
set -e
ip link set lo up
ip link add v0 address 02:00:00:00:00:01 type veth peer name v1
ip link set v1 up
ip link set v0 up
ip address add 10.1.2.3/24 dev v0
ip address add 10.7.0.1 peer 10.7.0.2/32 dev v0
ip -6 address add fd00::5/64 dev v0 nodad
ip route add 10.9.0.0/16 dev v0 scope link
ip route add default via 10.1.2.1 metric 7 proto dhcp
ip route add 10.8.0.0/16 via 10.9.0.1 src 10.1.2.3
ip -6 route add default via fd00::1
"$NETWORK" > first.json
ip link set v0 down
ip address flush dev v0
ip link set lo down
"$NETWORK" > none.json
"$NETWORK" first.json > second.json 2> errors
"$NETWORK" first.json > third.json 2>> errors
ip -4 route show default > default-route
ip link show lo > lo
"#;

/// `unshare` with a network namespace; for one who is not root, with one of users in which he is.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::Uid::effective().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--net");
    command
}

/// A bridge with a port, a VLAN on it (where this kernel has such), addresses that end, another table: all of it is taken
/// away, as an old system may do on its way out, and set again.
const TORN_DOWN: &str = r#"
set -e
ip link set lo up
ip link add v0 address 02:00:00:00:00:01 type veth peer name v1
ip link set v1 up
ip link add br0 address 02:00:00:00:00:01 type bridge forward_delay 0 ageing_time 5000
ip link set v0 master br0
ip link set v0 mtu 1400
ip link set v0 up
ip link set br0 up
ip link add link br0 name br0.5 type vlan id 5 2> /dev/null && ip link set br0.5 up && ip address add 10.5.0.1/24 dev br0.5 || true
echo 0 > /proc/sys/net/ipv6/conf/br0/accept_ra
ip address add 10.1.2.3/24 brd + dev br0 valid_lft 600 preferred_lft 300
ip address add 10.1.2.4/24 dev br0 label br0:1
ip address add 10.1.3.1/32 dev br0 scope link noprefixroute
ip -6 address add fd00::5/64 dev br0 nodad valid_lft 600 preferred_lft 300
ip -6 address add fd00::6/64 dev br0
for i in $(seq 300); do ip -6 address show dev br0 tentative | grep -q fd00::6 || break; sleep 0.1; done
ip route add default via 10.1.2.1 metric 7 proto dhcp
ip route add default via 10.1.2.9 table 1000
ip route add 10.77.0.0/16 via 10.1.2.8 table 100 src 10.1.2.4
ip -6 route add default via fd00::1 metric 5
ip -6 route add fd77::/16 via fd00::2 table 100
ip -6 route add fd88::/16 via fd00::2 src fd00::6 mtu 1300
ip route add 10.78.0.0/16 via 10.1.2.8 mtu lock 1200 advmss 1100
ip route add blackhole 10.79.0.0/16
ip rule add from 10.1.2.4 lookup 1000 priority 7
ip rule add not to 10.9.0.0/16 iif br0 lookup 100 priority 9
ip -6 rule add from fd00::/64 lookup 100 priority 8
show() {
    ip -d address show | sed -e '/valid_lft/d' -e 's/^[0-9]*: //' -e 's/ dynamic//'
    ip route show table all type unicast | sort
    ip -6 route show table all type unicast | grep -v fe80 | sort
    ip rule; ip -6 rule
    head /proc/sys/net/ipv6/conf/*/accept_ra /proc/sys/net/ipv6/conf/*/disable_ipv6
    ip -d link show | grep -o "forward_delay [0-9]*" || true; ip -d link show | grep -o "ageing_time [0-9]*" || true
}
"$NETWORK" > first.json
show > before
"$NETWORK" first.json > in-place.json 2> errors
show > unchanged
ip address show dev br0 | grep -c 'valid_lft [0-9]' > limited || true
ip link del br0
ip rule del priority 7; ip rule del priority 9; ip -6 rule del priority 8
ip link set v0 down
ip link set v0 mtu 1500
show > gone
"$NETWORK" first.json > second.json 2>> errors
"$NETWORK" first.json > third.json 2>> errors
show > after
ip address show dev br0 | grep -c 'valid_lft [0-9]' >> limited || true
"#;

#[test]
fn bridges_vlans_tables_rules_and_ipv6_that_the_old_system_took_down_come_back_as_they_were() {
    let Some(dir) = run_story(TORN_DOWN) else { return };
    let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    assert_eq!(text("errors"), "");
    // What the kernel makes by itself, and how a port is at the moment, is not the state's.
    let kernels = ["link/", "bridge", "veth", "fe80", "proto kernel", "gso_max"];
    let shown = |name: &str| {
        let text = text(name);
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| !kernels.iter().any(|word| line.contains(word)))
            .map(|line| line.replace(" tentative", "").replace(" nodad", ""))
            .collect();
        // IPv6 addresses are listed with the last one first.
        lines.sort();
        lines.join("\n")
    };
    assert_eq!(shown("before"), shown("unchanged"), "setting what is there changes nothing");
    // The test can fail.
    for kept in [
        "10.1.2.3/24",
        "fd00::5/64",
        "lookup 1000",
        "forward_delay 0",
        "src fd00::6",
        "mtu 1300",
        "mtu lock 1200 advmss 1100",
        "mtu 1400 qdisc noqueue master br0",
    ] {
        assert!(shown("before").contains(kept), "{kept}: {}", shown("before"));
        assert!(!shown("gone").contains(kept), "{kept}: {}", shown("gone"));
    }
    assert_eq!(shown("before"), shown("after"));
    let first = NetworkState::read(&dir.path().join("first.json")).unwrap().unwrap();
    let blackhole = "the route to 10.79.0.0/16, which is none to a host";
    assert!(first.left_out.iter().any(|lost| lost.starts_with(blackhole)), "{:?}", first.left_out);
    assert_eq!(text("limited"), "0\n0\n", "an address would end in the maintenance root");
    let [second, third] = ["second.json", "third.json"].map(text);
    let routes = |text: &str| text.get(text.find("\"routes\"").unwrap()..).unwrap().to_owned();
    assert_eq!(routes(&second), routes(&third));
}

/// Runs a shell story in a network namespace of its own; none if that is not permitted.
fn run_story(story: &str) -> Option<tempfile::TempDir> {
    let permitted =
        unshare().args(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]).output();
    if !permitted.as_ref().is_ok_and(|output| output.status.success()) {
        let _ = writeln!(
            std::io::stdout(),
            "\nDID NOT RUN: no network namespace with a veth pair: {permitted:?}"
        );
        return None;
    }
    let tests = std::env::current_exe().unwrap();
    let example: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples/network");
    let dir = tempfile::tempdir().unwrap();
    let output =
        unshare().args(["sh", "-c", story]).env("NETWORK", example).current_dir(&dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(dir)
}

#[test]
fn what_was_read_is_set_again_and_setting_it_twice_changes_nothing() {
    let Some(dir) = run_story(STORY) else { return };
    let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let state = |name: &str| NetworkState::read(&dir.path().join(name)).unwrap().unwrap();

    let first = state("first.json");
    let v0 = first.links.iter().find(|link| link.name == "v0").unwrap();
    assert_eq!(v0.mac.as_deref(), Some("02:00:00:00:00:01"));
    let address = |ip: &str, prefix, peer: Option<&str>| Address {
        peer: peer.map(|peer| peer.parse().unwrap()),
        label: Some("v0".into()).filter(|_| !ip.contains(':')),
        no_dad: ip.contains(':'),
        ..Address::global(ip.parse().unwrap(), prefix)
    };
    assert_eq!(
        v0.addresses,
        [
            address("10.1.2.3", 24, None),
            address("10.7.0.1", 32, Some("10.7.0.2")),
            address("fd00::5", 64, None)
        ]
    );
    let default = Route {
        destination: "0.0.0.0".parse().unwrap(),
        prefix: 0,
        gateway: Some("10.1.2.1".parse().unwrap()),
        dev: Some("v0".into()),
        source: None,
        metric: Some(7),
        table: 254,
        scope: 0,
        protocol: 16,
        onlink: false,
        metrics: vec![],
    };
    assert!(first.routes.contains(&default), "{:?}", first.routes);
    assert_eq!(first.routes.len(), 4, "{:?}", first.routes);

    // The test can fail: there was nothing left to find.
    assert!(state("none.json").routes.is_empty());
    assert!(state("none.json").links.iter().all(|link| link.addresses.is_empty() || !link.up));

    assert_eq!(text("errors"), "");
    for again in ["second.json", "third.json"] {
        let again = state(again);
        assert_eq!(sorted(again.routes), sorted(first.routes.clone()));
        for link in &first.links {
            let set = again.links.iter().find(|set| set.name == link.name).unwrap();
            let sort = |addresses: &[Address]| {
                let mut all: Vec<String> = addresses.iter().map(|address| format!("{address:?}")).collect();
                all.sort();
                all
            };
            assert_eq!(sort(&set.addresses), sort(&link.addresses), "{}", link.name);
            assert!(set.up || link.name == "lo" || !link.up);
        }
    }
    assert_eq!(text("default-route").trim(), "default via 10.1.2.1 dev v0 proto dhcp metric 7");
    assert!(text("lo").contains("UP"), "{}", text("lo"));
}

fn sorted(routes: Vec<Route>) -> Vec<String> {
    let mut all: Vec<String> = routes.iter().map(|route| format!("{route:?}")).collect();
    all.sort();
    all
}
