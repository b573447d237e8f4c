//! Which addresses are services, and who serves them?

use std::net::IpAddr;
use std::sync::Arc;

use wire::IpProtocol;

use super::build::is_source;
use super::shared::{Map, Tally};
use super::{Program, ProgramError, Scope};
use crate::service::Maglev;
use crate::time::Now;

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
    /// All of a client's address, until it has begun none for `timeout_s`, or the endpoint goes.
    ClientIp {
        /// Seconds.
        timeout_s: u32,
    },
}

/// A service, as the stages see it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// Endpoints in order, each once.
    spec: ServiceSpec,
    choice: Maglev,
}

impl Service {
    pub(crate) fn number(&self) -> ServiceNo {
        self.spec.number
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(crate) fn affinity(&self) -> Affinity {
        self.spec.affinity
    }

    /// The endpoint for connections that hash so.
    pub(crate) fn choose(&self, hash: u64) -> Option<EndpointSpec> {
        self.choice.choose(hash).and_then(|at| self.spec.endpoints.get(at)).copied()
    }

    /// True if it depends on the hash.
    pub(crate) fn is_choice(&self) -> bool {
        self.spec.endpoints.len() > 1
    }

    /// True if a client that has last begun a connection at `used`, with `endpoint`, goes there again.
    pub(crate) fn keeps(&self, endpoint: &EndpointSpec, used: Now, now: Now) -> bool {
        match self.spec.affinity {
            Affinity::None => false,
            Affinity::ClientIp { timeout_s } => {
                now.since(used) < u64::from(timeout_s) * 1000 && self.has(endpoint)
            }
        }
    }

    pub(crate) fn has(&self, endpoint: &EndpointSpec) -> bool {
        self.spec.endpoints.binary_search(endpoint).is_ok()
    }

    /// What its endpoints serve.
    fn ends(&self) -> impl Iterator<Item = (Scope, FrontendSpec)> + '_ {
        let ServiceSpec { scope, frontends, endpoints, .. } = &self.spec;
        frontends.iter().flat_map(move |&FrontendSpec { protocol, .. }| {
            let end = move |it: &EndpointSpec| FrontendSpec { address: it.address, protocol, port: it.port };
            endpoints.iter().map(move |endpoint| (*scope, end(endpoint)))
        })
    }
}

/// All services. A copy costs nothing, and a change what it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    by_number: Map<ServiceNo, Arc<Service>>,
    frontends: Map<(Scope, FrontendSpec), Arc<Service>>,
    /// The addresses of frontends, and of endpoints, whatever the ports: most packets are told by these alone.
    addresses: Tally<(Scope, IpAddr)>,
    hosts: Tally<(Scope, IpAddr)>,
    endpoints: Tally<(Scope, FrontendSpec)>,
}

impl Services {
    /// These services, put one after the other.
    ///
    /// # Errors
    /// As [`Services::put`].
    pub fn new(services: impl IntoIterator<Item = ServiceSpec>) -> Result<Self, ProgramError> {
        let mut all = Self::default();
        services.into_iter().try_for_each(|service| all.put(service))?;
        Ok(all)
    }

    /// Adds a service, in the place of the one that has its number.
    ///
    /// # Errors
    /// It contradicts itself or another: there is then none of its number.
    pub fn put(&mut self, mut spec: ServiceSpec) -> Result<(), ProgramError> {
        self.remove(spec.number);
        check(&spec)?;
        self.check_frontends(&spec)?;
        spec.endpoints.sort_unstable();
        spec.endpoints.dedup();
        let service = Arc::new(Service { choice: Maglev::new(&spec.endpoints), spec });
        let ServiceSpec { number, scope, frontends, endpoints, .. } = &service.spec;
        for frontend in frontends {
            self.frontends.insert_mut((*scope, *frontend), service.clone());
            self.addresses.add((*scope, frontend.address));
        }
        endpoints.iter().for_each(|endpoint| self.hosts.add((*scope, endpoint.address)));
        service.ends().for_each(|end| self.endpoints.add(end));
        self.by_number.insert_mut(*number, service.clone());
        Ok(())
    }

    /// Removes the service of this number, if there is one.
    pub fn remove(&mut self, number: ServiceNo) {
        let Some(service) = self.by_number.get(&number).cloned() else { return };
        let ServiceSpec { scope, frontends, endpoints, .. } = &service.spec;
        for frontend in frontends {
            self.frontends.remove_mut(&(*scope, *frontend));
            self.addresses.remove(&(*scope, frontend.address));
        }
        endpoints.iter().for_each(|endpoint| self.hosts.remove(&(*scope, endpoint.address)));
        service.ends().for_each(|end| self.endpoints.remove(&end));
        self.by_number.remove_mut(&number);
    }

    /// The service of this number, its endpoints in order.
    pub fn get(&self, number: ServiceNo) -> Option<&ServiceSpec> {
        self.by_number.get(&number).map(|service| &service.spec)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// The service of this number, as the stages see it.
    pub(crate) fn of(&self, number: ServiceNo) -> Option<&Service> {
        self.by_number.get(&number).map(|service| &**service)
    }

    /// The service that `frontend` is of.
    pub(crate) fn at(&self, scope: Scope, frontend: &FrontendSpec) -> Option<&Service> {
        self.frontends.get(&(scope, *frontend)).map(|service| &**service)
    }

    /// True if `address` is one of some service's.
    pub(crate) fn is_frontend(&self, scope: Scope, address: IpAddr) -> bool {
        self.addresses.has(&(scope, address))
    }

    /// True if some endpoint has `address`.
    pub(crate) fn is_host(&self, scope: Scope, address: IpAddr) -> bool {
        self.hosts.has(&(scope, address))
    }

    /// True if some service is served at this address, protocol and port.
    pub(crate) fn is_endpoint(&self, scope: Scope, end: &FrontendSpec) -> bool {
        self.endpoints.has(&(scope, *end))
    }

    fn check_frontends(&self, spec: &ServiceSpec) -> Result<(), ProgramError> {
        for (at, frontend) in spec.frontends.iter().enumerate() {
            let is_twice = spec.frontends[..at].contains(frontend).then_some(&spec.name);
            let rival = self.at(spec.scope, frontend).map(|rival| &rival.spec.name);
            if let Some(first) = rival.or(is_twice) {
                let FrontendSpec { address, port, .. } = *frontend;
                let (first, second) = (first.clone(), spec.name.clone());
                return Err(ProgramError::DuplicateFrontend { first, second, address, port });
            }
        }
        Ok(())
    }
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
        &self.spec.services
    }
}
