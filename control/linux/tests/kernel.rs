//! Does the real kernel end up as asked, and is asking twice as good as asking once?

use std::net::IpAddr;
use std::path::Path;

use lab::{Netns, require, root};
use linux::Linux;
use reconcile::Kernel;
use reconcile::kernel::{KernelError, LinkConfig, Ownership, Route};
use wire::MacAddr;

fn route(destination: &str, gateway: Option<&str>) -> Route {
    let gateway: Option<IpAddr> = gateway.map(|gateway| gateway.parse().unwrap());
    Route { destination: destination.parse().unwrap(), gateway }
}

fn config() -> LinkConfig {
    LinkConfig {
        name: "eth0".into(),
        mac: MacAddr([0x02, 0, 0, 0, 0, 0x17]),
        mtu_bytes: 1400,
        addresses: vec!["10.9.0.2/24".parse().unwrap(), "fd00:9::2/64".parse().unwrap()],
        routes: vec![
            route("0.0.0.0/0", Some("10.9.0.1")),
            route("::/0", Some("fd00:9::1")),
            route("192.168.7.0/24", Some("172.16.0.1")),
            route("10.77.0.0/16", None),
        ],
    }
}

/// A pod's namespace with a TAP in it, as the switch makes one; `None` where that is not possible.
fn pod(test: &str) -> Option<Netns> {
    if !require(test, root()) {
        return None;
    }
    let pod = Netns::new().unwrap();
    pod.ip("tuntap add dev eth0 mode tap").unwrap();
    Some(pod)
}

#[test]
fn configure_link_when_asked_twice_gives_what_was_asked() {
    let Some(pod) = pod("configure_link_when_asked_twice_gives_what_was_asked") else { return };
    let config = config();
    for _ in 0..2 {
        Linux.configure_link(&pod.path(), &config).unwrap();
    }
    let state = Linux.link(&pod.path(), "eth0").unwrap().unwrap();
    assert_eq!((state.mac, state.mtu_bytes, state.up), (config.mac, 1400, true));
    for address in &config.addresses {
        assert!(state.addresses.contains(address), "{address} is missing from {:?}", state.addresses);
    }
    let (mut found, mut wanted) = (state.routes, config.routes);
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn configure_link_when_the_address_is_ipv6_needs_no_duplicate_detection() {
    let Some(pod) = pod("configure_link_when_the_address_is_ipv6_needs_no_duplicate_detection") else {
        return;
    };
    Linux.configure_link(&pod.path(), &config()).unwrap();
    let shown = pod.ip("-6 addr show dev eth0").unwrap();
    let line = shown.lines().find(|line| line.contains("fd00:9::2")).unwrap();
    assert!(!line.contains("tentative"), "{line}");
}

#[test]
fn configure_link_when_the_device_is_missing_names_it() {
    let Some(pod) = pod("configure_link_when_the_device_is_missing_names_it") else { return };
    let error =
        Linux.configure_link(&pod.path(), &LinkConfig { name: "net7".into(), ..config() }).unwrap_err();
    assert_eq!(error, KernelError::NoLink { netns: pod.path(), name: "net7".into() });
}

#[test]
fn configure_link_when_the_kernel_refuses_names_the_device_and_the_change() {
    let Some(pod) = pod("configure_link_when_the_kernel_refuses_names_the_device_and_the_change") else {
        return;
    };
    let error = Linux.configure_link(&pod.path(), &LinkConfig { mtu_bytes: 5, ..config() }).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("eth0") && text.contains("MTU to 5"), "{text}");
}

#[test]
fn delete_link_when_asked_twice_deletes_once() {
    let Some(pod) = pod("delete_link_when_asked_twice_deletes_once") else { return };
    for _ in 0..2 {
        Linux.delete_link(&pod.path(), "eth0").unwrap();
        assert_eq!(Linux.link(&pod.path(), "eth0").unwrap(), None);
    }
}

#[test]
fn delete_link_when_the_device_is_somebody_elses_leaves_it() {
    let Some(pod) = pod("delete_link_when_the_device_is_somebody_elses_leaves_it") else { return };
    pod.ip("link add theirs type veth peer name other").unwrap();
    Linux.delete_link(&pod.path(), "theirs").unwrap();
    assert!(Linux.link(&pod.path(), "theirs").unwrap().is_some());
}

#[test]
fn link_when_the_namespace_is_gone_says_so() {
    let gone = Path::new("/run/netns/there-is-no-such-pod");
    assert!(!Linux.netns_exists(gone));
    assert_eq!(Linux.link(gone, "eth0").unwrap_err(), KernelError::NoNetns(gone.into()));
    Linux.delete_link(gone, "eth0").unwrap();
}

#[test]
fn link_when_many_pods_are_visited_at_once_answers_for_each() {
    let Some(first) = pod("link_when_many_pods_are_visited_at_once_answers_for_each") else { return };
    let pods: Vec<Netns> = (0..7).map(|_| Netns::new().unwrap()).collect();
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| assert_eq!(Linux.link(&pod.path(), "eth0").unwrap(), None));
            scope.spawn(|| assert!(Linux.link(&first.path(), "eth0").unwrap().is_some()));
        }
    });
}

#[test]
fn bind_mount_when_asked_twice_mounts_once_and_unmounts() {
    if !require("bind_mount_when_asked_twice_mounts_once_and_unmounts", root()) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (source, target) = (scratch.path().join("source"), scratch.path().join("pod/a volume"));
    for dir in [&source, &target] {
        Linux.make_dir(dir, Ownership { uid: 0, gid: 0, mode: 0o755 }).unwrap();
    }
    std::fs::write(source.join("socket"), "").unwrap();
    for _ in 0..2 {
        Linux.bind_mount(&source, &target).unwrap();
    }
    assert!(target.join("socket").exists());
    let refusal = Linux.remove_dir(&scratch.path().join("pod")).unwrap_err().to_string();
    assert!(source.join("socket").exists(), "the removal went through the mount");
    for _ in 0..2 {
        Linux.unmount(&target).unwrap();
    }
    assert!(refusal.contains("mounted"), "{refusal}");
    assert!(!target.join("socket").exists(), "it is mounted still");
}
