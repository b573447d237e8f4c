//! Do kernel pods reach each other through the whole datapath? TAP ports in private network namespaces.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lab::{Netns, ping, require, stream};
use ports::tap::{self, TapSpec};
use vswitch::program::PortNo;
use worker::{Datapath, Removal};

mod support;
use support::{PATIENCE, datapath, mac, program, wait_until};

fn pods(test: &str) -> Option<[Netns; 2]> {
    match (Netns::new(), Netns::new()) {
        (Ok(first), Ok(second)) => Some([first, second]),
        (Err(error), _) | (_, Err(error)) => {
            let _ = require(test, Err(format!("no network namespace can be made: {error}")));
            None
        }
    }
}

fn plug(datapath: &Datapath, pod: &Netns, number: u16, queues: u16) {
    let spec = TapSpec { netns: Some(pod.path()), mac: Some(mac(number)), queues, ..TapSpec::named("eth0") };
    datapath.add_port(PortNo(number), tap::open(&spec).unwrap()).unwrap();
}

fn address(last: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 1, last as u8)
}

fn configure(pod: &Netns, number: u16) {
    pod.ip("link set eth0 up").unwrap();
    pod.ip(&format!("addr add {}/24 dev eth0", address(number))).unwrap();
    pod.ip(&format!("addr add fd09:1::{number}/64 dev eth0 nodad")).unwrap();
}

/// Every frame that came in has an end; pods chatter, so it is asked until a quiet moment.
fn assert_balance(datapath: &Datapath) {
    wait_until("the ledger is balanced", || datapath.counters().total.is_balanced());
}

#[test]
fn two_pods_ping_and_their_tcp_segments_cross_whole() {
    let Some(pods) = pods("two_pods_ping_and_their_tcp_segments_cross_whole") else { return };
    let datapath = datapath(2);
    datapath.set_program(program(1, &[1, 2], true));
    for (pod, number) in pods.iter().zip([1, 2]) {
        plug(&datapath, pod, number, 2);
        configure(pod, number);
    }
    assert_eq!(ping(&pods[0], address(2), 3, PATIENCE).unwrap().lost(), 0);
    for to in [IpAddr::from(address(2)), "fd09:1::2".parse().unwrap()] {
        let before = datapath.counters().ports[&PortNo(1)];
        let report = stream(&pods[0], &pods[1], to, 131_072, Duration::from_millis(300)).unwrap();
        let after = datapath.counters().ports[&PortNo(1)];
        let (bytes, frames) = (after.rx_bytes - before.rx_bytes, after.rx_frames - before.rx_frames);
        assert!(bytes >= report.bytes, "{bytes} {report:?}");
        assert!(bytes / frames > 1514, "{frames} frames carried {bytes} bytes to {to}: they were cut");
    }
    let total = datapath.counters().total;
    assert_eq!(total.copied_bytes, 0, "TAP to TAP copies nothing in user space");
    assert_balance(&datapath);
}

#[test]
fn a_port_that_is_taken_up_again_finds_the_pod_as_it_was() {
    let Some(pods) = pods("a_port_that_is_taken_up_again_finds_the_pod_as_it_was") else { return };
    let datapath = datapath(1);
    datapath.set_program(program(1, &[1, 2], true));
    for (pod, number) in pods.iter().zip([1, 2]) {
        plug(&datapath, pod, number, 1);
        configure(pod, number);
    }
    for _ in 0..3 {
        assert_eq!(ping(&pods[0], address(2), 1, PATIENCE).unwrap().lost(), 0);
        assert!(datapath.remove_port(PortNo(2), Removal::Keep));
        assert!(pods[1].ip("-o addr show eth0").unwrap().contains("10.9.1.2/24"));
        plug(&datapath, &pods[1], 2, 1);
    }
    assert_eq!(ping(&pods[0], address(2), 1, PATIENCE).unwrap().lost(), 0);
    assert!(datapath.remove_port(PortNo(2), Removal::Retire));
    assert!(pods[1].ip("link show eth0").is_err());
    assert_balance(&datapath);
}
