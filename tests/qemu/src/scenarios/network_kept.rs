//! The device comes back where it was, whatever its network is made of, whoever gave it its addresses, and whatever the
//! old system did to it: its ssh server answers at each address, by IPv4 and IPv6, on a bridge and in a VLAN.

use std::net::IpAddr;

use super::minutes;
use crate::assets::Assets;
use crate::check::check;
use crate::firmware::Firmware;
use crate::line::{self, Nobody};
use crate::machine::{Device, Machine};
use crate::peer::Peer;
use crate::suite::{Board, Failure, Scenario};

/// The promises kept here.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "a_dhcp_lease_on_a_bridge_a_vlan_and_ipv6_are_kept_although_the_old_system_took_them_down",
    board: Board::Virt,
    limit: minutes(5),
    run,
}];

/// What QEMU's DHCP server gives: another address than the device had.
const LEASED: &str = "10.0.2.15";
/// The prefix of QEMU's router advertisements, and its router there.
const ADVERTISED: &str = "fec0::";

/// Where somebody connects to from outside: within which VLAN, the neighbour's own address, and the device's.
const DOORS: [(Option<u16>, &str, u8, &str); 3] = [
    (None, "fd00:1::2", 64, "fd00:1::1"),
    (Some(5), "10.5.0.2", 24, "10.5.0.1"),
    (Some(5), "fd00:5::2", 64, "fd00:5::1"),
];

/// Moves eth0, and eth1 with a neighbour at its other end, to a bridge that gets its address by DHCP, and puts a VLAN with
/// IPv6 on top (tables and rules: this kernel has none; they are tested in a network namespace). The client goes on
/// running, as it does on a device.
const SET_UP: &str = "\
    ip link add br0 type bridge
    echo 0 > /sys/class/net/br0/bridge/forward_delay
    ip address flush dev eth0
    ip link set eth0 master br0
    ip link set eth1 master br0
    ip link set eth1 up
    ip link set br0 up
    cat > /tmp/lease <<'SCRIPT'
#!/bin/sh
case $1 in
bound | renew)
    ip address replace $ip/$mask dev $interface
    ip route replace default via $router
    echo search lan > /run/resolv.conf
    for server in $dns; do echo nameserver $server >> /run/resolv.conf; done
    echo $ip $lease > /run/lease;;
esac
SCRIPT
    chmod +x /tmp/lease
    rm /run/resolv.conf
    busybox udhcpc -b -i br0 -s /tmp/lease -p /run/udhcpc.pid
    ip -6 address add fd00:1::1/64 dev br0
    ip link add link br0 name br0.5 type vlan id 5
    ip link set br0.5 up
    ip address add 10.5.0.1/24 dev br0.5
    echo 0 > /proc/sys/net/ipv6/conf/br0.5/accept_ra
    ip -6 address add fd00:5::1/64 dev br0.5
    ip -6 route add fd77::/16 via fd00:5::2
    ip route add 10.88.0.0/16 via 10.5.0.2 metric 7
    echo moved > /dev/console
";

/// What the last script of a system may do before PID 1 hands over.
const TAKE_DOWN: &str = "\
    ip link del br0.5
    ip link set br0 down
    ip link del br0
    ip link set eth0 down
    ip link set eth1 down
    echo interfaces left: $(ls /sys/class/net) > /dev/console
";

/// Everything a person would look at, without the interfaces' numbers and what the kernel makes by itself; what comes by
/// router advertisements is looked at by [`advertised`]. Flag 02 is NODAD: restored addresses are not proven again.
const SHOW: &str = "\
    { ip address show; ip route; ip -6 route show; } |
    sed -e 's/^[0-9]*: //' -e 's/ tentative//' -e 's/ flags 02//' -e '/valid_lft/d' -e '/fe80/d' -e '/ff00/d' -e '/fec0/d' -e '/^::1 /d' \
        -e 's/NO-CARRIER,//' -e 's/,LOWER_UP//' | sort
    grep . /proc/net/vlan/br0.5 | head -n 1
    cat /sys/class/net/br0/bridge/forward_delay /proc/sys/net/ipv6/conf/br0.5/accept_ra
    cat /etc/resolv.conf
    hostname
";

fn run(assets: &Assets) -> Result<(), Failure> {
    let firmware = Firmware::build(assets)?;
    let device = Device::new(assets, &firmware)?;
    let (mut machine, _) = line::power_on(&device, &firmware, 1)?;
    let peer = Peer::at(&device.file("neighbour"), &device.file("card"), |card, own| {
        machine.plug_network(card, own)
    })?;
    line::wait_until(&machine, "test -e /sys/class/net/eth1", line::BOOT)?;
    in_the_background(&machine, SET_UP)?;
    machine.console.wait_for("moved", 0, line::BOOT)?;
    machine.lead_to(LEASED)?;
    machine.ssh.wait_for_login(line::BOOT)?;
    let lease = machine.ssh.succeed("cat /run/lease; kill -0 $(cat /run/udhcpc.pid)")?;
    check!(lease.starts_with(&format!("{LEASED} ")), "the DHCP client has no lease of {LEASED}: {lease}");
    let address = advertised(&machine)?;
    let before = show(&machine)?;
    for kept in [
        &format!("inet {LEASED}/24 scope global br0"),
        "default via 10.0.2.2 dev br0",
        "nameserver 10.0.2.3",
        "inet6 fd00:1::1/64 scope global",
        "inet6 fd00:5::1/64 scope global",
        "10.88.0.0/16 via 10.5.0.2 dev br0.5",
        "fd77::/16 via fd00:5::2 dev br0.5",
        "br0.5  VID: 5",
    ] {
        check!(before.contains(kept), "the test's own network has no {kept:?}:\n{before}");
    }
    every_door(&peer)?;

    line::levitate(&machine, &mut Nobody)?;
    let finish = "/run/service/.s6-svscan/finish";
    machine.ssh.succeed(&format!(
        "cat > /run/take-down <<'END'\n{TAKE_DOWN}END\nsed -i '1a . /run/take-down' {finish}"
    ))?;
    line::enter_maintenance(&machine)?;
    let console = machine.console.text();
    let left = console.lines().find(|line| line.starts_with("interfaces left: ")).unwrap_or_default();
    check!(
        left.contains("eth0") && !left.contains("br0"),
        "the old system did not take down everything: {left:?}"
    );
    let log = machine.ssh.succeed("cat /run/log/current")?;
    check!(!log.contains(" init cannot "), "the init could not do everything:\n{log}");
    let after = show(&machine)?;
    check!(before == after, "before:\n{before}\nin the maintenance root:\n{after}");
    every_door(&peer)?;
    let again = advertised(&machine)?;
    check!(address == again, "by router advertisements it was {address}, in the maintenance root {again}");
    Ok(())
}

/// The ssh server answers at each of the addresses, on the wire.
fn every_door(peer: &Peer) -> Result<(), Failure> {
    for (vlan, own, length, device) in DOORS {
        let [own, device] = [own, device].map(|text| text.parse::<IpAddr>().map_err(Failure::harness));
        let said = peer.greeted(vlan, (own?, length), device?, line::BOOT)?;
        check!(said.starts_with("SSH-2.0-"), "the server says {said:?}");
    }
    Ok(())
}

/// The address that br0 made from the advertised prefix, once it is there and the advertised route is.
fn advertised(machine: &Machine) -> Result<String, Failure> {
    let ready = format!(
        "ip -6 address show dev br0 | grep 'inet6 {ADVERTISED}' | grep -vq tentative &&
         ip -6 route | grep -q '^default via fe80::2 dev br0'"
    );
    line::wait_until(machine, &ready, line::BOOT)?;
    machine
        .ssh
        .succeed(&format!("ip -6 address show dev br0 | sed -n 's/.*inet6 \\({ADVERTISED}[^ ]*\\).*/\\1/p'"))
}

/// The address that a session came in by may move under it.
fn in_the_background(machine: &Machine, script: &str) -> Result<(), Failure> {
    let start = "setsid sh -e /tmp/script > /dev/console 2>&1 < /dev/null &";
    machine.ssh.succeed(&format!("cat > /tmp/script <<'END'\n{script}END\n{start}")).map(drop)
}

fn show(machine: &Machine) -> Result<String, Failure> {
    machine.ssh.succeed(SHOW)
}
