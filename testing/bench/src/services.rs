//! What do the switches know in the row `connections`? The same services and the same policy, in the words of each.
//!
//! A client's network and a server's are joined by a router. The service's address is of neither; each of its ports is a
//! service of its own, with one endpoint: the server, at the same port. The server's policy lets the client connect to all of
//! them but [`DENIED_PORT`].

use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use guest::Guest;
use guest::connections::Exchange;
use local_api::switch_v1 as api;
use wire::build::{self, Path};
use wire::tcp::{self, Flags};
use wire::{IpProtocol, MacAddr, ipv4};

use crate::case::Work;
use crate::subject::MACS;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Of both networks' gateways.
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
/// Ports of the service that the policy allows.
const ALLOWED_PORTS: Range<u16> = 8000..8003;
/// One that it does not.
const DENIED_PORT: u16 = 9000;
/// What joins the two networks.
pub(crate) const ROUTER: u32 = 1;
const POLICY: u32 = 1;
const IDENTITY: u32 = 1;
/// Client's ports for proofs: those below the load's.
const PROOF_PORTS: u16 = 1000;
static PROOFS: AtomicU16 = AtomicU16::new(0);
/// How long nothing must come of what is denied.
const SILENCE: Duration = Duration::from_millis(50);

/// Who connects to whom for `work`.
pub(crate) fn exchange(work: Work) -> Exchange {
    let path = |from: usize, source: Ipv4Addr, destination: Ipv4Addr| Path {
        source_mac: MacAddr(MACS[from]),
        destination_mac: GATEWAY,
        source: source.into(),
        destination: destination.into(),
    };
    let all = ALLOWED_PORTS.end - ALLOWED_PORTS.start;
    let (first_port, ports, requests) = match work {
        Work::Denied => (DENIED_PORT, 1, 1),
        Work::Connections { requests: requests @ 1 } => (ALLOWED_PORTS.start, all, requests),
        Work::Connections { requests } => (ALLOWED_PORTS.start, 1, requests),
        Work::Frames => (ALLOWED_PORTS.start, 1, 1),
    };
    Exchange {
        client: path(0, CLIENT, SERVICE),
        server: path(1, SERVER, CLIENT),
        first_port,
        ports,
        requests,
    }
}

/// What `millrace switch` is told, whose ports are at `sockets`.
pub(crate) fn program(sockets: &[PathBuf; 3]) -> api::ApplyRequest {
    let ports = [(CLIENT, 0), (SERVER, POLICY)].into_iter().enumerate();
    let networks = [CLIENT, SERVER].into_iter().enumerate();
    api::ApplyRequest {
        from_version: 0,
        to_version: 1,
        put_networks: networks.map(|(index, host)| network(index, host)).collect(),
        put_ports: ports.map(|(index, (ip, policy))| port(index, ip, policy, &sockets[index])).collect(),
        put_policies: vec![policy()],
        put_identities: vec![api::Identity {
            scope: Some(api::identity::Scope::Router(ROUTER)),
            addresses: format!("{CLIENT}/32"),
            identity: IDENTITY,
        }],
        put_services: ALLOWED_PORTS.chain([DENIED_PORT]).map(service).collect(),
        ..Default::default()
    }
}

fn network(index: usize, host: Ipv4Addr) -> api::Network {
    let [a, b, c, _] = host.octets();
    api::Network {
        number: index as u32 + 1,
        name: format!("bench{index}"),
        flood_unknown: true,
        mac_age_ms: 300_000,
        mac_limit: 1024,
        gateway: Some(api::Gateway {
            mac: GATEWAY.to_string(),
            addresses: vec![format!("{}/24", Ipv4Addr::new(a, b, c, 254))],
            router: ROUTER,
            routes: Vec::new(),
        }),
        overlay: None,
        localnet: None,
        dhcp: None,
    }
}

fn port(index: usize, ip: Ipv4Addr, policy: u32, socket: &std::path::Path) -> api::Port {
    api::Port {
        number: index as u32 + 1,
        name: format!("guest{index}"),
        network: index as u32 + 1,
        macs: vec![MacAddr(MACS[index]).to_string()],
        ips: vec![ip.to_string()],
        port_security: true,
        mac_limit: 16,
        mtu_bytes: 1500,
        policy,
        device: Some(api::port::Device::VhostUser(api::VhostUserDevice {
            socket_path: socket.to_string_lossy().into_owned(),
            connect: true,
            queues: 1,
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn policy() -> api::Policy {
    let range = api::PortRange {
        protocol: IpProtocol::TCP.0.into(),
        first: ALLOWED_PORTS.start.into(),
        last: (ALLOWED_PORTS.end - 1).into(),
    };
    let rule = api::Rule {
        name: "bench/clients".into(),
        peers: Some(api::Peers { identities: vec![IDENTITY] }),
        ports: Some(api::PortRanges { ranges: vec![range] }),
        action: api::RuleAction::Allow.into(),
    };
    api::Policy {
        number: POLICY,
        name: "server".into(),
        egress: Vec::new(),
        ingress: vec![api::Tier { rules: vec![rule], isolated_by: "bench/isolated".into() }],
    }
}

fn service(port: u16) -> api::Service {
    let frontend =
        api::Frontend { address: SERVICE.to_string(), protocol: IpProtocol::TCP.0.into(), port: port.into() };
    api::Service {
        number: port.into(),
        name: format!("service{port}"),
        scope: Some(api::service::Scope::Router(ROUTER)),
        frontends: vec![frontend],
        endpoints: vec![api::Endpoint { address: SERVER.to_string(), port: port.into() }],
        affinity_timeout_s: 0,
    }
}

/// What OVS is told: one zone, each packet through the tracker once. A packet of a known connection is translated by the
/// tracker and forwarded; a connection begins where a rule allows it, translated by the same rule.
pub(crate) fn rules() -> Vec<String> {
    let route = |to: usize| {
        let (mac, port) = (MacAddr(MACS[to]), to + 1);
        format!("dec_ttl,mod_dl_src:{GATEWAY},mod_dl_dst:{mac},output:{port}")
    };
    let admit = |from: usize, ip: Ipv4Addr| {
        let (mac, port) = (MacAddr(MACS[from]), from + 1);
        format!(
            "table=0,priority=20,ip,in_port={port},dl_src={mac},dl_dst={GATEWAY},nw_src={ip},\
             actions=ct(zone=1,nat,table=1)"
        )
    };
    let known = |from: usize| {
        let port = from + 1;
        format!("table=1,priority=20,ct_state=+trk+est-inv,ip,in_port={port},actions={}", route(1 - from))
    };
    let begin = |to: Ipv4Addr, service: u16, nat: &str| {
        format!(
            "table=1,priority=20,ct_state=+trk+new-inv,tcp,in_port=1,nw_src={CLIENT},nw_dst={to},tp_dst={service},\
             actions=ct(commit,zone=1{nat}),{}",
            route(1)
        )
    };
    let mut rules = vec![
        "table=0,priority=0,actions=drop".to_owned(),
        "table=1,priority=0,actions=drop".to_owned(),
        admit(0, CLIENT),
        admit(1, SERVER),
        known(0),
        known(1),
    ];
    for port in ALLOWED_PORTS {
        rules.push(begin(SERVICE, port, &format!(",nat(dst={SERVER}:{port})")));
        // Without the service; and a first packet that comes again, which is translated by then.
        rules.push(begin(SERVER, port, ""));
    }
    rules
}

/// Sees that a connection is translated both ways, with correct checksums, and that what is denied does not arrive.
pub(crate) fn prove(guests: &mut [Guest; 2], deadline: Instant) -> anyhow::Result<()> {
    // Each time another port of the client's, none of which the load uses: a tracker remembers those before.
    let number = PROOFS.fetch_add(1, Ordering::Relaxed) % PROOF_PORTS + 1;
    let client = ends((CLIENT, number), (SERVICE, ALLOWED_PORTS.start));
    let Exchange { client: to_service, server: to_client, .. } = exchange(Work::Connections { requests: 1 });
    let syn = segment(to_service, [number, ALLOWED_PORTS.start], 1, 0, Flags::SYN);
    let server = loop {
        ensure!(Instant::now() < deadline, "no connection to the service can be opened");
        guests[0].send(&syn)?;
        if let Some((frame, _)) = guests[1].recv(Duration::from_millis(20))?
            // Not one that an attempt before has left on its way.
            && ends_of(&frame)?[0].1 == number
        {
            break frame;
        }
    };
    ensure!(
        ends_of(&server)? == ends((CLIENT, number), (SERVER, ALLOWED_PORTS.start)),
        "the server got {server:02x?}"
    );
    let answer = segment(to_client, [ALLOWED_PORTS.start, number], 1, 2, Flags::SYN.with(Flags::ACK));
    guests[1].send(&answer)?;
    let Some((back, _)) = guests[0].recv(Duration::from_secs(1))? else {
        bail!("the server's answer does not arrive")
    };
    let [source, destination] = ends_of(&back)?;
    ensure!([destination, source] == client, "the client got {back:02x?}");
    guests[0].send(&segment(to_service, [number, ALLOWED_PORTS.start], 2, 2, Flags::RST.with(Flags::ACK)))?;
    guests[0].send(&segment(to_service, [number, DENIED_PORT], 1, 0, Flags::SYN))?;
    let start = Instant::now();
    while start.elapsed() < SILENCE {
        if let Some((frame, _)) = guests[1].recv(Duration::from_millis(10))? {
            ensure!(ends_of(&frame)?[1].1 != DENIED_PORT, "what is denied arrives");
        }
    }
    Ok(())
}

type End = (Ipv4Addr, u16);

fn ends(source: End, destination: End) -> [End; 2] {
    [source, destination]
}

fn segment(path: Path, ports: [u16; 2], sequence: u32, acknowledgement: u32, flags: Flags) -> Vec<u8> {
    let header = tcp::Repr {
        source_port: ports[0],
        destination_port: ports[1],
        sequence,
        acknowledgement,
        flags,
        window: u16::MAX,
        urgent: 0,
        options: &[],
    };
    build::tcp(path, &header, &[])
}

/// Source and destination of a frame, whose checksums must be right.
fn ends_of(frame: &[u8]) -> anyhow::Result<[End; 2]> {
    let packet = frame.get(14..).unwrap_or_default();
    let ip = ipv4::View::new(packet)?;
    let transport = packet.get(ip.header_len()..usize::from(ip.total_len())).unwrap_or_default();
    let segment = tcp::View::new(transport)?;
    let (source, destination) = (ip.source(), ip.destination());
    let pseudo = wire::checksum::pseudo_v4(source, destination, IpProtocol::TCP, transport.len() as u16);
    ensure!(pseudo.add_bytes(transport).checksum() == 0, "a TCP checksum is wrong: {frame:02x?}");
    let sum = wire::checksum::checksum(&packet[..ip.header_len()]);
    ensure!(sum == 0, "an IP checksum is wrong: {frame:02x?}");
    Ok([(source, segment.source_port()), (destination, segment.destination_port())])
}
