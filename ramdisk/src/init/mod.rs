//! The init: PID 1 of the maintenance root (and of any root that has services in `/etc/levitate/services`).
//!
//! It never exits, never panics and never waits without a deadline. Whatever goes wrong in a maintenance root ends in a
//! reboot into the system that was there before, unless flash was changed and not verified: then it stays, so that the
//! flash can be completed. A normal system has nothing else to go to: it starts what it can and stays. In the order in which data passes: [`early`] things, [`log`], the [`supervisor`]'s decisions, the
//! [`machine`] that does them over a [`kernel`], the [`lease`] that ends when nobody has [`sessions`], the [`control`]
//! socket, and the [`shutdown`] behind the flash [`interlock`].

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod options;

pub mod early;

pub(crate) mod stamp;

pub mod log;

pub mod supervisor;

pub mod kernel;

pub mod interlock;

pub mod sessions;

pub mod lease;

pub mod shutdown;

pub mod control;
mod order;
pub mod snapshot;

mod orders;

pub mod client;

pub mod machine;

mod connections;
mod console;
mod disks;
mod handover;
mod last_resort;
mod linux;
mod looks;
mod previous_boot;
mod script;
mod watchdog;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};

use self::lease::Terms;
use self::linux::Linux;
use self::log::{Log, LogLimits};
use self::machine::{Init, Turn};
use self::options::Options;
use self::shutdown::Limits;
use self::watchdog::Watchdog;
use crate::network::{self, NetworkState};
use crate::service::{ServiceSet, read_services_dir, read_valid_services};
use crate::sys;

/// Runs as PID 1, for ever. `args` are the words after the program's name; see [`Options`] for those that are
/// understood.
///
/// In any other process it says so and exits with 100: it would kill everybody else.
pub fn run(args: impl Iterator<Item = OsString>) -> ! {
    if std::process::id() != 1 {
        console::say("init: this is not process 1; nothing was done");
        std::process::exit(100);
    }
    let options = Options::parse(args);
    reboot_on_panic();
    let mut init = prepare(options);
    loop {
        if init.turn() == Turn::NotEnded {
            // Nothing is left but to try again; the next turn does.
            std::thread::sleep(Duration::from_secs(10));
        }
    }
}

/// Everything up to the first turn, in order. What fails is told and lived with, unless nothing can be done without it.
fn prepare(options: Options) -> Init<Linux> {
    // Before anything that takes time.
    let (mut watchdogs, mut problems) = match std::env::var_os(watchdog::FD_VARIABLE) {
        Some(value) => take_watchdogs(&value.to_string_lossy()),
        None => (Vec::new(), Vec::new()),
    };
    let mut feed = || watchdogs.iter_mut().for_each(|watchdog| watchdog.feed_now(0));
    sys::process::default_signals();
    problems.extend(early::mount_all().iter().map(chain));
    sys::process::close_on_exec_from_3();
    if !early::is_contained() {
        // A key press becomes a signal that goes through the same gate as every other wish to reboot.
        problems.extend(set_cad_enabled(false).err().map(|error| format!("ctrl-alt-del stays on: {error}")));
        problems.extend(early::reset_on_panic().err().as_ref().map(chain));
    }
    feed();
    let log = open_log(&options, &mut problems);
    feed();
    let network = read_network(&options.network, &mut problems);
    let name = network.as_ref().and_then(|network| network.hostname.as_deref());
    problems.extend(early::set_host_name(name, Path::new("/etc/hostname")).err().as_ref().map(chain));
    if let Some(network) = &network {
        problems.extend(network::apply(network).iter().map(chain));
    }
    feed();
    let mut kernel = match Linux::new(options.clone()) {
        Ok(kernel) => kernel,
        Err(error) => reboot_now(&chain(&error)),
    };
    kernel.guard(watchdogs);
    problems.extend(kernel.listen().err().map(|error| format!("reboot by command is not possible: {error}")));

    let terms = Terms::read(&options.manifest).unwrap_or_else(|error| {
        problems.push(chain(&error));
        Some(Terms::default())
    });
    let set = match &terms {
        Some(_) => load_services(&options.services),
        None => Ok(load_valid_services(&options.services, &mut problems)),
    };
    let (set, fault) = match set {
        Ok(set) => (set, None),
        Err(fault) => (ServiceSet::default(), Some(fault)),
    };
    let mut init = Init::new(kernel, set, log, Limits::default());
    if let Some(terms) = terms {
        init = init.with_lease(terms);
    }
    init.announce("maintenance init started");
    for problem in problems {
        init.announce(&problem);
    }
    match fault {
        None => init.start(),
        Some(fault) => init.give_up(&fault),
    }
    init
}

fn open_log(options: &Options, problems: &mut Vec<String>) -> Log {
    let dir = options.run.join("log");
    let log = Log::open(&dir, Some(Path::new("/dev/pmsg0")), LogLimits::default());
    let link = options.run.join("uncaught-logs");
    // In a namespace pstore is somebody else's.
    if !early::is_contained() {
        problems.extend(keep_previous_boot(&dir.join("previous-boot")));
    }
    problems.extend(
        log.link_at(&link).err().map(|error| format!("cannot make the link {}: {error}", link.display())),
    );
    log
}

/// What did not work of it.
fn keep_previous_boot(to: &Path) -> Option<String> {
    if let Err(errno) = previous_boot::mount_pstore() {
        return Some(format!("cannot mount pstore: {}", errno.desc()));
    }
    let kept = previous_boot::keep(Path::new(previous_boot::PSTORE), to);
    kept.err().map(|error| format!("cannot keep what the previous boot left: {error}"))
}

fn read_network(file: &Path, problems: &mut Vec<String>) -> Option<NetworkState> {
    match NetworkState::read(file) {
        Ok(state) => state,
        Err(error) => {
            problems.push(chain(&error));
            None
        }
    }
}

/// Takes the watchdogs over that were handed over, and what did not work of that: one that fails does not keep the others
/// from being fed.
fn take_watchdogs(value: &str) -> (Vec<Watchdog>, Vec<String>) {
    let (mut watchdogs, mut problems) = (Vec::new(), Vec::new());
    // Each once: a descriptor has one owner.
    let words: BTreeSet<&str> = value.split(',').map(str::trim).collect();
    for word in words {
        match take_watchdog(word) {
            Ok(watchdog) => watchdogs.push(watchdog),
            Err(problem) => problems.push(problem),
        }
    }
    (watchdogs, problems)
}

fn take_watchdog(number: &str) -> Result<Watchdog, String> {
    let number =
        number.parse().map_err(|_| format!("{} has no number: {number:?}", watchdog::FD_VARIABLE))?;
    let device = sys::watchdog::Device::from_inherited(number).map_err(|error| chain(&error))?;
    Watchdog::take_over(device, 0).map_err(|error| chain(&error))
}

fn load_services(dir: &Path) -> Result<ServiceSet, String> {
    let set = read_services_dir(dir).map_err(|error| chain(&error))?;
    set.check().map_err(|errors| errors.iter().map(chain).collect::<Vec<_>>().join("; "))?;
    Ok(set)
}

/// Those of a normal system: there is no other one to go back to, so what is wrong with one service is no reason to do
/// without the others.
fn load_valid_services(dir: &Path, problems: &mut Vec<String>) -> ServiceSet {
    let (set, faults) = read_valid_services(dir);
    problems.extend(faults.iter().map(|fault| format!("left out: {}", chain(fault))));
    set
}

/// An error with all its sources.
fn chain(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn reboot_on_panic() {
    std::panic::set_hook(Box::new(|info| reboot_now(info)));
}

/// The last way out: no service is stopped, nothing is written back.
fn reboot_now(why: &dyn Display) -> ! {
    let why = format!("cannot go on, resetting: {why}");
    console::report(Path::new("/dev/console"), &why);
    console::kernel_log(&why);
    loop {
        // Returns only when it failed.
        let _ = reboot(RebootMode::RB_AUTOBOOT);
        std::thread::sleep(Duration::from_secs(10));
    }
}
