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

#[test]
fn what_was_read_is_set_again_and_setting_it_twice_changes_nothing() {
    let permitted =
        unshare().args(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"]).output();
    if !permitted.as_ref().is_ok_and(|output| output.status.success()) {
        let _ = writeln!(
            std::io::stdout(),
            "\nDID NOT RUN: no network namespace with a veth pair: {permitted:?}"
        );
        return;
    }
    let tests = std::env::current_exe().unwrap();
    let example: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples/network");
    let dir = tempfile::tempdir().unwrap();
    let output =
        unshare().args(["sh", "-c", STORY]).env("NETWORK", example).current_dir(&dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let state = |name: &str| NetworkState::read(&dir.path().join(name)).unwrap().unwrap();

    let first = state("first.json");
    let v0 = first.links.iter().find(|link| link.name == "v0").unwrap();
    assert_eq!(v0.mac.as_deref(), Some("02:00:00:00:00:01"));
    let address = |ip: &str, prefix, peer: Option<&str>| Address {
        ip: ip.parse().unwrap(),
        prefix,
        peer: peer.map(|peer| peer.parse().unwrap()),
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
        scope: 0,
        protocol: 16,
        onlink: false,
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
