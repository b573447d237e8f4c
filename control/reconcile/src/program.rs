//! How does the switch come to forward by what is desired? The only bridge between control and the datapath.
//!
//! The switch holds a version; a change names the version it starts from. When that is not what the switch has (it
//! restarted, or another agent spoke to it), everything is sent. Sending everything is always right: what is as it should
//! be is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::{MacAddr, NetworkName, Subnet};
use vswitch::program::{
    DhcpSpec, GatewaySpec, NetworkNo, NetworkSpec, PortNo, PortSpec, Prefix, RouterNo, VlanId, VlanMode,
};

use crate::datapath::{Applied, Datapath, DatapathError, Device, Port, Take, Update, VhostUserRole};
use crate::desired::{Desired, Known};
use crate::host;
use crate::kernel::Ownership;
use crate::policies::{Policies, pod_name, pods};
use crate::record::Attachment;
use crate::services::Services;
use crate::underlay::{self, Reached};

/// What is known of the switch.
#[derive(Debug, Default)]
pub(crate) struct Programmer {
    // The version it has; 0: not known, everything is sent next.
    version: u64,
    instance: Option<String>,
    // Ports that failed when everything was sent.
    failed: BTreeSet<PortNo>,
    policies: Policies,
    services: Services,
    // Another process was sent everything, by whatever call found it first; told by the next `sync`.
    renewed: bool,
}

/// Why a port is not as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// The switch as a whole.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// This port alone.
    #[error("the switch cannot open port {port:?}: {reason}")]
    Port {
        /// The port's name.
        port: String,
        /// The switch's reason.
        reason: String,
    },
}

/// What a look at the switch found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Synced {
    /// It had the program.
    AsBefore,
    /// It was sent everything. `restarted`: it is not the process that had it at the last look.
    Sent { restarted: bool, failed: Vec<(PortNo, String)> },
}

impl Programmer {
    /// The process last spoken to, and the version it has.
    pub(crate) fn known(&self) -> (Option<&str>, u64) {
        (self.instance.as_deref(), self.version)
    }

    /// From the next call on, everything is sent.
    pub(crate) fn distrust(&mut self) {
        self.version = 0;
    }

    /// Ports that failed are tried again by the next [`Programmer::sync`].
    pub(crate) fn retry_failed(&mut self) {
        if !self.failed.is_empty() {
            self.distrust();
        }
    }

    /// Looks whether the switch has the program, and sends it everything if not.
    pub(crate) fn sync(
        &mut self,
        switch: &dyn Datapath,
        desired: impl FnOnce() -> Desired,
    ) -> Result<Synced, DatapathError> {
        let info = switch.info()?;
        let same = self.instance.as_ref() == Some(&info.instance);
        let current = same && self.version != 0 && self.version == info.program_version;
        if current && !self.renewed {
            return Ok(Synced::AsBefore);
        }
        let failed =
            if current { Vec::new() } else { self.send_all(switch, info.program_version, &desired())? };
        Ok(Synced::Sent { restarted: std::mem::take(&mut self.renewed), failed })
    }

    /// Puts one port that is desired already.
    pub(crate) fn put(
        &mut self,
        switch: &dyn Datapath,
        desired: impl FnOnce() -> Desired,
        port: Port,
    ) -> Result<(), ProgramError> {
        let PortSpec { number, name, .. } = port.spec.clone();
        let change = Update { put_ports: vec![port], ..Update::default() };
        self.change(switch, &desired(), change, (number, name))
    }

    /// Removes one port that is not desired any more.
    pub(crate) fn delete(
        &mut self,
        switch: &dyn Datapath,
        desired: impl FnOnce() -> Desired,
        (number, name): (PortNo, String),
    ) -> Result<(), ProgramError> {
        self.failed.remove(&number);
        let change = Update { delete_ports: vec![number], ..Update::default() };
        self.change(switch, &desired(), change, (number, name))
    }

    /// Sends a change of one port, or everything where the switch needs that; fails if that port fails.
    fn change(
        &mut self,
        switch: &dyn Datapath,
        desired: &Desired,
        mut change: Update,
        (number, name): (PortNo, String),
    ) -> Result<(), ProgramError> {
        let is_whole = self.version == 0 || !self.add_meaning(desired, &mut change);
        let failed = if is_whole {
            let info = switch.info()?;
            self.send_all(switch, info.program_version, desired)?
        } else {
            change.from_version = self.version;
            change.to_version = self.version + 1;
            // What becomes of it is unknown until the answer.
            let before = std::mem::take(&mut self.version);
            match switch.apply(&change)? {
                Applied::Done { instance, failed } => {
                    (self.version, self.instance) = (change.to_version, Some(instance));
                    self.failed.extend(failed.iter().map(|(port, _)| *port).filter(|port| *port != number));
                    failed
                }
                Applied::Resync => self.send_all(switch, before, desired)?,
            }
        };
        match failed.into_iter().find(|(failed, _)| *failed == number) {
            Some((_, reason)) => Err(ProgramError::Port { port: name, reason }),
            None => Ok(()),
        }
    }

    /// Adds to `change` what it means for policies and services, and the ports that have another policy by it. False if
    /// everything is to be sent.
    fn add_meaning(&mut self, desired: &Desired, change: &mut Update) -> bool {
        let pods = pods(desired);
        let services = self.services.follow(desired, &pods);
        let Some(policies) = self.policies.follow(desired, pods) else { return false };
        let named: BTreeSet<PortNo> = change
            .put_ports
            .iter()
            .map(|port| port.spec.number)
            .chain(change.delete_ports.iter().copied())
            .collect();
        let others =
            desired.plugged().filter(|it| pod_name(it).is_some_and(|pod| policies.pods.contains(&pod)));
        let others = others.filter_map(|it| port(it, desired.network(&it.network)?));
        change.put_ports.extend(others.filter(|port| !named.contains(&port.spec.number)));
        self.set_policies(&mut change.put_ports, desired);
        change.put_policies = policies.put;
        change.delete_policies = policies.delete;
        change.put_identities = policies.put_identities;
        change.delete_identities = policies.delete_identities;
        change.put_services = services.put;
        change.delete_services = services.delete;
        true
    }

    /// Gives each port the policy of its pod.
    fn set_policies(&self, ports: &mut [Port], desired: &Desired) {
        for port in ports {
            let attachment = desired.attachments().find(|it| it.port == Some(port.spec.number.0));
            let known = attachment.and_then(|it| Some((it, desired.network(&it.network)?)));
            port.spec.policy = known.and_then(|(attachment, known)| self.policies.of(attachment, known));
        }
    }

    fn send_all(
        &mut self,
        switch: &dyn Datapath,
        at_least: u64,
        desired: &Desired,
    ) -> Result<Vec<(PortNo, String)>, DatapathError> {
        let reached = desired.reached();
        let networks = desired.networks().map(|known| network(known, desired));
        let ports = desired
            .plugged()
            .filter_map(|attachment| port(attachment, desired.network(&attachment.network)?));
        let localnets: BTreeMap<_, _> = desired
            .networks()
            .filter(|_| reached.is_some())
            .filter_map(|known| Some((NetworkNo(known.number), underlay::localnet(known)?)))
            .collect();
        let vlans = localnets.values().map(|localnet| localnet.vlan.get()).collect();
        let own = reached.map(|reached| reached.uplink(vlans)).into_iter().chain(host::port(desired));
        let mut put_ports: Vec<_> = own.chain(ports).collect();
        let pods = pods(desired);
        self.services.follow(desired, &pods);
        self.policies.follow(desired, pods);
        self.set_policies(&mut put_ports, desired);
        let (put_policies, put_identities) = self.policies.all();
        let update = Update {
            to_version: at_least.max(self.version) + 1,
            put_networks: reached.map(|_| underlay::network()).into_iter().chain(networks).collect(),
            put_ports,
            underlay: reached.map(Reached::spec),
            localnets,
            host: host::spec(desired),
            put_policies,
            put_identities,
            put_services: self.services.all(),
            ..Update::default()
        };
        self.version = 0;
        match switch.apply(&update)? {
            Applied::Done { instance, failed } => {
                self.renewed |= self.instance.as_ref() != Some(&instance);
                (self.version, self.instance) = (update.to_version, Some(instance));
                self.failed = failed.iter().map(|(port, _)| *port).collect();
                Ok(failed)
            }
            Applied::Resync => {
                Err(DatapathError::Refused("it asks for everything after it was sent everything".to_owned()))
            }
        }
    }
}

pub(crate) fn network(known: &Known, desired: &Desired) -> NetworkSpec {
    let spec = known.network.spec();
    NetworkSpec {
        number: NetworkNo(known.number),
        name: spec.name.clone(),
        flood_unknown: spec.flood_unknown,
        mac_age_ms: u64::from(spec.mac_age_seconds) * 1000,
        mac_limit: spec.mac_limit,
        gateway: known.network.router().map(|router| gateway(known, router, desired)),
        dhcp: spec.dhcp.then(|| dhcp(known)),
        overlay: desired.reached().and_then(|_| underlay::overlay(known)),
    }
}

/// What hosts of the network are told that ask: what a CNI result says.
fn dhcp(known: &Known) -> DhcpSpec {
    let network = &known.network;
    let prefix = |net: &IpNet| Prefix { address: net.addr(), len: net.prefix_len() };
    let server = |subnet: &Subnet| {
        let address = subnet.gateway().filter(IpAddr::is_ipv4)?;
        Some(Prefix { address, len: subnet.net().prefix_len() })
    };
    let dns = &network.spec().dns;
    DhcpSpec {
        mac: station_mac(known),
        servers: network.subnets().iter().filter_map(server).collect(),
        routes: network.routes().iter().map(|(to, via)| (prefix(to), *via)).collect(),
        nameservers: dns.nameservers.clone(),
        domain: dns.domain.clone(),
        search: dns.search.clone(),
    }
}

/// The station by which the switch itself speaks in the network.
pub(crate) fn station_mac(known: &Known) -> MacAddr {
    known.network.spec().vni.map_or_else(|| gateway_mac(known.number), underlay::gateway_mac)
}

/// The number of the router of a network.
pub(crate) fn router_of(known: &Known, router: &NetworkName, desired: &Desired) -> u32 {
    // That of its first network: networks that join or leave seldom change it.
    let of_router = |known: &&Known| known.network.router() == Some(router);
    let first = desired.networks().filter(of_router).map(|known| known.number).min();
    first.unwrap_or(known.number)
}

/// The gateway of a network with a router.
fn gateway(known: &Known, router: &NetworkName, desired: &Desired) -> GatewaySpec {
    let prefix =
        |subnet: &Subnet| Some(Prefix { address: subnet.gateway()?, len: subnet.net().prefix_len() });
    let routes = desired.reached().into_iter().flat_map(|reached| reached.routes(&known.network));
    GatewaySpec {
        mac: station_mac(known),
        addresses: known.network.subnets().iter().filter_map(prefix).collect(),
        router: RouterNo(router_of(known, router, desired)),
        routes: routes.chain(host::routes_out(known, desired)).collect(),
    }
}

/// Locally administered, and apart from pods' addresses, whose second byte is another.
fn gateway_mac(network: u32) -> MacAddr {
    let [_, high, middle, low] = network.to_be_bytes();
    MacAddr([0x02, 0x4d, 0x52, high, middle, low])
}

/// The port of an attachment, if it has one.
pub(crate) fn port(attachment: &Attachment, known: &Known) -> Option<Port> {
    let spec = known.network.spec();
    Some(Port {
        spec: PortSpec {
            number: PortNo(attachment.port?),
            name: attachment.port_name(),
            network: NetworkNo(known.number),
            vlan: VlanMode::Access(spec.own_vlan().and_then(VlanId::new)),
            macs: vec![attachment.mac],
            ips: attachment.addresses.iter().map(|address| address.net.addr()).collect(),
            port_security: spec.port_security,
            mac_limit: spec.port_mac_limit,
            isolated: spec.isolated,
            mtu_bytes: attachment.mtu_bytes,
            policy: None,
        },
        device: device(attachment, known),
    })
}

fn device(attachment: &Attachment, known: &Known) -> Device {
    let queues = known.network.spec().queues;
    if let Some(representor) = attachment.representor() {
        return Device::Netdev { netdev: representor.name.clone(), take: Take::All };
    }
    if let Some(place) = &attachment.vdpa {
        return Device::Vduse { name: place.device.clone() };
    }
    match attachment.vhost.as_ref().and_then(|files| files.socket.clone()) {
        None => Device::Tap {
            netns: attachment.netns.clone(),
            netdev: attachment.id.interface.as_str().to_owned(),
            queues,
        },
        Some(socket) => {
            let asked = known.network.vhost_socket();
            let role = match asked.created_by {
                model::SocketCreator::Switch => {
                    VhostUserRole::Listen(Ownership { uid: asked.uid, gid: asked.gid, mode: asked.mode })
                }
                model::SocketCreator::Pod => VhostUserRole::Connect,
            };
            Device::VhostUser { socket, role, queues }
        }
    }
}
