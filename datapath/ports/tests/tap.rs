//! Does a TAP port do what a pod's kernel expects of it? Against the real kernel, in private network namespaces.

mod cross;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use cross::connected;
use frame::{Burst, DropReason, Offload};
use lab::{Netns, ping, require, stream};
use ports::Device;
use ports::offload::Capabilities;
use ports::tap::{self, TapError, TapSpec};
use wire::MacAddr;

const PATIENCE: Duration = Duration::from_secs(5);

/// The namespaces of a test, or `None` with the reason said.
fn pods<const N: usize>(test: &str) -> Option<[Netns; N]> {
    let made: Result<Vec<_>, _> = (0..N).map(|_| Netns::new()).collect();
    match made {
        Ok(pods) => pods.try_into().ok(),
        Err(error) => {
            let _ = require(test, Err(format!("no network namespace can be made: {error}")));
            None
        }
    }
}

fn spec(pod: &Netns) -> TapSpec {
    TapSpec { netns: Some(pod.path()), ..TapSpec::named("eth0") }
}

fn configure(pod: &Netns, address: &str) {
    pod.ip("link set eth0 up").unwrap();
    pod.ip(&format!("addr add {address} dev eth0 nodad")).unwrap();
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, last)
}

#[test]
fn two_pods_ping_and_their_tcp_segments_cross_whole_and_uncopied() {
    let Some([left, right]) = pods("two_pods_ping_and_their_tcp_segments_cross_whole_and_uncopied") else {
        return;
    };
    let pair = [&left, &right].map(|pod| tap::open(&spec(pod)).unwrap());
    configure(&left, "10.9.0.1/24");
    configure(&right, "10.9.0.2/24");
    let seen = connected(pair, || {
        assert_eq!(ping(&left, v4(2), 3, PATIENCE).unwrap().lost(), 0);
        let report = stream(&left, &right, v4(2).into(), 131_072, Duration::from_millis(300)).unwrap();
        assert!(report.bytes > 1_000_000, "{report:?}");
    });
    assert!(seen.longest.load(Relaxed) > 60_000, "the longest frame had {:?} bytes", seen.longest);
    assert_eq!(seen.copied.load(Relaxed), 0);
}

#[test]
fn a_tap_without_offloads_gets_frames_that_need_none() {
    let Some([left, right]) = pods("a_tap_without_offloads_gets_frames_that_need_none") else { return };
    let plain = TapSpec { capabilities: Capabilities::NONE, ..spec(&right) };
    let pair = [tap::open(&spec(&left)).unwrap(), tap::open(&plain).unwrap()];
    for (pod, last) in [(&left, 1), (&right, 2)] {
        configure(pod, &format!("10.9.0.{last}/24"));
        pod.ip(&format!("addr add fd09::{last}/64 dev eth0 nodad")).unwrap();
    }
    connected(pair, || {
        let six: IpAddr = "fd09::2".parse().unwrap();
        for address in [v4(2).into(), six] {
            let report = stream(&left, &right, address, 131_072, Duration::from_millis(200)).unwrap();
            assert!(report.bytes > 1_000_000, "{address}: {report:?}");
        }
    });
}

#[test]
fn a_reopened_tap_keeps_interface_address_and_route() {
    let Some([pod]) = pods("a_reopened_tap_keeps_interface_address_and_route") else { return };
    let mac = MacAddr([2, 0, 0, 0, 9, 1]);
    let made = TapSpec { mac: Some(mac), mtu_bytes: 9000, ..spec(&pod) };
    let first = tap::open(&made).unwrap();
    configure(&pod, "10.9.0.1/24");
    pod.ip("route add 10.77.0.0/16 via 10.9.0.254").unwrap();
    let before = pod.ip("-o link show eth0").unwrap();
    assert!(before.contains(&mac.to_string()) && before.contains("mtu 9000"), "{before}");
    assert!(first.handle.link().up, "{:?}", first.handle.link());

    drop(first);
    assert!(pod.ip("-o addr show eth0").unwrap().contains("10.9.0.1/24"));
    assert!(pod.ip("route").unwrap().contains("10.77.0.0/16"));

    let again = tap::open(&TapSpec { mac: Some(MacAddr([2, 0, 0, 0, 9, 9])), ..spec(&pod) }).unwrap();
    let index = |line: &str| line.split(':').next().map(str::to_owned);
    let after = pod.ip("-o link show eth0").unwrap();
    assert_eq!(index(&before), index(&after));
    assert!(after.contains(&mac.to_string()) && after.contains("mtu 9000"), "{after}");
    assert!(pod.ip("-o addr show eth0").unwrap().contains("10.9.0.1/24"));
    assert!(again.handle.link().up, "{:?}", again.handle.link());
}

#[test]
fn a_retired_tap_is_deleted_once_it_is_closed() {
    let Some([pod]) = pods("a_retired_tap_is_deleted_once_it_is_closed") else { return };
    let device = tap::open(&spec(&pod)).unwrap();
    device.handle.retire();
    drop(device);
    assert!(pod.ip("link show eth0").is_err());
}

#[test]
fn a_netdev_deleted_by_the_pod_leaves_quiet_queues_and_a_link_that_says_so() {
    let Some([pod]) = pods("a_netdev_deleted_by_the_pod_leaves_quiet_queues_and_a_link_that_says_so") else {
        return;
    };
    let mut device = tap::open(&spec(&pod)).unwrap();
    pod.ip("link del eth0").unwrap();
    let mut burst = Burst::new();
    assert_eq!(device.rx[0].poll(&mut burst, &mut |_| ()).frames, 0);
    assert!(!device.rx[0].arm());
    assert_eq!(device.rx[0].fd(), None);
    assert_eq!(send_one(&device), Some(DropReason::PortDown));
    let link = device.handle.link();
    assert!(!link.up && link.detail.contains("deleted"), "{link:?}");
}

/// Why the device did not take a frame.
fn send_one(device: &Device) -> Option<DropReason> {
    let mut burst = Burst::new();
    burst.push_owned(vec![0xff; 60], Offload::NONE).unwrap();
    let report = device.tx[0].send(&burst, &[0]);
    report.drops.iter().next().map(|(reason, _)| reason)
}

#[test]
fn a_netdev_that_is_down_takes_no_frame() {
    let Some([pod]) = pods("a_netdev_that_is_down_takes_no_frame") else { return };
    let device = tap::open(&spec(&pod)).unwrap();
    assert_eq!(send_one(&device), Some(DropReason::PortDown));
    assert!(!device.handle.link().up);
    pod.ip("link set eth0 up").unwrap();
    assert_eq!(send_one(&device), None);
    assert!(device.handle.link().up);
}

#[test]
fn every_queue_of_a_multi_queue_tap_is_attached() {
    let Some([pod]) = pods("every_queue_of_a_multi_queue_tap_is_attached") else { return };
    let device = tap::open(&TapSpec { queues: 4, ..spec(&pod) }).unwrap();
    assert_eq!((device.rx.len(), device.tx.len()), (4, 4));
    assert!(device.handle.link().detail.is_empty() || !device.handle.link().up);
    pod.ip("link set eth0 up").unwrap();
    assert!(device.handle.link().detail.contains("4 queues"), "{:?}", device.handle.link());
    drop(device);
    assert_eq!(tap::open(&TapSpec { queues: 2, ..spec(&pod) }).unwrap().rx.len(), 2);
}

#[test]
fn a_name_taken_by_another_kind_is_refused_and_left_alone() {
    let Some([pod]) = pods("a_name_taken_by_another_kind_is_refused_and_left_alone") else { return };
    pod.ip("tuntap add dev eth0 mode tap").unwrap();
    let refused = tap::open(&spec(&pod)).unwrap_err();
    assert!(matches!(refused, TapError::NameTaken(_)), "{refused}");
    assert!(pod.ip("link show eth0").is_ok());
    let loopback = tap::open(&TapSpec { netdev: "lo".into(), ..spec(&pod) }).unwrap_err();
    assert!(matches!(loopback, TapError::NameTaken(_)), "{loopback}");
}

#[test]
fn a_step_that_fails_leaves_no_netdev_behind() {
    let Some([pod]) = pods("a_step_that_fails_leaves_no_netdev_behind") else { return };
    let refused = tap::open(&TapSpec { mac: Some(MacAddr::BROADCAST), ..spec(&pod) }).unwrap_err();
    assert!(matches!(refused, TapError::Kernel { step: "set its MAC address", .. }), "{refused}");
    assert!(pod.ip("link show eth0").is_err());
}

#[test]
fn a_spec_that_no_device_can_meet_is_refused_before_anything_is_done() {
    let named = |netdev: &str| TapSpec::named(netdev);
    assert!(matches!(tap::open(&named("sixteen-bytes-xx")), Err(TapError::Name(_))));
    assert!(matches!(tap::open(&TapSpec { queues: 0, ..named("x") }), Err(TapError::Queues(0))));
    assert!(matches!(tap::open(&TapSpec { queues: 257, ..named("x") }), Err(TapError::Queues(257))));
    assert!(matches!(tap::open(&TapSpec { mtu_bytes: 65_522, ..named("x") }), Err(TapError::Mtu(65_522))));
    for path in ["/no/such/netns", "/proc/self/status"] {
        let spec = TapSpec { netns: Some(PathBuf::from(path)), ..named("x") };
        assert!(matches!(tap::open(&spec), Err(TapError::Netns { .. })), "{path}");
    }
}
