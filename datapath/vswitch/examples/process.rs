//! What does a frame cost in the switch alone? `cargo run --release -p vswitch --example process`
//!
//! Bursts of 64-byte UDP frames between two ports, whose source ports go round over some number of flows. CPU time is
//! counted, so that a busy machine disturbs little; compare figures of one run only.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "prints its result")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::Ipv4Addr;

use frame::{BURST_FRAMES, Burst, Offload};
use vswitch::program::{NetworkNo, NetworkSpec, PortNo, PortSpec, ProgramSpec, VlanMode};
use vswitch::{Now, Outputs, ProcessReport, Program, Shared, Switch};
use wire::MacAddr;
use wire::build::{self, Path};

const FLOWS: [u16; 5] = [1, 32, 1_000, 10_000, 60_000];
const TURNS: usize = 200_000;
const ROUNDS: usize = 5;

fn main() {
    println!(
        "{:>8} {:>14} {:>12} {:>12} {:>8}",
        "flows", "ns per frame", "micro hits", "mega hits", "misses"
    );
    for flows in FLOWS {
        let mut best = f64::MAX;
        let mut report = ProcessReport::default();
        for _ in 0..ROUNDS {
            report = ProcessReport::default();
            best = best.min(measure(flows, &mut report));
        }
        println!(
            "{flows:>8} {best:>14.2} {:>12} {:>12} {:>8}",
            report.microflow_hits, report.megaflow_hits, report.misses
        );
    }
}

/// Nanoseconds per frame. The switch changes none of these frames, so that one burst serves all turns.
fn measure(flows: u16, report: &mut ProcessReport) -> f64 {
    let mut switch = Switch::new(Shared::new(), program(), 7);
    let mut out = Outputs::default();
    let mut burst = Burst::new();
    while !burst.is_full() {
        burst.push_owned(frame(), Offload::NONE).expect("a burst takes frames until it is full");
    }
    let mut flow = 0;
    let start = cpu_ns();
    for turn in 0..TURNS {
        for frame in 0..BURST_FRAMES {
            flow = if flow + 1 < flows { flow + 1 } else { 0 };
            let [a, b] = flow.to_be_bytes();
            burst.head_mut(frame)[34..38].copy_from_slice(&[a, b, 0, 53]);
        }
        out.clear();
        switch.process(&mut burst, PortNo(1), Now { ms: turn as u64 / 1000 }, &mut out, report);
        black_box(out.groups().len());
    }
    (cpu_ns() - start) as f64 / (TURNS * BURST_FRAMES) as f64
}

/// Nanoseconds that this thread has run so far (Linux's scheduler statistics: the first number).
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has schedstat");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("its first field is a number")
}

fn frame() -> Vec<u8> {
    let path = Path {
        source_mac: station(1),
        destination_mac: station(2),
        source: Ipv4Addr::new(10, 0, 0, 1).into(),
        destination: Ipv4Addr::new(10, 0, 0, 2).into(),
    };
    build::udp(path, (1024, 53), &[0; 22])
}

fn station(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

fn program() -> std::sync::Arc<Program> {
    let network = NetworkSpec {
        number: NetworkNo(1),
        name: "bench".to_owned(),
        flood_unknown: true,
        mac_age_ms: 300_000,
        mac_limit: 1024,
        gateway: None,
        dhcp: None,
        overlay: None,
    };
    let port = |number: u16| PortSpec {
        number: PortNo(number),
        name: format!("port-{number}"),
        network: NetworkNo(1),
        vlan: VlanMode::Access(None),
        macs: vec![station(number as u8)],
        ips: vec![Ipv4Addr::new(10, 0, 0, number as u8).into()],
        port_security: true,
        mac_limit: 16,
        isolated: false,
        mtu_bytes: 1500,
        policy: None,
    };
    let ports: BTreeMap<_, _> = [1, 2].map(|number| (PortNo(number), port(number))).into();
    let spec = ProgramSpec {
        version: 1,
        networks: [(NetworkNo(1), network)].into(),
        ports,
        ..ProgramSpec::default()
    };
    Program::build(spec).expect("the program is consistent")
}
