//! `s6-rc-db`: what the definitions say, whether or not anything runs. The "compiled database" is the folder of source
//! directories itself.
//!
//! Exit codes are s6-rc-db's: 0, 3 unknown, 4 invalid definitions, 5 wrong type, 100 usage, 111 system call.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::graph::{Graph, Names, Way};
use super::options::{Parsed, parse};
use super::{Context, SYSTEM};
use crate::service::{Kind, Program, Service, ServiceError, ServiceSet, read_services_dir};

pub(super) const HELP: &str = "\
s6-rc-db help
s6-rc-db [ -c folder ] check
s6-rc-db [ -c folder ] list all|services|oneshots|longruns|bundles
s6-rc-db [ -c folder ] type servicename
s6-rc-db [ -c folder ] [ -u | -d ] timeout atomicname
s6-rc-db [ -c folder ] contents bundlename
s6-rc-db [ -c folder ] [ -u | -d ] dependencies servicename
s6-rc-db [ -c folder ] pipeline longrunname
s6-rc-db [ -c folder ] [ -u | -d ] script oneshotname
s6-rc-db [ -c folder ] atomics servicename...
s6-rc-db [ -c folder ] [ -u | -d ] all-dependencies servicename...
";

/// Invalid definitions.
const INVALID: u8 = 4;
/// Not for a service of that type.
const WRONG_TYPE: u8 = 5;

pub(super) fn run(context: &mut Context<'_>, words: Vec<String>) -> u8 {
    // -l names the live state and -b waits for a lock: neither is needed to read definitions.
    let long = [("up", 'u'), ("down", 'd'), ("block", 'b')];
    context.with_options(parse(words, "udb", "lc", &long), command)
}

fn read(context: &mut Context<'_>, parsed: &Parsed) -> Result<ServiceSet, u8> {
    if let Some(folder) = parsed.value('c') {
        context.services = folder.into();
    }
    let tell = |context: &mut Context<'_>, error: &ServiceError| {
        let why = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        let code = if matches!(error, ServiceError::Read { .. }) { SYSTEM } else { INVALID };
        context.fatal(code, &format!("{error}{why}"))
    };
    let set = read_services_dir(&context.services).map_err(|error| tell(context, &error))?;
    match set.check() {
        Ok(()) => Ok(set),
        Err(errors) => {
            for error in &errors {
                tell(context, error);
            }
            Err(INVALID)
        }
    }
}

fn command(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8, u8> {
    let down = parsed.last_of(&['u', 'd']) == Some('d');
    let way = if down { Way::NeededBy } else { Way::Needs };
    let words: Vec<&str> = parsed.rest.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["help"] => return Ok(context.print(HELP.as_bytes())),
        ["check"] => return read(context, parsed).map(|_| 0),
        ["list", "all" | "services" | "oneshots" | "longruns" | "bundles"] => {}
        ["list", ..] => {
            return Err(context.usage("list: expected all, services, oneshots, longruns or bundles"));
        }
        ["type" | "timeout" | "contents" | "dependencies" | "pipeline" | "script", _] => {}
        ["atomics" | "all-dependencies", _, ..] => {}
        [
            command @ ("type" | "timeout" | "contents" | "dependencies" | "pipeline" | "script" | "atomics"
            | "all-dependencies"),
            ..,
        ] => return Err(context.usage(&format!("{command}: expected a name"))),
        [other, ..] => return Err(context.usage(&format!("unknown command: {other}"))),
        [] => return Err(context.usage("expected a command")),
    }
    let set = read(context, parsed)?;
    let graph = Graph::of_set(&set);
    let (command, names) = parsed.rest.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
    if command == "list" {
        let what = names.first().map_or("", String::as_str);
        let is_listed = |service: &&Service| match what {
            "all" => true,
            "services" => service.type_word() != "bundle",
            // The plural of the type's word.
            _ => what.strip_suffix('s') == Some(service.type_word()),
        };
        return Ok(context.lines(set.iter().filter(is_listed).map(|service| &service.name)));
    }
    let named = graph.resolve(names).map_err(|unknown| context.unknown(&unknown))?;
    let Some(service) = names.first().and_then(|name| set.get(name)) else { return Err(SYSTEM) };
    match command {
        "atomics" => Ok(context.lines(&named)),
        "all-dependencies" => Ok(context.lines(graph.closure(&named, way))),
        "dependencies" => {
            let direct: Names = named.iter().flat_map(|name| graph.direct(name, way)).collect();
            Ok(context.lines(&direct))
        }
        "type" => Ok(context.lines([service.type_word()])),
        "timeout" if service.type_word() != "bundle" => {
            let limit = if down { service.timeout_down } else { service.timeout_up };
            Ok(context.lines([limit.as_ms().to_string()]))
        }
        "contents" if service.type_word() == "bundle" => Ok(context.lines(&named)),
        "pipeline" if service.type_word() == "longrun" => Ok(context.lines(pipeline(&set, &graph, service))),
        "script" => match &service.kind {
            Kind::Oneshot { up: program, .. } if !down => Ok(context.print(&script(program.as_ref()))),
            Kind::Oneshot { down: program, .. } => Ok(context.print(&script(program.as_ref()))),
            _ => Err(wrong_type(context, service)),
        },
        _ => Err(wrong_type(context, service)),
    }
}

fn wrong_type(context: &mut Context<'_>, service: &Service) -> u8 {
    context.fatal(WRONG_TYPE, &format!("{} is a {}", service.name, service.type_word()))
}

/// The whole pipeline that the service is in, producers before consumers; the service alone if it is in none.
fn pipeline(set: &ServiceSet, graph: &Graph, service: &Service) -> Vec<String> {
    let (mut parts, mut todo) = (Names::new(), vec![service.name.clone()]);
    while let Some(name) = todo.pop() {
        let Some(part) = set.get(&name).filter(|_| parts.insert(name)) else { continue };
        todo.extend(part.pipeline.producer_for.iter().chain(&part.pipeline.consumer_for).cloned());
    }
    // A producer needs its consumer.
    graph.ordered(&parts, Way::NeededBy)
}

/// Each word of the command line, ended by a zero byte.
fn script(program: Option<&Program>) -> Vec<u8> {
    let words: Vec<OsString> = match program {
        Some(Program::Words(words)) => words.clone(),
        Some(Program::File(path)) => vec![path.clone().into_os_string()],
        Some(Program::Script(text)) => vec!["/bin/sh".into(), "-c".into(), text.clone().into()],
        None => Vec::new(),
    };
    words.iter().flat_map(|word| word.as_bytes().iter().copied().chain([0])).collect()
}
