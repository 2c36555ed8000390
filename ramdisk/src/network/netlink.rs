//! Asking the kernel over a netlink socket: dumps, and requests that are acknowledged.
//!
//! The messages come from `netlink-packet-route`, one by one: its enum of all messages would bring code for each of
//! them into a small binary (its link message alone 45 KB), and a link attribute that it does not understand would cost
//! the whole snapshot: of links only the header is its.

use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkHeader,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::state::NetworkError;

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWRULE: u16 = 32;
pub(super) const RTM_GETRULE: u16 = 34;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_LEN: usize = 16;
/// The kernel answers at once; this only keeps PID 1 from waiting for ever.
const LIMIT_MS: u16 = 5_000;

/// A list that changes while it is made is asked for again, so often.
const DUMPS: usize = 5;

/// Whether more follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    More,
    End,
}

/// How a list was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    /// It is one state.
    AtOnce,
    /// Something in it may be missing or twice (`NLM_F_DUMP_INTR`).
    WhileItChanged,
}

/// What is made if it is not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Change what is there.
    Set,
    /// Make it; there already is success.
    Make,
    /// Make it, or make what is there like it.
    Replace,
}

/// A connection to the kernel's routing tables.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, NetworkError> {
        let failed =
            |source| NetworkError::Kernel { what: "ask the kernel about the network".into(), source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All objects of a kind: the payloads of the messages of type `answer`.
    pub(super) fn dump(
        &mut self,
        what: &str,
        kind: u16,
        answer: u16,
        message: &impl Emitable,
    ) -> Result<Vec<Vec<u8>>, NetworkError> {
        for _ in 0..DUMPS {
            self.send(what, kind, NLM_F_REQUEST | NLM_F_DUMP, message)?;
            let mut found = Vec::new();
            let listed = self.receive(what, |kind, payload| {
                if kind == answer {
                    found.push(payload.to_vec());
                }
            })?;
            if listed == Listed::AtOnce {
                return Ok(found);
            }
        }
        let why = "it changed while it was listed, again and again".to_owned();
        Err(NetworkError::Answer { what: what.to_owned(), why })
    }

    /// A change, acknowledged.
    pub(super) fn change(
        &mut self,
        what: &str,
        kind: u16,
        change: Change,
        message: &impl Emitable,
    ) -> Result<(), NetworkError> {
        let flags = match change {
            Change::Set => NLM_F_REQUEST | NLM_F_ACK,
            Change::Make => NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
            Change::Replace => NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
        };
        self.send(what, kind, flags, message)?;
        match self.receive(what, |_, _| {}).map(drop) {
            Err(NetworkError::Kernel { source, .. })
                if change == Change::Make && source.raw_os_error() == Some(libc::EEXIST) =>
            {
                Ok(())
            }
            answer => answer,
        }
    }

    fn send(
        &mut self,
        what: &str,
        kind: u16,
        flags: u16,
        message: &impl Emitable,
    ) -> Result<(), NetworkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = packet(kind, flags, self.sequence, message);
        self.socket
            .send(&bytes, 0)
            .map(drop)
            .map_err(|source| NetworkError::Kernel { what: what.to_owned(), source })
    }

    /// Hands every message that answers the last request to `take`, until its end.
    fn receive(&self, what: &str, mut take: impl FnMut(u16, &[u8])) -> Result<Listed, NetworkError> {
        let failed = |source| NetworkError::Kernel { what: what.to_owned(), source };
        let mut listed = Listed::AtOnce;
        loop {
            self.wait().map_err(failed)?;
            let (bytes, _) = self.socket.recv_from_full().map_err(failed)?;
            if read(&bytes, self.sequence, what, &mut listed, &mut take)? == Read::End {
                return Ok(listed);
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::from(LIMIT_MS)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Reads what came at once. The answer to another request is passed over.
fn read(
    bytes: &[u8],
    sequence: u32,
    what: &str,
    listed: &mut Listed,
    take: &mut impl FnMut(u16, &[u8]),
) -> Result<Read, NetworkError> {
    let failed = |source| NetworkError::Kernel { what: what.to_owned(), source };
    let mut rest = bytes;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest)
            .map_err(|error| NetworkError::Answer { what: what.to_owned(), why: error.to_string() })?;
        if message.sequence_number() == sequence {
            if message.flags() & NLM_F_DUMP_INTR != 0 {
                *listed = Listed::WhileItChanged;
            }
            match message.message_type() {
                // A list that the kernel could not finish ends as one that it could, but for the number in it.
                NLMSG_DONE | NLMSG_ERROR => {
                    return error_of(message.payload()).map_err(failed).map(|()| Read::End);
                }
                kind => take(kind, message.payload()),
            }
        }
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Read::More)
}

/// The number in an error message: 0 is the acknowledgement.
fn error_of(payload: &[u8]) -> io::Result<()> {
    let number = payload.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if number >= 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(number.saturating_neg())) }
}

/// The bytes of a request.
fn packet(kind: u16, flags: u16, sequence: u32, message: &impl Emitable) -> Vec<u8> {
    let length = HEADER_LEN + message.buffer_len();
    let mut bytes = vec![0; length];
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(length).unwrap_or(u32::MAX);
    header.message_type = kind;
    header.flags = flags;
    header.sequence_number = sequence;
    let (head, body) = bytes.split_at_mut(HEADER_LEN);
    header.emit(head);
    message.emit(body);
    bytes
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkHeader;

    use super::*;

    #[test]
    fn a_request_is_a_header_of_native_numbers_and_the_message() {
        let bytes = packet(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 7, &LinkHeader::default());
        assert_eq!(bytes.len(), 32);
        assert_eq!(bytes[..4], 32_u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 18_u16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x301_u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 7_u32.to_ne_bytes());
    }

    #[test]
    fn a_list_that_changed_or_was_not_finished_is_not_taken_for_whole() {
        let take = |bytes: &[u8]| {
            let (mut listed, mut found) = (Listed::AtOnce, Vec::new());
            let read = read(bytes, 7, "list it", &mut listed, &mut |kind, _: &[u8]| found.push(kind));
            (read.map_err(|error| error.to_string()), listed, found)
        };
        let number = |n: i32| super::super::message::Bytes(n.to_ne_bytes().to_vec());
        let one = |flags| packet(RTM_NEWLINK, flags, 7, &LinkHeader::default());
        let others = packet(NLMSG_DONE, 0, 6, &number(0));
        let end = |n| packet(NLMSG_DONE, 0, 7, &number(n));
        assert_eq!(take(&[others, one(0)].concat()), (Ok(Read::More), Listed::AtOnce, vec![RTM_NEWLINK]));
        assert_eq!(take(&[one(0), end(0)].concat()), (Ok(Read::End), Listed::AtOnce, vec![RTM_NEWLINK]));
        let changed = take(&[one(NLM_F_DUMP_INTR), end(0)].concat());
        assert_eq!(changed, (Ok(Read::End), Listed::WhileItChanged, vec![RTM_NEWLINK]));
        assert_eq!(take(&end(-libc::EIO)).0, Err("cannot list it".into()));
    }

    #[test]
    fn an_errors_number_is_the_kernels_and_zero_is_the_acknowledgement() {
        assert!(error_of(&0_i32.to_ne_bytes()).is_ok());
        let error = error_of(&(-libc::EPERM).to_ne_bytes()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
