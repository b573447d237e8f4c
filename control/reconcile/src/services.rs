//! What is the switch told of services? Each port of each, by family: frontends, and who serves them now.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use model::{ObjectName, Protocol, Service, ServicePort, TrafficPolicy};
use vswitch::program::{Affinity, EndpointSpec, FrontendSpec, Scope, ServiceNo, ServiceSpec};

use crate::desired::Desired;
use crate::host::node_port_address;
use crate::policies::{Pods, scope_of};

/// The services that the switch has, and their numbers.
#[derive(Debug, Default)]
pub(crate) struct Services {
    numbers: BTreeMap<Key, ServiceNo>,
    last: u32,
    told: BTreeMap<ServiceNo, ServiceSpec>,
}

/// One service of the switch: a port of an object, in one family, with all its endpoints or those of this node.
type Key = (ObjectName, Protocol, u16, bool, TrafficPolicy);

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
        let here = desired.attachments().flat_map(|it| &it.addresses).map(|it| it.net.addr()).collect();
        let mut now = BTreeMap::new();
        for service in services.values() {
            // Its network may be leaving.
            let Some(known) = desired.network(service.network()) else { continue };
            let scope = scope_of(known, desired);
            for port in service.ports() {
                let endpoints = service.endpoints(port, pods.values());
                for face in faces(service, port) {
                    let spec = self.spec((service, port), (scope, &face), (&endpoints, &here));
                    now.insert(spec.number, spec);
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
        (service, port): (&Service, &ServicePort),
        (scope, face): (Scope, &Face),
        (endpoints, here): (&[(IpAddr, u16)], &HashSet<IpAddr>),
    ) -> ServiceSpec {
        let key = (service.name().clone(), port.protocol, port.port, face.is_v4, face.policy);
        let number = *self.numbers.entry(key).or_insert_with(|| {
            self.last += 1;
            ServiceNo(self.last)
        });
        let serves = |address: &IpAddr| {
            address.is_ipv4() == face.is_v4
                && (face.policy == TrafficPolicy::Cluster || here.contains(address))
        };
        let serving = endpoints.iter().filter(|(address, _)| serves(address));
        let on_node = match face.policy {
            TrafficPolicy::Cluster => "",
            TrafficPolicy::Local => " on this node",
        };
        ServiceSpec {
            number,
            name: format!("{} port {}{on_node}", service.name(), port.port),
            scope,
            frontends: face.frontends.clone(),
            endpoints: serving
                .map(|(address, port)| EndpointSpec { address: *address, port: *port })
                .collect(),
            affinity: service
                .affinity_timeout_s()
                .map_or(Affinity::None, |timeout_s| Affinity::ClientIp { timeout_s }),
        }
    }
}

/// The addresses of a service's port that the same endpoints serve.
struct Face {
    is_v4: bool,
    policy: TrafficPolicy,
    frontends: Vec<FrontendSpec>,
}

/// Pods and nodes use the service's own addresses, and those outside as if those had no policy (a pod is not outside). Who comes
/// from outside has been sent to the address of the node port by the node's kernel.
fn faces(service: &Service, port: &ServicePort) -> Vec<Face> {
    let mut faces = Vec::new();
    for is_v4 in [true, false] {
        let of_family = |address: &&IpAddr| address.is_ipv4() == is_v4;
        let at = |address: IpAddr, port: u16, protocol: Protocol| FrontendSpec {
            address,
            protocol: protocol.ip(),
            port,
        };
        for policy in
            [TrafficPolicy::Cluster, TrafficPolicy::Local].into_iter().filter(|_| service.has_family(is_v4))
        {
            let own = service.addresses().iter().filter(|_| service.internal_policy() == policy);
            let outside = service.external_addresses().iter().filter(|_| policy == TrafficPolicy::Cluster);
            let at_node = port.node_port.filter(|_| service.external_policy() == policy);
            let at_node = at_node.map(|at_node| at(node_port_address(policy, is_v4), at_node, port.protocol));
            let addresses = own.chain(outside).filter(of_family);
            let frontends: Vec<_> =
                addresses.map(|address| at(*address, port.port, port.protocol)).chain(at_node).collect();
            if !frontends.is_empty() {
                faces.push(Face { is_v4, policy, frontends });
            }
        }
    }
    faces
}
