//! The `flashcp` command.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::batch::{self, Listen, Run, Surroundings};
use crate::error::Error;
use crate::event::{Event, Progress};
use crate::guard::Facts;
use crate::hold::SystemHold;
use crate::kernel::{Access, Bus, KernelMtd};
use crate::options::{Mode, Options};
use crate::pipeline::{self, Failure, Job};
use crate::plan_file::{self, Entry};
use crate::record::RecordDir;
use crate::report::Report;
use crate::source::feed::Descriptor;
use crate::source::file::AnyFile;
use crate::source::{Decompress, Format, ImageError, Limits, Window, stdin};
use crate::stream;
use crate::sys::process;
use crate::target;
use crate::target::ubi::{Named, UbiVolume};
use crate::ubi::{self, SystemVolumes, VolumeJob};

mod args;
mod bar;
mod help;
mod hints;
mod json;
mod lines;
mod picture;
mod render;
mod words;

use args::{Args, Work};
use render::Screen;

/// Runs `flashcp` with a command line (the program's name included) and returns its exit code: 0 verified, 1 failed
/// and flash untouched, 2 usage, 3 flash changed and not verified, 4 verified but locks not restored, 5
/// `--verify-only` and different.
///
/// Prints to the standard descriptors. After the first change of flash the process ignores the signals of a lost
/// session.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.collect();
    // As in any command, a reader that goes away ends this one, until flash is being changed.
    let _ = process::default_pipe_signal();
    let parsed = match Args::try_parse_from(&args).and_then(Args::checked) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            let _ = std::io::stdout().flush();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let command: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut screen = Screen::new(&parsed);
    screen.start(&command);
    match flash(&command, &parsed, &mut screen) {
        Ok(code) => code,
        Err(failure) => {
            screen.failure(&failure);
            failure.exit_code()
        }
    }
}

/// What every run needs of the system.
#[derive(Clone, Copy)]
struct System<'a> {
    options: &'a Options,
    command: &'a [String],
    limits: Limits,
}

impl System<'_> {
    /// Opens the device and hands it to `run`, with everything around it.
    fn with<T>(
        &self,
        device: &str,
        screen: &mut Screen,
        run: impl FnOnce(&mut KernelMtd, Job<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let root = Path::new("/");
        let target = target::resolve(root, device).map_err(Error::from)?;
        let facts = Facts::read(root).map_err(Error::from)?;
        let (size, bus) =
            facts.mtd(target.number).map_or((target.size, Bus::Other), |mtd| (mtd.size, mtd.bus()));
        let access = match self.options.mode {
            Mode::Write => Access::Write,
            Mode::DryRun | Mode::VerifyOnly => Access::Read,
        };
        let chip = KernelMtd::open(&target.node(), target.number, size, bus, access);
        let mut chip = chip.map_err(Error::from)?;
        let job = Job {
            target: &target,
            facts: &facts,
            options: self.options,
            command: self.command,
            records: &RecordDir::system(),
            hold: &mut SystemHold::new(PathBuf::from(root)),
            progress: screen,
        };
        run(&mut chip, job)
    }

    /// The UBI volume that the name means, if it is that of one.
    fn volume(&self, device: &str) -> Result<Option<(UbiVolume, Named)>, Failure> {
        target::ubi::resolve(Path::new("/"), device).map_err(|error| Error::from(error).into())
    }

    /// The same for a volume.
    fn with_volume<T>(
        &self,
        (volume, named): &(UbiVolume, Named),
        screen: &mut Screen,
        run: impl FnOnce(&mut SystemVolumes, VolumeJob<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let root = Path::new("/");
        let job = VolumeJob {
            volume,
            named: *named,
            users: &target::ubi::users(root, volume),
            options: self.options,
            command: self.command,
            records: &RecordDir::system(),
            hold: &mut SystemHold::new(PathBuf::from(root)),
            progress: screen,
        };
        run(&mut SystemVolumes::new(root, volume.ubi), job)
    }
}

/// Returns the exit code; what was done has been told.
fn flash(command: &[String], parsed: &Args, screen: &mut Screen) -> Result<u8, Failure> {
    let options = parsed.options();
    let system = System { options: &options, command, limits: Limits::of(Path::new("/")) };
    let report = match parsed.work() {
        Work::File(path, device) => {
            let image = AnyFile::open(path, parsed.decompress(), system.limits);
            let mut image = image.map_err(Error::from)?;
            announce(screen, image.format());
            if let Some(volume) = system.volume(device)? {
                system.with_volume(&volume, screen, |volumes, job| ubi::run(volumes, image.source(), job))?
            } else {
                system.with(device, screen, |chip, job| pipeline::run(chip, image.source(), job))?
            }
        }
        Work::Stdin(device) => {
            let volume = system.volume(device)?;
            let input = Descriptor::new(std::io::stdin().as_fd());
            let name = stdin::NAME.to_owned();
            let input = input.map_err(|source| Error::from(ImageError::Read { name, offset: 0, source }))?;
            let (mut feed, format) =
                stdin::open(input, parsed.decompress(), system.limits).map_err(Error::from)?;
            announce(screen, format);
            if let Some(volume) = volume {
                system.with_volume(&volume, screen, |volumes, job| {
                    ubi::run_stream(volumes, feed.as_mut(), job)
                })?
            } else {
                system.with(device, screen, |chip, job| stream::run(chip, feed.as_mut(), job))?
            }
        }
        Work::Plan(path) => {
            let entries = plan_file::read(path).map_err(Error::from)?;
            let mut batch = Batch { system, screen };
            let code = batch::run(&entries, &options, command, &RecordDir::system(), &mut batch)?;
            screen.plan_is_done(code);
            return Ok(code);
        }
    };
    screen.report(&report);
    Ok(report.exit_code())
}

/// The real surroundings of a plan's images.
struct Batch<'a> {
    system: System<'a>,
    screen: &'a mut Screen,
}

impl Surroundings for Batch<'_> {
    fn run(&mut self, entry: &Entry, options: &Options, listen: Listen<'_>) -> Result<Run, Failure> {
        let limits = self.system.limits;
        let mut image = AnyFile::open(&entry.image, Decompress::ByName, limits).map_err(Error::from)?;
        announce(self.screen, image.format());
        let system = System { options, ..self.system };
        if let Some(volume) = system.volume(&entry.partition)? {
            return system.with_volume(&volume, self.screen, |volumes, job| {
                batch::run_volume(volumes, image.source(), job, listen)
            });
        }
        system.with(&entry.partition, self.screen, |chip, job| {
            batch::run_one(chip, image.source(), job, listen)
        })
    }

    fn done(&mut self, report: &Report) {
        self.screen.image(report);
    }
}

/// How an image is compressed, and what its decoder takes.
fn announce(screen: &mut Screen, format: Option<(Format, Window)>) {
    if let Some((format, window)) = format {
        let Window { size, memory } = window;
        screen.event(&Event::Input { format: format.name(), window: size, memory });
    }
}
