//! The QEMU harness: boards with emulated NOR flash, a machine that can be booted, spoken to, cut off; the upgrade
//! regression tests; `cargo demo`, `cargo test-all`, `cargo bench-flash` and `cargo bench-levitate`.
//!
//! Exit codes: 0 all is well, 1 a test failed or the demonstration did not hold, 2 the command line is wrong,
//! 3 the harness could not do its work.

mod assets;
mod progress;

mod boards;
mod chip_log;
mod console;
mod firmware;
mod machine;
mod nor_image;
mod peer;
mod process;
mod qmp;
mod ssh;

mod check;
mod line;
mod scenarios;

mod bench_flash;
mod bench_levitate;
mod cli;
mod demo;
mod suite;

use std::process::ExitCode;

use clap::Parser;

use assets::Assets;
use bench_flash::Shown;
use cli::{Action, Arguments};
use suite::{Failure, Length};

/// What set-up's failure ends with: nothing is known of any promise.
const HARNESS: u8 = 3;

fn main() -> ExitCode {
    ExitCode::from(match Arguments::parse().command {
        Action::TestAll { list: true, name, long } => suite::list(name.as_deref(), Length::of(long)),
        Action::TestAll { list: false, name, long } => suite::run(name.as_deref(), Length::of(long)),
        Action::Scenario { assets, name } => suite::one::run(&assets, &name),
        Action::Demo { json, setup_only: true, .. } => with_assets(|assets| show_places(assets, json)),
        Action::Demo { shell: Some(place), init, .. } => {
            with_assets(|assets| demo::shell(assets, place, init))
        }
        Action::Demo { json, .. } => with_assets(|assets| show_demo(assets, json)),
        Action::BenchFlash { json } => with_assets(|assets| show_bench(assets, json)),
        Action::BenchLevitate { json } => with_assets(|assets| show_bench_levitate(assets, json)),
    })
}

fn with_assets(work: impl FnOnce(&mut Assets) -> Result<(), Failure>) -> u8 {
    let mut assets = match assets::prepare() {
        Ok(assets) => assets,
        Err(error) => {
            eprintln!("error: {error}");
            return HARNESS;
        }
    };
    match work(&mut assets) {
        Ok(()) => {
            assets.tidy();
            0
        }
        Err(failure) => {
            eprint!("{}", suite::report::consoles(&assets.scratch));
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn show_demo(assets: &Assets, json: bool) -> Result<(), Failure> {
    let outcome = demo::run(assets)?;
    if json {
        println!("{}", serde_json::to_string(&outcome).map_err(Failure::harness)?);
    } else {
        println!("{}", outcome.line());
    }
    Ok(())
}

fn show_bench(assets: &mut Assets, json: bool) -> Result<(), Failure> {
    let mut boards = 0;
    bench_flash::run(assets, |shown| match shown {
        Shown::Line(line) if json => println!("{}", serde_json::json!(line)),
        Shown::Line(line) => println!("{}", line.text()),
        Shown::Board(_) if json => {}
        Shown::Board(heading) => {
            if boards > 0 {
                println!();
            }
            boards += 1;
            println!("{heading}");
        }
    })?;
    if !json {
        println!("\n{}", bench_flash::NOTES);
    }
    Ok(())
}

fn show_bench_levitate(assets: &Assets, json: bool) -> Result<(), Failure> {
    if !json {
        println!("{}", bench_levitate::heading());
    }
    bench_levitate::run(assets, |line| match json {
        true => println!("{}", serde_json::json!(line)),
        false => println!("{}", line.text()),
    })?;
    if !json {
        println!("\n{}", bench_levitate::NOTES);
    }
    Ok(())
}

fn show_places(assets: &Assets, json: bool) -> Result<(), Failure> {
    let places = assets.places();
    if json {
        let object: serde_json::Map<_, _> = places
            .into_iter()
            .map(|(name, path)| (name.to_owned(), path.display().to_string().into()))
            .collect();
        println!("{}", serde_json::to_string(&object).map_err(Failure::harness)?);
    } else {
        for (name, path) in places {
            println!("{name:15} {}", path.display());
        }
    }
    Ok(())
}
