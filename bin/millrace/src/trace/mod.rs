//! `millrace trace`: what would happen to a packet, in words? The packet is described or given in hex, and never sent.

mod packet;

use anyhow::anyhow;
use clap::Args;
use local_api::switch_v1 as api;
use serde::Serialize;

use crate::client;
use crate::output::{self, Format};
use crate::run_dir::RunDir;
use packet::PacketArgs;

const EXAMPLES: &str = "\
Examples:
  millrace trace --port web/eth0 --to db/eth0 --tcp 40000,5432
  millrace trace --port web/eth0 --to 10.1.0.7
  millrace trace --port 3 --from 02:00:00:00:00:01 --to ff:ff:ff:ff:ff:ff --ip 10.1.0.2,10.1.0.255 --udp 68,67
  millrace trace --port web/eth0 --arp 10.1.0.1
  millrace trace --port web/eth0 --hex 'ffffffffffff 020000000001 0806 ...'

What is not said is taken from the ports: the source is the port's own address, the destination that of --to.";

/// Which packet to explain.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    run_dir: RunDir,
    /// The port by which the packet comes in: its name or number (see `millrace get ports`)
    #[arg(long, value_name = "PORT")]
    port: String,
    #[command(flatten)]
    packet: PacketArgs,
    /// How to show the explanation
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Explanation {
    port: String,
    frame: String,
    steps: Vec<Step>,
    out_ports: Vec<String>,
    drop_reason: Option<String>,
}

#[derive(Serialize)]
struct Step {
    stage: String,
    sentence: String,
}

/// Explains the packet.
///
/// # Errors
/// The switch does not answer, or the description is of no packet.
pub(crate) async fn run(args: &TraceArgs) -> anyhow::Result<()> {
    let mut switch = client::switch(&args.run_dir);
    let answer = switch.list_ports(api::ListPortsRequest {}).await;
    let states = client::switch_says(answer, &args.run_dir)?.ports;
    let ports: Vec<api::Port> = states.into_iter().filter_map(|state| state.port).collect();
    let port = find(&ports, &args.port).ok_or_else(|| unknown(&ports, &args.port))?;
    let frame = packet::build(&args.packet, port, &ports)?;
    let request = api::TraceRequest { port: port.number, frame: frame.clone() };
    let response = client::switch_says(switch.trace(request).await, &args.run_dir)?;
    let explanation = explanation(port, &ports, &frame, response);
    match args.output {
        Format::Json => output::print_json(&explanation),
        Format::Table => output::print(&text(&explanation, &packet::summary(&frame))),
    }
}

/// The port of that name, or else of that number.
fn find<'a>(ports: &'a [api::Port], wanted: &str) -> Option<&'a api::Port> {
    let named = ports.iter().find(|port| port.name == wanted);
    named.or_else(|| ports.iter().find(|port| wanted.parse() == Ok(port.number)))
}

fn unknown(ports: &[api::Port], wanted: &str) -> anyhow::Error {
    if ports.is_empty() {
        return anyhow!("no port {wanted:?}: the switch has no ports at all");
    }
    let names: Vec<&str> = ports.iter().map(|port| &*port.name).collect();
    anyhow!("no port {wanted:?}: there are {}", names.join(", "))
}

fn explanation(
    port: &api::Port,
    ports: &[api::Port],
    frame: &[u8],
    response: api::TraceResponse,
) -> Explanation {
    let name = |number: &u32| {
        let port = ports.iter().find(|port| port.number == *number);
        port.map_or_else(|| number.to_string(), |port| port.name.clone())
    };
    let step = |step: api::TraceStep| Step { stage: step.stage, sentence: step.sentence };
    Explanation {
        port: port.name.clone(),
        frame: frame.iter().map(|byte| format!("{byte:02x}")).collect(),
        steps: response.steps.into_iter().map(step).collect(),
        out_ports: response.out_ports.iter().map(name).collect(),
        drop_reason: (!response.drop_reason.is_empty()).then_some(response.drop_reason),
    }
}

fn text(explanation: &Explanation, summary: &str) -> String {
    let mut text = format!("{summary} comes in by {}.\n", explanation.port);
    let width = explanation.steps.iter().map(|step| step.stage.len()).max().unwrap_or(0);
    for (number, step) in explanation.steps.iter().enumerate() {
        text += &format!("{:3}. {:width$}  {}\n", number + 1, step.stage, step.sentence);
    }
    text += &match &explanation.drop_reason {
        Some(reason) => format!("Dropped ({reason}).\n"),
        None => format!("Sent to {}.\n", explanation.out_ports.join(", ")),
    };
    text
}
