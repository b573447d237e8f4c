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
use vswitch::Program;
use vswitch::program::{NetworkNo, NetworkSpec, PortNo, PortSpec, ProgramError, ProgramSpec};
use worker::{Datapath, Removal};

use super::convert;
use super::devices::{Devices, differs, is_same_object};

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
    /// Why networks forward without the gateway that they were asked to have.
    gateway_faults: BTreeMap<NetworkNo, String>,
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
        next.check();
        self.close(&asked, &mut next);
        self.open(&mut next);
        self.datapath.set_program(next.program());
        results.extend(request.put_ports.iter().filter_map(|port| next.result(port.number)));
        let networks =
            request.put_networks.iter().map(|network| next.network_result(network.number)).collect();
        let version = next.version;
        *asked = next;
        self.response(version, false, (results, networks))
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
        api::ApplyResponse { version, instance: self.instance.clone(), resync, ports, networks }
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
            self.gateway_faults.clear();
        }
        self.version = request.to_version;
        for number in &request.delete_networks {
            self.networks.remove(&NetworkNo(*number));
            self.gateway_faults.remove(&NetworkNo(*number));
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
        self.gateway_faults.remove(&number);
        match network.gateway.as_ref().map(convert::gateway).transpose() {
            Ok(gateway) => spec.gateway = gateway,
            Err(error) => drop(self.gateway_faults.insert(number, error)),
        }
        self.networks.insert(number, spec);
    }

    /// Leaves the gateway out that `error` is about, if it is about one.
    fn drop_gateway(&mut self, error: &ProgramError) -> bool {
        let (ProgramError::Gateway { network: blamed, .. } | ProgramError::Overlap { second: blamed, .. }) =
            error
        else {
            return false;
        };
        let is_blamed = |network: &&mut NetworkSpec| network.name == *blamed && network.gateway.is_some();
        let Some(network) = self.networks.values_mut().find(is_blamed) else { return false };
        network.gateway = None;
        tracing::warn!(network = network.name, %error, "the network forwards without its gateway");
        self.gateway_faults.insert(network.number, error.to_string());
        true
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
            if self.drop_gateway(&error) {
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
            ports: ports
                .filter_map(|port| port.spec.as_ref().ok())
                .map(|spec| (spec.number, spec.clone()))
                .collect(),
        }
    }

    fn network_result(&self, number: u32) -> api::NetworkResult {
        let error = self.gateway_faults.get(&NetworkNo(number)).cloned().unwrap_or_default();
        api::NetworkResult { number, error }
    }

    fn result(&self, number: u32) -> Option<api::PortResult> {
        let port = self.ports.get(&convert::port_no(number).ok()?)?;
        Some(api::PortResult { number, error: port.fault.clone().unwrap_or_default() })
    }
}

/// The names of the ports that `error` is about.
fn blamed(error: &ProgramError) -> Vec<&str> {
    match error {
        ProgramError::UnknownNetwork { port, .. }
        | ProgramError::Mtu { port, .. }
        | ProgramError::NotASource { port, .. }
        | ProgramError::NotAStation { port, .. } => vec![port],
        ProgramError::DuplicateStation { first, second, .. }
        | ProgramError::DuplicateAddress { first, second, .. } => vec![first, second],
        // Networks, not ports.
        ProgramError::Gateway { .. } | ProgramError::Overlap { .. } => Vec::new(),
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
