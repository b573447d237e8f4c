//! What does the page of benchmarks say? What is constant stands here; figures come from the rows, and whether a goal is
//! met from the figures.

use std::fmt::Write as _;

use serde_json::Value;

use crate::all::Row;

const HEAD: &str = include_str!("page.md");

/// In the order of the page.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "vhost",
        heading: "vhost-user to vhost-user",
        arguments: &["vhost", "--rounds", "5"],
        words: "The **light** load recycles descriptors and never touches a payload, so that the switch is the limit; \
                payloads stay warm in the worker's cache, which flatters both switches. Frames go one way.",
    },
    Row {
        name: "macswap",
        heading: "vhost-user to vhost-user, both ways",
        arguments: &["vhost", "--load", "macswap", "--rounds", "5"],
        words: "The **macswap** load does what a forwarding program does: it reads and writes each frame's addresses, \
                rewrites each descriptor, and sends the frame back. Both ports may send from both guests' IP addresses, \
                because macswap leaves those as they are.",
    },
    Row {
        name: "limit",
        heading: "The limit",
        arguments: &["limit", "--rounds", "5"],
        words: "How much of the cost is the switch, how much the rings, and how much the bare copy.",
    },
    Row {
        name: "sweep",
        heading: "Connections",
        arguments: &["sweep", "--rounds", "3"],
        words: "Frames of 64 bytes, each of another connection than the one before. Neither switch looks at ports here, \
                so that both need one megaflow; OVS tries its exact-match cache first. The load writes each frame's \
                ports, and its core owns the frame's first line then, which costs both switches some cycles even for one \
                flow.",
    },
    Row {
        name: "rules",
        heading: "Connections, one rule each",
        arguments: &["sweep", "--flows", "1,1000,10000,100000", "--rounds", "3"],
        words: "The same with a rule of OVS for each connection, as an access list or a service would make it. Millrace \
                has no rules for ports yet: its column is the same as above.",
    },
    Row {
        name: "stations",
        heading: "Stations",
        arguments: &["sweep", "--of", "stations", "--rounds", "3"],
        words: "Each frame between another pair of stations than the one before, all of them learned: every pair is a flow \
                of its own to both switches. Port security is off, because the stations are many.",
    },
    Row {
        name: "connections",
        heading: "Connections to a service",
        arguments: &["connections", "--rounds", "5"],
        words: "A client opens TCP connections to a service: the switch chooses the endpoint, translates both ways, follows \
                the connection's state and asks the endpoint's policy, and routes. A connection with one request is eight \
                packets of 64 bytes, of which the first and the second find nothing cached; with a hundred requests nearly \
                all of its packets are of an established connection. Each packet's addresses and ports are checked where \
                it arrives. OVS does the same by `ct(commit,nat)` and one rule for each service.",
    },
    Row {
        name: "scale",
        heading: "Services, policies and identities",
        arguments: &["scale"],
        words: "So many services, policies and identities in the switch of one node, told over its socket as the agent does it: \
                how long the whole program takes, and how long one change, until all workers forward by it; and what the \
                connections of the row before cost beside them. There is no peer.",
    },
    Row {
        name: "attack",
        heading: "A hostile neighbour",
        arguments: &["attack", "--rounds", "5"],
        words: "Two pods exchange frames of 64 bytes over many connections, while a third pod sends 1 Mbit/s of headers \
                that are made to need as many megaflow masks as can be. What counts is what that costs the two others.",
    },
    Row {
        name: "pods",
        heading: "Kernel pods",
        arguments: &["pods", "--rounds", "3"],
        words: "Two pods with kernel interfaces: iperf3 over TCP, and small packets of UDP one way. Millrace runs with TAP \
                ports, and with VDUSE ports where the kernel has them. OVS runs twice: with TAP ports and userspace-tso, \
                which is its best, and with veth ends that a PMD polls by AF_PACKET, which is how OVS-DPDK reaches a netdev \
                that is there already. veth + bridge hands the pods' packets over without a copy. The goal is three times \
                OVS. The sender of the small packets is never more than 256 ahead of the receiver, so that the rate is one \
                without loss. Each packet costs both pods' kernels a microsecond or more, on the same two cores: where the \
                sender hardly waits, or the switch does not use its whole core, these are the limit, and not the switch.",
    },
    Row {
        name: "latency",
        heading: "Latency, and what idling costs",
        arguments: &["latency"],
        words: "Request and response, back to back and one every ten milliseconds, and the CPU that a switch uses when \
                nothing moves.",
    },
];

/// A row and what came of it.
pub(crate) struct Section {
    pub(crate) row: &'static Row,
    /// As the row printed it.
    pub(crate) table: String,
    pub(crate) json: Option<Value>,
    pub(crate) picture: bool,
    pub(crate) error: Option<String>,
}

/// A ratio of Millrace to a peer that the design asks for.
struct Goal {
    row: &'static str,
    says: &'static str,
    peer: &'static str,
    frame_bytes: u64,
    flows: u64,
    metric: &'static str,
    bound: Bound,
}

/// What a ratio must be.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(bound) => ratio <= bound,
            Self::AtLeast(bound) => ratio >= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(bound) => format!("at most {bound}"),
            Self::AtLeast(bound) => format!("at least {bound}"),
        }
    }
}

const CYCLES: &str = "busy_cycles_per_packet";
const OVS: &str = "ovs-dpdk";
const RULES: &str = "ovs-dpdk-rules";
const CONNTRACK: &str = "ovs-dpdk-ct";

const fn goal(
    row: &'static str,
    says: &'static str,
    peer: &'static str,
    (frame_bytes, flows): (u64, u64),
    (metric, bound): (&'static str, Bound),
) -> Goal {
    Goal { row, says, peer, frame_bytes, flows, metric, bound }
}

const GOALS: &[Goal] = &[
    goal("vhost", "64 B: cycles", OVS, (64, 1), (CYCLES, Bound::AtMost(0.45))),
    goal("vhost", "64 B: packets/s", OVS, (64, 1), ("mpps", Bound::AtLeast(2.0))),
    goal("vhost", "512 B: cycles", OVS, (512, 1), (CYCLES, Bound::AtMost(0.5))),
    goal("vhost", "1500 B: cycles", OVS, (1500, 1), (CYCLES, Bound::AtMost(0.5))),
    goal("vhost", "64 KB TSO: Gbit/s", OVS, (64_294, 1), ("gbps", Bound::AtLeast(2.0))),
    goal("limit", "64 B: packets/s of the limit's", "limit", (64, 1), ("mpps", Bound::AtLeast(0.7))),
    goal("limit", "1500 B: packets/s of the limit's", "limit", (1500, 1), ("mpps", Bound::AtLeast(0.7))),
    goal("sweep", "10k connections: packets/s", OVS, (64, 10_000), ("mpps", Bound::AtLeast(3.0))),
    goal("sweep", "100k connections: packets/s", OVS, (64, 100_000), ("mpps", Bound::AtLeast(5.0))),
    goal("connections", "new connections/s", CONNTRACK, (64, 193_536), ("connections", Bound::AtLeast(4.0))),
    goal(
        "connections",
        "new connections: cycles",
        CONNTRACK,
        (64, 193_536),
        ("busy_cycles_per_connection", Bound::AtMost(0.25)),
    ),
    goal("rules", "10k connections: packets/s", RULES, (64, 10_000), ("mpps", Bound::AtLeast(3.0))),
    goal("rules", "10k connections: cycles", RULES, (64, 10_000), (CYCLES, Bound::AtMost(0.33))),
    goal("rules", "100k connections: packets/s", RULES, (64, 100_000), ("mpps", Bound::AtLeast(5.0))),
    goal("rules", "100k connections: cycles", RULES, (64, 100_000), (CYCLES, Bound::AtMost(0.2))),
    goal("stations", "10k pairs: packets/s", OVS, (64, 10_000), ("mpps", Bound::AtLeast(3.0))),
    goal("stations", "100k pairs: packets/s", OVS, (64, 100_000), ("mpps", Bound::AtLeast(5.0))),
];

/// What each goal asks for and what was measured, as a table.
pub(crate) fn goals(sections: &[Section]) -> anyhow::Result<String> {
    let mut table = "| row | Millrace / peer | goal | measured | |\n|---|---|---|---|---|\n".to_owned();
    for goal in GOALS {
        let Some(section) = sections.iter().find(|section| section.row.name == goal.row) else { continue };
        let Some(json) = &section.json else { continue };
        let line = match ratio(json, goal) {
            Some(ratio) => {
                let met = if goal.bound.holds(ratio) { "met" } else { "missed" };
                format!("{ratio:.2} | {met}")
            }
            None => "not measured | ".into(),
        };
        writeln!(table, "| {} | {}, {} | {} | {line} |", goal.row, goal.says, goal.peer, goal.bound.text())?;
    }
    Ok(table)
}

/// The page.
pub(crate) fn text(sections: &[Section]) -> anyhow::Result<String> {
    let mut page = HEAD.trim_end().to_owned();
    let machine = sections.iter().find_map(|section| section.json.as_ref()?.get("machine"));
    if let Some(machine) = machine {
        write!(page, "\n\n{}", machine_line(machine))?;
    }
    write!(page, "\n\n## The goals\n\n{}", goals(sections)?)?;
    for section in sections {
        write!(page, "\n## {}\n\n{}\n", section.row.heading, wrapped(section.row.words))?;
        if section.picture {
            write!(page, "\n![{}](benchmarks/{}.svg)\n", section.row.heading, section.row.name)?;
        }
        write!(page, "\n    cargo xtask bench {}\n", section.row.arguments.join(" "))?;
        if let Some(error) = &section.error {
            write!(page, "\n**Not measured**: {error}.\n")?;
        }
        if !section.table.trim().is_empty() {
            write!(page, "\n```text\n{}\n```\n", section.table.trim())?;
        }
    }
    Ok(page)
}

fn machine_line(machine: &Value) -> String {
    let word =
        |key: &str| machine.get(key).map_or_else(String::new, |value| value.to_string().replace('"', ""));
    format!(
        "Machine: {}, {} virtual cores, time stamp counter at {} MHz, {}; Millrace {}.",
        word("cpu"),
        word("cores"),
        word("tsc_mhz"),
        word("kernel"),
        env!("CARGO_PKG_VERSION"),
    )
}

fn ratio(json: &Value, goal: &Goal) -> Option<f64> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64);
    let is_it = |ratio: &&Value| {
        text(ratio, "peer").as_deref() == Some(goal.peer)
            && text(ratio, "metric").as_deref() == Some(goal.metric)
            && number(ratio, "frame_bytes") == Some(goal.frame_bytes)
            && number(ratio, "flows") == Some(goal.flows)
    };
    json.get("ratios")?.as_array()?.iter().find(is_it)?.get("millrace_over_peer")?.as_f64()
}

/// Words in lines of at most 125 characters.
fn wrapped(words: &str) -> String {
    let mut text = String::new();
    let mut length = 0;
    for word in words.split_whitespace() {
        if length > 0 && length + 1 + word.len() > 125 {
            text.push('\n');
            length = 0;
        } else if length > 0 {
            text.push(' ');
            length += 1;
        }
        text.push_str(word);
        length += word.len();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(json: &str) -> Section {
        let (table, json) = ("a table".into(), Some(serde_json::from_str(json).unwrap()));
        Section { row: &ROWS[0], table, json, picture: true, error: None }
    }

    #[test]
    fn page_when_a_ratio_is_within_its_goal_says_so() {
        let ratio = |value: f64| {
            format!(
                r#"{{"machine":{{"cpu":"a CPU"}},"ratios":[{{"peer":"ovs-dpdk","metric":"{CYCLES}","frame_bytes":64,
                "flows":1,"millrace_over_peer":{value}}}]}}"#
            )
        };
        let met = text(&[section(&ratio(0.4))]).unwrap();
        assert!(met.contains("| vhost | 64 B: cycles, ovs-dpdk | at most 0.45 | 0.40 | met |"), "{met}");
        assert!(met.contains("512 B: cycles, ovs-dpdk | at most 0.5 | not measured"), "{met}");
        let missed = text(&[section(&ratio(0.5))]).unwrap();
        assert!(missed.contains("0.50 | missed |"), "{missed}");
    }

    #[test]
    fn page_when_a_row_failed_says_so_at_its_place() {
        let failed = Section { error: Some("it broke".into()), ..section("{}") };
        assert!(text(&[failed]).unwrap().contains("**Not measured**: it broke."));
    }

    #[test]
    fn goals_are_of_rows_that_there_are() {
        assert!(GOALS.iter().all(|goal| ROWS.iter().any(|row| row.name == goal.row)));
    }
}
