//! `cargo bench -p flasher`: what an upgrade costs, counted by simulated chips, beside the least that it could cost.
//! `cargo bench -p flasher -- --json` prints one object per line. Fails where this crate misses the bound.

mod bounds;
#[path = "../tests/common/mod.rs"]
mod common;

use std::process::ExitCode;

use bounds::measure::{Measured, Tool, measure};
use bounds::sheet::{PARALLEL, SERIAL, Sheet};
use flasher::sim::cases::cases;

/// The image's size.
const SIZE: usize = 8 << 20;

fn main() -> ExitCode {
    let mut json = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            // What cargo itself says.
            "--bench" => {}
            other => {
                eprintln!("flash: unknown argument {other}; there is --json");
                return ExitCode::from(2);
            }
        }
    }
    let measured = all(&SERIAL).and_then(|serial| Ok((serial, all(&PARALLEL)?)));
    let (serial, parallel) = match measured {
        Ok(measured) => measured,
        Err(error) => {
            eprintln!("flash: {error}");
            return ExitCode::FAILURE;
        }
    };
    if json {
        print_json(&serial, &parallel);
    } else {
        print_table("Serial NOR", &serial);
        println!();
        print_table("Parallel NOR", &parallel);
        println!("\n{NOTES}\n{}\n{}", SERIAL.part().source, PARALLEL.part().source);
    }
    let broken: Vec<_> = serial.iter().chain(&parallel).filter_map(Measured::broken_promise).collect();
    for broken in &broken {
        eprintln!("flash: bound missed: {broken}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const NOTES: &str = "\
An image of 8 MiB. erases: blocks. programmed: bytes of whole program pages, each time one is programmed.
ours: --head=keep. ours-safe: --head=auto, the default. plain, blockwise: models of mtd-utils 2.3.1's flashcp
without and with -p. bound: the blocks in which some bit must go from 0 to 1, and the pages that hold a byte to
change. Counted by the simulated chip, whose contents are compared with the image after each run; seconds are computed
from the counts and these data sheets, and partly filled pages are timed as full ones:";

fn all(sheet: &Sheet) -> Result<Vec<Measured>, String> {
    // In memory where there is such a place: records are written to the end of their disk.
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .map_err(|error| format!("cannot make a directory for the records: {error}"))?;
    let records = flasher::record::RecordDir::new(dir.path());
    let mut lines = Vec::new();
    for case in cases(SIZE) {
        for tool in Tool::ALL {
            lines.push(measure(sheet, &case, tool, &records)?);
        }
    }
    Ok(lines)
}

fn print_table(title: &str, lines: &[Measured]) {
    println!(
        "{title:<22}{:>8} {:<10}{:>8}{:>12}{:>12}{:>10}",
        "block", "tool", "erases", "programmed", "read", "seconds"
    );
    for case in lines.chunks(Tool::ALL.len()) {
        for (number, line) in case.iter().enumerate() {
            let (name, block) = match number {
                0 => (line.case, format!("{} KiB", line.erase_size >> 10)),
                _ => ("", String::new()),
            };
            println!(
                "{name:<22}{block:>8} {:<10}{:>8}{:>12}{:>12}{:>10.2}",
                line.tool.name(),
                line.count.erases,
                line.count.pages * line.page,
                line.count.read,
                line.seconds
            );
        }
        if let Some(line) = case.first() {
            let programmed = line.bound.pages * line.page;
            println!("{:<31}{:<10}{:>8}{programmed:>12}", "", "bound", line.bound.erases);
        }
    }
}

fn print_json(serial: &[Measured], parallel: &[Measured]) {
    let rounded = |seconds: f64| (seconds * 1e4).round() / 1e4;
    for (line, parallel) in serial.iter().zip(parallel) {
        let object = serde_json::json!({
            "case": line.case,
            "tool": line.tool.name(),
            "erase_size": line.erase_size,
            "erases": line.count.erases,
            "programmed": line.count.pages * line.page,
            "read": line.count.read,
            "seconds": rounded(line.seconds),
            "seconds_parallel": rounded(parallel.seconds),
            "bound_erases": line.bound.erases,
            "bound_programmed": line.bound.pages * line.page,
        });
        println!("{object}");
    }
}
