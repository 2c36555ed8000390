//! Standard descriptors that take nothing more, while a simulated chip is flashed: text is lost, and nothing else. The
//! emulated board's `link_cut` is the same with a real cable.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;

use super::*;
use crate::device::{Geometry, Kind};
use crate::guard::{Facts, MtdFacts};
use crate::hold::NoHold;
use crate::options::Options;
use crate::pipeline::{self, Job};
use crate::record::{RecordDir, State};
use crate::sim::{Fault, Faulty, Nor};
use crate::source::Bytes;
use crate::target::Target;

/// Far more than any of these runs takes: whoever has not ended then waits for ever.
const LIMIT: Duration = Duration::from_secs(60);

/// An output that takes nothing more, with the other end that is to be kept open.
fn full(output: OwnedFd, peer: OwnedFd) -> [OwnedFd; 2] {
    let own = File::from(output.try_clone().unwrap());
    let flags = OFlag::from_bits_retain(fcntl(&own, FcntlArg::F_GETFL).unwrap());
    fcntl(&own, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    for piece in [4096, 1] {
        while (&own).write(&vec![b'x'; piece]).is_ok() {}
    }
    // Whoever started the program left it blocking.
    fcntl(&own, FcntlArg::F_SETFL(flags)).unwrap();
    [output, peer]
}

fn pipe() -> [OwnedFd; 2] {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    full(writer, reader)
}

fn terminal() -> [OwnedFd; 2] {
    let pair = openpty(None, None).unwrap();
    full(pair.slave, pair.master)
}

fn socket() -> [OwnedFd; 2] {
    let (socket, peer) = UnixStream::pair().unwrap();
    full(socket.into(), peer.into())
}

/// A run as the command makes it, over a chip that needs some bytes written again. Returns what is proven, and what the
/// record says.
fn flashed(screen: &mut Screen, fault: Fault) -> (bool, State) {
    let geometry = Geometry {
        kind: Kind::SpiNor,
        size: 64 * 256,
        erase_size: 256,
        write_size: 1,
        bit_writeable: true,
        writeable: true,
        regions: Vec::new(),
    };
    let mtd = MtdFacts {
        number: 5,
        name: "firmware".to_owned(),
        kind: "nor".to_owned(),
        size: geometry.size,
        erase_size: geometry.erase_size,
        writeable: true,
        spi_nor: true,
        chip: Some("chip".to_owned()),
        start: Some(0),
    };
    let target = Target { number: 5, name: "firmware".to_owned(), size: geometry.size, erase_size: 256 };
    let image = vec![0xaa; 64 * 256];
    let mut chip = Faulty::new(Nor::new(geometry, vec![0x55; 64 * 256]), fault);
    let dir = tempfile::tempdir().unwrap();
    let records = RecordDir::new(&dir.path().join("levitate"));
    let command = ["flashcp".to_owned()];
    let job = Job {
        target: &target,
        facts: &Facts::new(vec![mtd], Vec::new()),
        options: &Options::default(),
        command: &command,
        records: &records,
        hold: &mut NoHold,
        progress: screen,
    };
    let mut source = Bytes::new("fw.bin", image.clone()).unwrap();
    match pipeline::run(&mut chip, &mut source, job) {
        Ok(report) => screen.report(&report),
        Err(failure) => screen.failure(&failure),
    }
    (chip.inner().bytes() == image, records.read().unwrap().state)
}

/// What a run will come to whose two outputs are these.
fn outcome(make: fn() -> [OwnedFd; 2], style: Style, fault: Fault) -> mpsc::Receiver<(bool, State)> {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let [[out, _other], [err, _another]] = [make(), make()];
        let mut screen = Screen::on(out.as_fd(), err.as_fd(), style, Mode::Write);
        screen.patience = Duration::from_millis(10);
        screen.start(&["flashcp".to_owned()]);
        let _ = done.send(flashed(&mut screen, fault));
    });
    wait
}

#[test]
fn output_that_takes_nothing_more_stops_no_run_and_leaves_none_changing() {
    let (good, bad) = ((true, State::Verified), (false, State::Unverified));
    let mut runs = Vec::new();
    for make in [pipe, terminal, socket] {
        for style in [Style::Quiet, Style::Lines, Style::Terminal(80), Style::Json] {
            for (fault, expected) in [(Fault::ProgramFlips(3), good), (Fault::StuckOne(1000), bad)] {
                runs.push((style, fault, expected, outcome(make, style, fault)));
            }
        }
    }
    for (style, fault, expected, wait) in runs {
        let found = wait.recv_timeout(LIMIT);
        assert_eq!(
            found,
            Ok(expected),
            "{style:?}, {fault:?}: `Err` is a run that still waits for its output"
        );
    }
}
