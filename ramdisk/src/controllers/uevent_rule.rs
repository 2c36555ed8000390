//! `uevent-rule`: a service is up while a device is there that the terms describe.
//!
//! The kernel's messages are listened to first and /sys is walked then, so that nothing that is plugged in between is
//! missed. When messages were lost (the kernel says so), /sys is walked again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt,
};

use super::orders::{Done, order};
use super::sysfs::Sysfs;
use super::uevent::{Event, Term, all_hold, parse_event};
use super::{Failure, say};
use crate::init::control::{Change, Wait};

const HELP: &str = "usage: uevent-rule --service NAME [--symlink PATH] TERM...; a term is PROPERTY=PATTERN \
                    (subsystem, devname, devtype, ...), attr.FILE=PATTERN or attrs.FILE=PATTERN";
/// The kernel's own messages; group 2 is udev's.
const KERNEL_GROUP: u32 = 1;
/// Room for a burst of messages, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The kernel's longest message is 2 KiB of properties and the place.
const MESSAGE: usize = 16_384;
/// An order that was refused is given again after this many milliseconds.
const TRY_AGAIN_MS: u16 = 1_000;

/// What the rule is about, and what is there of it.
#[derive(Debug)]
struct Rule {
    service: String,
    symlink: Option<PathBuf>,
    terms: Vec<Term>,
    sysfs: Sysfs,
    /// The devices that match, by their places.
    present: BTreeMap<String, Device>,
    /// How many came so far.
    arrivals: u64,
    /// The one that the service and the link are about.
    chosen: Option<Chosen>,
}

/// A device that matches.
#[derive(Debug)]
struct Device {
    /// Its name in /dev, if it has one.
    node: Option<String>,
    /// Which of all that came it is: another one may come to the same place.
    arrival: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    devpath: String,
    arrival: u64,
}

/// What PID 1 has to be told when it was `told` of one device last (none in it: of none; none at all: it refused), and
/// now there is `chosen`. Who has opened a device that went away is told, though another one took its place.
fn changes(told: Option<&Option<Chosen>>, chosen: Option<&Chosen>) -> &'static [Change] {
    match (told, chosen) {
        (Some(Some(before)), Some(now)) if before == now => &[],
        (Some(Some(_)), Some(_)) => &[Change::Down, Change::Up],
        (Some(None), None) => &[],
        (_, Some(_)) => &[Change::Up],
        (_, None) => &[Change::Down],
    }
}

impl Rule {
    fn parse(words: Vec<String>) -> Result<Self, Failure> {
        let usage = |why: &str| Failure::Usage(format!("{why}; {HELP}"));
        let (mut service, mut symlink, mut terms) = (None, None, Vec::new());
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--service" => service = words.next(),
                "--symlink" => symlink = words.next().map(PathBuf::from),
                _ => terms.push(Term::parse(&word).ok_or_else(|| usage(&format!("{word:?} is no term")))?),
            }
        }
        if terms.is_empty() {
            return Err(usage("a rule without terms would mean every device"));
        }
        let service = service.ok_or_else(|| usage("--service is missing"))?;
        if symlink.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(usage("--symlink: expected a path that begins with /"));
        }
        Ok(Self {
            service,
            symlink,
            terms,
            sysfs: Sysfs::at(Path::new("/sys")),
            present: BTreeMap::new(),
            arrivals: 0,
            chosen: None,
        })
    }

    /// Looks at every device.
    fn walk(&mut self) {
        let devices = self.sysfs.devices();
        self.present.retain(|devpath, _| devices.contains(devpath));
        for devpath in devices {
            self.look(&devpath, &BTreeMap::new());
        }
    }

    /// Looks at one device; `told` is what a message said of it.
    fn look(&mut self, devpath: &str, told: &BTreeMap<String, String>) {
        let Some(mut properties) = self.sysfs.properties(devpath) else {
            // Gone again already; the message about that follows.
            self.present.remove(devpath);
            return;
        };
        for (key, value) in told {
            properties.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let attribute = |folder: &str, file: &str| self.sysfs.attribute(folder, file);
        if all_hold(&self.terms, devpath, &properties, &attribute) {
            let node = properties.get("DEVNAME").cloned();
            match self.present.get_mut(devpath) {
                Some(device) => device.node = node,
                None => {
                    self.arrivals = self.arrivals.saturating_add(1);
                    self.present.insert(devpath.to_owned(), Device { node, arrival: self.arrivals });
                }
            }
        } else {
            self.present.remove(devpath);
        }
    }

    fn take(&mut self, event: &Event) {
        if event.action == "remove" {
            self.present.remove(&event.devpath);
            return;
        }
        if let Some(old) = event.properties.get("DEVPATH_OLD") {
            self.present.remove(old);
        }
        self.look(&event.devpath, &event.properties);
    }

    /// Stays with the device that was chosen for as long as it is there; one with a node is better than one without.
    fn choose(&mut self) -> Option<Chosen> {
        let has_node = |devpath: &String| self.present.get(devpath).is_some_and(|one| one.node.is_some());
        let first = self.present.iter().min_by_key(|(devpath, one)| (one.node.is_none(), *devpath));
        let first = first.map(|(devpath, one)| Chosen { devpath: devpath.clone(), arrival: one.arrival });
        let stays = self.chosen.as_ref().is_some_and(|chosen| {
            let is_there = self.present.get(&chosen.devpath).is_some_and(|one| one.arrival == chosen.arrival);
            is_there && (has_node(&chosen.devpath) || first.as_ref().is_none_or(|f| !has_node(&f.devpath)))
        });
        if !stays {
            self.chosen = first;
        }
        self.chosen.clone()
    }

    /// Makes the link lead to the chosen device, or to nothing.
    fn link(&self) -> io::Result<()> {
        let Some(path) = &self.symlink else { return Ok(()) };
        let device = self.chosen.as_ref().and_then(|chosen| self.present.get(&chosen.devpath));
        let Some(name) = device.and_then(|device| device.node.as_ref()) else {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let target = Path::new("/dev").join(name);
        if fs::read_link(path).is_ok_and(|now| now == target) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Beside it and then in its place: who opens it never finds it missing.
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let _ = fs::remove_file(&new);
        symlink(target, &new)?;
        fs::rename(&new, path)
    }
}

/// Runs until it is ended.
///
/// # Errors
/// A command line that is not understood, an unknown service, no netlink, or a PID 1 that does not answer.
pub(super) fn run(init: &Path, words: Vec<String>) -> Result<(), Failure> {
    let mut rule = Rule::parse(words)?;
    let listener = listen()
        .map_err(|errno| Failure::System(format!("cannot listen to the kernel: {}", errno.desc())))?;
    rule.walk();
    let mut told: Option<Option<Chosen>> = None;
    loop {
        let chosen = rule.choose();
        for change in changes(told.as_ref(), chosen.as_ref()) {
            // Before it is up: it may open the device by this name. After it is down: it has closed the one before.
            if *change == Change::Up {
                link(&rule);
            }
            // Whoever comes up next finds nobody there from before.
            let wait = if *change == Change::Down && chosen.is_some() { Wait::Forever } else { Wait::No };
            let done = order(init, *change, wait, std::slice::from_ref(&rule.service))?;
            told = (done == Done::Yes).then(|| chosen.clone());
            if done == Done::Yes {
                let first = chosen.as_ref().map_or("no such device is there", |one| one.devpath.as_str());
                say(&format!("{}: {} ({first})", rule.service, change.word()));
            }
        }
        link(&rule);
        let timeout = if told.is_none() { PollTimeout::from(TRY_AGAIN_MS) } else { PollTimeout::NONE };
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        // Interrupted: the reads below find out what there is.
        let _ = poll(&mut fds, timeout);
        receive(&listener, &mut rule);
    }
}

fn link(rule: &Rule) {
    if let Err(error) = rule.link() {
        say(&format!("cannot make the link: {error}"));
    }
}

fn listen() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener =
        socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
    // With less a burst is lost, and /sys is walked again.
    let _ = setsockopt(&listener, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    bind(listener.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
    Ok(listener)
}

/// Takes all messages that are there.
fn receive(listener: &OwnedFd, rule: &mut Rule) {
    let mut message = vec![0; MESSAGE];
    loop {
        match recvfrom::<NetlinkAddr>(listener.as_raw_fd(), &mut message) {
            // Any process may send to the group; only the kernel has no port.
            Ok((_, from)) if from.is_none_or(|from| from.pid() != 0) => {}
            Ok((length, _)) => {
                if let Some(event) = message.get(..length).and_then(parse_event) {
                    rule.take(&event);
                }
            }
            Err(Errno::ENOBUFS) => rule.walk(),
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(sys: &Path, line: &str) -> Rule {
        let mut rule = Rule::parse(line.split(' ').map(str::to_owned).collect()).unwrap();
        rule.sysfs = Sysfs::at(sys);
        rule
    }

    fn plug(sys: &Path, devpath: &str, uevent: &str, subsystem: &str) {
        let folder = sys.join(devpath.trim_start_matches('/'));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("uevent"), uevent).unwrap();
        symlink(format!("../../../class/{subsystem}"), folder.join("subsystem")).unwrap();
    }

    fn event(message: &str) -> Event {
        parse_event(message.replace(' ', "\0").as_bytes()).unwrap()
    }

    #[test]
    fn devices_that_are_there_count_and_so_do_those_that_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let link = sys.join("by-rule/modem");
        let line = format!("--service modem --symlink {} subsystem=tty devname=ttyUSB*", link.display());
        let mut rule = rule(sys, &line);
        plug(sys, "/devices/usb1/tty/ttyUSB0", "DEVNAME=ttyUSB0\n", "tty");
        plug(sys, "/devices/soc/tty/ttyS0", "DEVNAME=ttyS0\n", "tty");
        rule.walk();
        rule.choose();
        rule.link().unwrap();
        assert_eq!(rule.present.keys().collect::<Vec<_>>(), ["/devices/usb1/tty/ttyUSB0"]);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/dev/ttyUSB0"));

        plug(sys, "/devices/usb2/tty/ttyUSB1", "DEVNAME=ttyUSB1\n", "tty");
        rule.take(&event("add@/devices/usb2/tty/ttyUSB1 SUBSYSTEM=tty DEVNAME=ttyUSB1"));
        rule.take(&event("add@/devices/gone/already SUBSYSTEM=tty DEVNAME=ttyUSB9"));
        assert_eq!(rule.present.len(), 2);
        rule.take(&event("remove@/devices/usb1/tty/ttyUSB0 SUBSYSTEM=tty"));
        rule.choose();
        rule.link().unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/dev/ttyUSB1"));

        // A device that changes so that the terms are true no more counts as gone.
        fs::write(sys.join("devices/usb2/tty/ttyUSB1/uevent"), "DEVNAME=other\n").unwrap();
        rule.take(&event("change@/devices/usb2/tty/ttyUSB1 SUBSYSTEM=tty"));
        assert_eq!(rule.choose(), None);
        rule.link().unwrap();
        assert_eq!(rule.present.len(), 0);
        assert!(fs::symlink_metadata(&link).is_err());
        rule.link().unwrap();
    }

    #[test]
    fn who_has_opened_a_device_is_told_when_another_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let mut rule = rule(sys, "--service modem subsystem=tty");
        let two = "/devices/usb2/tty/ttyUSB1";
        plug(sys, two, "DEVNAME=ttyUSB1\n", "tty");
        rule.walk();
        let first = rule.choose();
        assert_eq!(changes(None, first.as_ref()), [Change::Up]);
        let up = |rule: &mut Rule| changes(Some(&first), rule.choose().as_ref());

        // Another one, though its place comes first, is none of the service's business; nor is a walk.
        let one = "/devices/usb1/tty/ttyUSB0";
        plug(sys, one, "DEVNAME=ttyUSB0\n", "tty");
        rule.take(&event(&format!("add@{one} SUBSYSTEM=tty")));
        rule.walk();
        assert_eq!((rule.present.len(), up(&mut rule)), (2, &[][..]));
        rule.take(&event(&format!("remove@{one} SUBSYSTEM=tty")));
        assert_eq!(up(&mut rule), []);

        // Out and in again at the same place, before anybody looked.
        rule.take(&event(&format!("remove@{two} SUBSYSTEM=tty")));
        rule.take(&event(&format!("add@{two} SUBSYSTEM=tty")));
        assert_eq!(up(&mut rule), [Change::Down, Change::Up]);
        let second = rule.choose();
        assert_eq!(changes(Some(&second), second.as_ref()), []);
        rule.take(&event(&format!("remove@{two} SUBSYSTEM=tty")));
        assert_eq!(changes(Some(&second), rule.choose().as_ref()), [Change::Down]);
        assert_eq!(changes(Some(&None), None), []);
        assert_eq!(changes(None, None), [Change::Down]);
    }

    #[test]
    fn a_device_with_a_node_is_chosen_before_the_bus_that_it_hangs_on() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let mut rule = rule(sys, "--service modem subsystem=*");
        plug(sys, "/devices/usb1", "", "usb");
        rule.walk();
        assert_eq!(rule.choose().unwrap().devpath, "/devices/usb1");
        plug(sys, "/devices/usb1/tty", "DEVNAME=ttyUSB0\n", "tty");
        rule.take(&event("add@/devices/usb1/tty SUBSYSTEM=tty"));
        assert_eq!(rule.choose().unwrap().devpath, "/devices/usb1/tty");
    }

    #[test]
    fn a_rule_about_everything_or_about_nobody_is_refused() {
        for line in [
            "--service x",
            "subsystem=tty",
            "--service x subsystem",
            "--service x --symlink dev/x subsystem=tty",
        ] {
            let parsed = Rule::parse(line.split(' ').map(str::to_owned).collect());
            assert!(matches!(parsed, Err(Failure::Usage(_))), "{line}");
        }
    }
}
