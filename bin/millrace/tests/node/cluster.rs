//! Several nodes on one machine: a network namespace each, joined by a bridge in another.

use lab::Netns;

use super::{Node, Pod, wait_for};

/// Nodes `node-1` and so on, at 192.0.2.NUMBER and 2001:db8::NUMBER of the underlay.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// What joins them.
    pub(crate) underlay: Netns,
    /// Hosts behind these in number, of which the nodes know, and on which nothing runs.
    pub(crate) strangers: Vec<Netns>,
}

impl Cluster {
    /// `count` nodes whose switches and agents run, with these networks. Their tunnels end at addresses of one family.
    pub(crate) fn start(count: usize, family: Family, networks: &str) -> Cluster {
        Cluster::start_with_strangers(count, 0, family, networks)
    }

    /// The same with hosts for somebody else's switches.
    pub(crate) fn start_with_strangers(
        count: usize,
        strangers: usize,
        family: Family,
        networks: &str,
    ) -> Cluster {
        let underlay = Netns::new().unwrap();
        underlay.ip("link add br0 type bridge").unwrap();
        underlay.ip("link set br0 up").unwrap();
        let node = |number| Node::of_several(&format!("node-{number}"), station(&underlay, number));
        let nodes = (1..=count).map(node).collect::<Vec<_>>();
        let strangers = (1..=strangers).map(|number| station(&underlay, count + number)).collect();
        let mut cluster = Cluster { nodes, underlay, strangers };
        let file = file(cluster.hosts(), family, networks);
        for node in &mut cluster.nodes {
            std::fs::write(node.path("networks.yaml"), &file).unwrap();
            node.start_switch();
            node.start_agent();
        }
        cluster.wait_for_ways();
        cluster
    }

    fn hosts(&self) -> usize {
        self.nodes.len() + self.strangers.len()
    }

    /// Waits until each node's kernel knows the stations of all others, and its switch was told.
    fn wait_for_ways(&self) {
        let others = self.hosts() - 1;
        for node in &self.nodes {
            wait_for("the ways to all nodes", || {
                let nodes = node.get("nodes");
                let nodes = nodes["nodes"].as_array().unwrap();
                nodes.iter().filter(|it| it["next_hop"].as_str().is_some_and(|mac| !mac.is_empty())).count()
                    == others
            });
        }
    }

    /// A pod of node `node`, counted from 0, in `network`.
    pub(crate) fn pod(&self, node: usize, name: &str, network: &str) -> (Pod, super::Attached) {
        let pod = Pod::new(name);
        let attached = self.nodes[node].add(&pod, network);
        (pod, attached)
    }

    /// Somebody on the underlay who is no node, at 192.0.2.NUMBER and 2001:db8::NUMBER.
    pub(crate) fn outside(&self, number: usize) -> Netns {
        station(&self.underlay, number)
    }

    /// Gives all nodes other networks and objects.
    pub(crate) fn write(&self, family: Family, networks: &str) {
        let file = file(self.hosts(), family, networks);
        for node in &self.nodes {
            // At once: the agent must not read half of it.
            std::fs::write(node.path("new"), &file).unwrap();
            std::fs::rename(node.path("new"), node.path("networks.yaml")).unwrap();
        }
    }
}

/// The family of the underlay's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    /// Both; tunnels end at those of IPv4.
    Dual,
}

/// A namespace on the underlay, by its interface `eth0`.
fn station(underlay: &Netns, number: usize) -> Netns {
    let netns = Netns::new().unwrap();
    let path = netns.path();
    underlay.ip(&format!("link add port{number} type veth peer name eth0 netns {}", path.display())).unwrap();
    underlay.ip(&format!("link set port{number} master br0 up")).unwrap();
    netns.ip(&format!("address add 192.0.2.{number}/24 dev eth0")).unwrap();
    netns.ip(&format!("address add 2001:db8::{number}/64 dev eth0 nodad")).unwrap();
    netns.ip("link set eth0 up").unwrap();
    netns.ip("link set lo up").unwrap();
    netns
}

fn file(count: usize, family: Family, networks: &str) -> String {
    let node = |number: usize| {
        let address = match family {
            Family::V4 => format!("192.0.2.{number}"),
            Family::V6 => format!("'2001:db8::{number}'"),
            Family::Dual => format!("192.0.2.{number}, '2001:db8::{number}'"),
        };
        format!("  - {{name: node-{number}, number: {number}, addresses: [{address}], uplink: eth0}}\n")
    };
    format!("nodes:\n{}{networks}", (1..=count).map(node).collect::<String>())
}
