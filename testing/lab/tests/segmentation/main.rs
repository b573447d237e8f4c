//! Does a real kernel agree with our software segmentation and checksums? A guest that leaves all work to the switch, a
//! pod whose TAP takes none of it, and the other way round. Every byte is compared; the kernel verifies every checksum.

mod stream;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest::{Features, Guest, NetHeader};
use lab::{Netns, require};
use ports::offload::Capabilities;
use ports::tap::{self, TapSpec};
use ports::vhost_user::{Role, VhostUserControl, VhostUserSpec};
use stream::Stream;
use tempfile::TempDir;
use vswitch::Program;
use vswitch::program::{NetworkNo, NetworkSpec, PortNo, PortSpec, ProgramSpec, VlanMode};
use wire::MacAddr;
use wire::build::{self, Path};
use worker::{Config, Datapath, allowed_cpus};

const PATIENCE: Duration = Duration::from_secs(20);
const POD: PortNo = PortNo(1);
const GUEST: PortNo = PortNo(2);
const FAMILIES: [(&str, &str); 2] = [("10.9.2.1", "10.9.2.2"), ("fd09:2::1", "fd09:2::2")];

fn mac(port: PortNo) -> MacAddr {
    MacAddr([2, 0, 0, 9, 2, port.0 as u8])
}

/// A guest and a kernel pod behind one switch.
struct Bench {
    guest: Guest,
    pod: Netns,
    datapath: Datapath,
    _control: Arc<VhostUserControl>,
    _folder: TempDir,
}

impl Bench {
    /// `None`, with the reason said, if `test` cannot run here.
    fn new(test: &str, pod_takes: Capabilities, guest_takes: Features) -> Option<Bench> {
        let pod = match Netns::new() {
            Ok(pod) => pod,
            Err(error) => {
                let _ = require(test, Err(format!("no network namespace can be made: {error}")));
                return None;
            }
        };
        let datapath = Datapath::start(&Config::on(&allowed_cpus()[..1])).unwrap();
        datapath.set_program(program());
        let tap = TapSpec {
            netns: Some(pod.path()),
            mac: Some(mac(POD)),
            capabilities: pod_takes,
            ..TapSpec::named("eth0")
        };
        datapath.add_port(POD, tap::open(&tap).unwrap()).unwrap();
        let (folder, control) = (TempDir::new().unwrap(), VhostUserControl::start().unwrap());
        let socket_path = folder.path().join("guest");
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let spec = VhostUserSpec {
            socket_path: socket_path.clone(),
            role: Role::Create { uid, gid, mode: 0o600 },
            queue_pairs: 1,
            mac: None,
            mtu_bytes: 1500,
        };
        datapath.add_port(GUEST, control.open(spec).unwrap()).unwrap();
        let guest = Guest::builder().features(Features::RINGS | guest_takes).connect(&socket_path).unwrap();
        configure(&pod);
        Some(Bench { guest, pod, datapath, _control: control, _folder: folder })
    }

    /// From the guest to the pod.
    fn path(&self, (pod, guest): (&str, &str)) -> Path {
        Path {
            source_mac: mac(GUEST),
            destination_mac: mac(POD),
            source: guest.parse().unwrap(),
            destination: pod.parse().unwrap(),
        }
    }

    /// A UDP socket of the pod.
    fn socket(&self, address: IpAddr) -> UdpSocket {
        let socket = self.pod.run(|| UdpSocket::bind(SocketAddr::new(address, 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A UDP frame of the guest that leaves its checksum, and the cutting as `gso_type` says, to the switch.
    fn send_large(&mut self, path: Path, port: u16, payload: &[u8], gso: (u8, u16)) {
        let mut frame = build::udp(path, (7, port), payload);
        let start = frame.len() - payload.len() - wire::udp::HEADER_BYTES;
        stream::leave_sum_partial(&mut frame, path, start, wire::udp::field::CHECKSUM.start);
        let header = NetHeader {
            flags: NetHeader::NEEDS_CSUM,
            gso_type: gso.0,
            hdr_len: (start + wire::udp::HEADER_BYTES) as u16,
            gso_size: gso.1,
            csum_start: start as u16,
            csum_offset: wire::udp::field::CHECKSUM.start as u16,
            num_buffers: 0,
        };
        self.guest.send_with(&header, &frame).unwrap();
    }

    fn assert_nothing_was_refused(&self) {
        let ports = self.datapath.counters().ports;
        for reason in
            [frame::DropReason::BadOffload, frame::DropReason::KernelRefused, frame::DropReason::TooBig]
        {
            assert_eq!(ports[&GUEST].drops.get(reason) + ports[&POD].drops.get(reason), 0, "{reason:?}");
        }
    }
}

impl Drop for Bench {
    /// What a failed test needs to be understood.
    #[allow(clippy::print_stderr, reason = "shown with the test's failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for port in self.datapath.ports() {
                eprintln!("{port:?}");
            }
            eprintln!("{:?}", self.datapath.workers());
            eprintln!("{}", self.pod.ip("-s link show eth0").unwrap_or_default());
        }
    }
}

fn program() -> Arc<Program> {
    let network = NetworkSpec {
        number: NetworkNo(1),
        name: "lab".into(),
        flood_unknown: true,
        mac_age_ms: 300_000,
        mac_limit: 100,
        gateway: None,
        dhcp: None,
        overlay: None,
    };
    let port = |number: PortNo| PortSpec {
        number,
        name: format!("port-{}", number.0),
        network: NetworkNo(1),
        vlan: VlanMode::Access(None),
        macs: vec![mac(number)],
        ips: vec![],
        port_security: false,
        mac_limit: 10,
        isolated: false,
        mtu_bytes: 1500,
        policy: None,
    };
    let ports = [POD, GUEST].map(|number| (number, port(number))).into();
    Program::build(ProgramSpec {
        version: 1,
        networks: [(NetworkNo(1), network)].into(),
        ports,
        ..ProgramSpec::default()
    })
    .unwrap()
}

fn configure(pod: &Netns) {
    pod.ip("link set eth0 up").unwrap();
    for (own, peer) in FAMILIES {
        let (prefix, nodad) = if own.contains(':') { (64, "nodad") } else { (24, "") };
        pod.ip(&format!("addr add {own}/{prefix} dev eth0 {nodad}")).unwrap();
        pod.ip(&format!("neigh replace {peer} lladdr {} dev eth0 nud permanent", mac(GUEST))).unwrap();
    }
    // The kernel makes an IPv6 address local in its own time, and drops what comes before.
    #[allow(clippy::disallowed_methods, reason = "a deadline")]
    let start = Instant::now();
    while !pod.ip("-6 route show table local dev eth0").unwrap().contains(FAMILIES[1].0) {
        assert!(start.elapsed() < PATIENCE, "the pod's IPv6 address does not become local");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes of which no part looks like another.
fn payload(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn tcp_segments_of_a_guest_reach_a_pod_that_takes_none_whole() {
    let test = "tcp_segments_of_a_guest_reach_a_pod_that_takes_none_whole";
    let Some(mut bench) = Bench::new(test, Capabilities::NONE, Features::OFFLOADS) else { return };
    let sent = payload(50_000);
    for family in FAMILIES {
        let path = bench.path(family);
        let listener = bench.pod.run(|| TcpListener::bind(SocketAddr::new(path.destination, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut stream = Stream::connect(&mut bench.guest, path, port, PATIENCE);
        let (mut server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        for chunk in sent.chunks(25_000) {
            stream.send_large(chunk, 1440);
            let mut received = vec![0; chunk.len()];
            server.read_exact(&mut received).unwrap();
            assert!(received == chunk, "{family:?}: the stream was damaged");
        }
    }
    bench.assert_nothing_was_refused();
}

#[test]
fn tcp_segments_of_a_pod_reach_a_guest_that_takes_none_whole() {
    let test = "tcp_segments_of_a_pod_reach_a_guest_that_takes_none_whole";
    let Some(mut bench) = Bench::new(test, Capabilities::ALL, Features::empty()) else { return };
    let sent = payload(100_000);
    for family in FAMILIES {
        let path = bench.path(family);
        let listener = bench.pod.run(|| TcpListener::bind(SocketAddr::new(path.destination, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut stream = Stream::connect(&mut bench.guest, path, port, PATIENCE);
        let (mut server, _) = listener.accept().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| server.write_all(&sent).unwrap());
            // The guest checks that every frame fits a 1500 byte MTU and that its checksum is right.
            let received = stream.receive(sent.len(), PATIENCE);
            assert!(received == sent, "{family:?}: the stream was damaged");
        });
    }
    bench.assert_nothing_was_refused();
}

#[test]
fn large_udp_frames_of_a_guest_reach_a_pod_as_the_datagrams_they_stand_for() {
    let test = "large_udp_frames_of_a_guest_reach_a_pod_as_the_datagrams_they_stand_for";
    let Some(mut bench) = Bench::new(test, Capabilities::NONE, Features::OFFLOADS) else { return };
    let sent = payload(20_001);
    for family in FAMILIES {
        let path = bench.path(family);
        let socket = bench.socket(path.destination);
        bench.send_large(path, socket.local_addr().unwrap().port(), &sent, (NetHeader::GSO_UDP_L4, 1000));
        let mut buffer = [0; 2000];
        for expected in sent.chunks(1000) {
            let len = socket.recv(&mut buffer).unwrap();
            assert!(buffer[..len] == *expected, "{family:?}: a datagram was damaged");
        }
    }
    bench.assert_nothing_was_refused();
}

#[test]
fn a_large_udp_datagram_of_a_guest_reaches_a_pod_in_fragments() {
    let test = "a_large_udp_datagram_of_a_guest_reaches_a_pod_in_fragments";
    let Some(mut bench) = Bench::new(test, Capabilities::NONE, Features::OFFLOADS) else { return };
    let sent = payload(20_001);
    for family in FAMILIES {
        let path = bench.path(family);
        let socket = bench.socket(path.destination);
        bench.send_large(path, socket.local_addr().unwrap().port(), &sent, (NetHeader::GSO_UDP, 1448));
        let mut buffer = vec![0; 65_536];
        let len = socket.recv(&mut buffer).unwrap();
        assert!(buffer[..len] == *sent, "{family:?}: the datagram was damaged");
    }
    bench.assert_nothing_was_refused();
}
