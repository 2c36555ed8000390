//! A set of services, checked as a whole before anything starts.

use std::collections::{BTreeMap, BTreeSet};

use super::definition::{Kind, Service, ServiceError, check_name};

/// Services by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSet {
    services: BTreeMap<String, Service>,
}

impl ServiceSet {
    /// The set of `services`.
    ///
    /// # Errors
    /// [`ServiceError::Twice`] if two have one name. What the set refers to is looked at by [`ServiceSet::check`].
    pub fn new(services: impl IntoIterator<Item = Service>) -> Result<Self, ServiceError> {
        let mut set = Self::default();
        for service in services {
            if let Some(first) = set.services.get(&service.name) {
                return Err(ServiceError::Twice {
                    name: service.name,
                    first: first.origin.clone(),
                    second: service.origin,
                });
            }
            set.services.insert(service.name.clone(), service);
        }
        set.add_pipeline_bundles()?;
        Ok(set)
    }

    /// Makes the bundles that last consumers name, of all that is connected to them.
    fn add_pipeline_bundles(&mut self) -> Result<(), ServiceError> {
        let last = |service: &&Service| {
            !service.pipeline.consumer_for.is_empty() && service.pipeline.producer_for.is_none()
        };
        let mut bundles = Vec::new();
        for service in self.services.values().filter(last) {
            let Some(name) = &service.pipeline.name else { continue };
            let mut contents = BTreeSet::new();
            let mut todo = vec![service.name.clone()];
            while let Some(part) = todo.pop() {
                if let Some(service) = self.services.get(&part)
                    && contents.insert(part)
                {
                    todo.extend(service.pipeline.consumer_for.iter().cloned());
                }
            }
            bundles.push(Service::bundle(name, service.origin.join("pipeline-name"), contents));
        }
        for bundle in bundles {
            if let Some(first) = self.services.get(&bundle.name) {
                let (first, second) = (first.origin.clone(), bundle.origin);
                return Err(ServiceError::Twice { name: bundle.name, first, second });
            }
            self.services.insert(bundle.name.clone(), bundle);
        }
        Ok(())
    }

    /// The service of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// True without any service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Looks for everything that is wrong with the set: names, members and dependencies that do not exist, bundles
    /// with dependencies or in themselves, services that wait for one another, descriptors that collide.
    ///
    /// # Errors
    /// All that was found, in the order of the services' names; a cycle is told once.
    pub fn check(&self) -> Result<(), Vec<ServiceError>> {
        let mut errors = Vec::new();
        for service in self.services.values() {
            self.check_one(service, &mut errors);
        }
        if errors.is_empty() {
            // Only where every name is known do the walks below mean anything.
            self.check_bundles(&mut errors);
        }
        if errors.is_empty() {
            self.check_cycles(&mut errors);
        }
        if errors.is_empty() {
            self.check_default(&mut errors);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn check_one(&self, service: &Service, errors: &mut Vec<ServiceError>) {
        let path = &service.origin;
        if let Some(why) = check_name(&service.name) {
            errors.push(ServiceError::Name { name: service.name.clone(), path: path.clone(), why });
        }
        for unknown in service.dependencies.iter().filter(|name| !self.services.contains_key(*name)) {
            let path = path.join("dependencies.d").join(unknown);
            errors.push(ServiceError::Unknown {
                service: service.name.clone(),
                path,
                unknown: unknown.clone(),
            });
        }
        match &service.kind {
            Kind::Bundle { contents } => {
                if !service.dependencies.is_empty() {
                    let path = path.join("dependencies.d");
                    errors.push(ServiceError::BundleDepends { service: service.name.clone(), path });
                }
                if service.controlled_by.is_some() {
                    let path = path.join("controlled-by");
                    errors.push(ServiceError::BundleControlled { service: service.name.clone(), path });
                }
                for unknown in contents.iter().filter(|name| !self.services.contains_key(*name)) {
                    let path = path.join("contents.d").join(unknown);
                    errors.push(ServiceError::Unknown {
                        service: service.name.clone(),
                        path,
                        unknown: unknown.clone(),
                    });
                }
            }
            Kind::Longrun { notification_fd: Some(fd), .. } if *fd < 3 => {
                errors.push(ServiceError::NotificationFd {
                    service: service.name.clone(),
                    path: path.clone(),
                    fd: *fd,
                });
            }
            Kind::Longrun { .. } | Kind::Oneshot { .. } => {}
        }
        self.check_others(service, errors);
    }

    fn check_bundles(&self, errors: &mut Vec<ServiceError>) {
        let edges = |name: &str| match self.services.get(name).map(|service| &service.kind) {
            Some(Kind::Bundle { contents }) => contents.clone(),
            _ => BTreeSet::new(),
        };
        self.find_cycles(&edges, |service, way| {
            errors.push(ServiceError::BundleInItself {
                service: service.name.clone(),
                path: service.origin.clone(),
                way,
            });
        });
    }

    fn check_cycles(&self, errors: &mut Vec<ServiceError>) {
        let edges = |name: &str| self.direct_dependencies(name);
        self.find_cycles(&edges, |service, way| {
            errors.push(ServiceError::Cycle {
                service: service.name.clone(),
                path: service.origin.clone(),
                way,
            });
        });
    }

    /// Walks the graph of `edges` depth first, without recursion (a chain may be as long as the set), and tells each
    /// cycle by the way round it.
    fn find_cycles(
        &self,
        edges: &dyn Fn(&str) -> BTreeSet<String>,
        mut found: impl FnMut(&Service, Vec<String>),
    ) {
        let mut done: BTreeSet<String> = BTreeSet::new();
        for start in self.services.keys() {
            // The way from `start` to where we are, each with what is still to be visited from there.
            let mut way: Vec<(String, Vec<String>)> = Vec::new();
            if !done.contains(start) {
                way.push((start.clone(), edges(start).into_iter().collect()));
            }
            while let Some((name, rest)) = way.last_mut() {
                let Some(next) = rest.pop() else {
                    done.insert(name.clone());
                    way.pop();
                    continue;
                };
                if let Some(at) = way.iter().position(|(name, _)| *name == next) {
                    let mut names: Vec<String> = way.iter().skip(at).map(|(name, _)| name.clone()).collect();
                    names.push(next.clone());
                    if let Some(service) = self.services.get(&next) {
                        found(service, names);
                    }
                } else if !done.contains(&next) {
                    let onwards = edges(&next).into_iter().collect();
                    way.push((next, onwards));
                }
            }
        }
    }

    /// The longruns and oneshots that `name` stands for: itself, or what a bundle contains, directly or not. Unknown
    /// names stand for nothing.
    #[must_use]
    pub fn members(&self, name: &str) -> BTreeSet<String> {
        let mut members = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut todo = vec![name.to_owned()];
        while let Some(name) = todo.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            match self.services.get(&name).map(|service| &service.kind) {
                Some(Kind::Bundle { contents }) => todo.extend(contents.iter().cloned()),
                Some(_) => {
                    members.insert(name);
                }
                None => {}
            }
        }
        members
    }

    /// The longruns and oneshots that the service `name` needs directly, bundles expanded. A producer needs who reads
    /// its output, and what is controlled its controller.
    #[must_use]
    pub fn direct_dependencies(&self, name: &str) -> BTreeSet<String> {
        let Some(service) = self.services.get(name) else { return BTreeSet::new() };
        let others = service.pipeline.producer_for.iter().chain(&service.controlled_by);
        service.dependencies.iter().chain(others).flat_map(|dependency| self.members(dependency)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::Program;
    use super::*;

    fn longrun(name: &str) -> Service {
        Service::longrun(name, format!("/s/{name}"), Program::Script("exec true".into()))
    }

    fn problems(services: Vec<Service>) -> Vec<String> {
        let set = ServiceSet::new(services).unwrap();
        set.check().err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_set_without_faults_is_accepted() {
        let services = vec![
            longrun("net"),
            longrun("sshd").after("net"),
            longrun("web").after("both"),
            Service::bundle("both", "/s/both", ["net", "sshd"]),
            Service::bundle("default", "/s/default", ["both", "web"]),
        ];
        assert_eq!(problems(services), Vec::<String>::new());
    }

    #[test]
    fn an_unknown_name_is_told_with_the_file_that_names_it() {
        let services =
            vec![longrun("sshd").after("netwrok"), Service::bundle("default", "/s/default", ["shhd"])];
        assert_eq!(
            problems(services),
            [
                "service default: /s/default/contents.d/shhd names shhd, which does not exist",
                "service sshd: /s/sshd/dependencies.d/netwrok names netwrok, which does not exist",
            ]
        );
    }

    #[test]
    fn services_that_wait_for_one_another_are_told_with_the_way_round() {
        let services = vec![longrun("a").after("b"), longrun("b").after("c"), longrun("c").after("a")];
        assert_eq!(problems(services), ["service a in /s/a depends on itself: a -> b -> c -> a"]);
    }

    #[test]
    fn a_cycle_through_a_bundle_is_found() {
        let services = vec![longrun("a").after("all"), Service::bundle("all", "/s/all", ["a"])];
        assert_eq!(problems(services), ["service a in /s/a depends on itself: a -> a"]);
    }

    #[test]
    fn a_bundle_in_itself_is_told() {
        let services = vec![Service::bundle("x", "/s/x", ["y"]), Service::bundle("y", "/s/y", ["x"])];
        assert_eq!(problems(services), ["bundle x in /s/x contains itself: x -> y -> x"]);
    }

    #[test]
    fn a_bundle_with_dependencies_is_refused() {
        let services = vec![longrun("a"), Service::bundle("x", "/s/x", ["a"]).after("a")];
        assert_eq!(
            problems(services),
            [
                "bundle x: /s/x/dependencies.d: a bundle has no dependencies of its own, give them to its members"
            ]
        );
    }

    #[test]
    fn a_bundle_with_a_controller_is_refused_and_one_of_controlled_services_is_not() {
        let with = |bundle: Service| {
            vec![longrun("plug"), longrun("modem").controlled_by("plug"), longrun("wan"), bundle]
        };
        let bundle = Service::bundle("outside", "/s/outside", ["modem", "wan"]);
        assert_eq!(problems(with(bundle.clone())), [""; 0]);
        assert_eq!(
            problems(with(bundle.controlled_by("plug"))),
            [
                "bundle outside: /s/outside/controlled-by: a bundle is not controlled, give controlled-by to its members"
            ]
        );
    }

    #[test]
    fn a_name_defined_twice_is_told_with_both_places() {
        let error = ServiceSet::new([
            longrun("a"),
            Service::longrun("a", "/etc/levitate.toml", Program::Words(vec![])),
        ])
        .unwrap_err();
        assert_eq!(error.to_string(), "service a is defined twice: in /s/a and in /etc/levitate.toml");
    }

    #[test]
    fn a_notification_on_a_standard_descriptor_is_refused() {
        assert_eq!(
            problems(vec![longrun("a").notifying(1)]),
            [
                "service a in /s/a: the notification descriptor is 1: expected 3 or more, because 0 to 2 are its standard ones"
            ]
        );
    }

    #[test]
    fn a_long_chain_does_not_exhaust_the_stack() {
        let chain = (0..20_000).map(|n| longrun(&format!("s{n}")).after(format!("s{}", n + 1)));
        let set = ServiceSet::new(chain.chain([longrun("s20000")])).unwrap();
        assert!(set.check().is_ok());
    }
}
