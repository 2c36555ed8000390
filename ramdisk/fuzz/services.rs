//! What of the services is fuzzed, with what must hold whatever the bytes are. Shared by the runner in
//! `ramdisk/tests/fuzz.rs` and by the targets of `cargo fuzz`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

use ramdisk::init::control::{parse_request, request_line};
use ramdisk::init::supervisor::{Input, Supervisor};
use ramdisk::service::{Kind, Program, Service, read_services_dir, write_source_dir};

/// Between two files of an input: a path on the first line, then what the file holds.
const RECORD: u8 = 0x1e;

/// A folder of service directories.
pub(crate) fn service_dir(data: &[u8]) {
    // In RAM where that can be had: it is written thousands of times.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    lay_out(&dir.path().join("first"), data);
    let Ok(set) = read_services_dir(&dir.path().join("first")) else { return };
    if set.check().is_err() {
        return;
    }
    // A controller's order reaches every service that is said to have one.
    assert!(set.iter().all(|service| service.controlled_by.is_none() || service.type_word() != "bundle"));
    // What is accepted can be run: every service is started and stopped once.
    let mut supervisor = Supervisor::new(&set);
    let names: Vec<String> = set.iter().map(|service| service.name.clone()).collect();
    supervisor.step(0, &Input::Start(names));
    supervisor.step(1, &Input::StopAll);
    // And what is written is read again as what it was, its programs being files now.
    let again = dir.path().join("second");
    for service in set.iter() {
        for file in write_source_dir(service).unwrap() {
            let path = again.join(&file.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &file.bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).unwrap();
        }
    }
    if names_of_pipelines_are_bundles(set.iter()) {
        return;
    }
    if !set.is_empty() {
        let read = read_services_dir(&again).unwrap();
        let found: Vec<Service> = read.iter().map(shape).collect();
        let expected: Vec<Service> = set.iter().map(shape).collect();
        assert_eq!(found, expected);
    }
}

/// A pipeline's bundle is made anew by whoever reads it, and would be there twice.
fn names_of_pipelines_are_bundles<'a>(mut services: impl Iterator<Item = &'a Service>) -> bool {
    services.any(|service| service.pipeline.name.is_some())
}

/// The service without where it came from.
fn shape(service: &Service) -> Service {
    let mut service = service.clone();
    service.origin = "/".into();
    let forget = |program: &mut Program| *program = Program::Words(Vec::new());
    match &mut service.kind {
        Kind::Longrun { run, finish, .. } => {
            forget(run);
            finish.iter_mut().for_each(forget);
        }
        Kind::Oneshot { up, down } => up.iter_mut().chain(down).for_each(forget),
        Kind::Bundle { .. } => {}
    }
    service
}

fn lay_out(root: &Path, data: &[u8]) {
    fs::create_dir_all(root).unwrap();
    for record in data.split(|byte| *byte == RECORD).take(64) {
        let end = record.iter().position(|byte| *byte == b'\n').unwrap_or(record.len());
        let Ok(path) = std::str::from_utf8(&record[..end]) else { continue };
        let path = Path::new(path);
        let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !is_below || path.components().count() > 3 || path.as_os_str().as_encoded_bytes().contains(&0) {
            continue;
        }
        let text = record.get(end + 1..).unwrap_or_default();
        // A file where a folder should be, a name that is too long: an input that makes no sense is one, too.
        let _ = fs::create_dir_all(root.join(path.parent().unwrap_or(path)));
        if fs::write(root.join(path), text).is_ok() {
            let mode = if text.starts_with(b"#!") { 0o755 } else { 0o644 };
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// A line on PID 1's socket.
pub(crate) fn control(data: &[u8]) {
    let line = String::from_utf8_lossy(data);
    match parse_request(&line) {
        Ok(request) => {
            let again = request_line(&request);
            assert_eq!(parse_request(&again), Ok(request));
        }
        // It is answered with its own words, not with a book.
        Err(error) => assert!(error.to_string().len() < 1_000),
    }
}
