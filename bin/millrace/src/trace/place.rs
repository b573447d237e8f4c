//! Where is the packet asked about? A node's switch, with what it knows of its ports and networks.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{anyhow, bail};
use local_api::agent_v1::ListNodesRequest;
use local_api::switch_v1 as api;
use wire::MacAddr;

use crate::client;
use crate::run_dir::RunDir;

/// The interface that a runtime gives a pod first.
const FIRST_INTERFACE: &str = "eth0";

/// Another node, as an option names it.
#[derive(Debug, Clone)]
pub(super) struct NodeArg {
    pub(super) name: String,
    run_dir: RunDir,
}

impl FromStr for NodeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, folder)) if !name.is_empty() && !folder.is_empty() => {
                Ok(Self { name: name.to_owned(), run_dir: RunDir { run_dir: folder.into() } })
            }
            _ => {
                Err("a node's name and the directory of its sockets are needed, as in node-2=/run/node-2"
                    .into())
            }
        }
    }
}

/// A node.
#[derive(Debug)]
pub(super) struct Place {
    /// Its name, if anybody says it.
    pub(super) name: Option<String>,
    pub(super) run_dir: RunDir,
    pub(super) ports: Vec<api::Port>,
    pub(super) networks: Vec<api::Network>,
}

/// What is known of one side of a packet.
#[derive(Debug, Default)]
pub(super) struct Station {
    pub(super) mac: Option<MacAddr>,
    pub(super) ips: Vec<IpAddr>,
}

impl Station {
    pub(super) fn of(port: &api::Port) -> Self {
        Self {
            mac: port.macs.first().and_then(|mac| mac.parse().ok()),
            ips: port.ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        }
    }
}

impl Place {
    /// The node of this command.
    ///
    /// # Errors
    /// Its switch does not answer.
    pub(super) async fn here(run_dir: &RunDir) -> anyhow::Result<Place> {
        // Only the agent knows what its own node is called, and the switch explains without it.
        let nodes = client::agent(run_dir).list_nodes(ListNodesRequest {}).await;
        let nodes = nodes.map(|nodes| nodes.into_inner().nodes).unwrap_or_default();
        let own = nodes.into_iter().find(|node| node.own);
        Place::open(own.map(|node| node.name), run_dir).await
    }

    /// Another node.
    ///
    /// # Errors
    /// Its switch does not answer.
    pub(super) async fn of_node(node: &NodeArg) -> anyhow::Result<Place> {
        Place::open(Some(node.name.clone()), &node.run_dir).await
    }

    async fn open(name: Option<String>, run_dir: &RunDir) -> anyhow::Result<Place> {
        let mut switch = client::switch(run_dir);
        let answer = switch.list_ports(api::ListPortsRequest {}).await;
        let states = client::switch_says(answer, run_dir)?.ports;
        let answer = switch.list_networks(api::ListNetworksRequest {}).await;
        let networks = client::switch_says(answer, run_dir)?.networks;
        let ports = states.into_iter().filter_map(|state| state.port).collect();
        Ok(Place { name, run_dir: run_dir.clone(), ports, networks })
    }

    /// The port of that name or number; of a pod, the one of its first interface.
    pub(super) fn port(&self, wanted: &str) -> anyhow::Result<Option<&api::Port>> {
        let named = self.ports.iter().find(|port| port.name == wanted);
        if let Some(port) = named.or_else(|| self.ports.iter().find(|it| wanted.parse() == Ok(it.number))) {
            return Ok(Some(port));
        }
        let interface =
            |port: &api::Port| Some(port.name.strip_prefix(wanted)?.strip_prefix('/')?.to_owned());
        let of_pod: Vec<_> = self.ports.iter().filter_map(|port| Some((interface(port)?, port))).collect();
        match &of_pod[..] {
            [] => Ok(None),
            [(_, port)] => Ok(Some(port)),
            several => match several.iter().find(|(interface, _)| interface == FIRST_INTERFACE) {
                Some((_, port)) => Ok(Some(port)),
                None => {
                    let names: Vec<&str> = several.iter().map(|(_, port)| &*port.name).collect();
                    bail!("{wanted:?} has several ports: say which of {}", names.join(", "))
                }
            },
        }
    }

    /// The port whose station has this address.
    pub(super) fn port_at(&self, address: IpAddr) -> Option<&api::Port> {
        self.ports.iter().find(|port| Station::of(port).ips.contains(&address))
    }

    /// The network of a port.
    pub(super) fn network_of(&self, port: &api::Port) -> Option<&api::Network> {
        self.networks.iter().find(|network| network.number == port.network)
    }

    /// What people call a port.
    pub(super) fn port_name(&self, number: u32) -> String {
        let port = self.ports.iter().find(|port| port.number == number);
        port.map_or_else(|| number.to_string(), |port| port.name.clone())
    }

    /// That nobody is called `wanted`.
    pub(super) fn unknown(&self, wanted: &str) -> anyhow::Error {
        if self.ports.is_empty() {
            return anyhow!("no pod or port {wanted:?}: the switch has no ports at all");
        }
        let names: Vec<&str> = self.ports.iter().map(|port| &*port.name).collect();
        anyhow!("no pod or port {wanted:?}: there are the ports {}", names.join(", "))
    }
}
