//! What do pods notice when a process of the node is killed? The packets of that moment, and nothing else.

mod node;

use std::time::Duration;

use node::program::Program;
use node::{Node, Pod, possible, wait_for, wait_for_ping};
use serde_json::json;

#[test]
fn switch_when_killed_under_ping_leaves_pods_their_addresses_and_resumes() {
    if !possible("switch_when_killed_under_ping_leaves_pods_their_addresses_and_resumes") {
        return;
    }
    let mut node = Node::start();
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    let (at_a, at_b) = (node.add(&a, "pods"), node.add(&b, "pods"));
    wait_for_ping(&a, at_b.ipv4());
    let addresses = || a.netns().ip("-o addr show dev eth0 scope global").unwrap();
    let before = addresses();
    assert!(before.contains(&at_a.ipv4().to_string()));
    for round in 0..3 {
        match round {
            2 => assert!(node.end_switch(), "SIGTERM is a clean end"),
            _ => node.kill_switch(),
        }
        assert_eq!(addresses(), before, "without a switch the pod keeps what it has");
        let routes = a.netns().ip("route show").unwrap();
        assert!(routes.contains("192.168.0.0/16 via 10.1.0.1"), "{routes}");
        node.start_switch();
        wait_for_ping(&a, at_b.ipv4());
        wait_for_ping(&b, at_a.ipv4());
        assert_eq!(addresses(), before);
    }
    node.del(&a, "pods");
    assert!(a.netns().ip("link show dev eth0").is_err());
    node.assert_ledger_balances();
}

#[test]
fn switch_when_killed_under_a_program_takes_it_back() {
    if !possible("switch_when_killed_under_a_program_takes_it_back") {
        return;
    }
    let mut node = Node::start();
    let (kernel, pod) = (Pod::new("kernel"), Pod::new("program"));
    let at_kernel = node.add(&kernel, "pods");
    let mut program = Program::start(&node, &pod);
    program.wait_for_ping(&at_kernel);
    for round in 0..3 {
        match round {
            2 => assert!(node.end_switch(), "SIGTERM is a clean end"),
            _ => node.kill_switch(),
        }
        node.start_switch();
        program.guest.reconnect(node::PATIENCE).unwrap();
        program.wait_for_ping(&at_kernel);
    }
    // And the other way round: the program is killed, and starts again on the same socket.
    program.guest.abandon();
    program.guest.reconnect(node::PATIENCE).unwrap();
    program.wait_for_ping(&at_kernel);
    node.assert_ledger_balances();
}

#[test]
fn agent_when_killed_touches_no_packet() {
    if !possible("agent_when_killed_touches_no_packet") {
        return;
    }
    let mut node = Node::start();
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    node.add(&a, "pods");
    let at_b = node.add(&b, "pods");
    wait_for_ping(&a, at_b.ipv4());
    node.kill_agent();
    assert_eq!(lab::ping(a.netns(), at_b.ipv4(), 10, node::PATIENCE).unwrap().lost(), 0);
    node.start_agent();
    assert_eq!(lab::ping(a.netns(), at_b.ipv4(), 10, node::PATIENCE).unwrap().lost(), 0);
    assert_eq!(node.get("ports")["ports"].as_array().unwrap().len(), 2);
    let c = Pod::new("c");
    let at_c = node.add(&c, "pods");
    assert!(![at_b.ipv4()].contains(&at_c.ipv4()), "the new agent knows what was given out");
    wait_for_ping(&c, at_b.ipv4());
}

#[test]
fn agent_when_killed_at_any_step_of_an_add_converges() {
    if !possible("agent_when_killed_at_any_step_of_an_add_converges") {
        return;
    }
    let mut node = Node::start();
    let witness = Pod::new("witness");
    node.add(&witness, "pods");
    for step in 0..12 {
        let pod = Pod::new(&format!("pod{step}"));
        let add = node.plugin("ADD", Some(&pod), &node.config("pods"));
        // Not to wait for anything: the agent is to die somewhere else in each round.
        std::thread::sleep(Duration::from_micros(700 * step));
        node.kill_agent();
        let _ = add.wait_with_output().unwrap();
        node.start_agent();
        if step % 3 == 2 {
            node.del(&pod, "pods");
            assert!(pod.netns().ip("link show dev eth0").is_err());
        } else {
            let at_pod = node.add(&pod, "pods");
            wait_for_ping(&witness, at_pod.ipv4());
            node.del(&pod, "pods");
        }
    }
    let left = node.get("attachments");
    assert_eq!(left["attachments"].as_array().unwrap().len(), 1, "{left}");
    assert_eq!(node.get("ports")["ports"].as_array().unwrap().len(), 1);
    let networks = node.get("networks");
    assert_eq!(networks["networks"][0]["subnets"][0]["leased"], 1, "{networks}");
    node.assert_ledger_balances();
}

#[test]
fn switch_when_killed_at_any_step_of_an_add_converges() {
    if !possible("switch_when_killed_at_any_step_of_an_add_converges") {
        return;
    }
    let mut node = Node::start();
    let witness = Pod::new("witness");
    node.add(&witness, "pods");
    for step in 0..8 {
        let pod = Pod::new(&format!("pod{step}"));
        let add = node.plugin("ADD", Some(&pod), &node.config("pods"));
        std::thread::sleep(Duration::from_micros(700 * step));
        node.kill_switch();
        // It may have been done already, or be told to try again.
        let _ = add.wait_with_output().unwrap();
        node.start_switch();
        wait_for("ADD to be served", || node.call("STATUS", None, &node.config("pods")).is_ok());
        let at_pod = node.add(&pod, "pods");
        wait_for_ping(&witness, at_pod.ipv4());
        node.del(&pod, "pods");
        assert!(pod.netns().ip("link show dev eth0").is_err());
    }
    assert_eq!(node.get("ports")["ports"].as_array().unwrap().len(), 1);
    node.assert_ledger_balances();
}

#[test]
fn agent_when_killed_at_any_step_of_a_del_converges() {
    if !possible("agent_when_killed_at_any_step_of_a_del_converges") {
        return;
    }
    let mut node = Node::start();
    for step in 0..8 {
        let pod = Pod::new(&format!("pod{step}"));
        node.add(&pod, "pods");
        let del = node.plugin("DEL", Some(&pod), &node.config("pods"));
        std::thread::sleep(Duration::from_micros(700 * step));
        node.kill_agent();
        let _ = del.wait_with_output().unwrap();
        node.start_agent();
        node.del(&pod, "pods");
        assert!(pod.netns().ip("link show dev eth0").is_err());
    }
    assert_eq!(node.get("attachments")["attachments"], json!([]));
    wait_for("the switch to have no port", || node.get("ports")["ports"] == json!([]));
}
