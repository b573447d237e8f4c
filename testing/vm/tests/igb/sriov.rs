//! Do virtual functions come into pods as netdevs, do what their configuration says, and come back as they were?

use std::net::Ipv4Addr;

use lab::Netns;
use linux::sriov::{NetdevPlace, PciAddress, Restored, Vf, VfConfig, restore};
use serde_json::json;
use vm::{attempt, names, run, wait_for, write};

use crate::card::{Card, Pod, assert_does_not_reach, assert_reaches};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// A configuration as a network has it.
fn config(json: serde_json::Value) -> VfConfig {
    serde_json::from_value(json).unwrap()
}

#[test]
fn two_pods_reach_each_other_and_their_functions_come_back_as_they_were() {
    let card = Card::new();
    let shown = card.shown();
    let macs = ["02:00:00:00:02:01", "02:00:00:00:02:02"];
    let pods = [Pod::new(card.vf(0)), Pod::new(card.vf(1))];
    for ((pod, mac), ip) in pods.iter().zip(macs).zip([FIRST, SECOND]) {
        let place = NetdevPlace { mac: Some(mac.parse().unwrap()), mtu_bytes: Some(1400), ..pod.place() };
        // A CNI runtime may ask again for what it had no answer to.
        for _ in 0..2 {
            pod.vf.configure(&config(json!({"mac": mac}))).unwrap();
            pod.vf.give_netdev(&place).unwrap();
        }
        pod.come_up(ip);
        let link = pod.netns().ip("link show dev eth0").unwrap();
        assert!(link.contains(mac) && link.contains("mtu 1400"), "{link}");
    }
    assert_reaches(pods[0].netns(), SECOND);
    assert_reaches(pods[1].netns(), FIRST);
    assert_ne!(card.shown(), shown);
    pods.iter().for_each(Pod::assert_comes_back);
    assert_eq!(card.shown(), shown);
    assert!(pods[0].netns().ip("link show dev eth0").is_err());
}

#[test]
fn settings_when_given_are_the_cards_and_when_refused_are_named() {
    let card = Card::new();
    let shown = card.shown();
    let pod = Pod::new(card.vf(1));
    let given = json!({"mac": "02:00:00:00:02:01", "vlan": 5, "vlanQoS": 3, "spoofchk": "off", "trust": "on",
                       "link_state": "auto", "max_tx_rate": 100});
    pod.vf.configure(&config(given.clone())).unwrap();
    pod.vf.configure(&config(given)).unwrap();
    let function = card.shown_function(1);
    assert_eq!(function["address"], "02:00:00:00:02:01");
    assert_eq!(function["vlan_list"], json!([{"vlan": 5, "qos": 3}]));
    assert_eq!((&function["spoofchk"], &function["trust"]), (&json!(false), &json!(true)));
    assert_eq!(function["rate"], json!({"max_tx": 100, "min_tx": 0}));
    for (refused, words) in [
        (json!({"link_state": "enable"}), ["set link_state enable", "cannot do that: leave it out"]),
        (json!({"vlan": 6, "vlanProto": "802.1ad"}), ["vlanProto 802.1ad", "leave vlanProto out"]),
        (json!({"min_tx_rate": 10}), ["set min_tx_rate 10", "leave them out"]),
        (json!({"max_tx_rate": 100_000}), ["max_tx_rate 100000", "up to the link's speed"]),
    ] {
        let error = pod.vf.configure(&config(refused)).unwrap_err().to_string();
        let names = format!("VF {} (1 of {})", pod.vf.address, card.pf);
        assert!(error.starts_with(&names) && words.iter().all(|word| error.contains(word)), "{error}");
    }
    pod.assert_comes_back();
    assert_eq!(card.shown(), shown);
}

#[test]
fn a_function_in_a_vlan_reaches_that_vlan_alone() {
    let (card, peer) = (Card::new(), Card::peer());
    let wire = Netns::new().unwrap();
    run(&format!("ip link add link {} name tagged type vlan id 5", peer.pf));
    run(&format!("ip link set tagged netns {}", wire.path().display()));
    wire.ip("addr add 10.9.0.7/24 dev tagged").unwrap();
    wire.ip("link set tagged up").unwrap();
    let (tagged, plain) = (Pod::new(card.vf(0)), Pod::new(card.vf(1)));
    tagged.vf.configure(&config(json!({"vlan": 5}))).unwrap();
    tagged.attach(FIRST);
    plain.attach(SECOND);
    let far = Ipv4Addr::new(10, 9, 0, 7);
    assert_reaches(tagged.netns(), far);
    assert_reaches(&wire, FIRST);
    assert_does_not_reach(plain.netns(), far);
    assert_does_not_reach(plain.netns(), FIRST);
    tagged.assert_comes_back();
    tagged.attach(FIRST);
    assert_reaches(plain.netns(), FIRST);
    tagged.assert_comes_back();
    plain.assert_comes_back();
    wire.ip("link del tagged").unwrap();
}

#[test]
fn del_when_the_namespace_vanished_finds_the_netdev_by_its_function() {
    let card = Card::new();
    let shown = card.shown();
    let mut pods = [Pod::new(card.vf(0)), Pod::new(card.vf(1))];
    pods.iter().for_each(|pod| pod.attach(FIRST));
    for pod in &mut pods {
        pod.netns = None;
    }
    // At once, while the kernel is still about it, and later.
    pods[0].assert_comes_back();
    // Both were eth0, which the card's own is here.
    wait_for("the second one", || names(card.function(1).join("net")).into_iter().next());
    pods[1].assert_comes_back();
    assert_eq!(card.shown(), shown);
}

#[test]
fn del_when_the_pod_renamed_its_netdev_or_moved_it_on_brings_it_back() {
    let card = Card::new();
    let (renamed, moved, hidden) = (Pod::new(card.vf(0)), Pod::new(card.vf(1)), Netns::new().unwrap());
    renamed.attach(FIRST);
    moved.attach(SECOND);
    let changes = ["down", "name other address 02:00:00:00:02:09", "mtu 1300 promisc on up"];
    for (change, name) in changes.iter().zip(["eth0", "eth0", "other"]) {
        renamed.netns().ip(&format!("link set {name} {change}")).unwrap();
    }
    moved.netns().ip(&format!("link set eth0 netns {}", hidden.path().display())).unwrap();
    renamed.assert_comes_back();
    moved.assert_comes_back();
    assert!(hidden.ip("link show dev eth0").is_err());
}

#[test]
fn a_function_that_was_removed_needs_nothing_and_is_named_where_it_is_needed() {
    let card = Card::new();
    let pods = [Pod::new(card.vf(0)), Pod::new(card.vf(1))];
    pods[0].vf.configure(&config(json!({"mac": "02:00:00:00:02:01", "vlan": 5}))).unwrap();
    pods[0].attach(FIRST);
    card.remove_functions();
    let gone = pods[0].del();
    assert!(gone.errors.is_empty() && gone.notes[0].contains("is gone"), "{gone:?}");
    let errors = [
        Vf::find(pods[1].vf.address).unwrap_err(),
        pods[1].vf.configure(&config(json!({"vlan": 5}))).unwrap_err(),
        pods[1].vf.give_netdev(&pods[1].place()).unwrap_err(),
        pods[1].vf.bind_vfio().unwrap_err(),
        Vf::of(&card.pf, 1).unwrap_err(),
    ];
    for error in errors.map(|error| error.to_string()) {
        assert!(error.contains("VF "), "{error}");
    }
    // New ones of the same addresses take what the record says.
    card.make_functions(2);
    pods.iter().for_each(Pod::assert_comes_back);
}

#[test]
fn a_function_that_another_pod_has_is_refused() {
    let card = Card::new();
    let (owner, other) = (Pod::new(card.vf(0)), Netns::new().unwrap());
    owner.attach(FIRST);
    let place = NetdevPlace { netns: other.path(), ..owner.place() };
    let errors = [
        owner.vf.state().unwrap_err(),
        owner.vf.give_netdev(&place).unwrap_err(),
        owner.vf.bind_vfio().unwrap_err(),
    ];
    for error in errors.map(|error| error.to_string()) {
        assert!(error.contains("another pod has it"), "{error}");
    }
    owner.netns().ip("link show dev eth0").unwrap();
    owner.assert_comes_back();
    let netdev = &owner.before.netdev.as_ref().unwrap().name;
    run("ip link add bridge0 type bridge");
    run(&format!("ip link set {netdev} master bridge0"));
    let error = owner.vf.state().unwrap_err().to_string();
    run("ip link del bridge0");
    assert!(error.contains(&format!("ip link set {netdev} nomaster")), "{error}");
}

#[test]
fn del_when_the_name_is_taken_gives_another_and_says_so() {
    let card = Card::new();
    let pod = Pod::new(card.vf(0));
    pod.attach(FIRST);
    let name = pod.before.netdev.as_ref().unwrap().name.clone();
    run(&format!("ip link add {name} type bridge"));
    let done = pod.del();
    assert!(done.errors.is_empty() && done.notes[0].contains(&format!("the name {name}")), "{done:?}");
    assert!(attempt("ip link show dev vf000001100").is_ok());
    assert_eq!(pod.del().notes, done.notes);
    run(&format!("ip link del {name}"));
    pod.assert_comes_back();
}

#[test]
fn give_when_the_pod_has_that_name_leaves_the_netdev_on_the_node() {
    let card = Card::new();
    let pod = Pod::new(card.vf(0));
    pod.netns().ip("link add eth0 type bridge").unwrap();
    let error = pod.vf.give_netdev(&pod.place()).unwrap_err().to_string();
    assert!(error.contains("the pod has a netdev of that name"), "{error}");
    assert_eq!(pod.vf.state().unwrap(), pod.before);
}

#[test]
fn find_when_it_is_no_virtual_function_says_what_it_is() {
    let card = Card::new();
    let physical = card.vf(0).pf;
    let error = Vf::find(physical).unwrap_err().to_string();
    assert!(error.contains("no virtual function"), "{error}");
    let missing: PciAddress = "0000:01:1f.7".parse().unwrap();
    let error = Vf::find(missing).unwrap_err().to_string();
    assert!(error.contains("sriov_numvfs"), "{error}");
    let error = Vf::of(&physical.to_string(), 2).unwrap_err().to_string();
    assert!(error.contains("it was not made"), "{error}");
    let error = Vf::of("lo", 0).unwrap_err().to_string();
    assert!(error.contains("no PCI function"), "{error}");
    // Without its physical function's netdev nobody can say what the card enforces.
    let (pf, away) = (card.pf.clone(), Netns::new().unwrap());
    run(&format!("ip link set {pf} netns {}", away.path().display()));
    let error = Vf::find("0000:01:10.0".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("has no netdev on the node") && error.contains("igb"), "{error}");
    away.ip(&format!("link set {pf} netns {}", std::process::id())).unwrap();
}

#[test]
fn restore_when_it_was_killed_at_any_step_goes_on_from_there() {
    let card = Card::new();
    let shown = card.shown();
    let pod = Pod::new(card.vf(0));
    let (folder, address) = (card.function(0), pod.vf.address.to_string());
    let steps: [&dyn Fn(); 5] = [
        &|| pod.vf.configure(&config(json!({"mac": "02:00:00:00:02:01", "trust": "on"}))).unwrap(),
        &|| write(folder.join("driver_override"), "vfio-pci"),
        &|| write(folder.join("driver/unbind"), &address),
        &|| write(folder.join("driver_override"), "igbvf"),
        &|| write("/sys/bus/pci/drivers/igbvf/bind", &address),
    ];
    for killed_after in 1..=steps.len() {
        steps[..killed_after].iter().for_each(|step| step());
        pod.assert_comes_back();
        assert_eq!(card.shown(), shown, "after {killed_after} steps");
    }
    assert_eq!(restore(pod.vf.address, &pod.before, None), Restored::default());
}
