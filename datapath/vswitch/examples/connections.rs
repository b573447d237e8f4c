//! What do the packets of a connection to a service cost in the switch alone, behind a policy, packet by packet, and what do
//! many services, policies and identities? `cargo run --release -p vswitch --example connections [N...]`
//!
//! Medians over batches of connections, so that a busy machine disturbs little; compare figures of one run only.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "prints its result")]
#![allow(clippy::disallowed_methods, reason = "measures time")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use frame::{BURST_FRAMES, Burst, Offload};
use vswitch::program::{
    Affinity, EndpointSpec, FrontendSpec, GatewaySpec, IdentityNo, IdentitySpec, NetworkNo, NetworkSpec,
    Policies, PolicyNo, PolicySpec, PortNo, PortRangeSpec, PortSpec, Prefix, ProgramSpec, RouterNo,
    RuleAction, RuleSpec, Scope, ServiceNo, ServiceSpec, Services, TierSpec, VlanMode,
};
use vswitch::{Now, Outputs, ProcessReport, Program, Shared, Switch};
use wire::build::{self, Path};
use wire::tcp::{self, Flags};
use wire::{IpProtocol, MacAddr};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const SCOPE: Scope = Scope::Router(RouterNo(1));
const PORTS: std::ops::Range<u16> = 8000..8003;
const DENIED: u16 = 9000;
/// Connections of a batch, open at once.
const BATCH: usize = 4 * BURST_FRAMES;
const BATCHES: usize = 4000;

/// Each packet of a connection: its name, whether the client sends it, flags, payload.
const PACKETS: [(&str, bool, Flags, bool); 8] = [
    ("SYN", true, Flags::SYN, false),
    ("SYN-ACK", false, Flags::SYN.with(Flags::ACK), false),
    ("ACK", true, Flags::ACK, false),
    ("request", true, Flags::PSH.with(Flags::ACK), true),
    ("answer", false, Flags::PSH.with(Flags::ACK), true),
    ("FIN", true, Flags::FIN.with(Flags::ACK), false),
    ("FIN", false, Flags::FIN.with(Flags::ACK), false),
    ("last ACK", true, Flags::ACK, false),
];
const PAYLOAD: u32 = 10;

fn main() {
    let sizes: Vec<u32> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    for size in if sizes.is_empty() { vec![10] } else { sizes } {
        println!("{size} services, policies and identities");
        let start = Instant::now();
        let spec = spec(size);
        let made = start.elapsed();
        let program = Program::build(spec).expect("the program is consistent");
        println!("  {:>9.1} us  program (and {made:.1?} for its spec)", us(start.elapsed() - made));
        println!("  {:>9.1} us  a change of a service, p99", us(changes(&program)));
        measure(Switch::new(Shared::new(), program, 7));
    }
}

/// A service changes, again and again: the time that all but one in a hundred take.
fn changes(program: &Program) -> Duration {
    let mut times: Vec<Duration> = (0..1000u32)
        .map(|number| {
            let start = Instant::now();
            let mut spec = program.spec().clone();
            let mut service =
                spec.services.get(ServiceNo(100_000 + number % 10)).expect("it is there").clone();
            service.endpoints.truncate(1);
            spec.services.put(service).expect("it is as it was, and less");
            drop(Program::build(spec));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn measure(mut switch: Switch) {
    let mut bed = Bed::new();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); PACKETS.len() + 1];
    for batch in 0..BATCHES {
        let now = Now { ms: batch as u64 };
        for (at, times) in times[..PACKETS.len()].iter_mut().enumerate() {
            times.push(bed.batch(&mut switch, batch, at, now));
        }
        times[PACKETS.len()].push(bed.denied(&mut switch, batch, now));
        if batch % 50 == 0 {
            switch.sweep(now, 4096);
        }
    }
    let medians: Vec<f64> = times
        .into_iter()
        .map(|mut times| {
            times.sort_unstable_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .collect();
    for (at, (name, ..)) in PACKETS.into_iter().enumerate() {
        println!("  {:>9.0} ns  {name}", medians[at]);
    }
    println!("  {:>9.0} ns  a connection", medians[..PACKETS.len()].iter().sum::<f64>());
    println!("  {:>9.0} ns  denied", medians[PACKETS.len()]);
    let report = bed.report;
    println!(
        "  {} misses, {} megaflow hits, {} microflow hits, drops: {:?}",
        report.misses,
        report.megaflow_hits,
        report.microflow_hits,
        report.drops.iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>()
    );
}

/// What bursts are made with.
struct Bed {
    out: Outputs,
    report: ProcessReport,
    /// From the client and from the server, without payload and with it.
    frames: [[Vec<u8>; 2]; 2],
}

impl Bed {
    fn new() -> Self {
        let path = |mac: u8, source: Ipv4Addr, destination: Ipv4Addr| Path {
            source_mac: MacAddr([2, 0, 0, 0, 0, mac]),
            destination_mac: GATEWAY,
            source: source.into(),
            destination: destination.into(),
        };
        let frames = [path(1, CLIENT, SERVICE), path(2, SERVER, CLIENT)].map(|path| {
            [&[][..], &[7; PAYLOAD as usize]].map(|payload| {
                let header = tcp::Repr {
                    source_port: 0,
                    destination_port: 0,
                    sequence: 0,
                    acknowledgement: 0,
                    flags: Flags::ACK,
                    window: u16::MAX,
                    urgent: 0,
                    options: &[],
                };
                let mut frame = build::tcp(path, &header, payload);
                frame.resize(64, 0);
                frame
            })
        });
        Self { out: Outputs::default(), report: ProcessReport::default(), frames }
    }

    /// Packet `at` of each connection of the batch; nanoseconds for each.
    fn batch(&mut self, switch: &mut Switch, batch: usize, at: usize, now: Now) -> f64 {
        let (_, is_client, flags, has_payload) = PACKETS[at];
        let progress = |is_client: bool| {
            let before = PACKETS[..at].iter().filter(|(_, by_client, ..)| *by_client == is_client);
            let taken = |flags: Flags| u32::from(flags.contains(Flags::SYN) || flags.contains(Flags::FIN));
            before.map(|(_, _, flags, payload)| taken(*flags) + u32::from(*payload) * PAYLOAD).sum::<u32>()
        };
        let (sequence, acknowledgement) = (progress(is_client), progress(!is_client));
        let frame = self.frames[usize::from(!is_client)][usize::from(has_payload)].clone();
        self.timed(switch, if is_client { 1 } else { 2 }, now, |number| {
            let number = batch * BATCH + number;
            let [client, service] =
                [1024 + number % 64_512, usize::from(PORTS.start) + number / 64_512 % PORTS.len()];
            let ports = if is_client { [client, service] } else { [service, client] };
            (frame.clone(), ports.map(|port| port as u16), sequence, acknowledgement, flags)
        })
    }

    fn denied(&mut self, switch: &mut Switch, batch: usize, now: Now) -> f64 {
        let frame = self.frames[0][0].clone();
        self.timed(switch, 1, now, |number| {
            let client = 1024 + (batch * BATCH + number) % 64_512;
            (frame.clone(), [client as u16, DENIED], 0, 0, Flags::SYN)
        })
    }

    fn timed(
        &mut self,
        switch: &mut Switch,
        port: u16,
        now: Now,
        frame: impl Fn(usize) -> (Vec<u8>, [u16; 2], u32, u32, Flags),
    ) -> f64 {
        let mut bursts: Vec<Burst> = (0..BATCH / BURST_FRAMES)
            .map(|burst| {
                let mut frames = Burst::new();
                for at in 0..BURST_FRAMES {
                    let (mut bytes, ports, sequence, acknowledgement, flags) =
                        frame(burst * BURST_FRAMES + at);
                    bytes[34..36].copy_from_slice(&ports[0].to_be_bytes());
                    bytes[36..38].copy_from_slice(&ports[1].to_be_bytes());
                    bytes[38..42].copy_from_slice(&sequence.to_be_bytes());
                    bytes[42..46].copy_from_slice(&acknowledgement.to_be_bytes());
                    bytes[47] = flags.0;
                    frames.push_owned(bytes, Offload::NONE).expect("a burst takes frames until it is full");
                }
                frames
            })
            .collect();
        let start = Instant::now();
        for burst in &mut bursts {
            self.out.clear();
            switch.process(burst, PortNo(port), now, &mut self.out, &mut self.report);
        }
        start.elapsed().as_nanos() as f64 / BATCH as f64
    }
}

/// The services of the bench, and so many others.
fn spec(size: u32) -> ProgramSpec {
    let range = |ports: std::ops::RangeInclusive<u16>| PortRangeSpec { protocol: IpProtocol::TCP, ports };
    let allow = |name: String, peer: u32, ports: PortRangeSpec| RuleSpec {
        name,
        peers: Some(vec![IdentityNo(peer)]),
        ports: Some(vec![ports]),
        action: RuleAction::Allow,
    };
    let policy = |number: u32, rules: Vec<RuleSpec>| PolicySpec {
        number: PolicyNo(number),
        name: format!("group-{number}"),
        egress: Vec::new(),
        ingress: vec![TierSpec { rules, isolated_by: Some(format!("policy-{number}")) }],
    };
    let other = |at: u32| {
        let rules = [(at, 80), (at + 1, 1000)]
            .map(|(peer, port)| allow(format!("policy-{at}/{peer}"), 2 + peer, range(port..=port)));
        policy(2 + at, rules.to_vec())
    };
    let served = policy(1, vec![allow("clients".into(), 1, range(PORTS.start..=PORTS.end - 1))]);
    let block = |block: u32, at: u32| Ipv4Addr::from_bits(block << 24 | at);
    let service = |number: u32, address: Ipv4Addr, port: u16, endpoints: Vec<EndpointSpec>| ServiceSpec {
        number: ServiceNo(number),
        name: format!("service-{number}"),
        scope: SCOPE,
        frontends: vec![FrontendSpec { address: address.into(), protocol: IpProtocol::TCP, port }],
        endpoints,
        affinity: Affinity::None,
    };
    let endpoint = |address: Ipv4Addr, port| EndpointSpec { address: address.into(), port };
    let own =
        PORTS.chain([DENIED]).map(|port| service(port.into(), SERVICE, port, vec![endpoint(SERVER, port)]));
    let others = (0..size).map(|at| {
        let endpoints = [0, 1].map(|number| endpoint(block(20, 2 * at + number), 8080));
        service(100_000 + at, block(30, at), 80, endpoints.to_vec())
    });
    let identity = |address: Ipv4Addr, number: u32| IdentitySpec {
        scope: SCOPE,
        addresses: Prefix { address: address.into(), len: 32 },
        identity: IdentityNo(number),
    };
    ProgramSpec {
        version: 1,
        networks: [network(1, Ipv4Addr::new(10, 1, 0, 254)), network(2, Ipv4Addr::new(10, 2, 0, 254))]
            .map(|network| (network.number, network))
            .into(),
        ports: [port(1, CLIENT, None), port(2, SERVER, Some(PolicyNo(1)))]
            .map(|port| (port.number, port))
            .into(),
        policies: Policies::new(
            [served].into_iter().chain((0..size).map(other)),
            [identity(CLIENT, 1)].into_iter().chain((0..size).map(|at| identity(block(20, at), 2 + at))),
        )
        .expect("prefixes"),
        services: Services::new(own.chain(others)).expect("no two of one address"),
        ..ProgramSpec::default()
    }
}

fn network(number: u32, gateway: Ipv4Addr) -> NetworkSpec {
    NetworkSpec {
        number: NetworkNo(number),
        name: format!("net-{number}"),
        flood_unknown: true,
        mac_age_ms: 300_000,
        mac_limit: 1024,
        gateway: Some(GatewaySpec {
            mac: GATEWAY,
            addresses: vec![Prefix { address: gateway.into(), len: 24 }],
            router: RouterNo(1),
            routes: Vec::new(),
        }),
        dhcp: None,
        overlay: None,
    }
}

fn port(number: u16, ip: Ipv4Addr, policy: Option<PolicyNo>) -> PortSpec {
    PortSpec {
        number: PortNo(number),
        name: format!("port-{number}"),
        network: NetworkNo(number.into()),
        vlan: VlanMode::Access(None),
        macs: vec![MacAddr([2, 0, 0, 0, 0, number as u8])],
        ips: vec![ip.into()],
        port_security: true,
        mac_limit: 16,
        isolated: false,
        mtu_bytes: 1500,
        policy,
    }
}
