//! What is left of a set of services when all that is wrong with it is taken out.
//!
//! For a system that has nothing else to start. Whoever can refuse a faulty set (staging, a maintenance root) does.

use std::collections::BTreeSet;
use std::path::Path;

use super::definition::{Kind, Service, ServiceError};
use super::set::ServiceSet;
use super::source::{entries, of_this_system, read_service_in, real};

/// Reads the source directories in `dir` as [`read_services_dir`](super::read_services_dir) does, and leaves out those
/// that are not valid, with all that needs them; a bundle loses such members. The answer is a set that
/// [`ServiceSet::check`] accepts, and why each of the others is not in it.
#[must_use]
pub fn read_valid_services(dir: &Path) -> (ServiceSet, Vec<ServiceError>) {
    let mut faults = Vec::new();
    let mut services = Vec::new();
    let listed = of_this_system(dir).and_then(|(root, dir)| Ok((entries(&root, &dir)?, root, dir)));
    let (names, root, dir) = match listed {
        Ok(listed) => listed,
        Err(fault) => return (ServiceSet::default(), vec![fault]),
    };
    for name in names {
        let read = name.and_then(|name| {
            let path = dir.join(&name);
            let is_dir = real(&root, &path)?.is_some_and(|real| real.is_dir());
            if is_dir { read_service_in(&root, &path, &name).map(Some) } else { Ok(None) }
        });
        match read {
            Ok(service) => services.extend(service),
            Err(fault) => faults.push(fault),
        }
    }
    let set = valid(services, &mut faults);
    (set, faults)
}

/// Takes out what the checks find, until they find nothing: each round makes the set smaller.
fn valid(services: Vec<Service>, faults: &mut Vec<ServiceError>) -> ServiceSet {
    let mut services = services;
    loop {
        let errors = match ServiceSet::new(services.iter().cloned()) {
            Ok(set) => match set.check() {
                Ok(()) => return set,
                Err(errors) => errors,
            },
            Err(error) => vec![error],
        };
        let before = size(&services);
        for error in &errors {
            take_out(&mut services, error);
        }
        faults.extend(errors);
        if size(&services) >= before {
            return ServiceSet::default();
        }
    }
}

/// Services, members and pipelines' names: each of them can be taken out.
fn size(services: &[Service]) -> usize {
    let one = |service: &Service| match &service.kind {
        Kind::Bundle { contents } => 1 + contents.len(),
        Kind::Longrun { .. } | Kind::Oneshot { .. } => 1 + usize::from(service.pipeline.name.is_some()),
    };
    services.iter().map(one).sum()
}

fn take_out(services: &mut Vec<Service>, error: &ServiceError) {
    let name = match error {
        ServiceError::Unknown { service, unknown, .. } if leave(services, service, unknown) => return,
        ServiceError::Twice { name, .. } => return unname(services, name),
        // The one that needs it; it itself only if the bundle default names it.
        ServiceError::ControlledInDefault { way, controlled, .. } => match way.as_slice() {
            [_, .., needing, _] => needing,
            _ => controlled,
        },
        ServiceError::Content { service, .. }
        | ServiceError::Missing { service, .. }
        | ServiceError::Unknown { service, .. }
        | ServiceError::BundleDepends { service, .. }
        | ServiceError::BundleControlled { service, .. }
        | ServiceError::BundleInItself { service, .. }
        | ServiceError::Cycle { service, .. }
        | ServiceError::NotALongrun { service, .. }
        | ServiceError::HalfAPipe { service, .. }
        | ServiceError::NotificationFd { service, .. }
        | ServiceError::Name { name: service, .. } => service,
        ServiceError::Read { .. } => return,
    };
    services.retain(|service| service.name != *name);
}

/// True if `bundle` is one and lost the member.
fn leave(services: &mut [Service], bundle: &str, member: &str) -> bool {
    services.iter_mut().filter(|service| service.name == bundle).any(|service| match &mut service.kind {
        Kind::Bundle { contents } => contents.remove(member),
        Kind::Longrun { .. } | Kind::Oneshot { .. } => false,
    })
}

/// The pipelines of that name have none, or, if it was not theirs, one of the services goes.
fn unname(services: &mut Vec<Service>, name: &str) {
    let of_pipelines: BTreeSet<String> = services
        .iter()
        .filter(|service| service.pipeline.name.as_deref() == Some(name))
        .map(|service| service.name.clone())
        .collect();
    match services.iter().rposition(|service| service.name == name) {
        _ if !of_pipelines.is_empty() => {
            for service in services.iter_mut().filter(|service| of_pipelines.contains(&service.name)) {
                service.pipeline.name = None;
            }
        }
        Some(last) => {
            services.remove(last);
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::Program;
    use super::*;

    fn longrun(name: &str) -> Service {
        Service::longrun(name, format!("/s/{name}"), Program::Words(vec![]))
    }

    fn left<const N: usize>(services: [Service; N]) -> (Vec<String>, Vec<String>) {
        let mut faults = Vec::new();
        let set = valid(services.into(), &mut faults);
        assert!(set.check().is_ok());
        let names = set.iter().map(|service| match &service.kind {
            Kind::Bundle { contents } => format!("{} {contents:?}", service.name),
            Kind::Longrun { .. } | Kind::Oneshot { .. } => service.name.clone(),
        });
        (names.collect(), faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_wrong_goes_with_all_that_needs_it_and_the_rest_stays() {
        let mut half = longrun("half");
        half.pipeline.producer_for = Some("clock".into());
        let mut last = longrun("last");
        last.pipeline.consumer_for = ["first".to_owned()].into();
        last.pipeline.name = Some("clock".into());
        let mut first = longrun("first");
        first.pipeline.producer_for = Some("last".into());
        let (names, faults) = left([
            longrun("clock"),
            longrun("sshd").after("netwrok"),
            longrun("web").after("sshd"),
            longrun("a").after("b"),
            longrun("b").after("a"),
            longrun("plug"),
            longrun("modem").controlled_by("plug"),
            longrun("wan").after("modem"),
            longrun("bad").notifying(1),
            half,
            first,
            last,
            Service::bundle("round", "/s/round", ["round"]),
            Service::bundle("default", "/s/default", ["clock", "web", "a", "wan", "gone"]),
        ]);
        assert_eq!(names, ["clock", "default {\"clock\"}", "first", "last", "modem", "plug"]);
        assert_eq!(faults.len(), 13, "{faults:#?}");
        assert!(faults.contains(
            &"service sshd: /s/sshd/dependencies.d/netwrok names netwrok, which does not exist".to_owned()
        ));
    }

    #[test]
    fn a_directory_that_cannot_be_read_costs_its_own_service_alone() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("good/type", "oneshot\n");
        write("good/up", "true\n");
        write("bad/type", "longrn\n");
        write("default/type", "bundle\n");
        write("default/contents", "good\nbad\n");
        write("README", "no service");
        let (set, faults) = read_valid_services(dir.path());
        assert_eq!(set.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["default", "good"]);
        assert_eq!(faults.len(), 2, "{faults:?}");
        let (set, faults) = read_valid_services(&dir.path().join("gone"));
        assert!(set.is_empty());
        assert!(matches!(faults.as_slice(), [ServiceError::Read { .. }]));
    }
}
