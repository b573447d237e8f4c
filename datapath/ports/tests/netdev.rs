//! Does a port on an interface take what it is to take, and leave the host alone? Against the real kernel, in private
//! network namespaces: a *node* whose interface `up0` is a veth to the *outside*.

mod cross;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use cross::connected;
use frame::{Burst, Checksum, DropReason, Gso, GsoKind, Offload};
use lab::{Netns, ping, require, stream};
use ports::netdev::{self, Mode, NetdevError, NetdevSpec, Take};
use ports::tap::{self, TapSpec};
use ports::{Device, WaitSet};

const PATIENCE: Duration = Duration::from_secs(5);
const MODES: [Mode; 2] = [Mode::Packet, Mode::Xdp];

/// A node and the outside, connected, or `None` with the reason said.
struct Bed {
    node: Netns,
    outside: Netns,
}

impl Bed {
    fn new(test: &str) -> Option<Bed> {
        match Self::make() {
            Ok(bed) => Some(bed),
            Err(error) => {
                let _ = require(test, Err(format!("no network namespaces can be made: {error}")));
                None
            }
        }
    }

    fn make() -> io::Result<Bed> {
        let bed = Bed { node: Netns::new()?, outside: Netns::new()? };
        bed.node.ip("link add up0 type veth peer name eth0")?;
        bed.node.ip(&format!("link set eth0 netns {}", bed.outside.path().display()))?;
        bed.node.ip("link set up0 up")?;
        bed.outside.ip("link set eth0 up")?;
        bed.wait_for_carriers()?;
        Ok(bed)
    }

    /// Until the kernel has noticed them, it drops what is sent, and says that it was.
    fn wait_for_carriers(&self) -> io::Result<()> {
        let over = patience();
        for (netns, netdev) in [(&self.node, "up0"), (&self.outside, "eth0")] {
            while !netns.ip(&format!("link show {netdev}"))?.contains("state UP") {
                if over() {
                    return Err(io::Error::other(format!("{netdev} has no carrier")));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    fn open(&self, take: Take, mode: Mode) -> Device {
        open(&self.node, "up0", take, mode).unwrap()
    }
}

fn open(netns: &Netns, netdev: &str, take: Take, mode: Mode) -> Result<Device, NetdevError> {
    let spec = NetdevSpec { netdev: netdev.to_owned(), take, mode };
    netns.run(|| Ok(netdev::open(&spec))).unwrap()
}

fn only(udp_ports: &[u16], vlans: &[u16]) -> Take {
    Take::Only { udp_ports: udp_ports.to_vec(), vlans: vlans.to_vec() }
}

fn address(netns: &Netns, netdev: &str, last: u8) {
    netns.ip(&format!("addr add 10.9.0.{last}/24 dev {netdev}")).unwrap();
    netns.ip(&format!("addr add fd09::{last}/64 dev {netdev} nodad")).unwrap();
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, last)
}

fn v6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, last.into())
}

/// Whether the patience of whoever began to wait now is over.
fn patience() -> impl Fn() -> bool {
    #[allow(clippy::disallowed_methods, reason = "a deadline")]
    let start = Instant::now();
    move || start.elapsed() > PATIENCE
}

/// Frames that come in by any queue of `device` until `enough`, or the patience is over.
fn received(device: &mut Device, enough: impl Fn(&[(Vec<u8>, Offload)]) -> bool) -> Vec<(Vec<u8>, Offload)> {
    let mut burst = Burst::new();
    let mut waits = WaitSet::default();
    let mut frames = Vec::new();
    let over = patience();
    while !enough(&frames) && !over() {
        waits.clear();
        let mut ready = false;
        for rx in &mut device.rx {
            rx.poll(&mut burst, &mut |burst| {
                frames.extend(
                    (0..burst.len()).map(|index| (burst.gather(index).to_vec(), burst.offload(index))),
                );
            });
            ready |= rx.arm();
            rx.fd().into_iter().for_each(|fd| waits.add(fd));
        }
        if !ready {
            waits.wait(Some(Duration::from_millis(20))).unwrap();
        }
    }
    frames
}

/// Waits until the link's detail has `words` in it: the kernel tells of carriers in its own time.
fn wait_for_link(device: &Device, words: &str) {
    let over = patience();
    while !device.handle.link().detail.contains(words) {
        assert!(!over(), "{:?}", device.handle.link());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Why the device did not take a frame.
fn send(device: &Device, frame: Vec<u8>, offload: Offload) -> Option<DropReason> {
    let mut burst = Burst::new();
    burst.push_owned(frame, offload).unwrap();
    let report = device.tx[0].send(&burst, &[0]);
    assert_eq!(report.frames + report.drops.total(), 1);
    report.drops.iter().next().map(|(reason, _)| reason)
}

/// Why a device whose interface is down did not take a frame.
fn send_down(device: &Device, mode: Mode) -> Option<DropReason> {
    if mode == Mode::Xdp {
        // It is by this frame, which waits in its ring, that the interface is found to be down.
        send(device, tagged(&[], &[1; 60]), Offload::NONE);
    }
    send(device, tagged(&[], &[1; 60]), Offload::NONE)
}

#[test]
fn a_pod_and_the_outside_ping_and_stream_through_a_port_that_takes_all() {
    let Some(bed) = Bed::new("a_pod_and_the_outside_ping_and_stream_through_a_port_that_takes_all") else {
        return;
    };
    let pod = Netns::new().unwrap();
    address(&bed.outside, "eth0", 2);
    for mode in MODES {
        let uplink = bed.open(Take::All, mode);
        let tap = TapSpec { netns: Some(pod.path()), ..TapSpec::named("tap0") };
        let tap = tap::open(&tap).unwrap();
        tap.handle.retire();
        pod.ip("link set tap0 up").unwrap();
        address(&pod, "tap0", 1);
        let seen = connected([tap, uplink], || {
            assert_eq!(ping(&pod, v4(2), 3, PATIENCE).unwrap().lost(), 0, "{mode:?}");
            for (from, to, last) in [(&pod, &bed.outside, 2), (&bed.outside, &pod, 1)] {
                for address in [IpAddr::from(v4(last)), v6(last).into()] {
                    let report = stream(from, to, address, 131_072, Duration::from_millis(300)).unwrap();
                    assert!(report.bytes > 1_000_000, "{mode:?}, {address}: {report:?}");
                }
            }
        });
        if mode == Mode::Packet {
            assert!(seen.longest.load(Relaxed) > 60_000, "the longest frame had {:?} bytes", seen.longest);
            assert_eq!(seen.copied.load(Relaxed), 0);
        }
    }
}

fn assert_stream_to_the_node(bed: &Bed) {
    let report = stream(&bed.outside, &bed.node, v4(1).into(), 131_072, Duration::from_millis(200)).unwrap();
    assert!(report.bytes > 1_000_000, "{report:?}");
}

/// Sends datagrams from the outside to the node and says whether the node's kernel refused one.
fn is_refused(bed: &Bed, from: SocketAddr, to: SocketAddr) -> bool {
    bed.outside
        .run(|| {
            let socket = UdpSocket::bind(from)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            for _ in 0..5 {
                match socket.send(b"tunnelled").and_then(|_| socket.recv(&mut [0; 9])) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(true),
                    _ => {}
                }
            }
            Ok(false)
        })
        .unwrap()
}

#[test]
fn a_port_that_takes_a_tunnel_leaves_the_host_its_own() {
    let Some(bed) = Bed::new("a_port_that_takes_a_tunnel_leaves_the_host_its_own") else { return };
    address(&bed.node, "up0", 1);
    address(&bed.outside, "eth0", 2);
    for mode in MODES {
        let mut port = bed.open(only(&[6081], &[]), mode);
        assert_eq!(ping(&bed.outside, v4(1), 3, PATIENCE).unwrap().lost(), 0);
        let report =
            stream(&bed.outside, &bed.node, v4(1).into(), 131_072, Duration::from_millis(200)).unwrap();
        assert!(report.bytes > 1_000_000, "{mode:?}: {report:?}");
        for (from, to) in [(IpAddr::from(v4(2)), IpAddr::from(v4(1))), (v6(2).into(), v6(1).into())] {
            assert!(is_refused(&bed, (from, 0).into(), (to, 6082).into()), "{mode:?}: as by any host");
            assert!(!is_refused(&bed, (from, 0).into(), (to, 6081).into()), "{mode:?}: the port is taken");
        }
        let is_tunnel = |frame: &[u8]| frame.ends_with(b"tunnelled");
        let frames = received(&mut port, |frames| frames.len() >= 10);
        assert_eq!(frames.len(), 10, "{mode:?}");
        assert!(frames.iter().all(|(frame, _)| is_tunnel(frame)), "{mode:?}");
    }
}

/// A frame of `payload` with `tags`, to nobody in particular.
fn tagged(tags: &[[u8; 4]], payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 9, 9, 2, 0, 0, 0, 9, 8][..], &tags.concat(), &[0x88, 0xb5], payload].concat()
}

#[test]
fn frames_of_a_vlan_come_with_their_tags() {
    let Some(bed) = Bed::new("frames_of_a_vlan_come_with_their_tags") else { return };
    for mode in MODES {
        let outside = open(&bed.outside, "eth0", Take::All, Mode::Packet).unwrap();
        let mut port = bed.open(only(&[], &[7, 9]), mode);
        let (seven, eight, service) = ([0x81, 0, 0x20, 7], [0x81, 0, 0, 8], [0x88, 0xa8, 0, 9]);
        let wanted = [tagged(&[seven], &[1; 60]), tagged(&[service, eight], &[3; 1400])];
        for frame in [&wanted[0], &tagged(&[eight], &[2; 60]), &tagged(&[], &[2; 60]), &wanted[1]] {
            assert_eq!(send(&outside, frame.clone(), Offload::NONE), None);
        }
        let frames = received(&mut port, |frames| frames.len() >= 2);
        let frames: Vec<_> = frames.into_iter().map(|(frame, _)| frame).collect();
        assert_eq!(frames, wanted, "{mode:?}");
    }
}

/// A large TCP segment in a VLAN.
fn large_tagged() -> (Vec<u8>, Offload) {
    let mut frame = tagged(&[[0x81, 0, 0, 7]], &[]);
    frame.truncate(16);
    frame.extend([0x08, 0x00, 0x45, 0, 0x0b, 0xe0, 0, 1, 0, 0, 64, 6, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1]);
    frame.extend([0x12, 0x34, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend([9; 3000]);
    let gso = Gso { kind: GsoKind::TcpV4, size: 1000, ecn: false, headers_bytes: 58 };
    let checksum = Checksum::Partial { start: 38, offset: 16 };
    (frame, Offload { checksum, gso: Some(gso), ..Offload::NONE })
}

#[test]
fn a_large_segment_crosses_whole_in_its_vlan() {
    let Some(bed) = Bed::new("a_large_segment_crosses_whole_in_its_vlan") else { return };
    let outside = open(&bed.outside, "eth0", Take::All, Mode::Packet).unwrap();
    let mut port = bed.open(only(&[], &[7]), Mode::Packet);
    let (frame, offload) = large_tagged();
    assert_eq!(send(&outside, frame.clone(), offload), None);
    let frames = received(&mut port, |frames| !frames.is_empty());
    let [(whole, mut left)] = <[_; 1]>::try_from(frames).unwrap();
    assert!(whole == frame, "{} bytes", whole.len());
    // A hint, which the kernel makes anew.
    left.gso.as_mut().unwrap().headers_bytes = 58;
    assert_eq!(left, offload);
}

/// The headers of a tunnel from the node to the outside, which want a checksum. Lengths are the cutter's to write.
fn tunnel(v6: bool) -> Vec<u8> {
    let mut link = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1];
    link.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    let ip = if v6 {
        [&[0x60, 0, 0, 0, 0, 180, 17, 64][..], &v6_octets(1), &v6_octets(2)].concat()
    } else {
        vec![0x45, 0, 0, 200, 0, 1, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]
    };
    let udp = [0xc0, 0, 0x17, 0xc1, 0, 180, 0xff, 0xff];
    [&link[..], &ip, &udp, &[0, 0, 0x65, 0x58, 0, 0, 7, 0]].concat()
}

fn v6_octets(last: u8) -> [u8; 16] {
    v6(last).octets()
}

/// Sends a large segment in a tunnel by `port`.
fn send_in_tunnel(port: &Device, v6: bool, payload: usize) {
    let (mut inner, offload) = large_tagged();
    inner.truncate(58);
    inner.resize(58 + payload, 9);
    inner[20..22].copy_from_slice(&(40 + payload as u16).to_be_bytes());
    let mut burst = Burst::new();
    burst.push_owned(inner, offload).unwrap();
    assert!(burst.encapsulate(0, &tunnel(v6)));
    assert_eq!(port.tx[0].send(&burst, &[0]).frames, 1, "{:?}", port.handle.link());
}

/// The segments of `payload` bytes come to `socket`, each in a packet of the tunnel, with the checksums that they should have.
fn assert_segments_come_to(socket: &UdpSocket, payload: usize, what: &str) {
    for number in 0..payload.div_ceil(1000) {
        // A datagram with a wrong checksum does not come to a socket.
        let mut datagram = [0; 2000];
        let len = socket.recv(&mut datagram).expect(what);
        let tcp = &datagram[8..len][38..];
        let sequence = 1 + 1000 * number as u32;
        let segment = 20 + (payload - 1000 * number).min(1000);
        assert_eq!((tcp.len(), &tcp[4..8]), (segment, &sequence.to_be_bytes()[..]), "{what}");
        let pseudo = wire::checksum::pseudo_v4(v4(2), v4(1), wire::IpProtocol::TCP, tcp.len() as u16);
        assert_eq!(pseudo.add_bytes(tcp).checksum(), 0, "{what}: the inner checksum");
    }
}

#[test]
fn segments_in_a_tunnel_pass_the_checks_of_the_kernel_that_receives_them() {
    let test = "segments_in_a_tunnel_pass_the_checks_of_the_kernel_that_receives_them";
    let Some(bed) = Bed::new(test) else { return };
    address(&bed.outside, "eth0", 2);
    // Where the interface finishes no checksums, the kernel parts trains in front of it, and what comes is verified.
    for (mode, finishes) in [(Mode::Packet, "on"), (Mode::Packet, "off"), (Mode::Xdp, "off")] {
        bed.node.command("ethtool", &format!("-K up0 tx {finishes}")).unwrap();
        let port = bed.open(only(&[6081], &[]), mode);
        for (to, payload) in [(SocketAddr::from((v4(2), 6081)), 3000), ((v6(2), 6081).into(), 64_700)] {
            let socket = bed.outside.run(|| UdpSocket::bind(to)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            send_in_tunnel(&port, to.is_ipv6(), payload);
            assert_segments_come_to(&socket, payload, &format!("{mode:?}, tx {finishes}, to {to}"));
        }
    }
}

#[test]
fn segments_in_a_tunnel_leave_a_packet_socket_as_one_packet() {
    let Some(bed) = Bed::new("segments_in_a_tunnel_leave_a_packet_socket_as_one_packet") else { return };
    let mut outside = open(&bed.outside, "eth0", Take::All, Mode::Packet).unwrap();
    let port = bed.open(only(&[6081], &[]), Mode::Packet);
    send_in_tunnel(&port, false, 3000);
    let is_tunnel = |(frame, _): &(Vec<u8>, Offload)| frame.get(36..38) == Some(&[0x17, 0xc1]);
    let frames = received(&mut outside, |frames| frames.iter().any(is_tunnel));
    let (train, left) = frames.iter().find(|frame| is_tunnel(frame)).expect("it came");
    assert_eq!(
        (train.len(), left.gso.map(|gso| (gso.kind, gso.size))),
        (42 + 3 * (8 + 58 + 1000), Some((GsoKind::UdpSegment, 8 + 58 + 1000)))
    );
}

#[test]
fn segments_in_a_tunnel_are_one_frame_again_where_they_arrive() {
    let Some(bed) = Bed::new("segments_in_a_tunnel_are_one_frame_again_where_they_arrive") else { return };
    for mode in MODES {
        let mut outside = open(&bed.outside, "eth0", only(&[6081], &[]), mode).unwrap();
        let port = bed.open(only(&[6081], &[]), Mode::Packet);
        for v6 in [false, true] {
            let payload = 30_000;
            send_in_tunnel(&port, v6, payload);
            let came =
                |frames: &[(Vec<u8>, Offload)]| frames.iter().map(|(frame, _)| frame.len()).sum::<usize>();
            let frames = received(&mut outside, |frames| came(frames) > payload);
            // By XDP one receive may see only the first of them.
            assert!(
                frames.len() == 1 || mode == Mode::Xdp && frames.len() < 15,
                "{mode:?}: {}",
                frames.len()
            );
            let outer = tunnel(v6).len();
            for (frame, left) in frames {
                let gso = left.gso.expect("it is large again");
                assert_eq!(
                    (gso.kind, gso.size, usize::from(left.outer_bytes)),
                    (GsoKind::TcpV4, 1000, outer)
                );
                let start = outer as u16 + 38;
                assert_eq!(left.checksum, Checksum::Partial { start, offset: 16 });
                assert!((frame.len() - outer - 58).is_multiple_of(1000));
            }
        }
    }
}

#[test]
fn an_interface_that_is_down_takes_no_frame_until_it_is_up_again() {
    let Some(bed) = Bed::new("an_interface_that_is_down_takes_no_frame_until_it_is_up_again") else { return };
    for mode in MODES {
        let mut port = bed.open(Take::All, mode);
        wait_for_link(&port, "all frames");
        bed.node.ip("link set up0 down").unwrap();
        assert_eq!(send_down(&port, mode), Some(DropReason::PortDown), "{mode:?}");
        let link = port.handle.link();
        assert!(!link.up && link.detail.contains("set down"), "{link:?}");
        bed.node.ip("link set up0 up").unwrap();
        bed.wait_for_carriers().unwrap();
        let outside = open(&bed.outside, "eth0", Take::All, Mode::Packet).unwrap();
        assert_eq!(send(&outside, tagged(&[], &[7; 60]), Offload::NONE), None);
        let is_ours = |(frame, _): &(Vec<u8>, Offload)| frame.ends_with(&[7; 60]);
        assert!(received(&mut port, |frames| frames.iter().any(is_ours)).iter().any(is_ours), "{mode:?}");
        assert_eq!(send(&port, tagged(&[], &[1; 60]), Offload::NONE), None, "{mode:?}");
    }
}

/// Wakes that a sleeping worker gets in a moment; each is answered by polls until nothing is left.
fn wakes(device: &mut Device) -> u32 {
    let (mut burst, mut waits, mut wakes) = (Burst::new(), WaitSet::default(), 0);
    let deadline = Duration::from_millis(100);
    #[allow(clippy::disallowed_methods, reason = "a deadline")]
    let start = Instant::now();
    while let Some(left) = deadline.checked_sub(start.elapsed()) {
        while device.rx[0].poll(&mut burst, &mut |_| ()).frames > 0 || device.rx[0].arm() {}
        waits.clear();
        waits.add(device.rx[0].fd().unwrap());
        waits.wait(Some(left)).unwrap();
        wakes += 1;
    }
    wakes
}

#[test]
fn a_port_that_nothing_comes_by_wakes_nobody() {
    let Some(bed) = Bed::new("a_port_that_nothing_comes_by_wakes_nobody") else { return };
    for mode in MODES {
        let mut port = bed.open(only(&[6081], &[7]), mode);
        let outside = open(&bed.outside, "eth0", Take::All, Mode::Packet).unwrap();
        assert_eq!(send(&port, tagged(&[], &[1; 60]), Offload::NONE), None);
        // The end of the moment, which milliseconds may cut in two, and a stray frame; one that spins wakes thousands of times.
        assert!(wakes(&mut port) < 10, "{mode:?}");
        assert_eq!(send(&outside, tagged(&[[0x81, 0, 0, 7]], &[1; 60]), Offload::NONE), None);
        assert_eq!(received(&mut port, |frames| !frames.is_empty()).len(), 1, "{mode:?}");
    }
}

#[test]
fn an_interface_deleted_under_its_port_leaves_quiet_queues_and_a_link_that_says_so() {
    let test = "an_interface_deleted_under_its_port_leaves_quiet_queues_and_a_link_that_says_so";
    for mode in MODES {
        let Some(bed) = Bed::new(test) else { return };
        let mut port = bed.open(Take::All, mode);
        port.rx[0].arm();
        let fd = port.rx[0].fd().unwrap();
        bed.node.ip("link del up0").unwrap();
        let mut waits = WaitSet::default();
        waits.add(fd);
        waits.wait(Some(Duration::from_millis(200))).unwrap();
        let mut burst = Burst::new();
        for rx in &mut port.rx {
            // What the outside's kernel has sent before.
            while rx.poll(&mut burst, &mut |_| ()).frames > 0 {}
            assert!(!rx.arm(), "{mode:?}");
            assert_eq!(rx.fd(), None, "{mode:?}");
        }
        assert_eq!(send_down(&port, mode), Some(DropReason::PortDown), "{mode:?}");
        let link = port.handle.link();
        assert!(!link.up && link.detail.contains("deleted"), "{link:?}");
    }
}

#[test]
fn what_cannot_be_opened_is_refused_by_name() {
    let Some(bed) = Bed::new("what_cannot_be_opened_is_refused_by_name") else { return };
    for mode in MODES {
        let refused = |netdev: &str, take| open(&bed.node, netdev, take, mode).unwrap_err();
        assert!(matches!(refused("sixteen-bytes-xx", Take::All), NetdevError::Name(_)));
        assert!(matches!(refused("up1", Take::All), NetdevError::Missing(_)));
        assert!(matches!(refused("lo", Take::All), NetdevError::NotEthernet(_)));
        assert!(matches!(refused("up0", only(&[], &[])), NetdevError::NothingTaken));
        for any in [SocketAddr::from((Ipv4Addr::UNSPECIFIED, 6081)), (v6(0), 6081).into()] {
            let any = if any.is_ipv6() { "[::]:6081".parse().unwrap() } else { any };
            let _theirs = bed.node.run(|| UdpSocket::bind(any)).unwrap();
            assert!(matches!(refused("up0", only(&[6081], &[])), NetdevError::UdpPortTaken(6081)), "{any}");
        }
        let ports = [(); 2].map(|()| bed.open(only(&[6081], &[]), Mode::Packet));
        assert_eq!(ports.len(), 2, "two ports hold it together");
    }
}

#[test]
fn a_queue_or_an_mtu_that_xdp_cannot_have_is_refused_and_left_to_the_packet_socket() {
    let test = "a_queue_or_an_mtu_that_xdp_cannot_have_is_refused_and_left_to_the_packet_socket";
    let Some(bed) = Bed::new(test) else { return };
    let first = bed.open(Take::All, Mode::Xdp);
    let second = open(&bed.node, "up0", Take::All, Mode::Xdp).unwrap_err();
    assert!(matches!(second, NetdevError::QueueTaken { queue: 0, .. }), "{second}");
    drop(first);
    let again = bed.open(Take::All, Mode::Xdp);
    wait_for_link(&again, "XDP native, copy, 1 queue, all frames");
    drop(again);
    bed.node.ip("link set up0 mtu 9000").unwrap();
    let long = open(&bed.node, "up0", Take::All, Mode::Xdp).unwrap_err();
    assert!(matches!(long, NetdevError::Mtu { mtu_bytes: 9000, .. }), "{long}");
    // A veth's frames are copied either way.
    for mtu in [9000, 1500] {
        bed.node.ip(&format!("link set up0 mtu {mtu}")).unwrap();
        wait_for_link(&bed.open(Take::All, Mode::Auto), "packet, all frames");
    }
}

#[test]
fn a_driver_that_runs_no_programs_has_the_kernel_run_them() {
    let Some(bed) = Bed::new("a_driver_that_runs_no_programs_has_the_kernel_run_them") else { return };
    bed.node.ip("link add br0 type bridge").unwrap();
    bed.node.ip("link set up0 master br0").unwrap();
    bed.node.ip("link set br0 up").unwrap();
    address(&bed.node, "br0", 1);
    address(&bed.outside, "eth0", 2);
    let mut port = open(&bed.node, "br0", only(&[6081], &[]), Mode::Xdp).unwrap();
    wait_for_link(&port, "XDP generic, copy");
    assert_eq!(ping(&bed.outside, v4(1), 3, PATIENCE).unwrap().lost(), 0);
    assert_stream_to_the_node(&bed);
    assert!(!is_refused(&bed, (v4(2), 0).into(), (v4(1), 6081).into()));
    assert_eq!(received(&mut port, |frames| frames.len() >= 5).len(), 5);
    assert_eq!(send(&port, tagged(&[], &[1; 60]), Offload::NONE), None);
}

#[test]
fn an_interface_without_a_carrier_says_so() {
    let Some(bed) = Bed::new("an_interface_without_a_carrier_says_so") else { return };
    let port = bed.open(Take::All, Mode::Packet);
    bed.outside.ip("link set eth0 down").unwrap();
    wait_for_link(&port, "no carrier");
}
