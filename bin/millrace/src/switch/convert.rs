//! How do the words of the socket become the datapath's, and back? A field that means nothing is an error that names it.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

use local_api::switch_v1 as api;
use vswitch::program::{
    DhcpSpec, GatewaySpec, HostSpec, LocalnetSpec, NetworkNo, NetworkSpec, NodeNo, NodeSpec, OverlaySpec,
    PolicyNo, PortNo, PortSpec, Prefix, RouteSpec, RouterNo, Tunnel, UnderlaySpec, Via, VlanId, VlanMode,
    Vni,
};
use vswitch::{Departure, Egress, Explanation, StationView};
use worker::{Activity, Counters, Mode, PortView, QueueView, WorkerView};

/// The network as the datapath knows it, without its gateway, its part on other nodes and what hosts are told.
pub(super) fn network(network: &api::Network) -> NetworkSpec {
    NetworkSpec {
        number: NetworkNo(network.number),
        name: network.name.clone(),
        flood_unknown: network.flood_unknown,
        mac_age_ms: network.mac_age_ms,
        mac_limit: network.mac_limit,
        gateway: None,
        dhcp: None,
        overlay: None,
    }
}

/// What hosts are told that ask.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn dhcp(dhcp: &api::Dhcp) -> Result<DhcpSpec, String> {
    let route = |it: &api::DhcpRoute| Ok::<_, String>((prefix(&it.to)?, parse("next hop", &it.via)?));
    Ok(DhcpSpec {
        mac: parse("MAC", &dhcp.mac)?,
        servers: dhcp.servers.iter().map(|text| prefix(text)).collect::<Result<_, _>>()?,
        routes: dhcp.routes.iter().map(route).collect::<Result<_, _>>()?,
        nameservers: parse_all("nameserver", &dhcp.nameservers)?,
        domain: Some(dhcp.domain.clone()).filter(|domain| !domain.is_empty()),
        search: dhcp.search.clone(),
    })
}

/// A network's part on other nodes.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn overlay(overlay: &api::Overlay) -> Result<OverlaySpec, String> {
    let vni = Vni::new(overlay.vni).ok_or_else(|| format!("VNI {} has more than 24 bits", overlay.vni))?;
    let &api::Overlay { floods, isolated, .. } = overlay;
    Ok(OverlaySpec { vni, port: port_no(overlay.port)?, floods, isolated })
}

/// A network's part in a VLAN of the uplink.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn localnet(localnet: &api::Localnet) -> Result<LocalnetSpec, String> {
    let vlan = u16::try_from(localnet.vlan).ok().and_then(VlanId::new);
    let vlan = vlan.ok_or_else(|| format!("{} is no VLAN: 1 to 4094 are", localnet.vlan))?;
    Ok(LocalnetSpec { vlan, port: port_no(localnet.port)? })
}

/// The other nodes.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn underlay(underlay: &api::Underlay) -> Result<UnderlaySpec, String> {
    let nodes = underlay.nodes.iter().map(|it| node(it).map(|node| (node.number, node)));
    Ok(UnderlaySpec { port: port_no(underlay.port)?, nodes: nodes.collect::<Result<_, String>>()? })
}

fn node(node: &api::Node) -> Result<NodeSpec, String> {
    let next_hop = Some(&node.next_hop).filter(|text| !text.is_empty());
    Ok(NodeSpec {
        number: node_no(node.number)?,
        name: node.name.clone(),
        address: parse("address", &node.address)?,
        source: parse("address", &node.source)?,
        source_mac: parse("MAC", &node.source_mac)?,
        next_hop: next_hop.map(|text| parse("MAC", text)).transpose()?,
        mtu_bytes: node.mtu_bytes,
    })
}

fn node_no(number: u32) -> Result<NodeNo, String> {
    u16::try_from(number).map(NodeNo).map_err(|_| format!("node number {number} is larger than {}", u16::MAX))
}

fn route(route: &api::Route) -> Result<RouteSpec, String> {
    let via = match &route.via {
        Some(api::route::Via::Node(node)) => Via::Node(node_no(*node)?),
        Some(api::route::Via::Host(true)) => Via::Host,
        Some(api::route::Via::Host(false)) | None => {
            return Err(format!("a route to {} names nobody who takes packets on", route.to));
        }
    };
    Ok(RouteSpec { to: prefix(&route.to)?, via })
}

/// The node itself.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn host(host: &api::Host) -> Result<HostSpec, String> {
    let port = |number: u32| u16::try_from(number).ok().filter(|port| *port != 0);
    let nat_ports = port(host.first_nat_port).zip(port(host.last_nat_port)).filter(|(a, b)| a <= b);
    let (first, last) = nat_ports.ok_or_else(|| {
        format!("{} to {} are no ports for addresses of the node", host.first_nat_port, host.last_nat_port)
    })?;
    let ips = |texts: &[String]| parse_all("address", texts);
    let source = |source: &api::Source| Ok((RouterNo(source.router), ips(&source.addresses)?));
    Ok(HostSpec {
        port: port_no(host.port)?,
        nat_ports: first..=last,
        sources: host.sources.iter().map(source).collect::<Result<_, String>>()?,
        elsewhere: ips(&host.elsewhere)?,
    })
}

/// A network's first hop.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn gateway(gateway: &api::Gateway) -> Result<GatewaySpec, String> {
    Ok(GatewaySpec {
        mac: parse("MAC", &gateway.mac)?,
        addresses: gateway.addresses.iter().map(|text| prefix(text)).collect::<Result<_, _>>()?,
        router: RouterNo(gateway.router),
        routes: gateway.routes.iter().map(route).collect::<Result<_, _>>()?,
    })
}

/// An address with its prefix length.
///
/// # Errors
/// It is none.
pub(super) fn prefix(text: &str) -> Result<Prefix, String> {
    let parsed = text
        .split_once('/')
        .and_then(|(address, len)| Some(Prefix { address: address.parse().ok()?, len: len.parse().ok()? }));
    parsed
        .filter(Prefix::is_sound)
        .ok_or_else(|| format!("{text:?} is no address with a prefix length, as in 10.0.0.1/24"))
}

/// The port's number.
///
/// # Errors
/// It is not one of 0 to 65535.
pub(super) fn port_no(number: u32) -> Result<PortNo, String> {
    u16::try_from(number).map(PortNo).map_err(|_| format!("port number {number} is larger than {}", u16::MAX))
}

/// The port's place in the forwarding.
///
/// # Errors
/// The first field that means nothing.
pub(super) fn port(port: &api::Port) -> Result<PortSpec, String> {
    Ok(PortSpec {
        number: port_no(port.number)?,
        name: port.name.clone(),
        network: NetworkNo(port.network),
        vlan: vlan_mode(port.vlan.as_ref())?,
        macs: parse_all("MAC", &port.macs)?,
        ips: parse_all("IP address", &port.ips)?,
        port_security: port.port_security,
        mac_limit: port.mac_limit,
        isolated: port.isolated,
        mtu_bytes: port.mtu_bytes,
        policy: Some(PolicyNo(port.policy)).filter(|policy| policy.0 != 0),
    })
}

fn vlan_mode(vlan: Option<&api::Vlan>) -> Result<VlanMode, String> {
    let Some(vlan) = vlan else { return Ok(VlanMode::Access(None)) };
    let untagged = if vlan.untagged == 0 { None } else { Some(vlan_id(vlan.untagged)?) };
    if !vlan.trunk {
        return Ok(VlanMode::Access(untagged));
    }
    let allowed = vlan.allowed.iter().map(|id| vlan_id(*id)).collect::<Result<_, _>>()?;
    Ok(VlanMode::Trunk { allowed, native: untagged })
}

fn vlan_id(id: u32) -> Result<VlanId, String> {
    let id_or_none = u16::try_from(id).ok().and_then(VlanId::new);
    id_or_none.ok_or_else(|| format!("VLAN {id} is not one of 1 to 4094"))
}

fn parse_all<T>(what: &str, texts: &[String]) -> Result<Vec<T>, String>
where
    T: FromStr,
    T::Err: Display,
{
    texts.iter().map(|text| parse(what, text)).collect()
}

/// What `text` says, which is to be `what`.
///
/// # Errors
/// It is none.
pub(super) fn parse<T>(what: &str, text: &str) -> Result<T, String>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error| format!("{what} {text:?}: {error}"))
}

/// What moved, in the words of the socket.
pub(super) fn counters(counters: &Counters) -> api::Counters {
    let drops: HashMap<String, u64> =
        counters.drops.iter().map(|(reason, frames)| (reason.label().to_owned(), frames)).collect();
    api::Counters {
        rx_frames: counters.rx_frames,
        rx_bytes: counters.rx_bytes,
        tx_frames: counters.tx_frames,
        tx_bytes: counters.tx_bytes,
        copies: counters.copies,
        copied_bytes: counters.copied_bytes,
        drops,
    }
}

/// A port's state; `view` is `None` while its device could not be opened, for the reason `fault`.
pub(super) fn port_state(port: &api::Port, view: Option<&PortView>, fault: Option<&str>) -> api::PortState {
    let (link_up, link_detail) =
        view.map_or((false, String::new()), |view| (view.link.up, view.link.detail.clone()));
    api::PortState {
        port: Some(port.clone()),
        counters: view.map(|view| counters(&view.counters)),
        link_up,
        detail: fault.map_or(link_detail, str::to_owned),
        workers: view.map(|view| numbers(&view.workers)).unwrap_or_default(),
        queues: view.map(|view| view.queues.iter().map(queue).collect()).unwrap_or_default(),
    }
}

fn queue(view: &QueueView) -> api::QueueState {
    api::QueueState { worker: view.worker as u32, busy_cycles: view.busy_cycles, moves: view.moves }
}

/// A worker, in the words of the socket.
pub(super) fn worker(view: &WorkerView) -> api::WorkerState {
    let WorkerView { number, cpu, cpu_time_ns, ports, activity } = view;
    let Activity { turns, frames, busy_cycles, idle_cycles, sleep_cycles, sleeps, .. } = *activity;
    api::WorkerState {
        number: *number as u32,
        cpu: *cpu as u32,
        turns,
        frames,
        busy_cycles,
        idle_cycles,
        sleep_cycles,
        sleeps,
        cpu_time_ns: *cpu_time_ns,
        ports: ports.iter().map(|port| port.0.into()).collect(),
        microflow_hits: activity.microflow_hits,
        megaflow_hits: activity.megaflow_hits,
        misses: activity.misses,
        mode: mode(activity.mode).to_owned(),
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Polling => "polling",
        Mode::BackingOff => "backing_off",
        Mode::Sleeping => "sleeping",
    }
}

fn numbers(numbers: &[usize]) -> Vec<u32> {
    numbers.iter().map(|number| *number as u32).collect()
}

/// A station, in the words of the socket.
pub(super) fn station(view: &StationView) -> api::Station {
    api::Station {
        network: view.network.0,
        vlan: view.vlan.map_or(0, |vlan| vlan.get().into()),
        mac: view.mac.to_string(),
        port: view.port.0.into(),
        configured: view.configured,
        idle_ms: view.idle_ms,
    }
}

/// An explanation, in the words of the socket; `node_name` says what nodes are called.
pub(super) fn explanation(
    explanation: Explanation,
    node_name: impl Fn(NodeNo) -> String,
) -> api::TraceResponse {
    let step = |step: vswitch::Step| api::TraceStep { stage: step.stage.to_owned(), sentence: step.sentence };
    api::TraceResponse {
        steps: explanation.steps.into_iter().map(step).collect(),
        drop_reason: explanation.drop.map(|reason| reason.label().to_owned()).unwrap_or_default(),
        outputs: explanation.outputs.into_iter().map(|out| departure(out, &node_name)).collect(),
        denied_by: explanation.denied_by.unwrap_or_default(),
    }
}

fn departure(out: Departure, node_name: impl Fn(NodeNo) -> String) -> api::TraceOutput {
    let frame = out.bytes[out.outer_bytes..].to_vec();
    let tunnel = match out.egress {
        Egress::Tunnel(Tunnel { node, vni }) => {
            Some(api::TraceTunnel { node: node_name(node), vni: vni.get(), frame: out.bytes })
        }
        Egress::Plain | Egress::Tag(_) | Egress::ServiceTag(_) => None,
    };
    api::TraceOutput { port: out.port.0.into(), frame, is_answer: out.is_answer, tunnel }
}
