//! Does a switch use an interface of its node, and leave it as it was however it ends? A *node* whose interface `up0` is a
//! veth to the *outside*, and a pod.

#[path = "peers/switch.rs"]
#[allow(dead_code, reason = "shared with the tests of other peers")]
mod switch;

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use lab::{Netns, ping, stream};
use local_api::switch_v1::{NetdevDevice, NetdevMode, Port, port};
use switch::{Switch, pod};

/// For one ping, or the kernel to let go of something.
const PATIENCE: Duration = Duration::from_secs(10);
const TAP: u32 = 1;
const UPLINK: u32 = 2;

/// A node and the outside, connected; `None` with the reason said.
fn node_and_outside(test: &str) -> Option<(Netns, Netns)> {
    let (node, outside) = (pod(test)?, pod(test)?);
    node.ip("link add up0 type veth peer name eth0").unwrap();
    node.ip(&format!("link set eth0 netns {}", outside.path().display())).unwrap();
    node.ip("link set up0 up").unwrap();
    outside.ip("link set eth0 up").unwrap();
    outside.ip("addr add 10.9.0.2/24 dev eth0").unwrap();
    Some((node, outside))
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, last)
}

fn uplink(device: NetdevDevice) -> Port {
    let device = NetdevDevice { netdev: "up0".into(), ..device };
    // Whoever is outside has addresses of his own.
    Port { macs: vec![], ..switch::port(UPLINK, port::Device::Netdev(device)) }
}

fn assert_stream(from: &Netns, to: &Netns, address: Ipv4Addr) {
    let report = stream(from, to, IpAddr::from(address), 65_536, Duration::from_millis(300)).unwrap();
    assert!(report.bytes > 1_000_000, "{report:?}");
}

#[test]
fn a_pod_reaches_the_outside_by_an_interface_also_after_a_kill() {
    let test = "a_pod_reaches_the_outside_by_an_interface_also_after_a_kill";
    for (mode, detail) in [(NetdevMode::Packet, "packet, all frames"), (NetdevMode::Xdp, "XDP native, copy")]
    {
        let Some((node, outside)) = node_and_outside(test) else { return };
        let pod = Netns::new().unwrap();
        let mut switch = Switch::start_in(&node);
        let device = NetdevDevice { all: true, mode: mode.into(), ..Default::default() };
        switch.apply(vec![switch::tap(TAP, &pod), uplink(device)]);
        pod.ip("link set eth0 up").unwrap();
        pod.ip("addr add 10.9.0.1/24 dev eth0").unwrap();
        for _ in 0..2 {
            assert_eq!(ping(&pod, v4(2), 3, PATIENCE).unwrap().lost(), 0, "{mode:?}");
            assert_stream(&pod, &outside, v4(2));
            assert_stream(&outside, &pod, v4(1));
            let state = switch.port(UPLINK);
            assert!(state.link_up && state.detail.contains(detail), "{state:?}");
            switch.assert_balance();
            switch.kill_and_restart();
        }
    }
}

/// Whether the node's kernel answers a datagram to `port` with "port unreachable".
fn is_refused(outside: &Netns, port: u16) -> bool {
    let answer = outside.run(|| {
        let socket = UdpSocket::bind((v4(2), 0))?;
        socket.connect((v4(1), port))?;
        socket.set_read_timeout(Some(PATIENCE / 50))?;
        socket.send(b"?")?;
        socket.recv(&mut [0])
    });
    answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[test]
fn a_killed_switch_leaves_the_host_its_interface_as_it_was() {
    let Some((node, outside)) = node_and_outside("a_killed_switch_leaves_the_host_its_interface_as_it_was")
    else {
        return;
    };
    node.ip("addr add 10.9.0.1/24 dev up0").unwrap();
    let mut switch = Switch::start_in(&node);
    let device = NetdevDevice { udp_ports: vec![6081], mode: NetdevMode::Xdp.into(), ..Default::default() };
    switch.apply(vec![uplink(device)]);
    let has_program = |node: &Netns| node.ip("link show up0").unwrap().contains("xdp");
    assert!(has_program(&node));
    assert!(!is_refused(&outside, 6081) && is_refused(&outside, 6082));
    switch.wait_until("the datagram came in", |switch| switch.counters(UPLINK).rx_frames > 0);

    switch.kill();
    // The kernel closes descriptors, and with the last of them takes the program away, in its own time.
    for _ in 0..100 {
        if !has_program(&node) {
            break;
        }
        std::thread::sleep(PATIENCE / 100);
    }
    assert!(!has_program(&node), "the program went with its switch");
    assert_eq!(ping(&outside, v4(1), 3, PATIENCE).unwrap().lost(), 0);
    assert_stream(&outside, &node, v4(1));
    assert!(is_refused(&outside, 6081), "as by any host");
}
