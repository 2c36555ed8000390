//! Interfaces that carry nothing without a program beside them: the addresses come along into the maintenance root, the
//! program does not unless a service is configured for it. Who reaches the device through one is told beforehand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ramdisk::network::{Link, NetworkState};
use ramdisk::path::Root;
use ramdisk::service::Service;

use super::services::{own_programs, words};

/// Where the kernel describes its interfaces.
const INTERFACES: &str = "sys/class/net";
/// A bridge over a VLAN over a bridge is as deep as it gets.
const DEEPEST: usize = 4;

/// What an interface is, as far as it needs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    WiFi,
    Modem,
    Ppp,
    Tunnel,
}

impl Medium {
    /// Of the interface `name` in sysfs below `root`; none if it does without a program. A wireguard interface is one of
    /// those: the kernel has the keys.
    fn of(root: &Root, name: &str) -> Option<Self> {
        let at = root.dir().join(INTERFACES).join(name);
        let uevent = fs::read_to_string(at.join("uevent")).unwrap_or_default();
        let has = |file: &str| fs::symlink_metadata(at.join(file)).is_ok();
        match uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=")) {
            Some("wlan") => Some(Self::WiFi),
            Some("wwan") => Some(Self::Modem),
            Some("ppp") => Some(Self::Ppp),
            // drivers outside the kernel's own tree say nothing
            _ if has("phy80211") || has("wireless") => Some(Self::WiFi),
            _ if has("tun_flags") => Some(Self::Tunnel),
            _ => None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::WiFi => "Wi-Fi",
            Self::Modem => "a mobile modem",
            Self::Ppp => "a PPP link",
            Self::Tunnel => "a tunnel of a program's",
        }
    }

    /// Programs that keep it alive. The first one is named to people.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::WiFi => &["wpa_supplicant", "hostapd", "iwd", "wpad", "NetworkManager", "connmand"],
            Self::Modem => &[
                "ModemManager",
                "uqmi",
                "umbim",
                "qmicli",
                "mbimcli",
                "qmi-network",
                "mbim-network",
                "quectel-CM",
                "NetworkManager",
                "connmand",
            ],
            Self::Ppp => &["pppd", "wvdial", "pon", "xl2tpd"],
            Self::Tunnel => &[
                "openvpn",
                "tailscaled",
                "zerotier-one",
                "tincd",
                "openconnect",
                "vpnc",
                "nebula",
                "wireguard-go",
            ],
        }
    }
}

/// One line for each interface through which the device is reached now and will not be.
pub(super) fn warnings(root: &Root, network: &NetworkState, services: &[Service]) -> Vec<String> {
    let media =
        network.links.iter().filter_map(|link| Some((link.name.clone(), Medium::of(root, &link.name)?)));
    let run: BTreeSet<String> = services
        .iter()
        .flat_map(|service| own_programs(service).flat_map(words).collect::<Vec<_>>())
        .filter_map(|word| Some(Path::new(&word).file_name()?.to_string_lossy().into_owned()))
        .collect();
    decide(network, &media.collect(), &run)
}

/// `media`: the interfaces that need a program; `run`: names of programs that services run.
fn decide(network: &NetworkState, media: &BTreeMap<String, Medium>, run: &BTreeSet<String>) -> Vec<String> {
    let dies = |name: &str| {
        let (real, medium) = needs(network, media, name, DEEPEST)?;
        let is_run = medium.programs().iter().any(|program| run.contains(*program));
        (!is_run).then(|| line(name, real, medium))
    };
    let routes = network.routes.iter().filter(|route| route.prefix == 0);
    let by_route: BTreeSet<&str> = routes.filter_map(|route| route.dev.as_deref()).collect();
    if !by_route.is_empty() {
        return by_route.into_iter().filter_map(dies).collect();
    }
    // without a default route any address may be the way, and one that stays is enough
    let has_address =
        |link: &&Link| link.up && link.addresses.iter().any(|address| !address.ip.is_loopback());
    let addressed = network.links.iter().filter(has_address).map(|link| link.name.as_str());
    addressed.map(dies).collect::<Option<_>>().unwrap_or_default()
}

fn line(name: &str, real: &str, medium: Medium) -> String {
    let over = if real == name { String::new() } else { format!(" (over {real})") };
    let first = medium.programs().first().copied().unwrap_or_default();
    format!(
        "this device is reached through {name}{over}, which is {}, and no service of the maintenance root runs {first} or the \
         like: it will not be reachable through it there; configure such a service, and name its files in files",
        medium.words()
    )
}

/// What of an interface, or of all that it lies on, needs a program.
fn needs<'a>(
    network: &'a NetworkState,
    media: &BTreeMap<String, Medium>,
    name: &'a str,
    deep: usize,
) -> Option<(&'a str, Medium)> {
    if let Some(medium) = media.get(name) {
        return Some((name, *medium));
    }
    let deeper = deep.checked_sub(1)?;
    let link = network.links.iter().find(|link| link.name == name)?;
    if let Some(parent) = link.kind.as_ref().and_then(|kind| kind.parent.as_deref()) {
        return needs(network, media, parent, deeper);
    }
    // a bridge with one port that stays is still a way in
    let ports = network.links.iter().filter(|port| port.up && port.master.as_deref() == Some(name));
    let all: Option<Vec<_>> = ports.map(|port| needs(network, media, &port.name, deeper)).collect();
    all?.first().copied()
}

#[cfg(test)]
mod tests {
    use ramdisk::network::{Address, Kind, Route};
    use ramdisk::service::Program;

    use super::*;
    use crate::arming::Event;
    use crate::fixture::{CONFIG, OldSystem};

    fn link(name: &str, address: Option<&str>) -> Link {
        let address = address.map(|ip| Address::global(ip.parse().unwrap(), 24));
        Link { name: name.into(), up: true, addresses: address.into_iter().collect(), ..Link::default() }
    }

    fn default_route(dev: &str) -> Route {
        Route {
            destination: "0.0.0.0".parse().unwrap(),
            prefix: 0,
            gateway: Some("192.168.1.1".parse().unwrap()),
            dev: Some(dev.into()),
            source: None,
            metric: None,
            table: 254,
            scope: 0,
            protocol: 3,
            onlink: false,
            metrics: Vec::new(),
        }
    }

    fn network(links: &[Link], routes: &[&str]) -> NetworkState {
        let routes = routes.iter().map(|dev| default_route(dev)).collect();
        NetworkState { links: links.to_vec(), routes, ..NetworkState::default() }
    }

    /// The names of the interfaces that are warned about.
    fn told(network: &NetworkState, media: &[(&str, Medium)], run: &[&str]) -> Vec<String> {
        let media = media.iter().map(|(name, medium)| ((*name).to_owned(), *medium)).collect();
        let lines = decide(network, &media, &run.iter().map(|name| (*name).to_owned()).collect());
        let name = |line: String| {
            let rest = line.strip_prefix("this device is reached through ").unwrap();
            rest.split_once(", which is ").unwrap().0.to_owned()
        };
        lines.into_iter().map(name).collect()
    }

    const WLAN0: (&str, Medium) = ("wlan0", Medium::WiFi);

    #[test]
    fn wi_fi_under_the_default_route_is_told_unless_a_service_keeps_it() {
        let both = network(&[link("eth0", Some("10.0.0.2")), link("wlan0", Some("192.168.1.2"))], &["wlan0"]);
        assert_eq!(told(&both, &[WLAN0], &[]), ["wlan0"]);
        assert_eq!(told(&both, &[WLAN0], &["pppd"]), ["wlan0"]);
        for program in ["wpa_supplicant", "iwd", "hostapd"] {
            assert_eq!(told(&both, &[WLAN0], &[program]), [""; 0], "{program}");
        }
        let wired = network(&both.links, &["eth0"]);
        assert_eq!(told(&wired, &[WLAN0], &[]), [""; 0]);
    }

    #[test]
    fn without_a_default_route_one_address_that_stays_is_enough() {
        let lo = link("lo", Some("127.0.0.1"));
        let (eth0, wlan0) = (link("eth0", Some("10.0.0.2")), link("wlan0", Some("192.168.1.2")));
        assert_eq!(told(&network(&[lo.clone(), wlan0.clone()], &[]), &[WLAN0], &[]), ["wlan0"]);
        assert_eq!(told(&network(&[lo.clone(), eth0, wlan0.clone()], &[]), &[WLAN0], &[]), [""; 0]);
        let unplugged = Link { up: false, ..link("eth0", Some("10.0.0.2")) };
        assert_eq!(told(&network(&[lo, unplugged, wlan0], &[]), &[WLAN0], &[]), ["wlan0"]);
        assert_eq!(told(&NetworkState::default(), &[], &[]), [""; 0]);
    }

    #[test]
    fn a_bridge_and_a_vlan_are_what_they_lie_on() {
        let bridge = link("br0", Some("192.168.1.2"));
        let port = |name: &str| Link { master: Some("br0".into()), ..link(name, None) };
        let air = network(&[bridge.clone(), port("wlan0")], &["br0"]);
        assert_eq!(told(&air, &[WLAN0], &[]), ["br0 (over wlan0)"]);
        assert_eq!(
            told(&network(&[bridge.clone(), port("wlan0"), port("eth0")], &["br0"]), &[WLAN0], &[]),
            [""; 0]
        );
        assert_eq!(told(&network(&[bridge], &["br0"]), &[WLAN0], &[]), [""; 0], "no port at all");
        let kind =
            |parent: &str| Some(Kind { name: "vlan".into(), parent: Some(parent.into()), data: vec![] });
        let vlan = |name: &str, parent| Link { kind: kind(parent), ..link(name, Some("10.7.0.2")) };
        let over = network(&[link("wlan0", None), vlan("wlan0.7", "wlan0")], &["wlan0.7"]);
        assert_eq!(told(&over, &[WLAN0], &[]), ["wlan0.7 (over wlan0)"]);
        let endless = network(&[vlan("a", "b"), vlan("b", "a")], &["a"]);
        assert_eq!(told(&endless, &[WLAN0], &[]), [""; 0]);
    }

    /// As the kernel describes them: cfg80211, qmi_wwan, ppp_generic, tun, an old Wi-Fi driver, a cable.
    const CAPTURED: [(&str, &str, &str); 7] = [
        ("wlan0", "DEVTYPE=wlan\nINTERFACE=wlan0\nIFINDEX=3\n", "phy80211"),
        ("wwan0", "DEVTYPE=wwan\nINTERFACE=wwan0\nIFINDEX=5\n", "qmi"),
        ("ppp0", "DEVTYPE=ppp\nINTERFACE=ppp0\nIFINDEX=6\n", "mtu"),
        ("tun0", "INTERFACE=tun0\nIFINDEX=7\n", "tun_flags"),
        ("ra0", "INTERFACE=ra0\nIFINDEX=8\n", "wireless"),
        ("eth0", "INTERFACE=eth0\nIFINDEX=2\n", "phydev"),
        ("wg0", "DEVTYPE=wireguard\nINTERFACE=wg0\nIFINDEX=9\n", "mtu"),
    ];

    #[test]
    fn what_an_interface_is_the_kernel_says() {
        let dir = tempfile::tempdir().unwrap();
        for (name, uevent, entry) in CAPTURED {
            let at = dir.path().join(INTERFACES).join(name);
            fs::create_dir_all(at.join(entry)).unwrap();
            fs::write(at.join("uevent"), uevent).unwrap();
        }
        let root = Root::new(dir.path());
        let found = CAPTURED.map(|(name, ..)| Medium::of(&root, name));
        let expected = [Medium::WiFi, Medium::Modem, Medium::Ppp, Medium::Tunnel, Medium::WiFi].map(Some);
        assert_eq!(found[..5], expected);
        assert_eq!(found[5..], [None, None]);
        assert_eq!(Medium::of(&root, "gone"), None);

        let wlan = network(&[link("wlan0", Some("192.168.1.2"))], &["wlan0"]);
        let script =
            Program::Script("ip link set wlan0 up\nexec /usr/sbin/wpa_supplicant -i wlan0 -c /x".into());
        let services = [Service::longrun("radio", "/s", script)];
        assert_eq!(warnings(&root, &wlan, &services), [""; 0]);
        assert_eq!(
            warnings(&root, &wlan, &[]),
            [
                "this device is reached through wlan0, which is Wi-Fi, and no service of the maintenance root runs \
              wpa_supplicant or the like: it will not be reachable through it there; configure such a service, and name \
              its files in files"
            ]
        );
    }

    #[test]
    fn levitate_says_so_before_anything_is_changed() {
        let mut system = OldSystem::new();
        system.file("/sys/class/net/wlan0/uevent", CAPTURED[0].1);
        let config = OldSystem::config(CONFIG);
        let mut facts = system.facts(&config);
        facts.network = network(&[link("wlan0", Some("192.168.1.2"))], &["wlan0"]);
        let (_, events) = system.levitate_with(&config, &facts).unwrap();
        let is_told = |event: &Event| matches!(event, Event::Warning(text) if text.contains("through wlan0, which is Wi-Fi"));
        let (warned, changed) =
            (events.iter().position(is_told), events.iter().position(|e| matches!(e, Event::Remounting(_))));
        assert!(warned.is_some() && warned < changed, "{events:?}");
    }
}
