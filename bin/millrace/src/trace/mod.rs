//! `millrace trace`: what would happen to a packet, in words, on its way through one node or several? The packet is described
//! or given in hex, and never sent.
//!
//! A *hop* is one switch's explanation. What would leave in a tunnel is asked about at the node where that ends, as it would
//! be on the underlay, if the person says where its switch is reached; else they are told what to run there.

mod first_hop;
mod packet;
mod place;
mod report;
mod words;

use std::collections::VecDeque;

use anyhow::Context;
use clap::Args;
use local_api::switch_v1 as api;

use crate::client;
use crate::output::{self, Format};
use crate::run_dir::RunDir;
use packet::PacketArgs;
use place::{NodeArg, Place};
use report::{Hop, Report};

const EXAMPLES: &str = "\
Examples:
  millrace trace --from shop/client --to 172.30.0.10 --tcp 80
  millrace trace --from shop/client --to 172.30.0.10 --tcp 80 --node node-2=/run/node-2
  millrace trace --port web/eth0 --to db/eth0 --tcp 40000,5432
  millrace trace --port 3 --from 02:00:00:00:00:01 --to ff:ff:ff:ff:ff:ff --ip 10.1.0.2,10.1.0.255 --udp 68,67
  millrace trace --from shop/client --arp 10.1.0.1
  millrace trace --port web/eth0 --hex 'ffffffffffff 020000000001 0806 ...'

What is not said is taken from the ports: the source is the port's own address. The destination's MAC is that of its port,
or of the gateway where a pod would send it there. Nothing is sent, learned or opened; a packet that would begin a connection
is explained as its first. A service gives connections from other source ports to other endpoints, perhaps.";

/// Which packet to explain.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    run_dir: RunDir,
    /// The port by which the packet comes in: its name or number (see `millrace get ports`) [default: that of --from]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// It comes in by the uplink, from another node, with all headers: as a trace there says
    #[arg(long, requires = "hex", conflicts_with = "port")]
    uplink: bool,
    #[command(flatten)]
    packet: PacketArgs,
    /// Another node, and the directory of its sockets: what leaves for it is followed there. Once for each node
    #[arg(long = "node", value_name = "NAME=DIR")]
    nodes: Vec<NodeArg>,
    /// How to show the explanation
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A packet that is to be explained at one of the places.
struct Arrival {
    place: usize,
    /// None: by the uplink.
    port: Option<api::Port>,
    frame: Vec<u8>,
}

/// Explains the packet.
///
/// # Errors
/// A switch does not answer, or the description is of no packet.
pub(crate) async fn run(args: &TraceArgs) -> anyhow::Result<()> {
    let mut places = vec![Place::here(&args.run_dir).await?];
    for node in &args.nodes {
        places.push(Place::of_node(node).await.with_context(|| format!("node {}", node.name))?);
    }
    let report = follow(first(args, &places)?, &places).await?;
    match args.output {
        Format::Json => output::print_json(&report),
        Format::Table => output::print(&report.text()),
    }
}

/// The packet that the person means, where it comes in.
fn first(args: &TraceArgs, places: &[Place]) -> anyhow::Result<Arrival> {
    if args.uplink {
        return Ok(Arrival { place: 0, port: None, frame: packet::from_hex(&args.packet)? });
    }
    let (port, frame) = packet::build(&args.packet, args.port.as_deref(), places)?;
    Ok(Arrival { place: 0, port: Some(port), frame })
}

/// Asks one switch after the other. What comes out of a tunnel enters no other, so that this ends.
async fn follow(first: Arrival, places: &[Place]) -> anyhow::Result<Report> {
    let mut report = Report { packet: words::packet(&first.frame), hops: Vec::new(), elsewhere: Vec::new() };
    let mut arrivals = VecDeque::from([first]);
    while let Some(arrival) = arrivals.pop_front() {
        let place = &places[arrival.place];
        let response = ask(place, &arrival).await?;
        for tunnel in response.outputs.iter().filter_map(|out| out.tunnel.as_ref()) {
            let next = places.iter().position(|place| place.name.as_ref() == Some(&tunnel.node));
            match next.filter(|_| arrival.port.is_some()) {
                Some(place) => {
                    arrivals.push_back(Arrival { place, port: None, frame: tunnel.frame.clone() });
                }
                None => report.elsewhere.push(tunnel.into()),
            }
        }
        report.hops.push(Hop::new(place, arrival.port.as_ref(), &arrival.frame, response));
    }
    Ok(report)
}

async fn ask(place: &Place, arrival: &Arrival) -> anyhow::Result<api::TraceResponse> {
    let request = api::TraceRequest {
        port: arrival.port.as_ref().map_or(0, |port| port.number),
        frame: arrival.frame.clone(),
        by_uplink: arrival.port.is_none(),
    };
    client::switch_says(client::switch(&place.run_dir).trace(request).await, &place.run_dir)
}
