//! The control socket's connections: root's alone, bounded, never waited for.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};

use super::control::MAX_REQUEST;
use super::kernel::Connection;

/// More connections than these are let go: each costs a descriptor of PID 1.
const MAX_CONNECTIONS: usize = 64;
/// So many bytes are kept for one who reads slowly: the kernel's own buffer holds few of many short lines.
const MAX_UNREAD: usize = 1 << 20;

#[derive(Debug)]
struct Peer {
    stream: UnixStream,
    /// What came so far of its request; none once it was whole.
    request: Option<Vec<u8>>,
    /// What it has not taken yet.
    unread: Vec<u8>,
    /// True once nothing more follows: it is let go when it has taken everything.
    is_over: bool,
}

impl Peer {
    /// Hands over what it takes now. False if it is gone.
    fn flush(&mut self) -> bool {
        let mut done = 0;
        let alive = loop {
            let rest = self.unread.get(done..).unwrap_or_default();
            if rest.is_empty() {
                break true;
            }
            match self.stream.write(rest) {
                Ok(0) => break false,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        };
        self.unread.drain(..done.min(self.unread.len()));
        alive
    }
}

/// Open connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    listener: Option<UnixListener>,
    peers: BTreeMap<Connection, Peer>,
    last: Connection,
}

impl Connections {
    /// Listens at `path`, in place of what an earlier init may have left there.
    pub(super) fn listen(&mut self, path: &Path) -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody else's from its first moment.
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// What is to be polled, and for what.
    pub(super) fn fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let peers = self.peers.values().map(|peer| {
            let also = if peer.unread.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            (peer.stream.as_fd(), PollFlags::POLLIN | also)
        });
        self.listener.iter().map(|listener| (listener.as_fd(), PollFlags::POLLIN)).chain(peers)
    }

    /// Accepts, reads, hands over what is still unread, and answers the requests that are whole.
    pub(super) fn take_requests(&mut self) -> Vec<(Connection, String)> {
        self.accept();
        self.peers.retain(|_, peer| peer.flush() && !(peer.is_over && peer.unread.is_empty()));
        let mut requests = Vec::new();
        self.peers.retain(|id, peer| match take_request(peer) {
            Taken::Nothing => true,
            Taken::Request(line) => {
                requests.push((*id, line));
                true
            }
            Taken::Gone => false,
        });
        requests
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((stream, _)) = listener.accept() {
            let is_root = getsockopt(&stream, PeerCredentials).is_ok_and(|peer| peer.uid() == 0);
            let can_be_kept = self.peers.len() < MAX_CONNECTIONS && stream.set_nonblocking(true).is_ok();
            if is_root && can_be_kept {
                self.last = self.last.wrapping_add(1);
                self.peers.insert(
                    self.last,
                    Peer { stream, request: Some(Vec::new()), unread: Vec::new(), is_over: false },
                );
            }
        }
    }

    /// Sends a line; a peer that lets too much of its answers lie is let go.
    pub(super) fn answer(&mut self, to: Connection, line: &str) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.unread.extend_from_slice(line.as_bytes());
        peer.unread.push(b'\n');
        if !peer.flush() || peer.unread.len() > MAX_UNREAD {
            self.peers.remove(&to);
        }
    }

    /// Ends a connection as soon as it has taken what was answered.
    pub(super) fn hang_up(&mut self, to: Connection) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.is_over = true;
        if peer.unread.is_empty() {
            self.peers.remove(&to);
        }
    }
}

enum Taken {
    Nothing,
    Request(String),
    Gone,
}

fn take_request(peer: &mut Peer) -> Taken {
    let mut bytes = [0; 512];
    let count = match peer.stream.read(&mut bytes) {
        Ok(0) => return Taken::Gone,
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Taken::Nothing,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Taken::Nothing,
        Err(_) => return Taken::Gone,
    };
    // One request per connection; what comes after it is left alone.
    let Some(request) = &mut peer.request else { return Taken::Nothing };
    request.extend(bytes.iter().take(count));
    if let Some(end) = request.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(request.get(..end).unwrap_or_default()).into_owned();
        peer.request = None;
        return Taken::Request(line);
    }
    if request.len() >= MAX_REQUEST { Taken::Gone } else { Taken::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> (tempfile::TempDir, Connections) {
        let dir = tempfile::tempdir().unwrap();
        let mut connections = Connections::default();
        connections.listen(&dir.path().join("run/init.sock")).unwrap();
        (dir, connections)
    }

    #[test]
    fn a_request_that_comes_in_pieces_is_put_together() {
        let (dir, mut connections) = listening();
        let path = dir.path().join("run/init.sock");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut client = UnixStream::connect(&path).unwrap();
        assert_eq!(connections.take_requests(), []);
        client.write_all(b"sta").unwrap();
        assert_eq!(connections.take_requests(), []);
        client.write_all(b"tus\nmore\n").unwrap();
        assert_eq!(connections.take_requests(), [(1, "status".to_owned())]);
        connections.answer(1, "a line");
        connections.answer(1, "exit 0");
        connections.hang_up(1);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "a line\nexit 0\n");
    }

    #[test]
    fn an_answer_of_many_short_lines_is_kept_until_it_is_taken() {
        let (dir, mut connections) = listening();
        let mut client = UnixStream::connect(dir.path().join("run/init.sock")).unwrap();
        client.write_all(b"services\n").unwrap();
        assert_eq!(connections.take_requests().len(), 1);
        for n in 0..5_000 {
            connections.answer(1, &format!("line {n}"));
        }
        connections.hang_up(1);
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            text
        });
        while !connections.peers.is_empty() {
            assert!(connections.fds().any(|(_, flags)| flags.contains(PollFlags::POLLOUT)));
            connections.take_requests();
        }
        assert_eq!(reader.join().unwrap().lines().count(), 5_000);
    }

    #[test]
    fn a_request_without_end_and_one_who_does_not_read_are_let_go() {
        let (dir, mut connections) = listening();
        let path = dir.path().join("run/init.sock");
        let mut endless = UnixStream::connect(&path).unwrap();
        endless.write_all(&[b'x'; MAX_REQUEST]).unwrap();
        let _deaf = UnixStream::connect(&path).unwrap();
        for _ in 0..MAX_REQUEST {
            connections.take_requests();
        }
        assert_eq!(connections.peers.keys().collect::<Vec<_>>(), [&2]);
        for _ in 0..100_000 {
            connections.answer(2, &"y".repeat(100));
        }
        assert!(connections.peers.is_empty());
    }
}
