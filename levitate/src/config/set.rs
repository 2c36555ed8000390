//! The configuration's services as a set: every name that one of them says is there, is of the right type, and nobody
//! waits for himself.

use std::collections::BTreeMap;
use std::path::Path;

use ramdisk::service::definition::Program;
use ramdisk::service::{Service as Defined, ServiceError, ServiceSet};

use super::CONFIG;
use super::hint::did_you_mean;
use super::service::{Service, ServiceType};

/// What is wrong with a set of services: whose definition says so, where, and what would be right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SetError {
    /// The service or bundle.
    pub(super) service: String,
    /// The key of its definition; empty where it is not known.
    pub(super) key: String,
    /// The name that is said there.
    pub(super) word: String,
    /// For people.
    pub(super) message: String,
}

/// Looks for names that are not there, for pipes with one end, and for services that wait for one another. What a source
/// directory says is not known yet; staging looks at all of it again.
pub(super) fn check(services: &BTreeMap<String, &Service>) -> Result<(), SetError> {
    let set = ServiceSet::new(services.iter().map(|(name, service)| defined(name, service, services)))
        .map_err(|e| told(e, services))?;
    match set.check() {
        Ok(()) => Ok(()),
        Err(errors) => errors.into_iter().next().map_or(Ok(()), |e| Err(told(e, services))),
    }
}

/// What the configuration says of it. Of a source directory the best is assumed.
fn defined(name: &str, service: &Service, all: &BTreeMap<String, &Service>) -> Defined {
    if let Some(contents) = &service.contents {
        return Defined::bundle(name, CONFIG, contents.clone());
    }
    let is_oneshot = service.kind == Some(ServiceType::Oneshot);
    let mut plain = match is_oneshot {
        true => Defined::oneshot(name, CONFIG, None, None),
        false => Defined::longrun(name, CONFIG, Program::Words(Vec::new())),
    };
    plain.dependencies = service.dependencies.iter().flatten().cloned().collect();
    plain.controlled_by.clone_from(&service.controlled_by);
    plain.pipeline.producer_for.clone_from(&service.producer_for);
    plain.pipeline.consumer_for = service.consumer_for.iter().flatten().cloned().collect();
    plain.pipeline.name.clone_from(&service.pipeline_name);
    if service.source.is_some() {
        let reads = |other: &Service| other.consumer_for.iter().flatten().any(|producer| producer == name);
        plain.pipeline.producer_for =
            all.iter().find(|(_, other)| reads(other)).map(|(reader, _)| reader.clone());
        let writes = |other: &Service| other.producer_for.as_deref() == Some(name);
        plain.pipeline.consumer_for =
            all.iter().filter(|(_, other)| writes(other)).map(|(writer, _)| writer.clone()).collect();
    }
    plain
}

/// The same for people who have one file and its keys before them.
fn told(e: ServiceError, services: &BTreeMap<String, &Service>) -> SetError {
    let at = |service: String, key: String, word: String, message: String| SetError {
        service,
        key,
        word,
        message,
    };
    let second = |way: &[String]| way.get(1).cloned().unwrap_or_default();
    match e {
        ServiceError::Unknown { service, path, unknown } => {
            let key = key_of(&path);
            let near = did_you_mean(&unknown, services.keys().map(String::as_str));
            let message =
                format!("service {service} names \"{unknown}\" in {key}, which is not defined{near}");
            at(service, key, unknown, message)
        }
        ServiceError::NotALongrun { service, path, other, found } => {
            let key = key_of(&path);
            let message =
                format!("service {service} names \"{other}\" in {key}: expected a longrun, found a {found}");
            at(service, key, other, message)
        }
        ServiceError::HalfAPipe { service, path, other, missing } => {
            let key = key_of(&path);
            let message = format!(
                "service {service} names \"{other}\" in {key}, and {other} does not name it: \
                 its {missing} is to say \"{service}\""
            );
            at(service, key, other, message)
        }
        ServiceError::BundleInItself { service, way, .. } => {
            let message = format!(
                "bundle {service} contains itself: {}; take one of these names out",
                way.join(" -> ")
            );
            at(service, "contents".to_owned(), second(&way), message)
        }
        ServiceError::Cycle { service, way, .. } => {
            let message = format!(
                "service {service} waits for itself: {}; take one of these dependencies away",
                way.join(" -> ")
            );
            at(service, String::new(), second(&way), message)
        }
        ServiceError::ControlledInDefault { controlled, controller, way, .. } => {
            let message = format!(
                "service {controlled} is started by {controller} alone, and the bundle default reaches it: {}; \
                 take one of these names out",
                way.join(" -> ")
            );
            at(controlled, "controlled-by".to_owned(), controller, message)
        }
        ServiceError::Twice { name, .. } => {
            let message = format!("pipeline-name = \"{name}\": another service has that name");
            let last = |service: &Service| service.pipeline_name.as_deref() == Some(name.as_str());
            let service = services.iter().find(|(_, service)| last(service)).map(|(last, _)| last.clone());
            at(service.unwrap_or_default(), "pipeline-name".to_owned(), name, message)
        }
        other => at(String::new(), String::new(), String::new(), other.to_string()),
    }
}

/// The key whose place in a source directory this is: `.../controlled-by`, `.../dependencies.d/NAME`.
fn key_of(path: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match path.parent().map(name).as_deref().and_then(|folder| folder.strip_suffix(".d")) {
        Some(folder) => folder.to_owned(),
        None => name(path),
    }
}
