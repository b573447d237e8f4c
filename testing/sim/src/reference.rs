//! How would the plainest possible switch decide? A scan for everything, and no memory but the stations.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use frame::DropReason;
use vswitch::Egress;
use vswitch::program::{NetworkNo, PortNo, PortSpec, ProgramSpec, VlanMode};
use wire::MacAddr;

use crate::message::{Claim, Message, Tag, tagged};
use crate::world::Outcome;

/// A learned station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Station {
    network: NetworkNo,
    vlan: Option<u16>,
    mac: MacAddr,
    port: PortNo,
    seen_ms: u64,
}

/// The naive switch.
#[derive(Debug, Default)]
pub struct Reference {
    spec: ProgramSpec,
    stations: Vec<Station>,
    now_ms: u64,
}

/// An admitted frame: its VLAN, and whether the outer tag is cut off.
type Admitted = (Option<u16>, bool);

impl Reference {
    /// Forwards by `spec` from now on.
    pub fn set_program(&mut self, spec: &ProgramSpec) {
        let old = std::mem::replace(&mut self.spec, spec.clone());
        let same = |port: &PortNo| match (old.ports.get(port), spec.ports.get(port)) {
            (Some(old), Some(new)) => (old.network, &old.name) == (new.network, &new.name),
            (old, _) => old.is_none(),
        };
        self.stations.retain(|station| same(&station.port));
    }

    /// Lets time pass, and forgets the stations that are due.
    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let stations = std::mem::take(&mut self.stations);
        self.stations = stations.into_iter().filter(|station| !self.is_due(station)).collect();
    }

    fn is_due(&self, station: &Station) -> bool {
        let Some(network) = self.spec.networks.get(&station.network) else { return true };
        self.now_ms - station.seen_ms >= network.mac_age_ms || !self.is_reachable(station)
    }

    fn is_reachable(&self, station: &Station) -> bool {
        let port = self.spec.ports.get(&station.port);
        port.is_some_and(|port| port.network == station.network && carries(port, station.vlan))
    }

    /// The learned stations: network, VLAN, address and port, sorted.
    pub fn stations(&self) -> Vec<(NetworkNo, Option<u16>, MacAddr, PortNo)> {
        let view = |it: &Station| (it.network, it.vlan, it.mac, it.port);
        let mut stations: Vec<_> = self.stations.iter().map(view).collect();
        stations.sort_unstable();
        stations
    }

    /// What becomes of `message`, which comes in by `port`.
    pub fn receive(&mut self, port: PortNo, message: &Message) -> Outcome {
        self.decide(port, message).unwrap_or_else(Outcome::dropped)
    }

    fn decide(&mut self, port: PortNo, message: &Message) -> Result<Outcome, DropReason> {
        let port = self.spec.ports.get(&port).cloned().ok_or(DropReason::NoNetwork)?;
        if !message.source.is_unicast() {
            return Err(DropReason::BadSourceMac);
        }
        let admitted = self.admit(&port, message).ok_or(DropReason::VlanNotAllowed)?;
        if port.port_security {
            check_claims(&port, message)?;
        }
        self.learn(&port, admitted.0, message.source);
        let receivers = self.receivers(&port, admitted.0, message.destination)?;
        Ok(deliver(&receivers, admitted, message))
    }

    /// The network's ports, in order.
    fn ports_of(&self, network: NetworkNo) -> impl Iterator<Item = &PortSpec> {
        self.spec.ports.values().filter(move |port| port.network == network)
    }

    fn admit(&self, port: &PortSpec, message: &Message) -> Option<Admitted> {
        if self.ports_of(port.network).all(|port| port.vlan == VlanMode::Access(None)) {
            return Some((None, false));
        }
        let id = message.tags.first().map_or(0, |tag| tag.tci & 0xfff);
        let strip = !message.tags.is_empty();
        match &port.vlan {
            VlanMode::Access(vlan) if id == 0 => Some((vlan.map(|vlan| vlan.get()), strip)),
            VlanMode::Trunk { native: Some(native), .. } if id == 0 => Some((Some(native.get()), strip)),
            VlanMode::Trunk { .. } if id != 0 && carries(port, Some(id)) => Some((Some(id), strip)),
            _ => None,
        }
    }

    /// The port that lists `mac` in this VLAN.
    fn configured(&self, network: NetworkNo, vlan: Option<u16>, mac: MacAddr) -> Option<&PortSpec> {
        self.ports_of(network).find(|port| port.macs.contains(&mac) && carries(port, vlan))
    }

    fn learn(&mut self, port: &PortSpec, vlan: Option<u16>, mac: MacAddr) {
        if self.configured(port.network, vlan, mac).is_some() {
            return;
        }
        let on_port = self.stations.iter().filter(|it| it.port == port.number).count();
        let in_network = self.stations.iter().filter(|it| it.network == port.network).count();
        let limit = self.spec.networks[&port.network].mac_limit as usize;
        let now_ms = self.now_ms;
        let port_has_room = on_port < port.mac_limit as usize;
        let known =
            self.stations.iter_mut().find(|it| (it.network, it.vlan, it.mac) == (port.network, vlan, mac));
        match known {
            Some(station) if station.port == port.number || port_has_room => {
                (station.port, station.seen_ms) = (port.number, now_ms);
            }
            None if port_has_room && in_network < limit => {
                let (network, port) = (port.network, port.number);
                self.stations.push(Station { network, vlan, mac, port, seen_ms: now_ms });
            }
            _ => {}
        }
    }

    fn receivers(
        &self,
        from: &PortSpec,
        vlan: Option<u16>,
        destination: MacAddr,
    ) -> Result<Vec<&PortSpec>, DropReason> {
        if destination.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && destination.0[5] < 16 {
            return Err(DropReason::LinkLocal);
        }
        if destination.is_group() {
            return self.everybody(from, vlan);
        }
        let learned = || {
            let is_it = |it: &&Station| (it.network, it.vlan, it.mac) == (from.network, vlan, destination);
            let station = self.stations.iter().find(is_it).filter(|it| self.is_reachable(it))?;
            self.spec.ports.get(&station.port)
        };
        match self.configured(from.network, vlan, destination).or_else(learned) {
            Some(port) if port.number == from.number => Err(DropReason::SamePort),
            Some(port) if port.isolated && from.isolated => Err(DropReason::Isolated),
            Some(port) => Ok(vec![port]),
            None if self.spec.networks[&from.network].flood_unknown => self.everybody(from, vlan),
            None => Err(DropReason::UnknownDestination),
        }
    }

    fn everybody(&self, from: &PortSpec, vlan: Option<u16>) -> Result<Vec<&PortSpec>, DropReason> {
        let receives = |port: &&PortSpec| {
            port.number != from.number && carries(port, vlan) && !(port.isolated && from.isolated)
        };
        let receivers: Vec<_> = self.ports_of(from.network).filter(receives).collect();
        if receivers.is_empty() { Err(DropReason::NoReceiver) } else { Ok(receivers) }
    }
}

fn carries(port: &PortSpec, vlan: Option<u16>) -> bool {
    match &port.vlan {
        VlanMode::Access(own) => own.map(|own| own.get()) == vlan,
        VlanMode::Trunk { allowed, native } => vlan.is_some_and(|vlan| {
            (1..=4094).contains(&vlan)
                && (allowed.is_empty()
                    || allowed.iter().any(|id| id.get() == vlan)
                    || native.is_some_and(|native| native.get() == vlan))
        }),
    }
}

fn deliver(receivers: &[&PortSpec], (vlan, strip): Admitted, message: &Message) -> Outcome {
    let mut outcome = Outcome { received: 1, copies: receivers.len() as u64 - 1, ..Outcome::default() };
    let outer = message.tags.first().copied();
    let inner = Message { tags: message.tags.iter().skip(1).copied().collect(), ..message.clone() };
    for port in receivers {
        if message.network_bytes() > port.mtu_bytes as usize {
            outcome.drop(DropReason::TooBig);
            continue;
        }
        let bytes = if strip { inner.bytes() } else { message.bytes() };
        let untagged = match &port.vlan {
            VlanMode::Access(_) => true,
            VlanMode::Trunk { native, .. } => native.map(|native| native.get()) == vlan,
        };
        let (egress, bytes) = match vlan {
            Some(vlan) if !untagged => {
                let tci = vlan | outer.map_or(0, |tag| tag.tci & 0xf000);
                let service = outer.is_some_and(|tag| tag.service);
                let egress = if service { Egress::ServiceTag(tci) } else { Egress::Tag(tci) };
                (egress, tagged(Tag { tci, service }, &bytes))
            }
            _ => (Egress::Plain, bytes),
        };
        outcome.sent.entry((port.number, egress)).or_default().push(bytes);
    }
    outcome
}

fn check_claims(port: &PortSpec, message: &Message) -> Result<(), DropReason> {
    let mac = |mac: MacAddr| if port.macs.contains(&mac) { Ok(()) } else { Err(DropReason::SpoofedMac) };
    let ip = |ip: IpAddr| {
        let derived = matches!(ip, IpAddr::V6(ip) if port.macs.iter().any(|mac| link_local(*mac) == ip));
        let allowed = port.ips.is_empty() || port.ips.contains(&ip) || derived;
        if allowed { Ok(()) } else { Err(DropReason::SpoofedIp) }
    };
    mac(message.source)?;
    if message.tags.len() > 1 {
        return Err(DropReason::VlanNotAllowed);
    }
    match message.claim {
        Claim::Nothing | Claim::Dhcp => Ok(()),
        Claim::Udp(source) => ip(source),
        Claim::Arp(sender, _) if sender != message.source => mac(sender),
        Claim::Arp(_, sender) if sender.is_unspecified() => Ok(()),
        Claim::Arp(_, sender) => ip(sender.into()),
        Claim::Neighbor(source, target, station) => {
            ip(source.into())?;
            ip(target.into())?;
            mac(station)
        }
        Claim::Probe(target) => ip(target.into()),
    }
}

fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
}

/// Frames by reason, as both sides count them.
pub(crate) type Drops = BTreeMap<DropReason, u64>;
