//! A neighbour of the device on a wire of its own: a small TCP/IP of this process, with or without a VLAN's tag. QEMU's own
//! network speaks neither VLAN nor IPv6 from the host to the guest.

use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant as Clock};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

use crate::suite::Failure;

/// Administered by hand, as the first byte says.
const ADDRESS: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0x77]);
/// Bytes of an Ethernet frame, without its checksum and without a tag.
const FRAME: usize = 1514;
/// Both addresses: what stands before a tag.
const ADDRESSES: usize = 12;
/// IEEE 802.1Q.
const TAG: [u8; 2] = [0x81, 0x00];
/// Between two looks at the wire while nothing comes: what has to be sent again is not late by more.
const PATIENCE: Duration = Duration::from_millis(20);
/// After this a connection that is not answered is begun anew: where nobody was, somebody can be now.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A neighbour.
pub(crate) struct Peer {
    wire: UnixDatagram,
}

impl Peer {
    /// The end of a wire: frames come to the socket `own`; QEMU's end is made by `plug` with both paths, `own` last.
    pub(crate) fn at(
        own: &Path,
        device: &Path,
        plug: impl FnOnce(&Path, &Path) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let wire = UnixDatagram::bind(own).map_err(|e| Failure::file("make the socket", own, e))?;
        wire.set_read_timeout(Some(PATIENCE)).map_err(Failure::harness)?;
        plug(device, own)?;
        wire.connect(device).map_err(|e| Failure::file("connect to the socket", device, e))?;
        Ok(Self { wire })
    }

    /// Connects from `own` (with its prefix's length) to port 22 of `device`, within the VLAN `tag` if there is one, and
    /// gives the first line that the server says.
    pub(crate) fn greeted(
        &self,
        tag: Option<u16>,
        own: (IpAddr, u8),
        device: IpAddr,
        limit: Duration,
    ) -> Result<String, Failure> {
        let start = Clock::now();
        let mut port = 49152;
        while start.elapsed() < limit {
            port += 1;
            if let Some(line) = self.attempt(tag, own, device, port)? {
                return Ok(line);
            }
        }
        let vlan = tag.map(|tag| format!(" in VLAN {tag}")).unwrap_or_default();
        Err(Failure::test(format!("no server at {device}{vlan} answered within {} s", limit.as_secs())))
    }

    fn attempt(
        &self,
        tag: Option<u16>,
        own: (IpAddr, u8),
        device: IpAddr,
        port: u16,
    ) -> Result<Option<String>, Failure> {
        let start = Clock::now();
        let now = || Instant::from_micros(i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX));
        let mut wire = Wire { socket: &self.wire, tag, frame: None };
        let mut interface = Interface::new(Config::new(ADDRESS.into()), &mut wire, now());
        interface.update_ip_addrs(|addresses| {
            // there is room for the first one
            let _ = addresses.push(IpCidr::new(own.0.into(), own.1));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let socket = sockets.add(Socket::new(buffer(), buffer()));
        sockets
            .get_mut::<Socket<'_>>(socket)
            .connect(interface.context(), (device, 22), port)
            .map_err(Failure::harness)?;
        let mut said = Vec::new();
        while start.elapsed() < ATTEMPT {
            wire.listen();
            interface.poll(now(), &mut wire, &mut sockets);
            let socket = sockets.get_mut::<Socket<'_>>(socket);
            while socket.can_recv() {
                let _ = socket.recv(|bytes| (bytes.len(), said.extend_from_slice(bytes)));
            }
            if let Some(end) = said.iter().position(|byte| *byte == b'\n') {
                socket.abort();
                // so that the other end hears of it
                interface.poll(now(), &mut wire, &mut sockets);
                return Ok(Some(String::from_utf8_lossy(&said[..end]).trim_end().to_owned()));
            }
            if !socket.is_open() {
                break;
            }
        }
        Ok(None)
    }
}

/// The wire as smoltcp sees it: a tag is put on and taken off here, and other frames are not for it.
struct Wire<'a> {
    socket: &'a UnixDatagram,
    tag: Option<u16>,
    /// The one that has come.
    frame: Option<Vec<u8>>,
}

impl Wire<'_> {
    /// Waits for a frame, not for long.
    fn listen(&mut self) {
        let mut bytes = vec![0; FRAME + 4];
        let Ok(length) = self.socket.recv(&mut bytes) else { return };
        bytes.truncate(length);
        self.frame = untagged(bytes, self.tag);
    }
}

/// The frame without its tag, if it has just the one that is meant.
fn untagged(mut frame: Vec<u8>, wanted: Option<u16>) -> Option<Vec<u8>> {
    let is_tagged = frame.get(ADDRESSES..ADDRESSES + 2)? == TAG;
    let Some(wanted) = wanted else { return (!is_tagged).then_some(frame) };
    let control = frame.get(ADDRESSES + 2..ADDRESSES + 4)?;
    // twelve bits: the others are priority and the like
    let number = u16::from_be_bytes([control[0], control[1]]) & 0x0fff;
    if !is_tagged || number != wanted {
        return None;
    }
    frame.drain(ADDRESSES..ADDRESSES + 4);
    Some(frame)
}

fn tagged(mut frame: Vec<u8>, tag: Option<u16>) -> Vec<u8> {
    if let Some(number) = tag {
        let [high, low] = number.to_be_bytes();
        frame.splice(ADDRESSES..ADDRESSES, [TAG[0], TAG[1], high, low]);
    }
    frame
}

impl Device for Wire<'_> {
    type RxToken<'a>
        = Came
    where
        Self: 'a;
    type TxToken<'a>
        = Goes<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Came, Goes<'_>)> {
        let frame = self.frame.take()?;
        Some((Came(frame), Goes { socket: self.socket, tag: self.tag }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Goes<'_>> {
        Some(Goes { socket: self.socket, tag: self.tag })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}

struct Came(Vec<u8>);

impl RxToken for Came {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, with: F) -> R {
        with(&self.0)
    }
}

struct Goes<'a> {
    socket: &'a UnixDatagram,
    tag: Option<u16>,
}

impl TxToken for Goes<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, with: F) -> R {
        let mut frame = vec![0; length];
        let done = with(&mut frame);
        // a frame that is lost is sent again
        let _ = self.socket.send(&tagged(frame, self.tag));
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_put_behind_the_addresses_and_only_its_own_is_taken_off() {
        let plain: Vec<u8> = (0..20).collect();
        let with = tagged(plain.clone(), Some(5));
        assert_eq!(with[..12], plain[..12]);
        assert_eq!(with[12..18], [0x81, 0, 0, 5, 12, 13]);
        assert_eq!(untagged(with.clone(), Some(5)), Some(plain.clone()));
        assert_eq!(untagged(with.clone(), Some(6)), None);
        assert_eq!(untagged(with.clone(), None), None);
        assert_eq!(untagged(plain.clone(), Some(5)), None);
        assert_eq!(untagged(plain.clone(), None), Some(plain.clone()));
        assert_eq!(untagged(plain[..12].to_vec(), None), None);
        let mut urgent = with;
        urgent[14] = 0xe0;
        assert_eq!(untagged(urgent, Some(5)), Some(plain));
    }
}
