//! Does the packet arrive, and the answer? A switch in this process, with a port for each pod, and one for everybody else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::Protocol;
use vswitch::program::{NetworkNo, NetworkSpec, Policies, PortNo, PortSpec, ProgramSpec, VlanMode};
use wire::build::{self, Path};
use wire::tcp::{self, Flags};
use wire::{IpProtocol, MacAddr, sctp};

use crate::told::Told;
use crate::world::{Question, World};

/// The network of all pods.
pub(crate) const NETWORK: NetworkNo = NetworkNo(1);
/// Where everybody is who is no pod.
const OUTSIDE: PortNo = PortNo(1000);
/// The first port that clients begin from.
const FIRST_CLIENT_PORT: u16 = 1024;
/// Connections that are remembered, to be looked at again.
const MAX_CONNECTIONS: usize = 300;

/// A switch, and who is where.
#[derive(Debug)]
pub struct Bed {
    switch: sim::World,
    spec: ProgramSpec,
    /// By namespace and name.
    places: BTreeMap<(String, String), PortNo>,
    next_client_port: u16,
    connections: Vec<(Question, u16)>,
}

/// A packet of a connection: the client's port (or an echo's identifier), and whether it is the answer.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    question: &'a Question,
    client_port: u16,
}

impl Bed {
    /// A switch without ports.
    pub(crate) fn new() -> Self {
        Self {
            switch: sim::World::new(1),
            spec: ProgramSpec::default(),
            places: BTreeMap::new(),
            next_client_port: FIRST_CLIENT_PORT,
            connections: Vec::new(),
        }
    }

    /// Gives the switch the pods of a world, and what it was told of policies.
    pub(crate) fn program(&mut self, world: &World, told: &Told) {
        let network = NetworkSpec {
            number: NETWORK,
            name: "pods".into(),
            flood_unknown: false,
            mac_age_ms: 300_000,
            mac_limit: 0,
            gateway: None,
            dhcp: None,
            overlay: None,
        };
        let mut ports = vec![port(OUTSIDE, "outside")];
        for pod in world.pods.iter().filter(|pod| !pod.host_network) {
            let next = PortNo(self.places.len() as u16 + 1);
            let name = (pod.namespace.clone(), pod.name.clone());
            let number = *self.places.entry(name).or_insert(next);
            let policy = told.pods.get(&model::PodName::new(&pod.namespace, &pod.name)).copied();
            ports.push(PortSpec { policy, ..port(number, &format!("{}/{}", pod.namespace, pod.name)) });
        }
        self.spec = ProgramSpec {
            version: self.spec.version + 1,
            networks: [(NETWORK, network)].into(),
            ports: ports.into_iter().map(|port| (port.number, port)).collect(),
            policies: Policies::new(told.policies.values().cloned(), told.identities.values().cloned())
                .expect("what was told is of prefixes"),
            ..ProgramSpec::default()
        };
        self.switch.set_program(&self.spec).expect("what was told is a program");
    }

    /// Tries a connection that is new: whether the packet arrives. Its answer comes back then. `None`: neither is a pod.
    pub(crate) fn connects(&mut self, world: &World, question: &Question) -> Option<bool> {
        let client_port = self.client_port();
        let attempt = Attempt { question, client_port };
        let arrived = self.arrives(world, question.client, question.server, &attempt)?;
        if arrived {
            let answered = self.arrives(world, question.server, question.client, &attempt);
            assert_eq!(answered, Some(true), "the answer to {question} comes back");
        }
        let is_remembered = arrived && question.protocol == Some(Protocol::Udp) && question.port == 80;
        if is_remembered && self.connections.len() < MAX_CONNECTIONS {
            self.connections.push((*question, client_port));
        }
        Some(arrived)
    }

    /// [`crate::Trial::turns`].
    pub(crate) fn turns(&mut self, world: &World, question: &Question) -> Option<[bool; 3]> {
        let attempt = Attempt { question, client_port: self.client_port() };
        let (client, server) = (question.client, question.server);
        self.arrives(world, client, server, &attempt)?;
        let again = self.arrives(world, client, server, &attempt)?;
        let turned = self.arrives(world, server, client, &attempt)?;
        Some([again, turned, self.arrives(world, client, server, &attempt)?])
    }

    /// The port that the last client began from.
    pub(crate) fn last_client_port(&self) -> u16 {
        self.next_client_port
    }

    /// Connections that were made, with the clients' ports.
    pub(crate) fn connections(&self) -> Vec<(Question, u16)> {
        self.connections.clone()
    }

    /// Whether the client's next packet arrives. `None`: an end is gone.
    pub(crate) fn goes_on(&mut self, world: &World, question: &Question, client_port: u16) -> Option<bool> {
        if [question.client, question.server].iter().any(|end| world.pod_at(*end).is_none()) {
            return None;
        }
        self.arrives(world, question.client, question.server, &Attempt { question, client_port })
    }

    fn arrives(&mut self, world: &World, from: IpAddr, to: IpAddr, attempt: &Attempt<'_>) -> Option<bool> {
        let [source, destination] = [from, to].map(|address| self.place(world, address));
        if source == destination {
            return None;
        }
        let path = Path {
            source_mac: mac(source),
            destination_mac: mac(destination),
            source: from,
            destination: to,
        };
        let frame = attempt.frame(path, from == attempt.question.client);
        let outcome = self.switch.receive(source, &[frame]);
        assert!(outcome.is_balanced(), "{outcome:?}");
        Some(outcome.sent.keys().any(|(port, _)| *port == destination))
    }

    fn place(&self, world: &World, address: IpAddr) -> PortNo {
        let pod = world.pod_at(address).map(|pod| (pod.namespace.clone(), pod.name.clone()));
        pod.and_then(|name| self.places.get(&name)).copied().unwrap_or(OUTSIDE)
    }

    /// One that no connection had before; when there is none left, the switch begins anew.
    fn client_port(&mut self) -> u16 {
        if self.next_client_port == u16::MAX {
            self.switch = sim::World::new(1);
            self.switch.set_program(&self.spec).expect("it was a program before");
            self.next_client_port = FIRST_CLIENT_PORT;
            self.connections.clear();
        }
        self.next_client_port += 1;
        self.next_client_port
    }
}

impl Attempt<'_> {
    /// The first packet, or the answer to it.
    fn frame(&self, path: Path, is_first: bool) -> Vec<u8> {
        let (client, server) = (self.client_port, self.question.port);
        let ports = if is_first { (client, server) } else { (server, client) };
        match self.question.protocol {
            Some(Protocol::Tcp) => build::tcp(path, &segment(ports, is_first), b""),
            Some(Protocol::Udp) => build::udp(path, ports, b"?"),
            Some(Protocol::Sctp) => association(path, ports, is_first),
            None if is_first => build::echo_request(path, client, 1, b"?"),
            None => build::echo_reply(path, client, 1, b"?"),
        }
    }
}

/// SYN, or SYN and ACK.
fn segment(ports: (u16, u16), is_first: bool) -> tcp::Repr<'static> {
    tcp::Repr {
        source_port: ports.0,
        destination_port: ports.1,
        sequence: if is_first { 1000 } else { 5000 },
        acknowledgement: if is_first { 0 } else { 1001 },
        flags: if is_first { Flags::SYN } else { Flags::SYN.with(Flags::ACK) },
        window: 1000,
        urgent: 0,
        options: &[],
    }
}

/// INIT with tag 0, or INIT ACK with the tag that the INIT asks for (RFC 9260 §3.3.2, §3.3.3, §8.5.1).
fn association(path: Path, ports: (u16, u16), is_first: bool) -> Vec<u8> {
    let kind = if is_first { 1 } else { 2 };
    let wanted = 1;
    let chunk = [kind, 0, 0, 20, 0, 0, 0, wanted, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    let mut packet = vec![0; sctp::HEADER_BYTES];
    let tag = if is_first { 0 } else { u32::from(wanted) };
    sctp::Repr { source_port: ports.0, destination_port: ports.1, tag }.emit(&mut packet);
    packet.extend_from_slice(&chunk);
    sctp::fill_checksum(&mut packet);
    build::ip(path, IpProtocol::SCTP, &packet)
}

fn port(number: PortNo, name: &str) -> PortSpec {
    PortSpec {
        number,
        name: name.to_owned(),
        network: NETWORK,
        vlan: VlanMode::Access(None),
        macs: vec![mac(number)],
        ips: Vec::new(),
        port_security: false,
        mac_limit: 0,
        isolated: false,
        mtu_bytes: 1500,
        policy: None,
    }
}

fn mac(port: PortNo) -> MacAddr {
    let [high, low] = port.0.to_be_bytes();
    MacAddr([2, 0, 0, 0, high, low])
}
