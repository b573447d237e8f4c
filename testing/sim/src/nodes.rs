//! Do two switches, joined by their uplinks, do what two naive ones do that are joined by a wire for each network?
//!
//! A network that is on both nodes has, for a switch, an overlay; for the reference it is a port like any other, and what
//! that sends comes in at the other node's. What crosses must be the same, and so must what becomes of it there.

use std::net::IpAddr;

use vswitch::Egress;
use vswitch::program::{
    NetworkNo, NetworkSpec, NodeNo, NodeSpec, OverlaySpec, PortNo, PortSpec, ProgramSpec, UnderlaySpec,
    VlanMode, Vni,
};
use wire::MacAddr;

use crate::message::Message;
use crate::reference::Reference;
use crate::step::Step;
use crate::world::{Outcome, World};

/// The port to the other node, and the network that it is in alone.
const UPLINK: PortNo = PortNo(90);
const UPLINKS: NetworkNo = NetworkNo(90);
/// What stands for the other node in network N has this number and N more; so has its VNI.
const ELSEWHERE: u16 = 100;
/// Bytes in front of a frame in a tunnel over IPv4: Ethernet, IP, UDP, Geneve.
const OUTER_BYTES: usize = 14 + 20 + 8 + 8;
/// Of ports that take everything.
const MAX_MTU_BYTES: u32 = 65_535;

/// Two nodes, and what they should be.
#[derive(Debug)]
pub struct Nodes([Node; 2]);

#[derive(Debug)]
struct Node {
    world: World,
    reference: Reference,
    spec: ProgramSpec,
}

impl Nodes {
    /// Two nodes with so many workers each, without networks.
    pub fn new(workers: usize) -> Self {
        let node = |own: u16| Node {
            world: World::new(workers),
            reference: Reference::default(),
            spec: ProgramSpec {
                networks: [(UPLINKS, network(UPLINKS))].into(),
                ports: [(UPLINK, port(UPLINK, UPLINKS))].into(),
                underlay: Some(underlay(own)),
                ..ProgramSpec::default()
            },
        };
        Self([node(0), node(1)])
    }

    /// Takes a step: what is about a port on node `at`, all others on both.
    ///
    /// # Errors
    /// What the switches did that the references did not.
    pub fn step(&mut self, at: usize, step: &Step) -> Result<(), String> {
        match step {
            Step::Frames(port, messages) => self.frames(at, *port, messages)?,
            Step::PutPort(_) | Step::DeletePort(_) => self.0[at].change(step)?,
            Step::PutNetwork(_) | Step::DeleteNetwork(_) => {
                self.0.iter_mut().try_for_each(|node| node.change(step))?;
            }
            Step::Pass(ms) => {
                for node in &mut self.0 {
                    node.world.pass(*ms);
                    node.reference.pass(*ms);
                }
            }
        }
        self.0.iter().enumerate().try_for_each(|(at, node)| {
            same(&format!("stations of node {at}"), &node.world.stations(), &node.reference.stations())
        })
    }

    /// Frames come in by a port of node `at`; those that cross go on at the other.
    fn frames(&mut self, at: usize, port: PortNo, messages: &[Message]) -> Result<(), String> {
        let crossing = self.0[at].receive(port, messages)?;
        let other = &mut self.0[1 - at];
        for Crossing { frame, port, message } in crossing {
            let (world, reference) = (&mut other.world, &mut other.reference);
            let outcome = world.receive(UPLINK, std::slice::from_ref(&frame));
            if !outcome.is_balanced() {
                return Err(format!("{message:?} from the other node: {outcome:?}"));
            }
            let expected = reference.receive(port, &message);
            same(&format!("{message:?} from the other node"), &outcome, &expected)?;
        }
        Ok(())
    }
}

/// A frame on its way to the other node.
struct Crossing {
    /// In its tunnel.
    frame: Vec<u8>,
    /// The port that stands for this node there.
    port: PortNo,
    /// What it is there.
    message: Message,
}

impl Node {
    fn change(&mut self, step: &Step) -> Result<(), String> {
        if !step.apply(&mut self.spec) {
            return Ok(());
        }
        let mut spec = self.spec.clone();
        let joined = spec.networks.values_mut().filter(|network| network.number != UPLINKS);
        joined.for_each(|network| network.overlay = overlay(network.number));
        self.world.set_program(&spec).map_err(|error| error.to_string())?;
        self.reference.set_program(&wired(&self.spec));
        Ok(())
    }

    /// What crosses to the other node of frames that come in here.
    fn receive(&mut self, port: PortNo, messages: &[Message]) -> Result<Vec<Crossing>, String> {
        let frames: Vec<_> = messages.iter().map(Message::bytes).collect();
        let mut expected = Outcome::default();
        let mut crossing = Vec::new();
        for message in messages {
            let outcome = self.reference.receive(port, message);
            let sent = outcome.sent.iter().filter(|((port, _), _)| port.0 > ELSEWHERE);
            crossing.extend(sent.map(|((port, _), frames)| (*port, arrived(message, &frames[0]))));
            expected.add(outcome);
        }
        let outcome = self.world.receive(port, &frames);
        if !outcome.is_balanced() {
            return Err(format!("{messages:?}: {outcome:?}"));
        }
        let (outcome, tunnelled) = unwrapped(outcome);
        same(&format!("port {} receives {messages:?}", port.0), &outcome, &expected)?;
        let crossing = tunnelled.into_iter().zip(crossing);
        Ok(crossing.map(|(frame, (port, message))| Crossing { frame, port, message }).collect())
    }
}

/// `outcome` as if tunnels were wires, and what was in them.
fn unwrapped(mut outcome: Outcome) -> (Outcome, Vec<Vec<u8>>) {
    let mut tunnelled = Vec::new();
    for ((port, egress), frames) in std::mem::take(&mut outcome.sent) {
        match egress {
            Egress::Tunnel(tunnel) => {
                let port = PortNo(tunnel.vni.get() as u16);
                let inner = frames.iter().map(|frame| frame[OUTER_BYTES..].to_vec()).collect();
                outcome.sent.insert((port, Egress::Plain), inner);
                tunnelled.extend(frames);
            }
            _ => drop(outcome.sent.insert((port, egress), frames)),
        }
    }
    (outcome, tunnelled)
}

/// What `message` became that is `frame` on the wire: its outer tag may be gone.
fn arrived(message: &Message, frame: &[u8]) -> Message {
    let untagged = Message { tags: message.tags.iter().skip(1).copied().collect(), ..message.clone() };
    if message.bytes() == frame { message.clone() } else { untagged }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, expected: &T) -> Result<(), String> {
    if is == expected { Ok(()) } else { Err(format!("{what}:\n {is:?}\n but not\n {expected:?}")) }
}

/// `spec` for the reference: a port for the other node in each network, and no uplink.
fn wired(spec: &ProgramSpec) -> ProgramSpec {
    let mut spec = ProgramSpec { underlay: None, ..spec.clone() };
    spec.ports.remove(&UPLINK);
    spec.networks.remove(&UPLINKS);
    for network in spec.networks.values() {
        let number = PortNo(ELSEWHERE + network.number.0 as u16);
        let isolated = isolates(network.number);
        let mac_limit = network.mac_limit;
        let wire = PortSpec { mac_limit, isolated, ..port(number, network.number) };
        spec.ports.insert(number, wire);
    }
    spec
}

/// In one of the networks ports elsewhere are isolated, as some here.
fn isolates(network: NetworkNo) -> bool {
    network.0.is_multiple_of(2)
}

fn overlay(network: NetworkNo) -> Option<OverlaySpec> {
    let number = ELSEWHERE + network.0 as u16;
    let vni = Vni::new(number.into())?;
    Some(OverlaySpec { vni, port: PortNo(number), floods: true, isolated: isolates(network) })
}

fn underlay(own: u16) -> UnderlaySpec {
    let (address, mac) = (
        |node: u16| IpAddr::from([192, 0, 2, node as u8 + 1]),
        |node: u16| MacAddr([2, 0xaa, 0, 0, 0, node as u8]),
    );
    let other = 1 - own;
    let node = NodeSpec {
        number: NodeNo(other),
        name: format!("node-{other}"),
        address: address(other),
        source: address(own),
        source_mac: mac(own),
        next_hop: Some(mac(other)),
        mtu_bytes: MAX_MTU_BYTES,
    };
    UnderlaySpec { port: UPLINK, nodes: [(node.number, node)].into() }
}

fn network(number: NetworkNo) -> NetworkSpec {
    NetworkSpec {
        number,
        name: format!("network-{}", number.0),
        flood_unknown: false,
        mac_age_ms: 1000,
        mac_limit: 0,
        gateway: None,
        dhcp: None,
        overlay: None,
    }
}

fn port(number: PortNo, network: NetworkNo) -> PortSpec {
    PortSpec {
        number,
        name: format!("port-{}", number.0),
        network,
        vlan: VlanMode::Access(None),
        macs: Vec::new(),
        ips: Vec::new(),
        port_security: false,
        mac_limit: 0,
        isolated: false,
        mtu_bytes: MAX_MTU_BYTES,
        policy: None,
    }
}
