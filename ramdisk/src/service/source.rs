//! Services as s6-rc source directories: read from a folder, and written into one by whoever stages a root.
//!
//! Differences from s6-rc are few: `up` and `down` are there lines of execline; here a file that is executable or
//! starts with `#!` is executed, and any other is one command line, split at white space (quotes `"…"` and `'…'` keep
//! words together; there is no other syntax, and `execlineb` can still be named as the command).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::definition::{
    DEFAULT_TIMEOUT_DOWN_MS, Kind, Pipeline, Program, Service, ServiceError, Timeout, parse_signal,
};
use super::set::ServiceSet;
use crate::path::{PathError, Root};

/// One file of a source directory, to be written below the services folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// `NAME/run`, `NAME/dependencies.d/OTHER`, ...
    pub path: PathBuf,
    /// Permission bits: 0755 for programs, 0644 for the rest.
    pub mode: u32,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Reads every source directory in `dir`. Entries that start with a dot are left alone, as s6-rc does.
///
/// # Errors
/// The first directory or file that cannot be read or does not say what it has to; the set is not checked yet, see
/// [`ServiceSet::check`].
pub fn read_services_dir(dir: &Path) -> Result<ServiceSet, ServiceError> {
    let (root, dir) = of_this_system(dir)?;
    read_services_in(&root, &dir)
}

/// The same of the directory `dir` inside `root`: whatever is a symlink there leads to where it would lead if `root`
/// was /, and never out of it.
///
/// # Errors
/// As [`read_services_dir`].
pub fn read_services_in(root: &Root, dir: &Path) -> Result<ServiceSet, ServiceError> {
    let mut services = Vec::new();
    for name in entries(root, dir)? {
        let name = name?;
        let path = dir.join(&name);
        if real(root, &path)?.is_some_and(|real| real.is_dir()) {
            services.push(read_service_in(root, &path, &name)?);
        }
    }
    ServiceSet::new(services)
}

/// Reads the source directory `dir` of the service `name`.
///
/// # Errors
/// A file that cannot be read, is missing for its type, or has a content that its name does not allow.
pub fn read_service_dir(dir: &Path, name: &str) -> Result<Service, ServiceError> {
    let (root, dir) = of_this_system(dir)?;
    read_service_in(&root, &dir, name)
}

pub(super) fn of_this_system(dir: &Path) -> Result<(Root, PathBuf), ServiceError> {
    let absolute = std::path::absolute(dir);
    let absolute = absolute.map_err(|source| ServiceError::Read { path: dir.to_owned(), source })?;
    Ok((Root::new("/"), absolute))
}

/// The same of the directory `dir` inside `root`, as [`read_services_in`] does it.
///
/// # Errors
/// As [`read_service_dir`].
pub fn read_service_in(root: &Root, dir: &Path, name: &str) -> Result<Service, ServiceError> {
    let reader = Reader { root, inside: dir, dir: &root.host(dir), name };
    let type_path = reader.dir.join("type");
    let kind_name = reader.text("type")?.ok_or_else(|| ServiceError::Missing {
        service: name.to_owned(),
        path: type_path.clone(),
        kind: "service",
    })?;
    let kind = match kind_name.trim() {
        "longrun" => Kind::Longrun {
            run: reader.needed_program("run", "longrun")?,
            finish: reader.executable("finish")?,
            notification_fd: reader.number("notification-fd")?,
            down_signal: reader.down_signal()?,
            timeout_kill: Timeout::from_ms(reader.number("timeout-kill")?.unwrap_or(0)),
        },
        "oneshot" => {
            // s6-rc demands `up`; an empty one is its way to say "nothing to do".
            if reader.real("up")?.is_none() {
                let path = reader.dir.join("up");
                return Err(ServiceError::Missing { service: name.to_owned(), path, kind: "oneshot" });
            }
            Kind::Oneshot { up: reader.command("up")?, down: reader.command("down")? }
        }
        "bundle" => Kind::Bundle { contents: reader.names("contents.d", "contents")? },
        other => {
            return Err(ServiceError::Content {
                service: name.to_owned(),
                path: type_path,
                expected: "longrun, oneshot or bundle",
                found: excerpt(other),
            });
        }
    };
    let mut service = Service {
        name: name.to_owned(),
        origin: reader.dir.to_owned(),
        dependencies: reader.names("dependencies.d", "dependencies")?,
        timeout_up: Timeout::Never,
        timeout_down: Timeout::from_ms(reader.number("timeout-down")?.unwrap_or(DEFAULT_TIMEOUT_DOWN_MS)),
        controlled_by: reader.name("controlled-by")?,
        pipeline: match kind {
            Kind::Longrun { .. } => reader.pipeline()?,
            // s6-rc leaves these files alone in other types too.
            Kind::Oneshot { .. } | Kind::Bundle { .. } => Pipeline::default(),
        },
        kind,
    };
    service.timeout_up = reader.number("timeout-up")?.map_or(service.default_timeout_up(), Timeout::from_ms);
    Ok(service)
}

struct Reader<'a> {
    root: &'a Root,
    /// The source directory's name inside the root, and the one for messages: how this process names it.
    inside: &'a Path,
    dir: &'a Path,
    name: &'a str,
}

/// Where the name inside `root` leads, for this process; none if it leads nowhere.
pub(super) fn real(root: &Root, inside: &Path) -> Result<Option<PathBuf>, ServiceError> {
    let failed = |source| ServiceError::Read { path: root.host(inside), source };
    match root.resolve(inside) {
        Ok(found) => Ok(Some(root.host(&found.real))),
        Err(PathError::NotFound { .. }) => Ok(None),
        Err(PathError::Io { source, .. }) => Err(failed(source)),
        Err(PathError::Loop { .. }) => Err(failed(Errno::ELOOP.into())),
        Err(PathError::NotADirectory { .. }) => Err(failed(Errno::ENOTDIR.into())),
    }
}

impl Reader<'_> {
    fn real(&self, file: &str) -> Result<Option<PathBuf>, ServiceError> {
        real(self.root, &self.inside.join(file))
    }

    fn text(&self, file: &str) -> Result<Option<String>, ServiceError> {
        let path = self.dir.join(file);
        let Some(real) = self.real(file)? else { return Ok(None) };
        match fs::read(real) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(error) => Err(ServiceError::Content {
                    service: self.name.to_owned(),
                    path,
                    expected: "text in UTF-8",
                    found: excerpt(&String::from_utf8_lossy(error.as_bytes())),
                }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ServiceError::Read { path, source }),
        }
    }

    fn number<N: std::str::FromStr>(&self, file: &str) -> Result<Option<N>, ServiceError> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self.content(file, "a number", &text)),
        }
    }

    fn down_signal(&self) -> Result<Signal, ServiceError> {
        let Some(text) = self.text("down-signal")? else { return Ok(Signal::SIGTERM) };
        parse_signal(text.trim())
            .ok_or_else(|| self.content("down-signal", "a signal's name or number", &text))
    }

    fn content(&self, file: &str, expected: &'static str, found: &str) -> ServiceError {
        ServiceError::Content {
            service: self.name.to_owned(),
            path: self.dir.join(file),
            expected,
            found: excerpt(found),
        }
    }

    fn executable(&self, file: &str) -> Result<Option<Program>, ServiceError> {
        Ok(self.regular(file)?.map(|(real, _)| Program::File(real)))
    }

    /// Looks at a file that may be absent, but is nothing else than a file. Answers where it really lies.
    fn regular(&self, file: &str) -> Result<Option<(PathBuf, fs::Metadata)>, ServiceError> {
        let path = self.dir.join(file);
        let Some(real) = self.real(file)? else { return Ok(None) };
        match fs::metadata(&real) {
            Ok(meta) if meta.is_file() => Ok(Some((real, meta))),
            Ok(_) => Err(self.content(file, "a regular file", "something else")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ServiceError::Read { path, source }),
        }
    }

    fn needed_program(&self, file: &str, kind: &'static str) -> Result<Program, ServiceError> {
        self.executable(file)?.ok_or_else(|| ServiceError::Missing {
            service: self.name.to_owned(),
            path: self.dir.join(file),
            kind,
        })
    }

    /// A oneshot's `up` or `down`: a file to execute, or one command line.
    fn command(&self, file: &str) -> Result<Option<Program>, ServiceError> {
        let Some((path, meta)) = self.regular(file)? else { return Ok(None) };
        if meta.permissions().mode() & 0o111 != 0 {
            return Ok(Some(Program::File(path)));
        }
        let text = self.text(file)?.unwrap_or_default();
        if text.starts_with("#!") {
            return Ok(Some(Program::File(path)));
        }
        let words = split_words(&text)
            .ok_or_else(|| self.content(file, "a command line with its quotes closed", &text))?;
        Ok(if words.is_empty() { None } else { Some(Program::Words(words)) })
    }

    /// Names, one per file of the folder `dir`, or one per line of the older file `file`; both may be there.
    fn names(&self, dir: &str, file: &str) -> Result<BTreeSet<String>, ServiceError> {
        let mut names: BTreeSet<String> = match self.real(dir)? {
            Some(_) => entries(self.root, &self.inside.join(dir))?.into_iter().collect::<Result<_, _>>()?,
            None => BTreeSet::new(),
        };
        if let Some(text) = self.text(file)? {
            let lines = text.lines().map(str::trim);
            names.extend(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned));
        }
        Ok(names)
    }

    /// The one name that a file holds; a file that is absent or empty holds none.
    fn name(&self, file: &str) -> Result<Option<String>, ServiceError> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        let mut names = text.split_whitespace();
        match (names.next(), names.next()) {
            (name, None) => Ok(name.map(str::to_owned)),
            (_, Some(_)) => Err(self.content(file, "the name of one service", &text)),
        }
    }

    fn pipeline(&self) -> Result<Pipeline, ServiceError> {
        let text = self.text("consumer-for")?.unwrap_or_default();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        Ok(Pipeline {
            producer_for: self.name("producer-for")?,
            consumer_for: lines.flat_map(str::split_whitespace).map(str::to_owned).collect(),
            name: self.name("pipeline-name")?,
        })
    }
}

/// The names in a folder in their order, those with a leading dot left out; an error for each that is not UTF-8.
pub(super) fn entries(root: &Root, inside: &Path) -> Result<Vec<Result<String, ServiceError>>, ServiceError> {
    let dir = root.host(inside);
    let failed = |source| ServiceError::Read { path: dir.clone(), source };
    let mut names = Vec::new();
    let listed = real(root, inside)?.ok_or_else(|| failed(Errno::ENOENT.into()))?;
    for entry in fs::read_dir(listed).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort();
    let named = |name: OsString| match name.into_string() {
        Ok(name) => Some(name).filter(|name| !name.starts_with('.')).map(Ok),
        Err(name) => {
            let name = name.to_string_lossy().into_owned();
            Some(Err(ServiceError::Name { name, path: dir.clone(), why: "the name is not UTF-8" }))
        }
    };
    Ok(names.into_iter().filter_map(named).collect())
}

fn excerpt(text: &str) -> String {
    text.trim().chars().take(80).collect()
}

/// Splits a command line at white space; quotes keep words together. Lines that start with `#` are left out. None if a
/// quote is not closed.
fn split_words(text: &str) -> Option<Vec<OsString>> {
    let mut words = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut word: Option<String> = None;
        let mut quote = None;
        for c in line.chars() {
            match quote {
                Some(q) if c == q => quote = None,
                Some(_) => word.get_or_insert_default().push(c),
                None if c == '"' || c == '\'' => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                None if c.is_whitespace() => words.extend(word.take().map(OsString::from)),
                None => word.get_or_insert_default().push(c),
            }
        }
        if quote.is_some() {
            return None;
        }
        words.extend(word.map(OsString::from));
    }
    Some(words)
}

/// The source directory of `service`: every file of it, parents before what lies in them, always in the same order.
///
/// Nothing is written here. Files that the service only names (it was itself read from a source directory) are read
/// now.
///
/// # Errors
/// [`ServiceError::Read`] if such a file cannot be read.
pub fn write_source_dir(service: &Service) -> Result<Vec<SourceFile>, ServiceError> {
    let mut out = Writer { base: PathBuf::from(&service.name), files: Vec::new() };
    out.plain("type", service.type_word());
    for name in &service.dependencies {
        out.empty(&Path::new("dependencies.d").join(name));
    }
    match &service.kind {
        Kind::Longrun { run, finish, notification_fd, down_signal, timeout_kill } => {
            out.program("run", run)?;
            if let Some(finish) = finish {
                out.program("finish", finish)?;
            }
            if let Some(fd) = notification_fd {
                out.plain("notification-fd", &fd.to_string());
            }
            if *down_signal != Signal::SIGTERM {
                out.plain("down-signal", down_signal.as_str());
            }
            if *timeout_kill != Timeout::Never {
                out.plain("timeout-kill", &timeout_kill.as_ms().to_string());
            }
        }
        Kind::Oneshot { up, down } => {
            match up {
                Some(up) => out.program("up", up)?,
                None => out.empty(Path::new("up")),
            }
            if let Some(down) = down {
                out.program("down", down)?;
            }
        }
        Kind::Bundle { contents } => {
            for name in contents {
                out.empty(&Path::new("contents.d").join(name));
            }
        }
    }
    let Pipeline { producer_for, consumer_for, name } = &service.pipeline;
    let consumer_for: Vec<&str> = consumer_for.iter().map(String::as_str).collect();
    for (file, text) in [
        ("controlled-by", service.controlled_by.clone()),
        ("producer-for", producer_for.clone()),
        ("consumer-for", Some(consumer_for.join("\n")).filter(|text| !text.is_empty())),
        ("pipeline-name", name.clone()),
    ] {
        if let Some(text) = text {
            out.plain(file, &text);
        }
    }
    if service.timeout_up != service.default_timeout_up() {
        out.plain("timeout-up", &service.timeout_up.as_ms().to_string());
    }
    if service.timeout_down != Timeout::After(DEFAULT_TIMEOUT_DOWN_MS) {
        out.plain("timeout-down", &service.timeout_down.as_ms().to_string());
    }
    Ok(out.files)
}

struct Writer {
    base: PathBuf,
    files: Vec<SourceFile>,
}

impl Writer {
    fn empty(&mut self, path: &Path) {
        self.files.push(SourceFile { path: self.base.join(path), mode: 0o644, bytes: Vec::new() });
    }

    fn plain(&mut self, file: &str, text: &str) {
        let bytes = format!("{text}\n").into_bytes();
        self.files.push(SourceFile { path: self.base.join(file), mode: 0o644, bytes });
    }

    fn program(&mut self, file: &str, program: &Program) -> Result<(), ServiceError> {
        let bytes = match program {
            Program::Script(text) if text.starts_with("#!") => text.clone().into_bytes(),
            Program::Script(text) => format!("#!/bin/sh\n{text}").into_bytes(),
            Program::Words(words) => command_script(words),
            Program::File(path) => {
                let bytes =
                    fs::read(path).map_err(|source| ServiceError::Read { path: path.clone(), source })?;
                self.files.push(SourceFile { path: self.base.join(file), mode: 0o755, bytes });
                return Ok(());
            }
        };
        let mut bytes = bytes;
        if bytes.last() != Some(&b'\n') {
            bytes.push(b'\n');
        }
        self.files.push(SourceFile { path: self.base.join(file), mode: 0o755, bytes });
        Ok(())
    }
}

/// A shell script that executes `words`: the only form that carries any word, whatever is in it.
fn command_script(words: &[OsString]) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut script = b"#!/bin/sh\nexec".to_vec();
    for word in words {
        script.extend_from_slice(b" '");
        for byte in word.as_bytes() {
            if *byte == b'\'' {
                script.extend_from_slice(b"'\\''");
            } else {
                script.push(*byte);
            }
        }
        script.push(b'\'');
    }
    script
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
