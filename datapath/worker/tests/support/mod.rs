//! What every test of the datapath needs: programs, frames, and a way to wait for what must come.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ports::mem::{self, MemPeer, MemSpec};
use vswitch::Program;
use vswitch::program::{NetworkNo, NetworkSpec, PortNo, PortSpec, ProgramSpec, VlanMode};
use wire::MacAddr;
use worker::{Config, Counters, Datapath, allowed_cpus};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The station behind port `number`.
pub(crate) fn mac(number: u16) -> MacAddr {
    let [high, low] = number.to_be_bytes();
    MacAddr([2, 0, 0, 0, high, low])
}

/// A frame of `len` bytes from the station of one port to that of another, of an ethertype that only L2 knows.
pub(crate) fn frame(from: u16, to: MacAddr, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..6].copy_from_slice(&to.0);
    bytes[6..12].copy_from_slice(&mac(from).0);
    bytes[12..14].copy_from_slice(&0x88b5u16.to_be_bytes());
    bytes
}

/// A program of one network with `ports`, each with its station and `port_security` as said.
pub(crate) fn program(version: u64, ports: &[u16], port_security: bool) -> Arc<Program> {
    let number = NetworkNo(1);
    let network = NetworkSpec {
        number,
        name: "net".into(),
        flood_unknown: true,
        mac_age_ms: 300_000,
        mac_limit: 100,
        gateway: None,
        dhcp: None,
        overlay: None,
    };
    let port = |port: &u16| PortSpec {
        number: PortNo(*port),
        name: format!("port-{port}"),
        network: number,
        vlan: VlanMode::Access(None),
        macs: vec![mac(*port)],
        ips: vec![],
        port_security,
        mac_limit: 10,
        isolated: false,
        mtu_bytes: 65_521,
        policy: None,
    };
    let spec = ProgramSpec {
        version,
        networks: [(number, network)].into(),
        ports: ports.iter().map(|number| (PortNo(*number), port(number))).collect(),
        ..ProgramSpec::default()
    };
    Program::build(spec).unwrap()
}

/// A datapath of `workers` workers on the CPUs there are.
pub(crate) fn datapath(workers: usize) -> Datapath {
    let cpus: Vec<usize> = allowed_cpus().into_iter().cycle().take(workers).collect();
    Datapath::start(&Config::on(cpus)).unwrap()
}

/// Adds a port in memory.
pub(crate) fn add(datapath: &Datapath, number: u16, spec: MemSpec) -> MemPeer {
    let (device, peer) = mem::open(spec).unwrap();
    datapath.add_port(PortNo(number), device).unwrap();
    peer
}

/// Room for everything that a test sends.
pub(crate) fn roomy() -> MemSpec {
    MemSpec { queues: 1, capacity_frames: 1 << 20 }
}

/// Waits until `done` is true.
#[allow(clippy::disallowed_methods, reason = "a test's deadline")]
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until all of the `injected` frames have come in and each has its end; returns the total.
pub(crate) fn settled(datapath: &Datapath, injected: u64) -> Counters {
    let all_ended = || {
        let total = datapath.counters().total;
        total.rx_frames == injected && total.is_balanced()
    };
    wait_until("every frame has its end", all_ended);
    datapath.counters().total
}
