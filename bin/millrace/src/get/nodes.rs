//! `millrace get nodes`: which nodes does this one know, and how does it reach them?

use local_api::agent_v1 as api;
use serde::Serialize;

use super::GetArgs;
use crate::client;
use crate::output::Row;

#[derive(Serialize)]
struct Answer {
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    number: u32,
    own: bool,
    uplink: String,
    address: String,
    next_hop: String,
    mtu_bytes: u32,
}

impl From<api::Node> for Node {
    fn from(node: api::Node) -> Self {
        let api::Node { name, number, own, uplink, address, next_hop, mtu_bytes } = node;
        Self { name, number, own, uplink, address, next_hop, mtu_bytes }
    }
}

impl Row for Node {
    const HEADS: &'static [&'static str] =
        &["NAME", "NUMBER", "ADDRESS", "UPLINK", "NEXT HOP", "MTU", "STATE"];

    fn cells(&self) -> Vec<String> {
        let state = match (self.own, self.mtu_bytes, &*self.next_hop) {
            (true, ..) => "this node",
            (false, 0, _) => "no way",
            (false, _, "") => "no neighbor",
            _ => "reached",
        };
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![
            self.name.clone(),
            self.number.to_string(),
            dash(&self.address),
            self.uplink.clone(),
            dash(&self.next_hop),
            if self.mtu_bytes == 0 { "-".into() } else { self.mtu_bytes.to_string() },
            state.into(),
        ]
    }
}

pub(super) async fn show(args: &GetArgs) -> anyhow::Result<()> {
    let answer = client::agent(&args.run_dir).list_nodes(api::ListNodesRequest {}).await;
    let state = client::agent_says(answer, &args.run_dir)?;
    let answer = Answer { nodes: state.nodes.into_iter().map(Node::from).collect() };
    super::answer(args, &answer.nodes, "no nodes: this one is on its own", &answer)
}
