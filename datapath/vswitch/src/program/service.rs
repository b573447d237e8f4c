//! Which addresses are services, and who serves them?

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use wire::IpProtocol;

use super::build::is_source;
use super::{Program, ProgramError, ProgramSpec, Scope};
use crate::service::Maglev;

/// A service's number: assigned by control, stable while the service lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ServiceNo(pub u32);

/// Addresses that stand for several: a connection to one of them goes to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its number.
    pub number: ServiceNo,
    /// Its name, for people.
    pub name: String,
    /// Where its addresses mean it.
    pub scope: Scope,
    /// What clients connect to: TCP, UDP or SCTP.
    pub frontends: Vec<FrontendSpec>,
    /// Who serves: none, and connections are refused.
    pub endpoints: Vec<EndpointSpec>,
    /// Whether all connections of a client go to one endpoint.
    pub affinity: Affinity,
}

/// An address of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendSpec {
    /// The address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: IpProtocol,
    /// The port.
    pub port: u16,
}

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointSpec {
    /// Its address, of the family of the clients'.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// Which connections go to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Affinity {
    /// Each connection is one's own matter.
    #[default]
    None,
    /// All of a client's address, for as long as the endpoints stay.
    ClientIp,
}

/// A service, as the stages see it.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) affinity: Affinity,
    endpoints: Vec<EndpointSpec>,
    choice: Maglev,
}

impl Service {
    /// The endpoint for connections that hash so.
    pub(crate) fn choose(&self, hash: u64) -> Option<EndpointSpec> {
        self.choice.choose(hash).and_then(|at| self.endpoints.get(at)).copied()
    }

    pub(crate) fn has(&self, endpoint: &EndpointSpec) -> bool {
        self.endpoints.contains(endpoint)
    }
}

/// All services.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services {
    services: Vec<Service>,
    frontends: HashMap<(Scope, FrontendSpec), usize>,
    /// The addresses of frontends, and of endpoints, whatever the ports: most packets are told by these alone.
    addresses: HashSet<(Scope, IpAddr)>,
    hosts: HashSet<(Scope, IpAddr)>,
    endpoints: HashSet<(Scope, FrontendSpec)>,
}

impl Services {
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The service that `frontend` is of.
    pub(crate) fn at(&self, scope: Scope, frontend: &FrontendSpec) -> Option<&Service> {
        self.frontends.get(&(scope, *frontend)).map(|at| &self.services[*at])
    }

    /// True if `address` is one of some service's.
    pub(crate) fn is_frontend(&self, scope: Scope, address: IpAddr) -> bool {
        self.addresses.contains(&(scope, address))
    }

    /// True if some endpoint has `address`.
    pub(crate) fn is_host(&self, scope: Scope, address: IpAddr) -> bool {
        self.hosts.contains(&(scope, address))
    }

    /// True if some service is served at this address, protocol and port.
    pub(crate) fn is_endpoint(&self, scope: Scope, end: &FrontendSpec) -> bool {
        self.endpoints.contains(&(scope, *end))
    }
}

/// Checks the services of `spec` and derives their lookups.
pub(super) fn build(spec: &ProgramSpec) -> Result<Services, ProgramError> {
    let mut built = Services::default();
    for (filed, service) in &spec.services {
        if *filed != service.number {
            let (own, filed) = (service.number.0, filed.0);
            return Err(ProgramError::Misfiled { object: service.name.clone(), own, filed });
        }
        check(service)?;
        let at = built.services.len();
        for frontend in &service.frontends {
            if let Some(rival) = built.frontends.insert((service.scope, *frontend), at) {
                let first = built.services.get(rival).map_or(&service.name, |rival| &rival.name).clone();
                let FrontendSpec { address, port, .. } = *frontend;
                let second = service.name.clone();
                return Err(ProgramError::DuplicateFrontend { first, second, address, port });
            }
            built.addresses.insert((service.scope, frontend.address));
        }
        let mut endpoints = service.endpoints.clone();
        endpoints.sort_unstable();
        endpoints.dedup();
        built.hosts.extend(endpoints.iter().map(|endpoint| (service.scope, endpoint.address)));
        for FrontendSpec { protocol, .. } in &service.frontends {
            let end =
                |it: &EndpointSpec| FrontendSpec { address: it.address, protocol: *protocol, port: it.port };
            built.endpoints.extend(endpoints.iter().map(|endpoint| (service.scope, end(endpoint))));
        }
        built.services.push(Service {
            name: service.name.clone(),
            affinity: service.affinity,
            choice: Maglev::new(&endpoints),
            endpoints,
        });
    }
    Ok(built)
}

fn check(service: &ServiceSpec) -> Result<(), ProgramError> {
    let wrong = |what: String| Err(ProgramError::Service { service: service.name.clone(), what });
    let addresses = service.frontends.iter().map(|it| it.address);
    let addresses = addresses.chain(service.endpoints.iter().map(|it| it.address));
    if let Some(address) = addresses.clone().find(|address| !is_source(*address)) {
        return wrong(format!("the address {address}, which is no host's"));
    }
    let is_v4 = addresses.clone().next().is_some_and(|address| address.is_ipv4());
    if let Some(address) = addresses.clone().find(|address| address.is_ipv4() != is_v4) {
        return wrong(format!("the address {address} beside such of the other family"));
    }
    match service.frontends.iter().find(|it| !it.protocol.has_ports()) {
        Some(frontend) => wrong(format!("a frontend of {}, which has no ports", frontend.protocol)),
        None => Ok(()),
    }
}

impl Program {
    /// All services.
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }
}
