//! How does the datapath become what an update says? The one place that holds what was asked.
//!
//! An update is obeyed in this order, so that no frame ever goes by a half-made program: (1) check the new program, and
//! set aside the ports that contradict it; (2) forward without the ports that go, then close them; (3) open the ports
//! that are new; (4) forward by the new program. A port that fails is reported, kept in mind and left out; asking for it
//! again tries again.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use local_api::switch_v1 as api;
use vswitch::program::{
    GatewaySpec, HostSpec, LocalnetSpec, NetworkNo, NetworkSpec, NodeNo, Policies, PolicyNo, PortNo,
    PortSpec, ProgramError, ProgramSpec, ServiceNo, Services, UnderlaySpec, Via,
};
use vswitch::{Entrance, Program};
use worker::{Datapath, Removal};

use super::devices::{Devices, differs, is_same_object};
use super::{convert, policy};
use crate::said;

/// The switch, as its socket sees it.
pub(super) struct Board {
    pub(super) datapath: Datapath,
    pub(super) instance: String,
    devices: Box<dyn Devices>,
    asked: Mutex<Asked>,
}

/// What was asked for last.
#[derive(Default, Clone)]
struct Asked {
    version: u64,
    networks: BTreeMap<NetworkNo, NetworkSpec>,
    localnets: BTreeMap<NetworkNo, LocalnetSpec>,
    /// Why networks forward without the gateway, the part elsewhere or the DHCP that they were asked to have.
    network_faults: BTreeMap<NetworkNo, String>,
    underlay: Option<UnderlaySpec>,
    /// Why there are no tunnels.
    underlay_fault: Option<String>,
    host: Option<HostSpec>,
    policies: Policies,
    services: Services,
    ports: BTreeMap<PortNo, Port>,
}

/// One port that was asked for.
#[derive(Clone)]
struct Port {
    asked: api::Port,
    /// Its place in the forwarding; the reason, where the words make none.
    spec: Result<PortSpec, String>,
    /// Why it is not as asked: what it says makes no sense, contradicts the rest, or its device cannot be opened.
    fault: Option<String>,
    /// The datapath has its device.
    open: bool,
    /// It works, and this update does not change it.
    settled: bool,
}

impl Board {
    pub(super) fn new(datapath: Datapath, devices: Box<dyn Devices>) -> Self {
        let instance = format!("{:016x}", RandomState::new().build_hasher().finish());
        Self { datapath, instance, devices, asked: Mutex::default() }
    }

    /// Makes the datapath be what `request` says.
    pub(super) fn apply(&self, request: &api::ApplyRequest) -> api::ApplyResponse {
        let mut asked = self.asked();
        if request.from_version != 0 && request.from_version != asked.version {
            return self.response(asked.version, true, (Vec::new(), Vec::new()));
        }
        let mut next = asked.clone();
        let mut results = next.take(request);
        let mut object_errors = next.take_policies(request);
        object_errors.extend(next.take_services(request));
        next.check();
        self.close(&asked, &mut next);
        self.open(&mut next);
        self.datapath.set_program(next.program());
        results.extend(request.put_ports.iter().filter_map(|port| next.result(port.number)));
        let networks =
            request.put_networks.iter().map(|network| next.network_result(network.number)).collect();
        let version = next.version;
        let underlay_error = next.underlay_fault.clone().unwrap_or_default();
        *asked = next;
        let response = self.response(version, false, (results, networks));
        api::ApplyResponse { underlay_error, object_errors, ..response }
    }

    /// (2) Closes the ports of `before` that `next` does not have, or has with another device.
    fn close(&self, before: &Asked, next: &mut Asked) {
        let goes = |number: &PortNo, port: &Port| {
            port.open
                && next
                    .ports
                    .get(number)
                    .is_none_or(|after| after.fault.is_some() || differs(&port.asked, &after.asked))
        };
        let gone: Vec<(PortNo, &Port)> =
            before.ports.iter().filter(|(number, port)| goes(number, port)).map(|(n, p)| (*n, p)).collect();
        if gone.is_empty() {
            return;
        }
        for (number, _) in &gone {
            if let Some(after) = next.ports.get_mut(number) {
                after.open = false;
            }
        }
        self.datapath.set_program(next.program());
        for (number, port) in gone {
            // The same netdev or socket under another number or setup is taken up again, not deleted.
            let lives_on = next.ports.values().any(|after| is_same_object(&port.asked, &after.asked));
            let removal = if lives_on { Removal::Keep } else { Removal::Retire };
            self.datapath.remove_port(number, removal);
            tracing::info!(port = port.asked.name, "port closed");
        }
    }

    /// (3) Opens the ports that are asked for and not open.
    fn open(&self, next: &mut Asked) {
        for (number, port) in &mut next.ports {
            if port.open || port.fault.is_some() {
                continue;
            }
            let opened = self.devices.open(&port.asked).and_then(|device| {
                self.datapath.add_port(*number, device).map_err(|error| error.to_string())
            });
            port.open = opened.is_ok();
            port.fault = opened.err();
            match &port.fault {
                None => tracing::info!(port = port.asked.name, number = number.0, "port open"),
                Some(fault) => tracing::warn!(port = port.asked.name, fault, "port cannot be opened"),
            }
        }
    }

    /// Every port asked for, with its state, and the ledger of all.
    pub(super) fn ports(&self) -> api::ListPortsResponse {
        let asked = self.asked();
        let views = self.datapath.ports();
        let state = |(number, port): (&PortNo, &Port)| {
            let view = views.iter().find(|view| view.port == *number);
            convert::port_state(&port.asked, view, port.fault.as_deref())
        };
        api::ListPortsResponse {
            ports: asked.ports.iter().map(state).collect(),
            total: Some(convert::counters(&self.datapath.counters().total)),
        }
    }

    /// The networks that were asked for.
    pub(super) fn networks(&self) -> api::ListNetworksResponse {
        let asked = self.asked();
        let said = |spec: &NetworkSpec| said::network(spec, asked.localnets.get(&spec.number));
        let networks = asked.networks.values().map(said).collect();
        api::ListNetworksResponse { networks }
    }

    /// What would happen to a frame that comes in now; `None` if it cannot come in so.
    pub(super) fn trace(&self, entrance: Entrance, frame: &[u8]) -> Option<api::TraceResponse> {
        let nodes = self.asked().underlay.as_ref().map(|underlay| underlay.nodes.clone());
        if entrance == Entrance::Uplink && nodes.is_none() {
            return None;
        }
        let name = |node: NodeNo| {
            let spec = nodes.as_ref().and_then(|nodes| nodes.get(&node));
            spec.map_or_else(|| node.0.to_string(), |spec| spec.name.clone())
        };
        Some(convert::explanation(self.datapath.trace(entrance, frame)?, name))
    }

    /// The version that the datapath forwards by; 0: none was asked for yet.
    pub(super) fn version(&self) -> u64 {
        self.asked().version
    }

    fn response(
        &self,
        version: u64,
        resync: bool,
        (ports, networks): (Vec<api::PortResult>, Vec<api::NetworkResult>),
    ) -> api::ApplyResponse {
        let (instance, underlay_error) = (self.instance.clone(), String::new());
        let object_errors = Vec::new();
        api::ApplyResponse { version, instance, resync, ports, networks, underlay_error, object_errors }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// Takes over what `request` says. Returns the results of ports that cannot even be numbered.
    fn take(&mut self, request: &api::ApplyRequest) -> Vec<api::PortResult> {
        let everything = request.from_version == 0;
        for port in self.ports.values_mut() {
            port.settled = port.open;
        }
        let mut before = if everything { std::mem::take(&mut self.ports) } else { BTreeMap::new() };
        if everything {
            self.networks.clear();
            self.localnets.clear();
            self.network_faults.clear();
        }
        self.version = request.to_version;
        if everything {
            self.take_underlay(request.underlay.as_ref());
            self.host = request.host.as_ref().and_then(|host| {
                let converted = convert::host(host);
                converted.inspect_err(|error| tracing::warn!(error, "the node is on no network")).ok()
            });
        }
        for number in &request.delete_networks {
            self.networks.remove(&NetworkNo(*number));
            self.localnets.remove(&NetworkNo(*number));
            self.network_faults.remove(&NetworkNo(*number));
        }
        for network in &request.put_networks {
            self.put_network(network);
        }
        for number in &request.delete_ports {
            let _ = convert::port_no(*number).map(|number| self.ports.remove(&number));
        }
        let mut unnumbered = Vec::new();
        for port in &request.put_ports {
            match convert::port_no(port.number) {
                Ok(number) => {
                    let old = self.ports.remove(&number).or_else(|| before.remove(&number));
                    self.ports.insert(number, Port::put(port, old.as_ref()));
                }
                Err(error) => unnumbered.push(api::PortResult { number: port.number, error }),
            }
        }
        unnumbered
    }

    fn put_network(&mut self, network: &api::Network) {
        let number = NetworkNo(network.number);
        let mut spec = convert::network(network);
        self.network_faults.remove(&number);
        match network.gateway.as_ref().map(convert::gateway).transpose() {
            Ok(mut gateway) => {
                if self.underlay.is_none() {
                    gateway.iter_mut().for_each(forget_nodes);
                }
                spec.gateway = gateway;
            }
            Err(error) => drop(self.network_faults.insert(number, error)),
        }
        match network.overlay.as_ref().map(convert::overlay).transpose() {
            Ok(overlay) => spec.overlay = overlay.filter(|_| self.underlay.is_some()),
            Err(error) => drop(self.network_faults.insert(number, error)),
        }
        self.localnets.remove(&number);
        match network.localnet.as_ref().map(convert::localnet).transpose() {
            Ok(localnet) => {
                let localnet = localnet.filter(|_| self.underlay.is_some());
                self.localnets.extend(localnet.map(|localnet| (number, localnet)));
            }
            Err(error) => drop(self.network_faults.insert(number, error)),
        }
        match network.dhcp.as_ref().map(convert::dhcp).transpose() {
            Ok(dhcp) => spec.dhcp = dhcp,
            Err(error) => drop(self.network_faults.insert(number, error)),
        }
        self.networks.insert(number, spec);
    }

    /// Takes over the policies and identities that `request` names. Returns why some were left out.
    fn take_policies(&mut self, request: &api::ApplyRequest) -> Vec<String> {
        if request.from_version == 0 {
            self.policies = Policies::default();
        }
        let mut errors = Vec::new();
        for number in &request.delete_policies {
            self.policies.remove(PolicyNo(*number));
        }
        for asked in &request.put_policies {
            match policy::policy(asked) {
                Ok(policy) => self.policies.put(&policy),
                Err(error) => {
                    // Not the one of before: a port without its policy is not open.
                    self.policies.remove(PolicyNo(asked.number));
                    errors.push(error);
                }
            }
        }
        for asked in &request.delete_identities {
            match policy::place(asked) {
                Ok((scope, addresses)) => self.policies.remove_identity(scope, addresses),
                Err(error) => errors.push(error),
            }
        }
        for asked in &request.put_identities {
            let put = policy::identity(asked).and_then(|identity| {
                self.policies.put_identity(&identity).map_err(|error| error.to_string())
            });
            errors.extend(put.err());
        }
        errors
    }

    /// Takes over the services that `request` names. Returns why some were left out.
    fn take_services(&mut self, request: &api::ApplyRequest) -> Vec<String> {
        if request.from_version == 0 {
            self.services = Services::default();
        }
        // All of them first: an address may pass from one to another.
        for number in request.delete_services.iter().chain(request.put_services.iter().map(|it| &it.number)) {
            self.services.remove(ServiceNo(*number));
        }
        let mut errors = Vec::new();
        for asked in &request.put_services {
            let put = policy::service(asked)
                .and_then(|service| self.services.put(service).map_err(|error| error.to_string()));
            if let Err(error) = put {
                tracing::warn!(error, "the service is left out");
                errors.push(error);
            }
        }
        errors
    }

    fn take_underlay(&mut self, underlay: Option<&api::Underlay>) {
        let converted = underlay.map(convert::underlay).transpose();
        self.underlay_fault = converted.as_ref().err().cloned();
        self.underlay = converted.unwrap_or_default();
    }

    /// Leaves the gateway, the overlay, the DHCP or the underlay out that `error` is about, if it is about one.
    fn drop_part(&mut self, error: &ProgramError) -> bool {
        match error {
            ProgramError::Gateway { network, .. } | ProgramError::Overlap { second: network, .. } => {
                let take = |network: &mut NetworkSpec| network.gateway.take().is_some();
                drop_of_network((&mut self.networks, &mut self.network_faults), network, error, take)
            }
            ProgramError::Overlay { network, .. } => {
                let localnets = &mut self.localnets;
                let take = |network: &mut NetworkSpec| {
                    let in_vlan = localnets.remove(&network.number).is_some();
                    network.overlay.take().is_some() || in_vlan
                };
                drop_of_network((&mut self.networks, &mut self.network_faults), network, error, take)
            }
            ProgramError::Dhcp { network, .. } => {
                let take = |network: &mut NetworkSpec| network.dhcp.take().is_some();
                drop_of_network((&mut self.networks, &mut self.network_faults), network, error, take)
            }
            ProgramError::Node { .. } => self.drop_underlay(error),
            _ => false,
        }
    }

    /// All tunnels or none: which node's address is wrong is not known.
    fn drop_underlay(&mut self, error: &ProgramError) -> bool {
        tracing::warn!(%error, "there are no tunnels to other nodes");
        self.underlay_fault = Some(error.to_string());
        self.localnets.clear();
        self.networks.values_mut().for_each(|network| {
            network.overlay = None;
            network.gateway.iter_mut().for_each(forget_nodes);
        });
        self.underlay.take().is_some()
    }

    /// (1) Sets aside the ports that contradict the rest. Each build names one, so this ends.
    fn check(&mut self) {
        for port in self.ports.values_mut() {
            // A contradiction may have gone with this update; what did not open is tried again when it is asked again.
            if port.open || port.fault.is_none() {
                port.fault = port.spec.as_ref().err().cloned();
            }
        }
        while let Err(error) = Program::build(self.spec(|port| port.fault.is_none())) {
            if self.drop_part(&error) {
                continue;
            }
            let blamed = blamed(&error);
            let sound = self.ports.values_mut().filter(|port| port.fault.is_none());
            // Of two that claim one station, the one that had it keeps it.
            let culprit =
                sound.filter(|port| blamed.contains(&&*port.asked.name)).min_by_key(|port| port.settled);
            let Some(culprit) = culprit else { unreachable!("{error}: names no port of this program") };
            culprit.fault = Some(error.to_string());
        }
    }

    /// (4) The program of all ports that are open.
    fn program(&self) -> Arc<Program> {
        Program::build(self.spec(|port| port.open && port.fault.is_none()))
            .expect("`check` left no contradiction, and taking ports away adds none")
    }

    fn spec(&self, with: impl Fn(&Port) -> bool) -> ProgramSpec {
        let ports = self.ports.values().filter(|port| with(port));
        ProgramSpec {
            version: self.version,
            networks: self.networks.clone(),
            localnets: self.localnets.clone(),
            ports: ports
                .filter_map(|port| port.spec.as_ref().ok())
                .map(|spec| (spec.number, spec.clone()))
                .collect(),
            underlay: self.underlay.clone(),
            host: self.host.clone(),
            policies: self.policies.clone(),
            services: self.services.clone(),
        }
    }

    fn network_result(&self, number: u32) -> api::NetworkResult {
        let error = self.network_faults.get(&NetworkNo(number)).cloned().unwrap_or_default();
        api::NetworkResult { number, error }
    }

    fn result(&self, number: u32) -> Option<api::PortResult> {
        let port = self.ports.get(&convert::port_no(number).ok()?)?;
        Some(api::PortResult { number, error: port.fault.clone().unwrap_or_default() })
    }
}

/// Leaves the part of a network out that `error` is about, which `take` takes.
fn drop_of_network(
    (networks, faults): (&mut BTreeMap<NetworkNo, NetworkSpec>, &mut BTreeMap<NetworkNo, String>),
    name: &str,
    error: &ProgramError,
    mut take: impl FnMut(&mut NetworkSpec) -> bool,
) -> bool {
    let mut blamed = networks.values_mut().filter(|network| network.name == name);
    let Some(network) = blamed.find_map(|network| take(network).then_some(network)) else { return false };
    tracing::warn!(network = network.name, %error, "the network forwards without it");
    faults.insert(network.number, error.to_string());
    true
}

/// Leaves a gateway what is behind it here.
fn forget_nodes(gateway: &mut GatewaySpec) {
    gateway.routes.retain(|route| !matches!(route.via, Via::Node(_)));
}

/// The names of the ports that `error` is about.
fn blamed(error: &ProgramError) -> Vec<&str> {
    match error {
        ProgramError::UnknownNetwork { port, .. }
        | ProgramError::Mtu { port, .. }
        | ProgramError::NotASource { port, .. }
        | ProgramError::UnknownPolicy { port }
        | ProgramError::NotAStation { port, .. } => vec![port],
        ProgramError::DuplicateStation { first, second, .. }
        | ProgramError::DuplicateAddress { first, second, .. } => vec![first, second],
        // Networks, not ports; and what is checked when it is put.
        ProgramError::Gateway { .. }
        | ProgramError::Dhcp { .. }
        | ProgramError::Overlap { .. }
        | ProgramError::Overlay { .. }
        | ProgramError::Node { .. }
        | ProgramError::Service { .. }
        | ProgramError::DuplicateFrontend { .. }
        | ProgramError::Identity { .. } => Vec::new(),
        ProgramError::Misfiled { object, .. } => vec![object],
    }
}

impl Port {
    /// The port `asked`, which takes the place of `old`.
    fn put(asked: &api::Port, old: Option<&Port>) -> Self {
        let open = old.is_some_and(|old| old.open && !differs(&old.asked, asked));
        let settled = open && old.is_some_and(|old| old.asked == *asked);
        Self { asked: asked.clone(), spec: convert::port(asked), fault: None, open, settled }
    }
}
