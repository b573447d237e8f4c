//! What is the switch told of services? Each port of each, by family: frontends, and who serves them now.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{ObjectName, Protocol, Service, ServicePort, SessionAffinity};
use vswitch::program::{Affinity, EndpointSpec, FrontendSpec, Scope, ServiceNo, ServiceSpec};

use crate::desired::Desired;
use crate::policies::{Pods, scope_of};

/// The services that the switch has, and their numbers.
#[derive(Debug, Default)]
pub(crate) struct Services {
    numbers: BTreeMap<Key, ServiceNo>,
    last: u32,
    told: BTreeMap<ServiceNo, ServiceSpec>,
}

/// One service of the switch: a port of an object, in one family.
type Key = (ObjectName, Protocol, u16, bool);

/// What the switch is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ServiceDelta {
    pub(crate) put: Vec<ServiceSpec>,
    pub(crate) delete: Vec<ServiceNo>,
}

impl Services {
    /// Takes over what is desired now.
    pub(crate) fn follow(&mut self, desired: &Desired, pods: &Pods) -> ServiceDelta {
        let services = &desired.objects().services;
        if services.is_empty() && self.told.is_empty() {
            return ServiceDelta::default();
        }
        let mut now = BTreeMap::new();
        for service in services.values() {
            // Its network may be leaving.
            let Some(known) = desired.network(service.network()) else { continue };
            let scope = scope_of(known, desired);
            for port in service.ports() {
                let endpoints = service.endpoints(port, pods.values());
                for is_v4 in [true, false] {
                    if let Some(spec) = self.spec(service, port, (scope, is_v4), &endpoints) {
                        now.insert(spec.number, spec);
                    }
                }
            }
        }
        let delete: Vec<_> = self.told.keys().filter(|number| !now.contains_key(number)).copied().collect();
        let put = now.iter().filter(|(number, spec)| self.told.get(number) != Some(spec));
        let delta = ServiceDelta { put: put.map(|(_, spec)| spec.clone()).collect(), delete };
        self.numbers.retain(|_, number| now.contains_key(number));
        self.told = now;
        delta
    }

    /// Everything.
    pub(crate) fn all(&self) -> Vec<ServiceSpec> {
        self.told.values().cloned().collect()
    }

    fn spec(
        &mut self,
        service: &Service,
        port: &ServicePort,
        (scope, is_v4): (Scope, bool),
        endpoints: &[(IpAddr, u16)],
    ) -> Option<ServiceSpec> {
        let of_family = |address: &&IpAddr| address.is_ipv4() == is_v4;
        let protocol = port.protocol.ip();
        let frontends: Vec<_> = service
            .addresses()
            .iter()
            .filter(of_family)
            .map(|address| FrontendSpec { address: *address, protocol, port: port.port })
            .collect();
        if frontends.is_empty() {
            return None;
        }
        let key = (service.name().clone(), port.protocol, port.port, is_v4);
        let number = *self.numbers.entry(key).or_insert_with(|| {
            self.last += 1;
            ServiceNo(self.last)
        });
        let serving = endpoints.iter().filter(|(address, _)| of_family(&address));
        Some(ServiceSpec {
            number,
            name: format!("{} port {}", service.name(), port.port),
            scope,
            frontends,
            endpoints: serving
                .map(|(address, port)| EndpointSpec { address: *address, port: *port })
                .collect(),
            affinity: match service.affinity() {
                SessionAffinity::None => Affinity::None,
                SessionAffinity::ClientIp => Affinity::ClientIp,
            },
        })
    }
}
