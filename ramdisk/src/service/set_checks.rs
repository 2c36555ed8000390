//! The checks of a set that are about more than one service at a time: controllers, pipelines, the default set.

use std::collections::BTreeMap;

use super::DEFAULT_BUNDLE;
use super::definition::{Kind, Service, ServiceError};
use super::set::ServiceSet;

impl ServiceSet {
    /// That controllers and the other ends of pipes are there, are longruns, and know of it.
    pub(super) fn check_others(&self, service: &Service, errors: &mut Vec<ServiceError>) {
        if let Some(controller) = &service.controlled_by {
            self.longrun(service, "controlled-by", controller, errors);
        }
        let pipeline = &service.pipeline;
        if let Some(consumer) = &pipeline.producer_for
            && let Some(other) = self.longrun(service, "producer-for", consumer, errors)
            && !other.pipeline.consumer_for.contains(&service.name)
        {
            errors.push(half(service, "producer-for", consumer, "consumer-for"));
        }
        for producer in &pipeline.consumer_for {
            if let Some(other) = self.longrun(service, "consumer-for", producer, errors)
                && other.pipeline.producer_for.as_ref() != Some(&service.name)
            {
                errors.push(half(service, "consumer-for", producer, "producer-for"));
            }
        }
    }

    fn longrun(
        &self,
        service: &Service,
        file: &str,
        other: &str,
        errors: &mut Vec<ServiceError>,
    ) -> Option<&Service> {
        let (name, path) = (service.name.clone(), service.origin.join(file));
        match self.get(other) {
            Some(found) if matches!(found.kind, Kind::Longrun { .. }) => return Some(found),
            Some(found) => {
                let other = other.to_owned();
                errors.push(ServiceError::NotALongrun {
                    service: name,
                    path,
                    other,
                    found: found.type_word(),
                });
            }
            None => errors.push(ServiceError::Unknown { service: name, path, unknown: other.to_owned() }),
        }
        None
    }

    /// That nothing which the init would start by itself needs what only a controller starts.
    pub(super) fn check_default(&self, errors: &mut Vec<ServiceError>) {
        // Each with the one through which it was reached.
        let mut reached: BTreeMap<String, String> =
            self.members(DEFAULT_BUNDLE).into_iter().map(|name| (name, DEFAULT_BUNDLE.to_owned())).collect();
        let mut todo: Vec<String> = reached.keys().cloned().collect();
        while let Some(name) = todo.pop() {
            for needed in self.direct_dependencies(&name) {
                if !reached.contains_key(&needed) {
                    reached.insert(needed.clone(), name.clone());
                    todo.push(needed);
                }
            }
        }
        for name in reached.keys() {
            let Some(service) = self.get(name) else { continue };
            let Some(controller) = &service.controlled_by else { continue };
            let mut way = vec![name.clone()];
            while let Some(before) =
                way.last().and_then(|name| reached.get(name)).filter(|b| !way.contains(b))
            {
                way.push(before.clone());
            }
            way.reverse();
            errors.push(ServiceError::ControlledInDefault {
                controlled: name.clone(),
                path: service.origin.clone(),
                controller: controller.clone(),
                way,
            });
        }
    }
}

fn half(service: &Service, file: &str, other: &str, missing: &'static str) -> ServiceError {
    let (name, path) = (service.name.clone(), service.origin.join(file));
    ServiceError::HalfAPipe { service: name, path, other: other.to_owned(), missing }
}

#[cfg(test)]
mod tests {
    use super::super::definition::Program;
    use super::*;

    fn longrun(name: &str) -> Service {
        Service::longrun(name, format!("/s/{name}"), Program::Words(vec![]))
    }

    fn producer(name: &str, consumer: &str) -> Service {
        let mut service = longrun(name);
        service.pipeline.producer_for = Some(consumer.to_owned());
        service
    }

    fn consumer<const N: usize>(mut service: Service, producers: [&str; N]) -> Service {
        service.pipeline.consumer_for = producers.map(str::to_owned).into();
        service
    }

    fn problems(services: Vec<Service>) -> Vec<String> {
        let errors = ServiceSet::new(services).unwrap().check().err().unwrap_or_default();
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_producer_needs_its_consumer_and_the_pipelines_name_is_a_bundle() {
        let mut last = consumer(longrun("log"), ["filter"]);
        last.pipeline.name = Some("chain".into());
        let filter = consumer(producer("filter", "log"), ["a", "b"]);
        let set = ServiceSet::new([last, filter, producer("a", "filter"), producer("b", "filter")]).unwrap();
        assert!(set.check().is_ok(), "{:?}", set.check());
        assert_eq!(set.direct_dependencies("a"), ["filter".to_owned()].into());
        assert_eq!(set.direct_dependencies("filter"), ["log".to_owned()].into());
        assert_eq!(set.members("chain"), ["a", "b", "filter", "log"].map(str::to_owned).into());
    }

    #[test]
    fn a_pipe_that_only_one_end_knows_of_and_one_to_a_oneshot_are_refused() {
        assert_eq!(
            problems(vec![producer("a", "log"), longrun("log")]),
            ["service a: /s/a/producer-for names log, whose consumer-for does not name a"]
        );
        assert_eq!(
            problems(vec![longrun("a"), consumer(longrun("log"), ["a"])]),
            ["service log: /s/log/consumer-for names a, whose producer-for does not name log"]
        );
        assert_eq!(
            problems(vec![producer("a", "log"), Service::oneshot("log", "/s/log", None, None)]),
            ["service a: /s/a/producer-for names log: expected a longrun, found a oneshot"]
        );
        assert_eq!(
            problems(vec![producer("a", "nobody")]),
            ["service a: /s/a/producer-for names nobody, which does not exist"]
        );
        let round = vec![consumer(producer("a", "b"), ["b"]), consumer(producer("b", "a"), ["a"])];
        assert_eq!(problems(round), ["service a in /s/a depends on itself: a -> b -> a"]);
    }

    #[test]
    fn a_controlled_service_needs_its_controller_and_is_not_for_the_default_set() {
        let modem = longrun("modem").controlled_by("plug");
        let wan = longrun("wan").after("modem");
        let set = |default: &str| {
            let default = Service::bundle("default", "/s/default", [default]);
            vec![longrun("plug"), modem.clone(), wan.clone(), default]
        };
        assert_eq!(problems(set("plug")), [""; 0]);
        assert_eq!(
            problems(set("wan")),
            [
                "service modem in /s/modem is controlled by plug and cannot be in the bundle default, which reaches it: \
              default -> wan -> modem"
            ]
        );
        assert_eq!(
            problems(vec![longrun("modem").controlled_by("nobody")]),
            ["service modem: /s/modem/controlled-by names nobody, which does not exist"]
        );
        let set = ServiceSet::new(set("plug")).unwrap();
        assert_eq!(set.direct_dependencies("modem"), ["plug".to_owned()].into());
    }
}
