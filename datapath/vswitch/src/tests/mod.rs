//! Tests over the whole switch, and what they share: specs in a few words, frames, and a switch to put them in.

mod anything;
mod cached;
mod dhcp;
mod forwarding;
mod fragments;
mod gateway;
mod habit;
mod host;
mod limits;
mod localnet;
mod outside;
mod overlay;
mod policy;
mod security;
mod service;
mod words;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use frame::{Burst, DropReason, Offload};
use wire::MacAddr;
use wire::build::{self, Path};
use wire::tcp::{self, Flags};

use crate::program::{NetworkNo, NetworkSpec, PortNo, PortSpec, ProgramSpec, VlanId, VlanMode};
use crate::{Egress, Now, Outputs, ProcessReport, Program, Shared, Switch};

pub(crate) const NETWORK: NetworkNo = NetworkNo(1);

/// The station with this number.
pub(crate) fn station(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

pub(crate) fn vlan(id: u16) -> VlanId {
    VlanId::new(id).unwrap()
}

pub(crate) fn network(number: u32) -> NetworkSpec {
    NetworkSpec {
        number: NetworkNo(number),
        name: format!("network-{number}"),
        flood_unknown: true,
        mac_age_ms: 1000,
        mac_limit: 100,
        gateway: None,
        dhcp: None,
        overlay: None,
    }
}

/// A port of the first network that learns, untagged and unsecured.
pub(crate) fn port(number: u16) -> PortSpec {
    PortSpec {
        number: PortNo(number),
        name: format!("port-{number}"),
        network: NETWORK,
        vlan: VlanMode::Access(None),
        macs: Vec::new(),
        ips: Vec::new(),
        port_security: false,
        mac_limit: 100,
        isolated: false,
        mtu_bytes: 1500,
        policy: None,
    }
}

pub(crate) fn spec(ports: impl IntoIterator<Item = PortSpec>) -> ProgramSpec {
    let ports: BTreeMap<_, _> = ports.into_iter().map(|port| (port.number, port)).collect();
    let networks = ports.values().map(|port| (port.network, network(port.network.0)));
    ProgramSpec { version: 1, networks: networks.collect(), ports, ..ProgramSpec::default() }
}

pub(crate) fn program(ports: impl IntoIterator<Item = PortSpec>) -> Arc<Program> {
    Program::build(spec(ports)).unwrap()
}

/// A UDP frame of station `from` to station `to`.
pub(crate) fn udp(from: u8, to: u8) -> Vec<u8> {
    build::udp(path(from, to), (1000, 2000), b"hello")
}

/// A TCP segment without payload; `numbers`: its sequence and acknowledgement numbers.
pub(crate) fn segment(path: Path, ports: (u16, u16), flags: Flags, numbers: (u32, u32)) -> Vec<u8> {
    let header = tcp::Repr {
        source_port: ports.0,
        destination_port: ports.1,
        sequence: numbers.0,
        acknowledgement: numbers.1,
        flags,
        window: 1000,
        urgent: 0,
        options: &[],
    };
    build::tcp(path, &header, b"")
}

/// From station to station, with the addresses 10.0.0.number.
pub(crate) fn path(from: u8, to: u8) -> Path {
    let ip = |number: u8| IpAddr::from([10, 0, 0, number]);
    Path { source_mac: station(from), destination_mac: station(to), source: ip(from), destination: ip(to) }
}

/// The same frame to another MAC address.
pub(crate) fn to(destination: MacAddr, mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&destination.0);
    frame
}

/// What became of a frame: who sends which bytes, and why it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fate {
    pub(crate) sent: BTreeMap<u16, Vec<u8>>,
    pub(crate) drops: BTreeMap<DropReason, u64>,
    /// What it left to the last port.
    pub(crate) offload: Offload,
}

impl Fate {
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.sent.keys().copied().collect()
    }

    pub(crate) fn drop(reason: DropReason) -> Self {
        Self { drops: [(reason, 1)].into(), ..Self::default() }
    }
}

/// A switch with a clock.
pub(crate) struct Bed {
    pub(crate) switch: Switch,
    pub(crate) shared: Arc<Shared>,
    pub(crate) now: Now,
    pub(crate) report: ProcessReport,
}

impl Bed {
    pub(crate) fn new(program: Arc<Program>) -> Self {
        let shared = Shared::new();
        let switch = Switch::new(Arc::clone(&shared), program, 42);
        Self { switch, shared, now: Now::default(), report: ProcessReport::default() }
    }

    pub(crate) fn with(ports: impl IntoIterator<Item = PortSpec>) -> Self {
        Self::new(program(ports))
    }

    pub(crate) fn send(&mut self, port: u16, frame: Vec<u8>) -> Fate {
        self.send_offloaded(port, frame, Offload::NONE)
    }

    pub(crate) fn send_offloaded(&mut self, port: u16, frame: Vec<u8>, offload: Offload) -> Fate {
        let mut burst = Burst::new();
        burst.push_owned(frame, offload).unwrap();
        let mut out = Outputs::default();
        let mut report = ProcessReport::default();
        self.switch.process(&mut burst, PortNo(port), self.now, &mut out, &mut report);
        let mut ends = 0;
        let mut fate = Fate { drops: report.drops.iter().collect(), ..Fate::default() };
        for group in out.groups() {
            assert_eq!(group.frames(), [0]);
            let before = burst.gather(0).to_vec();
            let offload = burst.offload(0);
            match group.egress.apply(&mut burst, 0, self.switch.program()) {
                Ok(undo) => {
                    ends += 1;
                    let bytes = burst.gather(0).to_vec();
                    let is_new = !fate.sent.contains_key(&group.port.0);
                    // Tunnels to several nodes begin at one port: the first one's frame is looked at.
                    assert!(is_new || matches!(group.egress, Egress::Tunnel(_)), "{group:?} sends twice");
                    fate.sent.entry(group.port.0).or_insert(bytes);
                    fate.offload = burst.offload(0);
                    undo.undo(&mut burst, 0);
                }
                Err(reason) => *fate.drops.entry(reason).or_default() += 1,
            }
            assert_eq!((burst.gather(0).to_vec(), burst.offload(0)), (before, offload));
        }
        ends += fate.drops.values().sum::<u64>();
        assert_eq!(1 + report.copies, ends, "the ledger");
        self.report.drops.merge(&report.drops);
        self.report.copies += report.copies;
        self.report.microflow_hits += report.microflow_hits;
        self.report.megaflow_hits += report.megaflow_hits;
        self.report.misses += report.misses;
        fate
    }

    /// What the report counted since the last call: hits of either cache, misses.
    pub(crate) fn hits_and_misses(&mut self) -> (u64, u64) {
        let report = std::mem::take(&mut self.report);
        (report.microflow_hits + report.megaflow_hits, report.misses)
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.switch.sweep(self.now, usize::MAX);
    }

    /// The learned stations: number and port.
    pub(crate) fn learned(&self) -> Vec<(u8, u16)> {
        let stations = self.shared.stations(self.now);
        let mut learned: Vec<_> = stations.iter().map(|view| (view.mac.0[5], view.port.0)).collect();
        learned.sort_unstable();
        learned
    }
}

/// The tag that a frame leaves with.
pub(crate) fn egress_of(frame: &[u8]) -> Egress {
    let tci = u16::from_be_bytes([frame[14], frame[15]]);
    match (frame[12], frame[13]) {
        (0x81, 0x00) => Egress::Tag(tci),
        (0x88, 0xa8) => Egress::ServiceTag(tci),
        _ => Egress::Plain,
    }
}
