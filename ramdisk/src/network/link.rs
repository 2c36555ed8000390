//! One interface, out of the kernel's message.

use std::collections::BTreeMap;

use netlink_packet_route::link::{LinkFlags, LinkHeader};

use super::message::{Bytes, attributes, number, text};
use super::state::{Kind, Link};

/// The length of `struct ifinfomsg`.
const HEADER_LEN: usize = 16;

// The kernel's include/uapi/linux/if_link.h.
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_LINK: u16 = 5;
pub(super) const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
/// Flags, and a mask of those to set. The kernel tells all bits as the mask, and refuses bits that it does not know.
const IFLA_VLAN_FLAGS: u16 = 2;
/// On unless told otherwise, so it must be in the mask to be switched off.
const VLAN_FLAG_REORDER_HDR: u32 = 1;
/// What is kept of a bridge: `IFLA_BR_FORWARD_DELAY` to `_PRIORITY`, `_GROUP_FWD_MASK` and `_MCAST_SNOOPING`. The
/// rest is what it has learned, or cannot be set.
const KEPT_OF_A_BRIDGE: [u16; 8] = [1, 2, 3, 4, 5, 6, 9, 23];
/// And these, if it filters VLANs: `IFLA_BR_VLAN_FILTERING`, `_VLAN_PROTOCOL`, `_VLAN_DEFAULT_PVID`. A kernel that cannot
/// tells that it does not, but takes that from nobody.
const KEPT_OF_A_FILTER: [u16; 3] = [IFLA_BR_VLAN_FILTERING, 8, 39];

/// An interface with the numbers that it and those around it have now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) index: u32,
    pub(super) link: Link,
    master: Option<u32>,
    parent: Option<u32>,
}

impl Numbered {
    /// Only the header and a few attributes are looked at. None: a message without a name.
    pub(super) fn parse(payload: &[u8]) -> Result<Option<Self>, String> {
        let header = LinkHeader::parse(payload).map_err(|error| error.to_string())?;
        let mut link = Link { up: header.flags.contains(LinkFlags::Up), ..Link::default() };
        let (mut master, mut parent) = (None, None);
        for attribute in attributes(payload.get(HEADER_LEN..).unwrap_or_default()) {
            match attribute? {
                (IFLA_IFNAME, value) => link.name = text(value),
                (IFLA_ADDRESS, value) => link.mac = hardware_address(value),
                (IFLA_MTU, value) => link.mtu = number(value),
                (IFLA_MASTER, value) => master = number(value),
                (IFLA_LINK, value) => parent = number(value),
                (IFLA_LINKINFO, value) => link.kind = kind(value)?,
                _ => {}
            }
        }
        Ok(Some(link).filter(|link| !link.name.is_empty()).map(|link| Self {
            index: header.index,
            link,
            master,
            parent,
        }))
    }

    /// Whether a bridge keeps VLANs apart: which, is in tables of its own.
    pub(super) fn filters_vlans(&self) -> bool {
        let kind = self.link.kind.as_ref().filter(|kind| kind.name == "bridge");
        kind.is_some_and(|kind| {
            let filtering = |attribute: Result<(u16, &[u8]), String>| {
                attribute
                    .is_ok_and(|(kind, value)| kind == IFLA_BR_VLAN_FILTERING && value.first() == Some(&1))
            };
            attributes(&kind.data).any(filtering)
        })
    }
}

/// Names in place of numbers.
pub(super) fn with_names(mut links: Vec<Numbered>) -> Vec<Numbered> {
    let names: BTreeMap<u32, String> =
        links.iter().map(|link| (link.index, link.link.name.clone())).collect();
    for numbered in &mut links {
        numbered.link.master = numbered.master.and_then(|index| names.get(&index).cloned());
        if let Some(kind) = &mut numbered.link.kind {
            kind.parent = numbered.parent.and_then(|index| names.get(&index).cloned());
        }
    }
    links
}

fn kind(linkinfo: &[u8]) -> Result<Option<Kind>, String> {
    let mut kind = Kind::default();
    for attribute in attributes(linkinfo) {
        match attribute? {
            (IFLA_INFO_KIND, value) => kind.name = text(value),
            (IFLA_INFO_DATA, value) => kind.data = value.to_vec(),
            _ => {}
        }
    }
    if kind.name == "bridge" {
        let all = attributes(&kind.data).collect::<Result<Vec<_>, _>>()?;
        let filters = all.contains(&(IFLA_BR_VLAN_FILTERING, &[1]));
        let is_kept =
            |kind: &u16| KEPT_OF_A_BRIDGE.contains(kind) || (filters && KEPT_OF_A_FILTER.contains(kind));
        kind.data = all
            .into_iter()
            .filter(|(kind, _)| is_kept(kind))
            .fold(Bytes::default(), |bytes, (kind, value)| bytes.with(kind, value))
            .0;
    }
    if kind.name == "vlan" {
        let all = attributes(&kind.data).collect::<Result<Vec<_>, _>>()?;
        let settable = |bytes: Bytes, (kind, value)| match (kind, number(value)) {
            (IFLA_VLAN_FLAGS, Some(flags)) => {
                let mask = flags | VLAN_FLAG_REORDER_HDR;
                bytes.with(kind, &[flags.to_ne_bytes(), mask.to_ne_bytes()].concat())
            }
            _ => bytes.with(kind, value),
        };
        kind.data = all.into_iter().fold(Bytes::default(), settable).0;
    }
    if !kind.can_be_made() {
        kind.data.clear();
    }
    // A port of a switch is a device of its own, however the kernel calls it.
    Ok(Some(kind).filter(|kind| !kind.name.is_empty() && kind.name != "dsa"))
}

/// Six bytes that are not all zero, as loopback's are; other lengths are tunnels' and no name for a device.
fn hardware_address(bytes: &[u8]) -> Option<String> {
    if bytes.len() != 6 || bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

/// The bytes of a hardware address; none if it is no such thing.
pub(super) fn hardware_bytes(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(index: u32, flags: LinkFlags) -> Bytes {
        Bytes::of(&LinkHeader { index, flags, ..LinkHeader::default() })
    }

    fn parse(message: &Bytes) -> Numbered {
        Numbered::parse(&message.0).unwrap().unwrap()
    }

    #[test]
    fn a_link_is_read_by_name_hardware_address_and_switch_whatever_else_it_carries() {
        let payload = message(2, LinkFlags::Up | LinkFlags::Running)
            .with(IFLA_IFNAME, b"eth0\0")
            // An attribute of a kind that the library would refuse: too short for what it should be.
            .with(22, &[1])
            .with(IFLA_MTU, &1500_u32.to_ne_bytes())
            .with(IFLA_ADDRESS, &[2, 0, 0, 0, 0xab, 1]);
        let link = Link {
            name: "eth0".into(),
            mac: Some("02:00:00:00:ab:01".into()),
            up: true,
            mtu: Some(1500),
            ..Link::default()
        };
        assert_eq!(parse(&payload), Numbered { index: 2, link, master: None, parent: None });
        assert!(Numbered::parse(&payload.0[..10]).is_err());
        assert_eq!(Numbered::parse(&message(2, LinkFlags::Up).0), Ok(None));
    }

    #[test]
    fn loopback_has_no_hardware_address_and_an_addresss_text_is_its_bytes() {
        assert_eq!(hardware_address(&[0; 6]), None);
        assert_eq!(hardware_address(&[1, 2, 3, 4]), None);
        assert_eq!(hardware_bytes("02:00:00:00:ab:01"), Some(vec![2, 0, 0, 0, 0xab, 1]));
        assert_eq!(hardware_bytes("nonsense"), None);
    }

    #[test]
    fn a_vlan_names_the_interface_that_it_lies_on_and_a_port_its_bridge() {
        let info = |kind: &[u8], data: &Bytes| {
            Bytes::default().with(IFLA_INFO_KIND, kind).with(IFLA_INFO_DATA, &data.0)
        };
        let told = Bytes::default()
            .with(1, &[5, 0])
            .with(2, &[4_u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat());
        let id =
            Bytes::default().with(1, &[5, 0]).with(2, &[4_u32.to_ne_bytes(), 5_u32.to_ne_bytes()].concat());
        // What a bridge has learned (its root, number 10) is not kept, nor that it filters nothing.
        let unfiltered = Bytes::default().with(1, &[0; 4]).with(7, &[0]).with(39, &[1, 0]);
        let plain = kind(&info(b"bridge\0", &unfiltered).0).unwrap().unwrap();
        assert_eq!(plain.data, Bytes::default().with(1, &[0; 4]).0);
        let settings = Bytes::default().with(1, &[0, 0, 0, 0]).with(10, &[1; 8]).with(7, &[1]);
        let links = with_names(vec![
            parse(
                &message(1, LinkFlags::Up)
                    .with(IFLA_IFNAME, b"eth0\0")
                    .with(IFLA_MASTER, &3_u32.to_ne_bytes()),
            ),
            parse(
                &message(2, LinkFlags::Up)
                    .with(IFLA_IFNAME, b"br0.5")
                    .with(IFLA_LINK, &3_u32.to_ne_bytes())
                    .with(IFLA_LINKINFO, &info(b"vlan\0", &told).0),
            ),
            parse(
                &message(3, LinkFlags::Up)
                    .with(IFLA_IFNAME, b"br0\0")
                    .with(IFLA_LINKINFO, &info(b"bridge\0", &settings).0),
            ),
            parse(
                &message(4, LinkFlags::Up)
                    .with(IFLA_IFNAME, b"lan1\0")
                    .with(IFLA_LINKINFO, &info(b"dsa\0", &id).0),
            ),
        ]);
        assert_eq!(links[0].link.master.as_deref(), Some("br0"));
        let vlan = Kind { name: "vlan".into(), parent: Some("br0".into()), data: id.0.clone() };
        assert_eq!(links[1].link.kind, Some(vlan));
        let bridge = links[2].link.kind.as_ref().unwrap();
        assert_eq!(bridge.data, Bytes::default().with(1, &[0, 0, 0, 0]).with(7, &[1]).0);
        assert!(links[2].filters_vlans() && !links[1].filters_vlans());
        assert_eq!(links[3].link.kind, None);
    }
}
