//! Do pods get devices of cards by the real plugin from real processes, and are they afterwards as they were?

use std::path::Path;
use std::time::Duration;

use linux::Linux;
use linux::sriov::{PciAddress, Vf, bind_driver};
use reconcile::Cards;
use serde_json::{Value, json};
use vm::node::{Node, Pod, assert_reaches};
use vm::{modprobe, names, read, run, wait_for};

use crate::card::{self, Card};
use crate::vp_vdpa::{Given, cards, in_use, own_netdev};

/// The configuration of a pod's device, as Multus writes it.
fn config(node: &Node, device: PciAddress, more: &Value) -> Value {
    let mut config = node.config("auto");
    config["deviceID"] = device.to_string().into();
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// A pod with a device.
#[track_caller]
fn add(node: &Node, name: &str, config: &Value) -> Pod {
    let mut pod = Pod::new(name);
    pod.result = node.call_with("ADD", Some(&pod), config).unwrap_or_else(|error| {
        panic!("{error}\n--- the agent said:\n{}", node.agent.said());
    });
    let mut check = config.clone();
    check["prevResult"] = pod.result.clone();
    node.call_with("CHECK", Some(&pod), &check).unwrap();
    pod
}

#[track_caller]
fn del_all(node: &Node, pods: &[Pod]) {
    // A runtime may ask again for what it had no answer to.
    pods.iter().chain(pods).for_each(|pod| node.del(pod));
    assert_eq!(node.attachments(), Vec::<Value>::new());
}

fn device_info(node: &Node) -> Value {
    serde_json::from_slice(&std::fs::read(node.path("device-info")).unwrap()).unwrap()
}

#[test]
fn pods_with_functions_reach_each_other_as_they_are_asked_to_be_and_leave_the_card_as_it_was() {
    modprobe("tun");
    let card = Card::new();
    let (shown, vfs) = (card.shown(), [card.vf(0), card.vf(1)]);
    let before = vfs.each_ref().map(|vf| vf.state().unwrap());
    let node = Node::start();
    let info = node.path("device-info");
    let asked = json!({"vlan": 5, "vlanQoS": 3, "trust": "on", "spoofchk": "off", "max_tx_rate": 100, "mtu": 1300,
                       "mac": "02:00:00:00:02:09",
                       "runtimeConfig": {"mac": "02:00:00:00:02:01", "CNIDeviceInfoFile": info}});
    let first = add(&node, "first", &config(&node, vfs[0].address, &asked));
    let second = config(
        &node,
        vfs[1].address,
        &json!({"deviceID": "", "vlan": 5, "portKind": "sriov",
                        "runtimeConfig": {"deviceID": vfs[1].address.to_string()}}),
    );
    let pods = [first, add(&node, "second", &second)];
    assert_reaches(&pods[0], &pods[1]);
    assert_reaches(&pods[1], &pods[0]);

    let function = card.shown_function(0);
    assert_eq!(function["vlan_list"], json!([{"vlan": 5, "qos": 3}]));
    assert_eq!((&function["spoofchk"], &function["trust"]), (&json!(false), &json!(true)));
    assert_eq!(
        (&function["address"], &function["rate"]["max_tx"]),
        (&json!("02:00:00:00:02:01"), &json!(100))
    );
    for (pod, (vf, before)) in pods.iter().zip(vfs.iter().zip(&before)) {
        let (interface, link) = (&pod.result["interfaces"][0], pod.link());
        assert_eq!(interface["pciID"], vf.address.to_string());
        assert_eq!((&interface["mac"], interface["sandbox"].is_string()), (&link["address"], true));
        let found = node.attachment(pod);
        assert_eq!((&found["port_kind"], &found["port"]), (&json!("sriov"), &json!(0)));
        assert_eq!(found["pci_address"], vf.address.to_string());
        let own = before.netdev.as_ref().unwrap().mac.to_string();
        let wanted = if pod.id == "first" { "02:00:00:00:02:01" } else { &own };
        assert_eq!(link["address"], wanted, "one that is not asked for is the function's own");
    }
    assert_eq!((&pods[0].link()["mtu"], &pods[1].link()["mtu"]), (&json!(1300), &json!(1400)));
    let expected = json!({"type": "pci", "version": "1.1.0", "pci": {
        "pci-address": vfs[0].address.to_string(), "pf-pci-address": vfs[0].pf.to_string(),
    }});
    assert_eq!(device_info(&node), expected);

    let taken = node.call_with("ADD", Some(&Pod::new("third")), &config(&node, vfs[0].address, &json!({})));
    let error = taken.unwrap_err();
    assert_eq!(error["code"], 106, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("the device of first/eth0"), "{error}");
    assert_reaches(&pods[0], &pods[1]);

    del_all(&node, &pods);
    assert!(!info.exists());
    assert_eq!(vfs.each_ref().map(|vf| vf.state().unwrap()), before);
    assert_eq!(card.shown(), shown);
}

#[test]
fn functions_come_back_when_pods_die_and_the_agent_is_killed_at_any_step() {
    modprobe("tun");
    let card = Card::new();
    let (shown, vf) = (card.shown(), card.vf(0));
    let before = vf.state().unwrap();
    let mut node = Node::start();
    let asked = config(&node, vf.address, &json!({"vlan": 5, "runtimeConfig": {"mac": "02:00:00:00:02:01"}}));
    let mut dead = add(&node, "dead", &asked);
    dead.netns = None;
    del_all(&node, &[dead]);
    assert_eq!(vf.state().unwrap(), before);
    for step in 0..4 {
        let pod = Pod::new(&format!("pod{step}"));
        let add = node.plugin("ADD", Some(&pod), &asked);
        // Not to wait for anything: the agent is to die somewhere else in each round.
        std::thread::sleep(Duration::from_millis(150 * step));
        node.start_agent();
        let _ = add.wait_with_output();
        if step % 2 == 1 {
            node.call_with("ADD", Some(&pod), &asked).unwrap();
            let del = node.plugin("DEL", Some(&pod), &asked);
            std::thread::sleep(Duration::from_millis(100 * step));
            node.start_agent();
            let _ = del.wait_with_output();
        }
        del_all(&node, &[pod]);
        assert_eq!(vf.state().unwrap(), before, "round {step}");
    }
    assert_eq!(card.shown(), shown);
}

#[test]
fn a_program_gets_its_function_by_vfio_and_one_that_vfio_has_stays_there() {
    modprobe("tun vfio-pci");
    let card = Card::new();
    let vf = card.vf(1);
    let node = Node::start();
    let driver = |vf: &Vf| vf.driver().unwrap();
    for (had, driver_of_config) in [("igbvf", "vfio-pci"), ("vfio-pci", "")] {
        if had == "vfio-pci" {
            vf.bind_vfio().unwrap();
        }
        let before = vf.state().unwrap();
        let asked = json!({"driver": driver_of_config, "vlan": 7,
                           "runtimeConfig": {"CNIDeviceInfoFile": node.path("device-info")}});
        let pod = add(&node, "dpdk", &config(&node, vf.address, &asked));
        assert_eq!(driver(&vf).as_deref(), Some("vfio-pci"));
        let found = node.attachment(&pod);
        assert_eq!(found["device_driver"], "vfio-pci");
        let group = Path::new(found["device_path"].as_str().unwrap());
        assert!(group.exists() && group.starts_with("/dev/vfio"), "{found}");
        assert_eq!(device_info(&node)["pci"]["pci-address"], vf.address.to_string());
        assert_eq!(
            card.shown_function(1)["address"],
            pod.result["interfaces"][0]["mac"],
            "the program finds it"
        );
        assert!(pod.netns().ip("link show dev eth0").is_err(), "no netdev");
        let program = std::fs::File::options().read(true).write(true).open(group).unwrap();
        let error = node.call("DEL", Some(&pod), "auto").unwrap_err().to_string();
        assert!(error.contains(&format!("a program has {} open", group.display())), "{error}");
        drop(program);
        del_all(&node, &[pod]);
        assert_eq!(vf.state().unwrap(), before);
    }
}

#[test]
fn a_pod_gets_the_vdpa_device_of_a_card_as_netdev_and_as_file_and_what_was_there_stays() {
    modprobe("tun");
    let [function, other] = cards();
    let peer = lab::Netns::new().unwrap();
    run(&format!("ip link set {} netns {} name eth0", own_netdev(other), peer.path().display()));
    in_use(&peer, "eth0", [10, 1, 0, 99].into());
    let node = Node::start();
    let asked = |driver: &str| {
        let info = node.path("device-info");
        config(
            &node,
            function,
            &json!({"portKind": "vdpa", "driver": driver, "runtimeConfig": {"CNIDeviceInfoFile": info}}),
        )
    };
    let error = node.call_with("ADD", Some(&Pod::new("early")), &asked("")).unwrap_err().to_string();
    assert!(error.contains("its driver is virtio-pci"), "{error}");
    bind_driver(function, "vp-vdpa").unwrap();
    let given = Given(function);

    // Made for the pod, and gone with it.
    let made = || Linux.vdpa_of(function).unwrap();
    for driver in ["", "vhost_vdpa"] {
        let pod = add(&node, "made", &asked(driver));
        assert_eq!(pod.result["interfaces"][0]["mac"], "02:00:00:00:01:02", "the card's own");
        assert_uses(&node, &pod, driver, &peer);
        del_all(&node, &[pod]);
        assert_eq!(made(), None);
    }

    // There before, and after.
    run(&format!("vdpa dev add name there mgmtdev pci/{function}"));
    let netdev = wait_for("its netdev", || made().and_then(|(_, state)| state.netdev));
    run(&format!("ip link set {} mtu 1450", netdev.name));
    let before = made();
    for driver in ["", "vhost_vdpa", "virtio_vdpa"] {
        let pod = add(&node, "lent", &asked(driver));
        assert_eq!(node.attachment(&pod)["vdpa_device"], "there");
        assert_uses(&node, &pod, driver, &peer);
        del_all(&node, &[pod]);
        assert_eq!(made(), before, "{driver}");
    }
    let mut dead = add(&node, "dead", &asked("virtio_vdpa"));
    dead.netns = None;
    del_all(&node, &[dead]);
    assert_eq!(made(), before);
    run("vdpa dev del there");
    assert_eq!(names("/sys/bus/vdpa/devices"), Vec::<String>::new());
    drop(given);
    wait_for("virtio-pci to have it", || {
        read(format!("/sys/bus/pci/devices/{function}/uevent")).contains("DRIVER=virtio-pci").then_some(())
    });
}

/// The pod's device works, as a netdev or as a file.
#[track_caller]
fn assert_uses(node: &Node, pod: &Pod, driver: &str, peer: &lab::Netns) {
    let (info, found) = (device_info(node), node.attachment(pod));
    assert_eq!(info["type"], "vdpa");
    assert_eq!(info["vdpa"]["parent-device"], found["vdpa_device"]);
    if driver != "vhost_vdpa" {
        assert_eq!(info["vdpa"]["driver"], "virtio");
        return card::assert_reaches(peer, pod.ipv4());
    }
    let path = found["device_path"].as_str().unwrap();
    assert_eq!((&info["vdpa"]["driver"], &info["vdpa"]["path"]), (&json!("vhost"), &json!(path)));
    std::fs::File::options().read(true).write(true).open(path).unwrap();
    assert!(pod.netns().ip("link show dev eth0").is_err(), "no netdev");
}
