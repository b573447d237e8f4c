//! What is to be? The index of networks and attachments: plain data, no I/O, the same answer to the same question.
//!
//! Leases are not kept apart: an address, MAC or port number is taken while an attachment has it. So none can leak.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use model::{
    AttachmentId, DeviceDriver, DeviceRequest, Dns, Gateway, KindChoice, MacAddr, Network, NetworkName,
    Networks, Objects, PciAddress, PodRef, PortKind, Subnet, VfConfig,
};

use crate::choice::{self, Chosen};
use crate::ipam::next_free;
use crate::kernel::{NextHop, Route};
use crate::record::{Address, Attachment, CardDevice, Delegation, State, VdpaPlace, VhostFiles};
use crate::store::{Op, Snapshot, StoredNetwork};
use crate::underlay::Reached;

/// An interface that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRequest {
    /// Whose and which interface.
    pub id: AttachmentId,
    /// The name of the CNI configuration.
    pub config: NetworkName,
    /// The network.
    pub network: NetworkName,
    /// The kind of interface; none: as the network says.
    pub kind: Option<KindChoice>,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// The pod, where the runtime says it.
    pub pod: Option<PodRef>,
    /// The device of a card that the runtime gives the pod.
    pub device: Option<DeviceRequest>,
    /// The station address asked for.
    pub mac: Option<MacAddr>,
    /// The addresses asked for, each with its prefix length where it was given. A family that nothing is asked of is served
    /// from the network's subnets.
    pub addresses: Vec<(IpAddr, Option<u8>)>,
    /// Name resolution instead of the network's.
    pub dns: Option<Dns>,
    /// Where the runtime wants the device-info of an interface that has one.
    pub device_info_file: Option<PathBuf>,
    /// The IPAM plugin to ask instead; then `addresses` is that plugin's to read.
    pub delegation: Option<Delegation>,
}

/// Why an attachment cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// The network is not defined.
    #[error("network {name:?} is not defined: the agent's networks file has {known}")]
    UnknownNetwork {
        /// The name asked for.
        name: NetworkName,
        /// The names there are, or `none`.
        known: String,
    },
    /// The address is another's.
    #[error("address {address} is taken by {by}: ask for another one, or remove that one first")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Who has it.
        by: AttachmentId,
    },
    /// The address is not for pods.
    #[error(
        "address {address} is not for pods of network {network:?}: choose a host of {subnets} that is no gateway and not excluded"
    )]
    AddressNotAllowed {
        /// The address.
        address: IpAddr,
        /// The network.
        network: NetworkName,
        /// Its subnets.
        subnets: String,
    },
    /// The prefix length is not the subnet's.
    #[error("address {address}/{prefix} does not fit its subnet {subnet}: write /{expected}, or no prefix length", expected = .subnet.prefix_len())]
    WrongPrefix {
        /// The address.
        address: IpAddr,
        /// The prefix length asked for.
        prefix: u8,
        /// The subnet.
        subnet: IpNet,
    },
    /// The network has no subnets to take the prefix length from.
    #[error(
        "address {address} needs a prefix length, as in {address}/24: network {network:?} has no subnets"
    )]
    NoPrefix {
        /// The address.
        address: IpAddr,
        /// The network.
        network: NetworkName,
    },
    /// No address is left.
    #[error("network {network:?} has no address left in {subnets}: remove pods, or add a range or subnet")]
    Exhausted {
        /// The network.
        network: NetworkName,
        /// The subnets of the family.
        subnets: String,
    },
    /// No station may have the MAC.
    #[error("{0} is no station's address: choose a unicast address, as in 02:00:00:00:00:01")]
    NotAStation(MacAddr),
    /// The MAC is another's.
    #[error("station address {mac} is taken by {by} of the same network: ask for another one")]
    MacTaken {
        /// The MAC.
        mac: MacAddr,
        /// Who has it.
        by: AttachmentId,
    },
    /// The node cannot give this kind.
    #[error("port kind {kind} is not to be had on this node: {reason}; or ask for kind auto")]
    KindNotHere {
        /// The kind asked for.
        kind: PortKind,
        /// Why, with the remedy.
        reason: String,
    },
    /// The kind has one queue pair.
    #[error(
        "a port of kind {kind} has one queue pair, network {network:?} asks for {queues}: ask for another portKind, or set queues to 1"
    )]
    QueuesOfKind {
        /// The kind asked for.
        kind: PortKind,
        /// The network.
        network: String,
        /// The queue pairs it asks for.
        queues: u32,
    },
    /// Another pod has the device.
    #[error(
        "PCI function {function} is the device of {by}: delete that pod first, or ask for another device"
    )]
    DeviceTaken {
        /// The function.
        function: PciAddress,
        /// The other one's interface, by pod where that is known.
        by: String,
    },
    /// The kind is a device's, and none is asked for.
    #[error(
        "port kind {0} needs a deviceID: let the runtime pass one (annotation k8s.v1.cni.cncf.io/resourceName of the \
         NetworkAttachmentDefinition, and capability deviceID), or set it in the CNI configuration"
    )]
    NoDevice(PortKind),
    /// The kind is none of devices of cards.
    #[error(
        "deviceID {function} has no use with port kind {kind}: set portKind to sriov or vdpa, or take the pod's device away"
    )]
    DeviceOfKind {
        /// The kind asked for.
        kind: PortKind,
        /// The device asked for.
        function: PciAddress,
    },
    /// The driver is for another kind.
    #[error("driver {driver} is for port kind {}, not for {kind}: ask for that one, or leave the driver out", .driver.kind())]
    DriverOfKind {
        /// The kind asked for.
        kind: PortKind,
        /// The driver asked for.
        driver: DeviceDriver,
    },
    /// The network asks for what nobody but the switch does.
    #[error(
        "network {network:?} has {field}, which is the switch's to do, and a device of port kind {kind} passes the switch by: \
         give such devices a network without {field}, or put the card into switchdev mode"
    )]
    PassesSwitch {
        /// The kind asked for.
        kind: PortKind,
        /// The network.
        network: String,
        /// The field.
        field: &'static str,
    },
    /// All port numbers are taken.
    #[error("the switch has no port number left: remove pods")]
    NoPort,
    /// Longer than a unix socket's path may be.
    #[error(
        "the socket path {0} is longer than {MAX_SOCKET_PATH} bytes: start the agent with a shorter --run-dir"
    )]
    SocketPath(PathBuf),
}

/// `sun_path` has 108 bytes, the last one a zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// A network that has a number.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its number in the switch.
    pub number: u32,
    /// As it was last defined.
    pub network: Arc<Network>,
    /// Whether the networks file still defines it. If not, it stays until its last attachment goes.
    pub defined: bool,
    /// The number of the port that stands for other nodes, if it is on several.
    pub overlay_port: Option<u16>,
}

/// The index.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    attachments: BTreeMap<AttachmentId, Attachment>,
    // Attachments whose port is to be in the switch.
    plugged: BTreeSet<AttachmentId>,
    networks: BTreeMap<NetworkName, Known>,
    cursors: BTreeMap<String, IpAddr>,
    port_cursor: u16,
    // Of the uplink, once there was one.
    uplink_port: Option<u16>,
    // Of the node itself, likewise.
    host_port: Option<u16>,
    gateways: BTreeMap<NetworkName, Gateway>,
    reached: Option<Reached>,
    objects: Arc<Objects>,
}

impl Desired {
    /// The index of what was stored. No network counts as defined before the networks file was read.
    ///
    /// # Errors
    /// A stored network is not legal: its text.
    pub fn load(snapshot: Snapshot) -> Result<Self, String> {
        let mut desired =
            Self { cursors: snapshot.cursors, port_cursor: snapshot.port_cursor, ..Self::default() };
        (desired.uplink_port, desired.host_port) = (snapshot.uplink_port, snapshot.host_port);
        for stored in snapshot.networks {
            let network = Network::new(&stored.spec).map_err(|error| error.to_string())?;
            let (number, overlay_port) = (stored.number, stored.overlay_port);
            let known = Known { number, network: Arc::new(network), defined: false, overlay_port };
            desired.networks.insert(known.network.name().clone(), known);
        }
        for attachment in snapshot.attachments {
            if attachment.state == State::Ready && attachment.port.is_some() {
                desired.plugged.insert(attachment.id.clone());
            }
            desired.attachments.insert(attachment.id.clone(), attachment);
        }
        Ok(desired)
    }

    /// All attachments, by container and interface.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    /// The attachments whose port is to be in the switch.
    pub fn plugged(&self) -> impl Iterator<Item = &Attachment> {
        self.plugged.iter().filter_map(|id| self.attachments.get(id))
    }

    /// One attachment.
    pub fn get(&self, id: &AttachmentId) -> Option<&Attachment> {
        self.attachments.get(id)
    }

    /// All networks that have a number.
    pub fn networks(&self) -> impl Iterator<Item = &Known> {
        self.networks.values()
    }

    /// One network.
    pub fn network(&self, name: &NetworkName) -> Option<&Known> {
        self.networks.get(name)
    }

    /// The addresses of a network that attachments have.
    pub fn leases<'a>(
        &'a self,
        network: &'a NetworkName,
    ) -> impl Iterator<Item = (IpAddr, &'a AttachmentId)> {
        let in_network = self.attachments().filter(move |attachment| attachment.network == *network);
        in_network.flat_map(|attachment| {
            attachment.addresses.iter().map(|address| (address.net.addr(), &attachment.id))
        })
    }

    /// The store's change that makes `networks` the defined ones.
    pub fn plan_networks(&self, networks: &Networks) -> Vec<Op> {
        let mut next_number =
            self.networks.values().map(|known| known.number).max().map_or(1, |number| number + 1);
        let mut ops = Vec::new();
        let mut ports = self.free_ports();
        for network in networks.iter() {
            let number = match self.networks.get(network.name()) {
                Some(known) if known.network == *network => continue,
                Some(known) => known.number,
                None => {
                    next_number += 1;
                    next_number - 1
                }
            };
            let known = self.networks.get(network.name()).and_then(|known| known.overlay_port);
            let is_local = network.spec().topology.is_local();
            let overlay_port = if is_local { None } else { known.or_else(|| ports.next()) };
            let spec = network.spec().clone();
            ops.push(Op::PutNetwork(Box::new(StoredNetwork { number, spec, overlay_port })));
        }
        if networks.underlay().is_some() && self.uplink_port.is_none() {
            ops.extend(ports.next().map(Op::UplinkPort));
        }
        if networks.iter().any(|network| network.spec().host) && self.host_port.is_none() {
            ops.extend(ports.next().map(Op::HostPort));
        }
        let gone = |name: &&NetworkName| networks.get(name).is_none() && !self.in_use(name, None);
        ops.extend(self.networks.keys().filter(gone).cloned().map(Op::DeleteNetwork));
        ops
    }

    /// Takes over what [`Desired::plan_networks`] planned, once it is stored.
    pub fn define(&mut self, networks: &Networks, ops: &[Op]) {
        self.take_over(ops);
        for known in self.networks.values_mut() {
            let defined = networks.get(known.network.name());
            known.defined = defined.is_some();
            if let Some(network) = defined {
                known.network = Arc::clone(network);
            }
        }
        self.objects = Arc::clone(networks.objects());
        self.gateways = networks.gateways().clone();
        let next_hops = self.reached.take().map(|reached| reached.next_hops).unwrap_or_default();
        if let (Some(nodes), Some(port)) = (networks.underlay().cloned(), self.uplink_port) {
            self.reached = Some(Reached { nodes, port, next_hops });
        }
    }

    /// The port number of the node itself, once it was on a network.
    pub(crate) fn host_port(&self) -> Option<u16> {
        self.host_port
    }

    /// How packets leave, by router.
    pub(crate) fn gateways(&self) -> &BTreeMap<NetworkName, Gateway> {
        &self.gateways
    }

    /// What policies and services are made of.
    pub(crate) fn objects(&self) -> &Arc<Objects> {
        &self.objects
    }

    /// The node among the others, if it is one of several.
    pub(crate) fn reached(&self) -> Option<&Reached> {
        self.reached.as_ref()
    }

    /// Takes over the ways to the other nodes; true if that changes anything.
    pub(crate) fn reach(&mut self, next_hops: BTreeMap<u16, NextHop>) -> bool {
        let Some(reached) = self.reached.as_mut().filter(|reached| reached.next_hops != next_hops) else {
            return false;
        };
        reached.next_hops = next_hops;
        true
    }

    /// The network that a pod can be attached to.
    ///
    /// # Errors
    /// It is not defined.
    pub fn defined(&self, name: &NetworkName) -> Result<&Arc<Network>, ReserveError> {
        let known = self.networks.get(name).filter(|known| known.defined);
        known.map(|known| &known.network).ok_or_else(|| self.unknown(name))
    }

    /// The attachment that a request leads to, and the store's change for it.
    ///
    /// # Errors
    /// It cannot be: by reason.
    pub fn reserve(
        &self,
        request: &AddRequest,
        chosen: &Chosen,
        places: &Places,
    ) -> Result<(Attachment, Vec<Op>), ReserveError> {
        let network = self.defined(&request.network)?;
        let mut ops = Vec::new();
        let addresses = match request.delegation {
            None => self.lease(request, network, &mut ops)?,
            Some(_) => Vec::new(),
        };
        let kind = chosen.kind;
        let card = request.device.as_ref().map(|device| self.claim(request, device)).transpose()?;
        let port = match card {
            None => Some(self.next_port().ok_or(ReserveError::NoPort)?),
            Some(_) => None,
        };
        ops.extend(port.map(Op::PortCursor));
        let mtu = request.device.as_ref().and_then(|device| device.mtu).unwrap_or(network.mtu());
        let attachment = Attachment {
            id: request.id.clone(),
            config: request.config.clone(),
            network: request.network.clone(),
            kind,
            kind_reason: chosen.reason.clone(),
            netns: request.netns.clone(),
            pod: request.pod.clone(),
            port,
            mac: self.station(request)?,
            mtu_bytes: mtu.get(),
            routes: usable_routes(network, &addresses),
            addresses,
            dns: request.dns.clone().unwrap_or_else(|| network.spec().dns.clone()),
            vhost: kind.is_for_programs().then(|| self.place(request, kind, places)).transpose()?,
            vdpa: port.filter(|_| kind.is_vduse()).map(|port| device_name(request, port)).map(VdpaPlace::new),
            card,
            delegation: request.delegation.clone(),
            state: State::Reserved,
        };
        ops.push(Op::PutAttachment(Box::new(attachment.clone())));
        Ok((attachment, ops))
    }

    /// The store's change that forgets an attachment, and its network if nothing else holds that.
    pub fn plan_forget(&self, id: &AttachmentId) -> Vec<Op> {
        let mut ops = vec![Op::DeleteAttachment(id.clone())];
        if let Some(attachment) = self.attachments.get(id) {
            let known = self.networks.get(&attachment.network);
            if known.is_some_and(|known| !known.defined) && !self.in_use(&attachment.network, Some(id)) {
                ops.push(Op::DeleteNetwork(attachment.network.clone()));
            }
        }
        ops
    }

    /// Takes over a change, once it is stored.
    pub fn take_over(&mut self, ops: &[Op]) {
        for op in ops.iter().cloned() {
            match op {
                Op::PutAttachment(attachment) => {
                    if attachment.state == State::Deleting {
                        self.plugged.remove(&attachment.id);
                    }
                    self.attachments.insert(attachment.id.clone(), *attachment);
                }
                Op::DeleteAttachment(id) => {
                    self.plugged.remove(&id);
                    self.attachments.remove(&id);
                }
                Op::PutNetwork(stored) => self.put_network(&stored),
                Op::DeleteNetwork(name) => drop(self.networks.remove(&name)),
                Op::Cursor(key, address) => drop(self.cursors.insert(key, address)),
                Op::PortCursor(port) => self.port_cursor = port,
                Op::UplinkPort(port) => self.uplink_port = Some(port),
                Op::HostPort(port) => self.host_port = Some(port),
            }
        }
    }

    /// From now on the attachment's port is to be in the switch.
    pub fn plug(&mut self, id: &AttachmentId) {
        self.plugged.insert(id.clone());
    }

    /// From now on the attachment's port is not to be in the switch.
    pub fn unplug(&mut self, id: &AttachmentId) {
        self.plugged.remove(id);
    }

    /// True if another attachment than `id` has its socket or its volume's mount in the directory.
    pub fn shares_directory(&self, id: &AttachmentId, dir: &Path) -> bool {
        let there = |attachment: &Attachment| attachment.vhost.as_ref().is_some_and(|files| files.dir == dir);
        self.attachments().any(|attachment| attachment.id != *id && there(attachment))
    }

    /// True if another attachment has an interface of that name in a namespace of that path: the path was used again, and
    /// what is there now is the other's.
    pub fn inherited(&self, attachment: &Attachment) -> bool {
        self.attachments().any(|other| {
            other.id != attachment.id
                && other.id.interface == attachment.id.interface
                && other.netns == attachment.netns
        })
    }

    fn put_network(&mut self, stored: &StoredNetwork) {
        // Only specs of networks that were checked are planned.
        if let Ok(network) = Network::new(&stored.spec) {
            let (number, overlay_port) = (stored.number, stored.overlay_port);
            let known = Known { number, network: Arc::new(network), defined: true, overlay_port };
            self.networks.insert(known.network.name().clone(), known);
        }
    }

    fn in_use(&self, network: &NetworkName, but: Option<&AttachmentId>) -> bool {
        self.attachments().any(|attachment| attachment.network == *network && Some(&attachment.id) != but)
    }

    fn unknown(&self, name: &NetworkName) -> ReserveError {
        let known: Vec<_> = self
            .networks
            .values()
            .filter(|known| known.defined)
            .map(|known| known.network.name().as_str())
            .collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        ReserveError::UnknownNetwork { name: name.clone(), known }
    }

    fn lease(
        &self,
        request: &AddRequest,
        network: &Network,
        ops: &mut Vec<Op>,
    ) -> Result<Vec<Address>, ReserveError> {
        let mut leased = Vec::new();
        for (address, prefix) in &request.addresses {
            leased.push(self.lease_asked(network, *address, *prefix)?);
        }
        let used: HashSet<IpAddr> = self.leases(network.name()).map(|(address, _)| address).collect();
        for ipv4 in [true, false] {
            let of_family = |address: IpAddr| address.is_ipv4() == ipv4;
            let subnets: Vec<_> =
                network.subnets().iter().filter(|subnet| of_family(subnet.net().addr())).collect();
            if subnets.is_empty() || leased.iter().any(|address| of_family(address.net.addr())) {
                continue;
            }
            let next = |subnet: &&Subnet| {
                let cursor = self.cursors.get(&cursor_key(network.name(), subnet)).copied();
                next_free(subnet, cursor, |address| used.contains(&address))
                    .map(|address| (address, (*subnet).clone()))
            };
            let (address, subnet) = subnets.iter().find_map(next).ok_or_else(|| ReserveError::Exhausted {
                network: network.name().clone(),
                subnets: list(subnets.iter().copied()),
            })?;
            ops.push(Op::Cursor(cursor_key(network.name(), &subnet), address));
            leased.push(in_subnet(address, &subnet));
        }
        Ok(leased)
    }

    fn lease_asked(
        &self,
        network: &Network,
        address: IpAddr,
        prefix: Option<u8>,
    ) -> Result<Address, ReserveError> {
        if let Some((_, by)) = self.leases(network.name()).find(|(taken, _)| *taken == address) {
            return Err(ReserveError::AddressTaken { address, by: by.clone() });
        }
        if network.subnets().is_empty() {
            let net = prefix.and_then(|prefix| IpNet::new(address, prefix).ok());
            let net =
                net.ok_or_else(|| ReserveError::NoPrefix { address, network: network.name().clone() })?;
            return Ok(Address { net, gateway: None });
        }
        let subnet = network.subnets().iter().find(|subnet| subnet.allows(address)).ok_or_else(|| {
            let subnets = list(network.subnets());
            ReserveError::AddressNotAllowed { address, network: network.name().clone(), subnets }
        })?;
        match prefix {
            Some(prefix) if prefix != subnet.net().prefix_len() => {
                Err(ReserveError::WrongPrefix { address, prefix, subnet: subnet.net() })
            }
            _ => Ok(in_subnet(address, subnet)),
        }
    }

    /// The store's change for an attachment whose device of a card was looked at. It has a port if that has a representor.
    ///
    /// # Errors
    /// The station address that the device brought is another's; the network asks for what the device cannot have; no port
    /// number is left.
    pub fn settle(&self, attachment: &mut Attachment) -> Result<Vec<Op>, ReserveError> {
        self.free_station(attachment.mac, &attachment.network, &attachment.id)?;
        if let Some(known) = self.network(&attachment.network) {
            choice::require_network(attachment, known.network.spec())?;
        }
        if attachment.representor().is_some() {
            attachment.port = Some(self.next_port().ok_or(ReserveError::NoPort)?);
        }
        let cursor = attachment.port.map(Op::PortCursor);
        Ok(cursor.into_iter().chain([Op::PutAttachment(Box::new(attachment.clone()))]).collect())
    }

    fn free_station(
        &self,
        mac: MacAddr,
        network: &NetworkName,
        id: &AttachmentId,
    ) -> Result<(), ReserveError> {
        let same = |other: &&Attachment| other.network == *network && other.mac == mac && other.id != *id;
        match self.attachments().find(same) {
            Some(other) => Err(ReserveError::MacTaken { mac, by: other.id.clone() }),
            None => Ok(()),
        }
    }

    /// The device of a card, if no other attachment has it.
    fn claim(&self, request: &AddRequest, device: &DeviceRequest) -> Result<CardDevice, ReserveError> {
        let function = device.function;
        let has = |other: &&Attachment| other.card.as_ref().is_some_and(|card| card.function == function);
        if let Some(other) = self.attachments().find(has) {
            return Err(ReserveError::DeviceTaken { function, by: other.port_name() });
        }
        Ok(CardDevice {
            function,
            driver: device.driver,
            settings: VfConfig { mac: request.mac, ..device.settings.clone() },
            group: None,
            device_info: request.device_info_file.clone(),
            before: None,
        })
    }

    fn station(&self, request: &AddRequest) -> Result<MacAddr, ReserveError> {
        if let Some(mac) = request.mac {
            if !mac.is_unicast() {
                return Err(ReserveError::NotAStation(mac));
            }
            return self.free_station(mac, &request.network, &request.id).map(|()| mac);
        }
        let used: HashSet<MacAddr> = self.attachments().map(|attachment| attachment.mac).collect();
        // Ends: there are more attempts than attachments can be.
        let mut attempt = 0;
        loop {
            let mac = model::station_address(&request.id, attempt);
            if !used.contains(&mac) {
                return Ok(mac);
            }
            attempt += 1;
        }
    }

    /// Port 0 is never used: it is what an unset number looks like.
    fn next_port(&self) -> Option<u16> {
        self.free_ports().next()
    }

    fn free_ports(&self) -> impl Iterator<Item = u16> + use<> {
        let overlays = self.networks.values().filter_map(|known| known.overlay_port);
        let used: HashSet<u16> = self
            .attachments()
            .filter_map(|attachment| attachment.port)
            .chain(overlays)
            .chain(self.uplink_port)
            .chain(self.host_port)
            .collect();
        let behind = self.port_cursor.saturating_add(1)..u16::MAX;
        let all = behind.chain(1..=self.port_cursor.min(u16::MAX - 1));
        all.filter(move |port| *port != 0 && !used.contains(port))
    }

    fn place(
        &self,
        request: &AddRequest,
        kind: PortKind,
        places: &Places,
    ) -> Result<VhostFiles, ReserveError> {
        let dir = places.vhost_dir.join(self.directory_name(request));
        let interface = &request.id.interface;
        let socket = (kind == PortKind::VhostUser).then(|| dir.join(interface.as_str()));
        if let Some(socket) = socket.as_ref().filter(|socket| socket.as_os_str().len() > MAX_SOCKET_PATH) {
            return Err(ReserveError::SocketPath(socket.clone()));
        }
        let beside = dir.join(format!("{interface}-device.json"));
        Ok(VhostFiles {
            volume: places.volume.clone(),
            kuryr: socket.as_ref().map(|_| dir.join(format!("{}-{interface}", request.id.container))),
            device_info: std::iter::once(beside).chain(request.device_info_file.clone()).collect(),
            socket,
            dir,
        })
    }

    /// The container's first 12 characters, as is the custom; with a number where two containers share them.
    fn directory_name(&self, request: &AddRequest) -> String {
        let container = &request.id.container;
        let short = container.short();
        let directory_of = |attachment: &Attachment| {
            let name = attachment.vhost.as_ref()?.dir.file_name()?.to_str()?;
            Some((name.to_owned(), attachment.id.container.clone()))
        };
        let taken: BTreeMap<_, _> = self.attachments().filter_map(directory_of).collect();
        let free = |name: &String| taken.get(name).is_none_or(|owner| owner == container);
        let numbered = (2u32..).map(|number| format!("{short}-{number}"));
        // Ends: there are more numbers than attachments.
        std::iter::once(short.to_owned()).chain(numbered).find(free).unwrap_or_else(|| short.to_owned())
    }
}

/// Where the files of an interface for programs go.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The directory of all containers' directories.
    pub vhost_dir: PathBuf,
    /// The pod's volume, if it has one.
    pub volume: Option<PathBuf>,
}

/// The name of an attachment's vDPA device. The port's number makes it unique on this node's agent, the container tells it
/// from those of other agents on the same kernel.
fn device_name(request: &AddRequest, port: u16) -> String {
    format!("mr-{}-{port}", request.id.container.short())
}

fn cursor_key(network: &NetworkName, subnet: &Subnet) -> String {
    format!("{network} {}", subnet.net())
}

fn in_subnet(address: IpAddr, subnet: &Subnet) -> Address {
    let net = IpNet::new(address, subnet.net().prefix_len()).unwrap_or_else(|_| address.into());
    Address { net, gateway: subnet.gateway() }
}

fn list<'a>(subnets: impl IntoIterator<Item = &'a Subnet>) -> String {
    subnets.into_iter().map(|subnet| subnet.net().to_string()).collect::<Vec<_>>().join(", ")
}

/// The network's routes of the families that the pod has an address of.
fn usable_routes(network: &Network, addresses: &[Address]) -> Vec<Route> {
    let usable =
        |gateway: IpAddr| addresses.iter().any(|address| address.net.addr().is_ipv4() == gateway.is_ipv4());
    let routes = network.routes().iter().filter(|(_, gateway)| usable(*gateway));
    routes
        .map(|(destination, gateway)| Route { destination: *destination, gateway: Some(*gateway) })
        .collect()
}
