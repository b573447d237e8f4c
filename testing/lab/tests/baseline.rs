//! Do the lab's own instruments work? Two namespaces joined by the kernel.
use std::net::Ipv4Addr;
use std::time::Duration;

use lab::Netns;

fn veth_pair() -> (Netns, Netns) {
    let (a, b) = (Netns::new().unwrap(), Netns::new().unwrap());
    a.ip(&format!("link add eth0 type veth peer name eth0 netns {}", b.path().display())).unwrap();
    for (netns, address) in [(&a, "10.9.0.1/24"), (&b, "10.9.0.2/24")] {
        netns.ip(&format!("addr add {address} dev eth0")).unwrap();
        netns.ip("link set eth0 up").unwrap();
    }
    (a, b)
}

#[test]
fn ping_and_stream_cross_a_veth_pair() {
    let (a, b) = veth_pair();
    let to = Ipv4Addr::new(10, 9, 0, 2);
    let report = lab::ping(&a, to, 5, Duration::from_secs(2)).unwrap();
    assert_eq!((report.sent, report.lost()), (5, 0));
    let report = lab::stream(&a, &b, to.into(), 16 * 1024, Duration::from_millis(200)).unwrap();
    assert!(report.bytes > 0);
}

#[test]
fn ping_to_nobody_is_lost_and_ends() {
    let (a, _b) = veth_pair();
    let report = lab::ping(&a, Ipv4Addr::new(10, 9, 0, 77), 2, Duration::from_millis(50)).unwrap();
    assert_eq!((report.sent, report.lost()), (2, 2));
}

#[test]
fn iperf3_measures_a_veth_pair() {
    if !lab::require("iperf3_measures_a_veth_pair", lab::program("iperf3")) {
        return;
    }
    let (a, b) = veth_pair();
    let to = Ipv4Addr::new(10, 9, 0, 2);
    let gbps = lab::iperf3(&a, &b, to.into(), 16 * 1024, Duration::from_millis(300)).unwrap();
    assert!(gbps > 0.0);
}
