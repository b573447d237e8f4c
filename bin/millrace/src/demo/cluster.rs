//! Two nodes on this machine: a network namespace each, with a switch and an agent of its own, joined by a bridge in a third
//! namespace, which is the underlay.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use lab::Netns;

use super::node::{Node, Setup};
use super::screen::wait_for;

/// The network of both nodes.
const NETWORK: &str = "shop";
const NAMES: [&str; 2] = ["node-1", "node-2"];

/// The same file on both nodes, as an operator writes it. Pods have their addresses in it because each node is to know who
/// is on the other one.
const FILE: &str = "\
nodes:
  - {name: node-1, number: 1, addresses: [192.0.2.1], uplink: eth0}
  - {name: node-2, number: 2, addresses: [192.0.2.2], uplink: eth0}
networks:
  - name: shop
    topology: layer3
    vni: 100
    policies: true
    subnets: [{subnet: 10.128.0.0/14, nodePrefix: 23}]
    routes: [{dst: 172.30.0.0/16}]
pods:
  - {namespace: shop, name: client, labels: {role: client}, addresses: [10.128.2.2]}
  - {namespace: shop, name: stranger, labels: {role: stranger}, addresses: [10.128.2.3]}
  - {namespace: shop, name: web-1, labels: {app: web}, addresses: [10.128.2.4]}
  - {namespace: shop, name: web-2, labels: {app: web}, addresses: [10.128.4.2]}
  - {namespace: shop, name: cart, labels: {app: cart}, addresses: [10.128.4.3]}
services:
  - namespace: shop
    name: web
    network: shop
    clusterIPs: [172.30.0.10]
    ports: [{port: 80, targetPort: 8080}]
    selector: {app: web}
networkPolicies:
  - namespace: shop
    name: only-clients
    podSelector: {matchLabels: {app: web}}
    ingress:
      - from: [{podSelector: {matchLabels: {role: client}}}]
        ports: [{port: 8080}]
";

/// Both nodes; gone when it is dropped.
pub(super) struct Cluster {
    pub(super) nodes: [Node; 2],
    _hosts: [Netns; 2],
    _underlay: Netns,
}

impl Cluster {
    /// Starts both in folders inside `folder`, and waits until they know the way to each other.
    ///
    /// # Errors
    /// What could not be made, or did not start.
    pub(super) fn start(folder: &Path, cpu: usize) -> Result<Cluster> {
        let underlay = Netns::new().context("a network namespace for the underlay")?;
        underlay.ip("link add br0 type bridge").and_then(|_| underlay.ip("link set br0 up"))?;
        let hosts = [
            host(&underlay, 1).context("a node's namespace")?,
            host(&underlay, 2).context("a node's namespace")?,
        ];
        let start = |number: usize| {
            let (name, host) = (NAMES[number], hosts[number].path());
            let setup = Setup { network: NETWORK, file: FILE, cpu, host: Some((name, host)) };
            Node::start(folder.join(name), &setup).with_context(|| name)
        };
        let nodes = [start(0)?, start(1)?];
        for node in &nodes {
            wait_for("the way to the other node", || Ok(node.reaches_others()? && node.uplink()?.is_some()))?;
        }
        Ok(Cluster { nodes, _hosts: hosts, _underlay: underlay })
    }

    /// The option of `millrace trace` that says where the second node's switch is.
    pub(super) fn other_node(&self) -> String {
        format!("{}={}", NAMES[1], self.nodes[1].folder().display())
    }
}

fn host(underlay: &Netns, number: usize) -> io::Result<Netns> {
    let host = Netns::new()?;
    underlay
        .ip(&format!("link add port{number} type veth peer name eth0 netns {}", host.path().display()))?;
    underlay.ip(&format!("link set port{number} master br0 up"))?;
    host.ip(&format!("address add 192.0.2.{number}/24 dev eth0"))?;
    host.ip("link set eth0 up")?;
    Ok(host)
}
