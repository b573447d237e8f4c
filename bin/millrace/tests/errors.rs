//! Does whatever goes wrong say what to do? One test for each way to get a node wrong.

mod node;

use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

use node::{Node, Pod, possible, wait_for};
use serde_json::json;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a process that must refuse to start, and what it said.
fn refusal(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_millrace")).args(words).output().unwrap();
    assert!(!output.status.success(), "{words:?} started");
    stderr(&output)
}

#[test]
fn get_when_nobody_answers_says_what_to_start() {
    let node = Node::new();
    let said = stderr(&node.cli("get ports"));
    assert!(said.contains("switch.sock: start one with `millrace switch`"), "{said}");
    let said = stderr(&node.cli("get networks"));
    assert!(said.contains("agent.sock: start one with `millrace agent`"), "{said}");
    let said = stderr(&node.cli("top --once"));
    assert!(said.contains("start one with `millrace switch`"), "{said}");
}

#[test]
fn switch_when_the_socket_is_served_refuses_to_start() {
    let mut node = Node::new();
    if !possible("switch_when_the_socket_is_served_refuses_to_start") {
        return;
    }
    node.start_switch();
    let said = refusal(&["switch", "--run-dir", node.run_dir().to_str().unwrap()]);
    assert!(said.contains("switch.sock") && said.contains("another process"), "{said}");
    assert!(node.cli("get workers").status.success(), "the first one is unharmed");
}

#[test]
fn switch_when_the_socket_is_a_file_leaves_it_alone() {
    let node = Node::new();
    std::fs::create_dir_all(node.run_dir()).unwrap();
    let path = node.run_dir().join("switch.sock");
    std::fs::write(&path, "precious").unwrap();
    let said = refusal(&["switch", "--run-dir", node.run_dir().to_str().unwrap()]);
    assert!(said.contains("not a socket"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn switch_when_the_socket_is_stale_takes_it_over() {
    if !possible("switch_when_the_socket_is_stale_takes_it_over") {
        return;
    }
    let mut node = Node::new();
    std::fs::create_dir_all(node.run_dir()).unwrap();
    drop(UnixListener::bind(node.run_dir().join("switch.sock")).unwrap());
    node.start_switch();
}

#[test]
fn switch_when_the_cpu_does_not_exist_says_which_do() {
    let node = Node::new();
    let said = refusal(&["switch", "--cpus", "999", "--run-dir", node.run_dir().to_str().unwrap()]);
    assert!(said.contains("CPU 999") && said.contains("may use"), "{said}");
}

#[test]
fn agent_when_another_has_the_state_refuses_to_start() {
    if !possible("agent_when_another_has_the_state_refuses_to_start") {
        return;
    }
    let node = Node::start();
    let (state, networks, run) = (node.path("state"), node.path("networks.yaml"), node.path("second"));
    let said = refusal(&[
        "agent",
        "--run-dir",
        run.to_str().unwrap(),
        "--state-dir",
        state.to_str().unwrap(),
        "--networks",
        networks.to_str().unwrap(),
    ]);
    assert!(said.contains("state") && said.contains("agent"), "{said}");
    node.add(&Pod::new("unharmed"), "pods");
}

#[test]
fn agent_when_the_networks_file_is_wrong_names_object_field_and_remedy() {
    let node = Node::new();
    let networks = node.path("networks.yaml");
    std::fs::write(&networks, "networks: [{name: blue, mtu: 7}]").unwrap();
    let (state, run) = (node.path("state"), node.run_dir());
    let said = refusal(&[
        "agent",
        "--run-dir",
        run.to_str().unwrap(),
        "--state-dir",
        state.to_str().unwrap(),
        "--networks",
        networks.to_str().unwrap(),
    ]);
    assert!(said.contains("blue") && said.contains("mtu") && said.contains("choose"), "{said}");
}

#[test]
fn add_when_the_agent_is_away_says_try_again() {
    let node = Node::new();
    if !possible("add_when_the_agent_is_away_says_try_again") {
        return;
    }
    let pod = Pod::new("early");
    let config = node.config("pods");
    assert_eq!(node.call("ADD", Some(&pod), &config).unwrap_err()["code"], 11);
    assert_eq!(node.call("STATUS", None, &config).unwrap_err()["code"], 50);
    assert!(node.call("DEL", Some(&pod), &config).is_err(), "the runtime must ask again");
    assert!(node.call("VERSION", None, &config).is_ok());
}

#[test]
fn add_when_the_switch_is_away_says_so_and_leaves_nothing() {
    if !possible("add_when_the_switch_is_away_says_so_and_leaves_nothing") {
        return;
    }
    let mut node = Node::new();
    node.start_agent_unready();
    let config = node.config("pods");
    wait_for("the agent to answer", || node.cli("get networks").status.success());
    assert_eq!(node.call("STATUS", None, &config).unwrap_err()["code"], 50);
    let pod = Pod::new("early");
    let error = node.call("ADD", Some(&pod), &config).unwrap_err();
    assert!(error.to_string().contains("switch"), "{error}");
    node.start_switch();
    wait_for("ADD to be served", || node.call("STATUS", None, &config).is_ok());
    node.add(&pod, "pods");
    node.del(&pod, "pods");
    assert_eq!(node.get("ports")["ports"], json!([]));
}

#[test]
fn add_when_the_request_is_wrong_names_what() {
    if !possible("add_when_the_request_is_wrong_names_what") {
        return;
    }
    let node = Node::start();
    let pod = Pod::new("wrong");
    let error = node.call("ADD", Some(&pod), &node.config("nowhere")).unwrap_err().to_string();
    assert!(error.contains("nowhere") && error.contains("pods"), "names the networks there are: {error}");

    let nowhere = Pod { id: "nowhere".into(), netns: None, kubernetes: None };
    let error = node.call("ADD", Some(&nowhere), &node.config("pods")).unwrap_err();
    assert_eq!(error["code"], 4, "{error}");

    let mut config = node.config("pods");
    config["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 80, "containerPort": 80 }] });
    let error = node.call("ADD", Some(&pod), &config).unwrap_err();
    assert_eq!(error["code"], 2, "{error}");

    let mut config = node.config("pods");
    config["deviceID"] = json!("ffff:ff:1f.7");
    let error = node.call("ADD", Some(&pod), &config).unwrap_err();
    assert_eq!(error["code"], 100, "{error}");
    assert!(
        error["msg"].as_str().unwrap().contains("ffff:ff:1f.7: find it: no function has that address"),
        "{error}"
    );
    config["portKind"] = json!("tap");
    let error = node.call("ADD", Some(&pod), &config).unwrap_err();
    assert_eq!(error["code"], 7, "{error}");

    pod.netns().ip("link add eth0 type veth peer name other").unwrap();
    let error = node.call("ADD", Some(&pod), &node.config("pods")).unwrap_err().to_string();
    assert!(error.contains("eth0"), "{error}");
    node.del(&pod, "pods");
    assert!(pod.netns().ip("link show dev eth0").is_ok(), "what was there before us stays");
    assert_eq!(node.get("ports")["ports"], json!([]));
}
