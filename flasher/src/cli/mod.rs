//! The `flashcp` command.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::error::Error;
use crate::guard::Facts;
use crate::hold::SystemHold;
use crate::image::ImageFile;
use crate::kernel::{Access, Bus, KernelMtd};
use crate::options::Mode;
use crate::pipeline::{self, Failure, Job, Report};
use crate::record::RecordDir;
use crate::sys::process;
use crate::target;
use crate::ubi::{self, SystemVolumes, VolumeJob};

mod args;
mod hints;
mod render;

use args::Args;
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
    let mut screen = Screen::new(&parsed);
    match flash(&args, &parsed, &mut screen) {
        Ok(report) => {
            screen.report(&report);
            report.exit_code()
        }
        Err(failure) => {
            screen.failure(&failure);
            failure.exit_code()
        }
    }
}

fn flash(args: &[OsString], parsed: &Args, screen: &mut Screen) -> Result<Report, Failure> {
    let root = Path::new("/");
    let options = parsed.options();
    let mut image = ImageFile::open(&parsed.image).map_err(Error::from)?;
    let command: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if let Some((volume, named)) = target::ubi::resolve(root, &parsed.device).map_err(Error::from)? {
        let job = VolumeJob {
            volume: &volume,
            named,
            users: &target::ubi::users(root, &volume),
            options: &options,
            command: &command,
            records: &RecordDir::system(),
            hold: &mut SystemHold::new(PathBuf::from(root)),
            progress: screen,
        };
        return ubi::run(&mut SystemVolumes::new(root, volume.ubi), &mut image, job);
    }
    let target = target::resolve(root, &parsed.device).map_err(Error::from)?;
    let facts = Facts::read(root).map_err(Error::from)?;
    let (size, bus) = facts.mtd(target.number).map_or((target.size, Bus::Other), |mtd| (mtd.size, mtd.bus()));
    let access = match options.mode {
        Mode::Write => Access::Write,
        Mode::DryRun | Mode::VerifyOnly => Access::Read,
    };
    let mut chip = KernelMtd::open(&target.node(), size, bus, access).map_err(Error::from)?;
    let job = Job {
        target: &target,
        facts: &facts,
        options: &options,
        command: &command,
        records: &RecordDir::system(),
        hold: &mut SystemHold::new(PathBuf::from(root)),
        progress: screen,
    };
    pipeline::run(&mut chip, &mut image, job)
}
