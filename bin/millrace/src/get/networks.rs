//! `millrace get networks`: what can pods be attached to?

use local_api::agent_v1 as api;
use serde::Serialize;

use super::{GetArgs, join};
use crate::client;
use crate::output::Row;

#[derive(Serialize)]
struct Answer {
    networks: Vec<Network>,
}

#[derive(Serialize)]
struct Network {
    name: String,
    number: u32,
    port_kind: String,
    mtu_bytes: u32,
    vlan: u32,
    subnets: Vec<Subnet>,
    attachments: u32,
    removed: bool,
    topology: String,
    vni: u32,
}

#[derive(Serialize)]
struct Subnet {
    subnet: String,
    gateway: String,
    addresses: u64,
    leased: u64,
}

impl From<api::Network> for Network {
    fn from(network: api::Network) -> Self {
        let subnet = |subnet: api::Subnet| Subnet {
            subnet: subnet.subnet,
            gateway: subnet.gateway,
            addresses: subnet.addresses,
            leased: subnet.leased,
        };
        Self {
            name: network.name,
            number: network.number,
            port_kind: network.port_kind,
            mtu_bytes: network.mtu_bytes,
            vlan: network.vlan,
            subnets: network.subnets.into_iter().map(subnet).collect(),
            attachments: network.attachments,
            removed: network.removed,
            topology: network.topology,
            vni: network.vni,
        }
    }
}

impl Row for Network {
    const HEADS: &'static [&'static str] = &[
        "NAME",
        "NUMBER",
        "KIND",
        "MTU",
        "TOPOLOGY",
        "VLAN",
        "VNI",
        "SUBNETS",
        "LEASED",
        "ATTACHMENTS",
        "STATE",
    ];

    fn cells(&self) -> Vec<String> {
        let subnets: Vec<&str> = self.subnets.iter().map(|subnet| &*subnet.subnet).collect();
        let leased: Vec<String> =
            self.subnets.iter().map(|subnet| format!("{}/{}", subnet.leased, subnet.addresses)).collect();
        vec![
            self.name.clone(),
            self.number.to_string(),
            self.port_kind.clone(),
            self.mtu_bytes.to_string(),
            self.topology.clone(),
            number_or_dash(self.vlan),
            number_or_dash(self.vni),
            join(&subnets),
            join(&leased),
            self.attachments.to_string(),
            if self.removed { "leaving" } else { "active" }.into(),
        ]
    }
}

fn number_or_dash(number: u32) -> String {
    if number == 0 { "-".into() } else { number.to_string() }
}

pub(super) async fn show(args: &GetArgs) -> anyhow::Result<()> {
    let answer = client::agent(&args.run_dir).list_networks(api::ListNetworksRequest {}).await;
    let state = client::agent_says(answer, &args.run_dir)?;
    let answer = Answer { networks: state.networks.into_iter().map(Network::from).collect() };
    super::answer(args, &answer.networks, "no networks: define one in the agent's networks file", &answer)
}
