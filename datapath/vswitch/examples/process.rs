//! What does a frame cost in the switch alone? `cargo run --release -p vswitch --example process`
//!
//! Bursts of 64-byte UDP frames over some number of flows between two ports, filled anew each turn as a port would; the
//! cost of filling is measured apart and taken off. CPU time is counted, so that a busy machine disturbs little; compare
//! figures of one run only.
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
        let frames = frames(flows);
        let mut best = f64::MAX;
        let mut report = ProcessReport::default();
        for _ in 0..ROUNDS {
            let fill = measure(&frames, None);
            let mut switch = Switch::new(Shared::new(), program(), 7);
            report = ProcessReport::default();
            let both = measure(&frames, Some((&mut switch, &mut report)));
            best = best.min(both - fill);
        }
        println!(
            "{flows:>8} {best:>14.2} {:>12} {:>12} {:>8}",
            report.microflow_hits, report.megaflow_hits, report.misses
        );
    }
}

/// Nanoseconds per frame to fill bursts, and to process them if there is a switch.
fn measure(frames: &[Vec<u8>], mut switch: Option<(&mut Switch, &mut ProcessReport)>) -> f64 {
    let mut burst = Burst::new();
    let mut out = Outputs::default();
    let mut next = frames.iter().cycle();
    let start = cpu_ns();
    for turn in 0..TURNS {
        for bytes in next.by_ref().take(BURST_FRAMES) {
            push(&mut burst, bytes);
        }
        if let Some((switch, report)) = &mut switch {
            out.clear();
            switch.process(&mut burst, PortNo(1), Now { ms: turn as u64 / 1000 }, &mut out, report);
            black_box(out.groups().len());
        }
        black_box(burst.head(0)[0]);
        burst.clear();
    }
    (cpu_ns() - start) as f64 / (TURNS * BURST_FRAMES) as f64
}

/// Nanoseconds that this thread has run so far (Linux's scheduler statistics: the first number).
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has schedstat");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("its first field is a number")
}

fn push(burst: &mut Burst, bytes: &[u8]) {
    // SAFETY: the frames live longer than the burst.
    let pushed = unsafe { burst.push(bytes.as_ptr(), bytes.len(), Offload::NONE) };
    pushed.expect("a burst takes as many frames as it says");
}

fn frames(flows: u16) -> Vec<Vec<u8>> {
    let path = Path {
        source_mac: station(1),
        destination_mac: station(2),
        source: Ipv4Addr::new(10, 0, 0, 1).into(),
        destination: Ipv4Addr::new(10, 0, 0, 2).into(),
    };
    (0..flows).map(|flow| build::udp(path, (1024 + flow, 53), &[0; 22])).collect()
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
    };
    let ports: BTreeMap<_, _> = [1, 2].map(|number| (PortNo(number), port(number))).into();
    let spec = ProgramSpec { version: 1, networks: [(NetworkNo(1), network)].into(), ports };
    Program::build(spec).expect("the program is consistent")
}
