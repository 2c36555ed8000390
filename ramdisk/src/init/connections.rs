//! The control socket's connections: root's alone, bounded, never waited for.
//!
//! Whoever has a whole request is somebody's concern, see the limits of `orders` and of the askers of an end: together
//! they are fewer than the connections, so that there is always one without to make room for the next. Nobody is let go
//! without being told.

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

use super::control::{BadRequest, MAX_REQUEST};
use super::kernel::Connection;

/// The most connections: each costs a descriptor of PID 1.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// So many bytes are kept for one who reads slowly: the kernel's own buffer holds few of many short lines.
const MAX_UNREAD: usize = 1 << 20;
/// A request line has to be whole after so many milliseconds, and an answer taken.
const LIMIT_MS: u64 = 10_000;

/// What came of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A request line, without its newline.
    Request(Connection, String),
    /// One whose request was told is no longer there.
    Gone(Connection),
}

/// What came so far of a request.
#[derive(Debug)]
enum Request {
    Begun(Vec<u8>),
    /// It was whole.
    Told,
    /// It is too long: the rest is thrown away, so that its sender gets to reading the answer.
    Skipped,
}

#[derive(Debug)]
struct Peer {
    stream: UnixStream,
    request: Request,
    /// When that, or the rest of the answer, has to be over.
    by: Option<u64>,
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

    fn tell(&mut self, line: &str) {
        self.unread.extend_from_slice(line.as_bytes());
        self.unread.push(b'\n');
    }

    /// Tells it why nothing comes of its request, and ends it.
    fn refuse(&mut self, why: &str, code: u8) {
        self.tell(why);
        self.tell(&format!("exit {code}"));
        self.is_over = true;
    }

    fn is_told(&self) -> bool {
        matches!(self.request, Request::Told)
    }

    fn is_finished(&self) -> bool {
        self.is_over && self.unread.is_empty() && !matches!(self.request, Request::Skipped)
    }
}

/// Open connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    listener: Option<UnixListener>,
    peers: BTreeMap<Connection, Peer>,
    last: Connection,
    /// Let go since the last turn, for not reading.
    gone: Vec<Connection>,
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

    /// When somebody's time is over.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.peers.values().filter_map(|peer| peer.by).min()
    }

    /// At the time `now` (milliseconds): hands over what is still unread, accepts, reads, lets those go whose time is
    /// over, and answers the requests that are whole and who is gone.
    pub(super) fn take(&mut self, now: u64) -> Vec<News> {
        let mut news: Vec<News> = std::mem::take(&mut self.gone).into_iter().map(News::Gone).collect();
        self.retain(&mut news, Peer::flush);
        self.accept(now, &mut news);
        let mut requests = Vec::new();
        let ids = &mut self.peers.keys().copied().collect::<Vec<_>>().into_iter();
        self.retain(&mut news, |peer| {
            let taken = take_request(peer);
            let id = ids.next();
            if let (Taken::Request(line), Some(id)) = (&taken, id) {
                requests.push(News::Request(id, line.clone()));
            }
            taken != Taken::Gone
        });
        news.extend(requests);
        self.retain(&mut news, |peer| {
            if peer.is_over && peer.by.is_none() {
                peer.by = Some(now.saturating_add(LIMIT_MS));
            }
            let is_late = peer.by.is_some_and(|by| by <= now);
            if is_late && !peer.is_over {
                peer.refuse(&format!("no request line came within {} s", LIMIT_MS / 1_000), 2);
                peer.flush();
            }
            !is_late && !peer.is_finished()
        });
        news
    }

    /// Keeps those that `stays` says; of the others those are news that somebody may still want to answer.
    fn retain(&mut self, news: &mut Vec<News>, mut stays: impl FnMut(&mut Peer) -> bool) {
        self.peers.retain(|id, peer| {
            let stays = stays(peer);
            if !stays && peer.is_told() && !peer.is_over {
                news.push(News::Gone(*id));
            }
            stays
        });
    }

    fn accept(&mut self, now: u64, news: &mut Vec<News>) {
        while let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept) {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let is_root = getsockopt(&stream, PeerCredentials).is_ok_and(|peer| peer.uid() == 0);
            let by = Some(now.saturating_add(LIMIT_MS));
            let request = Request::Begun(Vec::new());
            let mut peer = Peer { stream, request, by, unread: Vec::new(), is_over: false };
            let refusal = if !is_root {
                Some("only root may ask process 1".to_owned())
            } else if self.peers.len() >= MAX_CONNECTIONS && !self.make_room(news) {
                Some(too_many())
            } else {
                None
            };
            if let Some(why) = refusal {
                peer.refuse(&why, 1);
                peer.flush();
                continue;
            }
            self.last = self.last.wrapping_add(1);
            self.peers.insert(self.last, peer);
        }
    }

    /// Lets the oldest go that has not asked for anything, or that does not take its answer. False if there is none.
    fn make_room(&mut self, news: &mut Vec<News>) -> bool {
        let found = self.peers.iter_mut().find_map(|(id, peer)| {
            if !peer.is_over && !peer.is_told() {
                // It may have asked by now.
                match take_request(peer) {
                    Taken::Request(line) => news.push(News::Request(*id, line)),
                    Taken::Nothing if peer.is_over => {}
                    Taken::Nothing => peer.refuse(&too_many(), 1),
                    Taken::Gone => return Some(*id),
                }
                peer.flush();
            }
            peer.is_over.then_some(*id)
        });
        found.is_some_and(|id| self.peers.remove(&id).is_some())
    }

    /// Sends a line; a peer that lets too much of its answers lie is let go.
    pub(super) fn answer(&mut self, to: Connection, line: &str) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.tell(line);
        if !peer.flush() || peer.unread.len() > MAX_UNREAD {
            self.peers.remove(&to);
            self.gone.push(to);
        }
    }

    /// Ends a connection as soon as it has taken what was answered.
    pub(super) fn hang_up(&mut self, to: Connection) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.is_over = true;
        if peer.is_finished() {
            self.peers.remove(&to);
        }
    }
}

fn too_many() -> String {
    format!("too many connections to process 1: {MAX_CONNECTIONS} are open, try again")
}

#[derive(PartialEq, Eq)]
enum Taken {
    Nothing,
    Request(String),
    Gone,
}

fn take_request(peer: &mut Peer) -> Taken {
    let mut bytes = [0; 4_096];
    let count = match peer.stream.read(&mut bytes) {
        Ok(0) => return Taken::Gone,
        Ok(count) => count,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Taken::Nothing,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Taken::Nothing,
        Err(_) => return Taken::Gone,
    };
    let bytes = bytes.get(..count).unwrap_or_default();
    match &mut peer.request {
        // One request per connection; what comes after it is left alone.
        Request::Told => Taken::Nothing,
        Request::Skipped => {
            if bytes.contains(&b'\n') {
                peer.request = Request::Told;
            }
            Taken::Nothing
        }
        Request::Begun(request) => {
            request.extend_from_slice(bytes);
            let end = request.iter().position(|byte| *byte == b'\n');
            if end.map_or(request.len(), |end| end + 1) > MAX_REQUEST {
                peer.request = if end.is_some() { Request::Told } else { Request::Skipped };
                peer.refuse(&BadRequest::TooLong.to_string(), 2);
                return if peer.flush() { Taken::Nothing } else { Taken::Gone };
            }
            let Some(end) = end else { return Taken::Nothing };
            let line = String::from_utf8_lossy(request.get(..end).unwrap_or_default()).into_owned();
            peer.request = Request::Told;
            peer.by = None;
            Taken::Request(line)
        }
    }
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
        assert_eq!(connections.take(0), []);
        client.write_all(b"sta").unwrap();
        assert_eq!(connections.take(0), []);
        client.write_all(b"tus\nmore\n").unwrap();
        assert_eq!(connections.take(0), [News::Request(1, "status".to_owned())]);
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
        assert_eq!(connections.take(0).len(), 1);
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
            connections.take(0);
        }
        assert_eq!(reader.join().unwrap().lines().count(), 5_000);
    }

    fn read_all(mut client: UnixStream) -> String {
        let mut text = String::new();
        client.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_request_that_is_too_long_is_told_so_with_the_limit() {
        let (dir, mut connections) = listening();
        let path = dir.path().join("run/init.sock");
        let mut longest = UnixStream::connect(&path).unwrap();
        longest.write_all(&[&[b'x'; MAX_REQUEST - 1][..], b"\n"].concat()).unwrap();
        let mut requests = Vec::new();
        for _ in 0..10 {
            requests.extend(connections.take(0));
        }
        assert_eq!(requests, [News::Request(1, "x".repeat(MAX_REQUEST - 1))]);
        // More than the socket holds: its sender reads only when all of it was taken.
        let client = std::thread::spawn(move || {
            let mut endless = UnixStream::connect(&path).unwrap();
            endless.write_all(&vec![b'x'; 1 << 20]).unwrap();
            endless.write_all(b"\n").unwrap();
            read_all(endless)
        });
        while !client.is_finished() {
            assert_eq!(connections.take(0), []);
        }
        let answer = client.join().unwrap();
        assert_eq!(
            answer,
            "the request is too long: expected at most 16384 bytes with its newline\nexit 2\n"
        );
        assert_eq!(connections.peers.keys().collect::<Vec<_>>(), [&1]);
    }

    #[test]
    fn one_who_does_not_read_is_let_go_and_his_order_forgotten() {
        let (dir, mut connections) = listening();
        let path = dir.path().join("run/init.sock");
        let mut deaf = UnixStream::connect(&path).unwrap();
        deaf.write_all(b"up wait -- x\n").unwrap();
        let mut leaves = UnixStream::connect(&path).unwrap();
        leaves.write_all(b"up wait -- y\n").unwrap();
        assert_eq!(connections.take(0).len(), 2);
        for _ in 0..100_000 {
            connections.answer(1, &"y".repeat(100));
        }
        drop(leaves);
        assert_eq!(connections.take(0), [News::Gone(1), News::Gone(2)]);
        assert!(connections.peers.is_empty());
        assert_eq!(connections.take(0), []);
    }

    #[test]
    fn one_who_asks_for_nothing_is_told_that_his_time_is_over() {
        let (dir, mut connections) = listening();
        let path = dir.path().join("run/init.sock");
        let mut slow = UnixStream::connect(&path).unwrap();
        let mut waits = UnixStream::connect(&path).unwrap();
        waits.write_all(b"reboot\n").unwrap();
        assert_eq!(connections.take(500).len(), 1);
        slow.write_all(b"reb").unwrap();
        assert_eq!(connections.next_deadline(), Some(10_500));
        assert_eq!(connections.take(10_499), []);
        assert_eq!(connections.take(10_500), []);
        assert_eq!(read_all(slow), "no request line came within 10 s\nexit 2\n");
        // Who waits for an answer has no limit, and one who does not take it has.
        assert_eq!((connections.next_deadline(), connections.peers.len()), (None, 1));
        for _ in 0..9_000 {
            connections.answer(2, &"y".repeat(100));
        }
        connections.hang_up(2);
        assert_eq!(connections.take(20_000), []);
        assert_eq!(connections.next_deadline(), Some(30_000));
        assert_eq!(connections.take(30_000), []);
        assert!(connections.peers.is_empty());
    }

    #[test]
    fn a_crowd_of_the_silent_keeps_no_request_out_and_each_is_told() {
        let (dir, mut connections) = listening();
        let path = dir.path().join("run/init.sock");
        let connect = || UnixStream::connect(&path).unwrap();
        let mut crowd: Vec<UnixStream> = (0..MAX_CONNECTIONS).map(|_| connect()).collect();
        assert_eq!(connections.take(0), []);
        // The first asks in the last moment, the second has to make room.
        crowd[0].write_all(b"hold\n").unwrap();
        let mut admin = connect();
        admin.write_all(b"reboot\n").unwrap();
        let id = u64::try_from(MAX_CONNECTIONS).unwrap() + 1;
        assert_eq!(
            connections.take(0),
            [News::Request(1, "hold".to_owned()), News::Request(id, "reboot".to_owned())]
        );
        assert_eq!(connections.peers.len(), MAX_CONNECTIONS);
        let second = crowd.remove(1);
        assert_eq!(read_all(second), "too many connections to process 1: 64 are open, try again\nexit 1\n");
        // All are served: the next one is told, too.
        for client in &mut crowd[1..] {
            client.write_all(b"up wait -- x\n").unwrap();
        }
        assert_eq!(connections.take(0).len(), MAX_CONNECTIONS - 2);
        let late = connect();
        assert_eq!(connections.take(0), []);
        assert_eq!(read_all(late), "too many connections to process 1: 64 are open, try again\nexit 1\n");
    }
}
