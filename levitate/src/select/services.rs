//! The configuration's services in the language of the maintenance init, and the programs that they need.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use ramdisk::closure::elf::{self, Program as File};
use ramdisk::closure::{ClosureError, find_program};
use ramdisk::path::{PathError, Root};
use ramdisk::service::definition::parse_signal;
use ramdisk::service::{
    Kind, Pipeline, Program, Service, ServiceError, ServiceSet, Timeout, read_service_in,
};

use super::SelectError;
use crate::config::{self, CONFIG, Command, Config, ServiceType};

/// The bundle that the init starts.
const DEFAULT: &str = "default";

/// All services of the configuration, checked as a set. Unless it has a bundle `default` of its own, that is all.
pub(super) fn define(config: &Config, root: &Root) -> Result<Vec<Service>, SelectError> {
    let mut services = Vec::new();
    for (name, wanted) in &config.services {
        let mut service = match &wanted.source {
            Some(source) => from_source(name, source, root)?,
            None => from_config(name, wanted),
        };
        if let Some(dependencies) = &wanted.dependencies {
            service.dependencies = dependencies.iter().cloned().collect();
        }
        services.push(service);
    }
    if !config.services.contains_key(DEFAULT) {
        services.push(Service::bundle(DEFAULT, CONFIG, by_themselves(&services)));
    }
    let set = ServiceSet::new(services.clone()).map_err(|e| SelectError::Services(vec![e]))?;
    set.check().map_err(SelectError::Services)?;
    Ok(services)
}

/// All but what a controller starts, and what needs that.
fn by_themselves(services: &[Service]) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = services.iter().map(|service| service.name.clone()).collect();
    loop {
        let stays = |service: &&Service| {
            let needs = service.dependencies.iter().chain(&service.pipeline.producer_for);
            let contents = match &service.kind {
                Kind::Bundle { contents } => contents.clone(),
                _ => BTreeSet::new(),
            };
            // a name that does not exist is for the check of the set to tell
            let is_left_out = |name: &String| !all.contains(name) && services.iter().any(|s| s.name == *name);
            all.contains(&service.name)
                && service.controlled_by.is_none()
                && !needs.chain(&contents).any(is_left_out)
        };
        let left: BTreeSet<String> = services.iter().filter(stays).map(|s| s.name.clone()).collect();
        if left.len() == all.len() {
            return left;
        }
        all = left;
    }
}

fn from_source(name: &str, source: &Path, root: &Root) -> Result<Service, SelectError> {
    match root.resolve(source) {
        Ok(found) => read_service_in(root, &found.real, name).map_err(|e| SelectError::Services(vec![e])),
        Err(PathError::NotFound { .. }) => {
            Err(SelectError::NoSource { service: name.to_owned(), path: source.to_owned() })
        }
        Err(e) => Err(e.into()),
    }
}

pub(super) fn from_config(name: &str, wanted: &config::Service) -> Service {
    let program = |command: &Option<Command>| {
        command.as_ref().map(|command| match command {
            Command::Script(text) => Program::Script(text.trim_start_matches('\n').to_owned()),
            Command::Words(words) => Program::Words(words.iter().map(OsString::from).collect()),
        })
    };
    let mut service = match wanted.kind.unwrap_or_default() {
        ServiceType::Bundle => {
            return Service::bundle(name, CONFIG, wanted.contents.clone().unwrap_or_default());
        }
        ServiceType::Oneshot => Service::oneshot(name, CONFIG, program(&wanted.up), program(&wanted.down)),
        ServiceType::Longrun => {
            let run = program(&wanted.run).unwrap_or(Program::Words(Vec::new()));
            Service::longrun(name, CONFIG, run)
        }
    };
    if let Kind::Longrun { finish, notification_fd, down_signal, timeout_kill, .. } = &mut service.kind {
        *finish = program(&wanted.finish);
        *notification_fd = wanted.notification_fd;
        if let Some(signal) = wanted.down_signal.as_deref().and_then(parse_signal) {
            *down_signal = signal;
        }
        if let Some(limit) = wanted.timeout_kill {
            *timeout_kill = Timeout::from_ms(limit.0);
        }
    }
    service.controlled_by = wanted.controlled_by.clone();
    service.pipeline = Pipeline {
        producer_for: wanted.producer_for.clone(),
        consumer_for: wanted.consumer_for.iter().flatten().cloned().collect(),
        name: wanted.pipeline_name.clone(),
    };
    service.timeout_up = wanted.timeout_up.map_or(service.default_timeout_up(), |t| Timeout::from_ms(t.0));
    if let Some(limit) = wanted.timeout_down {
        service.timeout_down = Timeout::from_ms(limit.0);
    }
    service
}

/// The service's programs in the order in which they are run.
pub(crate) fn own_programs(service: &Service) -> impl Iterator<Item = &Program> {
    let all = match &service.kind {
        Kind::Longrun { run, finish, .. } => [Some(run), finish.as_ref()],
        Kind::Oneshot { up, down } => [up.as_ref(), down.as_ref()],
        Kind::Bundle { .. } => [None, None],
    };
    all.into_iter().flatten()
}

/// What has to be staged for the service to run: the programs it names, and its scripts' interpreters. What a script
/// calls is not known here; that is for `packages`.
pub(super) fn programs(
    service: &Service,
    root: &Root,
    path: &[PathBuf],
) -> Result<Vec<PathBuf>, ClosureError> {
    let mut wanted = Vec::new();
    for program in own_programs(service) {
        match program {
            Program::Words(words) => {
                // the array becomes a script that executes it
                wanted.push("/bin/sh".into());
                // every maintenance root has ours
                let name = words.first().filter(|name| !is_ours(&name.to_string_lossy()));
                if let Some(name) = name {
                    wanted.push(find_program(root, &name.to_string_lossy(), path)?);
                }
            }
            Program::Script(text) => {
                let first = text.lines().next().unwrap_or_default();
                let words = first.strip_prefix("#!").map_or("/bin/sh", str::trim);
                interpreter(
                    &words.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
                    &mut wanted,
                    root,
                    path,
                )?;
            }
            Program::File(file) => match elf::read(file) {
                Ok(File::Script(words)) => interpreter(&words, &mut wanted, root, path)?,
                Ok(File::Elf(_)) => wanted.extend(inside(root, file)),
                Ok(File::Other) => {
                    return Err(ClosureError::NotAProgram {
                        program: file.clone(),
                        found: "neither ELF nor a script with #!",
                    });
                }
                Err(source) => return Err(ClosureError::Elf { file: file.clone(), source }),
            },
        }
    }
    Ok(wanted)
}

/// The commands and controllers that come with levitate itself.
fn is_ours(program: &str) -> bool {
    ramdisk::commands::NAMES.contains(&program) || ramdisk::controllers::NAMES.contains(&program)
}

fn interpreter(
    words: &[String],
    wanted: &mut Vec<PathBuf>,
    root: &Root,
    path: &[PathBuf],
) -> Result<(), ClosureError> {
    let Some((first, rest)) = words.split_first() else { return Ok(()) };
    wanted.push(first.into());
    if Path::new(first).file_name().is_some_and(|n| n == "env")
        && let Some(name) = rest.iter().find(|w| !w.starts_with('-') && !w.contains('='))
    {
        wanted.push(find_program(root, name, path)?);
    }
    Ok(())
}

fn inside(root: &Root, host: &Path) -> Option<PathBuf> {
    Some(Path::new("/").join(host.strip_prefix(root.dir()).ok()?))
}

/// The words of a program, for telling what it is: the command itself, or every word of a script without its
/// comments.
pub(crate) fn words(program: &Program) -> Vec<String> {
    let of_text = |text: &str| {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let quotes = |word: &str| word.trim_matches(['"', '\'', ';']).to_owned();
        lines.flat_map(str::split_whitespace).map(quotes).collect()
    };
    match program {
        Program::Words(words) => words.iter().map(|w| w.to_string_lossy().into_owned()).collect(),
        Program::Script(text) => of_text(text),
        Program::File(file) => of_text(&fs::read_to_string(file).unwrap_or_default()),
    }
}

/// Services that the init would start, directly or through bundles.
pub(super) fn started(services: &[Service]) -> BTreeSet<String> {
    let set: Result<ServiceSet, ServiceError> = ServiceSet::new(services.iter().cloned());
    let Ok(set) = set else { return BTreeSet::new() };
    let mut started = set.members(DEFAULT);
    let mut todo: Vec<String> = started.iter().cloned().collect();
    while let Some(name) = todo.pop() {
        for needed in set.direct_dependencies(&name) {
            if started.insert(needed.clone()) {
                todo.push(needed);
            }
        }
    }
    started
}
