//! What became of the packet, hop by hop? For people and for programs.

use local_api::switch_v1 as api;
use serde::Serialize;

use super::place::Place;
use super::words;

/// All of it.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) packet: String,
    pub(super) hops: Vec<Hop>,
    /// What goes on at nodes that were not asked.
    pub(super) elsewhere: Vec<Elsewhere>,
}

/// One switch's explanation.
#[derive(Serialize)]
pub(super) struct Hop {
    /// Empty: nobody says what the node is called.
    node: String,
    /// By which it comes in; none: by the uplink, in a tunnel.
    port: Option<String>,
    frame: String,
    steps: Vec<Step>,
    outputs: Vec<Output>,
    drop_reason: Option<String>,
    denied_by: Option<String>,
}

#[derive(Serialize)]
struct Step {
    stage: String,
    sentence: String,
}

/// A frame that leaves.
#[derive(Serialize)]
struct Output {
    port: String,
    packet: String,
    frame: String,
    /// It goes back to whoever sent the packet, with what the gateway has to say.
    is_answer: bool,
    tunnel: Option<Tunnel>,
}

#[derive(Serialize)]
struct Tunnel {
    node: String,
    vni: u32,
}

/// A frame that goes on at a node that was not asked.
#[derive(Serialize)]
pub(super) struct Elsewhere {
    node: String,
    /// What to run there.
    command: String,
}

impl From<&api::TraceTunnel> for Elsewhere {
    fn from(tunnel: &api::TraceTunnel) -> Self {
        let command = format!("millrace trace --uplink --hex {}", hex(&tunnel.frame));
        Self { node: tunnel.node.clone(), command }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hop {
    /// What the switch at `place` says of a frame that comes in by `port`, or by the uplink.
    pub(super) fn new(
        place: &Place,
        port: Option<&api::Port>,
        frame: &[u8],
        response: api::TraceResponse,
    ) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let step = |step: api::TraceStep| Step { stage: step.stage, sentence: step.sentence };
        let output = |out: api::TraceOutput| Output {
            port: place.port_name(out.port),
            packet: words::packet(&out.frame),
            frame: hex(&out.frame),
            is_answer: out.is_answer,
            tunnel: out.tunnel.map(|tunnel| Tunnel { node: tunnel.node, vni: tunnel.vni }),
        };
        Hop {
            node: place.name.clone().unwrap_or_default(),
            port: port.map(|port| port.name.clone()),
            frame: hex(frame),
            steps: response.steps.into_iter().map(step).collect(),
            outputs: response.outputs.into_iter().map(output).collect(),
            drop_reason: some(response.drop_reason),
            denied_by: some(response.denied_by),
        }
    }

    fn text(&self) -> String {
        let entrance = self.port.as_deref().unwrap_or("the uplink");
        let node = if self.node.is_empty() { "this node" } else { &self.node };
        let mut text = format!("\nOn {node} it comes in by {entrance}:\n");
        let width = self.steps.iter().map(|step| step.stage.len()).max().unwrap_or(0);
        for (number, step) in self.steps.iter().enumerate() {
            text += &format!("{:4}. {:width$}  {}\n", number + 1, step.stage, step.sentence);
        }
        for output in &self.outputs {
            text += &format!("  {}\n", output.text());
        }
        match (&self.denied_by, &self.drop_reason) {
            (Some(rule), Some(reason)) => text += &format!("  Denied by {rule} ({reason}).\n"),
            (None, Some(reason)) => text += &format!("  Dropped ({reason}).\n"),
            (_, None) => {}
        }
        text
    }
}

impl Output {
    fn text(&self) -> String {
        match (&self.tunnel, self.is_answer) {
            (_, true) => format!("Answered by {}: {}.", self.port, self.packet),
            (Some(tunnel), _) => {
                format!("Sent to node {} (VNI {}): {}.", tunnel.node, tunnel.vni, self.packet)
            }
            (None, _) => format!("Sent to {}: {}.", self.port, self.packet),
        }
    }
}

impl Report {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n", self.packet);
        self.hops.iter().for_each(|hop| text += &hop.text());
        for Elsewhere { node, command } in &self.elsewhere {
            text += &format!(
                "\nHow it goes on, node {node} knows: run this there, or name its sockets here with --node {node}=DIR.\n"
            );
            text += &format!("  {command}\n");
        }
        text
    }
}
