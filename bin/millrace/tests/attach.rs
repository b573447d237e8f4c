//! Do pods get what an ADD promises, and does DEL take all of it back? Real processes, real namespaces, the real plugin.

mod node;

use std::net::Ipv4Addr;

use node::program::{self, Program};
use node::{Node, PATIENCE, Pod, possible, wait_for_ping};
use serde_json::json;

#[test]
fn add_when_two_tap_pods_join_lets_them_ping_and_del_leaves_nothing() {
    if !possible("add_when_two_tap_pods_join_lets_them_ping_and_del_leaves_nothing") {
        return;
    }
    let node = Node::start();
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    let (at_a, at_b) = (node.add(&a, "pods"), node.add(&b, "pods"));
    assert_eq!(at_a.interface("name"), "eth0");
    assert_eq!(at_a.interface("sandbox"), a.netns().path().to_str().unwrap());
    let shown = a.netns().ip("addr show dev eth0").unwrap();
    assert!(shown.contains(&format!("inet {}/16", at_a.ipv4())), "{shown}");
    assert!(shown.contains(at_a.interface("mac")), "{shown}");
    let routes = a.netns().ip("route show").unwrap();
    assert!(routes.contains("192.168.0.0/16 via 10.1.0.1"), "{routes}");

    let report = lab::ping(a.netns(), at_b.ipv4(), 20, PATIENCE).unwrap();
    assert_eq!(report.lost(), 0);
    wait_for_ping(&b, at_a.ipv4());

    let mut check = node.config("pods");
    check["prevResult"] = at_a.result.clone();
    node.call("CHECK", Some(&a), &check).unwrap();
    a.netns().ip("addr flush dev eth0 scope global").unwrap();
    assert_eq!(node.call("CHECK", Some(&a), &check).unwrap_err()["code"], 104);

    assert_eq!(node.get("attachments")["attachments"].as_array().unwrap().len(), 2);
    for pod in [&a, &b] {
        node.del(pod, "pods");
        assert!(pod.netns().ip("link show dev eth0").is_err(), "the netdev is gone");
        node.del(pod, "pods");
    }
    assert_eq!(node.get("attachments")["attachments"], json!([]));
    assert_eq!(node.get("ports")["ports"], json!([]));
    node.assert_ledger_balances();
}

#[test]
fn add_when_asked_again_gives_the_same_result() {
    if !possible("add_when_asked_again_gives_the_same_result") {
        return;
    }
    let node = Node::start();
    let pod = Pod::new("again");
    let first = node.add(&pod, "pods").result;
    assert_eq!(node.add(&pod, "pods").result, first);
    assert_eq!(node.get("ports")["ports"].as_array().unwrap().len(), 1);
}

#[test]
fn add_when_many_come_at_once_gives_each_its_own() {
    if !possible("add_when_many_come_at_once_gives_each_its_own") {
        return;
    }
    let node = Node::start();
    let pods: Vec<Pod> = (0..32).map(|number| Pod::new(&format!("pod{number}"))).collect();
    let results: Vec<_> = std::thread::scope(|scope| {
        let adds: Vec<_> = pods.iter().map(|pod| scope.spawn(|| node.add(pod, "pods"))).collect();
        adds.into_iter().map(|add| add.join().unwrap()).collect()
    });
    let addresses: std::collections::BTreeSet<Ipv4Addr> =
        results.iter().map(|result| result.ipv4()).collect();
    assert_eq!(addresses.len(), 32);
    wait_for_ping(&pods[0], results[31].ipv4());
    std::thread::scope(|scope| {
        pods.iter().for_each(|pod| {
            scope.spawn(|| node.del(pod, "pods"));
        })
    });
    assert_eq!(node.get("ports")["ports"], json!([]));
    let networks = node.get("networks");
    let leased =
        networks["networks"][0]["subnets"].as_array().unwrap().iter().map(|subnet| &subnet["leased"]);
    assert!(leased.clone().all(|leased| *leased == 0), "{networks}");
    node.assert_ledger_balances();
}

#[test]
fn gc_when_a_pod_is_no_longer_valid_takes_it_away() {
    if !possible("gc_when_a_pod_is_no_longer_valid_takes_it_away") {
        return;
    }
    let node = Node::start();
    let (kept, gone) = (Pod::new("kept"), Pod::new("gone"));
    node.add(&kept, "pods");
    node.add(&gone, "pods");
    let mut config = node.config("pods");
    config["cni.dev/valid-attachments"] = json!([{ "containerID": kept.id, "ifname": "eth0" }]);
    node.call("GC", None, &config).unwrap();
    let left = node.get("attachments");
    assert_eq!(left["attachments"].as_array().unwrap().len(), 1);
    assert_eq!(left["attachments"][0]["container_id"], kept.id.as_str());
    assert!(gone.netns().ip("link show dev eth0").is_err());
}

#[test]
fn del_when_the_pod_has_gone_first_succeeds() {
    if !possible("del_when_the_pod_has_gone_first_succeeds") {
        return;
    }
    let node = Node::start();
    let mut pod = Pod::new("short");
    node.add(&pod, "pods");
    pod.netns = None;
    node.del(&pod, "pods");
    assert_eq!(node.get("ports")["ports"], json!([]));
    assert_eq!(node.get("attachments")["attachments"], json!([]));
}

#[test]
fn add_when_the_pod_is_a_vhost_user_program_gives_it_a_socket_that_works() {
    if !possible("add_when_the_pod_is_a_vhost_user_program_gives_it_a_socket_that_works") {
        return;
    }
    let node = Node::start();
    let (kernel, pod) = (Pod::new("kernel"), Pod::new("program"));
    let at_kernel = node.add(&kernel, "pods");
    let mut program = Program::start(&node, &pod);
    program.wait_for_ping(&at_kernel);
    let socket = program.attached.interface("socketPath").to_owned();
    drop(program);
    node.call("DEL", Some(&pod), &program::config(&node)).unwrap();
    assert!(!std::path::Path::new(&socket).exists());
    node.del(&kernel, "pods");
    node.assert_ledger_balances();
}
